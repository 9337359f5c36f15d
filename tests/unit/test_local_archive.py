"""Images of this machine, archived from the command line, and read back block by block."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.archives import Chain, open_chain
from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.errors import (
    ArchiveDamaged,
    BlockferryError,
    InvalidRequest,
    NoRoom,
    RequestRefused,
    RetryLater,
    SourceChanged,
    TargetFailed,
)
from blockferry.core.holes import HoleMeaning
from blockferry.core.retry import RetryPolicy
from blockferry.core.tuning import Waits
from blockferry.formats.archive.layout import MANIFEST, UNFINISHED
from blockferry.formats.archive.manifest import is_given_up
from blockferry.local.archive import archive_image
from blockferry.local.archive_estimate import estimate_archive
from blockferry.local.discard import discard_left
from blockferry.local.interrupts import Interrupts
from blockferry.local.tuning import ArchiveTuning
from blockferry.requests.archive import LocalArchiveRequest
from blockferry.requests.parts import parse
from blockferry.sources.archive import ArchiveSource
from blockferry.sources.extents import tells_extents
from fakes import ManualClock, content
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_ec2 import refusal
from memory_s3 import MemoryS3

HOME, RECOVERY = "us-east-1", "eu-west-1"

ONE_TRY = Waits(requests=RetryPolicy(max_attempts=1))

Before = Callable[[str, str], None]


class Bucket(MemoryS3):
    """A bucket in memory. ``before`` and ``after`` see each request: its operation and key."""

    def __init__(self, region: str = HOME) -> None:
        super().__init__(region)
        self.before: Before = lambda _operation, _key: None
        self.after: Before = lambda _operation, _key: None
        self.kept: dict[str, dict[str, Any]] = {}

    def put_object(self, **members: Any) -> Any:
        key = members["Key"]
        self.before("PutObject", key)
        answer = super().put_object(**members)
        self.kept[key] = {name: value for name, value in members.items() if name not in ("Body", "ChecksumSHA256")}
        self.after("PutObject", key)
        return answer

    def get_object(self, **members: Any) -> Any:
        self.before("GetObject", members["Key"])
        return super().get_object(**members)

    def list_objects_v2(self, **members: Any) -> Any:
        self.before("ListObjectsV2", members["Prefix"])
        delimiter = members.pop("Delimiter", "")
        if not delimiter:
            return super().list_objects_v2(**{"MaxKeys": 1_000, **members})
        prefix = members["Prefix"]
        names = {key.removeprefix(prefix).split(delimiter)[0] for key in self.objects if key.startswith(prefix)}
        return {"CommonPrefixes": [{"Prefix": f"{prefix}{name}/"} for name in sorted(names)]}

    def delete_objects(self, **members: Any) -> Any:
        self.before("DeleteObjects", members["Delete"]["Objects"][0]["Key"])
        return super().delete_objects(**members)

    def head_bucket(self, **_: Any) -> Any:
        self.before("HeadBucket", "")
        return {"BucketRegion": self.meta.region_name}


class Bench:
    """A machine with images, and a bucket for their archives."""

    def __init__(self, folder: Path, *, region: str = HOME) -> None:
        self.folder = folder
        self.bucket = Bucket(region)
        self.aws = cast(Any, SimpleNamespace(image_s3=lambda _identity: self.bucket, own_region=HOME))

    def image(self, blocks: Mapping[int, bytes], *, size: int | None = None, name: str = "disk.img") -> Path:
        """An image that has exactly these blocks as data, and else holes."""
        path = self.folder / name
        with path.open("wb") as handle:
            handle.truncate(size or (max(blocks, default=0) + 1) * BLOCK_SIZE)
            for index, data in blocks.items():
                handle.seek(index * BLOCK_SIZE)
                handle.write(data)
        return path

    def archive(self, image: Path, *, tuning: ArchiveTuning | None = None, **asked: Any) -> dict[str, Any]:
        more = {name: asked.pop(name) for name in ("interrupts", "on_start", "image_format") if name in asked}
        waits = asked.pop("waits", ONE_TRY)
        return archive_image(
            image,
            request(**asked),
            region=HOME,
            aws=self.aws,
            clock=ManualClock(),
            waits=waits,
            tuning=tuning,
            **more,
        )

    def chain(self, uri: str) -> Chain:
        return open_chain(Call(aws=self.aws), Identity(HOME), uri)

    def read(self, uri: str) -> dict[int, bytes]:
        """Every block of an archive, each held against its SHA-256 on the way."""
        source = ArchiveSource(self.chain(uri))
        within = BlockRange(0, self.chain(uri).manifest.total_blocks)
        return {ref.index: source.read(ref).data for ref in source.blocks(within)}

    def names(self) -> set[str]:
        return {key.removeprefix("disks/") for key in self.bucket.objects}


def request(**asked: Any) -> LocalArchiveRequest:
    options = {name: asked.pop(name) for name in ("max_chain", "holes") if name in asked}
    top = {name: asked.pop(name) for name in ("base_manifest_uri", "volume_size_gib") if name in asked}
    place = {"bucket": "archives", "prefix": "disks", "compression_level": 1, **asked}
    made = {**top, "archive": place, "options": {"blocks_per_range": 512, **options}}
    return parse(LocalArchiveRequest, made, what="archive")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def disk(blocks: Mapping[int, bytes]) -> dict[int, bytes]:
    """What reads as something else than zeros."""
    return {index: data for index, data in blocks.items() if data.strip(b"\0")}


BLOCKS = {0: content(1), 3: bytes(BLOCK_SIZE), 511: content(2), 512: content(3), 700: content(4), 2047: content(5)}


def test_an_archive_holds_exactly_what_the_file_has_data_in(bench: Bench) -> None:
    image = bench.image(BLOCKS)
    receipt = bench.archive(image, segment_blocks=2)
    assert bench.read(receipt["manifest_uri"]) == BLOCKS
    manifest = bench.chain(receipt["manifest_uri"]).manifest
    assert manifest.counts.model_dump() == {
        "allocated_blocks": 6,
        "data_blocks": 5,
        "zero_blocks": 1,
        "removed_blocks": 0,
        "segments": 3,
        "stored_bytes": receipt["bytes_written"],
    }
    assert (manifest.holes, manifest.volume_size_gib, manifest.base) == (HoleMeaning.ZEROS, 1, ())
    assert manifest.source.image is not None
    assert manifest.source.image.endswith(str(image))
    assert (receipt["status"], receipt["bytes_read"]) == ("SUCCEEDED", 6 * BLOCK_SIZE)
    assert receipt["linear_checksum"] == manifest.linear_checksum
    assert UNFINISHED not in {name.rsplit("/", 1)[-1] for name in bench.names()}


def test_an_unaligned_tail_is_kept_and_filled_up_with_zeros(bench: Bench) -> None:
    image = bench.image({0: content(1), 1: b"tail"}, size=BLOCK_SIZE + 4)
    receipt = bench.archive(image)
    assert bench.read(receipt["manifest_uri"]) == {0: content(1), 1: b"tail" + bytes(BLOCK_SIZE - 4)}
    assert receipt["source"]["image_bytes"] == BLOCK_SIZE + 4


def test_a_file_of_a_hole_is_an_archive_of_nothing(bench: Bench) -> None:
    receipt = bench.archive(bench.image({}, size=3 * 2**30 + 512))
    assert bench.read(receipt["manifest_uri"]) == {}
    assert (receipt["targets"][0]["volume_size_gib"], receipt["allocated_blocks"]) == (4, 0)


def test_what_is_asked_for_is_in_every_object(bench: Bench) -> None:
    key = f"arn:aws:kms:{HOME}:111122223333:key/k"
    receipt = bench.archive(
        bench.image(BLOCKS),
        archive_id="mine",
        storage_class="GLACIER_IR",
        kms_key_arn=key,
        tags={"keep": "7y"},
        compression_level=19,
        segment_blocks=1,
        volume_size_gib=3,
    )
    assert receipt["manifest_uri"] == "s3://archives/disks/mine/manifest.json"
    manifest = bench.chain(receipt["manifest_uri"]).manifest
    assert (manifest.codec.level, manifest.segment_blocks, manifest.volume_size_gib) == (19, 1, 3)
    for name, asked in bench.bucket.kept.items():
        assert (asked["SSEKMSKeyId"], asked["ServerSideEncryption"], asked["Tagging"]) == (key, "aws:kms", "keep=7y")
        assert asked.get("StorageClass", "STANDARD") == ("GLACIER_IR" if name.endswith(".zst") else "STANDARD")
        # What makes it an archive, and what says whose it is, is never written over.
        assert asked.get("IfNoneMatch") == ("*" if name.endswith(".json") else None)
    assert next(iter(bench.bucket.kept)).endswith(UNFINISHED)
    assert list(bench.bucket.kept)[-1].endswith(MANIFEST)


@pytest.mark.skipif(os.name != "posix", reason="what a file system tells of its extents is asked of Linux")
def test_holes_that_nobody_wrote_are_told_from_zeros_without_data(bench: Bench) -> None:
    image = bench.image({0: content(1), 4: content(2)}, size=8 * BLOCK_SIZE)
    with image.open("r+b") as handle:
        if not tells_extents(handle.fileno()):
            pytest.skip("this file system does not tell holes from unwritten extents")
        os.posix_fallocate(handle.fileno(), 2 * BLOCK_SIZE, BLOCK_SIZE)
    left_out = bench.archive(image, archive_id="zeros")
    assert bench.read(left_out["manifest_uri"]) == {0: content(1), 4: content(2)}
    kept = bench.archive(image, archive_id="noise", holes="preserve")
    assert bench.read(kept["manifest_uri"]) == {0: content(1), 2: bytes(BLOCK_SIZE), 4: content(2)}
    assert bench.chain(kept["manifest_uri"]).manifest.holes is HoleMeaning.NOISE
    assert (left_out["holes_taken_for"], kept["holes_taken_for"]) == ("zeros", "noise")


def test_a_block_device_is_archived_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    image = bench.image({0: content(1), 2: content(2)}, size=3 * BLOCK_SIZE)

    def tells_no_holes(descriptor: int, offset: int, whence: int) -> int:
        if whence == os.SEEK_DATA:
            raise OSError(22, "Invalid argument")
        return seek(descriptor, offset, whence)

    seek = os.lseek
    # What Linux answers for a block device, whose size stat does not tell.
    monkeypatch.setattr("blockferry.sources.device.os.lseek", tells_no_holes)
    monkeypatch.setattr("stat.S_ISBLK", stat.S_ISREG)
    monkeypatch.setattr("stat.S_ISREG", lambda _mode: False)
    receipt = bench.archive(image)
    assert bench.read(receipt["manifest_uri"]) == {0: content(1), 1: bytes(BLOCK_SIZE), 2: content(2)}


Versions = st.lists(
    st.dictionaries(st.sampled_from((0, 1, 2, 510, 511, 512, 513, 1024, 1700)), st.integers(0, 4), max_size=9),
    min_size=1,
    max_size=3,
)
"""The data of a file, version after version: blocks by index, the seed of each one's content, 0 for zeros."""


