"""Backup: which volumes are backed up in a slot, together with which others, and under which tags.

Nothing here asks AWS.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from blockferry.core.quotas import MAX_DESCRIPTION, MAX_TAGS
from blockferry.lifecycle.items import Action, Item, Outcome
from blockferry.lifecycle.retention import A_WEEK, Retention
from blockferry.lifecycle.schedule import slot_name
from blockferry.lifecycle.tags import AUTOMATED, CONTROL_PREFIX, SLOT_TAG, Problem, TagNames, Told

GONE = ("shutting-down", "terminated")
"""States of instances whose volumes are on their way out."""

IN_USE = ("in-use", "available")
"""States of volumes that EC2 takes snapshots of."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An instance, and the volumes that are attached to it: their ids by device, as ``/dev/xvda``. ``root`` is the
    device that it boots from."""

    instance_id: str
    state: str
    tags: Mapping[str, str]
    devices: Mapping[str, str]
    root: str = ""

    @property
    def name(self) -> str:
        return self.tags.get("Name") or self.instance_id


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume by itself."""

    volume_id: str
    state: str
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One volume of a set, with the tags that its backup is to have in the end."""

    volume_id: str
    device: str
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class BackupSet:
    """Backups that are made by one request, so that they are of one instant: of several volumes of the instance
    ``instance_id``, or of one volume, with no instance named. ``resource`` is what asked for it.

    ``excluded`` are the instance's other volumes, but for the one that it boots from, of which ``without_root`` says
    whether it is left out. ``at_once`` are the tags that all of them have from their first
    moment: with these alone none lives for ever, and whoever comes later finds which slot it is of.
    ``copies_tags``: EC2 may copy the volumes' own tags in the same request, since nothing of them stands against ours.
    """

    resource: str
    instance_id: str | None
    volumes: tuple[Wanted, ...]
    excluded: tuple[str, ...]
    without_root: bool
    description: str
    at_once: Mapping[str, str]
    copies_tags: bool


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds where no tag says more; ``made`` is the day of the slot where the schedule is."""

    names: TagNames = field(default_factory=TagNames)
    retention: Retention = A_WEEK
    region: str
    slot: datetime
    made: date


@dataclass(frozen=True)
class Selection:
    """What is to be backed up; an item for each resource that was looked at and is not; the tags that mean nothing."""

    sets: tuple[BackupSet, ...]
    items: tuple[Item, ...]
    problems: tuple[Problem, ...]


def selection(
    instances: Iterable[Instance],
    volumes: Iterable[Volume],
    taken: Mapping[str, str],
    defaults: Defaults,
    *,
    destinations: Collection[str],
) -> Selection:
    """What a slot lacks. ``taken`` has the backup of the slot that a volume has already, by the id of the volume.

    A volume that several instances have attached belongs to the first of them by id that is backed up. A volume's own
    tags stand above its instance's.
    """
    choosing = _Choosing({each.volume_id: each for each in volumes}, taken, defaults, destinations)
    for instance in sorted(instances, key=lambda each: each.instance_id):
        choosing.instance(instance)
    for volume_id in sorted(choosing.volumes):
        choosing.alone(choosing.volumes[volume_id])
    return Selection(tuple(choosing.sets), tuple(choosing.items), tuple(dict.fromkeys(choosing.problems)))


