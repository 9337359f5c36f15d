"""The places of the copies that an inspection prices, with what stands there already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.cost.choice import Destination
from blockferry.cost.prices import partition_of
from blockferry.inspection.inspected import Inspected
from blockferry.inspection.standing import Place, looked_up
from blockferry.requests.parts import Target

_ELSEWHERE = {
    "aws": ("eu-west-1", "us-west-2"),
    "aws-cn": ("cn-north-1", "cn-northwest-1"),
    "aws-us-gov": ("us-gov-west-1", "us-gov-east-1"),
}
"""The other region that is assumed when no target is named."""


def destinations_of(what: Inspected, call: Call) -> tuple[list[Destination], list[str]]:
    """The request's targets, or else one copy in another region of the partition; and notes on what was assumed, and
    on what could not be looked at."""
    notes = []
    targets: Sequence[Target] = what.request.targets
    if not targets:
        candidates = _ELSEWHERE.get(partition_of(what.region), (what.region,))
        region = next((name for name in candidates if name != what.region), what.region)
        notes.append(f"no targets are named: the choices are for one copy in {region}, owned by {what.home_account}")
        targets = [Target(region=region)]
    regions = Counter(target.region for target in targets)
    places = [_place(n, t, what, alone=regions[t.region] == 1) for n, t in enumerate(targets, start=1)]
    found, unseen = looked_up(places, what, call)
    return found, notes + unseen


def _place(number: int, target: Target, what: Inspected, *, alone: bool) -> Place:
    account = what.home_account if target.role_arn is None else target.role_arn.split(":")[4]
    destination = Destination(
        name=f"the copy in {target.region}" if alone else f"copy {number} in {target.region}",
        region=target.region,
        account=account,
        kms_key_arn=target.kms_key_arn,
        encrypted=target.encrypted,
    )
    return Place(destination, Identity(target.region, target.role_arn, target.external_id))
