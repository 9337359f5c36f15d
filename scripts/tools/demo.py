"""The demo: a disk image becomes a snapshot, is copied to another region, read back and compared."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blockferry.aws.sessions import Aws
from blockferry.cli.operate import JobState, Operator
from blockferry.cli.render import receipt_table
from blockferry.cli.watch import saying
from blockferry.core.errors import BlockferryError
from blockferry.local.upload import upload_image
from localcloud import lifecycle as cloud
from localcloud.state import CloudInfo

from tools.demo_jobs import JobFailed
from tools.demo_nights import LINEAGE, ferry_second_night
from tools.disk import GIB, DiskFailed, check_ext4, make_ext4, make_tree
from tools.readback import client, compare_blocks, restore, same_bytes

SIZE_GIB = 2

DESCRIPTION = """\
Ferries a real disk from region to region, on this machine, and proves that every copy is identical.

It builds the Lambda functions, starts the local cloud, applies the Terraform, makes an ext4 image of 2 GiB with a
real file tree, uploads it as a snapshot through the EBS direct APIs, runs the state machine blockferry-copy, reads
the copy back with plain boto3, and compares it with the source block by block and byte by byte.

Then files on the disk change: it inspects the difference and what moving it costs, syncs it on top of the copy
(blockferry-sync), archives both nights in a bucket, finds the damage in a copy of an archive, restores the disk
from the archives (blockferry-archive, -verify, -restore), and fans the changed disk out to five regions, from a
compressed image in S3 and from its snapshot (blockferry-fanout), with one region failing at first; each time it
compares what came out with the disk.
"""


class Steps:
    """Says what is being done, with the seconds since the start, on standard error."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{self.seconds():6.1f} s] {text}", file=sys.stderr, flush=True)

    def seconds(self) -> float:
        return time.monotonic() - self._began


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when the copy is identical, 1 when anything differs or fails."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the receipt and the checks as one JSON object")
    parser.add_argument("--keep", action="store_true", help="leave the local cloud running and say how to use it")
    options = parser.parse_args(arguments)
    steps = Steps()
    # As with Ctrl-C: what was started is taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    was_up = cloud.info() is not None
    try:
        steps.say("building, starting the local cloud, applying the Terraform" if not was_up else "the cloud is up")
        info = cloud.up()
        try:
            result = ferry(info, steps, packages=True)
        finally:
            if not options.keep and not was_up:
                steps.say("taking the local cloud down")
                cloud.down()
    except KeyboardInterrupt:
        left = "is down" if cloud.info() is None else "is up, end it with scripts/cloud down"
        print(f"scripts/demo: interrupted; the local cloud {left}", file=sys.stderr)
        return 128 + signal.SIGINT
    except (DiskFailed, BlockferryError, JobFailed, cloud.CloudFailed) as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        return 1
    result["wall_seconds"] = round(steps.seconds(), 1)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print(_table(result))
    if options.keep or was_up:
        print(_how_to_use(info, result), file=sys.stderr)
    return 0 if result["identical"] and all(result.get("second_night", {}).get("checks", {}).values()) else 1


