"""Starts and stops the EBS server, a process of its own beside the main server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcloud.local_keys import LocalKeys

START_SECONDS = 30.0
STOP_SECONDS = 5.0
_TETHER = Path(__file__).with_name("tether.py")


class EbsProcessFailed(RuntimeError):
    """The EBS server did not start."""


class EbsProcess:
    """The running EBS server; it ends with the main server even if that is killed.

    Has to be started from the main thread: the kernel's parent-death signal is tied to the thread.
    """

    def __init__(self, process: subprocess.Popen[bytes], *, port: int) -> None:
        self._process = process
        self.port = port

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    def start(
        cls,
        *,
        data_dir: Path,
        config: Mapping[str, Any],
        main_url: str,
        keys: LocalKeys,
    ) -> EbsProcess:
        """Start it and wait until it listens; raises ``EbsProcessFailed`` with what it said otherwise.

        ``config`` is the config's ``ebs`` object.
        """
        port_file = data_dir / "ebs.port"
        port_file.unlink(missing_ok=True)
        log = data_dir / "logs" / "ebs.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-P", str(_TETHER), str(os.getpid()), "localcloud.ebs.server"),
                    *("--data-dir", str(data_dir / "ebs"), "--config", "-", "--main-url", main_url),
                    *("--port-file", str(port_file)),
                ],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=os.environ | keys.variables() | {"PYTHONPATH": str(Path(__file__).parents[1])},
            )
        assert process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(config).encode())
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                return cls(process, port=int(port_file.read_text()))
            time.sleep(0.02)
        state = f"ended with status {process.returncode}" if process.returncode is not None else "does not listen"
        cls(process, port=0).stop()
        said = log.read_text(errors="replace")[-2000:].strip()
        raise EbsProcessFailed(f"the EBS server {state}; its log ({log}) ends with:\n{said}")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
