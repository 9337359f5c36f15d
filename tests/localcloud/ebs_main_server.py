"""A main server with the EBS part alone plugged in, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from localcloud.local_keys import LocalKeys

SCRIPTS = Path(__file__).parents[2] / "scripts"
START_SECONDS = 60.0
_PROGRAM = """
import sys
from localcloud import server
parts = ("localcloud.base_fixes", "localcloud.iam.plugin", "localcloud.ebs.plugin")
sys.exit(server.main(sys.argv[1:], parts=parts))
"""


@dataclass(frozen=True)
class MainServer:
    endpoint_url: str
    ebs_endpoint_url: str
    keys: LocalKeys

    def client(
        self, name: str, *, account: str = "111122223333", region: str = "us-east-1", url: str = "", **keys: str
    ) -> Any:
        return boto3.client(
            name,
            endpoint_url=url or self.endpoint_url,
            region_name=region,
            aws_access_key_id=keys.get("access_key", account),
            aws_secret_access_key=keys.get("secret_key", self.keys.secret),
            aws_session_token=keys.get("token"),
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )


@contextmanager
def main_server(folder: Path, config: Mapping[str, Any]) -> Iterator[MainServer]:
    config_file, ready_file = folder / "config.json", folder / "ready.json"
    config_file.write_text(json.dumps(config))
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _PROGRAM, "--data-dir", str(folder / "data")),
                *("--config", str(config_file), "--ready-file", str(ready_file)),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text())
            time.sleep(0.05)
        ready = json.loads(ready_file.read_text())
        keys = LocalKeys(secret=ready["secret_access_key"], token=ready["control_token"])
        yield MainServer(ready["endpoint_url"], ready["ebs_endpoint_url"], keys)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
