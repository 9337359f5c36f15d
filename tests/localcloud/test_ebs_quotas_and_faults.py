"""Request quotas (EBS user guide, "Quotas for Amazon EBS") and failures on demand."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest
from localcloud.ebs.blockstore import BLOCK_SIZE
from localcloud.ebs.clock import ManualClock
from localcloud.ebs.config import EbsConfig
from localcloud.ebs.faults import Rule
from localcloud.ebs.patterns import pattern_block
from localcloud.ebs.testing import HOME_ACCOUNT, OTHER_ACCOUNT, RunningServer, running_server

from .ebs_clients import ZEROS, block, checksum, client, complete, contents, put, refused, snapshot_of, start, state


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server({"seed": 1}, clock=ManualClock()) as running:
        yield running


@pytest.fixture
def ebs(server: RunningServer) -> Any:
    return client(server, "ebs")


def control(server: RunningServer, method: str, path: str, body: Any = None) -> Any:
    return json.loads(server.control(method, path, None if body is None else json.dumps(body).encode()))


def burst(server: RunningServer, number: int, *, method: str, path: str, account: str = HOME_ACCOUNT) -> list[str]:
    """The error codes (empty: none) of ``number`` requests at one moment."""
    query = {"blockToken": "AAAA"} if "/blocks/" in path else {}
    headers = {"x-amz-data-length": "0", "x-amz-checksum": checksum(b""), "x-amz-checksum-algorithm": "SHA256"}
    asked = (query, {}) if method == "GET" else ({}, headers)
    return [server.service.handle(method, path, *asked, b"", account, "us-east-1").code for _ in range(number)]


def test_quotas_are_those_of_the_region() -> None:
    config = EbsConfig()
    for region in ("us-east-1", "us-east-2", "us-west-2", "ap-southeast-1", "eu-west-1"):
        assert config.account_rate(None, region) == 5000
    assert config.account_rate(None, "eu-central-1") == 1000
    assert (config.get_per_snapshot, config.put_per_snapshot) == (1000, 1000)


def test_lists_are_limited_to_50_a_second_and_account(server: RunningServer, ebs: Any) -> None:
    path = f"/snapshots/{snapshot_of(server, ebs, {})}/blocks"
    codes = burst(server, 51, method="GET", path=path)
    assert codes == [""] * 50 + ["ThrottlingException"]
    assert burst(server, 1, method="GET", path=path, account=OTHER_ACCOUNT) == ["AccessDeniedException"]
    server.service.clock.advance(0.5)
    assert burst(server, 26, method="GET", path=path) == [""] * 25 + ["ThrottlingException"]


def test_start_and_complete_are_limited_to_10_a_second(server: RunningServer, ebs: Any) -> None:
    ids = [start(ebs) for _number in range(10)]
    with refused(400, "ThrottlingException"):
        start(ebs)
    for snapshot_id in ids:
        ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0)
    with refused(400, "ThrottlingException"):
        ebs.complete_snapshot(SnapshotId=ids[0], ChangedBlocksCount=0)


@pytest.mark.parametrize("operation", ["Get", "Put"])
def test_one_snapshots_limit_and_the_accounts_have_codes_of_their_own(server: RunningServer, operation: str) -> None:
    # The guide: RequestThrottledException is the per-snapshot limit, ThrottlingException the account's.
    server.service.configure({f"{operation.lower()}_per_account": 15, f"{operation.lower()}_per_snapshot": 10})
    method = operation.upper()
    one = burst(server, 12, method=method, path="/snapshots/snap-01/blocks/0")
    assert one[10:] == ["RequestThrottledException"] * 2
    other = burst(server, 5, method=method, path="/snapshots/snap-02/blocks/0")
    assert [code for code in other if code == "ThrottlingException"] == ["ThrottlingException"] * 2
    server.service.configure({"quotas_enabled": False})
    assert "ThrottlingException" not in burst(server, 40, method=method, path="/snapshots/snap-01/blocks/0")


def test_throttles_carry_the_reason_of_the_model(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs)
    server.service.configure({"put_per_snapshot": 1})
    put(ebs, snapshot_id, 0, block("a"))
    with refused(400, "RequestThrottledException", "RESOURCE_LEVEL_THROTTLE"):
        put(ebs, snapshot_id, 1, block("a"))


def test_the_nth_call_fails_as_the_rule_says(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs)
    rule = {"operation": "PutSnapshotBlock", "action": "error", "nth": 2, "status": 500}
    control(server, "POST", "faults", {**rule, "code": "InternalServerException"})
    put(ebs, snapshot_id, 0, block("a"))
    with refused(500, "InternalServerException"):
        put(ebs, snapshot_id, 1, block("b"))
    put(ebs, snapshot_id, 1, block("b"))
    complete(server, ebs, snapshot_id, {0: block("a"), 1: block("b")})
    assert contents(ebs, snapshot_id) == {0: block("a"), 1: block("b")}
    (shown,) = control(server, "GET", "faults")["rules"]
    assert (shown["seen"], shown["acted"]) == (3, 1)


def test_rules_choose_by_account_snapshot_block_and_count(server: RunningServer, ebs: Any) -> None:
    one, other = start(ebs), start(ebs)
    server.service.faults.add(
        Rule(action="error", operation="PutSnapshotBlock", snapshot_id=one, block_index=5, times=1)
    )
    put(ebs, one, 4, block("a"))
    put(ebs, other, 5, block("a"))
    with refused(500, "InternalServerException"):
        put(ebs, one, 5, block("a"))
    put(ebs, one, 5, block("a"))


def test_probability_is_repeatable() -> None:
    def acted(seed: int) -> list[bool]:
        with running_server() as running:
            running.service.faults.add(Rule(action="error", probability=0.3, seed=seed))
            return [code != "InvalidAction" for code in burst(running, 100, method="GET", path="/")]

    assert acted(4) == acted(4) != acted(5)
    assert 15 < sum(acted(4)) < 45


def test_a_timeout_after_success_leaves_the_work_done(server: RunningServer, ebs: Any) -> None:
    control(server, "POST", "faults", {"operation": "StartSnapshot", "action": "close_after", "times": 1})
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        ebs.start_snapshot(VolumeSize=1, ClientToken="job")
    (kept,) = server.service.registry.snapshots
    assert start(ebs, ClientToken="job") == kept


def test_a_connection_closed_before_leaves_nothing_done(server: RunningServer, ebs: Any) -> None:
    control(server, "POST", "faults", {"operation": "StartSnapshot", "action": "close_before"})
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        start(ebs)
    assert server.service.registry.snapshots == {}


def test_a_flipped_bit_of_a_request_is_caught_by_the_checksum(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs)
    control(server, "POST", "faults", {"operation": "PutSnapshotBlock", "action": "flip_request", "times": 1})
    with refused(400, "ValidationException", "INVALID_BLOCK"):
        put(ebs, snapshot_id, 0, block("a"))


@pytest.mark.parametrize("action", ["flip_response", "corrupt_block"])
def test_a_flipped_bit_of_an_answer_does_not_fit_its_checksum(server: RunningServer, ebs: Any, action: str) -> None:
    snapshot_id = snapshot_of(server, ebs, {0: block("a")})
    (entry,) = ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"]
    wanted = {"SnapshotId": snapshot_id, "BlockIndex": 0, "BlockToken": entry["BlockToken"]}
    control(server, "POST", "faults", {"operation": "GetSnapshotBlock", "action": action, "nth": 1, "bit": 77})
    spoiled = ebs.get_snapshot_block(**wanted)
    data = spoiled["BlockData"].read()
    assert spoiled["Checksum"] == checksum(block("a")) != checksum(data)
    assert sum(a != b for a, b in zip(data, block("a"), strict=True)) == 1
    again = ebs.get_snapshot_block(**wanted)["BlockData"].read()
    assert (again == block("a")) is (action == "flip_response")


def test_a_short_body_is_an_incomplete_read(server: RunningServer, ebs: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {0: block("a")})
    (entry,) = ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"]
    control(server, "POST", "faults", {"operation": "GetSnapshotBlock", "action": "short_body"})
    with pytest.raises((botocore.exceptions.ResponseStreamingError, botocore.exceptions.IncompleteReadError)):
        ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=0, BlockToken=entry["BlockToken"])["BlockData"].read()


def test_an_expired_token_can_be_played(server: RunningServer, ebs: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {0: block("a")})
    (entry,) = ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"]
    control(server, "POST", "faults", {"operation": "GetSnapshotBlock", "action": "expired_token", "nth": 1})
    with refused(400, "ValidationException", "INVALID_BLOCK_TOKEN"):
        ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=0, BlockToken=entry["BlockToken"])
    assert contents(ebs, snapshot_id) == {0: block("a")}


def test_ec2_actions_fail_in_their_own_format(server: RunningServer) -> None:
    rule = {"operation": "DescribeSnapshots", "action": "error", "status": 503, "code": "RequestLimitExceeded"}
    control(server, "POST", "faults", rule)
    with refused(503, "RequestLimitExceeded"):
        client(server, "ec2").describe_snapshots()
    assert control(server, "DELETE", "faults") == {"rules": []}
    assert client(server, "ec2").describe_snapshots()["Snapshots"] == []


def test_latency_is_slept_before_the_work() -> None:
    slept: list[float] = []
    with running_server({"latency_ms": 5}) as running:
        running.service._sleep = slept.append
        running.service.faults.add(Rule(action="latency", operation="StartSnapshot", latency_ms=40))
        start(client(running, "ebs"))
    assert slept == [0.005, 0.04]


@pytest.mark.parametrize(
    "rule",
    [
        {"action": "explode"},
        {"action": "error", "nth": 0},
        {"action": "error", "nth": 1, "every": 2},
        {"action": "error", "status": "500"},
        {"action": "error", "colour": "red"},
        {"action": "error", "operation": "PutSnapshotBlok"},
    ],
    ids=str,
)
def test_a_wrong_rule_is_refused_with_its_reason(server: RunningServer, rule: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        control(server, "POST", "faults", rule)
    assert caught.value.code == 400
    assert json.load(caught.value)["message"]


def test_settings_change_at_run_time_and_wrong_ones_are_refused(server: RunningServer) -> None:
    assert control(server, "POST", "config", {"seal_seconds": 9})["seal_seconds"] == 9
    for wrong in ({"seal_second": 9}, {"seal_seconds": -1}, {"relist_invalidates": "maybe"}, {"empty_page_every": 1}):
        with pytest.raises(urllib.error.HTTPError):
            control(server, "POST", "config", wrong)
    assert control(server, "GET", "config")["seal_seconds"] == 9


def test_the_clock_can_be_moved_and_what_is_due_happens(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs)
    before = control(server, "GET", "clock")["now"]
    assert control(server, "POST", "clock", {"advance": 3600})["now"] == before + 3600
    assert state(server, snapshot_id) == "error"


def test_stats_count_calls_errors_and_bytes(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs)
    put(ebs, snapshot_id, 0, block("a"))
    with refused(400, "ValidationException", "INVALID_BLOCK"):
        put(ebs, snapshot_id, 5000, block("a"))
    stats = control(server, "GET", "stats")
    assert stats["calls"] == {"StartSnapshot": 1, "PutSnapshotBlock": 2}
    assert stats["errors"] == {"PutSnapshotBlock": {"ValidationException": 1}}
    assert stats["snapshots"] == {snapshot_id: {"PutSnapshotBlock": 2}}
    assert stats["bytes"]["received"] > 2 * BLOCK_SIZE
    assert control(server, "POST", "stats/reset")["calls"] == {}


def test_full_metadata_and_the_raw_index_can_be_seen(server: RunningServer, ebs: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {3: block("a"), 1: block("b")})
    shown = control(server, "GET", f"snapshots/{snapshot_id}")
    assert (shown["allocated_blocks"], shown["state"], shown["owner"]) == (2, "completed", HOME_ACCOUNT)
    assert shown["linear_checksum"] == shown["written_linear_checksum"]
    index = control(server, "GET", f"snapshots/{snapshot_id}/raw-index")["blocks"]
    assert index == [[1, hashlib.sha256(block("b")).hexdigest()], [3, hashlib.sha256(block("a")).hexdigest()]]
    assert control(server, "GET", "store")["blocks"] == 2


def test_volumes_can_be_filled_with_a_pattern_and_everything_forgotten(server: RunningServer, ebs: Any) -> None:
    ec2 = client(server, "ec2")
    volume_id = ec2.create_volume(AvailabilityZone="us-east-1a", Size=65536)["VolumeId"]
    wanted = {"count": 9, "seed": 5, "start": 100, "stride": 10_000_000, "distinct": 2, "zero_every": 4}
    assert control(server, "POST", f"volumes/{volume_id}/fill", wanted)["allocated_blocks"] == 9
    snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    server.service.clock.advance(1)
    assert contents(ebs, snapshot_id) == {
        100 + step * 10_000_000: ZEROS if step % 4 == 0 else pattern_block(5, step % 2) for step in range(9)
    }
    raw = [control(server, "GET", f"{kind}/raw-index") for kind in (f"volumes/{volume_id}", f"snapshots/{snapshot_id}")]
    assert raw[0] == raw[1]
    with pytest.raises(urllib.error.HTTPError):
        control(server, "POST", f"volumes/{volume_id}/fill", {"count": 2, "start": 134_217_727})
    assert control(server, "POST", "reset")["blocks"] == 0
    assert ec2.describe_snapshots()["Snapshots"] == []


@pytest.mark.parametrize(
    ("choice", "failing"), [({"every": 3}, [3, 6]), ({"after": 4}, [5, 6, 7]), ({"times": 2}, [1, 2])]
)
def test_every_after_and_times(server: RunningServer, choice: dict[str, int], failing: list[int]) -> None:
    control(server, "POST", "faults", {"operation": "GetSnapshotBlock", "action": "error", **choice})
    codes = burst(server, 7, method="GET", path="/snapshots/snap-01/blocks/0")
    assert [number for number, code in enumerate(codes, 1) if code == "InternalServerException"] == failing


def test_a_fault_of_a_region_strikes_in_that_region_only(server: RunningServer) -> None:
    control(server, "POST", "faults", {"operation": "StartSnapshot", "region": "eu-west-1", "action": "error"})
    here, there = (server.service.handle("POST", "/snapshots", {}, {}, b'{"VolumeSize": 1}', HOME_ACCOUNT, region)
                   for region in ("us-east-1", "eu-west-1"))  # fmt: skip
    assert (here.status, there.status) == (201, 500)


@pytest.mark.parametrize(("action", "key"), [("unencrypted", None), ("other_key", "0ddba11")])
def test_a_snapshot_can_be_made_to_come_out_with_another_key_or_none(
    server: RunningServer, action: str, key: str | None
) -> None:
    control(server, "POST", "faults", {"operation": "StartSnapshot", "action": action, "times": 1})
    ebs, ec2 = client(server, "ebs"), client(server, "ec2")
    wrong, right = (ebs.start_snapshot(VolumeSize=1, Encrypted=True) for _ in range(2))
    found = ec2.describe_snapshots(SnapshotIds=[wrong["SnapshotId"], right["SnapshotId"]])["Snapshots"]
    keys = {snapshot["SnapshotId"]: snapshot.get("KmsKeyId") for snapshot in found}
    assert keys[right["SnapshotId"]] == right["KmsKeyArn"] != keys[wrong["SnapshotId"]] == wrong.get("KmsKeyArn")
    assert (key or "") in (keys[wrong["SnapshotId"]] or "")
