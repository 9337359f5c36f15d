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
from blockferry.aws.sessions import Aws, configured_region
from blockferry.cli.operate import OPERATIONS, JobState, Operator
from blockferry.cli.render import holes_line, receipt_table, target_line, upload_table
from blockferry.cli.render_inspection import inspection_report
from blockferry.cli.requests import add_format, add_holes, add_options, is_dry_run, job_id_of, request_of, tags_of
from blockferry.core.errors import BlockferryError, InvalidRequest
from blockferry.core.holes import HolePolicy
from blockferry.local.estimate import estimate_upload
from blockferry.local.upload import upload_image

FAILED, UNUSABLE, RUNNING = 1, 2, 3

_PREFIX = "blockferry"

_STARTED = {
    "copy": "copy a snapshot to other regions, accounts or keys",
    "sync": "copy what changed between two snapshots, on top of earlier copies",
    "fanout": "make snapshots in many regions of a disk image in S3, or of a snapshot",
    "inspect": "report blocks, changes, and what copying or keeping would cost; makes nothing",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except InvalidRequest as error:
        _say(_told(error))
        return UNUSABLE
    except (BlockferryError, ClientError, BotoCoreError) as error:
        _say(_told(error))
        return FAILED
    except KeyboardInterrupt as interrupt:
        _say(f"blockferry: interrupted; {'; '.join(getattr(interrupt, '__notes__', ())) or options.interrupted}")
        return FAILED


def _told(error: Exception) -> str:
    """The error, and what its notes say became of what was started."""
    return "; ".join((f"blockferry: {error}", *getattr(error, "__notes__", ())))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="blockferry", description="Ferries EBS snapshots, and proves what it moved.")
    parser.add_argument("--version", action="version", version=f"blockferry {__version__}")
    parser.set_defaults(interrupted="a started job goes on, see: blockferry status JOB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--region", help="region of the state machines, or of the upload (default: the configured one)")
    common.add_argument(
        "--name-prefix",
        metavar="NAME",
        default="blockferry",
        help="name_prefix of the deployment (default: blockferry)",
    )
    common.add_argument("--json", action="store_true", help="print one JSON object")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for operation, text in _STARTED.items():
        command = commands.add_parser(operation, parents=[common], help=text)
        add_options(command, operation)
        command.set_defaults(run=_start, operation=operation)

    for name, run, text in (
        ("status", _status, "show a job; exit status 3 while it is running"),
        ("resume", _resume, "go on with a failed or stopped job"),
        ("stop", _stop, "stop a job; what it has finished stays finished"),
    ):
        command = commands.add_parser(name, parents=[common], help=text)
        command.add_argument("job_id", metavar="JOB", help="job id, as printed when the job was started")
        command.add_argument("--operation", choices=OPERATIONS, help="of the job, where several have one of this id")
        if name == "resume":
            command.add_argument("--wait", action="store_true", help="show progress and print the receipt")
        command.set_defaults(run=run)

    upload = commands.add_parser("upload", parents=[common], help="make a snapshot of a raw disk image")
    upload.add_argument("image", type=Path, metavar="IMAGE", help="file or block device")
    upload.add_argument("--parent", metavar="SNAPSHOT", help="put only what differs from this one, on top of it")
    upload.add_argument(
        "--size-gib", type=int, metavar="N", help="volume size (default: the image's, rounded up, or the parent's)"
    )
    add_format(upload)
    upload.add_argument("--description", metavar="TEXT", default="", help="of the snapshot, up to 255 characters")
    upload.add_argument("--tag", action="append", metavar="KEY=VALUE", help="tag of the snapshot; repeatable")
    add_holes(upload)
    upload.add_argument("--dry-run", action="store_true", help="read the image, report blocks and cost; start nothing")
    upload.set_defaults(run=_upload, interrupted="nothing was started")
    return parser


def _start(options: argparse.Namespace) -> int:
    request = request_of(options.operation, options)
    operator = _operator(options)
    job_id = options.name or job_id_of(options.operation, request, datetime.now(UTC))
    arn = operator.start(options.operation, request, job_id=job_id)
    if options.wait or is_dry_run(request):
        return _follow(options, operator, arn)
    _print(
        {"job_id": job_id, "execution_arn": arn},
        text=f"started {job_id}\nwatch it with: {_command('status', job_id, options)}",
        as_json=options.json,
    )
    return 0


def _status(options: argparse.Namespace) -> int:
    operator = _operator(options)
    return _report(options, operator, operator.find(options.job_id, options.operation))


def _resume(options: argparse.Namespace) -> int:
    operator = _operator(options)
    state = operator.find(options.job_id, options.operation)
    if state.refused:
        raise InvalidRequest(
            f"job {options.job_id} was refused, there is nothing to resume; mend what it names and start a new job: "
            f"{_reason(state)}"
        )
    operator.resume(state.arn)
    if options.wait:
        return _follow(options, operator, state.arn)
    _print(
        {"job_id": options.job_id, "execution_arn": state.arn}, text=f"resumed {options.job_id}", as_json=options.json
    )
    return 0


