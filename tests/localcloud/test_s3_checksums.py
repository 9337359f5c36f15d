"""Additional checksums: checked on arrival, kept, and answered wherever S3 answers them."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from localcloud.s3.crc import CRC32C, CRC64NVME
from server_probe import RunningServer, running_server

from .s3_clients import BUCKET, OF_SHA256, PART, content, noise, refusal, refused, sha256, silent_client, upload

DATA = b"what the checksums are of"


def in_base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


EXPECTED = {
    "CRC32": in_base64(zlib.crc32(DATA).to_bytes(4, "big")),
    "CRC32C": in_base64(CRC32C.of(DATA).to_bytes(4, "big")),
    "CRC64NVME": in_base64(CRC64NVME.of(DATA).to_bytes(8, "big")),
    "SHA1": in_base64(hashlib.sha1(DATA).digest()),
    "SHA256": sha256(DATA),
    "SHA512": in_base64(hashlib.sha512(DATA).digest()),
}
every_algorithm = pytest.mark.parametrize("algorithm", EXPECTED)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def s3(server: RunningServer) -> Any:
    return server.client("s3")


def put(s3: Any, key: str = "k", **more: Any) -> Any:
    return s3.put_object(Bucket=BUCKET, Key=key, **{"Body": DATA, **more})


@every_algorithm
def test_a_checksum_is_answered_at_every_place(s3: Any, algorithm: str) -> None:
    member, where = f"Checksum{algorithm}", {"Bucket": BUCKET, "Key": f"of-{algorithm}"}
    written = put(s3, where["Key"], **{member: EXPECTED[algorithm]})
    head = s3.head_object(**where, ChecksumMode="ENABLED")
    read = s3.get_object(**where, ChecksumMode="ENABLED")
    described = s3.get_object_attributes(**where, ObjectAttributes=["Checksum"])["Checksum"]
    for answer in (written, head, read, described):
        assert (answer[member], answer["ChecksumType"]) == (EXPECTED[algorithm], "FULL_OBJECT")
    [listed] = s3.list_objects_v2(Bucket=BUCKET, Prefix=where["Key"])["Contents"]
    assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == ([algorithm], "FULL_OBJECT")


@every_algorithm
def test_another_checksum_than_the_bodys_is_refused_and_nothing_is_written(s3: Any, algorithm: str) -> None:
    other = in_base64(bytes(len(base64.b64decode(EXPECTED[algorithm]))))
    expected = (
        400,
        "BadDigest",
        f"The {algorithm} you specified did not match the calculated checksum.",
    )
    assert refusal(put, s3=s3, key="wrong", **{f"Checksum{algorithm}": other}) == expected
    assert refused(s3.head_object, Bucket=BUCKET, Key="wrong") == (404, "404")


def test_what_is_no_checksum_and_two_of_them_are_invalid(s3: Any) -> None:
    told = "Value for x-amz-checksum-sha256 header is invalid."
    assert refusal(put, s3=s3, ChecksumSHA256="c2hvcnQ=") == (400, "InvalidRequest", told)
    told = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
    both = {f"Checksum{name}": EXPECTED[name] for name in ("SHA256", "CRC32")}
    assert refusal(put, s3=s3, **both) == (400, "InvalidRequest", told)


def test_a_checksum_that_cannot_be_computed_is_refused_and_never_passed_over(s3: Any) -> None:
    assert refused(put, s3=s3, ChecksumXXHASH64=in_base64(bytes(8))) == (501, "NotImplemented")


def test_an_object_without_a_checksum_gets_one(server: RunningServer, s3: Any) -> None:
    written = put(silent_client(server), "bare")
    assert written["ChecksumCRC64NVME"] == EXPECTED["CRC64NVME"]
    head = s3.head_object(Bucket=BUCKET, Key="bare", ChecksumMode="ENABLED")
    assert head["ChecksumCRC64NVME"] == EXPECTED["CRC64NVME"]


def test_checksums_are_answered_only_to_those_who_ask_and_not_with_ranges(server: RunningServer, s3: Any) -> None:
    put(s3, "asked", ChecksumAlgorithm="SHA256")
    where, silent = {"Bucket": BUCKET, "Key": "asked"}, silent_client(server)
    assert "ChecksumSHA256" not in silent.head_object(**where)
    assert "ChecksumSHA256" not in silent.get_object(**where, Range="bytes=0-3", ChecksumMode="ENABLED")


@pytest.mark.parametrize("size", [10, PART])
def test_a_content_md5_is_checked(s3: Any, size: int) -> None:
    body = noise(size)
    put(s3, "md5", Body=body, ContentMD5=in_base64(hashlib.md5(body).digest()))
    assert content(s3, Bucket=BUCKET, Key="md5") == body
    wrong = in_base64(hashlib.md5(b"other").digest())
    assert refused(put, s3=s3, Body=body, ContentMD5=wrong) == (400, "BadDigest")


def test_versions_keep_their_checksums_and_of_what_they_are(s3: Any) -> None:
    s3.create_bucket(Bucket="sum-versions")
    s3.put_bucket_versioning(Bucket="sum-versions", VersioningConfiguration={"Status": "Enabled"})
    parts = upload(s3, [noise(PART), b"end"], key="k", bucket="sum-versions", **OF_SHA256)
    composite = s3.complete_multipart_upload(**parts)
    s3.put_object(Bucket="sum-versions", Key="k", Body=b"newer")
    where = {"Bucket": "sum-versions", "Key": "k", "VersionId": composite["VersionId"]}
    for answer in (
        s3.head_object(**where, ChecksumMode="ENABLED"),
        s3.get_object_attributes(**where, ObjectAttributes=["Checksum"])["Checksum"],
    ):
        assert (answer["ChecksumSHA256"], answer["ChecksumType"]) == (composite["ChecksumSHA256"], "COMPOSITE")


def test_a_copy_has_a_checksum_and_an_etag_of_all_its_bytes(s3: Any) -> None:
    body = noise(PART) + b"end"
    s3.complete_multipart_upload(**upload(s3, [body[:PART], b"end"], key="of-parts", **OF_SHA256))
    copied = s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "of-parts"})
    result = copied["CopyObjectResult"]
    assert (result["ChecksumSHA256"], result["ChecksumType"]) == (sha256(body), "FULL_OBJECT")
    assert result["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert s3.head_object(Bucket=BUCKET, Key="copy")["ETag"] == result["ETag"]
    other = s3.copy_object(
        Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "of-parts"}, ChecksumAlgorithm="SHA1"
    )
    assert other["CopyObjectResult"]["ChecksumSHA1"] == in_base64(hashlib.sha1(body).digest())
