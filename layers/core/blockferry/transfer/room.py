"""Room for a job's targets: an account has a hundred pending snapshots of the direct APIs in a Region, and no more."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import snapshots
from blockferry.aws.sessions import Identity
from blockferry.core.errors import InvalidRequest
from blockferry.core.quotas import PENDING_SNAPSHOTS
from blockferry.core.together import together
from blockferry.jobs.call import JobCall
from blockferry.transfer.job import Job


def refuse_without_room(job: Job, call: JobCall) -> None:
    """Count what is pending in each place of the job's targets.

    Raises ``InvalidRequest``, naming fields, Regions and what to do, unless all of the targets can be started. A place
    that cannot be looked at has room as far as anybody knows: EBS decides. What the job itself has started is no
    obstacle to it.
    """
    places: dict[Identity, list[int]] = {}
    for number, target in enumerate(job.targets):
        if not target.takes_up_a_place:
            continue
        places.setdefault(target.identity, []).append(number)

    def pending(identity: Identity) -> int:
        try:
            return len(snapshots.pending_uploads(call.ec2(identity), but_of=job.execution.mark))
        except (ClientError, BotoCoreError):
            return 0

    found = together(pending, places, most=call.throughput.places_at_a_time)
    told = [
        _told(identity, numbers, taken)
        for (identity, numbers), taken in zip(places.items(), found, strict=True)
        if taken + len(numbers) > PENDING_SNAPSHOTS
    ]
    if told:
        raise InvalidRequest("\n".join(told))


def _told(identity: Identity, numbers: list[int], taken: int) -> str:
    fields = ", ".join(f"targets[{number}]" for number in numbers)
    account = "this account" if identity.role_arn is None else f"the account of {identity.role_arn}"
    room = max(0, PENDING_SNAPSHOTS - taken)
    look = (
        f"aws ec2 describe-snapshots --region {identity.region} --owner-ids self --filters Name=status,Values=pending"
    )
    return (
        f"{fields}: {account} has {taken} pending snapshots in {identity.region} and EBS lets it have "
        f"{PENDING_SNAPSHOTS}, a quota that cannot be raised: there is room for {room} of {len(numbers)}. Jobs that "
        "run free theirs as they complete, failed ones when they are resumed or their resume window is over. See them "
        f"with {look}. Delete those that nobody needs, or start the job later or with fewer targets"
    )