@given(Versions, st.integers(1, 3), st.integers(0, BLOCK_SIZE - 1), st.sampled_from((512, 700, 4096)))
@settings(max_examples=40, deadline=None)
def test_every_version_of_a_file_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, versions: list[dict[int, int]], lanes: int, short: int, length: int
) -> None:
    bench = Bench(tmp_path_factory.mktemp("versions"))
    base: str | None = None
    before: dict[int, bytes] = {}
    for version in versions:
        blocks = {index: content(seed) for index, seed in version.items()}
        size = (max(blocks, default=0) + 1) * BLOCK_SIZE
        image = bench.image(blocks, size=size)
        os.truncate(image, size - short)
        last = size // BLOCK_SIZE - 1
        if last in blocks:
            blocks[last] = blocks[last][: BLOCK_SIZE - short].ljust(BLOCK_SIZE, b"\0")
        receipt = bench.archive(image, base_manifest_uri=base, tuning=ArchiveTuning(lanes=lanes, threads=2))
        base = receipt["manifest_uri"]
        assert bench.read(base) == blocks
        stored = {index for index, data in blocks.items() if before.get(index) != data}
        assert receipt["changed_blocks"] == len(stored)
        assert receipt["removed_blocks"] == len(before.keys() - blocks.keys())
        before = blocks


