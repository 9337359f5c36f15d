"""Starting an operation: its input, from options or a file, checked before an execution is spent on a typing error."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blockferry.cli.before import copies_there, refuse_what_is_not_there
from blockferry.cli.console import Command, command_for, operator_of, show
from blockferry.cli.watch import follow
from blockferry.core.errors import InvalidRequest
from blockferry.operations import OPERATIONS
from blockferry.requests.parts import parse

_LONGEST_NAME = 46
"""Characters that a job id takes of the name of what is read; Step Functions takes 80, operation, time and token
included."""

_GIVEN = {
    "subject": "the snapshot or image",
    "to": "--to",
    "source_region": "--from",
    "base": "--base",
    "follow": "--follow",
    "chain": "--chain",
    "verify_parent": "--verify-parent",
    "count_zeros": "--count-zeros",
    "size_gib": "--size-gib",
    "codec": "--codec",
    "image_format": "--format",
    "holes": "--holes",
    "kms_key_arn": "--kms-key-arn",
    "tag": "--tag",
    "archive_id": "--id",
    "storage_class": "--storage-class",
    "level": "--level",
    "segment_blocks": "--segment-blocks",
    "max_chain": "--max-chain",
    "snapshot": "--snapshot",
    "against": "--against",
    "sample": "--sample",
    "seed": "--seed",
    "lineage": "--lineage",
    "as_of": "--as-of",
}
"""Options that make up an input, as an error names them. All are ``None`` when they are not given."""


AddOptions = Callable[[argparse.ArgumentParser], None]
RequestOf = Callable[[argparse.Namespace], dict[str, Any]]


def starting(operation: str, *, add_options: AddOptions, request: RequestOf, examples: tuple[str, ...]) -> Command:
    """The command that starts an operation: ``add_options`` adds its own options, of which ``request`` makes its input.
    Every such command also has ``--input`` and ``--name``."""

    def add_all(command: argparse.ArgumentParser) -> None:
        add_options(command)
        command.add_argument("--input", type=Path, metavar="FILE", help="the whole input as JSON ('-': standard input)")
        command.add_argument("--name", help="job id (default: made from the operation, what is read, and the time)")

    def run(options: argparse.Namespace) -> int:
        return _start(operation, request_of(operation, options, request), options)

    return Command(
        name=operation, summary=OPERATIONS[operation].summary, add_options=add_all, run=run, examples=examples
    )


def request_of(operation: str, options: argparse.Namespace, request: RequestOf) -> dict[str, Any]:
    """The input, checked as the first state checks it. Raises ``InvalidRequest``."""
    made = request(options) if options.input is None else _from_file(options)
    model = OPERATIONS[operation].request
    more = made.get("options")
    if options.dry_run and "dry_run" in model.model_fields:
        made["dry_run"] = True
    elif options.dry_run and (more is None or isinstance(more, dict)):
        made["options"] = {**(more or {}), "dry_run": True}
    parse(model, made, what=operation)
    return made


def _start(operation: str, request: Mapping[str, Any], options: argparse.Namespace) -> int:
    operator = operator_of(options)
    refuse_what_is_not_there(request, home=operator.region, client=operator.ec2)
    there = copies_there(request, home=operator.region, client=operator.ec2)
    if there is not None:
        names = ", ".join(f"{copy['snapshot_id']} in {copy['region']}" for copy in there)
        show(
            {"nothing_to_do": True, "snapshot_id": request["snapshot_id"], "copies": there},
            text=f"nothing to do, and nothing was started: {request['snapshot_id']} has its proved copies: {names}",
            as_json=options.json,
        )
        return 0
    job_id = options.name or job_id_of(operation, request, datetime.now(UTC), secrets.token_hex(3))
    # Before it is started: an interrupt may come when the request is sent and not answered.
    options.job_id = job_id
    arn = operator.start(operation, request, job_id=job_id)
    if options.wait or is_dry_run(request):
        return follow(options, operator, arn)
    show(
        {"job_id": job_id, "execution_arn": arn},
        text=f"started {job_id}\nwatch it with: {command_for('status', job_id, options)}",
        as_json=options.json,
    )
    return 0


def is_dry_run(request: Mapping[str, Any]) -> bool:
    """Whether the job will only report."""
    return bool(request.get("dry_run") or (request.get("options") or {}).get("dry_run"))


def job_id_of(operation: str, request: Mapping[str, Any], now: datetime, token: str) -> str:
    """A job id that tells the operation, what it reads, and when it was started. ``token`` (6 characters) tells it from
    others of the same second, and of images of the same name."""
    read = request.get("snapshot_id") or "/".join((request.get("image_uri") or "").split("/")[-2:])
    read = read or "".join((request.get("manifest_uri") or request.get("foreign_uri") or "").split("/")[-2:-1])
    # What is about all backups of a Region reads nothing that has a name.
    unnamed = "image" if "options" in OPERATIONS[operation].request.model_fields else ""
    read = read or (request.get("chain") or [unnamed])[-1]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", read)[-_LONGEST_NAME:]
    return "-".join(part for part in (operation, name, now.strftime("%Y%m%dT%H%M%SZ"), token) if part)


def _from_file(options: argparse.Namespace) -> dict[str, Any]:
    given = [text for name, text in _GIVEN.items() if getattr(options, name, None) is not None]
    if given:
        raise InvalidRequest(f"--input holds the whole input: leave out {', '.join(given)}")
    text = sys.stdin.read() if str(options.input) == "-" else _read(options.input)
    try:
        request = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"{options.input} is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise InvalidRequest(f"{options.input} must hold a JSON object")
    return request


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not JSON: {error}") from error
