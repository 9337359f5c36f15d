"""Signature Version 4 by AWS's own worked examples, and bodies in signed chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from localcloud.chunk_signatures import check_chunks
from localcloud.signatures import (
    EMPTY_SHA256,
    Claim,
    Incoming,
    Secret,
    SignatureRefused,
    SigningKeys,
    Verifier,
    canonical_request,
    claim_of,
    epoch_of,
    literal_payload,
    signed_headers,
)

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
AT = "20130524T000000Z"
HOST = "examplebucket.s3.amazonaws.com"


def verifier(at: str = AT, *, secret: str = SECRET) -> Verifier:
    keys = {KEY: Secret(secret_access_key=secret)}
    return Verifier(keys.get, now=lambda: epoch_of(at))


def authorization(signed: str, signature: str) -> str:
    return (
        f"AWS4-HMAC-SHA256 Credential={KEY}/20130524/us-east-1/s3/aws4_request,SignedHeaders={signed},"
        f"Signature={signature}"
    )


def verified(request: Incoming, *, at: str = AT) -> Claim:
    claim = claim_of(request)
    assert claim is not None
    payload = literal_payload(claim, request, service="s3", unsigned_body=False) or EMPTY_SHA256
    verifier(at).check(claim, request, service="s3", payload=payload)
    return claim


# S3 API reference, "Signature calculations for the authorization header: transferring payload in a single chunk".
GET_OBJECT = Incoming(
    method="GET",
    path="/test.txt",
    query="",
    headers={
        "host": HOST,
        "range": "bytes=0-9",
        "x-amz-content-sha256": EMPTY_SHA256,
        "x-amz-date": AT,
        "authorization": authorization(
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
    },
)
LIST_OBJECTS = Incoming(
    method="GET",
    path="/",
    query="max-keys=2&prefix=J",
    headers={
        "host": HOST,
        "x-amz-content-sha256": EMPTY_SHA256,
        "x-amz-date": AT,
        "authorization": authorization(
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    },
)
# S3 API reference, "Authenticating requests: using query parameters".
PRESIGNED = Incoming(
    method="GET",
    path="/test.txt",
    query=f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY}%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    f"&X-Amz-Date={AT}&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    headers={"host": HOST},
)


@pytest.mark.parametrize("request_", [GET_OBJECT, LIST_OBJECTS, PRESIGNED], ids=["get", "list", "presigned"])
def test_the_worked_examples_of_s3_are_accepted(request_: Incoming) -> None:
    verified(request_)


def test_a_presigned_url_lasts_as_long_as_it_says() -> None:
    verified(PRESIGNED, at="20130524T235959Z")
    with pytest.raises(SignatureRefused, match="Request has expired"):
        verified(PRESIGNED, at="20130525T000001Z")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace(
            "Credential=", "X=Credential=123456789012/20130524/us-east-1/s3/aws4_request,Credential="
        ),
        lambda text: text + ",Credential=123456789012/20130524/us-east-1/s3/aws4_request",
        lambda text: text + ",X=1",
    ],
    ids=["another caller hidden in it", "two callers", "unknown parameter"],
)
def test_a_header_that_can_be_read_in_two_ways_is_refused(spoil: Callable[[str], str]) -> None:
    headers = {**GET_OBJECT.headers, "authorization": spoil(GET_OBJECT.headers["authorization"])}
    with pytest.raises(SignatureRefused) as refused:
        verified(replace(GET_OBJECT, headers=headers))
    assert refused.value.kind == "incomplete"


@pytest.mark.parametrize("name", ["X-Amz-Credential", "x-amz-credential", "X-Amz-Date"])
def test_a_presigned_url_that_names_two_callers_is_refused(name: str) -> None:
    more = f"{name}=123456789012%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    for query in (f"{PRESIGNED.query}&{more}", f"{more}&{PRESIGNED.query}"):
        with pytest.raises(SignatureRefused) as refused:
            verified(replace(PRESIGNED, query=query))
        assert refused.value.kind == "incomplete"


def test_the_own_requests_of_the_parts_pass() -> None:
    request = Incoming(method="POST", path="/a b/", query="x=1", headers={"host": "h:1", "content-type": "text/plain"})
    headers = signed_headers(
        request, body=b"body", access_key=KEY, secret=SECRET, region="r", service="kms", now=epoch_of(AT)
    )
    whole = Incoming(method="POST", path="/a b/", query="x=1", headers=headers)
    claim = claim_of(whole)
    assert claim is not None
    payload = hashlib.sha256(b"body").hexdigest()
    verifier().check(claim, whole, service="kms", payload=payload)
    with pytest.raises(SignatureRefused) as refused:
        verifier(secret="other").check(claim, whole, service="kms", payload=payload)
    assert refused.value.kind == "mismatch"


@pytest.mark.parametrize(
    ("service", "path", "canonical"),
    [("s3", "/a//b/../c%20d", "/a//b/../c%20d"), ("ebs", "/a//b/../c%20d/", "/a/c%2520d/"), ("ebs", "/a/..", "/")],
)
def test_s3_takes_the_path_as_it_is_and_others_normalise_it(service: str, path: str, canonical: str) -> None:
    request = Incoming(method="GET", path=path, query="b=2&a=%7E&a=", headers={"host": "h"})
    lines = canonical_request(request, signed=("host",), payload="p", service=service).split("\n")
    assert lines[1:3] == [canonical, "a=&a=~&b=2"]


def test_signing_keys_are_derived_once_a_scope() -> None:
    keys = SigningKeys()
    asked = {"date": "20130524", "region": "us-east-1", "service": "s3"}
    assert keys.of(SECRET, **asked) is keys.of(SECRET, **asked)
    assert len({keys.of(SECRET, **{**asked, name: "x"}) for name in asked} | {keys.of("x", **asked)}) == 4


# S3 API reference, "transferring payload in multiple chunks": 65 KiB of "a" in chunks of 64 KiB, 1 KiB and none.
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
CHUNKS = (
    b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n"
    + b"a" * 65_536
    + b"\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"
    + b"a" * 1024
    + b"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
)


def chunk_claim() -> tuple[Claim, bytes]:
    claim = Claim(
        **{"access_key": KEY, "date": "20130524", "region": "us-east-1", "service": "s3", "signed": ()},
        **{"signature": SEED, "timestamp": AT, "session_token": "", "lifetime": None},
    )
    return claim, SigningKeys().of(SECRET, date="20130524", region="us-east-1", service="s3")


def test_the_worked_example_of_signed_chunks_is_accepted() -> None:
    claim, key = chunk_claim()
    check_chunks(CHUNKS, claim, key, trailer=False)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body.replace(b"a" * 1024 + b"\r\n0;", b"a" * 1023 + b"b\r\n0;"),
        lambda body: body.replace(b"signature=0055", b"signature=0056"),
        lambda body: body[: body.index(b"400;")] + body[body.index(b"0;chunk-signature=b6") :],
        lambda body: body.replace(b"400;chunk", b"4x0;chunk"),
        lambda body: body[: body.index(b"400;")],
    ],
    ids=["data", "signature", "left out", "length", "cut off"],
)
def test_signed_chunks_that_were_changed_are_refused(spoil: Callable[[bytes], bytes]) -> None:
    claim, key = chunk_claim()
    assert spoil(CHUNKS) != CHUNKS
    with pytest.raises(SignatureRefused):
        check_chunks(spoil(CHUNKS), claim, key, trailer=False)


# S3 API reference, "transferring payload in multiple chunks with trailing headers": the same 65 KiB.
TRAILER_SEED = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
TRAILED = (
    b"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n"
    + b"a" * 65_536
    + b"\r\n400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n"
    + b"a" * 1024
    + b"\r\n0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n"
    b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
    b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
)


def test_the_worked_example_of_trailing_headers_is_accepted_and_a_changed_one_is_not() -> None:
    claim, key = chunk_claim()
    claim = replace(claim, signature=TRAILER_SEED)
    check_chunks(TRAILED, claim, key, trailer=True)
    for spoiled in (TRAILED.replace(b"sOO8/Q==", b"sOO8/R=="), TRAILED[: TRAILED.index(b"x-amz-trailer")]):
        with pytest.raises(SignatureRefused):
            check_chunks(spoiled, claim, key, trailer=True)