def test_auto_builds_upon_the_newest_archive_of_the_same_file(bench: Bench) -> None:
    image = bench.image(BLOCKS)
    other = bench.image({5: content(9)}, name="other.img")
    first = bench.archive(image, base_manifest_uri="auto")
    assert [warning["code"] for warning in first["warnings"]] == ["full_archive"]
    bench.archive(other)
    second = bench.archive(bench.image({**BLOCKS, 9: content(6)}), base_manifest_uri="auto")
    third = bench.archive(bench.image({**BLOCKS, 9: content(7)}), base_manifest_uri="auto")
    bases = [each["targets"][0]["base_manifest_uri"] for each in (first, second, third)]
    assert bases == [None, first["manifest_uri"], second["manifest_uri"]]
    assert (second["changed_blocks"], third["changed_blocks"]) == (1, 1)
    assert bench.read(third["manifest_uri"]) == {**BLOCKS, 9: content(7)}
    full = bench.archive(image, base_manifest_uri="auto", max_chain=3)
    assert full["targets"][0]["base_manifest_uri"] is None
    assert "options.max_chain is 3" in full["warnings"][0]["message"]


def test_what_it_is_built_upon_is_read_once_and_looked_at_again_at_the_end(bench: Bench) -> None:
    uris: list[str] = []
    for seed in range(3):
        image = bench.image({**BLOCKS, 9: content(10 + seed)}, size=2**30)
        uris.append(bench.archive(image, base_manifest_uri=uris[-1] if uris else None)["manifest_uri"])
    asked = request(base_manifest_uri=uris[-1])
    estimate = estimate_archive(image, asked, region=HOME, aws=bench.aws)
    read: Counter[str] = Counter()

    def before(operation: str, key: str) -> None:
        read[key] += operation == "GetObject"

    bench.bucket.before = before
    receipt = bench.archive(image, base_manifest_uri=uris[-1])
    manifests = [read[uri.removeprefix("s3://archives/")] for uri in uris]
    # When it is planned, before and behind all ranges, of which there are four.
    assert manifests == [3, 3, 3]
    assert receipt["requests"]["GetObject"] <= estimate["requests"]["GetObject"]


@pytest.mark.parametrize("spoil", ["gone", "another"])
def test_a_base_that_is_lost_meanwhile_fails_before_the_manifest_with_nothing_left(bench: Bench, spoil: str) -> None:
    base = bench.archive(bench.image(BLOCKS), archive_id="base")["manifest_uri"]
    other = bench.archive(bench.image(BLOCKS), prefix="other", archive_id="base")["manifest_uri"]

    def before(operation: str, key: str) -> None:
        # All ranges are counted by then.
        if operation == "ListObjectsV2" and key == "disks/mine/index/":
            manifest = bench.bucket.objects.pop("disks/base/manifest.json")
            if spoil == "another":
                bench.bucket.objects["disks/base/manifest.json"] = bench.bucket.objects[other[len("s3://archives/") :]]
                assert bench.bucket.objects["disks/base/manifest.json"] != manifest
            bench.bucket.before = lambda _operation, _key: None

    bench.bucket.before = before
    with pytest.raises(ArchiveDamaged, match=r"base/manifest.json, which .* built upon, is (gone|another)"):
        bench.archive(bench.image({**BLOCKS, 9: content(9)}), archive_id="mine", base_manifest_uri=base)
    assert not {name for name in bench.names() if name.startswith("mine/")}


def test_auto_passes_over_archives_of_a_larger_volume_than_was_asked_for(bench: Bench) -> None:
    bench.archive(bench.image(BLOCKS), volume_size_gib=2)
    receipt = bench.archive(bench.image(BLOCKS), base_manifest_uri="auto", volume_size_gib=1)
    assert receipt["targets"][0]["base_manifest_uri"] is None
    assert [warning["code"] for warning in receipt["warnings"]] == ["full_archive"]


def test_a_volume_is_never_smaller_than_that_of_its_base(bench: Bench) -> None:
    base = bench.archive(bench.image(BLOCKS), volume_size_gib=2)["manifest_uri"]
    receipt = bench.archive(bench.image(BLOCKS), base_manifest_uri=base)
    assert (receipt["targets"][0]["volume_size_gib"], receipt["changed_blocks"]) == (2, 0)
    with pytest.raises(InvalidRequest, match="is of a volume of 2 GiB, more than the 1 GiB that were asked for"):
        bench.archive(bench.image(BLOCKS), base_manifest_uri=base, volume_size_gib=1)


def test_a_base_that_is_not_there_or_damaged_is_refused_with_nothing_left(bench: Bench) -> None:
    base = bench.archive(bench.image(BLOCKS), archive_id="base")["manifest_uri"]
    before = dict(bench.bucket.objects)
    with pytest.raises(InvalidRequest, match=r"base_manifest_uri: there is no s3://archives/disks/none/manifest.json"):
        bench.archive(bench.image(BLOCKS), base_manifest_uri="s3://archives/disks/none/manifest.json")
    bench.bucket.objects["disks/base/manifest.json"] += b" x"
    with pytest.raises(InvalidRequest, match=r"is damaged.*leave base_manifest_uri out"):
        bench.archive(bench.image(BLOCKS), base_manifest_uri=base)
    assert bench.bucket.objects.keys() == before.keys()


