"""Who may come in: no web page, nobody without the token of the control, nobody without a signature that holds.

Both servers, the main one and the EBS server's own door, are asked the same.
"""

from __future__ import annotations

import http.client
import io
import json
import urllib.parse
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from localcloud.local_keys import LocalKeys
from server_probe import RunningServer, running_server

ACCOUNT = "111122223333"
ROLE = "arn:aws:iam::111122223333:role/anything"
DOORS = ("endpoint_url", "ebs_endpoint_url")
MADE_UP = f"AWS4-HMAC-SHA256 Credential={ACCOUNT}/20260101/us-east-1/%s/aws4_request, SignedHeaders=host, Signature=0"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("doors"), config={"iam": {"enforced": True}}) as running:
        yield running


@pytest.fixture(scope="module")
def urls(server: RunningServer) -> dict[str, str]:
    health = server.control("GET", "health")[1]
    return {door: health[door] for door in DOORS}


def ask(
    url: str, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """One request with exactly these headers besides Host, which they may name, and the body's length."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"Host": address.netloc} | dict(headers or {})).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def signed(
    keys: LocalKeys,
    url: str,
    *,
    service: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    access_key: str = ACCOUNT,
    signer: Any = SigV4Auth,
) -> dict[str, str]:
    request = AWSRequest(method=method, url=url, headers=dict(headers or {}), data=body)
    signer(Credentials(access_key, keys.secret), service, "us-east-1").add_auth(request)
    return {name: str(value) for name, value in request.headers.items()}


def zipped() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("app.py", "def handler(event, context): return 1")
    return archive.getvalue()


# -- web pages -----------------------------------------------------------------------

PAGES = {
    "a page of another site": {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    "a page without an origin to name": {"Origin": "null"},
    "an image or a form of an old browser": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a page of another port of this machine": {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    "a page that this server sent": {"Sec-Fetch-Site": "same-origin"},
    "a name that was pointed at this machine": {"Host": "evil.example:{port}"},
    "the right name with another port": {"Host": "127.0.0.1:1"},
    "no port": {"Host": "127.0.0.1"},
    "a name that begins like ours": {"Host": "localhost.evil.example:{port}"},
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("page", PAGES)
def test_a_web_page_reaches_nothing_even_with_all_secrets(
    server: RunningServer, urls: Mapping[str, str], page: str, door: str
) -> None:
    url = urls[door]
    headers = {name: value.format(port=urlsplit(url).port) for name, value in PAGES[page].items()}
    service = "lambda" if door == "endpoint_url" else "ebs"
    path = "/2015-03-31/functions/" if service == "lambda" else "/snapshots/snap-01/blocks"
    proof = signed(server.keys, url + path, service=service)
    for answer in (
        ask(url, "GET", path, headers={**proof, **headers}),
        ask(url, "GET", "/_local/health", headers={**server.keys.control_headers(), **headers}),
    ):
        assert answer.status == 403
        assert b"web page" in answer.body
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_page_cannot_create_a_function_with_a_simple_post(server: RunningServer, urls: Mapping[str, str]) -> None:
    # What a form or fetch() sends without asking first: this once created a function, which ran as the user.
    code = {"ZipFile": ""}
    body = json.dumps({"FunctionName": "f", "Runtime": "python3.11", "Role": ROLE, "Handler": "app.h", "Code": code})
    form = {"Content-Type": "text/plain"}
    made_up = form | {"Authorization": MADE_UP % "lambda"}
    page = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Host": "evil.example"}
    path = "/2015-03-31/functions"
    for headers in (form, made_up, {**made_up, **page}, {**form, **page}):
        assert ask(urls["endpoint_url"], "POST", path, headers=headers, body=body.encode()).status == 403
    assert server.client("lambda").list_functions()["Functions"] == []


@pytest.mark.parametrize("door", DOORS)
def test_a_preflight_is_refused_and_no_answer_opens_anything(
    server: RunningServer, urls: Mapping[str, str], door: str
) -> None:
    asking = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    for headers in (asking, {"Access-Control-Request-Method": "PUT"}, {}):
        answer = ask(urls[door], "OPTIONS", "/bucket/key", headers=headers)
        assert answer.status == 403
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_no_answer_of_the_base_allows_an_origin(server: RunningServer, urls: Mapping[str, str]) -> None:
    url = urls["endpoint_url"]
    headers = signed(server.keys, f"{url}/", service="s3", signer=S3SigV4Auth)
    answer = ask(url, "GET", "/", headers=headers)
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_websocket_is_refused(urls: Mapping[str, str]) -> None:
    headers = {
        **{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert ask(urls["endpoint_url"], "GET", "/", headers=headers).status == 403


# -- control -------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("given", [{}, {"x-local-token": ""}, {"x-local-token": "guessed"}])
def test_control_needs_the_token(urls: Mapping[str, str], given: Mapping[str, str], door: str) -> None:
    for method, path in (("GET", "/_local/health"), ("POST", "/_local/reset"), ("POST", "/_local/quit")):
        answer = ask(urls[door], method, path, headers=given, body=b"{}")
        assert answer.status == 403
        assert b"x-local-token" in answer.body


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/_ministack/reset"), ("POST", "/_ministack/config"), ("GET", "/_localstack/health")]
)
def test_the_bases_own_control_needs_the_token_too(urls: Mapping[str, str], method: str, path: str) -> None:
    assert ask(urls["endpoint_url"], method, path, body=b"{}").status == 403


def test_what_the_main_server_tells_the_ebs_server_cannot_be_told_by_others(
    server: RunningServer, urls: Mapping[str, str]
) -> None:
    url, path = urls["ebs_endpoint_url"], "/snapshots"
    headers = {"x-local-account": "123456789012", "x-local-region": "us-east-1"}
    assert ask(url, "POST", path, headers=headers, body=b'{"VolumeSize": 1}').status == 403
    proof = signed(server.keys, url + path, service="ebs", method="POST", body=b'{"VolumeSize": 1}')
    answer = ask(url, "POST", path, headers={**proof, **headers}, body=b'{"VolumeSize": 1}')
    assert (answer.status, json.loads(answer.body)["OwnerId"]) == (201, ACCOUNT)


# -- secrets and files ---------------------------------------------------------------


def test_secrets_are_new_at_every_start_and_only_their_owner_reads_them(server: RunningServer) -> None:
    ready = server.folder / "ready.json"
    assert ready.stat().st_mode & 0o777 == 0o600
    data = server.folder / "data"
    open_to_others = [path for path in (data, *data.rglob("*")) if path.lstat().st_mode & 0o077]
    assert open_to_others == []
    assert len({LocalKeys.new().secret, LocalKeys.new().secret, server.keys.secret, server.keys.token}) == 4


# -- signatures ----------------------------------------------------------------------

CODES = {
    ("ebs", "unknown key"): (403, "UnrecognizedClientException"),
    ("ebs", "wrong secret"): (403, "InvalidSignatureException"),
    ("lambda", "unknown key"): (403, "UnrecognizedClientException"),
    ("lambda", "wrong secret"): (403, "InvalidSignatureException"),
    ("sts", "unknown key"): (403, "InvalidClientTokenId"),
    ("sts", "wrong secret"): (403, "SignatureDoesNotMatch"),
    ("kms", "unknown key"): (400, "UnrecognizedClientException"),
    ("kms", "wrong secret"): (400, "InvalidSignatureException"),
    ("s3", "unknown key"): (403, "InvalidAccessKeyId"),
    ("s3", "wrong secret"): (403, "SignatureDoesNotMatch"),
    ("ec2", "unknown key"): (401, "AuthFailure"),
    ("ec2", "wrong secret"): (401, "AuthFailure"),
}
CALLS = {
    "ebs": ("list_snapshot_blocks", {"SnapshotId": "snap-0123456789abcdef0"}),
    "lambda": ("list_functions", {}),
    "sts": ("get_caller_identity", {}),
    "kms": ("list_keys", {}),
    "s3": ("list_buckets", {}),
    "ec2": ("describe_snapshots", {"OwnerIds": ["self"]}),
}


def client(service: str, url: str, *, access_key: str, secret: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        # Without a word about it presigned URLs of S3 have the signature before this one, which new buckets refuse.
        config=Config(retries={"total_max_attempts": 1}, signature_version="s3v4" if service == "s3" else None),
    )


@pytest.mark.parametrize(("service", "fault"), CODES)
def test_bad_credentials_are_refused_in_the_services_own_words(
    server: RunningServer, urls: Mapping[str, str], service: str, fault: str
) -> None:
    operation, arguments = CALLS[service]
    access_key = "AKIAIOSFODNN7EXAMPLE" if fault == "unknown key" else ACCOUNT
    secret = server.keys.secret if fault == "unknown key" else "local-cloud"
    for door in DOORS if service in ("ebs", "ec2") else DOORS[:1]:
        with pytest.raises(ClientError) as caught:
            getattr(client(service, urls[door], access_key=access_key, secret=secret), operation)(**arguments)
        answer = caught.value.response
        assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == CODES[service, fault]


def test_users_and_sessions_have_the_secrets_that_iam_and_sts_gave_out(
    server: RunningServer, urls: Mapping[str, str]
) -> None:
    iam = server.client("iam")
    iam.create_user(UserName="reader")
    allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ebs:*", "Resource": "*"}]}
    iam.put_user_policy(UserName="reader", PolicyName="p", PolicyDocument=json.dumps(allow))
    made = iam.create_access_key(UserName="reader")["AccessKey"]
    for door in DOORS:
        own = client("ebs", urls[door], access_key=made["AccessKeyId"], secret=made["SecretAccessKey"])
        with pytest.raises(ClientError, match="ResourceNotFound"):
            own.list_snapshot_blocks(SnapshotId="snap-0123456789abcdef0")
        wrong = client("ebs", urls[door], access_key=made["AccessKeyId"], secret=server.keys.secret)
        with pytest.raises(ClientError, match="InvalidSignatureException"):
            wrong.list_snapshot_blocks(SnapshotId="snap-0123456789abcdef0")


def test_functions_and_terraform_sign_with_real_secrets(server: RunningServer) -> None:
    functions = server.client("lambda")
    iam = server.client("iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    role = iam.create_role(RoleName="function", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("app.py", "import os\ndef handler(event, context):\n    return dict(os.environ)\n")
    functions.create_function(
        FunctionName="shows",
        Runtime="python3.11",
        Role=role,
        Handler="app.handler",
        Code={"ZipFile": archive.getvalue()},
    )
    environment = json.load(functions.invoke(FunctionName="shows")["Payload"])
    assert environment["AWS_SECRET_ACCESS_KEY"] not in ("", server.keys.secret)
    assert server.keys.secret not in environment.values()
    assert server.keys.token not in environment.values()


# -- S3's own ways -------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(server: RunningServer) -> str:
    s3 = server.client("s3")
    for name, body in (("private", b"secret"), ("public", b"open")):
        s3.create_bucket(Bucket=f"doors-{name}")
        s3.put_object(Bucket=f"doors-{name}", Key="k", Body=body)
    s3.delete_public_access_block(Bucket="doors-public")
    read = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::doors-public/*"}
    s3.put_bucket_policy(Bucket="doors-public", Policy=json.dumps({"Version": "2012-10-17", "Statement": [read]}))
    return "doors-private"


def test_objects_of_public_buckets_are_read_without_a_signature_and_nothing_else(
    urls: Mapping[str, str], bucket: str
) -> None:
    url, port = urls["endpoint_url"], urlsplit(urls["endpoint_url"]).port
    assert ask(url, "GET", "/doors-public/k").body == b"open"
    assert ask(url, "GET", "/k", headers={"Host": f"doors-public.s3.localhost:{port}"}).body == b"open"
    for method, path, headers in (
        ("GET", "/doors-private/k", {}),
        ("GET", "/k", {"Host": f"doors-private.s3.localhost:{port}"}),
        ("GET", "/doors-private", {}),
        ("GET", "/doors-public", {}),
        ("GET", "/doors-public/", {}),
        ("GET", "/doors-public/k?acl", {}),
        ("GET", "/", {}),
        ("PUT", "/doors-public/k", {}),
        ("DELETE", "/doors-public/k", {}),
        ("POST", "/doors-public", {"Content-Type": "multipart/form-data; boundary=x"}),
    ):
        assert ask(url, method, path, headers=headers, body=b"x" if method in ("PUT", "POST") else None).status == 403
    assert ask(url, "GET", "/doors-public/k").body == b"open"


def test_presigned_urls_work_until_they_expire_and_only_as_they_were_signed(
    server: RunningServer, urls: Mapping[str, str], bucket: str
) -> None:
    s3 = client("s3", urls["endpoint_url"], access_key=ACCOUNT, secret=server.keys.secret)
    get = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=600)
    put = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "new"}, ExpiresIn=600)
    target = get.partition(urls["endpoint_url"])[2]
    assert ask(urls["endpoint_url"], "GET", target).body == b"secret"
    assert ask(urls["endpoint_url"], "PUT", put.partition(urls["endpoint_url"])[2], body=b"put").status == 200
    spoiled = target.replace("/k?", "/new?")
    assert ask(urls["endpoint_url"], "GET", spoiled).status == 403
    assert ask(urls["endpoint_url"], "DELETE", target).status == 403
    assert ask(urls["endpoint_url"], "GET", target, headers={"x-amz-acl": "public-read"}).status == 403


def test_a_presigned_url_that_has_expired_is_refused(
    server: RunningServer, urls: Mapping[str, str], bucket: str
) -> None:
    request = AWSRequest(method="GET", url=f"{urls['endpoint_url']}/{bucket}/k")
    signer = SigV4QueryAuth(Credentials(ACCOUNT, server.keys.secret), "s3", "us-east-1", expires=1)
    with pytest.MonkeyPatch.context() as patch:
        import datetime

        long_ago = datetime.datetime(2026, 1, 1, 12, 0, 0)  # noqa: DTZ001 - as botocore has it
        patch.setattr("botocore.auth.get_current_datetime", lambda remove_tzinfo=True: long_ago)
        signer.add_auth(request)
    answer = ask(urls["endpoint_url"], "GET", request.url.partition(urls["endpoint_url"])[2])
    assert (answer.status, b"Request has expired" in answer.body) == (403, True)


@pytest.mark.parametrize("payload", ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"])
def test_s3_takes_unsigned_payloads(server: RunningServer, urls: Mapping[str, str], bucket: str, payload: str) -> None:
    url = f"{urls['endpoint_url']}/{bucket}/unsigned"
    body, headers = b"data", {"X-Amz-Content-SHA256": payload}
    if payload.startswith("STREAMING"):
        body = b"4\r\ndata\r\n0\r\nx-amz-checksum-crc32:rfPzYw==\r\n\r\n"
        headers |= {"Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": "4"}
        headers |= {"X-Amz-Trailer": "x-amz-checksum-crc32"}
    proof = signed(server.keys, url, service="s3", method="PUT", headers=headers, signer=_Literal)
    path = url.partition(urls["endpoint_url"])[2]
    assert ask(urls["endpoint_url"], "PUT", path, headers=proof, body=body).status == 200
    assert server.client("s3").get_object(Bucket=bucket, Key="unsigned")["Body"].read() == b"data"


class _Literal(SigV4Auth):
    """Signs what the header says of the payload, with S3's path."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.headers["X-Amz-Content-SHA256"])

    def _normalize_url_path(self, path: str) -> str:
        return path


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ({"X-Amz-Content-SHA256": "0" * 64}, b"XAmzContentSHA256Mismatch"),
        ({"X-Amz-Content-SHA256": "nonsense"}, b"InvalidRequest"),
    ],
)
def test_s3_compares_the_body_with_the_hash_that_was_signed(
    server: RunningServer, urls: Mapping[str, str], bucket: str, spoil: Mapping[str, str], code: bytes
) -> None:
    url = f"{urls['endpoint_url']}/{bucket}/k2"
    proof = signed(server.keys, url, service="s3", method="PUT", headers=spoil, signer=_Literal)
    answer = ask(urls["endpoint_url"], "PUT", url.partition(urls["endpoint_url"])[2], headers=proof, body=b"data")
    assert (answer.status, code in answer.body) == (400, True)


@pytest.mark.parametrize("key", ["plain", "a b/ü+&=?#%25.txt", "dir/../x", "//twice"])
def test_names_that_need_encoding_are_signed_as_clients_sign_them(server: RunningServer, bucket: str, key: str) -> None:
    s3 = server.client("s3")
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode(), Metadata={"note": "two  spaces "})
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert key in {item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]}


def test_web_identities_are_not_proved_here(urls: Mapping[str, str]) -> None:
    form = {
        "Action": "AssumeRoleWithWebIdentity",
        "RoleArn": ROLE,
        "RoleSessionName": "s",
        "WebIdentityToken": "t" * 20,
    }
    body = urllib.parse.urlencode({**form, "Version": "2011-06-15"}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = ask(urls["endpoint_url"], "POST", "/", headers=headers, body=body)
    assert (answer.status, b"MissingAuthenticationToken" in answer.body) == (403, True)
