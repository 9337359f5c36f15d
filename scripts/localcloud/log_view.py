"""``scripts/cloud logs``: what the server, the EBS server, Terraform and the functions wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from localcloud.state import CloudDirectory

POLL_SECONDS = 0.2
OVERVIEW_LINES = 10


class UnknownLog(LookupError):
    """There is no log of that name; the message lists those there are."""


def log_files(directory: CloudDirectory) -> dict[str, Path]:
    """Logs by the name of the part: ``server``, ``requests``, ``ebs``, ``terraform``, and ``<function>.<region>``."""
    files = {"server": directory.server_log, "terraform": directory.terraform / "terraform.log"}
    files |= {file.stem: file for file in sorted((directory.data / "logs").glob("*.log"))}
    return {name: file for name, file in files.items() if file.is_file()}


def chosen(files: Mapping[str, Path], part: str) -> dict[str, Path]:
    """The log named ``part``, or all logs of the function ``part``; raises ``UnknownLog``."""
    if part in files:
        return {part: files[part]}
    found = {name: file for name, file in files.items() if name.startswith(f"{part}.")}
    if not found:
        names = ", ".join(sorted(files)) or "none: nothing was started yet"
        raise UnknownLog(f"there is no log of {part!r}; there are: {names}")
    return found


def overview(files: Mapping[str, Path], write: Callable[[str], object]) -> None:
    """The last lines of every log."""
    for name, file in files.items():
        lines = file.read_text(errors="replace").splitlines()
        write(f"==> {name} ({file}) <==\n")
        write("".join(f"{line}\n" for line in lines[-OVERVIEW_LINES:]) + "\n")


def show(files: Mapping[str, Path], write: Callable[[str], object], *, follow: bool) -> None:
    """The logs from their beginning; with ``follow``, what is added to them, until interrupted."""
    positions = dict.fromkeys(files, 0)
    several = len(files) > 1
    while True:
        for name, file in files.items():
            with file.open(encoding="utf-8", errors="replace") as opened:
                # One that is bounded begins anew when it is full.
                opened.seek(positions[name] if positions[name] <= file.stat().st_size else 0)
                added = opened.read()
                positions[name] = opened.tell()
            if added:
                write((f"==> {name} <==\n" if several else "") + added)
        if not follow:
            return
        time.sleep(POLL_SECONDS)
