"""The HTTP server of the EBS part: what SDKs and raw clients may send, and how fast it is at least."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
from localcloud.ebs.testing import RunningServer, running_server

from .ebs_clients import block, checksum, client, contents, signed, snapshot_of, start


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server({"quotas_enabled": False, "seal_seconds": 0}) as running:
        yield running


def connect(server: RunningServer) -> http.client.HTTPConnection:
    address = urlsplit(server.url)
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)


def put_headers(server: RunningServer, path: str, data: bytes, **more: str) -> dict[str, str]:
    headers = {
        "x-amz-Content-SHA256": "UNSIGNED-PAYLOAD",
        "x-amz-Data-Length": str(len(data)),
        "x-amz-Checksum": checksum(data),
        "x-amz-Checksum-Algorithm": "SHA256",
        **more,
    }
    return signed(server, "PUT", path, headers=headers)


def raw(server: RunningServer, request: bytes) -> bytes:
    """Everything the server sends back until it closes the connection."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(request)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def test_one_connection_serves_many_requests(server: RunningServer) -> None:
    snapshot_id = start(client(server, "ebs"))
    connection = connect(server)
    for index in range(5):
        data = block(str(index))
        path = f"/snapshots/{snapshot_id}/blocks/{index}"
        connection.request("PUT", path, data, put_headers(server, path, data))
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.headers["x-amz-Checksum"]) == (201, b"{}", checksum(data))
    assert len(server.service.store) == 5


def test_an_aws_chunked_body_is_unwrapped(server: RunningServer) -> None:
    ebs = client(server, "ebs")
    snapshot_id = start(ebs)
    data = block("chunked")
    first, second = data[:300_000], data[300_000:]
    body = (
        b"".join(b"%x;chunk-signature=0\r\n%s\r\n" % (len(part), part) for part in (first, second))
        + b"0;chunk-signature=0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    )
    more = {"Content-Encoding": "aws-chunked", "x-amz-decoded-content-length": str(len(data))}
    path = f"/snapshots/{snapshot_id}/blocks/0"
    connection = connect(server)
    connection.request("PUT", path, body, put_headers(server, path, data, **more))
    assert connection.getresponse().status == 201
    ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=1)
    assert contents(ebs, snapshot_id) == {0: data}


def test_a_chunked_transfer_is_put_together(server: RunningServer) -> None:
    snapshot_id = start(client(server, "ebs"))
    data = block("chunks")
    connection = connect(server)
    parts = iter([data[:1000], data[1000:]])
    path = f"/snapshots/{snapshot_id}/blocks/0"
    connection.request("PUT", path, parts, put_headers(server, path, data), encode_chunked=True)
    assert connection.getresponse().status == 201


@pytest.mark.parametrize("length", ["-5", "+5", "0x5", "5_0", "", "zz"])
def test_a_chunk_whose_length_is_no_number_is_refused(server: RunningServer, length: str) -> None:
    address = urlsplit(server.url)
    head = f"PUT /snapshots/snap-1/blocks/0 HTTP/1.1\r\nHost: {address.netloc}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        connection.sendall(f"{head}{length}\r\nhello\r\n0\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 400"


def test_expect_100_continue_is_answered_before_the_body(server: RunningServer) -> None:
    snapshot_id = start(client(server, "ebs"))
    data = block("a")
    address = urlsplit(server.url)
    path = f"/snapshots/{snapshot_id}/blocks/0"
    lines = [f"PUT {path} HTTP/1.1", "Expect: 100-continue"]
    lines += [f"{name}: {value}" for name, value in put_headers(server, path, data).items()]
    head = "\r\n".join([*lines, f"Content-Length: {len(data)}", "Connection: close", "", ""]).encode()
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(head)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(data)
        assert connection.recv(1000).startswith(b"HTTP/1.1 201 ")


def test_another_content_encoding_is_refused(server: RunningServer) -> None:
    snapshot_id = start(client(server, "ebs"))
    connection = connect(server)
    path = f"/snapshots/{snapshot_id}/blocks/0"
    headers = put_headers(server, path, block("a"), **{"Content-Encoding": "gzip"})
    connection.request("PUT", path, block("a"), headers)
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["Reason"]) == (400, "INVALID_CONTENT_ENCODING")


