"""What a Region has of backups, as EC2 and the work bucket tell it, in the plain values that decisions are made of."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import has_volume
from blockferry.backups.settings import Settings
from blockferry.core.quotas import FILTER_VALUES
from blockferry.core.together import together
from blockferry.jobs.folder import JOB, RECEIPT, STARTED, JobFolder
from blockferry.jobs.workspace import Workspace
from blockferry.lifecycle.expiring import COMPLETED, Backup
from blockferry.lifecycle.schedule import Schedule
from blockferry.lifecycle.tags import AUTOMATED, MADE_TAG, SLOT_TAG, TagNames, destination_of
from blockferry.verification.record import PLAN as VERIFICATION

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

PAGE = 1_000
"""Snapshots in an answer of DescribeSnapshots, the most that EC2 gives."""

AT_A_TIME = 16
"""Small objects of the work bucket that are read side by side."""

FOLDERS = 256
"""Folders of jobs that are looked at before the next ones are listed."""

EXPIRED_LOCK = "expired"

_SNAPSHOT = re.compile(rb"snap-[0-9a-f]{8,17}")


def backups_of(ec2: EC2Client, names: TagNames, schedule: Schedule) -> list[Backup]:
    """The account's snapshots in the client's Region that are backups by tag, whatever their state."""
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"],
        Filters=[{"Name": f"tag:{names.type}", "Values": [AUTOMATED]}],
        PaginationConfig={"PageSize": PAGE},
    )
    return [backup_of(found, names, schedule) for page in pages for found in page["Snapshots"]]


def described(ec2: EC2Client, ids: Sequence[str], names: TagNames, schedule: Schedule) -> dict[str, Backup]:
    """Those of the snapshots that are there, as they are now, by their ids."""
    found: dict[str, Backup] = {}
    for first in range(0, len(ids), FILTER_VALUES):
        pages = ec2.get_paginator("describe_snapshots").paginate(
            OwnerIds=["self"], Filters=[{"Name": "snapshot-id", "Values": list(ids[first : first + FILTER_VALUES])}]
        )
        found |= {each["SnapshotId"]: backup_of(each, names, schedule) for page in pages for each in page["Snapshots"]}
    return found


def backup_of(found: Mapping[str, Any], names: TagNames, schedule: Schedule) -> Backup:
    """A snapshot of an answer of DescribeSnapshots."""
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", ())}
    volume = found.get("VolumeId") or ""
    is_copy = names.source_snapshot in tags
    started = (_instant(tags, MADE_TAG) if is_copy else None) or found["StartTime"]
    if is_copy or not has_volume(volume):
        # Of a disk that nobody can tell it is the only backup that there is.
        volume = tags.get(names.source_volume) or found["SnapshotId"]
    return Backup(
        snapshot_id=found["SnapshotId"],
        volume=volume,
        state=found["State"],
        started=started,
        made=schedule.day_of(_instant(tags, SLOT_TAG) or started),
        tags=tags,
    )


def _instant(tags: Mapping[str, str], name: str) -> datetime | None:
    """What a tag of ours says, unless somebody has changed it."""
    try:
        instant = datetime.fromisoformat(tags[name])
    except (KeyError, ValueError):
        return None
    return instant if instant.tzinfo is not None else None


def with_images(ec2: EC2Client, backups: Sequence[Backup], *, all_of_region: bool) -> list[Backup]:
    """The same backups with the images that are registered of them, disabled ones too.

    ``all_of_region``: every image of the account is asked for at once, and else those of these backups only.
    """
    images: dict[str, list[str]] = defaultdict(list)
    paginator = ec2.get_paginator("describe_images")
    questions: Iterable[list[Any]] = [[]]
    if not all_of_region:
        ids = [backup.snapshot_id for backup in backups]
        questions = [
            [{"Name": "block-device-mapping.snapshot-id", "Values": ids[first : first + FILTER_VALUES]}]
            for first in range(0, len(ids), FILTER_VALUES)
        ]
    for filters in questions:
        for page in paginator.paginate(Owners=["self"], IncludeDisabled=True, Filters=filters):
            for image in page["Images"]:
                for device in image.get("BlockDeviceMappings", ()):
                    if snapshot_id := device.get("Ebs", {}).get("SnapshotId"):
                        images[snapshot_id].append(image["ImageId"])
    return [replace(backup, images=tuple(sorted(set(images[backup.snapshot_id])))) for backup in backups]


def with_locks(ec2: EC2Client, backups: Sequence[Backup]) -> list[Backup]:
    """The same backups with their locks."""
    locks: dict[str, str] = {}
    more: dict[str, Any] = {}
    while True:
        answer = ec2.describe_locked_snapshots(MaxResults=PAGE, **more)
        locks |= {each["SnapshotId"]: each["LockState"] for each in answer["Snapshots"]}
        if not answer.get("NextToken"):
            break
        more = {"NextToken": answer["NextToken"]}
    holding = {snapshot_id: state for snapshot_id, state in locks.items() if state != EXPIRED_LOCK}
    return [replace(backup, lock=holding.get(backup.snapshot_id)) for backup in backups]


def shared_with(ec2: EC2Client, snapshot_id: str) -> tuple[str, ...]:
    """Who else may make volumes of a snapshot: accounts, or ``all``."""
    answer = ec2.describe_snapshot_attribute(SnapshotId=snapshot_id, Attribute="createVolumePermission")
    return tuple(
        sorted(each.get("UserId") or each.get("Group") or "" for each in answer.get("CreateVolumePermissions", ()))
    )


def with_jobs(workspace: Workspace, backups: Sequence[Backup]) -> list[Backup]:
    """The same backups with the jobs in flight that name them, and with what the next archive of their volume builds
    upon: the newest whose archive a job of the last weeks has made."""
    named: dict[str, set[str]] = defaultdict(set)
    archived: dict[str, str] = {}
    known = {backup.snapshot_id: backup for backup in backups}
    for folder, ids, manifest in _looked_at(workspace.folders()):
        for snapshot_id in ids & known.keys():
            if manifest is not None:
                archived[snapshot_id] = manifest
            else:
                named[snapshot_id].add(f"{folder.operation} {folder.job_id}")
    newest: dict[str, Backup] = {}
    for snapshot_id in archived:
        backup = known[snapshot_id]
        other = newest.get(backup.volume)
        if other is None or (other.started, other.snapshot_id) < (backup.started, snapshot_id):
            newest[backup.volume] = backup
    needed = {
        backup.snapshot_id: f"the next archive of {volume} builds upon {archived[backup.snapshot_id]}"
        for volume, backup in newest.items()
    }
    return [
        replace(
            backup,
            jobs=tuple(sorted(named.get(backup.snapshot_id, ()))),
            needed=(*backup.needed, *((needed[backup.snapshot_id],) if backup.snapshot_id in needed else ())),
        )
        for backup in backups
    ]


def _looked_at(folders: Iterator[JobFolder]) -> Iterator[tuple[JobFolder, set[str], str | None]]:
    """Each job that is not over with the snapshots that it names, and each archive that was made with the snapshot that
    it is of, and its manifest."""
    some: list[JobFolder] = []
    for folder in folders:
        some.append(folder)
        if len(some) == FOLDERS:
            yield from _these(some)
            some = []
    yield from _these(some)


def _these(folders: list[JobFolder]) -> Iterator[tuple[JobFolder, set[str], str | None]]:
    for folder, found in zip(folders, together(_names, folders, most=AT_A_TIME), strict=True):
        yield folder, *found


def _names(folder: JobFolder) -> tuple[set[str], str | None]:
    receipt = folder.read(RECEIPT)
    if receipt is not None:
        if folder.operation != "archive":
            return set(), None
        manifest = re.search(rb'"manifest_uri": *"([^"]+)"', receipt)
        source = re.search(rb'"snapshot_id": *"(snap-[0-9a-f]+)"', receipt)
        if manifest is None or source is None:
            return set(), None
        return {source[1].decode()}, manifest[1].decode()
    if folder.swept() is not None:
        return set(), None
    # Whatever a record says of a snapshot, the job may yet look at it.
    records = (folder.read(name) for name in (JOB, STARTED, VERIFICATION))
    return {each.decode() for body in records for each in _SNAPSHOT.findall(body or b"")}, None


def with_copies(call: Call, settings: Settings, backups: Sequence[Backup]) -> tuple[list[Backup], list[str]]:
    """The same backups with the destinations where a completed copy of them is, for those whose tags do not tell it.

    A destination that is not reached has none; the second result says so, and spoils nothing else.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    names = settings.names
    for backup in backups:
        for name in re.split(r"[\s,;]+", backup.tags.get(names.destinations, "")):
            if name and backup.state == COMPLETED:
                wanted[name].add(backup.snapshot_id)
    found: dict[str, set[str]] = defaultdict(set)
    notes: list[str] = []

    def look(name: str) -> set[str] | str:
        try:
            return originals_of(call.ec2(place_of(settings, name)), names, name, place_of(settings, name).region)
        except (ClientError, BotoCoreError) as error:
            return f"destination {name} was not reached, so no copy there is known: {error}"

    for name, answer in zip(wanted, together(look, wanted, most=AT_A_TIME), strict=True):
        if isinstance(answer, str):
            notes.append(answer)
        else:
            for snapshot_id in answer & wanted[name]:
                found[snapshot_id].add(name)
    return [replace(backup, copies=frozenset(found[backup.snapshot_id])) for backup in backups], notes


def originals_of(ec2: EC2Client, names: TagNames, destination: str, region: str) -> set[str]:
    """Ids of the snapshots of which the client's ``region`` has a completed copy for a destination."""
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"],
        Filters=[
            {"Name": "tag-key", "Values": [names.source_snapshot]},
            {"Name": "status", "Values": ["completed"]},
        ],
        PaginationConfig={"PageSize": PAGE},
    )
    copies = ({tag["Key"]: tag["Value"] for tag in found["Tags"]} for page in pages for found in page["Snapshots"])
    return {tags[names.source_snapshot] for tags in copies if destination_of(tags, region) == destination}


def place_of(settings: Settings, name: str) -> Identity:
    """Where a destination is."""
    return Identity(settings.destination(name).region)
