"""Whose the place of an archive is, and what becomes of what was begun there."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.archives import bucket_of
from blockferry.core.blocks import BLOCKS_PER_GIB, BlockRange
from blockferry.core.checksums import Linear
from blockferry.core.errors import (
    IncompleteTransfer,
    InvalidRequest,
    OutOfTime,
    RequestRefused,
    RetryLater,
    TargetFailed,
)
from blockferry.core.quotas import DELETED_OBJECTS
from blockferry.formats.archive import manifest
from blockferry.formats.archive.layout import MANIFEST, UNFINISHED, segment_name
from blockferry.jobs.archived import Note
from blockferry.jobs.call import JobCall
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import Sums
from blockferry.targets.archive import ArchiveTarget
from blockferry.targets.archive_listing import SPAN_SEGMENTS, Listing
from botocore.exceptions import EndpointConnectionError
from fakes import ManualClock
from job_records import EXECUTION, HOME, RECOVERY, archive, job_call
from memory_ec2 import refusal
from memory_s3 import MemoryS3

MINE, OTHERS = EXECUTION.mark, "f" * 64

SUMS = Sums(blocks_written=0, linear_checksum=Linear().value())


class Bucket(MemoryS3):
    """Of archives; ``log`` has what was deleted and listed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, int]] = []
        self.stuck_puts = False

    def put_object(self, **members: Any) -> Any:
        if self.stuck_puts:
            raise RuntimeError("died while it was sent")
        return super().put_object(**members)

    def list_objects_v2(self, **members: Any) -> Any:
        found = super().list_objects_v2(**{"MaxKeys": 1_000, **members})
        self.log.append(("list", len(found.get("Contents", ()))))
        return found

    def delete_objects(self, **members: Any) -> Any:
        self.log.append(("delete", len(members["Delete"]["Objects"])))
        return super().delete_objects(**members)


class Jobs:
    """A bucket of archives, and calls of jobs that write there."""

    def __init__(self) -> None:
        self.archives = Bucket()
        self.work = MemoryS3()

    def call(self, job_id: str = "job-1") -> JobCall:
        aws = SimpleNamespace(image_s3=lambda _identity: self.archives)
        return job_call(aws, JobFolder("work", cast(Any, self.work), "archive", job_id), clock=ManualClock())

    def begun(self, *, mark: str = MINE, job_id: str = "job-1") -> ArchiveTarget:
        return archive(started_at="", execution=mark, job_id=job_id).start(self.call(job_id), token="", mark=mark)

    def counted(self, target: ArchiveTarget) -> ArchiveTarget:
        """An archive of nothing, but for its manifest."""
        call, within = self.call(target.job_id), BlockRange(0, BLOCKS_PER_GIB)
        target.sink(call, number=0, within=within).finish(within.stop)
        target.counted(call, 0, within, [], 0)
        return target

    def finished(self, *, mark: str = MINE, job_id: str = "job-1") -> ArchiveTarget:
        target = self.counted(self.begun(mark=mark, job_id=job_id))
        call = self.call(job_id)
        target.seal(call, 0, SUMS, call.folder)
        target.mark_proved(call, SUMS)
        return target

    def swept(self, target: ArchiveTarget) -> list[str | None]:
        """What a sweep does about what the target's job has left."""
        call = self.call(target.job_id)
        found = ArchiveTarget.left_behind([target], target.identity, call, mark=target.execution)
        return [left.discard(call, call.folder, mark=target.execution) for left in found]


def key(name: str) -> str:
    return archive().address.key(name)


def test_a_place_that_another_job_has_claimed_is_refused() -> None:
    jobs = Jobs()
    jobs.begun(mark=OTHERS, job_id="theirs")
    with pytest.raises(InvalidRequest, match=r"is being written by another job, or was left by one \(.*theirs"):
        jobs.begun()
    assert json.loads(jobs.archives.objects[key(UNFINISHED)])["execution"] == OTHERS


def test_a_place_that_is_claimed_again_by_the_same_execution_is_the_same_one() -> None:
    jobs = Jobs()
    jobs.begun()
    assert jobs.begun().snapshot_id == "archive-1"


