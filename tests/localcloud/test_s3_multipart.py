"""Multipart uploads: what completing one takes, and what the object is then."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from localcloud.s3.crc import CRC64NVME
from server_probe import RunningServer, running_server

from .s3_clients import BUCKET, OF_SHA256, PART, content, noise, refusal, refused, sha256, silent_client, upload

BODY = noise(PART + 7)
PARTS = [BODY[:PART], BODY[PART:]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def s3(server: RunningServer) -> Any:
    return server.client("s3")


def composite() -> str:
    digests = b"".join(hashlib.sha256(part).digest() for part in PARTS)
    return f"{sha256(digests)}-2"


def test_an_object_of_parts_is_their_bytes_with_a_checksum_of_checksums(s3: Any) -> None:
    done = s3.complete_multipart_upload(**upload(s3, PARTS, key="sha", **OF_SHA256), ChecksumSHA256=composite())
    assert (done["ChecksumSHA256"], done["ChecksumType"]) == (composite(), "COMPOSITE")
    of_md5 = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in PARTS)).hexdigest()
    assert done["ETag"] == f'"{of_md5}-2"'
    assert content(s3, Bucket=BUCKET, Key="sha") == BODY
    [listed] = s3.list_objects_v2(Bucket=BUCKET, Prefix="sha")["Contents"]
    assert (listed["ETag"], listed["Size"], listed["ChecksumType"]) == (done["ETag"], len(BODY), "COMPOSITE")
    parts = s3.get_object_attributes(Bucket=BUCKET, Key="sha", ObjectAttributes=["ObjectParts"])["ObjectParts"]
    assert parts["TotalPartsCount"] == 2
    assert [(part["PartNumber"], part["Size"], part["ChecksumSHA256"]) for part in parts["Parts"]] == [
        (1, PART, sha256(PARTS[0])),
        (2, 7, sha256(PARTS[1])),
    ]


@pytest.mark.parametrize(
    ("arguments", "member", "value"),
    [
        (
            {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"},
            "ChecksumCRC32",
            zlib.crc32(BODY).to_bytes(4, "big"),
        ),
        ({"ChecksumAlgorithm": "CRC64NVME"}, "ChecksumCRC64NVME", CRC64NVME.of(BODY).to_bytes(8, "big")),
        ({}, "ChecksumCRC64NVME", CRC64NVME.of(BODY).to_bytes(8, "big")),
    ],
)
def test_a_checksum_of_the_full_object_is_that_of_its_bytes(
    server: RunningServer, arguments: dict[str, str], member: str, value: bytes
) -> None:
    s3 = silent_client(server)
    done = s3.complete_multipart_upload(**upload(s3, PARTS, key="full", **arguments))
    assert (done[member], done["ChecksumType"]) == (base64.b64encode(value).decode(), "FULL_OBJECT")
    assert s3.head_object(Bucket=BUCKET, Key="full", ChecksumMode="ENABLED")[member] == done[member]


def test_a_part_below_5_mib_is_refused_at_completion_unless_it_is_the_last(s3: Any) -> None:
    small = upload(s3, [noise(PART), noise(PART - 1), b"end"], key="small")
    told = "Your proposed upload is smaller than the minimum allowed size"
    assert refusal(s3.complete_multipart_upload, **small) == (400, "EntityTooSmall", told)
    assert refused(s3.head_object, Bucket=BUCKET, Key="small") == (404, "404")
    again = {"Bucket": BUCKET, "Key": "small", "UploadId": small["UploadId"]}
    listed = small["MultipartUpload"]["Parts"]
    listed[1] |= {"ETag": s3.upload_part(**again, PartNumber=2, Body=noise(PART))["ETag"]}
    s3.complete_multipart_upload(**small)
    assert content(s3, Bucket=BUCKET, Key="small") == noise(PART) + noise(PART) + b"end"


def test_parts_out_of_order_unknown_or_of_another_etag_are_refused(s3: Any) -> None:
    arguments = upload(s3, PARTS, key="odd")
    first, second = arguments["MultipartUpload"]["Parts"]

    def complete(*parts: Any) -> tuple[int, str]:
        return refused(s3.complete_multipart_upload, **{**arguments, "MultipartUpload": {"Parts": list(parts)}})

    assert complete(second, first) == (400, "InvalidPartOrder")
    assert complete(first, first) == (400, "InvalidPartOrder")
    assert complete(first, second | {"PartNumber": 3}) == (400, "InvalidPart")
    assert complete(first, second | {"ETag": first["ETag"]}) == (400, "InvalidPart")
    assert complete() == (400, "MalformedXML")


def test_with_a_composite_checksum_each_part_brings_and_names_its_own(server: RunningServer, s3: Any) -> None:
    arguments = upload(s3, PARTS, key="named", **OF_SHA256)
    listed = arguments["MultipartUpload"]["Parts"]
    told = (
        "The upload was created using a sha256 checksum. The complete request must include the checksum for each "
        "part. It was missing for part 1 in the request."
    )
    bare = [{name: part[name] for name in ("PartNumber", "ETag")} for part in listed]
    call = {**arguments, "MultipartUpload": {"Parts": bare}}
    assert refusal(s3.complete_multipart_upload, **call) == (400, "InvalidRequest", told)
    swapped = [listed[0], listed[1] | {"ChecksumSHA256": listed[0]["ChecksumSHA256"]}]
    call = {**arguments, "MultipartUpload": {"Parts": swapped}}
    assert refused(s3.complete_multipart_upload, **call) == (400, "InvalidPart")
    part = {"Bucket": BUCKET, "Key": "named", "UploadId": arguments["UploadId"], "PartNumber": 3, "Body": b"x"}
    told = "Checksum Type mismatch occurred, expected checksum Type: sha256, actual checksum Type: "
    assert refusal(s3.upload_part, **part) == (400, "InvalidRequest", f"{told}crc32")  # boto3's own choice
    assert refusal(silent_client(server).upload_part, **part) == (400, "InvalidRequest", f"{told}null")


def test_a_part_that_arrives_spoiled_is_refused(s3: Any) -> None:
    arguments = upload(s3, [], key="spoiled", **OF_SHA256)
    where = {"Bucket": BUCKET, "Key": "spoiled", "UploadId": arguments["UploadId"], "PartNumber": 1}
    assert refused(s3.upload_part, **where, Body=b"a", ChecksumSHA256=sha256(b"b")) == (400, "BadDigest")
    assert "Parts" not in s3.list_parts(Bucket=BUCKET, Key="spoiled", UploadId=arguments["UploadId"])


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"ChecksumSHA256": f"{sha256(b'')}-2"}, "BadDigest"),
        ({"ChecksumType": "FULL_OBJECT"}, "InvalidRequest"),
        ({"MpuObjectSize": 1}, "InvalidRequest"),
        ({"ChecksumCRC32": "AAAAAA=="}, "InvalidRequest"),
    ],
)
def test_what_is_said_of_the_whole_has_to_be_so(s3: Any, more: dict[str, Any], code: str) -> None:
    arguments = upload(s3, PARTS, key="whole", **OF_SHA256)
    assert refused(s3.complete_multipart_upload, **arguments, **more) == (400, code)
    s3.complete_multipart_upload(**arguments, MpuObjectSize=len(BODY), ChecksumType="COMPOSITE")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"ChecksumAlgorithm": "SHA256", "ChecksumType": "FULL_OBJECT"},
            "The FULL_OBJECT checksum type cannot be used with the sha256 checksum algorithm.",
        ),
        (
            {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "COMPOSITE"},
            "The COMPOSITE checksum type cannot be used with the crc64nvme checksum algorithm.",
        ),
        (
            {"ChecksumType": "COMPOSITE"},
            "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
        ),
    ],
)
def test_types_that_an_algorithm_does_not_have(s3: Any, arguments: dict[str, str], told: str) -> None:
    call = {"Bucket": BUCKET, "Key": "typed", **arguments}
    assert refusal(s3.create_multipart_upload, **call) == (400, "InvalidRequest", told)


def test_a_composite_checksum_of_parts_with_a_gap_fails(s3: Any) -> None:
    arguments = upload(s3, [noise(PART), noise(PART), b"end"], key="gap", **OF_SHA256)
    del arguments["MultipartUpload"]["Parts"][1]
    assert refused(s3.complete_multipart_upload, **arguments) == (500, "InternalError")


def test_parts_copied_from_objects_have_checksums_too(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="source", Body=BODY)
    where = {"Bucket": BUCKET, "Key": "by-copy"}
    where["UploadId"] = s3.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")["UploadId"]
    listed = []
    for number, wanted in enumerate((f"bytes=0-{PART - 1}", f"bytes={PART}-{len(BODY) - 1}"), 1):
        source = {"Bucket": BUCKET, "Key": "source"}
        result = s3.upload_part_copy(**where, PartNumber=number, CopySource=source, CopySourceRange=wanted)
        copied = result["CopyPartResult"]
        listed.append({"PartNumber": number, "ETag": copied["ETag"], "ChecksumSHA256": copied["ChecksumSHA256"]})
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": listed})
    assert done["ChecksumSHA256"] == composite()
    assert content(s3, Bucket=BUCKET, Key="by-copy") == BODY


def test_tags_and_class_of_an_upload_are_the_objects(s3: Any) -> None:
    arguments = upload(s3, [b"x"], key="tagged", Tagging="kind=segment", StorageClass="STANDARD_IA")
    s3.complete_multipart_upload(**arguments)
    assert s3.get_object_tagging(Bucket=BUCKET, Key="tagged")["TagSet"] == [{"Key": "kind", "Value": "segment"}]
    assert s3.head_object(Bucket=BUCKET, Key="tagged")["StorageClass"] == "STANDARD_IA"


def test_completing_once_more_is_answered_the_same(s3: Any) -> None:
    arguments = upload(s3, PARTS, key="twice")
    assert s3.complete_multipart_upload(**arguments)["ETag"] == s3.complete_multipart_upload(**arguments)["ETag"]


@pytest.mark.parametrize("arguments", [{}, {"ChecksumAlgorithm": "SHA256"}, {"ServerSideEncryption": "aws:kms"}])
def test_transfers_of_boto3_arrive_and_are_fetched_and_copied(
    s3: Any, tmp_path: Path, arguments: dict[str, str]
) -> None:
    settings = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)
    body, there, back = noise(3 * PART + 11), tmp_path / "there", tmp_path / "back"
    there.write_bytes(body)
    s3.upload_file(str(there), BUCKET, "transfer", ExtraArgs=arguments, Config=settings)
    s3.copy({"Bucket": BUCKET, "Key": "transfer"}, BUCKET, "transferred", ExtraArgs=arguments, Config=settings)
    s3.download_file(BUCKET, "transferred", str(back), Config=settings)
    assert back.read_bytes() == body
    assert s3.head_object(Bucket=BUCKET, Key="transferred")["ETag"].endswith('-4"')
