"""Which regions there are for an account."""

from __future__ import annotations

from collections.abc import Iterable

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.sessions import Aws, Identity
from blockferry.core.errors import InvalidRequest, RequestRefused


def enabled_regions(aws: Aws) -> set[str]:
    """The regions that the account can use."""
    return {region for region, status in _known(aws).items() if status != "not-opted-in"}


def _known(aws: Aws) -> dict[str, str]:
    try:
        answer = aws.ec2(Identity(aws.own_region)).describe_regions(AllRegions=True)
    except (ClientError, BotoCoreError) as error:
        raise RequestRefused(f"DescribeRegions in {aws.own_region}: {error}") from error
    return {r["RegionName"]: r.get("OptInStatus", "opt-in-not-required") for r in answer["Regions"]}


def refuse_unknown_regions(aws: Aws, named: Iterable[tuple[str, str]]) -> None:
    """Raise ``InvalidRequest`` for a region, given as (field of the input, name), that AWS does not know or that the
    account has not enabled."""
    known = _known(aws)
    for field, region in named:
        if region not in known:
            raise InvalidRequest(
                f"{field}: region {region} is unknown to AWS (seen from {aws.own_region}); check its spelling. Regions "
                "of another partition cannot be reached with a role"
            )
        if known[region] == "not-opted-in":
            raise InvalidRequest(
                f"{field}: region {region} is not enabled in this account; enable it or choose another one"
            )
