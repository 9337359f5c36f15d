"""The demo's second night: files change, the difference follows, and the disk goes to five regions at once."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import pydantic_core
import zstandard
from blockferry.aws.sessions import Aws
from blockferry.cli.operate import Operator
from blockferry.cli.watch import saying
from blockferry.inspection.answer import answer
from blockferry.local.upload import Uploaded, upload_image
from localcloud.state import CloudInfo

from tools.demo_archive import archive_both_nights
from tools.demo_jobs import JobFailed, Night, Say, ended, succeeded
from tools.disk import change_ext4, check_ext4
from tools.readback import client, compare_images, data_blocks, holds_image, restore, same_bytes

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-2", "us-west-2", "eu-central-1")
DOWN = "us-west-2"
LINEAGE = "demo"


def second_night(first_image: Path, first: Uploaded, *, aws: Aws, folder: Path, say: Say) -> Night:
    """Change files on the disk and upload what is different."""
    image, new_file = folder / "disk2.img", folder / "report.bin"
    new_file.write_bytes(Path(pydantic_core.__file__).parent.joinpath("core_schema.py").read_bytes() * 20)
    # The largest files go and a new one comes; what was theirs becomes holes where nothing else shares the block.
    files = [path for path in (folder / "tree").rglob("*") if path.is_file() and not path.is_symlink()]
    largest = sorted(files, key=lambda path: path.stat().st_size)[-2:]
    gone = [str(path.relative_to(folder / "tree")) for path in largest]
    change_ext4(first_image, into=image, new_file=new_file, remove=gone)
    changes = compare_images(first_image, image)
    say(f"changed files: {changes.overwritten} blocks overwritten, {changes.added} new, {changes.zeroed} zeroed")
    uploaded = upload_image(
        image, region=first.region, aws=aws, parent_snapshot_id=first.snapshot_id, description="demo disk, night 2"
    )
    say(f"uploaded {uploaded.blocks} changed blocks as {uploaded.snapshot_id}, on top of {first.snapshot_id}")
    return Night(image, uploaded, changes)


def ferry_second_night(
    first_image: Path, first: Uploaded, *, info: CloudInfo, operator: Operator, aws: Aws, folder: Path, say: Say
) -> dict[str, Any]:
    """Inspect, sync and fan out the second night; what each gave, and the checks of it (all true when all is well)."""
    recovery = info.regions[1]
    night = second_night(first_image, first, aws=aws, folder=folder, say=say)
    checks: dict[str, bool] = {}

    report = succeeded(
        operator,
        "inspect",
        {
            "snapshot_id": night.uploaded.snapshot_id,
            "base_snapshot_id": first.snapshot_id,
            "chain": [first.snapshot_id, night.uploaded.snapshot_id],
            "targets": [{"region": recovery}],
        },
        say,
    )
    delta = report["delta"]
    found = (delta["overwritten_blocks"], delta["added_blocks"], delta["removed_blocks"])
    wanted = (night.changes.overwritten + night.changes.zeroed, night.changes.added, 0)
    checks["inspect counts what a comparison of the two images counts"] = found == wanted
    checks["inspect recommends the sync on top of the first night's copy"] = (
        report["recommendation"]["choice"] == "sync"
    )
    say(f"inspect: {found[0]} blocks overwritten, {found[1]} added; in short:")
    for line in answer(report):
        say(f"  {line}")

    synced = succeeded(
        operator,
        "sync",
        {
            "snapshot_id": night.uploaded.snapshot_id,
            "follow": True,
            "lineage": LINEAGE,
            "targets": [{"region": recovery}],
        },
        say,
    )
    rebuilt = folder / "synced.img"
    restore(client(recovery), synced["targets"][0]["snapshot_id"], rebuilt, size=first_image.stat().st_size)
    checks["sync moved the changed blocks and no others"] = (
        synced["requests"]["PutSnapshotBlock"] == synced["requests"]["GetSnapshotBlock"] == night.changes.total
    )
    checks["the synced snapshot is the changed disk, byte for byte"] = same_bytes(night.image, rebuilt)
    check_ext4(rebuilt)
    rebuilt.unlink()
    made = synced["targets"][0]
    say(f"sync wrote {made['blocks_written']} blocks on top of {made['parent_snapshot_id']}")

    archives = archive_both_nights(
        first.snapshot_id, night, info=info, operator=operator, folder=folder, checks=checks, say=say
    )
    image_fanout = _fan_out_image(night, info=info, operator=operator, folder=folder, checks=checks, say=say)
    snapshot_fanout = _fan_out_snapshot(night, info=info, operator=operator, checks=checks, say=say)
    return {
        "changes": vars(night.changes),
        "inspect": report,
        "sync": synced,
        "archives": archives,
        "fanout_of_image": image_fanout,
        "fanout_of_snapshot": snapshot_fanout,
        "checks": checks,
    }


def _fan_out_image(
    night: Night, *, info: CloudInfo, operator: Operator, folder: Path, checks: dict[str, bool], say: Say
) -> dict[str, Any]:
    packed = folder / "disk2.img.zst"
    with night.image.open("rb") as source, packed.open("wb") as target:
        zstandard.ZstdCompressor(level=1).copy_stream(source, target, size=night.image.stat().st_size)
    bucket = f"{operator.prefix}-demo-images-{operator.account}"
    s3 = boto3.client("s3", region_name=operator.region)
    s3.create_bucket(Bucket=bucket)
    s3.upload_file(str(packed), bucket, packed.name)
    say(f"stored the image as s3://{bucket}/{packed.name}, {packed.stat().st_size / 2**20:.0f} MiB")
    request = {"image_uri": f"s3://{bucket}/{packed.name}", "targets": [{"region": region} for region in REGIONS]}
    receipt = _with_one_region_down(request, info=info, operator=operator, checks=checks, say=say)
    data = data_blocks(night.image)
    checks["all five snapshots of the image are the disk, byte for byte"] = all(
        holds_image(client(target["region"]), target["snapshot_id"], night.image, data=data)
        for target in receipt["targets"]
    )
    checks["no block of zeros was written"] = receipt["changed_blocks"] == len(data)
    say(f"fanout of the image: {receipt['changed_blocks']} blocks to each of {len(REGIONS)} regions, all equal")
    s3.delete_object(Bucket=bucket, Key=packed.name)
    s3.delete_bucket(Bucket=bucket)
    return dict(receipt)


def _with_one_region_down(
    request: Mapping[str, Any], *, info: CloudInfo, operator: Operator, checks: dict[str, bool], say: Say
) -> dict[str, Any]:
    """A job while one region refuses to be written, and its resumption when that is over; its receipt."""
    fault = {
        "operation": "PutSnapshotBlock",
        "region": DOWN,
        "action": "error",
        "status": 403,
        "code": "AccessDeniedException",
    }
    (rule,) = _control(info, "faults", fault)["ids"]
    failed = ended(operator, "fanout", request, say)
    states = {target["region"]: target for target in operator.targets(failed.arn)}
    done = [region for region in REGIONS if states[region]["completed"]]
    say(f"{DOWN} refuses to be written: the job {failed.status}, completed in {', '.join(done)}")
    others = [region for region in REGIONS if region != DOWN]
    checks[f"with {DOWN} down the job failed and the other four were completed"] = (
        failed.status == "FAILED" and done == others
    )
    _control(info, f"faults/{rule}", method="DELETE")
    _control(info, "stats/reset", {})
    operator.resume(failed.arn)
    state = operator.wait(failed.arn, sleep=time.sleep, on_progress=saying(say))
    if state.status != "SUCCEEDED":
        raise JobFailed(f"resumed fanout {state.job_id} {state.status}: {state.error}: {state.cause}")
    receipt: dict[str, Any] = state.output
    written = {name for name, calls in _control(info, "stats")["snapshots"].items() if "PutSnapshotBlock" in calls}
    late = [target["snapshot_id"] for target in receipt["targets"] if target["region"] == DOWN]
    checks["resuming wrote to that region only"] = written == set(late)
    say(f"resumed: {receipt['changed_blocks']} blocks written to {DOWN}, none to the others")
    return receipt


def _fan_out_snapshot(
    night: Night, *, info: CloudInfo, operator: Operator, checks: dict[str, bool], say: Say
) -> dict[str, Any]:
    snapshot_id = night.uploaded.snapshot_id
    _control(info, "stats/reset", {})
    request = {"snapshot_id": snapshot_id, "targets": [{"region": region} for region in REGIONS]}
    receipt = succeeded(operator, "fanout", request, say)
    calls, blocks = _control(info, "stats")["calls"], receipt["allocated_blocks"]
    checks["each block of the snapshot was read once for five targets"] = (
        calls["GetSnapshotBlock"] == receipt["requests"]["GetSnapshotBlock"] == blocks
        and calls["PutSnapshotBlock"] == len(REGIONS) * blocks
    )
    checks["all five hold exactly the snapshot's blocks"] = all(
        _held(info, target["snapshot_id"]) == _held(info, snapshot_id) for target in receipt["targets"]
    )
    say(f"fanout of the snapshot: {calls['GetSnapshotBlock']} reads, {calls['PutSnapshotBlock']} writes")
    return dict(receipt)


def _held(info: CloudInfo, snapshot_id: str) -> list[Any]:
    """Index and SHA-256 of every block, as the EBS server of the local cloud itself holds them."""
    return list(_control(info, f"snapshots/{snapshot_id}/raw-index")["blocks"])


def _control(info: CloudInfo, path: str, body: Any = None, *, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - the local cloud's own address
        f"{info.endpoint_url}/_local/ebs/{path}",
        data,
        method=method or ("GET" if data is None else "POST"),
        headers=info.keys.control_headers(),
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return json.loads(answer.read())
