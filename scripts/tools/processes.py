"""Run the commands of the checks: output kept, a time limit on each, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# A hanging test must fail with its output while CI still has time to show it.
LONGEST_COMMAND_SECONDS = 900.0
GRACE_SECONDS = 10.0


class CommandFailed(Exception):
    """A command ended with another status than 0, or not in time; the message has its output."""


@dataclass
class Commands:
    """Runs commands in one folder; ``stop`` ends those that are under way, with their children."""

    directory: Path
    environment: Mapping[str, str]
    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def run(
        self,
        *command: str | Path,
        timeout_seconds: float = LONGEST_COMMAND_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run one command and return what it printed (both streams). Raises CommandFailed."""
        line = [str(part) for part in command]
        with self._lock:
            if self._stopped:
                raise CommandFailed(f"{line[0]}: not started, the run was interrupted")
            process = subprocess.Popen(
                line,
                cwd=self.directory,
                env={**self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # a group of its own, so that its children end with it
            )
            self._running.add(process)
        try:
            output, _ = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            output, _ = process.communicate()
            raise CommandFailed(
                f"{output}\n{' '.join(line)}: stopped, it did not end within {timeout_seconds:.0f} s"
            ) from None
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode:
            raise CommandFailed(f"{output.rstrip()}\n{_shown(line)}: status {process.returncode}")
        return output

    def stop(self) -> None:
        """End every command that is under way, and start no more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _end(process)


def _shown(line: Sequence[str]) -> str:
    text = " ".join([Path(line[0]).name, *line[1:]])
    return text if len(text) <= 200 else f"{text[:200]}..."


def _end(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if number is signal.SIGTERM:
            continue  # the leader is gone, children that ignored the signal may not be
        return
