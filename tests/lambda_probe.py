"""Zips and a pool for the tests of Lambda execution."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.compute.environment import Answer
from localcloud.compute.faults import Faults
from localcloud.compute.function import Function
from localcloud.compute.packages import PackageStore
from localcloud.compute.plugin import account_credentials
from localcloud.compute.pool import Pool, PoolSettings
from localcloud.compute.runtime_api import Invocation

HANDLER = """
import json, os, subprocess, sys, threading, time
from pathlib import Path

class SnapshotBusy(Exception):
    pass

def handler(event, context):
    print("asked to", event["do"])
    return globals()["do_" + event["do"]](event, context)

def do_echo(event, context):
    return {"event": event, "pid": os.getpid(), "request_id": context.aws_request_id,
            "arn": context.invoked_function_arn, "left_ms": context.get_remaining_time_in_millis()}

def do_raise(event, context):
    raise SnapshotBusy("snap-1 is busy")

def do_exit(event, context):
    os._exit(event["code"])

def do_sys_exit(event, context):
    sys.exit(event["code"])

def do_wait_for(event, context):
    Path(event["started"] + "-" + str(os.getpid())).touch()
    while not Path(event["until"]).exists():
        time.sleep(0.01)
    return os.getpid()

def do_leave_child(event, context):
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    Path(event["file"]).write_text(str(child.pid))
    while True:
        time.sleep(1)

def do_hog(event, context):
    held = []
    while True:
        held.append(b"x" * 1_000_000)

def do_use(event, context):
    held = b"x" * (event["mib"] * 1024 * 1024)
    return len(held)

def do_big(event, context):
    return "x" * event["size"]

def do_environment(event, context):
    return {"variables": dict(os.environ), "path": sys.path, "cwd": os.getcwd()}

def do_import(event, context):
    return __import__(event["module"]).__file__

def do_mark(event, context):
    with open(event["file"], "a") as file:
        file.write("handled\\n")
    return "done"
"""


def zip_of(files: Mapping[str, str]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name, text in files.items():
            opened.writestr(name, text)
    return archive.getvalue()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def is_written(file: Path) -> bool:
    """Whether a handler has come so far as to write there; it opens the file first."""
    return file.is_file() and file.stat().st_size > 0


def is_running(pid: int) -> bool:
    """Whether a process lives; one that only waits for its parent to ask does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


@dataclass
class Runner:
    """A pool without a server, and everything that was logged."""

    pool: Pool
    packages: PackageStore
    faults: Faults
    logged: list[str]
    sent: int = 0

    def function(self, code: str = HANDLER, *, layers: Sequence[bytes] = (), **changes: Any) -> Function:
        values: dict[str, Any] = {
            "account_id": "111122223333",
            "region": "us-east-1",
            "name": "probe",
            "version": "$LATEST",
            "handler": "app.handler",
            "runtime": "python3.11",
            "role_arn": "arn:aws:iam::111122223333:role/probe",
            "memory_mb": 128,
            "timeout_seconds": 20,
            "variables": (),
            "code": self.packages.code(zip_of({"app.py": code})),
            "layers": self.packages.layers(layers) if layers else None,
            "log_group": "/aws/lambda/probe",
            "log_format": "Text",
            "log_level": None,
        }
        return Function(**{**values, **changes})

    def ask(self, function: Function, event: Mapping[str, Any]) -> Answer:
        self.sent += 1
        return self.pool.run(
            function,
            Invocation(
                request_id=f"request-{self.sent}",
                payload=json.dumps(event).encode(),
                function_arn=f"arn:aws:lambda:us-east-1:111122223333:function:{function.name}",
                trace_id=None,
            ),
        )


def payload_of(answer: Answer) -> Any:
    return json.loads(answer.outcome.payload)


@contextlib.contextmanager
def running_pool(folder: Path, *, idle_check_seconds: float = 5.0, **settings: Any) -> Iterator[Runner]:
    faults, logged = Faults(), []  # type: tuple[Faults, list[str]]
    packages = PackageStore(folder / "packages")
    pool = Pool(
        settings=PoolSettings(**settings),
        packages=packages,
        scratch=folder / "environments",
        log_folder=folder / "logs",
        default_account_id="111122223333",
        server_variables={"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "PATH": os.defpath},
        credentials_for=account_credentials("secret"),
        deliver=lambda function, stream, events: logged.extend(text for _, text in events),
        faults=faults,
        idle_check_seconds=idle_check_seconds,
    )
    try:
        yield Runner(pool=pool, packages=packages, faults=faults, logged=logged)
    finally:
        pool.close()
