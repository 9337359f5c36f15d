"""The command ``blockferry``.

Results go to standard output (``--json`` for programs), progress and errors to standard error. Exit status: 0 done,
1 a job or command failed, 2 the command line or the input is unusable, 3 the job is still running (``status``).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from blockferry import __version__
from blockferry.errors import BlockferryError, InvalidRequest
from blockferry.models import parse
from blockferry.operate import JobState, Operator
from blockferry.render import receipt_table, target_line
from blockferry.requests import CopyRequest
from blockferry.sessions import Aws
from blockferry.upload import upload_image

FAILED, UNUSABLE, RUNNING = 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except InvalidRequest as error:
        _say(f"blockferry: {error}")
        return UNUSABLE
    except (BlockferryError, ClientError, BotoCoreError) as error:
        _say(f"blockferry: {error}")
        return FAILED
    except KeyboardInterrupt:
        _say("blockferry: interrupted; a started job goes on, see: blockferry status JOB")
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="blockferry", description="Ferries EBS snapshots, and proves what it moved.")
    parser.add_argument("--version", action="version", version=f"blockferry {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--region", help="region of the state machines (default: the profile's)")
    common.add_argument("--name-prefix", default="blockferry", help="name_prefix of the deployment")
    common.add_argument("--json", action="store_true", help="print one JSON object")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    copy = commands.add_parser("copy", parents=[common], help="copy a snapshot to other regions, accounts or keys")
    copy.add_argument("snapshot_id", nargs="?", help="the snapshot (or give --input)")
    copy.add_argument("--to", action="append", default=[], metavar="REGION", help="target region; repeat for several")
    copy.add_argument(
        "--from", dest="source_region", metavar="REGION", help="region of the snapshot (default: --region)"
    )
    copy.add_argument("--kms-key-arn", help="key of the target; with a single --to only")
    copy.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="tag of the targets; repeatable")
    copy.add_argument("--input", type=Path, metavar="FILE", help="the whole input as JSON ('-': standard input)")
    copy.add_argument("--name", help="job id (default: made from the snapshot and the time)")
    copy.add_argument("--dry-run", action="store_true", help="report requests, bytes and cost; start nothing")
    copy.add_argument("--wait", action="store_true", help="show progress and print the receipt at the end")
    copy.set_defaults(run=_copy)

    for name, run, text in (
        ("status", _status, "show a job; exit status 3 while it is running"),
        ("resume", _resume, "go on with a failed or stopped job"),
        ("stop", _stop, "stop a job; what it has finished stays finished"),
    ):
        command = commands.add_parser(name, parents=[common], help=text)
        command.add_argument("job_id")
        command.add_argument("--operation", default="copy", help="operation of the job")
        if name == "resume":
            command.add_argument("--wait", action="store_true", help="show progress and print the receipt")
        command.set_defaults(run=run)

    upload = commands.add_parser("upload", parents=[common], help="make a snapshot of a raw disk image")
    upload.add_argument("image", type=Path, help="file or block device")
    upload.add_argument("--size-gib", type=int, help="volume size (default: the image's, rounded up)")
    upload.add_argument("--description", default="")
    upload.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE")
    upload.set_defaults(run=_upload)
    return parser


def _copy(options: argparse.Namespace) -> int:
    request = _copy_request(options)
    # The same check as in the first state, before an execution is spent on a typing error.
    parse(CopyRequest, request, what="copy")
    operator = _operator(options)
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    job_id = options.name or f"{request['snapshot_id']}-{started}"
    arn = operator.start("copy", request, job_id=job_id)
    if options.wait or request.get("options", {}).get("dry_run"):
        return _follow(operator, arn, as_json=options.json)
    _print(
        {"job_id": job_id, "execution_arn": arn},
        text=f"started {job_id}\nwatch it with: blockferry status {job_id}",
        as_json=options.json,
    )
    return 0


def _copy_request(options: argparse.Namespace) -> dict[str, Any]:
    if options.input is not None:
        if options.snapshot_id or options.to:
            raise InvalidRequest("--input holds the whole input: leave out the snapshot id and --to")
        text = sys.stdin.read() if str(options.input) == "-" else _read(options.input)
        try:
            request = json.loads(text)
        except ValueError as error:
            raise InvalidRequest(f"{options.input} is not JSON: {error}") from error
        if not isinstance(request, dict):
            raise InvalidRequest(f"{options.input} must hold a JSON object")
        if options.dry_run:
            request["options"] = {**(request.get("options") or {}), "dry_run": True}
        return request
    if not options.snapshot_id or not options.to:
        raise InvalidRequest("name the snapshot and at least one --to REGION, or give --input FILE")
    if options.kms_key_arn and len(options.to) > 1:
        raise InvalidRequest("--kms-key-arn belongs to one region: use it with a single --to, or use --input")
    target: dict[str, Any] = {"tags": _tags(options.tag)}
    if options.kms_key_arn:
        target["kms_key_arn"] = options.kms_key_arn
    request = {"snapshot_id": options.snapshot_id, "targets": [{"region": region, **target} for region in options.to]}
    if options.source_region:
        request["source"] = {"region": options.source_region}
    if options.dry_run:
        request["options"] = {"dry_run": True}
    return request


def _status(options: argparse.Namespace) -> int:
    operator = _operator(options)
    state = operator.state(operator.execution_arn(options.operation, options.job_id))
    return _report(operator, state, as_json=options.json)


def _resume(options: argparse.Namespace) -> int:
    operator = _operator(options)
    arn = operator.execution_arn(options.operation, options.job_id)
    operator.resume(arn)
    if options.wait:
        return _follow(operator, arn, as_json=options.json)
    _print({"job_id": options.job_id, "execution_arn": arn}, text=f"resumed {options.job_id}", as_json=options.json)
    return 0


def _stop(options: argparse.Namespace) -> int:
    operator = _operator(options)
    arn = operator.execution_arn(options.operation, options.job_id)
    state = operator.state(arn)
    if not state.running:
        raise InvalidRequest(f"job {options.job_id} is not running, it is {state.status}")
    operator.stop(arn, reason="stopped by blockferry stop")
    text = f"stopped {options.job_id}; go on with: blockferry resume {options.job_id}"
    _print({"job_id": options.job_id, "execution_arn": arn}, text=text, as_json=options.json)
    return 0


def _upload(options: argparse.Namespace) -> int:
    aws = Aws()
    made = upload_image(
        options.image,
        region=options.region or aws.own_region,
        aws=aws,
        volume_size_gib=options.size_gib,
        description=options.description,
        tags=_tags(options.tag),
    )
    _print(
        vars(made),
        text=f"{made.snapshot_id} in {made.region}: {made.blocks} blocks of {made.volume_size_gib} GiB written",
        as_json=options.json,
    )
    return 0


def _follow(operator: Operator, arn: str, *, as_json: bool) -> int:
    shown = ""

    def progress(state: JobState) -> None:
        nonlocal shown
        line = progress_line(state)
        if line != shown:
            shown = line
            _say(line)

    return _report(operator, operator.wait(arn, sleep=time.sleep, on_progress=progress), as_json=as_json)


def progress_line(state: JobState) -> str:
    """One line of progress: status, and ranges done of all."""
    text = f"{state.job_id}: {state.status}"
    if state.ranges.get("total"):
        text += f", {state.ranges['succeeded']} of {state.ranges['total']} ranges moved"
        if state.ranges.get("failed"):
            text += f", {state.ranges['failed']} failed"
    return text


def _report(operator: Operator, state: JobState, *, as_json: bool) -> int:
    ended_early = state.status != "SUCCEEDED" and not state.running
    targets = operator.targets(state.job_id) if ended_early and state.error != "InvalidRequest" else []
    if as_json:
        result = state.output if state.status == "SUCCEEDED" else {**vars(state), "targets": targets}
        print(json.dumps(result, indent=1, default=dict))
    elif state.status == "SUCCEEDED":
        print(receipt_table(state.output))
    else:
        print("\n".join([progress_line(state), *map(target_line, targets)]))
    if state.status == "SUCCEEDED":
        return 0
    if state.running:
        return RUNNING
    _say(f"{state.error}: {state.cause}")
    if state.error != "InvalidRequest":
        _say(f"what is finished stays finished; go on with: blockferry resume {state.job_id}")
    return FAILED


def _operator(options: argparse.Namespace) -> Operator:
    session = boto3.Session(region_name=options.region)
    if not session.region_name:
        raise InvalidRequest("no region is configured: give --region or set AWS_REGION")
    return Operator.of(region=session.region_name, prefix=options.name_prefix, session=session)


def _tags(pairs: Sequence[str]) -> dict[str, str]:
    tags = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise InvalidRequest(f"--tag {pair!r}: write KEY=VALUE")
        tags[key] = value
    return tags


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from error


def _print(result: dict[str, Any], *, text: str, as_json: bool) -> None:
    print(json.dumps(result, indent=1) if as_json else text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
