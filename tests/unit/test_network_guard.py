"""Tests cannot reach the network, and one whose code passes over the refusal fails."""

from __future__ import annotations

import socket
from collections.abc import Callable

import boto3
import pytest
from botocore.exceptions import BotoCoreError
from network_guard import NetworkGuard, NetworkRefused

NOBODY = "192.0.2.1"  # of documentation: never anybody's


def connect(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as opened:
        opened.settimeout(1)
        opened.connect((host, 9))


def send() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as opened:
        opened.sendto(b"", (NOBODY, 9))


@pytest.mark.parametrize(
    "reach",
    [
        lambda: connect(socket.AF_INET, NOBODY),
        lambda: socket.create_connection(("aws.example", 443), timeout=1),
        lambda: socket.gethostbyname("aws.example"),
        send,
    ],
    ids=["address", "name", "old look-up", "datagram"],
)
def test_what_is_not_of_this_machine_is_refused(reach: Callable[[], object], guard: NetworkGuard) -> None:
    with pytest.raises(NetworkRefused, match="loopback"):
        reach()
    assert len(guard.tried()) == 1


def test_this_machine_is_reached(guard: NetworkGuard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for name in ("127.0.0.1", "localhost"):
            socket.create_connection((name, listener.getsockname()[1]), timeout=5).close()
    assert guard.tried() == []


def test_what_a_client_hides_is_remembered(guard: NetworkGuard) -> None:
    """boto3 makes an error of its own of a refusal, which code takes for a failed look."""
    keys = {"aws_access_key_id": "111122223333", "aws_secret_access_key": "secret"}
    with pytest.raises(BotoCoreError):
        boto3.client("lambda", region_name="us-east-1", **keys).get_account_settings()
    assert set(guard.tried()) == {"socket.getaddrinfo lambda.us-east-1.amazonaws.com"}