def test_another_kind_of_file_is_refused_before_anything_is_asked_unless_it_is_called_raw(bench: Bench) -> None:
    image = bench.image({0: b"QFI\xfb" + content(1)[4:]})
    with pytest.raises(InvalidRequest, match="is a qcow image, not a raw disk; nothing was started"):
        bench.archive(image)
    assert not bench.bucket.calls
    receipt = bench.archive(image, image_format="raw")
    assert bench.read(receipt["manifest_uri"])[0][:4] == b"QFI\xfb"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"bucket": "Archives"}, "archive.bucket: 'Archives' is not the name of a bucket"),
        ({"archive_id": "a/b"}, "archive.archive_id: 'a/b' is not an id"),
        ({"compression_level": 20}, "archive.compression_level"),
        ({"segment_blocks": 65}, "archive.segment_blocks"),
        ({"holes": "skip_zero"}, "options: holes: skip_zero is not for archives"),
        ({"volume_size_gib": 0}, "volume_size_gib"),
        ({"base_manifest_uri": "s3://archives/disks"}, "base_manifest_uri: .*nor auto"),
        ({"kms_key_arn": f"arn:aws:kms:{RECOVERY}:111122223333:key/k"}, f"names a key in {RECOVERY}, the bucket"),
        ({"bucket": "archives", "volume_size_gib": 1, "base_manifest_uri": None}, "more than a volume of 1 GiB holds"),
    ],
)
def test_what_cannot_be_is_refused_by_name_with_nothing_stored(bench: Bench, asked: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        bench.archive(bench.image({0: content(1)}, size=2**30 + 1), **asked)
    assert bench.bucket.objects == {}


@pytest.mark.parametrize(("status", "why"), [(404, "there is no such bucket"), (403, "not permitted")])
def test_a_bucket_that_cannot_be_used_is_refused_before_anything_is_stored(bench: Bench, status: int, why: str) -> None:
    def before(operation: str, _key: str) -> None:
        if operation == "HeadBucket":
            raise refusal(str(status), "HeadBucket", status=status)

    bench.bucket.before = before
    with pytest.raises(InvalidRequest, match=f"archive.bucket: HeadBucket of archives: {why}"):
        bench.archive(bench.image(BLOCKS))
    assert bench.bucket.objects == {}


def test_a_bucket_of_another_region_is_found_where_it_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path, region=RECOVERY)
    receipt = bench.archive(bench.image(BLOCKS))
    assert receipt["targets"][0]["region"] == RECOVERY
    assert bench.read(receipt["manifest_uri"]) == BLOCKS


def test_an_id_that_is_there_is_refused_and_its_archive_is_as_it_was(bench: Bench) -> None:
    bench.archive(bench.image(BLOCKS), archive_id="mine")
    before = dict(bench.bucket.objects)
    with pytest.raises(InvalidRequest, match=r"archive.archive_id: there is something below s3://archives/disks/mine/"):
        bench.archive(bench.image({0: content(3)}), archive_id="mine")
    assert bench.bucket.objects == before


def test_a_dry_run_tells_what_would_be_stored_and_stores_nothing(bench: Bench) -> None:
    image = bench.image({index: random.Random(index).randbytes(BLOCK_SIZE) for index in range(8)})
    estimate = estimate_archive(image, request(), region=HOME, aws=bench.aws)
    assert bench.bucket.objects == {}
    receipt = bench.archive(image)
    assert (estimate["status"], estimate["allocated_blocks"]) == ("DRY_RUN", receipt["allocated_blocks"])
    assert estimate["bytes_read"] == receipt["bytes_read"]
    # Noise does not compress, so a sample tells all but the heads of the segments.
    assert abs(estimate["bytes_written"] - receipt["bytes_written"]) < 1_000
    assert estimate["bytes_written_from"] == "a sample of 4 blocks"
    for operation in ("PutObject", "PutObject.STANDARD_IA"):
        assert estimate["requests"][operation] >= receipt["requests"][operation]
    assert estimate["usd_a_month"] > 0
    assert estimate["cost_usd"]["total"] > 0
    on_top = estimate_archive(image, request(base_manifest_uri=receipt["manifest_uri"]), region=HOME, aws=bench.aws)
    assert on_top["bytes_written_from"].endswith("at most: what the base has is left out")


# -- what goes wrong ---------------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_read_leaves_nothing(bench: Bench) -> None:
    image = bench.image(BLOCKS)

    def before(operation: str, key: str) -> None:
        if key.endswith(".idx"):
            with image.open("ab") as handle:
                handle.write(b"more")

    bench.bucket.before = before
    with pytest.raises(SourceChanged, match="changed while it was read") as failed:
        bench.archive(image, archive_id="mine")
    assert failed.value.__notes__ == ["what was begun of archive s3://archives/disks/mine/ is deleted"]
    assert bench.bucket.objects == {}


def test_the_first_error_is_the_message_and_all_lanes_have_ended_when_it_is_cleared(bench: Bench) -> None:
    failed_put = threading.Event()
    log: list[tuple[str, str]] = []

    def before(operation: str, key: str) -> None:
        log.append((operation, key))
        if operation == "PutObject" and key.endswith("0000000512.zst"):
            failed_put.set()
            raise refusal("AccessDenied", "PutObject", status=403)
        if operation == "PutObject" and key.endswith("0000000000.zst"):
            # It is under way when the other one fails.
            failed_put.wait(10)

    bench.bucket.before = before
    with pytest.raises(RequestRefused, match=r"PutObject of .*/segments/0000000512.zst: .*AccessDenied"):
        bench.archive(bench.image(BLOCKS))
    assert bench.bucket.objects == {}
    # Nothing was written once it was being cleared.
    deleting = [operation for operation, _ in log].index("DeleteObjects")
    assert "PutObject" not in [operation for operation, _ in log[deleting:]]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_with_nothing_left_and_no_further_one_ends_the_clean_up(bench: Bench, name: str) -> None:
    told: list[str] = []
    struck = threading.Event()

    def strike() -> None:
        os.kill(os.getpid(), getattr(signal, name))

    def before(operation: str, key: str) -> None:
        if key.endswith(".zst") and not struck.is_set():
            struck.set()
            strike()
        if operation == "DeleteObjects":
            strike()

    bench.bucket.before = before
    with Interrupts(tell=told.append) as interrupts, pytest.raises(KeyboardInterrupt, match=name) as ended:
        bench.archive(bench.image(BLOCKS), archive_id="mine", interrupts=interrupts)
    assert ended.value.__notes__ == ["what was begun of archive s3://archives/disks/mine/ is deleted"]
    assert bench.bucket.objects == {}
    assert told