def test_a_job_that_begins_after_another_one_has_come_and_gone_does_not_write_over_its_archive() -> None:
    # It was planned before: nothing was there then.
    jobs = Jobs()
    theirs = jobs.finished(mark=OTHERS, job_id="theirs")
    before = dict(jobs.archives.objects)
    with pytest.raises(InvalidRequest, match="was written by another job meanwhile, and an archive is never written o"):
        jobs.begun()
    assert jobs.swept(archive(started_at="")) == ["it is complete"]
    assert jobs.archives.objects == before
    assert key(MANIFEST) in before
    theirs.confirm(ArchiveTarget.look({0: theirs}, jobs.call("theirs")).facts[0])


def test_a_claim_that_goes_away_while_it_is_looked_at_is_tried_again() -> None:
    jobs = Jobs()
    jobs.begun(mark=OTHERS)
    # Whoever looks at it comes too late.
    jobs.archives.errors["GetObject"] = refusal("NoSuchKey", "GetObject", status=404)
    with pytest.raises(RetryLater, match="the claim of another job was taken away just now"):
        jobs.begun()
    jobs.archives.errors.clear()
    jobs.archives.objects.clear()
    jobs.begun()
    assert json.loads(jobs.archives.objects[key(UNFINISHED)])["execution"] == MINE


def died_before_it_took_its_claim_away(jobs: Jobs) -> ArchiveTarget:
    target = jobs.counted(jobs.begun())
    target.seal(jobs.call(), 0, SUMS, jobs.call().folder)
    return target


def test_a_finished_archive_is_kept_by_a_sweep_which_takes_the_claim_away_and_is_done_with_it() -> None:
    jobs = Jobs()
    target = died_before_it_took_its_claim_away(jobs)
    finished = jobs.archives.objects[key(MANIFEST)]
    assert jobs.swept(target) == ["it is complete"]
    assert jobs.archives.objects == {key(MANIFEST): finished}
    # The next sweep has nothing to keep.
    assert jobs.swept(target) == []
    assert jobs.archives.objects == {key(MANIFEST): finished}


def test_a_manifest_that_an_earlier_version_has_written_for_the_same_job_is_its_own() -> None:
    jobs = Jobs()
    target = jobs.counted(jobs.begun())
    call = jobs.call()
    target.seal(call, 0, SUMS, call.folder)
    written = manifest.load(jobs.archives.objects[key(MANIFEST)], name="x")
    earlier = manifest.sealed(written.model_copy(update={"tool_version": "0.0.1"}))
    jobs.archives.objects[key(MANIFEST)] = manifest.dump(earlier)
    # Its answer was lost, and then Blockferry was upgraded.
    asked = call.folder.sealing("archive-1")
    assert asked is not None
    call.folder.save_sealing("archive-1", asked.model_copy(update={"state": "asked"}))
    target.seal(call, 0, SUMS, call.folder)
    assert call.folder.sealing("archive-1") == asked.model_copy(update={"state": "accepted"})
    assert jobs.archives.objects[key(MANIFEST)] == manifest.dump(earlier)


@pytest.mark.parametrize("change", [{"execution": OTHERS}, {"created_at": "2020-01-01T00:00:00+00:00"}])
def test_a_manifest_that_is_another_one_is_kept_and_fails_the_job(change: dict[str, str]) -> None:
    jobs = Jobs()
    target = jobs.counted(jobs.begun())
    call = jobs.call()
    made = target._manifest(call, 0, SUMS)
    other = manifest.dump(manifest.sealed(made.model_copy(update=change)))
    jobs.archives.objects[key(MANIFEST)] = other
    with pytest.raises(TargetFailed, match=r"manifest.json was written by somebody else meanwhile; it is kept"):
        target.seal(call, 0, SUMS, call.folder)
    assert jobs.archives.objects[key(MANIFEST)] == other
    refused = call.folder.sealing("archive-1")
    assert refused is not None
    assert refused.state == "refused"


def test_a_manifest_is_written_once_and_what_was_asked_for_is_on_record_before() -> None:
    jobs = Jobs()
    target, call = jobs.counted(jobs.begun()), jobs.call()
    jobs.archives.calls.clear()
    jobs.archives.stuck_puts = True
    with pytest.raises(RuntimeError):
        target.seal(call, 0, SUMS, call.folder)
    asked = call.folder.sealing("archive-1")
    assert asked is not None
    assert (asked.state, asked.changed_blocks, asked.linear_checksum) == ("asked", 0, SUMS.linear_checksum)
    jobs.archives.stuck_puts = False
    target.seal(call, 0, SUMS, call.folder)
    # Whoever asks again after its answer is told by the record.
    target.seal(call, 0, SUMS, call.folder)
    assert jobs.archives.calls == {"PutObject": 1}


