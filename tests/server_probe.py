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
from botocore.config import Config
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