def test_a_signal_in_the_clean_up_after_an_error_leaves_the_error_the_message(bench: Bench) -> None:
    def before(operation: str, key: str) -> None:
        if key.endswith(".zst"):
            raise refusal("AccessDenied", "PutObject", status=403)
        if operation == "DeleteObjects":
            os.kill(os.getpid(), signal.SIGTERM)

    bench.bucket.before = before
    told: list[str] = []
    with Interrupts(tell=told.append) as interrupts, pytest.raises(RequestRefused, match="AccessDenied") as failed:
        bench.archive(bench.image(BLOCKS), archive_id="mine", interrupts=interrupts)
    assert failed.value.__notes__ == ["what was begun of archive s3://archives/disks/mine/ is deleted"]
    assert bench.bucket.objects == {}
    assert told


@pytest.mark.parametrize("lane_is_known", [True, False], ids=["while it waits", "while a lane is being started"])
def test_nothing_is_written_any_more_when_an_interrupted_run_is_cleared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, lane_is_known: bool
) -> None:
    writing, deleting = threading.Event(), threading.Event()
    cleared_meanwhile: list[bool] = []
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("lane"):
            # The pool that starts it has not noted it yet.
            assert writing.wait(10)
            os.kill(os.getpid(), signal.SIGTERM)

    def before(operation: str, key: str) -> None:
        if operation == "DeleteObjects":
            deleting.set()
        if key.endswith("0000000000.zst"):
            writing.set()
            if lane_is_known:
                os.kill(os.getpid(), signal.SIGTERM)
            cleared_meanwhile.append(deleting.wait(0.2))

    if not lane_is_known:
        monkeypatch.setattr(threading.Thread, "start", started)
    bench.bucket.before = before
    with Interrupts(tell=lambda _line: None) as interrupts, pytest.raises(KeyboardInterrupt):
        bench.archive(bench.image(BLOCKS), interrupts=interrupts, tuning=ONE_LANE)
    assert cleared_meanwhile == [False]
    assert bench.bucket.objects == {}


def test_no_signal_raises_where_the_main_thread_has_locked_what_lanes_wait_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = threading.Condition.__enter__
    struck: list[str] = []
    raised: list[BaseException] = []

    def entered(condition: threading.Condition) -> bool:
        locked = enter(condition)
        lanes = [thread.name for thread in threading.enumerate() if thread.name.startswith("lane")]
        if lanes and not struck and threading.current_thread() is threading.main_thread():
            struck.append(lanes[0])
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt as error:
                # Left locked, what a lane does next would wait for ever.
                condition.__exit__(None, None, None)
                raised.append(error)
                raise
        return locked

    monkeypatch.setattr(threading.Condition, "__enter__", entered)
    with Interrupts(tell=lambda _line: None) as interrupts, pytest.raises(KeyboardInterrupt):
        bench.archive(bench.image(BLOCKS), archive_id="mine", interrupts=interrupts)
    assert (len(struck), raised) == (1, [])
    assert bench.bucket.objects == {}


def test_a_signal_while_the_objects_are_listed_ends_that(bench: Bench) -> None:
    lists: list[str] = []

    def before(operation: str, key: str) -> None:
        if operation == "ListObjectsV2" and key == "disks/mine/index/" and not lists:
            lists.append(key)
            os.kill(os.getpid(), signal.SIGTERM)

    bench.bucket.before = before
    with Interrupts(tell=lambda _line: None) as interrupts, pytest.raises(KeyboardInterrupt) as ended:
        bench.archive(bench.image(BLOCKS), archive_id="mine", interrupts=interrupts)
    assert ended.value.__notes__ == ["what was begun of archive s3://archives/disks/mine/ is deleted"]
    # Its manifest was not sent, so its id is free.
    assert bench.bucket.objects == {}


def test_a_request_that_fails_is_not_tried_again_when_a_signal_has_come(bench: Bench) -> None:
    tries: list[str] = []
    noticed = threading.Event()

    def before(operation: str, key: str) -> None:
        if operation == "PutObject" and key.endswith(".idx"):
            tries.append(key)
            os.kill(os.getpid(), signal.SIGTERM)
            assert noticed.wait(10)
            raise refusal("SlowDown", "PutObject", status=503)

    bench.bucket.before = before
    with Interrupts(tell=lambda _line: noticed.set()) as interrupts, pytest.raises(KeyboardInterrupt):
        bench.archive(
            bench.image({0: content(1)}), archive_id="mine", interrupts=interrupts, tuning=ONE_LANE, waits=Waits()
        )
    assert len(tries) == 1
    assert bench.bucket.objects == {}


def test_a_file_that_changes_before_anything_is_stored_claims_no_place(bench: Bench) -> None:
    image = bench.image(BLOCKS)

    def before(operation: str, key: str) -> None:
        if operation == "HeadBucket":
            os.truncate(image, BLOCK_SIZE)

    bench.bucket.before = before
    with pytest.raises(SourceChanged):
        bench.archive(image)
    assert bench.bucket.calls["PutObject"] == 0


def test_a_run_that_never_had_its_place_says_nothing_of_what_is_there(bench: Bench) -> None:
    claim = json.dumps({"execution": "e" * 64, "job_id": "nightly"}).encode()

    def before(operation: str, key: str) -> None:
        # When this run has looked, and nothing was there.
        if operation == "PutObject" and key.endswith(UNFINISHED):
            bench.bucket.objects[key] = claim

    bench.bucket.before = before
    with pytest.raises(InvalidRequest, match="is being written by another job, or was left by one") as refused:
        bench.archive(bench.image(BLOCKS), archive_id="mine")
    assert not hasattr(refused.value, "__notes__")
    assert bench.bucket.objects == {f"disks/mine/{UNFINISHED}": claim}


def requests_of_a_run(tmp_path: Path) -> int:
    bench = Bench(tmp_path)
    count = 0

    def before(_operation: str, _key: str) -> None:
        nonlocal count
        count += 1

    bench.bucket.before = before
    bench.archive(bench.image(BLOCKS), archive_id="mine", tuning=ONE_LANE)
    return count


ONE_LANE = ArchiveTuning(lanes=1, threads=1)
"""So that requests come in one order."""


