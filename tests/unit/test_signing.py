from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from blockferry.aws.ebs.signing import UNSIGNED_PAYLOAD, Credentials, Signer, query_string
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

HOST = "ebs.eu-west-1.amazonaws.com"
WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
TOKEN = "AAUBAcuWqOCnDNuKle11s7IIX6jp6FYcC/q8oT93913HhvLvA+3JRrSybp/0"


def expected(method: str, path: str, query: str, headers: dict[str, str], body: bytes | None, token: str | None) -> str:
    """The Authorization header that botocore makes for the same request."""
    request = AWSRequest(method=method, url=f"https://{HOST}{path}?{query}", headers=headers, data=body)
    request.context["timestamp"] = WHEN.strftime("%Y%m%dT%H%M%SZ")
    request.context["payload_signing_enabled"] = UNSIGNED_PAYLOAD not in headers.values()
    auth = SigV4Auth(BotoCredentials("AKIDEXAMPLE", "secret", token), "ebs", "eu-west-1")
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    if token:
        request.headers["X-Amz-Security-Token"] = token
    canonical = auth.canonical_request(request)
    auth._inject_signature_to_request(request, auth.signature(auth.string_to_sign(request, canonical), request))
    return str(request.headers["Authorization"])


@pytest.mark.parametrize("token", [None, "session-token=="])
def test_a_block_read_is_signed_as_botocore_signs_it(token: str | None) -> None:
    path, query = "/snapshots/snap-0123456789abcdef0/blocks/7", query_string({"blockToken": TOKEN})
    signer = Signer(service="ebs", region="eu-west-1", host=HOST)
    headers = signer.headers(
        method="GET",
        path=path,
        query=query,
        headers={},
        payload_sha256=None,
        credentials=Credentials("AKIDEXAMPLE", "secret", token),
        timestamp=WHEN.strftime("%Y%m%dT%H%M%SZ"),
    )
    assert headers["authorization"] == expected("GET", path, query, {}, None, token)


def test_a_block_write_leaves_its_body_unsigned_and_signs_its_checksum() -> None:
    path = "/snapshots/snap-0123456789abcdef0/blocks/7"
    amz = {"x-amz-checksum": "abc=", "x-amz-checksum-algorithm": "SHA256", "x-amz-data-length": "524288"}
    signer = Signer(service="ebs", region="eu-west-1", host=HOST)
    headers = signer.headers(
        method="PUT",
        path=path,
        query="",
        headers=amz,
        payload_sha256=UNSIGNED_PAYLOAD,
        credentials=Credentials("AKIDEXAMPLE", "secret"),
        timestamp=WHEN.strftime("%Y%m%dT%H%M%SZ"),
    )
    sent = {**amz, "X-Amz-Content-SHA256": UNSIGNED_PAYLOAD}
    assert headers["authorization"] == expected("PUT", path, "", sent, b"x", None)
    assert headers["x-amz-content-sha256"] == UNSIGNED_PAYLOAD


def test_a_json_body_is_signed_by_its_hash() -> None:
    body = b'{"VolumeSize": 1}'
    signer = Signer(service="ebs", region="eu-west-1", host=HOST)
    headers = signer.headers(
        method="POST",
        path="/snapshots",
        query="",
        headers={},
        payload_sha256=hashlib.sha256(body).hexdigest(),
        credentials=Credentials("AKIDEXAMPLE", "secret"),
        timestamp=WHEN.strftime("%Y%m%dT%H%M%SZ"),
    )
    assert headers["authorization"] == expected("POST", "/snapshots", "", {}, body, None)


def test_the_signing_key_follows_the_day_and_the_secret() -> None:
    signer = Signer(service="ebs", region="eu-west-1", host=HOST)

    def sign(secret: str, timestamp: str) -> str:
        return signer.headers(
            method="GET",
            path="/",
            query="",
            headers={},
            payload_sha256=None,
            credentials=Credentials("AKIDEXAMPLE", secret),
            timestamp=timestamp,
        )["authorization"]

    first = sign("one", "20260304T000000Z")
    assert sign("two", "20260304T000000Z") != first
    assert sign("one", "20260305T000000Z") != first
    assert sign("one", "20260304T000000Z") == first
