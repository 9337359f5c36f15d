"""The tag language: what the tags of instances, volumes and snapshots ask for (docs/tags.md).

A bad value never stops a run: it is told as a ``Problem``, and the default holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date

from blockferry.lifecycle.retention import NotARetention, Retention

CONTROL_PREFIX = "blockferry:"
"""Of the tags that are ours alone."""

AUTOMATED = "Automated"
"""The value of ``Type`` on a snapshot that a backup has made, or that is a copy of one."""

SLOT_TAG = "blockferry:slot"
"""On a backup: the slot of the schedule that it was made for, as ``2026-11-27T01:00:00Z``."""

MARK_TAG = "blockferry:expires"
"""On a snapshot that was found to be due: by which run. Another run deletes it."""

COPY_TAG = "blockferry:copy:"
"""Followed by the name of a destination, on a backup whose copy there was seen completed: the copy's id. It stays when
the copy expires, so that no second one is made."""

DESTINATION_TAG = "blockferry:destination"
"""On a copy: the name of the destination that it was made for."""

MADE_TAG = "blockferry:made"
"""On a copy: when its original was begun, as ``2026-11-27T01:00:03+00:00``. A copy that is made late of an old backup
is no newer for that."""

DRILL_TAG = "blockferry:drill"
"""On what an exercise has made: no backup to rely on."""

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, kw_only=True)
class TagNames:
    """Keys of the tags that operators and other tools see. The defaults are those of aws-ebs-snapshots-lambda."""

    backup: str = "Backup"
    retention: str = "Retention"
    destinations: str = "Copy_Dest"
    keep: str = "KeepForever"
    delete_on: str = "DeleteOn"
    type: str = "Type"
    source_snapshot: str = "Source_SnapshotId"
    source_instance: str = "Source_InstanceId"
    source_volume: str = "Source_VolumeId"
    source_device: str = "Source_Device"
    source_region: str = "Source_Region"

    @property
    def of_backups(self) -> frozenset[str]:
        """Keys that say how long a backup lives and whose it is: no copy but that of ``replicate`` carries them."""
        return frozenset(
            {
                self.backup,
                self.retention,
                self.destinations,
                self.keep,
                self.delete_on,
                self.type,
                self.source_snapshot,
                self.source_instance,
                self.source_volume,
                self.source_device,
                self.source_region,
            }
        )


@dataclass(frozen=True)
class Problem:
    """A value that means nothing, on what, and what holds instead."""

    resource: str
    tag: str
    value: str
    told: str

    def __str__(self) -> str:
        return f"{self.resource}: tag {self.tag} is {self.value!r}: {self.told}"


def destination_of(tags: Mapping[str, str], region: str) -> str:
    """The name of the destination that a copy is for: one that does not say so was made for its Region."""
    return tags.get(DESTINATION_TAG) or region


class Told:
    """The tags of one resource, read: each answer beside the ``problems`` met so far."""

    def __init__(self, resource: str, tags: Mapping[str, str], names: TagNames) -> None:
        self.resource = resource
        self.tags = tags
        self.names = names
        self.problems: list[Problem] = []

    def backup(self) -> bool | None:
        """Whether a backup is asked for (Yes), refused (No), or neither: in whatever case these are written."""
        value = self.tags.get(self.names.backup)
        if value is None:
            return None
        known = {"yes": True, "no": False}.get(value.strip().lower())
        if known is None:
            self._problem(self.names.backup, "it means nothing but as Yes or No, and is taken for not there")
        return known

    def retention(self, default: Retention) -> Retention:
        """How long its backups are kept."""
        value = self.tags.get(self.names.retention)
        if value is None:
            return default
        try:
            return Retention.read(value, default_days=default.days)
        except NotARetention as error:
            self._problem(self.names.retention, f"{error}; its backups are kept for {default}")
            return default

    def destinations(self, known: Collection[str]) -> tuple[str, ...]:
        """Names of the destinations to which its backups are copied, each once; those that are not ``known`` are a
        problem, and left out."""
        wanted = self.wanted()
        for name in wanted:
            if name not in known:
                self._problem(
                    self.names.destinations,
                    f"{name} is no destination of this deployment and no Region that it copies to; "
                    "what else it names is copied",
                )
        return tuple(name for name in wanted if name in known)

    def wanted(self) -> tuple[str, ...]:
        """All that ``Copy_Dest`` names, each once, whether there is such a destination or not."""
        names = re.split(r"[\s,;]+", self.tags.get(self.names.destinations, ""))
        return tuple(dict.fromkeys(name for name in names if name))

    def delete_on(self) -> date | None:
        """The day from which on it may be deleted; ``None`` where there is none, or none that can be read."""
        value = self.tags.get(self.names.delete_on)
        if value is None:
            return None
        try:
            # Exactly this form: 2026-1-5 or 20261105 is somebody's slip, and what they meant is not known.
            if not _DAY.fullmatch(value):
                raise ValueError
            return date.fromisoformat(value)
        except ValueError:
            self._problem(self.names.delete_on, "it is no day such as 2026-12-31, so it is not deleted")
            return None

    @property
    def kept_forever(self) -> bool:
        """Whether it is protected: by the tag with any value, however its key is written."""
        return any(key.lower() == self.names.keep.lower() for key in self.tags)

    @property
    def automated(self) -> bool:
        """Whether a backup by tag has made it, or it is a copy of one."""
        return self.tags.get(self.names.type) == AUTOMATED

    def _problem(self, tag: str, told: str) -> None:
        self.problems.append(Problem(self.resource, tag, self.tags[tag], told))