def test_whatever_request_is_refused_nothing_is_left_or_the_archive_is_whole(tmp_path: Path) -> None:
    outcomes = []
    for number in range(requests_of_a_run(tmp_path)):
        bench = Bench(tmp_path)
        asked: list[str] = []

        def before(operation: str, key: str, *, asked: list[str] = asked, number: int = number) -> None:
            asked.append(key)
            if len(asked) == number + 1:
                raise refusal("AccessDenied", operation, status=403)

        bench.bucket.before = before
        notes, warnings = outcome_of(bench)
        if notes is None:
            # It was its claim that could not be taken away.
            assert warnings == ["claim_left"]
            assert bench.read("s3://archives/disks/mine/manifest.json") == BLOCKS
        elif FINISHED in notes:
            # It was the look at what was there already that was refused.
            assert bench.read("s3://archives/disks/mine/manifest.json") == BLOCKS
        else:
            assert bench.names() <= ({f"mine/{MANIFEST}"} if given_up(bench, "mine") else set()), (number, notes)
        outcomes.append("done" if notes is None else "finished" if FINISHED in notes else "cleared")
    assert outcomes.count("cleared") > 10
    assert outcomes[-2:] == ["done", "finished"]


def outcome_of(bench: Bench) -> tuple[list[str] | None, list[str]]:
    """The notes of the error of a run, ``None`` where there is none, and the codes of its warnings."""
    try:
        receipt = bench.archive(bench.image(BLOCKS), archive_id="mine", tuning=ONE_LANE)
    except BlockferryError as error:
        return getattr(error, "__notes__", []), []
    return None, [warning["code"] for warning in receipt["warnings"]]


def given_up(bench: Bench, archive_id: str) -> bool:
    body = bench.bucket.objects.get(f"disks/{archive_id}/{MANIFEST}")
    return body is not None and is_given_up(body)