def test_an_unfinished_archive_is_deleted_as_it_is_listed_and_its_claim_last() -> None:
    jobs = Jobs()
    target = jobs.begun()
    for first in range(2 * DELETED_OBJECTS + 10):
        jobs.archives.objects[key(segment_name(first))] = b"x"
    jobs.archives.objects[key("index/0000000000.idx")] = b"x"
    jobs.archives.objects["disks/archive-10/manifest.json"] = b"x"
    jobs.archives.log.clear()
    assert jobs.swept(target) == [None]
    assert jobs.archives.objects.keys() == {"disks/archive-10/manifest.json"}
    assert jobs.archives.log == [
        ("list", 1),
        ("list", 1_000),
        ("delete", 1_000),
        ("list", 1_000),
        ("delete", 1_000),
        ("list", 10),
        ("delete", 11),
        ("delete", 1),
    ]


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (json.dumps({"execution": OTHERS}).encode(), []),
        (b"no json", []),
        (b"[]", []),
        (None, ["nobody says whose it is"]),
    ],
)
def test_what_is_not_said_to_be_of_the_job_is_kept(claim: bytes | None, expected: list[str]) -> None:
    jobs = Jobs()
    target = jobs.begun()
    jobs.archives.objects[key(segment_name(0))] = b"x"
    if claim is None:
        del jobs.archives.objects[key(UNFINISHED)]
    else:
        jobs.archives.objects[key(UNFINISHED)] = claim
    before = dict(jobs.archives.objects)
    assert jobs.swept(target) == expected
    assert jobs.archives.objects == before
    left = archive().leftover()
    assert left is not None
    assert left.discard(jobs.call(), jobs.call().folder, mark=MINE) is not None
    assert jobs.archives.objects == before


def test_what_others_keep_below_the_address_of_an_archive_is_not_deleted_and_no_reason_to_look_again() -> None:
    jobs = Jobs()
    target = jobs.begun()
    others = ("web/manifest.json", "web/segments/0000000000.zst", "segments/0/manifest.json", "index/notes.idx", "a")
    for name in others:
        jobs.archives.objects[key(name)] = b"x"
    jobs.archives.objects[key(segment_name(0))] = b"x"
    assert jobs.swept(target) == [None]
    assert jobs.archives.objects.keys() == {key(name) for name in others}
    assert jobs.swept(target) == []
    left = target.leftover()
    assert left is not None
    assert left.discard(jobs.call(), jobs.call().folder, mark=MINE) is None
    assert jobs.archives.objects.keys() == {key(name) for name in others}


def test_where_nothing_was_begun_nothing_is_left() -> None:
    jobs = Jobs()
    assert jobs.swept(archive(started_at="")) == []
    assert archive(started_at="").leftover() is None
    assert archive().region == HOME


@pytest.mark.parametrize(
    "failure", [refusal("SlowDown", "GetObject", status=503), EndpointConnectionError(endpoint_url="https://s3")]
)
def test_an_archive_that_cannot_be_asked_about_says_nothing_of_others(failure: Exception) -> None:
    jobs, other = Jobs(), Jobs()
    target = jobs.finished()
    other.finished()
    call = jobs.call()
    places = {HOME: jobs.archives, RECOVERY: other.archives}
    call = job_call(
        SimpleNamespace(image_s3=lambda identity: places[identity.region]), call.folder, clock=ManualClock()
    )
    jobs.archives.errors["GetObject"] = failure
    looked = ArchiveTarget.look({0: target, 1: target.model_copy(update={"region": RECOVERY})}, call)
    assert looked.facts.keys() == {1}
    assert isinstance(looked.errors[0], RetryLater)


def test_an_archive_that_another_execution_has_written_there_is_not_this_one() -> None:
    jobs = Jobs()
    target = jobs.finished()
    facts = ArchiveTarget.look({0: target}, jobs.call()).facts[0]
    target.confirm(facts)
    for change in ({"execution": OTHERS}, {"archive_id": "archive-2"}):
        with pytest.raises(TargetFailed, match="is another archive's now, it was written before"):
            target.model_copy(update=change).confirm(facts)
    with pytest.raises(IncompleteTransfer, match="archive-1/ has no manifest"):
        target.facts(replace(facts, manifest=None))


