"""A local cloud server with nothing in it, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from lambda_probe import wait_until
from localcloud.local_keys import LocalKeys

SCRIPTS = Path(__file__).parents[1] / "scripts"


def server_command(folder: Path, *extra: str) -> list[str]:
    return [
        *(sys.executable, "-m", "localcloud.server", "--data-dir", str(folder / "data")),
        *("--ready-file", str(folder / "ready.json"), *extra),
    ]


def server_environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(SCRIPTS)}


@dataclass
class RunningServer:
    """``process`` may be ended by a test; the fixture ends it otherwise."""

    process: subprocess.Popen[bytes]
    endpoint_url: str
    keys: LocalKeys
    folder: Path

    def client(self, service: str, *, region: str = "us-east-1", account: str = "111122223333") -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=region,
            aws_access_key_id=account,
            aws_secret_access_key=self.keys.secret,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=60, max_pool_connections=20),
        )

    def post_in_bytes(
        self,
        service: str,
        *,
        path: str = "/",
        body: bytes,
        headers: Mapping[str, str],
        region: str = "us-east-1",
        account: str = "111122223333",
    ) -> tuple[bytes, bytes]:
        """Head and body of a signed POST, for tests that write to a socket themselves."""
        url = f"{self.endpoint_url}{path}"
        request = AWSRequest(method="POST", url=url, data=body, headers=dict(headers))
        SigV4Auth(Credentials(account, self.keys.secret), service, region).add_auth(request)
        lines = [f"Host: {self.address[0]}:{self.address[1]}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        return "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""]).encode(), body

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.endpoint_url.removeprefix("http://").partition(":")
        return host, int(port)

    def control(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{self.endpoint_url}/_local/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=self.keys.control_headers(),
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


@contextlib.contextmanager
def running_server(folder: Path, *extra: str, config: Mapping[str, Any] | None = None) -> Iterator[RunningServer]:
    """``config`` as in ``scripts/cloud up --config``. Without a word about IAM, roles need not exist."""
    config_file = folder / "server-config.json"
    config_file.write_text(json.dumps({"iam": {"enforced": False}, **(config or {})}))
    extra = ("--config", str(config_file), *extra)
    log = folder / "server.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            server_command(folder, *extra), env=server_environment(), stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        ready = folder / "ready.json"
        wait_until(lambda: ready.exists() or process.poll() is not None, "the server is ready", 30)
        assert process.poll() is None, log.read_text()
        told = json.loads(ready.read_text())
        keys = LocalKeys(secret=told["secret_access_key"], token=told["control_token"])
        yield RunningServer(process=process, endpoint_url=told["endpoint_url"], keys=keys, folder=folder)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