def test_wherever_a_machine_dies_another_run_is_told_and_what_was_left_can_be_discarded(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    states: list[dict[str, bytes]] = []
    bench.bucket.before = lambda _operation, _key: states.append(dict(bench.bucket.objects))
    bench.archive(bench.image(BLOCKS), archive_id="mine", tuning=ONE_LANE)
    outcomes = set()
    for state in states:
        after = Bench(tmp_path)
        after.bucket.objects = dict(state)
        if not state:
            continue
        with pytest.raises(InvalidRequest, match="there is something below") as refused:
            after.archive(bench.folder / "disk.img", archive_id="mine")
        assert after.bucket.objects == state
        if f"disks/mine/{UNFINISHED}" not in state:
            assert after.read("s3://archives/disks/mine/manifest.json") == BLOCKS
            continue
        assert "blockferry discard s3://archives/disks/mine/" in str(refused.value)
        assert f"process {os.getpid()}" in str(refused.value)
        done = discard_left("s3://archives/disks/mine/", region=HOME, aws=after.aws)
        outcomes.add(done.finished)
        assert f"process {os.getpid()}" in done.begun_by
        if done.finished:
            assert after.read("s3://archives/disks/mine/manifest.json") == BLOCKS
        else:
            assert after.names() == {f"mine/{MANIFEST}"}
            with pytest.raises(InvalidRequest, match="is no archive: it was given up before it was finished"):
                after.chain("s3://archives/disks/mine/manifest.json")
        # Whatever is left there, it is in nobody's way.
        assert after.read(after.archive(bench.folder / "disk.img")["manifest_uri"]) == BLOCKS
    assert outcomes == {False, True}


def test_of_two_runs_with_one_id_one_wins_and_the_other_leaves_it_alone(bench: Bench) -> None:
    image, other = bench.image(BLOCKS), bench.image({0: content(8)}, name="other.img")
    refused: list[InvalidRequest] = []

    def before(operation: str, key: str) -> None:
        # Both have looked, and nothing was there.
        if operation == "PutObject" and key.endswith(UNFINISHED):
            bench.bucket.before = lambda _operation, _key: None
            winner.append(bench.archive(other, archive_id="mine", on_start=lambda _uri: clash()))

    def clash() -> None:
        with pytest.raises(InvalidRequest, match="there is something below") as error:
            bench.archive(image, archive_id="mine")
        refused.append(error.value)

    winner: list[dict[str, Any]] = []
    bench.bucket.before = before
    with pytest.raises(InvalidRequest, match="was written by another job meanwhile"):
        bench.archive(image, archive_id="mine")
    assert "It is being written by a command on a machine" in str(refused[0])
    assert bench.read(winner[0]["manifest_uri"]) == {0: content(8)}


@pytest.mark.parametrize("at", [".zst", ".idx", MANIFEST])
def test_a_run_that_was_given_up_meanwhile_cannot_win_and_leaves_nothing(bench: Bench, at: str) -> None:
    def before(operation: str, key: str) -> None:
        if operation == "PutObject" and key.endswith(at):
            bench.bucket.before = lambda _operation, _key: None
            assert not discard_left("s3://archives/disks/mine/", region=HOME, aws=bench.aws).finished

    bench.bucket.before = before
    with pytest.raises((TargetFailed, BlockferryError)) as failed:
        bench.archive(bench.image(BLOCKS), archive_id="mine", tuning=ONE_LANE)
    assert bench.names() == {f"mine/{MANIFEST}"}
    assert given_up(bench, "mine")
    if at == MANIFEST:
        assert isinstance(failed.value, TargetFailed)
        assert "was given up meanwhile (blockferry discard)" in str(failed.value)


def test_a_manifest_whose_answer_is_lost_is_found_and_kept(bench: Bench) -> None:
    def after(operation: str, key: str) -> None:
        if key.endswith(MANIFEST):
            bench.bucket.after = lambda _operation, _key: None
            raise OSError("connection reset")

    bench.bucket.after = after
    with pytest.raises(RetryLater, match="connection reset") as failed:
        bench.archive(bench.image(BLOCKS), archive_id="mine")
    assert failed.value.__notes__ == [FINISHED]
    assert bench.read("s3://archives/disks/mine/manifest.json") == BLOCKS
    assert f"mine/{UNFINISHED}" not in bench.names()


FINISHED = "archive s3://archives/disks/mine/ is finished and kept: s3://archives/disks/mine/manifest.json"


@pytest.mark.parametrize("at", ["PutObject", "DeleteObjects"])
def test_a_signal_when_the_manifest_is_stored_leaves_a_finished_archive_and_no_claim(bench: Bench, at: str) -> None:
    def strike(operation: str, key: str) -> None:
        # Behind the manifest, or before the claim is taken away.
        if operation == at and key.endswith(MANIFEST if at == "PutObject" else UNFINISHED):
            bench.bucket.before = lambda _operation, _key: None
            os.kill(os.getpid(), signal.SIGTERM)

    if at == "PutObject":
        bench.bucket.after = strike
    else:
        bench.bucket.before = strike
    with Interrupts(tell=lambda _line: None) as interrupts, pytest.raises(KeyboardInterrupt) as ended:
        bench.archive(bench.image(BLOCKS), archive_id="mine", interrupts=interrupts)
    assert ended.value.__notes__ == [FINISHED]
    assert bench.read("s3://archives/disks/mine/manifest.json") == BLOCKS
    assert f"mine/{UNFINISHED}" not in bench.names()


def test_a_claim_that_is_left_is_told_of_whatever_comes_behind_it(bench: Bench) -> None:
    def before(operation: str, key: str) -> None:
        manifest_is_there = operation == "GetObject" and key.endswith(MANIFEST) and key in bench.bucket.objects
        if operation == "DeleteObjects" or manifest_is_there:
            raise refusal("AccessDenied", operation, status=403)

    bench.bucket.before = before
    with pytest.raises(RequestRefused, match="GetObject") as failed:
        bench.archive(bench.image(BLOCKS), archive_id="mine")
    (note,) = failed.value.__notes__
    assert note.startswith(f"{FINISHED}; its unfinished.json could not be deleted (DeleteObjects")
    assert note.endswith("blockferry discard s3://archives/disks/mine/")


@pytest.mark.parametrize(
    ("found", "error", "why"),
    [
        (None, InvalidRequest, "manifest.json is gone, it was written before"),
        (b"{}", TargetFailed, "is in state error: manifest "),
        ("another", TargetFailed, "is another archive's now, it was written before"),
    ],
)
def test_an_archive_that_is_not_there_when_it_is_looked_at_is_not_called_finished(
    bench: Bench, found: str | bytes | None, error: type[BlockferryError], why: str
) -> None:
    bench.archive(bench.image({0: content(8)}), prefix="other", archive_id="mine")
    another = bench.bucket.objects[f"other/mine/{MANIFEST}"]

    def before(operation: str, key: str) -> None:
        if operation == "GetObject" and key in bench.bucket.objects and key == f"disks/mine/{MANIFEST}":
            del bench.bucket.objects[key]
            if found is not None:
                bench.bucket.objects[key] = another if isinstance(found, str) else found

    bench.bucket.before = before
    with pytest.raises(error, match=why) as failed:
        bench.archive(bench.image(BLOCKS), archive_id="mine")
    assert failed.value.__notes__ == ["what was stored of archive s3://archives/disks/mine/ is kept"]
    assert "mine/segments/0000000000.zst" in bench.names()


@pytest.mark.parametrize("found", ["another", "none"])
def test_a_manifest_that_is_not_known_to_be_its_own_is_not_called_that(bench: Bench, found: str) -> None:
    bench.archive(bench.image({0: content(8)}), prefix="other", archive_id="mine")
    another = bench.bucket.objects[f"other/mine/{MANIFEST}"]

    def before(operation: str, key: str) -> None:
        if key != f"disks/mine/{MANIFEST}":
            return
        if operation == "PutObject" and key not in bench.bucket.objects:
            # Somebody else's comes first, though the claim is this run's.
            bench.bucket.objects[key] = another
            raise OSError("timed out")
        if found == "none" and key in bench.bucket.objects and operation == "GetObject":
            del bench.bucket.objects[key]

    bench.bucket.before = before
    with pytest.raises(RetryLater, match="timed out") as failed:
        bench.archive(bench.image(BLOCKS), archive_id="mine")
    (note,) = failed.value.__notes__
    assert note.startswith("what was begun of archive s3://archives/disks/mine/ could not be deleted (")
    assert ("is another archive's now" if found == "another" else "was deleted just now") in note


def test_a_manifest_that_is_still_on_its_way_comes_too_late(bench: Bench) -> None:
    late: list[dict[str, Any]] = []
    put = bench.bucket.put_object

    def put_object(**members: Any) -> Any:
        if members["Key"].endswith(MANIFEST) and not late:
            late.append(members)
            raise OSError("timed out")
        return put(**members)

    bench.bucket.put_object = put_object  # type: ignore[method-assign]
    with pytest.raises(RetryLater, match="timed out") as failed:
        bench.archive(bench.image(BLOCKS), archive_id="mine")
    assert failed.value.__notes__ == ["what was begun of archive s3://archives/disks/mine/ is deleted"]
    with pytest.raises(Exception, match="PreconditionFailed"):
        put(**late[0])
    assert bench.names() == {f"mine/{MANIFEST}"}
    assert given_up(bench, "mine")


@pytest.mark.parametrize("spoil", ["gone", "another"])
def test_an_object_that_is_not_what_was_stored_fails_before_the_manifest(bench: Bench, spoil: str) -> None:
    def before(operation: str, key: str) -> None:
        # All ranges are counted by then.
        if operation == "ListObjectsV2" and key.endswith("/index/"):
            bench.bucket.before = lambda _operation, _key: None
            doomed = next(key for key in bench.bucket.objects if key.endswith("0000000512.zst"))
            if spoil == "gone":
                bench.bucket.objects.pop(doomed)
            else:
                bench.bucket.objects[doomed] = b"another"

    bench.bucket.before = before
    with pytest.raises(BlockferryError, match=r"0000000512.zst is not what was stored there, or is gone"):
        bench.archive(bench.image(BLOCKS))
    assert bench.bucket.objects == {}


def test_notes_that_do_not_fit_into_memory_go_into_a_file_and_where_that_cannot_be_nothing_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tuning = ArchiveTuning(notes_in_memory=1)
    assert bench.read(bench.archive(bench.image(BLOCKS), tuning=tuning)["manifest_uri"]) == BLOCKS
    before = dict(bench.bucket.objects)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(NoRoom, match=r"could not be noted in a temporary file \(.*No such file.*TMPDIR") as failed:
        bench.archive(bench.image(BLOCKS), archive_id="mine", tuning=tuning)
    assert failed.value.__notes__ == ["what was begun of archive s3://archives/disks/mine/ is deleted"]
    assert bench.bucket.objects == before


def test_what_cannot_be_deleted_is_named_with_how_to_delete_it(bench: Bench) -> None:
    def before(operation: str, key: str) -> None:
        if operation == "DeleteObjects" or key.endswith(".idx"):
            raise refusal("AccessDenied", operation, status=403)

    bench.bucket.before = before
    with pytest.raises(RequestRefused, match=r"PutObject of .*\.idx") as failed:
        bench.archive(bench.image({0: content(1)}), archive_id="mine")
    (note,) = failed.value.__notes__
    assert note.endswith("delete it with: blockferry discard s3://archives/disks/mine/")
    assert "DeleteObjects" in note


def test_only_what_a_command_has_left_is_discarded(bench: Bench) -> None:
    def refused(archive_id: str, why: str) -> None:
        before = dict(bench.bucket.objects)
        with pytest.raises(InvalidRequest, match=why):
            discard_left(f"s3://archives/disks/{archive_id}", region=HOME, aws=bench.aws)
        assert bench.bucket.objects == before

    bench.archive(bench.image(BLOCKS), archive_id="mine")
    refused("mine", "a finished archive is not deleted by this command")
    refused("none", "nobody says whose it is, or nothing is there")
    claim = {"execution": "e" * 64, "job_id": "nightly"}
    bench.bucket.objects["disks/job/unfinished.json"] = json.dumps(claim).encode()
    refused("job", "is a job's .*nightly.*resume that, or wait for the sweep")
    for odd in (b"no json", b"[]", b'{"format": "claim-2"}', b"\xff", b""):
        bench.bucket.objects["disks/odd/unfinished.json"] = odd
        refused("odd", "does not say whose it is, as far as this version of Blockferry understands it")
    # A finished archive beside which another one's claim lies.
    bench.bucket.objects["disks/mine/unfinished.json"] = json.dumps({**claim, "machine": "m"}).encode()
    refused("mine", "a finished archive is not deleted by this command")
    with pytest.raises(InvalidRequest, match="is not the address of an archive"):
        discard_left("disks/mine", region=HOME, aws=bench.aws)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("PutObject", "nothing of s3://archives/disks/mine/ is deleted yet"),
        ("DeleteObjects", "s3://archives/disks/mine/ is given up, and deleted in part at most"),
    ],
)
def test_a_discard_that_is_ended_early_says_how_far_it_was_and_the_next_one_goes_on(
    bench: Bench, at: str, told: str, error: type[BaseException]
) -> None:
    claim = {"execution": "e" * 64, "job_id": "local-e", "machine": "host, process 1"}
    bench.bucket.objects[f"disks/mine/{UNFINISHED}"] = json.dumps(claim).encode()
    bench.bucket.objects["disks/mine/segments/0000000000.zst"] = b"x"

    def before(operation: str, _key: str) -> None:
        if operation == at:
            # Each time that it is tried.
            raise error

    bench.bucket.before = before
    with pytest.raises((KeyboardInterrupt, RetryLater)) as ended:
        discard_left("s3://archives/disks/mine/", region=HOME, aws=bench.aws, clock=ManualClock())
    assert ended.value.__notes__ == [f"{told}; begin again with: blockferry discard s3://archives/disks/mine/"]
    bench.bucket.before = lambda _operation, _key: None
    assert not discard_left("s3://archives/disks/mine/", region=HOME, aws=bench.aws).finished
    assert bench.names() == {f"mine/{MANIFEST}"}