def ferry(info: CloudInfo, steps: Steps, *, packages: bool) -> dict[str, Any]:
    """What the demo shows, in a local cloud that is up; ``packages``: the disk holds the installed packages, too.

    The result says whether the copy is ``identical``, and has the ``checks`` of the ``second_night`` (true when all is
    well). Raises ``DiskFailed``, ``JobFailed``, ``BlockferryError``.
    """
    home, recovery = info.regions[0], info.regions[1]
    os.environ.update(info.environment())
    with tempfile.TemporaryDirectory(prefix="blockferry-demo-") as name:
        folder = Path(name)
        image, tree = folder / "disk.img", folder / "tree"
        tree.mkdir()
        size = make_tree(tree, packages=packages)
        make_ext4(image, tree=tree, size_gib=SIZE_GIB)
        steps.say(f"made an ext4 image of {SIZE_GIB} GiB with {size / 2**20:.0f} MiB of files")

        aws = Aws()
        uploaded = upload_image(image, region=home, aws=aws, description="demo disk", tags={"Name": "demo"})
        steps.say(f"uploaded it to {home} as {uploaded.snapshot_id}: {uploaded.blocks} blocks of 512 KiB")

        job_id = f"demo-{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}"
        operator = Operator.of(region=home)
        state = _copy(operator, uploaded.snapshot_id, recovery, job_id, steps)
        if state.status != "SUCCEEDED":
            return {"identical": False, "status": state.status, "error": state.error, "cause": state.cause}
        receipt = state.output
        copy_id = receipt["targets"][0]["snapshot_id"]

        steps.say(f"reading {copy_id} back from {recovery} with plain boto3")
        source, copy = (client(home), uploaded.snapshot_id), (client(recovery), copy_id)
        compared = compare_blocks(source, copy)
        steps.say(f"compared {compared.blocks} blocks of both snapshots: {len(compared.differences)} differences")
        rebuilt = folder / "copy.img"
        restore(*copy, rebuilt, size=SIZE_GIB * GIB)
        equal = same_bytes(image, rebuilt)
        steps.say(f"compared the image rebuilt from the copy with the original: {'equal' if equal else 'DIFFERENT'}")
        summary = check_ext4(rebuilt)
        steps.say("checked the file system of the copy: clean")
        rebuilt.unlink()
        second = ferry_second_night(
            image, uploaded, info=info, operator=operator, aws=aws, folder=folder, say=steps.say
        )
    checks = {
        "blocks_compared": compared.blocks,
        "block_differences": list(compared.differences),
        "image_bytes_compared": SIZE_GIB * GIB,
        "image_equal": equal,
        "fsck": summary.replace(str(folder) + "/", ""),
        "receipt_blocks_written": receipt["targets"][0]["blocks_written"],
        "uploaded_blocks": uploaded.blocks,
        "checksum_equal": receipt["linear_checksum"] == uploaded.linear_checksum,
    }
    identical = (
        equal
        and not compared.differences
        and compared.blocks == uploaded.blocks == receipt["targets"][0]["blocks_written"]
        and bool(checks["checksum_equal"])
    )
    return {
        "identical": identical,
        "status": state.status,
        "receipt": receipt,
        "checks": checks,
        "second_night": second,
    }


def _copy(operator: Operator, snapshot_id: str, region: str, job_id: str, steps: Steps) -> JobState:
    # Small ranges only so that there is progress to see on a small disk.
    request = {
        "snapshot_id": snapshot_id,
        "targets": [{"region": region}],
        "options": {"blocks_per_range": 256},
        "lineage": LINEAGE,
    }
    arn = operator.start("copy", request, job_id=job_id)
    steps.say(f"started {arn}")
    return operator.wait(arn, sleep=time.sleep, on_progress=saying(steps.say))


def _table(result: dict[str, Any]) -> str:
    if "receipt" not in result:
        return f"the copy {result['status']}: {result['error']}: {result['cause']}"
    checks = result["checks"]
    verdict = "identical" if result["identical"] else "DIFFERENT"
    lines = [
        receipt_table(result["receipt"]),
        "",
        f"copy and source are {verdict}:",
        f"  {checks['blocks_compared']} blocks compared one by one, {len(checks['block_differences'])} differ",
        f"  {checks['image_bytes_compared']} bytes of the rebuilt image compared: "
        + ("equal" if checks["image_equal"] else "DIFFERENT"),
        f"  fsck -n of the rebuilt image: {checks['fsck']}",
        f"  checksum of the copy and of the upload: {'equal' if checks['checksum_equal'] else 'DIFFERENT'}",
        "",
        "the second night:",
        *(f"  {'yes' if passed else 'NO '}  {check}" for check, passed in result["second_night"]["checks"].items()),
        f"  {result['wall_seconds']} s in all",
    ]
    return "\n".join([*lines, *(f"  {difference}" for difference in checks["block_differences"])])


def _how_to_use(info: CloudInfo, result: dict[str, Any]) -> str:
    source = result.get("receipt", {}).get("source", {}).get("snapshot_id", "SNAPSHOT")
    return (
        f"\nThe local cloud is running at {info.endpoint_url}. To use it:\n"
        '  eval "$(scripts/cloud env)"\n'
        f"  .venv/bin/blockferry copy {source} --to {info.regions[1]} --wait\n"
        "  scripts/cloud status | logs | down"
    )
