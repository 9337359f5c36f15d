"""Requests as other clients than this project's own send them, and such as pose as them.

Presigned URLs of AWS's SDKs for JavaScript and Go have ``x-amz-`` headers in their query; buckets may be named by the
host; what is signed may stand in another spelling on the wire.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from localcloud.signatures import Incoming, SigningKeys, canonical_request, stamp, string_to_sign
from server_probe import RunningServer, running_server

ACCOUNT = "111122223333"
FORM = "application/x-www-form-urlencoded"
LIST_USERS = b"Action=ListUsers&Version=2010-05-08"
BUCKET = "a-bucket"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("others"), config={"iam": {"enforced": True}}) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def nobody(server: RunningServer) -> tuple[str, str]:
    """Access key and secret of a user without any permission."""
    iam = server.client("iam")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def ask(
    server: RunningServer, method: str, target: str, *, headers: Mapping[str, str], body: bytes = b""
) -> tuple[int, bytes]:
    """``target`` as it stands; one connection, ended with the answer."""
    given = {name.lower(): value for name, value in headers.items()}
    sent = {"host": urlsplit(server.endpoint_url).netloc, **given, "content-length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in {**sent, "connection": "close"}.items())
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head_of_answer, _, content = answer.partition(b"\r\n\r\n")
    return int(head_of_answer.split()[1]), content


def signed(
    server: RunningServer,
    service: str,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> dict[str, str]:
    request = AWSRequest(method=method, url=server.endpoint_url + target, headers=dict(headers or {}), data=body)
    signer: Any = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(Credentials(ACCOUNT, server.keys.secret), service, "us-east-1").add_auth(request)
    return {name: str(value) for name, value in request.headers.items()}


def presigned(server: RunningServer, method: str, target: str) -> str:
    request = AWSRequest(method=method, url=server.endpoint_url + target)
    S3SigV4QueryAuth(Credentials(ACCOUNT, server.keys.secret), "s3", "us-east-1", expires=60).add_auth(request)
    return str(request.url).removeprefix(server.endpoint_url)


# -- who signs -----------------------------------------------------------------------


def authorization(
    server: RunningServer, key: tuple[str, str], *, order: tuple[str, str], extra: str, headers: Mapping[str, str]
) -> str:
    """A signature that holds, by ``key``, whose list of signed headers ends with ``extra``."""
    access_key, secret = key
    names = (*sorted(headers), extra)
    scope = f"{headers['x-amz-date'][:8]}/us-east-1/iam/aws4_request"
    canonical = canonical_request(
        Incoming(method="POST", path="/", query="", headers=headers),
        signed=names,
        payload=hashlib.sha256(LIST_USERS).hexdigest(),
        service="iam",
    )
    to_sign = string_to_sign(canonical, timestamp=headers["x-amz-date"], scope=scope)
    signing_key = SigningKeys().of(secret, date=scope[:8], region="us-east-1", service="iam")
    parts = {
        "SignedHeaders": ";".join(names),
        "Credential": f"{access_key}/{scope}",
        "Signature": hmac.new(signing_key, to_sign.encode(), hashlib.sha256).hexdigest(),
    }
    return "AWS4-HMAC-SHA256 " + ", ".join(f"{name}={parts[name]}" for name in (*order, "Signature"))


@pytest.mark.parametrize("order", [("SignedHeaders", "Credential"), ("Credential", "SignedHeaders")])
@pytest.mark.parametrize("extra", [f"Credential={ACCOUNT}/", f"credential={ACCOUNT}/", "X-Amz-Date", ""])
def test_no_signature_names_another_caller_among_its_headers(
    server: RunningServer, nobody: tuple[str, str], order: tuple[str, str], extra: str
) -> None:
    headers = {"content-type": FORM, "host": urlsplit(server.endpoint_url).netloc, "x-amz-date": stamp(time.time())}
    proof = authorization(server, nobody, order=order, extra=extra, headers=headers)
    status, content = ask(server, "POST", "/", headers={**headers, "authorization": proof}, body=LIST_USERS)
    # Whose service it is cannot be told from such a header, so the protocol of the refusal may differ.
    assert (status in (400, 403), b"IncompleteSignature" in content) == (True, True), content


def test_a_request_is_signed_in_one_place_only(server: RunningServer) -> None:
    target = presigned(server, "GET", f"/{BUCKET}?list-type=2")
    assert ask(server, "GET", target, headers={})[0] == 200
    status, content = ask(server, "GET", target, headers=signed(server, "s3", "GET", f"/{BUCKET}?list-type=2"))
    assert (status, b"signed twice" in content) == (400, True)


def test_no_service_leaves_bodies_unsigned_by_calling_itself_s3(server: RunningServer) -> None:
    target = {"X-Amz-Target": "Logs_20140328.DescribeLogGroups", "Content-Type": "application/x-amz-json-1.1"}
    unsigned = {**target, "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}
    headers = signed(server, "logs", "POST", "/", headers=target, body=b"{}")
    assert ask(server, "POST", "/", headers=headers, body=b"{}")[0] == 200
    headers = signed(server, "s3", "POST", "/", headers=unsigned)
    status, content = ask(server, "POST", "/", headers=headers, body=b'{"limit": 1}')
    assert (status, b"scoped to correct service" in content) == (400, True)


# -- other spellings -----------------------------------------------------------------


def test_a_key_may_be_sent_in_another_spelling_than_it_is_signed_in(server: RunningServer) -> None:
    server.client("s3").put_object(Bucket=BUCKET, Key="a(1)!*'.img", Body=b"data")
    headers = signed(server, "s3", "GET", f"/{BUCKET}/a%281%29%21%2A%27.img")
    assert ask(server, "GET", f"/{BUCKET}/a(1)!*'.img", headers=headers) == (200, b"data")
    assert ask(server, "GET", f"/{BUCKET}/a(2)!*'.img", headers=headers)[0] == 403


@pytest.mark.parametrize(
    "key", ["a//b", "/a", "a+b", "a%2Fb", "a b", "\u00fc/\u20ac/\U0001f600", "..", "a/../b", "a?b#c&d=e", "a;b,c", "%"]
)
@pytest.mark.parametrize("addressing", ["path", "virtual"])
def test_every_key_is_written_and_read(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, key: str, addressing: str
) -> None:
    s3 = client_of(server, monkeypatch, addressing=addressing)
    s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=BUCKET, Key=key, ResponseContentType="a/b")["Body"].read() == key.encode()
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET, Prefix=key)["Contents"]] == [key]
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key}]})


def client_of(server: RunningServer, monkeypatch: pytest.MonkeyPatch, *, addressing: str) -> Any:
    """``virtual``: buckets below ``localhost``, which not every machine's resolver knows."""
    known = socket.getaddrinfo

    def below_localhost(name: Any, *rest: Any, **others: Any) -> Any:
        return known("127.0.0.1" if str(name).endswith(".localhost") else name, *rest, **others)

    monkeypatch.setattr(socket, "getaddrinfo", below_localhost)
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url.replace("127.0.0.1", "localhost"),
        region_name="us-east-1",
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key=server.keys.secret,
        config=Config(s3={"addressing_style": addressing}, retries={"total_max_attempts": 1}, signature_version="s3v4"),
    )