@pytest.mark.parametrize(
    ("body", "error", "why"),
    [
        (None, InvalidRequest, f"s3://archives/{key(MANIFEST)} is gone, it was written before"),
        (b"{}", TargetFailed, "is in state error: manifest "),
    ],
)
def test_a_manifest_that_is_gone_or_damaged_behind_the_sealing_is_not_waited_for(
    body: bytes | None, error: type[Exception], why: str
) -> None:
    jobs = Jobs()
    target = jobs.finished()
    del jobs.archives.objects[key(MANIFEST)]
    if body is not None:
        jobs.archives.objects[key(MANIFEST)] = body
    looked = ArchiveTarget.look({0: target}, jobs.call())
    assert "pending" not in {facts.state for facts in looked.facts.values()}
    with pytest.raises(error, match=why):
        raise looked.errors[0] if 0 in looked.errors else _refusal(target, looked.facts[0])


def _refusal(target: ArchiveTarget, facts: Any) -> Exception:
    try:
        target.confirm(facts)
    except TargetFailed as error:
        return error
    raise AssertionError("it was confirmed")


def test_what_there_is_no_time_to_delete_is_deleted_by_the_next_call() -> None:
    jobs = Jobs()
    target = jobs.begun()
    for number in range(2 * DELETED_OBJECTS + 500):
        jobs.archives.objects[key(segment_name(number))] = b""
    left = target.leftover()
    assert left is not None
    for there in (DELETED_OBJECTS + 500, 500):
        late = job_call(jobs.call().aws, jobs.call().folder, clock=ManualClock(), seconds_left=29.0)
        with pytest.raises(OutOfTime, match="1000 of its objects are deleted, and there are more"):
            left.discard(late, late.folder, mark=MINE)
        # Its claim is there as long as anything else is: by it the next call finds out whose it is.
        assert len(jobs.archives.objects) == there + 1
        assert key(UNFINISHED) in jobs.archives.objects
    assert left.discard(late, late.folder, mark=MINE) is None
    assert jobs.archives.objects == {}


@pytest.mark.parametrize("segment_blocks", [1, 64])
def test_the_segments_of_a_large_archive_are_listed_by_spans_of_blocks(segment_blocks: int) -> None:
    span = SPAN_SEGMENTS * segment_blocks
    firsts = (0, span - 1, span, span + 7_000, 3 * span, 4 * span - 1)
    archives, address = Bucket(), archive().address
    for first in firsts:
        archives.put_object(Bucket="b", Key=address.key(segment_name(first)), Body=b"%d" % first)
    aws = SimpleNamespace(image_s3=lambda _identity: archives)
    call = job_call(aws, JobFolder("work", cast(Any, MemoryS3()), "archive", "a"), clock=ManualClock())
    bucket = bucket_of(call, archive().identity, address.bucket)
    stored = [(each.key, each.size, each.etag) for each in bucket.listed(address.key())]
    archives.log.clear()

    def checked(objects: list[tuple[str, int, str]]) -> None:
        length = span // 2
        with Listing(address, bucket, 4 * span, segment_blocks=segment_blocks) as there:
            for at in range(0, 4 * span, length):
                own = [each for each, first in zip(objects, firsts, strict=True) if at <= first < at + length]
                there.check(Note(first=at, stop=at + length, objects=tuple(own)))

    checked(stored)
    # The indexes, of which there are none, and four spans: what is in memory is bounded by segments, however small.
    assert [operation for operation, _ in archives.log] == 5 * ["list"]
    for number, (name, size, etag) in enumerate(stored):
        other = [*stored[:number], (name, size + 1, etag), *stored[number + 1 :]]
        with pytest.raises(IncompleteTransfer, match="is not what was stored there, or is gone"):
            checked(other)


def test_nothing_is_left_in_a_bucket_that_is_gone() -> None:
    jobs = Jobs()
    target = jobs.begun()
    jobs.archives.errors["GetObject"] = refusal("NoSuchBucket", "GetObject", status=404)
    assert jobs.swept(target) == []
    jobs.archives.errors["GetObject"] = refusal("AccessDenied", "GetObject", status=403)
    with pytest.raises(RequestRefused):
        jobs.swept(target)
