"""Archives through the deployed state machines and functions, under the roles that Terraform makes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from blockferry.cli.main import main
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.checksums import ZERO_BLOCK, digest_of
from cloud_rig import PALETTE, CloudRig, filled
from fakes import content
from rig import hashes


def archived(cloud: CloudRig, snapshot_id: str, *, base: str | None = None, **archive: Any) -> dict[str, Any]:
    place = {"bucket": cloud.info.buckets[cloud.home]["archive"], "prefix": "disks", **archive}
    request = {"snapshot_id": snapshot_id, "base_manifest_uri": base, "archive": place}
    return cloud.run("archive", {**request, "options": {"blocks_per_range": 700}})


def restored(cloud: CloudRig, uri: str, *regions: str) -> list[str]:
    targets = [{"region": region, "encrypted": False} for region in regions]
    receipt = cloud.run("restore", {"manifest_uri": uri, "targets": targets})
    return [target["snapshot_id"] for target in receipt["targets"]]


def test_a_snapshot_goes_into_an_archive_and_comes_back_to_two_regions(cloud: CloudRig) -> None:
    blocks = {**filled(200), 900: content(0), 2047: PALETTE[3]}
    source = cloud.snapshot(blocks)
    receipt = archived(cloud, source, tags={"keep": "7y"})
    assert receipt["linear_checksum"]
    assert receipt["targets"][0]["data_blocks"] == 201
    made = restored(cloud, receipt["manifest_uri"], cloud.home, cloud.recovery)
    assert [cloud.held(each) for each in made] == [hashes(blocks)] * 2
    bucket, key = receipt["manifest_uri"].removeprefix("s3://").split("/", 1)
    s3 = cloud.client("s3")
    folder = key.removesuffix("manifest.json")
    objects = s3.list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]
    classes = {each["Key"].removeprefix(folder).split("/")[0]: each["StorageClass"] for each in objects}
    assert classes == {"index": "STANDARD", "manifest.json": "STANDARD", "segments": "STANDARD_IA"}
    tags = s3.get_object_tagging(Bucket=bucket, Key=objects[-1]["Key"])["TagSet"]
    assert tags == [{"Key": "keep", "Value": "7y"}]


def test_an_increment_in_a_bucket_of_another_region_is_built_upon_a_full_archive(cloud: CloudRig) -> None:
    before, after = filled(64), {**filled(64), 5: PALETTE[90], 70: content(0)}
    first = cloud.snapshot(before)
    there = cloud.info.buckets[cloud.recovery]["archive"]
    base = archived(cloud, first, bucket=there)["manifest_uri"]
    second = cloud.snapshot({5: PALETTE[90], 70: content(0)}, parent_snapshot_id=first)
    receipt = archived(cloud, second, base=base, bucket=there)
    assert (receipt["targets"][0]["region"], receipt["changed_blocks"]) == (cloud.recovery, 2)
    (made,) = restored(cloud, receipt["manifest_uri"], cloud.home)
    assert cloud.held(made) == hashes(after)


def test_the_command_line_archives_and_restores(cloud: CloudRig, capsys: pytest.CaptureFixture[str]) -> None:
    source = cloud.snapshot(filled(10))
    bucket = cloud.info.buckets[cloud.home]["archive"]

    def blockferry(*words: str) -> Any:
        assert main([*words, "--json", "--wait"]) == 0
        return json.loads(capsys.readouterr().out)

    receipt = blockferry("archive", source, "--to", f"s3://{bucket}/cli", "--level", "1")
    made = blockferry("restore", receipt["manifest_uri"], "--to", cloud.recovery)["targets"][0]["snapshot_id"]
    assert cloud.held(made) == hashes(filled(10))


@contextmanager
def loop_device(image: Path) -> Iterator[Path]:
    """A block device that has the bytes of a file, where this machine lets us make one."""
    try:
        made = subprocess.run(["losetup", "--show", "--find", image], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no loop device can be made here: {error}")
    try:
        yield Path(made.stdout.strip())
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def written(image: Path, blocks: dict[int, bytes], *, size: int) -> Path:
    with image.open("wb") as handle:
        handle.truncate(size)
        for index, data in blocks.items():
            handle.seek(index * len(PALETTE[0]))
            handle.write(data)
    return image


def command(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_file_of_this_machine_is_archived_and_restored_by_a_job_and_then_what_changed(
    cloud: CloudRig, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # In a bucket of another Region than the command's.
    to = ("--to", f"s3://{cloud.info.buckets[cloud.recovery]['archive']}/files", "--tag", "keep=7y")
    block, tail = len(PALETTE[0]), b"the last sector".ljust(512, b"\xff")
    before = {**filled(150), 900: content(0), 1300: tail}
    image = written(tmp_path / "disk.img", before, size=1300 * block + 512)
    first = command(capsys, "archive", str(image), *to)
    after = {**before, 7: PALETTE[90], 1200: PALETTE[91]}
    del after[20]
    written(image, after, size=1300 * block + 512)
    second = command(capsys, "archive", str(image), *to, "--base", "auto")
    assert second["targets"][0]["base_manifest_uri"] == first["manifest_uri"]
    assert (second["changed_blocks"], second["removed_blocks"]) == (2, 1)
    whole = {index: data.ljust(block, b"\0") for index, data in after.items()}
    (made,) = restored(cloud, second["manifest_uri"], cloud.home)
    assert cloud.held(made) == hashes(whole)
    # And as the bytes that they were.
    verified = cloud.run("verify", {"manifest_uri": second["manifest_uri"], "source": {"region": cloud.recovery}})
    assert verified["findings"] == 0


def test_a_device_of_this_machine_is_archived_and_restored_by_a_job(
    cloud: CloudRig, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    block = len(PALETTE[0])
    blocks = {0: PALETTE[1], 5: PALETTE[2], 9: PALETTE[3][:1024].ljust(block, b"\0")}
    image = written(tmp_path / "disk.img", {**blocks, 9: blocks[9][:1024]}, size=9 * block + 1024)
    with loop_device(image) as device:
        receipt = command(
            capsys, "archive", str(device), "--to", f"s3://{cloud.info.buckets[cloud.home]['archive']}/devices"
        )
    assert receipt["source"]["image_bytes"] == 9 * block + 1024
    (made,) = restored(cloud, receipt["manifest_uri"], cloud.recovery)
    assert cloud.image_of(made) == hashes(blocks)


def test_the_work_bucket_takes_no_archive(cloud: CloudRig) -> None:
    source = cloud.snapshot(filled(1))
    with pytest.raises(Exception, match="is the work bucket of this deployment"):
        archived(cloud, source, bucket=cloud.info.buckets[cloud.home]["work"])


def keys_in(cloud: CloudRig, bucket: str) -> list[str]:
    return [each["Key"] for each in cloud.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])]


def refused(cloud: CloudRig, operation: str, request: dict[str, Any]) -> str:
    """What a job says whose key cannot be used; where nothing is begun, or it may be resumed when it can."""
    state = cloud.ended(cloud.start(request, operation=operation))
    assert state.status == "FAILED"
    assert state.error in ("InvalidRequest", "RequestRefused"), state.cause
    return str(state.cause)


def test_functions_use_the_key_of_an_archive_and_while_it_is_disabled_say_so_and_leave_nothing(cloud: CloudRig) -> None:
    blocks = {**filled(70), 1500: content(0)}
    source = cloud.snapshot(blocks)
    s3, kms = cloud.client("s3"), cloud.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    with cloud.bucket(kms_key_arn=key) as bucket:
        uri = archived(cloud, source, bucket=bucket)["manifest_uri"]
        objects = keys_in(cloud, bucket)
        assert len(objects) > 3
        assert {s3.head_object(Bucket=bucket, Key=each)["SSEKMSKeyId"] for each in objects} == {key}
        verification, restoring = {"manifest_uri": uri}, {"manifest_uri": uri, "targets": [{"region": cloud.recovery}]}
        assert cloud.run("verify", verification)["findings"] == 0
        (made,) = restored(cloud, uri, cloud.recovery)
        assert cloud.held(made) == hashes(blocks)

        before = cloud.snapshots()
        archiving = {"snapshot_id": source, "archive": {"bucket": bucket, "prefix": "again"}}
        asked = (("archive", archiving), ("verify", verification), ("restore", restoring))
        kms.disable_key(KeyId=key)
        try:
            told = [refused(cloud, operation, request) for operation, request in asked]
        finally:
            kms.enable_key(KeyId=key)
        for cause in told:
            assert f"{key} is disabled" in cause
            assert f"s3://{bucket}/" in cause
        assert keys_in(cloud, bucket) == objects
        assert cloud.snapshots() == before
        assert cloud.run("verify", verification)["findings"] == 0


@contextmanager
def versioned_bucket(cloud: CloudRig) -> Iterator[str]:
    """A bucket with versions in the recovery region, gone with all in it at the end."""
    s3, name = cloud.client("s3", cloud.recovery), "raw-images-111122223333"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": cloud.recovery})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    try:
        yield name
    finally:
        for each in s3.list_object_versions(Bucket=name).get("Versions", []):
            s3.delete_object(Bucket=name, Key=each["Key"], VersionId=each["VersionId"])
        s3.delete_bucket(Bucket=name)


def test_the_command_line_restores_to_a_raw_image_that_is_the_volume(
    cloud: CloudRig, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = {**filled(40), 900: content(0), 2047: PALETTE[3]}
    archive = archived(cloud, cloud.snapshot(blocks))["manifest_uri"]
    s3, key = cloud.client("s3", cloud.recovery), "disks/web 1.img"
    with versioned_bucket(cloud) as bucket:
        words = [
            "restore",
            archive,
            "--to",
            f"s3://{bucket}/{key}",
            "--storage-class",
            "STANDARD_IA",
            "--json",
            "--wait",
        ]
        assert main(words) == 0
        (target,) = json.loads(capsys.readouterr().out)["targets"]
        head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        assert (target["stored_bytes"], head["ContentLength"], head["StorageClass"]) == (2**30, 2**30, "STANDARD_IA")
        assert (target["checksum_sha256"], target["version_id"]) == (head["ChecksumSHA256"], head["VersionId"])
        body = s3.get_object(Bucket=bucket, Key=key)["Body"]
        held = {}
        for index in range(2048):
            block = body.read(BLOCK_SIZE)
            if block != ZERO_BLOCK:
                held[index] = digest_of(block).hex()
        assert body.read() == b""
        assert held == {index: digest for index, digest in hashes(blocks).items() if index != 900}
        assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
        # Once more to the same key: nothing is written over.
        assert main(words) != 0
        assert "there is an object" in "".join(capsys.readouterr())
        assert s3.head_object(Bucket=bucket, Key=key)["VersionId"] == target["version_id"]
