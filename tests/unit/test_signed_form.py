"""What every EBS request signs, byte for byte beside what a botocore client signs.

Not compared, because neither signs them and no service decides by them: ``User-Agent`` and ``Accept-Encoding`` (ours
are urllib3's), ``amz-sdk-invocation-id`` and ``amz-sdk-request`` (botocore's own bookkeeping).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest
from blockferry.aws.ebs import transport
from blockferry.aws.ebs.client import EbsDirect, NewSnapshot
from blockferry.aws.ebs.signing import Credentials
from blockferry.aws.ebs.transport import SignedHttp
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.checksums import digest_of, encode
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.model import ServiceModel

REGION = "eu-west-1"
SNAPSHOT, PARENT = "snap-0123456789abcdef0", "snap-0fedcba9876543210"
BLOCK_TOKEN = "AAUBAcuWqOCnDNuKle11s7IIX6jp6FYcC/q8oT93913HhvLvA+3JRrSybp/0=="
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
DATA = bytes(range(256)) * (BLOCK_SIZE // 256)
CHECKSUM = encode(digest_of(DATA))
UNSIGNED_BY_BOTH = {"user-agent", "accept-encoding", "amz-sdk-invocation-id", "amz-sdk-request"}


@dataclass(frozen=True)
class Sent:
    """One request on its way to the network."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    def signed_form(self) -> dict[str, Any]:
        """Everything that the signature covers or that says what it covers."""
        path, _, query = self.url.split("//", 1)[1].partition("/")[2].partition("?")
        signed = self.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
        return {
            "method": self.method,
            "path": path,
            "query": "&".join(sorted(query.split("&"))),  # signed in this order, whatever the order sent
            "signed headers": {name: self.headers.get(name, "") for name in signed if name != "host"},
            "payload": self.headers.get("x-amz-content-sha256"),
            "body": self.body,
            "authorization": self.headers["authorization"],
            "headers": {
                name: value
                for name, value in self.headers.items()
                if name not in UNSIGNED_BY_BOTH | {"host", "content-length"}
            },
        }


