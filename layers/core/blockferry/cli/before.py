"""What the command line can know in a second before it starts a job: Regions and snapshots that are not there.

The first state of a job finds out the same, and more, but by then an execution is spent on a typing error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, UnknownRegionError

from blockferry.aws import snapshots
from blockferry.core.errors import InvalidRequest
from blockferry.sources.copies import copies_of, refuse_second_copies

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

LOOKS_SECONDS = (0.0, 1.0, 2.0)
"""Pauses before each look at snapshots that EC2 does not know: what was made a moment ago may not be shown yet."""


@dataclass(frozen=True)
class Named:
    """A snapshot in the own account that an input names in this ``field``; ``read``: it has to be readable."""

    field: str
    snapshot_id: str
    region: str
    read: bool


def refuse_what_is_not_there(
    request: Mapping[str, Any],
    *,
    home: str,
    client: Callable[[str], EC2Client],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Raise ``InvalidRequest`` that names every Region that AWS has not, and every snapshot that is not there or cannot
    be read in its present state.

    ``home`` is the Region of the deployment. What is in another account, or may not be looked at, is left to the job.
    """
    regions = dict(_regions(request, home))
    # One session for all: each reads botocore's table of Regions anew.
    session = boto3.Session()
    listed = [
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("ec2", partition_name=partition)
    ]
    bad = {name for name in regions.values() if not _may_be(session, name, listed)}
    wrong = [
        f"- {field}: {name} is no Region of AWS{_meant(name, listed)}" for field, name in regions.items() if name in bad
    ]
    by_region: dict[str, list[Named]] = {}
    for named in _snapshots(request, home):
        if named.region not in bad:
            by_region.setdefault(named.region, []).append(named)
    for region, those in by_region.items():
        given = bool((request.get("source") or {}).get("region"))
        wrong += _doubts(those, region, client(region), sleep, given=given)
    if wrong:
        raise InvalidRequest("\n".join(["nothing was started:", *wrong]))


def _may_be(session: boto3.Session, region: str, listed: Sequence[str]) -> bool:
    """Whether a Region may be one: botocore lists it, or it is named as those are that AWS has opened since."""
    try:
        session.get_partition_for_region(region)
    except UnknownRegionError:
        return False
    # AWS's Regions are named after points of the compass, of which none has been added with a Region for years.
    return region in listed or any(region.split("-")[1:-1] == each.split("-")[1:-1] for each in listed)


def _meant(region: str, listed: Sequence[str]) -> str:
    close = get_close_matches(region, listed, n=2, cutoff=0.8)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _regions(request: Mapping[str, Any], home: str) -> Iterator[tuple[str, str]]:
    yield "source.region", _source_region(request, home)
    for number, target in enumerate(request.get("targets") or ()):
        if target.get("region"):
            yield f"targets[{number}].region", target["region"]


def _source_region(request: Mapping[str, Any], home: str) -> str:
    return str((request.get("source") or {}).get("region") or home)


def _snapshots(request: Mapping[str, Any], home: str) -> Iterator[Named]:
    if not (request.get("source") or {}).get("role_arn"):
        region = _source_region(request, home)
        for field in ("snapshot_id", "base_snapshot_id"):
            if request.get(field):
                yield Named(field, request[field], region, read=True)
        for number, name in enumerate(request.get("chain") or ()):
            yield Named(f"chain[{number}]", name, region, read=True)
    for number, target in enumerate(request.get("targets") or ()):
        if target.get("parent_snapshot_id") and not target.get("role_arn"):
            field = f"targets[{number}].parent_snapshot_id"
            yield Named(field, target["parent_snapshot_id"], target["region"], read=False)


def _where_it_comes_from(field: str, *, given: bool) -> str:
    """Of the Region of a source that nobody has named, which option names it."""
    return "" if given or field.startswith("targets") else ", which --from names where it is not that of the deployment"


def _doubts(
    those: list[Named], region: str, ec2: EC2Client, sleep: Callable[[float], None], *, given: bool
) -> list[str]:
    wanted = {named.snapshot_id for named in those}
    known: dict[str, snapshots.SnapshotFacts] = {}
    for pause in LOOKS_SECONDS:
        if pause:
            sleep(pause)
        try:
            known = {facts.snapshot_id: facts for facts in snapshots.existing(ec2, wanted)}
        except (ClientError, BotoCoreError):
            return []
        if known.keys() == wanted:
            break
    told = []
    for named in those:
        facts = known.get(named.snapshot_id)
        if facts is None:
            told.append(
                f"- {named.field}: EC2 does not know {named.snapshot_id} in {region}; check the id and its Region"
                + _where_it_comes_from(named.field, given=given)
                + ". "
                "What was made a moment ago may not be shown yet, and a snapshot of another account must be shared "
                "with this one, or be read through a role"
            )
        elif named.read:
            try:
                snapshots.refuse_unreadable(facts, region=region)
            except InvalidRequest as error:
                told.append(f"- {named.field}: {error}")
    return told


def copies_there(
    request: Mapping[str, Any], *, home: str, client: Callable[[str], EC2Client]
) -> list[dict[str, str]] | None:
    """The proved copies, with ``region`` and ``snapshot_id``, that the targets of a sync with ``follow`` have already
    of the very snapshot: then there is nothing to do. ``None`` when there is, or nobody may look from here.

    Raises ``InvalidRequest`` when only some targets have one.
    """
    targets = request.get("targets") or ()
    if not request.get("follow") or any(place.get("role_arn") for place in (request.get("source") or {}, *targets)):
        return None
    region, snapshot_id = _source_region(request, home), request["snapshot_id"]
    try:
        source = next(iter(snapshots.existing(client(region), [snapshot_id])), None)
        lineage = request.get("lineage") or (source and snapshots.lineage_of(source))
        if not lineage:
            return None
        found = [
            snapshots.proven_copies(client(target["region"]), lineage=lineage, source_region=region)
            for target in targets
        ]
    except (ClientError, BotoCoreError):
        return None
    try:
        refuse_second_copies([target["region"] for target in targets], snapshot_id, found)
    except InvalidRequest:
        there = [copies_of(snapshot_id, each) for each in found]
        if not all(there):
            raise
        return [
            {"region": target["region"], "snapshot_id": facts.snapshot_id}
            for target, each in zip(targets, there, strict=True)
            for facts in each
        ]
    return None
