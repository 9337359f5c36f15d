"""Archives restored to raw disk images in S3: by the real machine, and held against the volume byte for byte."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import BlockferryError, InvalidRequest, TargetFailed, TransferFailed
from blockferry.core.quotas import MAX_OBJECT_GIB
from blockferry.formats.archive.layout import SEGMENTS
from blockferry.jobs.folder import JobFolder
from blockferry.requests.parts import TransferOptions, parse
from blockferry.requests.restore import RestoreRequest
from blockferry.targets.image_object import part_blocks
from blockferry.targets.object_proposal import propose_objects, refuse_too_large
from fakes import ManualClock, content
from hypothesis import example, given
from hypothesis import strategies as st
from job_records import EXECUTION, job_call
from memory_ec2 import refusal
from rig import HOME, RECOVERY, ZEROS, Rig, hashes, running_rig
from volumes import Volume

ARCHIVES = "archives-111122223333"
IMAGES = "raw-images-111122223333"
KEY = "disks/web 1.img"
URI = f"s3://{IMAGES}/{KEY}"

BEFORE = {0: content(1), 31: content(2), 32: content(3), 700: content(4), 1500: content(5)}
AFTER = {0: content(1), 31: content(9), 700: content(0), 1023: content(7), 2047: content(8)}
"""Both ends of parts of 32 blocks and of the volume; a block of zeros where there was data, and two that are gone."""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with pytest.MonkeyPatch.context() as patch, running_rig(patch, {"volume_snapshot_seconds": 0.0}) as made:
        s3 = made.aws.s3(HOME)
        s3.create_bucket(Bucket=ARCHIVES)
        made.aws.s3(RECOVERY).create_bucket(Bucket=IMAGES, CreateBucketConfiguration={"LocationConstraint": RECOVERY})
        yield made


@pytest.fixture(autouse=True)
def no_images(rig: Rig) -> Iterator[None]:
    yield
    rig.uploads.open.clear()
    rig.uploads.made.clear()
    for key in keys(rig):
        rig.aws.s3(RECOVERY).delete_object(Bucket=IMAGES, Key=key)


def keys(rig: Rig) -> list[str]:
    found = rig.aws.s3(RECOVERY).list_objects_v2(Bucket=IMAGES)
    return [each["Key"] for each in found.get("Contents", [])]


def size_of(rig: Rig) -> int:
    return int(rig.aws.s3(RECOVERY).head_object(Bucket=IMAGES, Key=KEY)["ContentLength"])


def archived(rig: Rig, snapshot_id: str, *, base: str | None = None) -> str:
    request = {
        "snapshot_id": snapshot_id,
        "base_manifest_uri": base,
        "archive": {"bucket": ARCHIVES, "prefix": "disks"},
        "options": {"blocks_per_range": 1024},
    }
    return str(rig.run("archive", request)["manifest_uri"])


@pytest.fixture(scope="module")
def uri(rig: Rig) -> str:
    """A chain of two archives."""
    volume = Volume(rig)
    base = archived(rig, volume.becomes(BEFORE).snapshot())
    return archived(rig, volume.becomes(AFTER).snapshot(), base=base)


def request(uri: str, *, options: Any = None, **target: Any) -> dict[str, Any]:
    return {
        "manifest_uri": uri,
        "targets": [{"image_uri": URI, **target}],
        "options": {"blocks_per_range": 1024, **(options or {})},
    }


def raw(blocks: Mapping[int, bytes]) -> tuple[int, dict[int, str]]:
    """What an object of the whole volume is: its bytes, and every block that is not all zeros."""
    return 2**30, {index: digest for index, digest in hashes(blocks).items() if digest != ZEROS}


def held(rig: Rig, key: str = KEY) -> tuple[int, dict[int, str]]:
    zeros, found, size = bytes(BLOCK_SIZE), {}, 0
    for part in rig.uploads.made[key]:
        for at in range(0, len(part), BLOCK_SIZE):
            if (block := part[at : at + BLOCK_SIZE]) != zeros:
                found[(size + at) // BLOCK_SIZE] = hashlib.sha256(block).hexdigest()
        size += len(part)
    return size, found


def test_a_chain_becomes_one_object_that_is_the_volume_byte_for_byte(rig: Rig, uri: str) -> None:
    receipt = rig.run("restore", request(uri, storage_class="STANDARD_IA", tags={"team": "web"}))
    assert held(rig) == raw(AFTER)
    (target,) = receipt["targets"]
    assert (target["image_uri"], target["region"], target["state"]) == (URI, RECOVERY, "completed")
    assert (target["stored_bytes"], target["parts"], target["part_bytes"]) == (2**30, 64, 2**24)
    assert target["checksum_sha256"].endswith("-64")
    assert (receipt["bytes_written"], receipt["manifest_uri"], receipt["lineage"]) == (2**30, None, None)
    assert receipt["requests"]["UploadPart.STANDARD_IA"] == 64
    head = rig.aws.s3(RECOVERY).head_object(Bucket=IMAGES, Key=KEY)
    assert head["StorageClass"] == "STANDARD_IA"
    assert head["Metadata"]["blockferry-source"] == uri
    tags = rig.aws.s3(RECOVERY).get_object_tagging(Bucket=IMAGES, Key=KEY)["TagSet"]
    assert tags == [{"Key": "team", "Value": "web"}]
    assert rig.uploads.open == {}
    page = rig.folder(receipt["job_id"]).read("report.md") or b""
    assert target["checksum_sha256"] in page.decode()
    assert rig.snapshots() == [each for each in rig.snapshots() if each["region"] == HOME]


@pytest.mark.parametrize(
    ("blocks", "per_range"),
    [({}, 4096), ({2047: content(1)}, 1), ({index: content(index) for index in (5, 6, 100, 101)}, 700)],
    ids=["nothing", "the last block, ranges of one", "ranges that end within a part"],
)
def test_any_shape_is_restored_in_ranges_that_end_with_parts(rig: Rig, blocks: Any, per_range: int) -> None:
    made = archived(rig, rig.snapshot(blocks))
    receipt = rig.run("restore", request(made, options={"blocks_per_range": per_range}))
    assert held(rig) == raw(blocks)
    assert all(within.first % 32 == 0 for within in rig.ranges(receipt["job_id"]))


def test_two_objects_are_made_of_one_read(rig: Rig, uri: str) -> None:
    asked = request(uri)
    asked["targets"].append({"image_uri": f"s3://{IMAGES}/second.img"})
    receipt = rig.run("restore", asked)
    assert held(rig) == held(rig, "second.img") == raw(AFTER)
    assert receipt["bytes_written"] == 2 * 2**30
    assert receipt["bytes_read"] == len(AFTER) * BLOCK_SIZE


def test_damage_leaves_neither_object_nor_upload(rig: Rig) -> None:
    made = archived(rig, rig.snapshot({0: content(1), 900: content(2)}))
    folder = made.removeprefix(f"s3://{ARCHIVES}/").removesuffix("manifest.json")
    s3 = rig.aws.s3(HOME)
    key = s3.list_objects_v2(Bucket=ARCHIVES, Prefix=folder + SEGMENTS)["Contents"][0]["Key"]
    s3.put_object(Bucket=ARCHIVES, Key=key, Body=b"x" + s3.get_object(Bucket=ARCHIVES, Key=key)["Body"].read()[1:])
    with pytest.raises(TransferFailed, match="Nothing is left of the job"):
        rig.run("restore", request(made))
    assert (keys(rig), rig.uploads.open) == ([], {})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image_uri": "s3://no-such-bucket-anywhere/a.img"}, "there is no such bucket"),
        ({"image_uri": "s3://blockferry-work-111122223333-us-east-1/a.img"}, "is the work bucket of this deployment"),
        ({"region": HOME}, f"targets[0].region: the bucket {IMAGES} is in {RECOVERY}, not in {HOME}"),
        (
            {"kms_key_arn": f"arn:aws:kms:{HOME}:111122223333:key/k"},
            f"targets[0].kms_key_arn names a key in {HOME}, the bucket {IMAGES} is in {RECOVERY}",
        ),
        ({"tags": {"a#b": "c"}}, "targets[0]: tags: S3 does not take 'a#b'"),
        ({"image_uri": f"s3://{IMAGES}/folder/"}, "targets[0]: image_uri ends with a slash"),
        ({"encrypted": True}, "targets[0].encrypted: is not a known key"),
        ({"storage_class": "COLD"}, "targets[0].storage_class: must be 'STANDARD'"),
    ],
)
def test_what_cannot_be_written_is_refused_by_its_field(rig: Rig, uri: str, change: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        rig.run("restore", request(uri, **change))
    assert why in str(caught.value)
    assert (keys(rig), rig.uploads.open) == ([], {})


def test_what_does_not_go_together_is_refused(uri: str, rig: Rig) -> None:
    mixed = request(uri)
    mixed["targets"].append({"region": RECOVERY})
    twice = request(uri)
    twice["targets"] *= 2
    for asked, why in (
        (mixed, "snapshots and objects (image_uri) are not made by one job"),
        (twice, "targets[1] is identical to targets[0] (image_uri)"),
        (request(uri, options={"holes": "zero_fill"}), "options.holes: zero_fill is not for objects"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            rig.plan(asked, operation="restore")
        assert why in str(caught.value)


def test_an_object_that_is_there_is_never_written_over(rig: Rig, uri: str) -> None:
    rig.aws.s3(RECOVERY).put_object(Bucket=IMAGES, Key=KEY, Body=b"somebody's")
    with pytest.raises(InvalidRequest, match=r"there is an object s3://.* already .10 bytes"):
        rig.run("restore", request(uri))
    assert size_of(rig) == 10
    assert rig.uploads.open == {}


def test_an_object_that_comes_while_the_job_runs_is_kept_and_the_job_resumes_when_it_is_gone(
    rig: Rig, uri: str
) -> None:
    s3 = rig.aws.s3(RECOVERY)
    job_id = str(rig.plan(request(uri), operation="restore")["job_id"])
    rig.move_all(job_id)
    s3.put_object(Bucket=IMAGES, Key=KEY, Body=b"somebody's")
    with pytest.raises(TargetFailed, match="was written by somebody else meanwhile; it is kept"):
        rig.complete(job_id)
    assert size_of(rig) == 10
    s3.delete_object(Bucket=IMAGES, Key=KEY)
    receipt = rig.finish(job_id)
    assert (receipt["status"], held(rig)) == ("SUCCEEDED", raw(AFTER))


@pytest.mark.parametrize("what", ["another content", "gone"])
def test_a_part_that_is_not_what_was_sent_is_noticed_before_the_object_is_made(rig: Rig, uri: str, what: str) -> None:
    job_id = str(rig.plan(request(uri), operation="restore")["job_id"])
    rig.move_all(job_id)
    (upload,) = rig.uploads.open.values()
    body = bytes([1]) + upload.parts[5][0][1:]
    other = (body, hashlib.sha256(body).digest().hex())
    upload.parts.update({5: other}) if what == "another content" else upload.parts.pop(5)
    with pytest.raises(BlockferryError, match=r"part 5 of object s3://.* is not what was sent, or is gone"):
        rig.complete(job_id)
    assert keys(rig) == []


def test_an_upload_that_somebody_aborts_fails_the_job_with_what_to_do(rig: Rig, uri: str) -> None:
    job_id = str(rig.plan(request(uri), operation="restore")["job_id"])
    rig.uploads.open.clear()
    with pytest.raises(TargetFailed, match="was aborted by somebody else, with all its parts; start a new job"):
        rig.move(job_id, rig.ranges(job_id)[0])


def test_parts_that_were_sent_are_not_sent_again(rig: Rig, uri: str) -> None:
    job_id = str(rig.plan(request(uri), operation="restore")["job_id"])
    (within, *_), folder = rig.ranges(job_id), rig.folder(job_id)
    for sent in (32, 0):
        rig.move(job_id, within)
        (stretch,) = folder.stretches(within)
        assert sum(count for name, count in stretch.requests.items() if name.startswith("UploadPart")) == sent
        # As if the worker had died before it could say so.
        assert folder.delete_below("moved/") > 0


def test_a_job_that_is_repeated_finds_its_upload_and_leaves_those_of_others(rig: Rig, uri: str) -> None:
    other = rig.aws.s3(RECOVERY).create_multipart_upload(Bucket=IMAGES, Key=KEY, ChecksumAlgorithm="SHA256")["UploadId"]
    body = bytes(100)
    sha256 = base64.b64encode(hashlib.sha256(body).digest()).decode()
    rig.aws.s3(RECOVERY).upload_part(
        Bucket=IMAGES, Key=KEY, UploadId=other, PartNumber=1, Body=body, ChecksumSHA256=sha256
    )
    first = rig.plan(request(uri), operation="restore", job_id="again")
    opened = set(rig.uploads.open)
    rig.folder("again").delete_below("plan/started")
    second = rig.plan(request(uri), operation="restore", job_id="again")
    assert set(rig.uploads.open) == opened
    assert len(opened) == 2
    assert first["plan_key"] == second["plan_key"]
    rig.move_all("again")
    assert rig.finish("again")["status"] == "SUCCEEDED"
    assert set(rig.uploads.open) == {other}


def test_a_range_that_does_not_fit_into_a_call_goes_on_at_a_part(rig: Rig) -> None:
    made = archived(rig, rig.snapshot({index: content(index % 250) for index in range(0, 2048, 40)}))
    job_id = str(rig.plan(request(made), operation="restore")["job_id"])
    within = rig.ranges(job_id)[0]
    answer = rig.move(job_id, within, seconds_left=60.0)
    while not answer["done"]:
        assert answer["next_index"] % 32 == 0
        answer = rig.move(job_id, within, next_index=answer["next_index"])
    rig.move_all(job_id)
    rig.finish(job_id)
    assert held(rig) == raw({index: content(index % 250) for index in range(0, 2048, 40)})


@pytest.mark.parametrize("forbidden", ["head_bucket", "head_object"])
def test_what_is_not_permitted_is_refused_with_what_to_permit(forbidden: str) -> None:
    def refuse(**_: Any) -> Any:
        raise refusal("403", forbidden, status=403)

    allowed = {"head_bucket": lambda **_: {"BucketRegion": RECOVERY}}
    s3 = SimpleNamespace(meta=SimpleNamespace(region_name=HOME), **{**allowed, forbidden: refuse})
    aws = SimpleNamespace(own_region=HOME, image_s3=lambda _identity: s3)
    call = job_call(aws, JobFolder("work", cast(Any, None), "restore", "job-1"), clock=ManualClock())
    asked = parse(RestoreRequest, request("s3://archives/disks/one/manifest.json"), what="restore")
    found: Any = SimpleNamespace(size_gib=1)
    with pytest.raises(InvalidRequest) as caught:
        propose_objects(asked, asked.objects, found, EXECUTION, call)
    told = str(caught.value)
    assert told.startswith("targets[0].image_uri: Head")
    assert "restore_bucket_names" in told
    assert "s3:ListBucketMultipartUploads" in told


@given(st.integers(1, MAX_OBJECT_GIB))
@example(156)
@example(157)
@example(MAX_OBJECT_GIB)
def test_s3_takes_the_parts_of_every_volume_and_a_worker_can_hold_one(size_gib: int) -> None:
    blocks, total = part_blocks(size_gib), size_gib * 2_048
    parts = -(-total // blocks)
    assert parts + 1 <= 10_000
    assert 5 * 2**20 <= blocks * BLOCK_SIZE <= 550 * 2**20
    assert (parts - 1) * blocks < total <= parts * blocks


def test_a_volume_that_no_object_holds_is_refused_before_anything_is_started() -> None:
    refuse_too_large(MAX_OBJECT_GIB, TransferOptions(), 10)
    with pytest.raises(InvalidRequest, match="the volume has 5121 GiB, and an object is written up to 5120 GiB"):
        refuse_too_large(MAX_OBJECT_GIB + 1, TransferOptions(), 1)


@pytest.mark.parametrize(("workers", "targets"), [(1_000, 1), (None, 100)])
def test_parts_that_a_slow_worker_could_not_end_in_a_call_are_refused(workers: int | None, targets: int) -> None:
    options = TransferOptions(max_concurrency=workers)
    refuse_too_large(500, options, targets)
    with pytest.raises(InvalidRequest, match="name fewer targets, or lower max_concurrency or leave it out"):
        refuse_too_large(MAX_OBJECT_GIB, options, targets)


def test_a_dry_run_tells_requests_bytes_and_price_and_writes_nothing(rig: Rig, uri: str) -> None:
    answer = rig.plan(request(uri, options={"dry_run": True}), operation="restore")["estimate"]
    assert answer["targets"] == [
        {
            "region": RECOVERY,
            "image_uri": URI,
            "storage_class": "STANDARD",
            "volume_size_gib": 1,
            "part_bytes": 2**24,
        }
    ]
    assert (answer["bytes_written"], answer["usd_a_month"]) == (2**30, 0.023)
    assert answer["requests"]["UploadPart"] == 65
    assert answer["cost_usd"]["total"] > 0
    assert (keys(rig), rig.uploads.open) == ([], {})
