"""The places of the copies that an inspection prices."""

from __future__ import annotations

from blockferry.cost.choice import Destination
from blockferry.cost.prices import partition_of
from blockferry.inspection.inspected import Inspected
from blockferry.requests.parts import Target

_ELSEWHERE = {
    "aws": ("eu-west-1", "us-west-2"),
    "aws-cn": ("cn-north-1", "cn-northwest-1"),
    "aws-us-gov": ("us-gov-west-1", "us-gov-east-1"),
}
"""The other region that is assumed when no target is named."""


def destinations_of(what: Inspected) -> tuple[list[Destination], list[str]]:
    """The request's targets, or else one copy in another region of the partition, and notes on what was assumed."""
    if what.request.targets:
        return [_destination(f"targets[{n}]", t, what) for n, t in enumerate(what.request.targets)], []
    candidates = _ELSEWHERE.get(partition_of(what.region), (what.region,))
    region = next((name for name in candidates if name != what.region), what.region)
    note = f"no targets are named: the choices are for one copy in {region}, owned by {what.home_account}"
    return [Destination(name="the copy", region=region, account=what.home_account)], [note]


def _destination(name: str, target: Target, what: Inspected) -> Destination:
    account = what.home_account if target.role_arn is None else target.role_arn.split(":")[4]
    return Destination(
        name=name,
        region=target.region,
        account=account,
        kms_key_arn=target.kms_key_arn,
        encrypted=target.encrypted,
    )
