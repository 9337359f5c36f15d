"""Versioned and locked buckets: what stays, what can be deleted, what has to come with a locked object."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from server_probe import RunningServer, running_server

from .s3_clients import BUCKET, content, refusal, refused, silent_client, upload

LOCKED, VERSIONED = "locked-bucket", "versioned-bucket"
DENIED = (403, "AccessDenied")
LATER = datetime.now(UTC) + timedelta(days=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        s3 = running.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        s3.create_bucket(Bucket=VERSIONED)
        s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
        s3.create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
        retention = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
        s3.put_object_lock_configuration(
            Bucket=LOCKED, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
        )
        yield running


@pytest.fixture(scope="module")
def s3(server: RunningServer) -> Any:
    return server.client("s3")


def test_every_version_is_listed_and_read_until_it_is_deleted_by_its_id(s3: Any) -> None:
    where = {"Bucket": VERSIONED, "Key": "kept"}
    versions = [s3.put_object(**where, Body=body)["VersionId"] for body in (b"first", b"second")]
    marker = s3.delete_object(**where)
    assert marker["DeleteMarker"] is True
    assert refused(s3.get_object, **where) == (404, "NoSuchKey")
    assert refused(s3.get_object, **where, VersionId=marker["VersionId"]) == (405, "MethodNotAllowed")
    assert refused(s3.get_object, **where, VersionId="none") == (404, "NoSuchVersion")
    assert [content(s3, **where, VersionId=version) for version in versions] == [b"first", b"second"]
    listed = s3.list_object_versions(Bucket=VERSIONED, Prefix="kept")
    assert [(each["VersionId"], each["IsLatest"]) for each in listed["Versions"]] == [
        (versions[1], False),
        (versions[0], False),
    ]
    assert [(each["VersionId"], each["IsLatest"]) for each in listed["DeleteMarkers"]] == [(marker["VersionId"], True)]
    assert "Contents" not in s3.list_objects_v2(Bucket=VERSIONED, Prefix="kept")
    s3.delete_object(**where, VersionId=marker["VersionId"])
    assert content(s3, **where) == b"second"
    s3.delete_object(**where, VersionId=versions[1])
    assert content(s3, **where) == b"first"


def test_a_locked_version_is_not_deleted_and_a_marker_may_hide_it(s3: Any) -> None:
    where = {"Bucket": LOCKED, "Key": "kept"}
    version = s3.put_object(**where, Body=b"x")["VersionId"]
    assert s3.head_object(**where)["ObjectLockMode"] == "COMPLIANCE"
    told = "Access Denied because object protected by object lock."
    assert refusal(s3.delete_object, **where, VersionId=version) == (*DENIED, told)
    assert refused(s3.delete_object, **where, VersionId=version, BypassGovernanceRetention=True) == DENIED
    gone = s3.delete_objects(Bucket=LOCKED, Delete={"Objects": [{"Key": "kept", "VersionId": version}]})
    assert [(each["Key"], each["Code"]) for each in gone["Errors"]] == [("kept", "AccessDenied")]
    s3.delete_object(**where)
    assert content(s3, **where, VersionId=version) == b"x"


def test_a_legal_hold_and_governance_are_lifted_by_those_who_may(s3: Any) -> None:
    where = {"Bucket": LOCKED, "Key": "held"}
    governed = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": LATER}
    version = s3.put_object(**where, Body=b"x", **governed, ObjectLockLegalHoldStatus="ON")["VersionId"]
    named = {**where, "VersionId": version}
    assert refused(s3.delete_object, **named, BypassGovernanceRetention=True) == DENIED
    s3.put_object_legal_hold(**named, LegalHold={"Status": "OFF"})
    assert refused(s3.delete_object, **named) == DENIED
    s3.delete_object(**named, BypassGovernanceRetention=True)
    assert refused(s3.get_object, **named) == (404, "NoSuchVersion")


def test_a_locked_object_has_to_come_with_a_digest(server: RunningServer, s3: Any) -> None:
    silent, told = silent_client(server), "Content-MD5 OR x-amz-checksum- HTTP header is required for Put"
    call = {"Bucket": LOCKED, "Key": "bare", "Body": b"x"}
    expected = (400, "InvalidRequest", f"{told} Object requests with Object Lock parameters")
    assert refusal(silent.put_object, **call) == expected
    arguments = upload(silent, [], key="bare", bucket=LOCKED)
    part = {**call, "UploadId": arguments["UploadId"], "PartNumber": 1}
    expected = (400, "InvalidRequest", f"{told} Part requests with Object Lock parameters")
    assert refusal(silent.upload_part, **part) == expected
    silent.put_object(**call, ChecksumAlgorithm="SHA256")


def test_an_object_of_parts_and_a_copy_are_locked_too(s3: Any) -> None:
    governed = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": LATER}
    s3.complete_multipart_upload(**upload(s3, [b"x"], key="parts", bucket=LOCKED, **governed))
    head = s3.head_object(Bucket=LOCKED, Key="parts")
    assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"].date()) == ("GOVERNANCE", LATER.date())
    s3.complete_multipart_upload(**upload(s3, [b"x"], key="by-default", bucket=LOCKED))
    s3.copy_object(Bucket=LOCKED, Key="copy", CopySource={"Bucket": LOCKED, "Key": "parts"})
    for key in ("by-default", "copy"):
        assert s3.head_object(Bucket=LOCKED, Key=key)["ObjectLockMode"] == "COMPLIANCE"


def test_locks_that_a_bucket_or_a_request_does_not_have(s3: Any) -> None:
    until = {"ObjectLockRetainUntilDate": LATER}
    mode = {"ObjectLockMode": "COMPLIANCE"}
    past = {"ObjectLockRetainUntilDate": datetime.now(UTC) - timedelta(days=1)}
    call = {"Key": "never", "Body": b"x"}
    assert refused(s3.put_object, Bucket=BUCKET, **call, **mode, **until) == (400, "InvalidRequest")
    for odd in (mode, until, {**mode, **past}):
        assert refused(s3.put_object, Bucket=LOCKED, **call, **odd) == (400, "InvalidArgument")
        assert refused(s3.create_multipart_upload, Bucket=LOCKED, Key="never", **odd) == (400, "InvalidArgument")


def test_versions_of_a_bucket_with_locks_stay_enabled(s3: Any) -> None:
    call = {"Bucket": LOCKED, "VersioningConfiguration": {"Status": "Suspended"}}
    assert refused(s3.put_bucket_versioning, **call) == (409, "InvalidBucketState")
    s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Suspended"})
    s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})


def test_what_is_set_on_a_bucket_is_told_beside_its_lists(s3: Any) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]})
    told = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert told[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    s3.put_object(Bucket=BUCKET, Key="a b", Body=b"x")
    [listed] = s3.list_objects(Bucket=BUCKET, Prefix="a b")["Contents"]
    assert (listed["Key"], listed["ChecksumAlgorithm"]) == ("a b", ["CRC32"])
