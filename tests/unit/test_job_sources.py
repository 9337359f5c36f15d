"""What a job reads: the right source with the right facts, and a list of it that is no worker's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.ebs.client import Change, ChangedPage
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import IncompleteTransfer, OutOfTime, ParentDiffers
from blockferry.core.retry import Deadline
from blockferry.jobs.call import JobCall
from blockferry.sources.delta import BaseSnapshot, DeltaSource
from blockferry.sources.equal import EqualSnapshots
from blockferry.sources.image import S3ImageSource, UnpackedImageSource
from blockferry.sources.kind import JobSource, Listed
from blockferry.sources.snapshot import SnapshotSource
from blockferry.targets.on_parent import SnapshotOnParent
from blockferry.targets.snapshot import SnapshotTarget
from fakes import ManualClock, content
from job_records import HOME, RECOVERY, delta, folder_of, image, job, on_parent, source, target
from memory_ebs import MemoryEbs
from memory_ec2 import refusal
from memory_s3 import MemoryS3

ROLE = "arn:aws:iam::444455556666:role/reader"
BEHIND = 2_048
"""The first block behind the end of a volume of 1 GiB."""


def base(size_gib: int = 1) -> BaseSnapshot:
    return BaseSnapshot(snapshot_id="snap-b", size_gib=size_gib, start_time="2025-12-31T00:00:00+00:00")


class Clients:
    """The clients of one identity in the home region; nobody else may be asked. Targets are in the recovery region."""

    def __init__(self, ebs: MemoryEbs | None = None, s3: Any = None) -> None:
        self._ebs, self._s3 = ebs, s3

    def ebs(self, identity: Identity, **_: Any) -> MemoryEbs:
        assert identity in (Identity(HOME), Identity(RECOVERY))
        assert self._ebs is not None
        return self._ebs

    def image_s3(self, identity: Identity) -> Any:
        assert identity == Identity(HOME)
        return self._s3


def call_with(
    ebs: MemoryEbs | None = None,
    *,
    s3: Any = None,
    clock: ManualClock | None = None,
    counts: RequestCounts | None = None,
) -> JobCall:
    clock = clock or ManualClock()
    return JobCall(
        aws=cast(Any, Clients(ebs, s3)),
        folder=folder_of(job(source(), target()), s3),
        counts=counts or RequestCounts(),
        clock=clock,
        deadline=Deadline(60.0, clock=clock),
    )


def read_by(of: JobSource, ebs: MemoryEbs | None = None, **more: Any) -> Any:
    return of.open(call_with(ebs, **more))


def again(of: JobSource, ebs: MemoryEbs | None, first: int, stop: int) -> Listed:
    return of.relist(call_with(ebs), first, stop)


# -- the worker's source -----------------------------------------------------------------------------------------------


def test_a_copy_reads_the_blocks_of_its_snapshot() -> None:
    found = read_by(source(), MemoryEbs({"snap-0": {3: content(1), 9: content(2)}}))
    assert isinstance(found, SnapshotSource)
    assert {ref.index: found.read(ref).data for ref in found.blocks(BlockRange(0, 10))} == {
        3: content(1),
        9: content(2),
    }


@pytest.mark.parametrize(("size", "base_size"), [(2, 1), (1, 2)])
def test_a_sync_reads_what_changed_since_its_base_up_to_the_end_of_the_larger_one(size: int, base_size: int) -> None:
    last = 2 * BEHIND - 1
    blocks = {0: content(1), 3: content(2), last: content(3)}
    ebs = MemoryEbs({"snap-b": {0: content(1), 1: content(4)}, "snap-0": blocks})
    found = read_by(delta(base(base_size), size_gib=size), ebs)
    assert isinstance(found, DeltaSource)
    refs = list(found.blocks(BlockRange(0, 3 * BEHIND)))
    assert [(ref.index, ref.removed) for ref in refs] == [(1, True), (3, False), (last, False)]
    ebs.asked.clear()
    assert list(found.blocks(BlockRange(2 * BEHIND, 3 * BEHIND))) == []
    assert ebs.asked == []


def test_an_image_is_read_as_it_is_or_as_it_was_unpacked() -> None:
    asked = []

    def get_object(**request: Any) -> Any:
        asked.append(request)
        raise SystemExit

    s3 = SimpleNamespace(get_object=get_object, meta=SimpleNamespace(region_name=HOME))
    raw = read_by(image(uri="s3://bucket/folder/disk.img", etag="tag", raw_bytes=BLOCK_SIZE + 1), s3=s3)
    assert isinstance(raw, S3ImageSource)
    refs = list(raw.blocks(BlockRange(0, 9)))
    assert [ref.index for ref in refs] == [0, 1]
    with pytest.raises(SystemExit):
        raw.read(refs[0])
    (request,) = asked
    assert (request["Bucket"], request["Key"], request["IfMatch"]) == ("bucket", "folder/disk.img", "tag")
    assert request["Range"] == f"bytes=0-{BLOCK_SIZE}"
    packed = read_by(image(codec="xz", raw_bytes=BLOCK_SIZE + 1))
    assert isinstance(packed, UnpackedImageSource)
    assert [ref.index for ref in packed.blocks(BlockRange(0, 9))] == [0, 1]


@pytest.mark.parametrize("codec", ["raw", "gzip"])
def test_reading_an_image_is_repeated_counted_and_given_up_within_the_time_of_the_worker(codec: str) -> None:
    s3, clock, counts = MemoryS3(), ManualClock(), RequestCounts()
    s3.errors["GetObject"] = refusal("SlowDown", "GetObject", status=503)
    found = read_by(image(codec=codec), s3=s3, clock=clock, counts=counts)
    began = clock.monotonic()
    with pytest.raises(OutOfTime):
        found.read(next(found.blocks(BlockRange(0, 1))))
    assert counts.requests["GetObject"] == counts.retries["GetObject SlowDown"] > 1
    assert 0 < clock.monotonic() - began <= 60


# -- base and parents --------------------------------------------------------------------------------------------------


def beside(ebs: MemoryEbs, targets: dict[int, SnapshotTarget], *, base_size: int = 1) -> EqualSnapshots:
    """The parents of targets, by their positions, beside the base."""
    call = call_with(ebs)
    clones = [each.clone(number, call) for number, each in targets.items()]
    return delta(base(base_size), size_gib=3).beside(call, clones)


def compared(ebs: MemoryEbs, *targets: Any, numbers: tuple[int, ...] = (0,), base_size: int = 1) -> dict[int, str]:
    """Which of the parents differ from the base, and why."""
    both = beside(ebs, {number: targets[number] for number in numbers}, base_size=base_size)
    for ref in both.blocks(BlockRange(0, 3 * BEHIND)):
        both.read(ref)
    assert all(isinstance(error, ParentDiffers) for error in both.failed.values())
    return {number: str(error) for number, error in both.failed.items()}


def parent(snapshot_id: str = "snap-p", **more: Any) -> SnapshotOnParent:
    return on_parent(snapshot_id, **{f"parent_{name}": value for name, value in {"size_gib": 1, **more}.items()})


def test_parents_are_compared_with_the_base_and_named_by_their_position() -> None:
    ebs = MemoryEbs({"snap-b": {1: content(1)}, "snap-p": {1: content(1)}, "snap-q": {1: content(2)}})
    targets = [parent("snap-q"), parent("snap-p"), parent("snap-q")]
    found = compared(ebs, *targets, numbers=(1, 2))
    assert list(found) == [1]
    assert found[1].startswith(
        f"targets[2].parent_snapshot_id snap-q in {RECOVERY} is not equal to base snap-b: block 1 is SHA-256"
    )


def test_only_a_delta_has_a_base_and_only_a_target_on_a_parent_has_one() -> None:
    for of in (image(), source()):
        with pytest.raises(IncompleteTransfer, match=f"{of.name} has no base to compare parents with"):
            of.beside(call_with(), [])
    with pytest.raises(IncompleteTransfer, match=rf"targets\[3\] in {RECOVERY} has no parent to compare"):
        target().clone(3, call_with())


def test_a_side_is_not_asked_for_a_range_behind_its_end() -> None:
    ebs = MemoryEbs({"snap-b": {}, "snap-p": {}})
    for base_size, parent_size, asked in ((1, 1, set()), (2, 1, {"snap-b"}), (1, 2, {"snap-p"})):
        ebs.asked.clear()
        both = beside(ebs, {0: parent(size_gib=parent_size)}, base_size=base_size)
        assert list(both.blocks(BlockRange(BEHIND, 3 * BEHIND))) == []
        assert {name for _, name, *_ in ebs.asked} == asked


def test_what_lies_behind_the_end_of_the_smaller_side_is_compared_with_a_hole() -> None:
    ebs = MemoryEbs({"snap-b": {2 * BEHIND - 1: content(1)}, "snap-p": {BEHIND - 1: content(0)}})
    (told,) = compared(ebs, parent(), base_size=2).values()
    assert f"block {2 * BEHIND - 1} is not allocated there" in told


def test_an_encrypted_parent_is_compared_as_one_whose_holes_are_no_zeros() -> None:
    ebs = MemoryEbs({"snap-b": {1: content(0)}, "snap-p": {}})
    assert compared(ebs, parent()) == {}
    assert compared(ebs, parent(encrypted=True)).keys() == {0}


def test_a_parent_that_may_have_no_hole_is_looked_at_up_to_its_end() -> None:
    full = dict.fromkeys(range(BEHIND), content(0))
    ebs = MemoryEbs({"snap-b": {}, "snap-p": full, "snap-q": dict.fromkeys(range(BEHIND - 1), content(0))})
    assert compared(ebs, parent(encrypted=True, is_full=True)) == {}
    (told,) = compared(ebs, parent("snap-q", encrypted=True, is_full=True)).values()
    assert f"block {BEHIND - 1} is not allocated there" in told
    assert compared(ebs, parent("snap-q", encrypted=True)) == {}


# -- the proof's list --------------------------------------------------------------------------------------------------


def test_a_stretch_of_a_snapshot_is_listed_again_up_to_the_volumes_end() -> None:
    ebs = MemoryEbs({"snap-0": {index: content(1) for index in (2, 5, 6, BEHIND - 1)}})
    for first, stop, indices in ((2, 6, {2, 5}), (3, 5, set()), (BEHIND - 1, 2 * BEHIND, {BEHIND - 1})):
        found = again(source(), ebs, first, stop)
        assert found == Listed(frozenset(indices), frozenset(), len(indices))
    asked = len(ebs.asked)
    assert again(source(), ebs, BEHIND, 2 * BEHIND) == Listed(frozenset(), frozenset(), 0)
    for first, stop in ((5, 5), (6, 5)):
        assert again(source(), ebs, first, stop) == Listed(frozenset(), frozenset(), 0)
    assert len(ebs.asked) == asked


def test_an_image_has_every_block_up_to_its_end() -> None:
    of = image(raw_bytes=3 * BLOCK_SIZE + 1)
    for first, stop, indices in ((0, 9, range(4)), (2, 3, range(2, 3)), (3, 4, range(3, 4)), (4, 9, range(0))):
        found = again(of, None, first, stop)
        assert found == Listed(frozenset(indices), frozenset(), len(indices))
    assert [image(raw_bytes=size).blocks for size in (1, BLOCK_SIZE, BLOCK_SIZE + 1)] == [1, 1, 2]


def test_a_delta_is_what_changed_and_what_is_gone_beside_what_is_allocated() -> None:
    before = {1: content(1), 2: content(2), 3: content(3)}
    after = {1: content(1), 2: content(9), 5: content(5)}
    ebs = MemoryEbs({"snap-b": before, "snap-0": after})
    found = again(delta(base()), ebs, 0, 10)
    assert found == Listed(frozenset({2, 3, 5}), frozenset({3}), 3)
    assert again(delta(base()), ebs, 0, 3) == Listed(frozenset({2}), frozenset(), 2)


class Contradicts(MemoryEbs):
    """Lists one change whatever the snapshots hold."""

    def __init__(self, change: Change) -> None:
        super().__init__({"snap-b": {}, "snap-0": {3: content(1)}})
        self.change = change

    def list_changed_blocks(self, *_: Any, **__: Any) -> ChangedPage:
        return ChangedPage((self.change,), None)


@pytest.mark.parametrize(("change", "said"), [(Change(3, "a", None), "not in"), (Change(4, "a", "b"), "in")])
def test_a_list_of_changes_that_contradicts_the_list_of_blocks_is_not_believed(change: Change, said: str) -> None:
    told = (
        f"the list of changes from snap-b says that block {change.index} is {said} snap-0, the list of its blocks says "
        "the opposite"
    )
    with pytest.raises(IncompleteTransfer, match=told):
        again(delta(base()), Contradicts(change), 0, 10)
