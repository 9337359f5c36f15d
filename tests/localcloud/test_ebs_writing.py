"""StartSnapshot, PutSnapshotBlock, CompleteSnapshot as boto3 sees them.

Expectations are from botocore's ebs/2019-11-02 model (shapes, bounds, statuses) and the EBS user guide
("Write snapshots with EBS direct APIs", "Idempotency", "Using checksums", quotas) where not said otherwise.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from localcloud.ebs.blockstore import BLOCK_SIZE
from localcloud.ebs.clock import ManualClock
from localcloud.ebs.testing import OTHER_ACCOUNT, RunningServer, running_server

from .ebs_clients import (
    ZEROS,
    block,
    checksum,
    client,
    complete,
    contents,
    linear,
    put,
    refused,
    snapshot_of,
    start,
    state,
)


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server({"quotas_enabled": False}, clock=ManualClock()) as running:
        yield running


@pytest.fixture
def ebs(server: RunningServer) -> Any:
    return client(server, "ebs")


def test_start_answers_201_with_what_was_asked_for(server: RunningServer, ebs: Any) -> None:
    tags = [{"Key": "team", "Value": "storage"}]
    answer = ebs.start_snapshot(VolumeSize=7, Description="d", Tags=tags, Timeout=10)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert answer["ResponseMetadata"]["RequestId"]
    facts = {key: answer[key] for key in ("OwnerId", "Status", "VolumeSize", "BlockSize", "Description", "Tags")}
    assert facts == {
        "OwnerId": "111122223333",
        "Status": "pending",
        "VolumeSize": 7,
        "BlockSize": BLOCK_SIZE,
        "Description": "d",
        "Tags": tags,
    }
    assert answer["StartTime"].timestamp() == server.service.clock.now()
    assert "KmsKeyArn" not in answer
    assert "ParentSnapshotId" not in answer


def test_written_blocks_are_read_back_exactly(server: RunningServer, ebs: Any) -> None:
    blocks = {0: block("a"), 7: ZEROS, 2047: bytes(range(256)) * 2048}
    assert contents(ebs, snapshot_of(server, ebs, blocks)) == blocks


def test_a_second_put_of_a_block_overwrites_it_and_counts_once(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs)
    put(ebs, snapshot_id, 3, block("first"))
    put(ebs, snapshot_id, 3, block("second"))
    complete(server, ebs, snapshot_id, {3: block("second")})
    assert contents(ebs, snapshot_id) == {3: block("second")}


def test_blocks_not_written_are_taken_from_the_parent(server: RunningServer, ebs: Any) -> None:
    parent = snapshot_of(server, ebs, {0: block("a"), 1: block("b"), 5: block("c")})
    child = snapshot_of(server, ebs, {1: ZEROS, 9: block("n")}, ParentSnapshotId=parent)
    assert contents(ebs, child) == {0: block("a"), 1: ZEROS, 5: block("c"), 9: block("n")}
    assert contents(ebs, parent) == {0: block("a"), 1: block("b"), 5: block("c")}


def test_a_child_keeps_its_blocks_when_the_parent_is_deleted(server: RunningServer, ebs: Any) -> None:
    parent = snapshot_of(server, ebs, {0: block("a"), 1: block("b")})
    child = snapshot_of(server, ebs, {1: block("n")}, ParentSnapshotId=parent)
    ec2 = client(server, "ec2")
    ec2.delete_snapshot(SnapshotId=parent)
    assert contents(ebs, child) == {0: block("a"), 1: block("n")}
    ec2.delete_snapshot(SnapshotId=child)
    assert len(server.service.store) == 0


def test_a_parent_must_be_completed_own_and_not_larger(server: RunningServer, ebs: Any) -> None:
    pending = start(ebs)
    with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=pending)
    large = snapshot_of(server, ebs, {}, size=2)
    with refused(400, "ValidationException", "INVALID_VOLUME_SIZE"):
        ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=large)
    with refused(403, "AccessDeniedException", "UNAUTHORIZED_ACCOUNT"):
        client(server, "ebs", account=OTHER_ACCOUNT).start_snapshot(VolumeSize=2, ParentSnapshotId=large)
    with refused(404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"):
        client(server, "ebs", region="eu-west-1").start_snapshot(VolumeSize=2, ParentSnapshotId=large)
    assert ebs.start_snapshot(VolumeSize=3, ParentSnapshotId=large)["ParentSnapshotId"] == large


def test_a_shared_parent_can_be_allowed(server: RunningServer, ebs: Any) -> None:
    parent = snapshot_of(server, ebs, {4: block("p")})
    client(server, "ec2").modify_snapshot_attribute(
        SnapshotId=parent, CreateVolumePermission={"Add": [{"UserId": OTHER_ACCOUNT}]}
    )
    other = client(server, "ebs", account=OTHER_ACCOUNT)
    with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
        start(other, ParentSnapshotId=parent)
    server.service.configure({"shared_parent": "allow"})
    child = snapshot_of(server, other, {}, ParentSnapshotId=parent)
    assert contents(other, child) == {4: block("p")}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"VolumeSize": 65537}, "INVALID_VOLUME_SIZE"),
        ({"VolumeSize": 1, "Timeout": 4321}, "INVALID_PARAMETER_VALUE"),
        ({"VolumeSize": 1, "Description": "x" * 256}, "INVALID_PARAMETER_VALUE"),
        ({"VolumeSize": 1, "ClientToken": "x" * 65}, "INVALID_PARAMETER_VALUE"),
        ({"VolumeSize": 1, "Tags": [{"Key": str(n), "Value": ""} for n in range(51)]}, "INVALID_TAG"),
        ({"VolumeSize": 1, "Tags": [{"Key": "aws:x", "Value": ""}]}, "INVALID_TAG"),
        ({"VolumeSize": 1, "Encrypted": True, "KmsKeyArn": "alias/mine"}, "INVALID_CUSTOMER_KEY"),
    ],
)
def test_start_refuses_what_is_out_of_bounds(ebs: Any, arguments: dict[str, Any], reason: str) -> None:
    with refused(400, "ValidationException", reason):
        ebs.start_snapshot(**arguments)


def test_64_tib_is_the_largest_volume_and_its_last_block_can_be_written(server: RunningServer, ebs: Any) -> None:
    last = 134_217_727
    snapshot_id = snapshot_of(server, ebs, {last: block("end")}, size=65536)
    assert contents(ebs, snapshot_id) == {last: block("end")}


def test_the_same_client_token_gives_the_same_snapshot_and_other_parameters_conflict(
    server: RunningServer, ebs: Any
) -> None:
    first = ebs.start_snapshot(VolumeSize=1, ClientToken="job-1", Description="d")
    again = ebs.start_snapshot(VolumeSize=1, ClientToken="job-1", Description="d")
    for answer in (first, again):
        del answer["ResponseMetadata"]
    assert again == first
    with refused(409, "ConflictException"):
        ebs.start_snapshot(VolumeSize=2, ClientToken="job-1", Description="d")
    elsewhere = client(server, "ebs", region="eu-west-1")
    assert start(elsewhere, size=2, ClientToken="job-1") != first["SnapshotId"]
    server.service.clock.advance(server.service.config.client_token_seconds)
    assert start(ebs, size=1, ClientToken="job-1", Description="d") != first["SnapshotId"]


def test_at_most_100_pending_snapshots_of_an_account_in_a_region(server: RunningServer, ebs: Any) -> None:
    server.service.configure({"quotas_enabled": True, "start_per_account": 1000})
    ids = [start(ebs) for _number in range(100)]
    with refused(400, "ConcurrentLimitExceededException"):
        start(ebs)
    server.service.configure({"too_many_pending": "service_quota"})
    with refused(402, "ServiceQuotaExceededException", "DEPENDENCY_SERVICE_QUOTA_EXCEEDED"):
        start(ebs)
    start(client(server, "ebs", region="eu-west-1"))
    start(client(server, "ebs", account=OTHER_ACCOUNT))
    client(server, "ec2").delete_snapshot(SnapshotId=ids[0])
    start(ebs)


def test_a_new_snapshot_may_be_unknown_for_a_while(server: RunningServer, ebs: Any) -> None:
    # coldsnap (upload.rs) retries its puts for two minutes because of this.
    server.service.configure({"not_found_window_seconds": 5})
    snapshot_id = start(ebs)
    with refused(404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"):
        put(ebs, snapshot_id, 0, block("a"))
    server.service.clock.advance(5)
    put(ebs, snapshot_id, 0, block("a"))


def test_put_answers_201_with_the_checksum(ebs: Any) -> None:
    answer = put(ebs, start(ebs), 0, block("a"), Progress=40)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert answer["ChecksumAlgorithm"] == "SHA256"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"BlockIndex": 2048}, "INVALID_BLOCK"),
        ({"DataLength": 1000}, "INVALID_PARAMETER_VALUE"),
        ({"BlockData": b"x" * 1000}, "INVALID_BLOCK"),
        ({"BlockData": block("other")}, "INVALID_BLOCK"),
        ({"Checksum": "not base64"}, "INVALID_PARAMETER_VALUE"),
        ({"Progress": 101}, "INVALID_PARAMETER_VALUE"),
        ({"SnapshotId": "vol-1"}, "INVALID_SNAPSHOT_ID"),
    ],
)
def test_put_refuses_what_does_not_fit_and_stores_nothing(
    server: RunningServer, ebs: Any, change: dict[str, Any], reason: str
) -> None:
    snapshot_id = start(ebs)
    data = block("a")
    arguments = {
        "SnapshotId": snapshot_id,
        "BlockIndex": 0,
        "BlockData": data,
        "DataLength": BLOCK_SIZE,
        "Checksum": checksum(data),
        "ChecksumAlgorithm": "SHA256",
    }
    with refused(400, "ValidationException", reason):
        ebs.put_snapshot_block(**{**arguments, **change})
    assert len(server.service.store) == 0


def test_only_the_owner_writes(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs)
    with refused(403, "AccessDeniedException", "UNAUTHORIZED_ACCOUNT"):
        put(client(server, "ebs", account=OTHER_ACCOUNT), snapshot_id, 0, block("a"))
    server.service.configure({"unshared_snapshot": "not_found"})
    with refused(404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"):
        put(client(server, "ebs", account=OTHER_ACCOUNT), snapshot_id, 0, block("a"))


def test_nothing_is_written_after_complete(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs)
    ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0)
    assert state(server, snapshot_id) == "pending"
    for _moment in ("sealing", "completed"):
        with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
            put(ebs, snapshot_id, 0, block("late"))
        server.service.clock.advance(1)
    assert contents(ebs, snapshot_id) == {}


def test_two_puts_of_one_block_at_once_with_other_data_conflict(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs)
    writing, go_on = threading.Event(), threading.Event()
    store_put = server.service.store.put

    def slow_put(data: bytes, digest: bytes) -> int:
        if bytes(data[:4]) == block("slow")[:4]:
            writing.set()
            assert go_on.wait(10)
        return store_put(data, digest)

    server.service.store.put = slow_put  # type: ignore[method-assign]
    slow = threading.Thread(target=put, args=(ebs, snapshot_id, 0, block("slow")))
    slow.start()
    assert writing.wait(10)
    try:
        with refused(400, "ValidationException", "CONFLICTING_BLOCK_UPDATE"):
            put(ebs, snapshot_id, 0, block("other"))
        put(ebs, snapshot_id, 1, block("other"))
    finally:
        go_on.set()
        slow.join()
    complete(server, ebs, snapshot_id, {0: block("slow"), 1: block("other")})
    assert contents(ebs, snapshot_id) == {0: block("slow"), 1: block("other")}


def test_complete_is_asynchronous(server: RunningServer, ebs: Any) -> None:
    server.service.configure({"seal_seconds": 30})
    snapshot_id = start(ebs)
    put(ebs, snapshot_id, 0, block("a"))
    answer = ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=1)
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Status"]) == (202, "pending")
    with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.list_snapshot_blocks(SnapshotId=snapshot_id)
    server.service.clock.advance(30)
    assert contents(ebs, snapshot_id) == {0: block("a")}


def test_linear_is_over_raw_digests() -> None:
    # The vector of two zero blocks; the variant over base64 texts would be QhpsLi3Kw...
    assert linear({0: ZEROS, 1: ZEROS}) == "nXImO+I7J/Eb7uV+SQqV/renEAlPuF0+9WVrhRS/gHY="


@pytest.mark.parametrize("wrong", ["count", "checksum"])
def test_a_wrong_count_or_aggregate_ends_in_error(server: RunningServer, ebs: Any, wrong: str) -> None:
    snapshot_id = start(ebs)
    put(ebs, snapshot_id, 0, block("a"))
    more = {
        "Checksum": linear({0: block("b" if wrong == "checksum" else "a")}),
        "ChecksumAlgorithm": "SHA256",
        "ChecksumAggregationMethod": "LINEAR",
    }
    ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=2 if wrong == "count" else 1, **more)
    server.service.clock.advance(1)
    server.service.tick()
    assert state(server, snapshot_id) == "error"
    shown = client(server, "ec2").describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]
    assert shown["State"] == "error"
    assert ("1 blocks" if wrong == "count" else "checksum") in shown["StateMessage"]
    assert len(server.service.store) == 0


def test_a_wrong_count_can_be_refused_at_once(server: RunningServer, ebs: Any) -> None:
    server.service.configure({"complete_mismatch": "refuse"})
    snapshot_id = start(ebs)
    with refused(400, "ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=1)
    complete(server, ebs, snapshot_id, {})
    assert state(server, snapshot_id) == "completed"


def test_the_count_of_a_child_is_of_the_blocks_put_not_of_those_inherited(server: RunningServer, ebs: Any) -> None:
    parent = snapshot_of(server, ebs, {0: block("a"), 1: block("b")})
    child = start(ebs, ParentSnapshotId=parent)
    put(ebs, child, 1, block("c"))
    complete(server, ebs, child, {1: block("c")})
    assert state(server, child) == "completed"


def test_a_checksum_without_its_method_is_refused(ebs: Any) -> None:
    with refused(400, "ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.complete_snapshot(SnapshotId=start(ebs), ChangedBlocksCount=0, Checksum=linear({}))


def test_complete_again_is_answered_alike_and_otherwise_refused(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs)
    ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0)
    assert ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0)["Status"] == "pending"
    server.service.clock.advance(1)
    assert ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0)["Status"] == "completed"
    with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=5)
    server.service.configure({"complete_again": "refuse"})
    with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0)


def test_the_timeout_counts_from_the_last_block(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs, Timeout=10)
    server.service.clock.advance(599)
    put(ebs, snapshot_id, 0, block("a"))
    server.service.clock.advance(599)
    put(ebs, snapshot_id, 1, block("b"))
    assert state(server, snapshot_id) == "pending"
    server.service.clock.advance(600)
    with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
        put(ebs, snapshot_id, 2, block("c"))
    assert state(server, snapshot_id) == "error"
    assert len(server.service.store) == 0


def test_the_default_timeout_is_an_hour(server: RunningServer, ebs: Any) -> None:
    snapshot_id = start(ebs)
    server.service.clock.advance(3599)
    server.service.tick()
    assert state(server, snapshot_id) == "pending"
    server.service.clock.advance(1)
    server.service.tick()
    assert state(server, snapshot_id) == "error"


def test_progress_of_puts_is_shown_until_completed(server: RunningServer, ebs: Any) -> None:
    ec2 = client(server, "ec2")
    snapshot_id = start(ebs)
    put(ebs, snapshot_id, 0, block("a"), Progress=40)
    assert ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["Progress"] == "40%"
    complete(server, ebs, snapshot_id, {0: block("a")})
    assert ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["Progress"] == "100%"


def test_errors_carry_the_models_members(ebs: Any) -> None:
    with pytest.raises(ClientError) as caught:
        ebs.complete_snapshot(SnapshotId="snap-0123456789abcdef0", ChangedBlocksCount=0)
    answer = caught.value.response
    assert answer["Error"]["Code"] == "ResourceNotFoundException"
    assert answer["Reason"] == "SNAPSHOT_NOT_FOUND"
    assert "snap-0123456789abcdef0" in answer["Message"]
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-errortype"] == "ResourceNotFoundException"
    assert isinstance(caught.value, ebs.exceptions.ResourceNotFoundException)


def test_a_checksum_over_no_block_is_refused_unless_it_is_to_be_taken(server: RunningServer, ebs: Any) -> None:
    nothing = base64.b64encode(hashlib.sha256(b"").digest()).decode()
    linear = {"Checksum": nothing, "ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    snapshot_id = start(ebs)
    with refused(400, "ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0, **linear)
    server.service.configure({"checksum_of_nothing": "accept"})
    assert ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0, **linear)["Status"] == "pending"
