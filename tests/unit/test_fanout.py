"""Disk images in S3 and snapshots, to many targets: held against the image and against what the EBS server holds."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lz4.frame
import pytest
import zstandard
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import InvalidRequest, TransferFailed
from blockferry.sources.image import JobImage, Unpacked, volume_size
from blockferry.transfer.job import planned_job
from fakes import content
from rig import HOME, RECOVERY, THIRD, Rig, hashes, running_rig

IMAGES = "golden-images"
REGIONS = (HOME, RECOVERY, THIRD)
OPTIONS = {"blocks_per_range": 1024}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        made.aws.s3(HOME).create_bucket(Bucket=IMAGES)
        yield made


def disk(*seeds: int, tail: int = 0) -> bytes:
    """One block a seed, 0 for a block of zeros, and ``tail`` more bytes that are none."""
    return b"".join(content(seed) for seed in seeds) + b"\x07" * tail


def blocks_of(image: bytes) -> dict[int, bytes]:
    """Blocks of an image, the last one filled up with zeros."""
    count = -(-len(image) // BLOCK_SIZE)
    padded = image.ljust(count * BLOCK_SIZE, b"\0")
    return {index: padded[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE] for index in range(count)}


def with_data(image: bytes) -> dict[int, str]:
    return hashes({index: data for index, data in blocks_of(image).items() if data != content(0)})


def store(rig: Rig, body: bytes, key: str = "disk.img") -> str:
    rig.aws.s3(HOME).put_object(Bucket=IMAGES, Key=key, Body=body)
    return f"s3://{IMAGES}/{key}"


def request(uri: str, *regions: str, **more: Any) -> dict[str, Any]:
    options = {**OPTIONS, **more.pop("options", {})}
    return {"image_uri": uri, "targets": [{"region": r} for r in regions or (RECOVERY,)], "options": options, **more}


def raw(image: bytes) -> bytes:
    return image


def many_frames(image: bytes) -> bytes:
    cut = len(image) // 3
    return b"".join(zstandard.compress(part) for part in (image[:cut], image[cut:]))


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "disk.img": raw,
    "disk.img.gz": gzip.compress,
    "disk.img.zst": many_frames,
    "disk.img.xz": lzma.compress,
    "disk.img.bz2": bz2.compress,
    "disk.img.lz4": lz4.frame.compress,
}
CODECS = {
    "disk.img": "raw",
    "disk.img.gz": "gzip",
    "disk.img.zst": "zstd",
    "disk.img.xz": "xz",
    "disk.img.bz2": "bzip2",
    "disk.img.lz4": "lz4",
}


@pytest.mark.parametrize("name", FORMS)
def test_an_image_becomes_a_snapshot_in_every_region_from_one_read_of_each_block(rig: Rig, name: str) -> None:
    image = disk(1, 2, 0, 3, *range(10, 70), 0, 0, 4, tail=100)
    uri = store(rig, FORMS[name](image), name)
    rig.control("stats/reset", {})
    receipt = rig.run("fanout", request(uri, *REGIONS))
    made = [target["snapshot_id"] for target in receipt["targets"]]
    assert [rig.held(m) for m in made] == [with_data(image)] * 3
    assert [rig.facts(m)["region"] for m in made] == list(REGIONS)
    assert [rig.facts(m)["volume_size"] for m in made] == [1, 1, 1]
    blocks = -(-len(image) // BLOCK_SIZE)
    assert receipt["allocated_blocks"] == blocks
    assert receipt["zero_blocks"] == 3
    assert receipt["changed_blocks"] == receipt["targets"][0]["blocks_written"] == blocks - 3
    assert rig.calls()["PutSnapshotBlock"] == 3 * (blocks - 3)
    assert rig.calls().get("GetSnapshotBlock", 0) == 0
    assert receipt["source"] == {
        "image_uri": uri,
        "region": HOME,
        "etag": receipt["source"]["etag"],
        "codec": CODECS[name],
        "object_bytes": len(FORMS[name](image)),
        "image_bytes": len(image),
    }
    assert receipt["lineage"] is None
    assert rig.facts(made[0])["tags"]["blockferry:source-image"] == uri


@pytest.mark.parametrize("size", [1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE + 512])
def test_the_tail_of_an_image_is_kept_whatever_its_size(rig: Rig, size: int) -> None:
    image = (disk(1, 2, 3) + b"\x05" * BLOCK_SIZE)[: size - 1] + b"\x09"
    receipt = rig.run("fanout", request(store(rig, image)))
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks_of(image))


def test_a_larger_volume_can_be_asked_for(rig: Rig) -> None:
    receipt = rig.run("fanout", request(store(rig, disk(1)), volume_size_gib=3))
    assert receipt["targets"][0]["volume_size_gib"] == 3
    assert rig.facts(receipt["targets"][0]["snapshot_id"])["volume_size"] == 3


def test_zero_fill_writes_every_block_of_the_volume(rig: Rig) -> None:
    wanted = request(store(rig, disk(1, 0, 2)), options={"holes": "zero_fill", "blocks_per_range": 60})
    job_id = rig.plan(wanted, operation="fanout")["job_id"]
    job = rig.job(job_id)
    assert job is not None
    for within in (rig.ranges(job_id)[0], rig.ranges(job_id)[-1]):
        rig.move(job_id, within)
    image = {0: content(1), 2: content(2)}
    indices = [*range(60), *range(2040, 2048)]
    expected = hashes({index: image.get(index, content(0)) for index in indices})
    assert rig.held(job.targets[0].snapshot_id) == expected


def test_an_image_of_nothing_but_zeros_gives_an_empty_snapshot(rig: Rig) -> None:
    receipt = rig.run("fanout", request(store(rig, disk(0, 0, 0))))
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == {}
    assert (receipt["allocated_blocks"], receipt["zero_blocks"], receipt["changed_blocks"]) == (3, 3, 0)


@pytest.mark.parametrize("how", ["asked for", "by default"])
def test_blocks_of_zeros_are_written_where_a_hole_would_not_read_as_zeros(rig: Rig, how: str) -> None:
    image = disk(1, 0, 2)
    wanted = request(store(rig, image), HOME, RECOVERY)
    if how == "asked for":
        wanted["targets"][1]["encrypted"] = True
    else:
        rig.client("ec2", RECOVERY).enable_ebs_encryption_by_default()
    receipt = rig.run("fanout", wanted)
    encrypted = receipt["targets"][1]
    assert encrypted["encrypted"] is True
    assert rig.held(encrypted["snapshot_id"]) == hashes(blocks_of(image))


def test_what_was_unpacked_is_removed_when_every_target_has_it(rig: Rig) -> None:
    uri = store(rig, gzip.compress(disk(1, 2, 3)), "disk.gz")
    before: dict[str, list[str]] = {}

    def image(job_id: str) -> list[str]:
        return [name for name in objects(rig, job_id) if name.startswith("image")]

    @contextmanager
    def look(step: str, event: Mapping[str, Any]) -> Iterator[None]:
        before[step] = image(event["job_id"])
        yield

    rig.around = look
    rig.run("fanout", request(uri), job_id="packed")
    assert (before["Unpack image"], before["Move blocks"]) == ([], ["image/00000000.zst", "image/image.json"])
    assert image("packed") == []


def test_the_receipt_counts_what_unpacking_took(rig: Rig) -> None:
    image = disk(*range(1, 70))
    receipt = rig.run("fanout", request(store(rig, gzip.compress(image), "disk.gz")))
    # One part of the compressed image and one read of each piece; two pieces of 64 blocks were stored.
    assert receipt["requests"]["PutObject"] == 2
    assert receipt["requests"]["GetObject"] >= 1 + 2
    assert receipt["cost_usd"]["PutObject"] == pytest.approx(2 * 0.005 / 1000)


def objects(rig: Rig, job_id: str) -> list[str]:
    prefix = rig.folder(job_id).prefix
    found = rig.workspace.s3.list_objects_v2(Bucket=rig.workspace.bucket, Prefix=prefix).get("Contents", [])
    return [item["Key"].removeprefix(prefix) for item in found]


def test_a_snapshot_can_be_fanned_out_to_five_targets_from_one_read(rig: Rig) -> None:
    blocks = {index: content(index + 1) for index in range(40)} | {2047: content(0)}
    source = rig.snapshot(blocks)
    rig.control("stats/reset", {})
    targets = [{"region": region} for region in REGIONS] + [{"region": HOME, "encrypted": True}]
    targets += [{"region": RECOVERY, "encrypted": True}]
    receipt = rig.run(
        "fanout", {"snapshot_id": source, "targets": targets, "options": {**OPTIONS, "holes": "preserve"}}
    )
    assert [rig.held(target["snapshot_id"]) for target in receipt["targets"]] == [hashes(blocks)] * 5
    assert rig.calls()["GetSnapshotBlock"] == receipt["requests"]["GetSnapshotBlock"] == len(blocks)
    assert rig.calls()["PutSnapshotBlock"] == 5 * len(blocks)
    assert receipt["operation"] == "fanout"


def test_one_region_that_fails_does_not_spoil_the_rest_and_only_it_is_written_again(
    rig: Rig,
) -> None:
    image = disk(*range(1, 60), tail=5)
    job_id = rig.plan(request(store(rig, image), *REGIONS), operation="fanout")["job_id"]
    job = rig.job(job_id)
    assert job is not None
    bad = job.targets[1].snapshot_id
    rig.control("faults", {"operation": "PutSnapshotBlock", "snapshot_id": bad, "action": "error", "status": 403,
                           "code": "AccessDeniedException", "reason": "UNAUTHORIZED_ACCOUNT"})  # fmt: skip
    rig.move_all(job_id)
    assert rig.complete(job_id)["missing_ranges"] > 0
    assert [rig.state(target.snapshot_id) for target in job.targets] == ["completed", "pending", "completed"]
    rig.control("faults", method="DELETE")
    rig.control("stats/reset", {})
    rig.move_missing(job_id)
    rig.complete(job_id, missing_moved=True)
    assert rig.calls()["PutSnapshotBlock"] == 60
    written = rig.control("stats")["snapshots"]
    assert [name for name, calls in written.items() if "PutSnapshotBlock" in calls] == [bad]
    receipt = rig.finish(job_id)
    assert [rig.held(target["snapshot_id"]) for target in receipt["targets"]] == [with_data(image)] * 3


def test_a_dry_run_of_an_image_starts_and_writes_nothing(rig: Rig) -> None:
    uri = store(rig, disk(1, 0, 2, tail=1))
    estimate = rig.plan(request(uri, *REGIONS, options={"dry_run": True}), operation="fanout")["estimate"]
    assert (estimate["status"], estimate["allocated_blocks"]) == ("DRY_RUN", 4)
    assert estimate["requests"] == {"PutSnapshotBlock": 12, "GetObject": 1}
    assert estimate["source"]["image_bytes"] == 3 * BLOCK_SIZE + 1
    assert rig.snapshots() == []
    assert rig.folders() == []


def dry_run(rig: Rig, uri: str, **more: Any) -> dict[str, Any]:
    wanted = request(uri, options={"dry_run": True}, **more)
    estimate: dict[str, Any] = rig.plan(wanted, operation="fanout")["estimate"]
    assert rig.folders() == []
    assert rig.snapshots() == []
    return estimate


def test_a_dry_run_of_a_compressed_image_that_tells_no_size_knows_none(rig: Rig) -> None:
    estimate = dry_run(rig, store(rig, bz2.compress(disk(1)), "disk.bz2"))
    assert estimate["allocated_blocks"] is None
    assert estimate["allocated_blocks_from"] == "unknown until the image is unpacked"
    assert (estimate["workers"], estimate["workers_because"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "pack"),
    [("gz", gzip.compress), ("zst", zstandard.compress), ("xz", lzma.compress)],
    ids=["gz", "zst", "xz"],
)
def test_a_dry_run_of_a_compressed_image_goes_by_the_size_that_it_tells(
    rig: Rig, name: str, pack: Callable[[bytes], bytes]
) -> None:
    uri = store(rig, pack(disk(1, 0, 2, tail=1)), f"disk.{name}")
    estimate = dry_run(rig, uri)
    assert (estimate["allocated_blocks"], estimate["workers"]) == (4, None)
    assert f"({3 * BLOCK_SIZE + 1:,} bytes" in estimate["allocated_blocks_from"]
    # Unpacking reads the image and stores one chunk, which the workers read.
    assert estimate["requests"] == {"PutSnapshotBlock": 4, "GetObject": 2, "PutObject": 1}
    assert estimate["source"]["image_bytes"] == 0
    receipt = rig.run("fanout", request(uri))
    assert receipt["requests"]["PutObject"] == estimate["requests"]["PutObject"]
    assert receipt["changed_blocks"] <= estimate["changed_blocks"]


def test_a_dry_run_is_bounded_by_the_volume_that_is_asked_for(rig: Rig) -> None:
    uri = store(rig, bz2.compress(disk(1)), "disk.bz2")
    estimate = dry_run(rig, uri, volume_size_gib=1)
    assert (estimate["allocated_blocks"], estimate["bytes_written"]) == (2048, 2**30)
    assert estimate["allocated_blocks_from"] == "the volume of 1 GiB that was asked for: at most"


def test_a_dry_run_refuses_a_volume_that_is_smaller_than_what_the_image_tells(rig: Rig) -> None:
    stream = zstandard.ZstdCompressor().compressobj(size=3 * 2**30)
    uri = store(rig, stream.compress(disk(1)) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK), "disk.zst")
    with pytest.raises(InvalidRequest, match=r"volume_size_gib: 2 GiB is too small .* 3 GiB are needed"):
        dry_run(rig, uri, volume_size_gib=2)


def test_a_size_that_gzip_may_not_mean_does_not_refuse_a_volume(rig: Rig) -> None:
    packed = bytearray(gzip.compress(disk(1)))
    packed[-4:] = (3 * 2**30).to_bytes(4, "little")
    estimate = dry_run(rig, store(rig, bytes(packed), "disk.gz"), volume_size_gib=2)
    assert estimate["allocated_blocks_from"] == "the volume of 2 GiB that was asked for: at most"


# -- images that change, and images that are none ----------------------------------------------------------------------


def test_an_image_that_is_replaced_while_it_is_read_refuses_the_job_and_nothing_is_left(rig: Rig) -> None:
    uri = store(rig, disk(*range(1, 60)))
    wanted = request(uri, *REGIONS, options={"blocks_per_range": 30})
    job_id = rig.plan(wanted, operation="fanout")["job_id"]
    first, *rest = rig.ranges(job_id)[:3]
    rig.move(job_id, first)
    store(rig, disk(*range(2, 61)))
    for part in rest:
        assert rig.move(job_id, part)["done"]
    with pytest.raises(TransferFailed, match=f"{uri}.*replaced"):
        rig.complete(job_id)
    assert rig.snapshots() == []


def test_targets_that_were_completed_before_the_image_was_replaced_are_kept_and_named(rig: Rig) -> None:
    uri = store(rig, disk(*range(1, 60)))
    job_id = rig.plan(request(uri, HOME, RECOVERY), operation="fanout")["job_id"]
    job = rig.job(job_id)
    assert job is not None
    good, bad = (target.snapshot_id for target in job.targets)
    rig.control("faults", {"operation": "PutSnapshotBlock", "snapshot_id": bad, "action": "error", "status": 403,
                           "code": "AccessDeniedException", "reason": "UNAUTHORIZED_ACCOUNT"})  # fmt: skip
    rig.move_all(job_id)
    rig.complete(job_id)
    rig.control("faults", method="DELETE")
    store(rig, disk(9))
    rig.move_missing(job_id)
    with pytest.raises(TransferFailed, match=f"and kept: {good}"):
        rig.complete(job_id, missing_moved=True)
    assert {s["snapshot_id"]: s["state"] for s in rig.snapshots()} == {good: "completed"}


def refused(rig: Rig, wanted: dict[str, Any]) -> str:
    with pytest.raises(InvalidRequest) as caught:
        rig.run("fanout", wanted)
    assert rig.snapshots() == []
    return str(caught.value)


def test_an_image_that_is_missing_is_refused_by_name(rig: Rig) -> None:
    assert f"s3://{IMAGES}/no.img" in refused(rig, request(f"s3://{IMAGES}/no.img"))


def test_an_empty_image_is_refused(rig: Rig) -> None:
    assert "is empty" in refused(rig, request(store(rig, b"")))


@pytest.mark.parametrize(
    ("raw_bytes", "asked", "size"),
    [(1, None, 1), (2**30, None, 1), (2**30 + 1, None, 2), (1, 5, 5), (2**46, None, 65_536)],
)
def test_a_volume_is_as_large_as_the_image_rounded_up_or_as_asked_for(
    raw_bytes: int, asked: int | None, size: int
) -> None:
    assert volume_size(image_record(raw_bytes), asked) == size


def test_a_volume_that_is_too_small_for_the_image_is_refused() -> None:
    expected = rf"volume_size_gib: 1 GiB is too small for image s3://i/d of {2**30 + 1} bytes; 2 GiB are needed"
    with pytest.raises(InvalidRequest, match=expected):
        volume_size(image_record(2**30 + 1), 1)
    with pytest.raises(InvalidRequest, match="more than the largest volume"):
        volume_size(image_record(2**46 + 1), None)


def image_record(raw_bytes: int) -> JobImage:
    return JobImage(
        region=HOME,
        role_arn=None,
        external_id=None,
        uri="s3://i/d",
        etag='"e"',
        size_bytes=9,
        codec="gzip",
        unpacked=Unpacked(raw_bytes=raw_bytes),
    )


@pytest.mark.parametrize("name", [name for name in FORMS if name != "disk.img"])
def test_a_compressed_image_that_is_cut_off_is_refused_before_anything_is_started(rig: Rig, name: str) -> None:
    whole = FORMS[name](disk(*range(1, 30)))
    uri = store(rig, whole[:-5], name)
    assert uri in refused(rig, request(uri))


def test_an_image_that_is_not_what_its_name_says_is_refused(rig: Rig) -> None:
    assert "zstd" in refused(rig, request(store(rig, disk(1), "disk.zst")))
    assert "image_codec" in refused(rig, request(store(rig, gzip.compress(disk(1)), "disk.img")))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"image_uri": None}, "name exactly one source: image_uri, snapshot_id or manifest_uri"),
        ({"snapshot_id": "snap-00000000000000001"}, "name exactly one source"),
        ({"image_uri": "https://bucket/key"}, "image_uri: 'https://bucket/key' is not the address of an object"),
        (
            {"image_uri": "s3://bucket/my disk.img?versionId=3HL4kqtJ"},
            "copy-object --copy-source 'bucket/my disk.img?versionId=3HL4kqtJ' --bucket bucket --key KEY`, and name "
            "s3://bucket/KEY",
        ),
        ({"image_uri": "s3://bucket"}, "image_uri: 's3://bucket' is not the address of an object"),
        ({"image_codec": "lzma"}, "image_codec"),
        ({"image_format": "qcow2"}, "image_format"),
        ({"volume_size_gib": 0}, "volume_size_gib"),
        ({"lineage": "x"}, "lineage: an image has none"),
        ({"targets": []}, "targets: name at least one target"),
    ],
)
def test_a_request_that_cannot_be_is_refused_with_its_field(rig: Rig, change: dict[str, Any], expected: str) -> None:
    assert expected in refused(rig, {**request(f"s3://{IMAGES}/disk.img"), **change})


def test_leaving_zeros_out_is_refused_where_a_hole_would_not_read_as_zeros(rig: Rig) -> None:
    rig.client("ec2", RECOVERY).enable_ebs_encryption_by_default()
    wanted = request(store(rig, disk(1)), options={"holes": "skip_zero"})
    assert f"the account encrypts by default in {RECOVERY}" in refused(rig, wanted)


def test_a_job_that_only_unpacked_its_image_is_known_to_the_sweeper(rig: Rig) -> None:
    uri = store(rig, gzip.compress(disk(1))[:-4], "disk.gz")
    refused(rig, request(uri))
    (folder,) = rig.folders()
    job = planned_job(folder)
    assert job is not None
    assert (job.total_blocks, job.source.prepared, [t.started for t in job.targets]) == (None, False, [None])
