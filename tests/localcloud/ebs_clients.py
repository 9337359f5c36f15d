"""boto3 clients and block helpers for the tests of the EBS part."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from localcloud.ebs.blockstore import BLOCK_SIZE
from localcloud.ebs.testing import HOME_ACCOUNT, REGION, RunningServer

ZEROS = bytes(BLOCK_SIZE)


@cache
def _session() -> boto3.Session:
    """One for all tests: it reads EC2's large model only once."""
    return boto3.Session()


def client(
    server: RunningServer,
    name: str,
    *,
    account: str = HOME_ACCOUNT,
    region: str = REGION,
    config: Config | None = None,
) -> Any:
    """A client that never retries, so each refusal is seen as it is."""
    settings = Config(retries={"total_max_attempts": 1}, max_pool_connections=16).merge(config or Config())
    return _session().client(name, config=settings, **server.client_settings(account=account, region=region))


def block(text: str) -> bytes:
    """A block of data that only ``text`` decides."""
    seed = hashlib.sha256(text.encode()).digest()
    return seed * (BLOCK_SIZE // len(seed))


def checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def linear(blocks: dict[int, bytes]) -> str:
    """The LINEAR aggregate over raw digests (coldsnap's reading of the EBS user guide)."""
    digests = b"".join(hashlib.sha256(data).digest() for _index, data in sorted(blocks.items()))
    return base64.b64encode(hashlib.sha256(digests).digest()).decode()


def put(ebs: Any, snapshot_id: str, index: int, data: bytes, **more: Any) -> Any:
    arguments = {
        "DataLength": len(data),
        "Checksum": checksum(data),
        "ChecksumAlgorithm": "SHA256",
        **more,
    }
    return ebs.put_snapshot_block(SnapshotId=snapshot_id, BlockIndex=index, BlockData=data, **arguments)


def start(ebs: Any, *, size: int = 1, **more: Any) -> str:
    return str(ebs.start_snapshot(VolumeSize=size, **more)["SnapshotId"])


def complete(server: RunningServer, ebs: Any, snapshot_id: str, blocks: dict[int, bytes]) -> None:
    """Complete with right counts and let the sealing delay pass on the server's clock."""
    checksum = {
        "Checksum": linear(blocks),
        "ChecksumAlgorithm": "SHA256",
        "ChecksumAggregationMethod": "LINEAR",
    }
    answer = ebs.complete_snapshot(
        SnapshotId=snapshot_id, ChangedBlocksCount=len(blocks), **(checksum if blocks else {})
    )
    assert answer["Status"] == "pending"
    server.service.clock.advance(server.service.config.seal_seconds)
    server.service.tick()


def snapshot_of(server: RunningServer, ebs: Any, blocks: dict[int, bytes], *, size: int = 1, **more: Any) -> str:
    """A completed snapshot with these blocks."""
    snapshot_id = start(ebs, size=size, **more)
    for index, data in blocks.items():
        put(ebs, snapshot_id, index, data)
    complete(server, ebs, snapshot_id, blocks)
    return snapshot_id


def pages(ebs: Any, operation: str, **arguments: Any) -> list[dict[str, Any]]:
    """Every page of a list operation."""
    found: list[dict[str, Any]] = []
    while True:
        answer = getattr(ebs, operation)(**arguments)
        found.append(answer)
        if "NextToken" not in answer:
            return found
        arguments["NextToken"] = answer["NextToken"]


def contents(ebs: Any, snapshot_id: str) -> dict[int, bytes]:
    """Every allocated block of a snapshot, read through the API with its checksum checked."""
    read: dict[int, bytes] = {}
    for page in pages(ebs, "list_snapshot_blocks", SnapshotId=snapshot_id):
        for entry in page["Blocks"]:
            answer = ebs.get_snapshot_block(
                SnapshotId=snapshot_id, BlockIndex=entry["BlockIndex"], BlockToken=entry["BlockToken"]
            )
            data = answer["BlockData"].read()
            assert answer["Checksum"] == checksum(data)
            assert answer["DataLength"] == len(data) == BLOCK_SIZE
            read[entry["BlockIndex"]] = data
    return read


def state(server: RunningServer, snapshot_id: str) -> str:
    return server.service.registry.snapshots[snapshot_id].state


@contextmanager
def refused(status: int, code: str, reason: str | None = None) -> Iterator[None]:
    """The call inside is refused with exactly this status, code and Reason."""
    with pytest.raises(ClientError) as caught:
        yield
    answer = caught.value.response
    seen = (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer.get("Reason"))
    assert seen == (status, code, reason), answer["Error"]["Message"]


def signed(
    server: RunningServer,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    service: str = "ebs",
    account: str = HOME_ACCOUNT,
    at: datetime | None = None,
    secret: str | None = None,
) -> dict[str, str]:
    """The headers of a raw request with botocore's signature; ``at`` is when it claims to be signed."""
    request = AWSRequest(method=method, url=f"{server.url}{target}", headers=dict(headers or {}), data=body)
    # A body that is announced as unsigned stays so over plain HTTP.
    request.context["payload_signing_enabled"] = "UNSIGNED-PAYLOAD" not in request.headers.values()
    auth = SigV4Auth(Credentials(account, secret or server.keys.secret), service, REGION)
    if at is None:
        auth.add_auth(request)
    else:
        with mock.patch("botocore.auth.get_current_datetime", return_value=at):
            auth.add_auth(request)
    return {"Host": urlsplit(server.url).netloc, **{name: str(value) for name, value in request.headers.items()}}
