"""What EC2 says of the targets of a job: one request for all that are in one place, whatever the others are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import snapshots
from blockferry.aws.errors import translated
from blockferry.aws.sessions import Aws, Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.errors import BlockferryError, InvalidRequest
from blockferry.jobs.record import JobTarget


@dataclass(frozen=True)
class Looked:
    """By the positions of the targets: what EC2 says, and why it says nothing. Each target is in one of them.
    ``InvalidRequest`` stands for a snapshot that EC2 does not know."""

    facts: Mapping[int, SnapshotFacts]
    errors: Mapping[int, BlockferryError]


def look_at(targets: Mapping[int, JobTarget], aws: Aws) -> Looked:
    """The facts of started targets, given by their positions. A place that does not answer says nothing of others."""
    places: dict[Identity, dict[str, int]] = {}
    for number, target in targets.items():
        places.setdefault(target.identity, {})[target.snapshot_id] = number
    facts: dict[int, SnapshotFacts] = {}
    errors: dict[int, BlockferryError] = {}
    for identity, numbers in places.items():
        try:
            found = snapshots.existing(aws.ec2(identity), numbers)
        except (ClientError, BotoCoreError) as error:
            errors |= dict.fromkeys(numbers.values(), translated(error))
            continue
        facts |= {numbers[each.snapshot_id]: each for each in found}
        for snapshot_id in numbers.keys() - {each.snapshot_id for each in found}:
            errors[numbers[snapshot_id]] = InvalidRequest(f"EC2 does not know {snapshot_id} in {identity.region}")
    return Looked(facts, errors)