def test_an_upload_in_parts_and_a_presigned_url_reach_a_bucket_in_the_host(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = client_of(server, monkeypatch, addressing="virtual")
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    part = s3.upload_part(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=1, Body=b"first")["ETag"]
    parts = {"Parts": [{"ETag": part, "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload=parts)
    s3.copy_object(Bucket=BUCKET, Key="copied", CopySource={"Bucket": BUCKET, "Key": "parts"})
    url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "copied"})
    assert url.startswith(f"http://{BUCKET}.localhost:")
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.read() == b"first"


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", "x-amz-checksum-mode=ENABLED&x-id=GetObject"),
        ("GET", "X-Amz-Checksum-Mode=ENABLED"),
        ("GET", "x-id=GetObject&x-who-asked=me"),
        ("PUT", "x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32&x-id=PutObject"),
        ("PUT", "x-amz-acl=private&x-amz-meta-origin=here"),
    ],
)
def test_presigned_urls_have_headers_in_their_query(server: RunningServer, method: str, query: str) -> None:
    server.client("s3").put_object(Bucket=BUCKET, Key="presigned", Body=b"")
    assert ask(server, method, presigned(server, method, f"/{BUCKET}/presigned?{query}"), headers={}) == (200, b"")


def test_headers_in_a_query_are_held_against_the_model_too(server: RunningServer) -> None:
    target = presigned(server, "PUT", f"/{BUCKET}/refused?x-amz-acl=everything")
    status, content = ask(server, "PUT", target, headers={})
    assert (status, b"enum value set" in content) == (400, True)
    status, content = ask(server, "GET", presigned(server, "GET", f"/{BUCKET}/refused?colour=red"), headers={})
    assert (status, b"colour" in content) == (400, True)


def test_host_names_have_no_case(server: RunningServer) -> None:
    host = f"LocalHost:{server.address[1]}"
    target = f"/{BUCKET}?list-type=2"
    assert ask(server, "GET", target, headers=signed(server, "s3", "GET", target, headers={"Host": host}))[0] == 200