def test_a_body_that_stalls_is_a_write_request_timeout(server: RunningServer) -> None:
    server.service.configure({"body_timeout_seconds": 0.05})
    answer = raw(server, b"PUT /snapshots/snap-01/blocks/0 HTTP/1.1\r\nContent-Length: 524288\r\n\r\nfirst bytes")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"WRITE_REQUEST_TIMEOUT" in answer


@pytest.mark.parametrize(
    "request_bytes",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n"],
    ids=["request line", "header", "length"],
)
def test_what_is_not_http_is_refused_and_the_server_goes_on(server: RunningServer, request_bytes: bytes) -> None:
    assert raw(server, request_bytes).startswith(b"HTTP/1.1 400 ")
    start(client(server, "ebs"))


def test_an_unknown_path_is_refused(server: RunningServer) -> None:
    connection = connect(server)
    connection.request("GET", "/nothing", headers=signed(server, "GET", "/nothing"))
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["__type"]) == (404, "UnknownOperationException")


def test_many_threads_write_and_read_at_once(server: RunningServer) -> None:
    ebs = client(server, "ebs")
    snapshot_id = start(ebs)
    failures: list[str] = []

    def write(worker: int) -> None:
        connection = connect(server)
        for index in range(worker, 64, 8):
            data = block(str(index % 10))
            path = f"/snapshots/{snapshot_id}/blocks/{index}"
            connection.request("PUT", path, data, put_headers(server, path, data))
            answer = connection.getresponse()
            if answer.read() != b"{}":
                failures.append(f"{index}: {answer.status}")

    workers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=64)
    assert contents(ebs, snapshot_id) == {index: block(str(index % 10)) for index in range(64)}
    assert len(server.service.store) == 10


def test_it_takes_and_gives_a_hundred_blocks_over_one_connection(server: RunningServer) -> None:
    # How fast: scripts/bench ebs.
    ebs = client(server, "ebs")
    snapshot_id = start(ebs)
    data = {index: block(f"fast {index}") for index in range(100)}
    paths = {index: f"/snapshots/{snapshot_id}/blocks/{index}" for index in data}
    headers = {index: put_headers(server, paths[index], each) for index, each in data.items()}
    connection = connect(server)
    for index, each in data.items():
        connection.request("PUT", paths[index], each, headers[index])
        assert connection.getresponse().read() == b"{}"
    written_over = connection.sock
    ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=100)
    entries = ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"]
    assert [entry["BlockIndex"] for entry in entries] == list(data)
    for entry in entries:
        index = entry["BlockIndex"]
        target = f"{paths[index]}?blockToken={quote(entry['BlockToken'], safe='')}"
        connection.request("GET", target, headers=signed(server, "GET", target))
        assert connection.getresponse().read() == data[index]
    assert connection.sock is written_over


def test_a_snapshot_deleted_while_it_is_read_never_gives_other_data(server: RunningServer) -> None:
    ebs, ec2 = client(server, "ebs"), client(server, "ec2")
    stop = threading.Event()
    wrong: list[str] = []

    def read(snapshot_id: str, token: str, expected: bytes) -> None:
        connection = connect(server)
        path = f"/snapshots/{snapshot_id}/blocks/0?blockToken={quote(token, safe='')}"
        headers = signed(server, "GET", path)
        while not stop.is_set():
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 404:
                return
            if body != expected:
                wrong.append(hashlib.sha256(body).hexdigest())

    readers = []
    for number in range(10):
        data = block(f"round {number}")
        snapshot_id = snapshot_of(server, ebs, {0: data})
        token = ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"][0]["BlockToken"]
        reader = threading.Thread(target=read, args=(snapshot_id, token, data))
        reader.start()
        readers.append(reader)
        ec2.delete_snapshot(SnapshotId=snapshot_id)
    for reader in readers:
        reader.join(10)
    stop.set()
    assert wrong == []
    assert len(server.service.store) == 0