class _Pool:
    """Takes the requests of ``SignedHttp`` instead of the network; the answers fit no operation but end them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.sent: list[Sent] = []

    def urlopen(self, method: str, url: str, *, body: bytes | None, headers: Mapping[str, str], **_: Any) -> Any:
        self.sent.append(Sent(method, self._url + url, {k.lower(): v for k, v in headers.items()}, body or b""))
        raise _Enough


class _Enough(Exception):
    pass


class _Raw:
    def stream(self) -> Iterator[bytes]:
        yield b"{}"


def ours(call: Callable[[EbsDirect], Any], *, url: str, token: str | None, at: str) -> Sent:
    pool = _Pool(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "_pool", lambda *_, **__: pool)
        http = SignedHttp(
            endpoint_url=url,
            region=REGION,
            credentials=lambda: Credentials("AKIDEXAMPLE", "secret", token),
            now=lambda: datetime.strptime(at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        )
    with pytest.raises(_Enough):
        call(EbsDirect(http, region=REGION))
    return pool.sent[0]


def botocores(operation: str, arguments: Mapping[str, Any], *, url: str, token: str | None) -> Sent:
    session = botocore.session.Session()
    session.set_credentials("AKIDEXAMPLE", "secret", token)
    client = session.create_client("ebs", region_name=REGION, endpoint_url=url)
    seen: list[Sent] = []

    def take(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        headers = {name.lower(): v if isinstance(v, str) else v.decode() for name, v in request.headers.items()}
        body = request.body or b""
        seen.append(
            Sent(request.method or "", request.url, headers, body if isinstance(body, bytes) else body.encode())
        )
        raise _Enough

    client.meta.events.register("before-send.ebs", take)
    with pytest.raises(_Enough):
        getattr(client, operation)(**arguments)
    return seen[0]


def new(**more: Any) -> NewSnapshot:
    return NewSnapshot(**{"volume_size_gib": 8, "client_token": "job-1", "description": "d", "tags": {}, **more})


CASES: dict[str, tuple[Callable[[EbsDirect], Any], str, dict[str, Any]]] = {
    "a first page": (
        lambda ebs: ebs.list_blocks(SNAPSHOT, start=7),
        "list_snapshot_blocks",
        {"SnapshotId": SNAPSHOT, "StartingBlockIndex": 7, "MaxResults": 10_000},
    ),
    "a next page": (
        lambda ebs: ebs.list_blocks(SNAPSHOT, page_token=BLOCK_TOKEN),
        "list_snapshot_blocks",
        {"SnapshotId": SNAPSHOT, "NextToken": BLOCK_TOKEN, "MaxResults": 10_000},
    ),
    "a first page of changes": (
        lambda ebs: ebs.list_changed_blocks(PARENT, SNAPSHOT, start=3, window=500),
        "list_changed_blocks",
        {"FirstSnapshotId": PARENT, "SecondSnapshotId": SNAPSHOT, "StartingBlockIndex": 3, "MaxResults": 500},
    ),
    "a next page of changes": (
        lambda ebs: ebs.list_changed_blocks(PARENT, SNAPSHOT, page_token=BLOCK_TOKEN),
        "list_changed_blocks",
        {"FirstSnapshotId": PARENT, "SecondSnapshotId": SNAPSHOT, "NextToken": BLOCK_TOKEN, "MaxResults": 10_000},
    ),
    "a block read": (
        lambda ebs: ebs.get_block(SNAPSHOT, 12, BLOCK_TOKEN),
        "get_snapshot_block",
        {"SnapshotId": SNAPSHOT, "BlockIndex": 12, "BlockToken": BLOCK_TOKEN},
    ),
    "a block written": (
        lambda ebs: ebs.put_block(SNAPSHOT, 12, DATA, digest_of(DATA)),
        "put_snapshot_block",
        {
            **{"SnapshotId": SNAPSHOT, "BlockIndex": 12, "BlockData": DATA, "DataLength": BLOCK_SIZE},
            **{"Checksum": CHECKSUM, "ChecksumAlgorithm": "SHA256"},
        },
    ),
    "a snapshot completed": (
        lambda ebs: ebs.complete_snapshot(SNAPSHOT, changed_blocks=3, linear_checksum=CHECKSUM),
        "complete_snapshot",
        {
            **{"SnapshotId": SNAPSHOT, "ChangedBlocksCount": 3, "Checksum": CHECKSUM},
            **{"ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"},
        },
    ),
    "a snapshot completed without a checksum": (
        lambda ebs: ebs.complete_snapshot(SNAPSHOT, changed_blocks=0, linear_checksum=None),
        "complete_snapshot",
        {"SnapshotId": SNAPSHOT, "ChangedBlocksCount": 0},
    ),
}
STARTS = {
    "plain": new(),
    "tagged": new(tags={"Name": "größe 1", "job": "x y"}),
    "with a parent": new(parent_snapshot_id=PARENT),
    "encrypted": new(encrypted=True),
    "encrypted with a key": new(encrypted=True, kms_key_arn=KEY),
}


@pytest.mark.parametrize("url", ["https://ebs.eu-west-1.amazonaws.com", "http://127.0.0.1:4567"])
@pytest.mark.parametrize("token", [None, "IQoJb3JpZ2luX2VjEXAMPLE+/=="])
@pytest.mark.parametrize("case", CASES)
def test_a_request_has_the_signed_form_of_a_botocore_client(case: str, token: str | None, url: str) -> None:
    call, operation, arguments = CASES[case]
    theirs = botocores(operation, arguments, url=url, token=token)
    mine = ours(call, url=url, token=token, at=theirs.headers["x-amz-date"])
    assert mine.signed_form() == theirs.signed_form()


@pytest.mark.parametrize("token", [None, "IQoJb3JpZ2luX2VjEXAMPLE+/=="])
@pytest.mark.parametrize("case", STARTS)
def test_a_start_has_the_signed_form_of_a_botocore_client(case: str, token: str | None) -> None:
    url = "https://ebs.eu-west-1.amazonaws.com"
    asked = json.loads(
        ours(lambda ebs: ebs.start_snapshot(STARTS[case]), url=url, token=token, at="20260304T050607Z").body
    )
    theirs = botocores("start_snapshot", asked, url=url, token=token)
    mine = ours(lambda ebs: ebs.start_snapshot(STARTS[case]), url=url, token=token, at=theirs.headers["x-amz-date"])
    assert mine.signed_form() == theirs.signed_form()


def test_every_operation_of_the_service_is_compared() -> None:
    model: ServiceModel = botocore.session.Session().get_service_model("ebs")
    compared = {operation.replace("_", "") for _, operation, _ in CASES.values()} | {"startsnapshot"}
    assert {name.lower() for name in model.operation_names} == compared


def test_only_the_operation_that_the_model_names_leaves_its_body_unsigned() -> None:
    model: ServiceModel = botocore.session.Session().get_service_model("ebs")
    modelled = {
        name.lower() for name in model.operation_names if model.operation_model(name).auth_type == "v4-unsigned-body"
    }
    url = "https://ebs.eu-west-1.amazonaws.com"
    sent = {
        operation.replace("_", ""): ours(call, url=url, token=None, at="20260304T050607Z").headers
        for call, operation, _ in CASES.values()
    }
    assert {name for name, headers in sent.items() if "x-amz-content-sha256" in headers} == modelled
