"""Storage classes: what is frozen is listed and described, and neither read nor copied until it is restored."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lambda_probe import wait_until
from server_probe import RunningServer, running_server, server_command, server_environment

from .s3_clients import BUCKET, content, refusal, refused

FROZEN = ["GLACIER", "DEEP_ARCHIVE"]
WARM = ["STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "REDUCED_REDUNDANCY"]
STATE = (403, "InvalidObjectState")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server"), config={"s3": {"restore_seconds": 0.2}}) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        running.client("s3").create_bucket(Bucket="versions")
        running.client("s3").put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
        yield running


@pytest.fixture(scope="module")
def s3(server: RunningServer) -> Any:
    return server.client("s3")


def put(s3: Any, key: str, storage_class: str, bucket: str = BUCKET) -> dict[str, str]:
    s3.put_object(Bucket=bucket, Key=key, Body=b"frozen or not", StorageClass=storage_class)
    return {"Bucket": bucket, "Key": key}


def restore(s3: Any, where: dict[str, str], tier: str = "Bulk", **more: Any) -> Any:
    return s3.restore_object(**where, **more, RestoreRequest={"Days": 2, "GlacierJobParameters": {"Tier": tier}})


def thawed(s3: Any, where: dict[str, str]) -> None:
    restore(s3, where)
    wait_until(lambda: 'ongoing-request="false"' in s3.head_object(**where)["Restore"], "it is restored", 10)


@pytest.mark.parametrize("storage_class", FROZEN)
def test_what_is_frozen_can_be_seen_and_not_read(s3: Any, storage_class: str) -> None:
    where = put(s3, f"seen/{storage_class}", storage_class)
    told = "The operation is not valid for the object's storage class"
    assert refusal(s3.get_object, **where) == (*STATE, told)
    assert refused(s3.get_object, **where, Range="bytes=0-3") == STATE
    head = s3.head_object(**where, ChecksumMode="ENABLED")
    assert (head["StorageClass"], head["ContentLength"], "ChecksumCRC32" in head) == (storage_class, 13, True)
    [listed] = s3.list_objects_v2(Bucket=BUCKET, Prefix=where["Key"])["Contents"]
    assert listed["StorageClass"] == storage_class


@pytest.mark.parametrize("storage_class", FROZEN)
def test_what_is_frozen_is_no_source_of_copies(s3: Any, storage_class: str) -> None:
    source, told = put(s3, f"copied/{storage_class}", storage_class), "Operation is not valid for the source object's"
    copy = {"Bucket": BUCKET, "Key": "copy", "CopySource": source}
    assert refusal(s3.copy_object, **copy) == (*STATE, f"{told} storage class")
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="copy")["UploadId"]
    assert refused(s3.upload_part_copy, **copy, UploadId=upload, PartNumber=1) == STATE


@pytest.mark.parametrize("storage_class", WARM)
def test_other_classes_are_read_at_once(s3: Any, storage_class: str) -> None:
    where = put(s3, f"warm/{storage_class}", storage_class)
    assert content(s3, **where) == b"frozen or not"
    assert s3.head_object(**where).get("StorageClass", "STANDARD") == storage_class


@pytest.mark.parametrize("storage_class", ["OUTPOSTS", "SNOW", "EXPRESS_ONEZONE", "FSX_OPENZFS"])
def test_classes_of_other_kinds_of_buckets_are_refused(s3: Any, storage_class: str) -> None:
    assert refused(put, s3=s3, key="never", storage_class=storage_class) == (400, "InvalidStorageClass")
    call = {"Bucket": BUCKET, "Key": "never", "StorageClass": storage_class}
    assert refused(s3.create_multipart_upload, **call) == (400, "InvalidStorageClass")


def test_a_restored_object_is_read_and_copied_to_a_class_that_is_not_frozen(s3: Any) -> None:
    where = put(s3, "thawed", "DEEP_ARCHIVE")
    thawed(s3, where)
    assert content(s3, **where, Range="bytes=0-5") == b"frozen"
    [listed] = s3.list_objects_v2(Bucket=BUCKET, Prefix="thawed", OptionalObjectAttributes=["RestoreStatus"])[
        "Contents"
    ]
    assert listed["RestoreStatus"]["IsRestoreInProgress"] is False
    assert listed["RestoreStatus"]["RestoreExpiryDate"]
    s3.copy_object(Bucket=BUCKET, Key="copy-of-thawed", CopySource=where)
    assert content(s3, Bucket=BUCKET, Key="copy-of-thawed") == b"frozen or not"


def test_tiers_that_a_class_does_not_have_and_objects_that_are_not_frozen(s3: Any) -> None:
    deep, warm = put(s3, "deep", "DEEP_ARCHIVE"), put(s3, "not-frozen", "STANDARD")
    assert refused(restore, s3=s3, where=deep, tier="Expedited") == (400, "InvalidArgument")
    assert refused(restore, s3=s3, where=warm) == (403, "ObjectAlreadyInActiveTierError")


def test_versions_are_frozen_one_by_one(s3: Any) -> None:
    older = s3.put_object(Bucket="versions", Key="k", Body=b"older", StorageClass="GLACIER")["VersionId"]
    newer = s3.put_object(Bucket="versions", Key="k", Body=b"newer", StorageClass="DEEP_ARCHIVE")["VersionId"]
    where = {"Bucket": "versions", "Key": "k"}
    assert refused(restore, s3=s3, where=where, VersionId=older) == (501, "NotImplemented")
    assert refused(restore, s3=s3, where=where, VersionId="none") == (404, "NoSuchVersion")
    thawed(s3, {**where, "VersionId": newer})
    assert content(s3, **where, VersionId=newer) == b"newer"
    assert refused(s3.get_object, **where, VersionId=older) == STATE


def test_a_setting_that_there_is_not_is_refused_at_the_start(tmp_path: Path) -> None:
    for setting, told in (
        ({"thaw": 1}, "unknown keys in 's3': thaw"),
        ({"restore_seconds": "soon"}, "'restore_seconds' in 's3' must be a number of seconds"),
    ):
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"s3": setting}))
        command = [*server_command(tmp_path), "--config", str(config)]
        ended = subprocess.run(command, env=server_environment(), capture_output=True, text=True, timeout=60)
        assert ended.returncode == 1
        assert told in ended.stderr
