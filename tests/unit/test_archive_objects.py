"""What is stored of an archive, how, and what of that is told before: by hand, from the target alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.core.blocks import BLOCK_SIZE, BLOCKS_PER_GIB, BlockRange
from blockferry.core.checksums import Linear, digest_of
from blockferry.core.holes import HoleMeaning
from blockferry.core.ports import Block, BlockRef
from blockferry.cost.work import Work, cost_of
from blockferry.formats.archive.index import ENTRY
from blockferry.formats.archive.layout import INDEX, MANIFEST, SEGMENTS, UNFINISHED
from blockferry.formats.archive.manifest import Member, SourceFacts
from blockferry.formats.archive.segment import Compressor
from blockferry.jobs.call import JobCall
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import Sums
from blockferry.sources.kind import JobSource
from blockferry.targets.archive import ArchiveTarget
from blockferry.targets.kind import Forecast
from blockferry.transfer.receipt import report, write_receipt
from fakes import ManualClock, content
from job_records import (
    EXECUTION,
    HOME,
    PROOF,
    RECOVERY,
    THIRD,
    archive,
    folder_of,
    image,
    job,
    job_call,
    recorded,
    source,
)
from memory_s3 import MemoryS3

KEY = f"arn:aws:kms:{HOME}:111122223333:key/1"

GIB = BlockRange(0, BLOCKS_PER_GIB)


class Bucket(MemoryS3):
    """Of archives; ``members`` are those of PutObject with which each object was stored, besides its body."""

    def __init__(self) -> None:
        super().__init__()
        self.members: dict[str, dict[str, Any]] = {}

    def put_object(self, *, Key: str, **members: Any) -> Any:
        told = {name: value for name, value in members.items() if name not in ("Bucket", "Body", "ChecksumSHA256")}
        answer = super().put_object(Key=Key, **members)
        self.members[Key] = told
        return answer


def call_of(archives: MemoryS3) -> JobCall:
    aws = SimpleNamespace(image_s3=lambda _identity: archives)
    return job_call(aws, JobFolder("work", cast(Any, MemoryS3()), "archive", "job-1"), clock=ManualClock())


def written(target: ArchiveTarget, archives: MemoryS3) -> ArchiveTarget:
    """An archive of one block with data and one of zeros, with its claim still there."""
    call, blocks, linear = call_of(archives), {3: content(1), 9: content(0)}, Linear()
    begun = target.start(call, token="", mark=EXECUTION.mark)
    sink = begun.sink(call, number=0, within=GIB)
    for index, data in blocks.items():
        sink.write(Block(index, data, digest_of(data)))
        linear.add(index, digest_of(data))
    sink.finish(GIB.stop)
    begun.counted(call, 0, GIB, [(index, digest_of(data)) for index, data in blocks.items()], len(blocks))
    begun.seal(call, 0, Sums(blocks_written=len(blocks), linear_checksum=linear.value()), call.folder)
    return begun


def of_kind(archives: Bucket, target: ArchiveTarget, name: str) -> Any:
    """The members of the only object whose name begins so."""
    (found,) = (members for key, members in archives.members.items() if key.startswith(target.address.key(name)))
    return found


@pytest.mark.parametrize("protected", [False, True])
def test_what_is_read_at_any_time_stays_hot_and_only_segments_go_to_the_storage_class(protected: bool) -> None:
    archives = Bucket()
    more: dict[str, Any] = {"kms_key_arn": KEY, "object_tags": {"team": "a b", "näme": "1&2"}} if protected else {}
    target = written(archive(started_at="", storage_class="DEEP_ARCHIVE", **more), archives)
    every = (
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": KEY, "Tagging": "team=a+b&n%C3%A4me=1%262"}
        if protected
        else {}
    )
    once = {"IfNoneMatch": "*"}
    assert of_kind(archives, target, UNFINISHED) == {"ContentType": "application/json", **once, **every}
    assert of_kind(archives, target, INDEX) == {"ContentType": "application/octet-stream", **every}
    segment = {"ContentType": "application/zstd", "StorageClass": "DEEP_ARCHIVE"}
    assert of_kind(archives, target, SEGMENTS) == {**segment, **every}
    manifest = {"ContentType": "application/json", **once, **every}
    assert {n: v for n, v in of_kind(archives, target, MANIFEST).items() if n != "Metadata"} == manifest


def test_the_headers_of_a_manifest_tell_what_it_is_of_and_leave_out_what_is_not_known() -> None:
    archives = Bucket()
    of = SourceFacts(snapshot_id="snap-0", volume_id="vol-1", start_time="2026-01-01T00:00:00+00:00", description="a ")
    told = of_kind(archives, written(archive(started_at="", source=of, size_gib=1), archives), MANIFEST)["Metadata"]
    assert told == {
        "snapshot-id": "snap-0",
        "volume-id": "vol-1",
        "start-time": "2026-01-01T00:00:00+00:00",
        "volume-size-gib": "1",
        "uncompressed-size": "1073741824",
        "description": "a",
    }
    bare = Bucket()
    told = of_kind(
        bare, written(archive(started_at="", source=SourceFacts(image="s3://b/k", description=" ")), bare), MANIFEST
    )["Metadata"]
    assert told == {"volume-size-gib": "1", "uncompressed-size": "1073741824"}


def test_a_description_is_cut_where_the_headers_would_become_too_long() -> None:
    archives = Bucket()
    target = archive(started_at="", source=SourceFacts(snapshot_id="snap-0", description="é" * 255))
    described = of_kind(archives, written(target, archives), MANIFEST)["Metadata"]["description"]
    assert described == r"\xe9" * 250


def test_a_claim_says_whose_it_is_to_people_and_to_a_sweep() -> None:
    archives = Bucket()
    target = archive(started_at="").start(call_of(archives), token="", mark=EXECUTION.mark)
    claim = archives.objects[target.address.key(UNFINISHED)]
    assert json.loads(claim) == {"execution": EXECUTION.mark, "job_id": "job-1"}
    assert claim.endswith(b"}\n")


BASE = Member(manifest_uri="s3://archives/disks/base/manifest.json", sha256="a" * 64)


def test_a_segment_says_of_what_it_is_for_whom_the_manifest_is_lost() -> None:
    archives = Bucket()
    target = archive(base=(BASE,), size_gib=3)
    sink = target.sink(call_of(archives), number=0, within=GIB)
    sink.write(Block(3, content(1), digest_of(content(1))))
    sink.finish(GIB.stop)
    (body,) = (body for key, body in archives.objects.items() if key.startswith(target.address.key(SEGMENTS)))
    line = json.loads(body[body.index(b'{"format"') :].partition(b"\n")[0])
    assert line["facts"] == {"snapshot_id": "snap-0", "volume_size_gib": 3, "base": BASE.manifest_uri}


def test_a_dry_run_shows_where_an_archive_will_be_and_how_it_is_kept() -> None:
    told = archive(base=(BASE,), size_gib=3).planned()
    assert told == {
        "region": HOME,
        "manifest_uri": "s3://archives/disks/archive-1/manifest.json",
        "archive_id": "archive-1",
        "base_manifest_uri": BASE.manifest_uri,
        "storage_class": "STANDARD_IA",
        "volume_size_gib": 3,
    }
    assert archive().planned()["base_manifest_uri"] is None


@pytest.mark.parametrize(
    ("blocks", "ranges", "segments", "others"),
    [
        # Of 64 blocks each, and one more of each range, which ends in the middle of one; an index of each range, the
        # manifest and the claim.
        (1_000, 3, 16 + 3, 3 + 2),
        (128, 2, 2 + 2, 2 + 2),
        # No more ranges have something to store than there are blocks.
        (2, 5, 1 + 2, 2 + 2),
    ],
)
def test_the_requests_of_an_archive_are_its_segments_its_indexes_its_manifest_and_its_claim(
    blocks: int, ranges: int, segments: int, others: int
) -> None:
    assert archive().writing(blocks, ranges) == {
        f"PutObject.STANDARD_IA {HOME}": segments,
        f"PutObject {HOME}": others,
    }
    assert archive().beside == {}
    assert archive(storage_class="STANDARD").writing(blocks, ranges) == {f"PutObject {HOME}": segments + others}


class Sampled:
    """A source that says which ranges and blocks a sample takes of it."""

    def __init__(self, blocks: dict[int, bytes | None]) -> None:
        self._blocks = blocks
        self.asked: list[BlockRange] = []
        self.read_of: list[int] = []

    def open(self, _call: JobCall) -> Sampled:
        return self

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        self.asked.append(within)
        yield from (BlockRef(i, removed=data is None) for i, data in sorted(self._blocks.items()) if i in within)

    def read(self, ref: BlockRef) -> Block:
        data = self._blocks[ref.index]
        assert data is not None
        self.read_of.append(ref.index)
        return Block(ref.index, data, digest_of(data))


def forecast(source: Sampled, *, total_blocks: int, blocks: int) -> Forecast | None:
    asked = archive(level=3, storage_class="GLACIER_IR")
    return asked.forecast(cast(JobSource, source), call_of(MemoryS3()), total_blocks=total_blocks, blocks=blocks)


def test_a_sample_is_of_four_blocks_at_each_of_sixteen_places_and_looks_only_a_little_behind_each() -> None:
    places = range(0, 16 * 8_192, 8_192)
    source = Sampled({place + number: content(1) for place in places for number in range(6)})
    found = forecast(source, total_blocks=16 * 8_192, blocks=10)
    assert source.asked == [BlockRange(place, place + 4_096) for place in places]
    assert source.read_of == [place + number for place in places for number in range(4)]
    assert found is not None
    assert found.sampled_blocks == 64
    # Where the places are close to each other, no block is asked about twice.
    small = Sampled({})
    forecast(small, total_blocks=40, blocks=10)
    assert [index for within in small.asked for index in range(within.first, within.stop)] == list(range(40))


def test_a_forecast_counts_the_frames_of_blocks_with_data_and_two_entries_of_each() -> None:
    text = (b"some words " * 50_000)[: len(content(1))]
    source = Sampled({0: content(1), 1: content(0), 2: None, 3: text})
    frames = sum(len(Compressor(3).frame(data)) for data in (content(1), text))
    assert forecast(source, total_blocks=16, blocks=40) == Forecast(
        4, round((frames + 8 * ENTRY.size) * 10), "GLACIER_IR"
    )


def test_of_a_source_in_which_a_sample_finds_nothing_nothing_is_forecast() -> None:
    assert forecast(Sampled({}), total_blocks=BLOCKS_PER_GIB, blocks=0) is None


def test_a_receipt_tells_an_archive_with_all_its_counts() -> None:
    archives = Bucket()
    target = written(archive(started_at="", kms_key_arn=KEY, holes=HoleMeaning.NOISE), archives)
    found = ArchiveTarget.look({0: target}, call_of(archives)).facts[0]
    manifest = found.manifest
    assert target.facts(found) == {
        "region": HOME,
        "snapshot_id": None,
        "archive_id": "archive-1",
        "manifest_uri": "s3://archives/disks/archive-1/manifest.json",
        "base_manifest_uri": None,
        "state": "completed",
        "volume_size_gib": 1,
        "storage_class": "STANDARD_IA",
        "encrypted": True,
        "kms_key_arn": KEY,
        "holes_stand_for": HoleMeaning.NOISE.value,
        "allocated_blocks": 2,
        "data_blocks": 1,
        "zero_blocks": 1,
        "removed_blocks": 0,
        "segments": 1,
        "stored_bytes": sum(len(b) for k, b in archives.objects.items() if k.startswith(target.address.key(SEGMENTS))),
        "changed_blocks": 2,
        "blocks_written": 2,
        "linear_checksum": manifest.linear_checksum,
    }


def test_the_receipt_of_an_archive_counts_what_is_stored_of_it_and_names_no_snapshot() -> None:
    archives = Bucket()
    target = written(archive(started_at="", region=RECOVERY), archives)
    of = job(image(region=THIRD, raw_bytes=9), target, operation="archive")
    folder = folder_of(of, MemoryS3(), "work")
    record = recorded(folder, of)
    call = job_call(SimpleNamespace(image_s3=lambda _identity: archives), folder, clock=ManualClock())
    receipt = write_receipt(call, record, folder.save_proof(PROOF))
    stored = sum(len(body) for key, body in archives.objects.items() if key.startswith(target.address.key(SEGMENTS)))
    assert (receipt["manifest_uri"], receipt["lineage"]) == (target.address.manifest_uri, None)
    # Those of the archive, not those that were moved to it.
    assert (receipt["changed_blocks"], receipt["removed_blocks"]) == (2, 0)
    assert receipt["bytes_written"] == stored
    assert receipt["cost_usd"] == cost_of(
        Work(
            requests=Counter(PROOF.requests),
            home=HOME,
            object_bytes=of.source.object_bytes(PROOF.blocks_read * BLOCK_SIZE),
            stored_bytes={RECOVERY: stored},
            gb_seconds=PROOF.worker_gb_seconds,
        )
    )
    of = job(source(), target, operation="archive")
    call = replace(call, folder=folder_of(of, MemoryS3(), "work"))
    record, proof = recorded(call.folder, of), call.folder.save_proof(PROOF)
    assert write_receipt(call, record, proof)["lineage"] is None
    page = report(receipt)
    assert f"| {target.address.manifest_uri} | {RECOVERY} | completed | 2 | yes |" in page
    assert f"LINEAR checksum `{receipt['linear_checksum']}` over every block, written into the manifest." in page
