"""Inspections against the EBS server of the local cloud, held against what that server itself holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from blockferry.aws.sessions import Aws
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.checksums import ZERO_BLOCK
from blockferry.core.errors import IncompleteTransfer, InvalidRequest, RequestRefused, RetryLater
from blockferry.core.reserves import INSPECT_SECONDS
from blockferry.inspection.count import ListReader
from blockferry.inspection.page import report_page
from blockferry.inspection.steps import inspect_snapshots
from blockferry.inspection.tuning import Tuning
from blockferry.inspection.zeros import refuse_endless
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import RECEIPT, REPORT
from fakes import ManualClock, content
from rig import ACCOUNT, HOME, RECOVERY, Rig, put, running_rig

OTHER = "444455556666"
UNEVEN_PAGES = {"empty_page_every": 2, "trailing_empty_page": True}
UNPACED = Tuning(lists_per_second=10_000.0)
DENIED = {"action": "error", "status": 403, "code": "AccessDeniedException"}


@pytest.fixture(params=[{}, UNEVEN_PAGES], ids=["full pages", "uneven pages"])
def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    settings: Mapping[str, Any] = {"volume_snapshot_seconds": 0.0, **request.param}
    with running_rig(monkeypatch, settings) as made:
        yield made


@pytest.fixture
def even(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as made:
        yield made


@dataclass
class Disk:
    """A volume of the local cloud, and a model of each snapshot of it."""

    rig: Rig
    size_gib: int = 1
    held: dict[int, bytes] = field(default_factory=dict)
    snapshots: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made = self.rig.client("ec2").create_volume(AvailabilityZone=f"{HOME}a", Size=self.size_gib)
        self.volume_id: str = made["VolumeId"]

    def write(self, blocks: Mapping[int, bytes]) -> None:
        for index, data in blocks.items():
            self._ask("POST", index, data)
        self.held |= blocks

    def trim(self, *indices: int) -> None:
        for index in indices:
            self._ask("DELETE", index)
            del self.held[index]

    def snapshot(self) -> str:
        made: str = self.rig.client("ec2").create_snapshot(VolumeId=self.volume_id)["SnapshotId"]
        self.rig.control("clock", {"advance": 1})
        assert self.rig.state(made) == "completed"
        self.snapshots[made] = dict(self.held)
        return made

    def _ask(self, method: str, index: int, data: bytes | None = None) -> None:
        self.rig.server.control(method, f"volumes/{self.volume_id}/blocks/{index}", data)


def step(rig: Rig, request: Mapping[str, Any], *, job_id: str = "look", **more: Any) -> dict[str, Any]:
    seconds_left = more.pop("seconds_left", 900.0)
    known = {"clock": rig.clock, **{name: more.pop(name) for name in ("clock", "counts") if name in more}}
    call = JobCall(aws=rig.aws, folder=rig.workspace.folder("inspect", job_id), time_left=lambda: seconds_left, **known)
    arguments: dict[str, Any] = {"progress": None, "tuning": UNPACED, **more}
    return inspect_snapshots(
        call,
        Execution(f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-inspect:{job_id}"),
        started_at="2026-01-01T00:00:00.000Z",
        request=request,
        **arguments,
    )


def report(rig: Rig, *, job_id: str = "look", **request: Any) -> dict[str, Any]:
    answer = step(rig, request, job_id=job_id)
    assert answer["done"]
    found: dict[str, Any] = answer["report"]
    return found


def choice(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next(c for c in found["choices"] if c["name"] == name)


def test_the_allocated_blocks_of_a_snapshot_are_counted(rig: Rig) -> None:
    snapshot = rig.snapshot({0: content(1), 5: content(0), 700: content(2), 2047: content(3)})
    found = report(rig, snapshot_id=snapshot)
    assert (found["allocated_blocks"], found["allocated_bytes"]) == (4, 4 * BLOCK_SIZE)
    assert found["zero_blocks"] is found["nonzero_blocks"] is None
    assert found["delta"] is found["base"] is found["chain"] is found["changed_blocks"] is None
    assert found["requests"]["GetSnapshotBlock"] == found["requests"]["PutSnapshotBlock"] == 4
    assert (found["bytes_read"], found["bytes_written"], found["seconds_at_quota"]) == (4 * BLOCK_SIZE,) * 2 + (1,)
    assert found["source"] == {
        "snapshot_id": snapshot,
        "region": HOME,
        "owner_id": ACCOUNT,
        "volume_id": "vol-ffffffff",
        "volume_size_gib": 1,
        "start_time": found["source"]["start_time"],
        "encrypted": False,
        "tier": "standard",
        "full_snapshot_size_bytes": 4 * BLOCK_SIZE,
    }
    assert "GetSnapshotBlock" not in found["inspection"]["requests"]
    assert rig.calls().keys() & {"GetSnapshotBlock", "StartSnapshot"} <= {"StartSnapshot"}
    assert "no targets are named: the choices are for one copy in eu-west-1" in found["notes"][0]


def test_the_report_is_stored_as_receipt_and_as_a_page(even: Rig) -> None:
    disk = Disk(even)
    disk.write({1: content(1)})
    first = disk.snapshot()
    disk.write({2: content(2)})
    second = disk.snapshot()
    found = report(even, snapshot_id=second, base_snapshot_id=first, chain=[second, first])
    folder = even.workspace.folder("inspect", "look")
    stored, page = folder.read(RECEIPT), folder.read(REPORT)
    assert stored is not None
    assert page is not None
    assert json.loads(stored) == found
    assert found["receipt_uri"].endswith("/jobs/inspect/look/receipt.json")
    assert page.decode() == report_page(found)


def test_zeros_are_counted_by_reading_every_block_when_asked_for(rig: Rig) -> None:
    snapshot = rig.snapshot({0: ZERO_BLOCK, 1: content(1), 90: ZERO_BLOCK, 2000: content(2), 2047: ZERO_BLOCK})
    found = report(rig, snapshot_id=snapshot, options={"count_zeros": True})
    assert (found["allocated_blocks"], found["zero_blocks"], found["nonzero_blocks"]) == (5, 3, 2)
    assert found["inspection"]["requests"]["GetSnapshotBlock"] == 5
    assert found["inspection"]["cost_usd"]["GetSnapshotBlock"] == 0.000015


def test_a_delta_tells_added_overwritten_and_removed_blocks_apart(rig: Rig) -> None:
    disk = Disk(rig)
    disk.write({n: content(n + 1) for n in range(10)})
    base = disk.snapshot()
    disk.write({0: content(50), 1: content(51), 100: content(52), 2047: ZERO_BLOCK, 5: ZERO_BLOCK})
    disk.trim(7, 8, 9, 6)
    snapshot = disk.snapshot()
    found = report(rig, snapshot_id=snapshot, base_snapshot_id=base, targets=[{"region": RECOVERY}])
    assert found["delta"] == {
        "added_blocks": 2,
        "overwritten_blocks": 3,
        "removed_blocks": 4,
        "bytes_to_write": 9 * BLOCK_SIZE,
    }
    assert (found["allocated_blocks"], found["changed_blocks"], found["removed_blocks"]) == (8, 5, 4)
    assert found["base"]["snapshot_id"] == base
    assert found["requests"]["GetSnapshotBlock"] == 5
    assert found["requests"]["PutSnapshotBlock"] == 9
    back = report(rig, job_id="back", snapshot_id=base, base_snapshot_id=snapshot)
    assert back["delta"] == {
        "added_blocks": 4,
        "overwritten_blocks": 3,
        "removed_blocks": 2,
        "bytes_to_write": 9 * BLOCK_SIZE,
    }
    assert f"the base {snapshot} is newer than {base}: the delta leads back" in back["notes"]


def test_a_delta_of_nothing_is_reported_as_nothing(rig: Rig) -> None:
    disk = Disk(rig)
    disk.write({3: content(1)})
    base, snapshot = disk.snapshot(), disk.snapshot()
    found = report(rig, snapshot_id=snapshot, base_snapshot_id=base)
    assert (found["changed_blocks"], found["removed_blocks"], found["delta"]["bytes_to_write"]) == (0, 0, 0)
    assert "nothing changed between the two snapshots" in found["notes"]
    assert found["recommendation"]["choice"] == "copy_snapshot"


def test_a_volume_that_grew_is_counted_to_its_new_end(rig: Rig) -> None:
    small = rig.snapshot({0: content(1), 2047: content(2)})
    client = rig.client("ebs")
    grown: str = client.start_snapshot(VolumeSize=3, ParentSnapshotId=small)["SnapshotId"]
    put(client, grown, {2047: content(3), 2048: content(4), 6143: content(5)})
    client.complete_snapshot(SnapshotId=grown, ChangedBlocksCount=3)
    found = report(rig, snapshot_id=grown, base_snapshot_id=small, chain=[grown, small])
    assert found["allocated_blocks"] == 4
    assert found["delta"] == {
        "added_blocks": 2,
        "overwritten_blocks": 1,
        "removed_blocks": 0,
        "bytes_to_write": 3 * BLOCK_SIZE,
    }
    assert [row["frees_blocks"] for row in found["chain"]["snapshots"]] == [1, 3]


def test_counting_in_many_calls_gives_the_counts_of_one(rig: Rig) -> None:
    disk = Disk(rig)
    disk.write({n: content(n % 5) for n in range(0, 2048, 40)})
    names = [disk.snapshot()]
    for turn in range(1, 4):
        disk.write({n: content(10 * turn + n % 3) for n in range(turn, 2048, 97)})
        disk.trim(*sorted(disk.held)[turn::20])
        names.append(disk.snapshot())
    request = {
        "snapshot_id": names[2],
        "base_snapshot_id": names[0],
        "chain": names,
        "options": {"count_zeros": True},
    }
    whole = step(rig, request)["report"]
    slow = Tuning(page=100, pages_per_window=1, read_range=512, lists_per_second=4.0, reads_per_second=100.0)
    progress, calls, reached = None, 0, []
    while True:
        clock = ManualClock()
        answer = step(
            rig, request, progress=progress, clock=clock, seconds_left=INSPECT_SECONDS + 1.0, tuning=slow, job_id="slow"
        )
        calls += 1
        if answer["done"]:
            break
        progress = json.loads(json.dumps(answer["progress"]))
        reached.append(progress["next_index"])
        assert len(json.dumps(progress)) < 4_000
    assert calls > 3
    assert len({index for index in reached if 0 < index < 2048}) > 1
    assert reached == sorted(reached)
    ours = answer["report"]
    for name in ("allocated_blocks", "zero_blocks", "nonzero_blocks", "delta", "chain", "choices", "cheapest_keep"):
        assert ours[name] == whole[name], name
    held = disk.snapshots[names[2]]
    assert ours["allocated_blocks"] == len(held)
    assert ours["zero_blocks"] == sum(data == ZERO_BLOCK for data in held.values())
    # Every call's requests are told.
    assert ours["inspection"]["requests"]["ListSnapshotBlocks"] > whole["inspection"]["requests"]["ListSnapshotBlocks"]


def test_a_call_that_gets_nowhere_fails_as_one_to_be_repeated(even: Rig) -> None:
    snapshot = even.snapshot({1: content(1)})
    throttle = {
        "action": "error",
        "operation": "ListSnapshotBlocks",
        "code": "ThrottlingException",
        "status": 400,
        "after": 1,
    }
    even.control("faults", throttle)
    with pytest.raises(RetryLater, match="nothing could be counted behind block 0"):
        step(even, {"snapshot_id": snapshot}, clock=ManualClock(), seconds_left=65.0)


def test_a_chain_reports_what_deleting_each_snapshot_frees(rig: Rig) -> None:
    disk = Disk(rig)
    disk.write({0: content(1), 1: content(2), 2: content(3), 3: content(4)})
    first = disk.snapshot()
    disk.write({0: content(5), 4: content(6), 5: content(7)})
    middle = disk.snapshot()
    disk.write({0: content(8), 4: content(9)})
    disk.trim(3)
    last = disk.snapshot()
    found = report(rig, chain=[last, first, middle])
    assert found["source"]["snapshot_id"] == last
    chain = found["chain"]
    rows = {row["snapshot_id"]: row for row in chain["snapshots"]}
    assert list(rows) == [first, middle, last]
    # 0 was overwritten twice: each version is in one snapshot only. 4 likewise in the last two. 3 is in the first two.
    assert [row["frees_blocks"] for row in rows.values()] == [1, 2, 2]
    assert [row["allocated_blocks"] for row in rows.values()] == [4, 6, 5]
    assert rows[first]["delta"] is None
    assert rows[middle]["delta"] == {
        "added_blocks": 2,
        "overwritten_blocks": 1,
        "removed_blocks": 0,
        "bytes_to_write": 3 * BLOCK_SIZE,
    }
    # D12 - (S2 - S1) = 3 - 2 and 3 - (-1): the second counts the removed block twice.
    assert [row["c12_blocks"] for row in rows.values()] == [1, 4, None]
    assert rows[middle]["frees_usd_month"] == pytest.approx(2 / 2048 * 0.05, abs=1e-6)
    assert (chain["stored_blocks"], chain["volume_id"]) == (4 + 3 + 2, disk.volume_id)
    assert (chain["other_snapshots"], chain["other_snapshots_count"]) == ([], 0)
    assert found["cheapest_keep"]["deleting_frees_year_usd"] == pytest.approx(12 * 2 / 2048 * 0.05, abs=1e-6)


def test_snapshots_of_the_volume_that_a_chain_leaves_out_are_named(even: Rig) -> None:
    disk = Disk(even)
    names = []
    for n in range(4):
        disk.write({n: content(n + 1)})
        names.append(disk.snapshot())
    found = report(even, chain=[names[0], names[3]])["chain"]
    assert found["other_snapshots"] == sorted(names[1:3])
    assert any("2 other snapshots" in note and "may hold the same blocks" in note for note in found["notes"])


def test_other_snapshots_are_not_looked_for_by_the_arbitrary_volume_id_of_copies(even: Rig) -> None:
    first = even.snapshot({0: content(1)})
    second = even.snapshot({1: content(2)}, ParentSnapshotId=first)
    found = report(even, chain=[first, second])["chain"]
    assert found["other_snapshots"] is found["other_snapshots_count"] is None
    assert any("vol-ffffffff is not the id of a volume" in note for note in found["notes"])


def test_snapshots_of_different_volumes_are_refused_by_both_names(even: Rig) -> None:
    first, second = even.snapshot({0: content(1)}), even.snapshot({0: content(2)})
    for request in ({"snapshot_id": second, "base_snapshot_id": first}, {"chain": [first, second]}):
        with pytest.raises(InvalidRequest, match="not of one volume and lineage") as error:
            step(even, request)
        assert first in str(error.value)
        assert second in str(error.value)


def test_a_snapshot_in_the_archive_tier_is_refused_by_name(even: Rig) -> None:
    disk = Disk(even)
    disk.write({0: content(1)})
    first, second = disk.snapshot(), disk.snapshot()
    even.client("ec2").modify_snapshot_tier(SnapshotId=first, StorageTier="archive")
    even.control("clock", {"advance": 10})
    for request, name in (
        ({"snapshot_id": first}, "snapshot_id"),
        ({"snapshot_id": second, "base_snapshot_id": first}, "base_snapshot_id"),
        ({"chain": [second, first]}, r"chain\[1\]"),
    ):
        with pytest.raises(InvalidRequest, match=f"^{name}: snapshot {first} in {HOME} is in the archive tier"):
            step(even, request)


def test_a_snapshot_that_does_not_exist_or_is_pending_is_refused_with_its_field(even: Rig) -> None:
    pending: str = even.client("ebs").start_snapshot(VolumeSize=1)["SnapshotId"]
    good = even.snapshot({})
    with pytest.raises(InvalidRequest, match=f"^snapshot_id: snapshot {pending} in {HOME} is pending"):
        step(even, {"snapshot_id": pending})
    with pytest.raises(InvalidRequest, match=r"^chain\[1\]: snapshot snap-00000000000000000 .*EC2 does not know it"):
        step(even, {"chain": [good, "snap-00000000000000000"]})


def test_a_snapshot_that_may_be_described_but_not_read_is_refused_with_what_is_needed(even: Rig) -> None:
    snapshot = even.snapshot({1: content(1)})
    even.control("faults", {"operation": "ListSnapshotBlocks", **DENIED})
    with pytest.raises(InvalidRequest, match=r"cannot be read through the EBS direct APIs.*ebs:ListSnapshotBlocks"):
        step(even, {"snapshot_id": snapshot})


def test_changes_that_may_not_be_listed_are_refused_with_what_is_needed(even: Rig) -> None:
    first = even.snapshot({1: content(1)})
    second = even.snapshot({1: content(2)}, ParentSnapshotId=first)
    even.control("faults", {"operation": "ListChangedBlocks", **DENIED})
    with pytest.raises(InvalidRequest, match=f"changes from {first} to {second} .* cannot be listed"):
        step(even, {"snapshot_id": second, "base_snapshot_id": first})


def test_a_region_that_is_unknown_or_disabled_is_refused_with_its_field(even: Rig) -> None:
    snapshot = even.snapshot({})
    with pytest.raises(InvalidRequest, match=r"^source\.region: region eu-wset-1 is unknown"):
        step(even, {"snapshot_id": snapshot, "source": {"region": "eu-wset-1"}})
    with pytest.raises(InvalidRequest, match=r"^targets\[1\]\.region: region us-esat-1 is unknown"):
        step(even, {"snapshot_id": snapshot, "targets": [{"region": RECOVERY}, {"region": "us-esat-1"}]})
    with pytest.raises(InvalidRequest, match=r"^targets\[0\]\.region: region af-south-1 is not enabled"):
        step(even, {"snapshot_id": snapshot, "targets": [{"region": "af-south-1"}]})


def test_a_target_in_another_partition_is_answered_and_not_refused(even: Rig) -> None:
    snapshot = even.snapshot({1: content(1)})
    found = report(even, snapshot_id=snapshot, targets=[{"region": "cn-north-1"}])
    assert not choice(found, "copy_snapshot")["possible"]
    assert "aws to aws-cn" in choice(found, "copy_snapshot")["why_not"]
    assert found["recommendation"]["choice"] is None
    assert choice(found, "s3_standard")["possible"]


def test_a_snapshot_that_lists_nothing_although_ec2_reports_bytes_fails(
    even: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = even.snapshot({1: content(1)})
    monkeypatch.setattr(ListReader, "allocated", lambda *_: 0)
    with pytest.raises(IncompleteTransfer, match=f"{snapshot} lists no block, but EC2 says"):
        step(even, {"snapshot_id": snapshot})


def test_a_full_size_that_differs_from_the_list_is_told(even: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = even.snapshot({1: content(1)})
    monkeypatch.setattr(ListReader, "allocated", lambda *_: 0b101)
    found = report(even, snapshot_id=snapshot)
    assert found["allocated_blocks"] == 2
    assert any(f"full size of {BLOCK_SIZE} bytes, the list has {2 * BLOCK_SIZE}" in note for note in found["notes"])


def test_reading_fewer_blocks_than_were_listed_fails(even: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = even.snapshot({1: content(1)})
    monkeypatch.setattr(ListReader, "allocated", lambda *_: 0b101)
    with pytest.raises(IncompleteTransfer, match=r"1 blocks of .* were read, but 2 were listed"):
        step(even, {"snapshot_id": snapshot, "options": {"count_zeros": True}})


def test_zeros_that_no_execution_would_live_to_count_are_refused() -> None:
    blocks_of_a_tib = 2_097_152
    refuse_endless("snap-1", 38 * blocks_of_a_tib)
    with pytest.raises(InvalidRequest, match=r"options\.count_zeros: snap-1 has 134217728 .* in some 11 days"):
        refuse_endless("snap-1", 64 * blocks_of_a_tib)


def test_zeros_are_refused_before_the_first_block_is_read(even: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = even.snapshot({1: content(1)})
    monkeypatch.setattr(ListReader, "allocated", lambda *_: (1 << 40 * 2_097_152) - 1)
    even.control("stats/reset", {})
    with pytest.raises(InvalidRequest, match="count_zeros"):
        step(even, {"snapshot_id": snapshot, "options": {"count_zeros": True}})
    assert "GetSnapshotBlock" not in even.calls()


def test_an_empty_snapshot_has_nothing_to_copy(rig: Rig) -> None:
    found = report(rig, snapshot_id=rig.snapshot({}), options={"count_zeros": True})
    assert (found["allocated_blocks"], found["zero_blocks"], found["nonzero_blocks"]) == (0, 0, 0)
    assert found["seconds_at_quota"] == 0


def test_the_base_may_not_be_the_newest_of_the_chain_that_is_looked_at(even: Rig) -> None:
    disk = Disk(even)
    first, second = disk.snapshot(), disk.snapshot()
    with pytest.raises(InvalidRequest, match=f"base_snapshot_id: {second} is the newest of the chain"):
        step(even, {"chain": [first, second], "base_snapshot_id": second})


@pytest.mark.parametrize(("manager", "possible"), [("AWS", False), ("CUSTOMER", True), (None, True)])
def test_who_manages_the_key_decides_whether_ec2_can_copy_to_another_account(
    even: Rig, monkeypatch: pytest.MonkeyPatch, manager: str | None, possible: bool
) -> None:
    class Kms:
        def describe_key(self, KeyId: str) -> dict[str, Any]:
            assert KeyId.startswith("arn:aws:kms:")
            return {"KeyMetadata": {"KeyManager": manager} if manager else {}}

    monkeypatch.setattr(Aws, "kms", lambda _self, _identity: Kms())
    snapshot = even.snapshot({1: content(1)}, Encrypted=True)
    target = {"region": RECOVERY, "role_arn": f"arn:aws:iam::{OTHER}:role/blockferry"}
    found = report(even, snapshot_id=snapshot, targets=[target])
    native = choice(found, "copy_snapshot")
    assert native["possible"] is possible
    if not possible:
        assert f"cannot be shared with account {OTHER}" in native["why_not"]
        assert found["recommendation"]["choice"] == "direct"
    else:
        assert any("could not be looked up" in text for text in native["conditions"]) is (manager is None)


def test_a_key_that_may_not_be_described_is_unknown_and_no_error(even: Rig) -> None:
    # The KMS of this test knows no keys at all.
    snapshot = even.snapshot({1: content(1)}, Encrypted=True)
    target = {"region": RECOVERY, "role_arn": f"arn:aws:iam::{OTHER}:role/blockferry"}
    native = choice(report(even, snapshot_id=snapshot, targets=[target]), "copy_snapshot")
    assert any("could not be looked up" in text for text in native["conditions"])


def test_a_request_that_ec2_refuses_is_no_report(even: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import EndpointConnectionError

    class Ec2:
        def describe_regions(self, **_: Any) -> dict[str, Any]:
            raise EndpointConnectionError(endpoint_url="http://x")

    monkeypatch.setattr(Aws, "ec2", lambda _self, _identity: Ec2())
    monkeypatch.setattr(type(even.aws), "ec2", lambda _self, _identity: Ec2())
    with pytest.raises(RequestRefused, match="DescribeRegions"):
        step(even, {"snapshot_id": "snap-00000000000000000"})


def test_a_report_on_a_hundred_snapshots_fits_into_a_state(even: Rig) -> None:
    names = [even.snapshot({0: content(1)})]
    for n in range(99):
        names.append(even.snapshot({n % 7: content(n + 2)}, ParentSnapshotId=names[-1]))
    found = report(even, chain=list(reversed(names)))
    assert len(json.dumps(found)) < 200 * 1024
    assert len(found["chain"]["snapshots"]) == 100
    with pytest.raises(InvalidRequest, match="chain"):
        step(even, {"chain": [*names, "snap-00000000000000000"]})
