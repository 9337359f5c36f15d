"""What benchmarks run against and with: the EBS server of the local cloud, and contenders in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from localcloud.local_keys import LocalKeys

from tools.environment import repository_root

_KEYS = LocalKeys.new()


@contextmanager
def ebs_server(folder: Path) -> Iterator[str]:
    """The EBS server of the local cloud as a process of its own; yields its URL."""
    config, port_file = folder / "config.json", folder / "port"
    config.write_text(json.dumps({"quotas_enabled": False, "seal_seconds": 0}))
    arguments = ["--data-dir", str(folder / "data"), "--config", str(config), "--port-file", str(port_file)]
    server = subprocess.Popen(
        [sys.executable, "-m", "localcloud.ebs.server", *arguments],
        env=environment() | _KEYS.variables(),
        cwd=repository_root(),
        stdout=subprocess.DEVNULL,  # the benchmark's output may be JSON
    )
    try:
        deadline = time.monotonic() + 20
        while not port_file.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the EBS server did not start (exit status {server.poll()})")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port_file.read_text().strip()}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def control(url: str, path: str, body: Any = None, *, method: str = "POST", keys: LocalKeys = _KEYS) -> None:
    """Ask the control endpoint of a local server, by default of one that ``ebs_server`` has started."""
    request = urllib.request.Request(  # noqa: S310 - our own server's address
        f"{url}/_local/{path}", json.dumps(body).encode(), method=method, headers=keys.control_headers()
    )
    with urllib.request.urlopen(request, timeout=60):  # noqa: S310
        pass


def contend(
    contender: str,
    url: str,
    *,
    snapshot: str,
    blocks: int,
    threads: int,
    module: str = "tools.bench_contenders",
    more: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a contender, a process of its own, measures of itself; ``more`` are further variables of its environment."""
    command = [sys.executable, "-m", module, contender, snapshot, str(blocks), str(threads)]
    done = subprocess.run(
        command,
        env=environment(url) | dict(more or {}),
        cwd=repository_root(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{contender} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def environment(url: str | None = None) -> dict[str, str]:
    root = repository_root()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{root / 'scripts'}:{root / 'layers' / 'core'}",
        "AWS_ACCESS_KEY_ID": "111122223333",
        "AWS_SECRET_ACCESS_KEY": _KEYS.secret,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return environment if url is None else environment | {"AWS_ENDPOINT_URL": url, "AWS_ENDPOINT_URL_EBS": url}