def test_archives_below_the_address_of_another_one_are_kept_when_that_is_cleared_away(bench: Bench) -> None:
    image, other = bench.image(BLOCKS), bench.image({0: content(8)}, name="other.img")
    below: list[str] = []

    def fail(_uri: str) -> None:
        # Ids that are called like folders of an archive, too.
        for archive_id in (None, "index", "segments"):
            made = bench.archive(other, prefix="disks/mine", archive_id=archive_id)
            below.append(made["manifest_uri"])
        raise SourceChanged("planted")

    with pytest.raises(SourceChanged) as failed:
        bench.archive(image, archive_id="mine", on_start=fail)
    assert failed.value.__notes__ == ["what was begun of archive s3://archives/disks/mine/ is deleted"]
    assert f"mine/{UNFINISHED}" not in bench.names()
    for uri in below:
        assert bench.read(uri) == {0: content(8)}


def test_archives_below_the_address_of_a_dead_run_are_kept_when_what_that_left_is_discarded(bench: Bench) -> None:
    claim = {"execution": "e" * 64, "job_id": "local-e", "machine": "host, process 1"}
    bench.bucket.objects[f"disks/mine/{UNFINISHED}"] = json.dumps(claim).encode()
    bench.bucket.objects["disks/mine/segments/0000000000.zst"] = b"x"
    bench.bucket.objects["disks/mine/index/0000000000.idx"] = b"x"
    bench.bucket.objects["disks/mine/notes.txt"] = b"of nobody that is known here"
    below = bench.archive(bench.image(BLOCKS), prefix="disks/mine")
    for _ in range(2):
        discard_left("s3://archives/disks/mine/", region=HOME, aws=bench.aws)
        assert bench.read(below["manifest_uri"]) == BLOCKS
        assert bench.names() >= {"mine/notes.txt", f"mine/{MANIFEST}"}
        assert not {"mine/segments/0000000000.zst", "mine/index/0000000000.idx"} & bench.names()


def test_discarding_twice_is_the_same(bench: Bench) -> None:
    claim = {"execution": "e" * 64, "job_id": "local-e", "machine": "host, process 1"}
    bench.bucket.objects["disks/mine/unfinished.json"] = json.dumps(claim).encode()
    bench.bucket.objects["disks/mine/segments/0000000000.zst"] = b"x"
    for begun_by in ("host, process 1", "not known any more"):
        done = discard_left("s3://archives/disks/mine/manifest.json", region=HOME, aws=bench.aws)
        assert (done.finished, done.begun_by) == (False, begun_by)
        assert bench.names() == {f"mine/{MANIFEST}"}
        # A run that still lives stores on, in vain.
        bench.bucket.objects["disks/mine/segments/0000000064.zst"] = b"x"
