"""What stands already where the copies would go: proved copies of the snapshot and of the base, and EC2's own.

Tags and descriptions tell, as they do for sync; nothing is read there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import snapshots
from blockferry.aws.call import Call
from blockferry.aws.errors import translated
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.errors import InvalidRequest
from blockferry.core.together import together
from blockferry.cost.choice import Destination
from blockferry.cost.prices import partition_of
from blockferry.inspection.inspected import Inspected
from blockferry.sources.meaning import for_delta, on_parent
from blockferry.targets.on_parent import refuse_unencrypted_parent

LOOKS_AT_A_TIME = 8
"""Places that are looked at side by side; each look is a few requests to the EC2 of one Region."""


@dataclass(frozen=True)
class Place:
    """A destination, and as whom to look there."""

    destination: Destination
    identity: Identity


def looked_up(places: Sequence[Place], what: Inspected, call: Call) -> tuple[list[Destination], list[str]]:
    """The destinations with what stands there, and notes on those that could not be looked at."""
    found = together(lambda place: _looked_up(place, what, call), places, most=LOOKS_AT_A_TIME)
    return [destination for destination, _ in found], [note for _, note in found if note]


def _looked_up(place: Place, what: Inspected, call: Call) -> tuple[Destination, str]:
    destination, region = place.destination, place.identity.region
    if partition_of(region) != partition_of(call.aws.own_region):
        return destination, ""
    try:
        return _with_what_stands(place, what, call), ""
    except (ClientError, BotoCoreError) as error:
        unseen = f"what stands in {region} of account {destination.account} could not be looked at"
        return replace(destination, no_parent=unseen, seen=False), f"{unseen}: {translated(error)}"


def _with_what_stands(place: Place, what: Inspected, call: Call) -> Destination:
    destination, region = place.destination, place.identity.region
    wanted = [facts.snapshot_id for facts in (what.source, what.base) if facts is not None]
    copies = snapshots.copies_of(call.ec2(place.identity), wanted, source_region=what.region)
    fitting = [facts for facts in copies if _fits(facts, destination, what.source)]
    already = _first(facts for facts in fitting if facts.proved_copy_of(what.source.snapshot_id, region=what.region))
    destination = replace(destination, copy_id=already)
    if what.base is None:
        return destination if already else replace(destination, earlier_id=_earlier(place, what, call))
    base = what.base
    native = _first(facts for facts in fitting if facts.copied_from(base.snapshot_id, region=what.region))
    destination = replace(destination, native_base_id=native)
    parents = [facts for facts in copies if facts.proved_copy_of(base.snapshot_id, region=what.region)]
    for parent in parents:
        why_not = _no_parent(parent, base, place, what, call)
        if why_not is None:
            return replace(destination, parent_id=parent.snapshot_id, no_parent=None)
        destination = replace(destination, no_parent=destination.no_parent or why_not)
    if not parents:
        missing = f"no proved copy of {base.snapshot_id} stands in {region} of account {destination.account}"
        destination = replace(destination, no_parent=missing)
    return destination


def _earlier(place: Place, what: Inspected, call: Call) -> str | None:
    """The newest earlier snapshot of the volume that is still there and of which a proved copy stands."""
    source = what.source
    if not snapshots.has_volume(source.volume_id):
        return None
    ec2 = call.ec2(place.identity)
    copies = snapshots.proven_copies(ec2, lineage=source.volume_id, source_region=what.region)
    made_of = {facts.tags[snapshots.SOURCE_TAG] for facts in copies if _fits(facts, place.destination, source)}
    alive = snapshots.existing(call.ec2(what.identity), made_of)
    earlier = [facts for facts in alive if facts.start_time < source.start_time and facts.state == "completed"]
    earlier.sort(key=lambda facts: facts.start_time, reverse=True)
    return _first(facts for facts in earlier if facts.tier == "standard")


def _first(found: Iterator[SnapshotFacts]) -> str | None:
    return next((facts.snapshot_id for facts in found), None)


def _fits(copy: SnapshotFacts, destination: Destination, source: SnapshotFacts) -> bool:
    """Whether it is encrypted as the copy is to be."""
    if destination.kms_key_arn is not None:
        return copy.kms_key_id == destination.kms_key_arn
    if destination.encrypted is None:
        # A copy is never less encrypted than its source, and may be more.
        return copy.encrypted or not source.encrypted
    return copy.encrypted is destination.encrypted


def _no_parent(parent: SnapshotFacts, base: SnapshotFacts, place: Place, what: Inspected, call: Call) -> str | None:
    """Why a proved copy of the base cannot be the parent of a sync; ``None`` when it can."""
    name = f"{parent.snapshot_id} in {place.identity.region}, a proved copy of {base.snapshot_id},"
    if not _fits(parent, place.destination, what.source):
        return f"{name} has another encryption than the copy is to have"
    if base.start_time > what.source.start_time or base.size_gib > what.source.size_gib:
        return (
            f"{base.snapshot_id} is newer or larger than {what.source.snapshot_id}, and a sync leads to the later one"
        )
    try:
        refuse_unencrypted_parent(parent, place.identity, call, name=name)
        holes = for_delta(None, base, what.source)
        on_parent(parent, snapshot=what.source, delta=holes, clone=True, verify=False, name=name)
    except InvalidRequest as error:
        return str(error)
    return None
