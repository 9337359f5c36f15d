"""What the tests of the local cloud's S3 ask of it, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from server_probe import RunningServer

MIB = 1024 * 1024
PART = 5 * MIB
BUCKET = "plain-bucket"


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def silent_client(server: RunningServer) -> Any:
    """A client that computes no checksum unless it is told to, and checks none."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="111122223333",
        aws_secret_access_key=server.keys.secret,
        config=Config(
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def refusal(call: Callable[..., Any], **arguments: Any) -> tuple[int, str, str]:
    """Status, code and message."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def refused(call: Callable[..., Any], **arguments: Any) -> tuple[int, str]:
    status, code, _ = refusal(call, **arguments)
    return status, code


def content(s3: Any, **where: Any) -> bytes:
    return bytes(s3.get_object(**where)["Body"].read())


def upload(
    s3: Any, parts: list[bytes], *, key: str, bucket: str = BUCKET, named: str = "", part: Any = None, **create: Any
) -> dict[str, Any]:
    """The parts, uploaded. ``named``: the member of a part's checksum that completing names; ``part``: arguments of
    UploadPart. What comes back are the arguments that complete the upload."""
    where = {"Bucket": bucket, "Key": key}
    where["UploadId"] = s3.create_multipart_upload(**where, **create)["UploadId"]
    listed = []
    for number, data in enumerate(parts, 1):
        answer = s3.upload_part(**where, PartNumber=number, Body=data, **(part or {}))
        listed.append({"PartNumber": number, "ETag": answer["ETag"], **({named: answer[named]} if named else {})})
    return {**where, "MultipartUpload": {"Parts": listed}}


OF_SHA256 = {"named": "ChecksumSHA256", "part": {"ChecksumAlgorithm": "SHA256"}, "ChecksumAlgorithm": "SHA256"}
"""Arguments of ``upload``, with SHA-256 throughout."""