def _stop(options: argparse.Namespace) -> int:
    operator = _operator(options)
    state = operator.find(options.job_id, options.operation)
    if not state.running:
        raise InvalidRequest(f"job {options.job_id} is not running, it is {state.status}")
    operator.stop(state.arn, reason="stopped by blockferry stop")
    text = f"stopped {options.job_id}; go on with: {_command('resume', options.job_id, options)}"
    _print({"job_id": options.job_id, "execution_arn": state.arn}, text=text, as_json=options.json)
    return 0


def _upload(options: argparse.Namespace) -> int:
    aws = Aws()
    region, holes = _region(options, aws.base), None if options.holes is None else HolePolicy(options.holes)
    if options.dry_run:
        estimate = estimate_upload(
            options.image,
            region=region,
            aws=aws,
            volume_size_gib=options.size_gib,
            parent_snapshot_id=options.parent,
            holes=holes,
            image_format=options.image_format,
        )
        _print(estimate, text=upload_table(estimate), as_json=options.json)
        return 0
    made = upload_image(
        options.image,
        region=region,
        aws=aws,
        volume_size_gib=options.size_gib,
        parent_snapshot_id=options.parent,
        holes=holes,
        description=options.description,
        tags=tags_of(options.tag),
        image_format=options.image_format,
    )
    text = f"{made.snapshot_id} in {made.region}, {made.volume_size_gib} GiB: {made.blocks} blocks written"
    if made.parent_snapshot_id is not None:
        text += f" on top of {made.parent_snapshot_id}"
    text += f"\nholes: {holes_line(vars(made))}"
    for warning in made.warnings:
        _say(f"warning: {warning['message']}")
    _print(vars(made), text=text, as_json=options.json)
    return 0


def _follow(options: argparse.Namespace, operator: Operator, arn: str) -> int:
    shown = ""

    def progress(state: JobState) -> None:
        nonlocal shown
        line = progress_line(state)
        if line != shown:
            shown = line
            _say(line)

    return _report(options, operator, operator.wait(arn, sleep=time.sleep, on_progress=progress))


def progress_line(state: JobState) -> str:
    """One line of progress: status, and ranges done of all."""
    text = f"{state.job_id}: {state.status}"
    if state.ranges.get("total"):
        text += f", {state.ranges['succeeded']} of {state.ranges['total']} ranges moved"
        if state.ranges.get("failed"):
            text += f", {state.ranges['failed']} failed"
    return text


def _report(options: argparse.Namespace, operator: Operator, state: JobState) -> int:
    succeeded = state.status == "SUCCEEDED"
    targets = [] if succeeded or state.running or state.refused else operator.targets(state.job_id)
    if options.json:
        result = state.output if succeeded else {**vars(state), "operation": state.operation, "targets": targets}
        print(json.dumps(result, indent=1, default=dict))
    elif succeeded:
        print(_outcome(state.output))
    else:
        print("\n".join([progress_line(state), *map(target_line, targets)]))
    if succeeded:
        return 0
    if state.running:
        return RUNNING
    _say(f"{state.error or state.status}: {_reason(state) or 'Step Functions gives no cause'}")
    if not state.refused:
        _say(f"what is finished stays finished; go on with: {_command('resume', state.job_id, options)}")
    return FAILED


def _reason(state: JobState) -> str | None:
    """The cause without what Lambda puts around the message of a function: its stack trace, as one line of JSON."""
    try:
        told = json.loads(state.cause or "")
    except ValueError:
        return state.cause
    return str(told["errorMessage"]) if isinstance(told, dict) and "errorMessage" in told else state.cause


def _outcome(output: Any) -> str:
    return inspection_report(output) if output["operation"] == "inspect" else receipt_table(output)


def _command(verb: str, job_id: str, options: argparse.Namespace) -> str:
    """The command that does it to this job, in the deployment that this one was told to use."""
    place = [] if options.region is None else ["--region", options.region]
    if options.name_prefix != _PREFIX:
        place += ["--name-prefix", options.name_prefix]
    return " ".join(["blockferry", verb, job_id, *place])


def _operator(options: argparse.Namespace) -> Operator:
    session = boto3.Session()
    return Operator.of(region=_region(options, session), prefix=options.name_prefix, session=session)


def _region(options: argparse.Namespace, session: boto3.Session) -> str:
    region: str | None = options.region or configured_region(session)
    if region is None:
        raise InvalidRequest("no region is configured: give --region, or set AWS_REGION or the region of the profile")
    return region


def _print(result: dict[str, Any], *, text: str, as_json: bool) -> None:
    print(json.dumps(result, indent=1) if as_json else text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
