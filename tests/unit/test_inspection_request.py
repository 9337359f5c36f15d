"""What an inspection may be asked for, and how a wrong request is refused."""

from __future__ import annotations

from typing import Any

import pytest
from blockferry.core.errors import InvalidRequest
from blockferry.requests.inspect import InspectRequest
from blockferry.requests.parts import parse

A, B, C = "snap-0000000000000000a", "snap-0000000000000000b", "snap-0000000000000000c"


def parsed(**data: Any) -> InspectRequest:
    return parse(InspectRequest, data, what="inspect")


def test_a_snapshot_is_enough() -> None:
    request = parsed(snapshot_id=A, base_snapshot_id=None, source=None, chain=None, options={"count_zeros": None})
    assert (request.base_snapshot_id, request.chain, request.targets) == (None, None, ())
    assert request.options.count_zeros is False
    assert request.source.region is None


def test_a_chain_is_enough_and_keeps_its_order() -> None:
    assert parsed(chain=[B, A, C]).chain == (B, A, C)
    assert parsed(chain=[B, A]).snapshot_id is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "snapshot_id is required, or chain"),
        ({"snapshot_id": "vol-1"}, "- snapshot_id: 'vol-1' is not a snapshot id"),
        ({"snapshot_id": A, "base_snapshot_id": A}, f"base_snapshot_id: {A} is named twice"),
        ({"chain": [A]}, "- chain: Tuple should have at least 2 items"),
        ({"chain": [A, B, A]}, rf"chain\[2\]: {A} is chain\[0\] already"),
        ({"chain": [A, "x"]}, r"- chain\[1\]: 'x' is not a snapshot id"),
        ({"chain": [f"snap-{n:017x}" for n in range(101)]}, "- chain: Tuple should have at most 100 items"),
        ({"snapshot_id": A, "targets": [{"region": "nowhere"}]}, r"- targets\[0\]\.region: 'nowhere' is not the name"),
        ({"snapshot_id": A, "options": {"count_zeros": 1}}, r"- options\.count_zeros: "),
        ({"snapshot_id": A, "options": {"zeros": True}}, r"- options\.zeros: is not a known key"),
        ({"snapshot_id": A, "snapshots": []}, "- snapshots: is not a known key; known: base_snapshot_id"),
    ],
)
def test_a_wrong_request_is_refused_with_its_field(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as error:
        parsed(**data)
    assert str(error.value).startswith("The input of inspect cannot be used, nothing was started:")


def test_every_violation_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as error:
        parsed(snapshot_id="x", chain=["y", B], targets=[{"region": "z"}])
    assert [line.split(":")[0] for line in str(error.value).splitlines()[1:]] == [
        "- snapshot_id",
        "- chain[0]",
        "- targets[0].region",
    ]