class _Choosing:
    def __init__(
        self,
        volumes: Mapping[str, Volume],
        taken: Mapping[str, str],
        defaults: Defaults,
        destinations: Collection[str],
    ) -> None:
        self.volumes = volumes
        self.sets: list[BackupSet] = []
        self.items: list[Item] = []
        self.problems: list[Problem] = []
        self._taken = taken
        self._defaults = defaults
        self._destinations = destinations
        self._decided: set[str] = set()
        self._owner: dict[str, tuple[Instance, str]] = {}

    def instance(self, instance: Instance) -> None:
        told = self._told(instance.instance_id, instance.tags)
        wanted = told.backup()
        self.problems += told.problems
        for device, volume_id in instance.devices.items():
            self._owner.setdefault(volume_id, (instance, device))
        if wanted is None:
            return
        if not wanted:
            self._skip(instance.instance_id, f"its tag {self._defaults.names.backup} says No")
        elif instance.state in GONE:
            self._skip(instance.instance_id, f"it is {instance.state}")
        elif not instance.devices:
            self._skip(instance.instance_id, "it has no EBS volume")
        else:
            self._together(instance, told)

    def _together(self, instance: Instance, told: Told) -> None:
        members = {
            device: self.volumes.get(volume_id, Volume(volume_id=volume_id, state="in-use", tags={}))
            for device, volume_id in instance.devices.items()
        }
        chosen = {device: volume for device, volume in sorted(members.items()) if self._takes(volume)}
        if chosen:
            self._add(instance.instance_id, instance, told, chosen, [each.volume_id for each in members.values()])

    def alone(self, volume: Volume) -> None:
        """A volume that asks for itself, whatever it is attached to."""
        told = self._told(volume.volume_id, volume.tags)
        wanted = told.backup()
        self.problems += told.problems
        if wanted is None or volume.volume_id in self._decided:
            return
        if self._takes(volume):
            owner, device = self._owner.get(volume.volume_id, (None, ""))
            self._add(volume.volume_id, owner, told, {device: volume}, [volume.volume_id])

    def _takes(self, volume: Volume) -> bool:
        """Whether it is to be backed up now, and by nobody before; otherwise an item says why not."""
        if volume.volume_id in self._decided:
            return False
        self._decided.add(volume.volume_id)
        told = self._told(volume.volume_id, volume.tags)
        if told.backup() is False:
            self._skip(volume.volume_id, f"its tag {self._defaults.names.backup} says No")
        elif volume.state not in IN_USE:
            self._skip(volume.volume_id, f"it is {volume.state}")
        elif (snapshot_id := self._taken.get(volume.volume_id)) is not None:
            self._skip(volume.volume_id, f"{snapshot_id} is its backup of {slot_name(self._defaults.slot)}")
        else:
            return True
        return False

    def _add(
        self,
        resource: str,
        instance: Instance | None,
        told: Told,
        chosen: Mapping[str, Volume],
        members: Sequence[str],
    ) -> None:
        names, region = self._defaults.names, self._defaults.region
        wanted = [self._wanted(instance, told, device, volume) for device, volume in chosen.items()]
        first, together = wanted[0], len(wanted) > 1
        if instance is not None and together:
            description = f"{instance.name} ({instance.instance_id}) - {region}"
        else:
            where = f" ({first.device})" if first.device else ""
            owner = "" if instance is None else f"{instance.name} ({instance.instance_id}) - "
            description = f"{owner}{first.volume_id}{where} - {region}"
        ids = [each.volume_id for each in wanted]
        root = None if instance is None else instance.devices.get(instance.root)
        shared = _shared([each.tags for each in wanted])
        # The latest day of all, until each has its own.
        shared[names.delete_on] = max(each.tags[names.delete_on] for each in wanted)
        self.sets.append(
            BackupSet(
                resource=resource,
                instance_id=instance.instance_id if instance is not None and together else None,
                volumes=tuple(wanted),
                excluded=tuple(each for each in members if each not in ids and each != root),
                without_root=root is not None and root not in ids,
                description=description[:MAX_DESCRIPTION],
                at_once=shared,
                copies_tags=all(
                    _may_copy(volume.tags, each, shared, names)
                    for volume, each in zip(chosen.values(), wanted, strict=True)
                ),
            )
        )

    def _wanted(self, instance: Instance | None, told: Told, device: str, volume: Volume) -> Wanted:
        names = self._defaults.names
        own = self._told(volume.volume_id, volume.tags)
        retention = own.retention(told.retention(self._defaults.retention))
        asking = own if names.destinations in volume.tags else told
        destinations = asking.destinations(self._destinations)
        self.problems += [*told.problems, *own.problems]
        ours = {
            names.type: AUTOMATED,
            names.retention: str(retention),
            names.delete_on: retention.first_delete_on(self._defaults.made).isoformat(),
            names.source_volume: volume.volume_id,
            names.source_region: self._defaults.region,
            SLOT_TAG: slot_name(self._defaults.slot),
        }
        if device:
            ours[names.source_device] = device
        if instance is not None:
            ours[names.source_instance] = instance.instance_id
        if destinations:
            # Only those that there are: a copy that can never be complete would keep its original for ever.
            ours[names.destinations] = " ".join(destinations)
        theirs = {
            key: value
            for key, value in sorted(volume.tags.items())
            if key not in ours and not key.startswith(("aws:", CONTROL_PREFIX)) and key not in names.of_backups
        }
        room = MAX_TAGS - len(ours)
        if len(theirs) > room:
            left = ", ".join(list(theirs)[room:])
            self.problems.append(
                Problem(volume.volume_id, names.type, AUTOMATED, f"its backup has no place for its own tags {left}")
            )
        return Wanted(volume_id=volume.volume_id, device=device, tags=ours | dict(list(theirs.items())[:room]))

    def _told(self, resource: str, tags: Mapping[str, str]) -> Told:
        return Told(resource, tags, self._defaults.names)

    def _skip(self, resource: str, reason: str) -> None:
        self.items.append(Item(resource, Action.NONE, Outcome.SKIPPED, reason))


def _shared(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all have in common."""
    first, *others = tags
    return {key: value for key, value in first.items() if all(each.get(key) == value for each in others)}


def _may_copy(theirs: Mapping[str, str], wanted: Wanted, ours: Mapping[str, str], names: TagNames) -> bool:
    """Whether EC2 may put a volume's own tags beside ours on its snapshot: none that stands for itself there or comes
    twice, and not too many in the end."""
    own = {key for key in theirs if not key.startswith("aws:")}
    clash = own & (ours.keys() | names.of_backups)
    return not clash and len(own | wanted.tags.keys()) <= MAX_TAGS
