"""The policies that Terraform made are what functions and machines really live on in the local cloud."""

from __future__ import annotations

import contextlib
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from blockferry.aws.sessions import Aws
from blockferry.cli.operate import JobState, Operator
from blockferry.core.errors import BlockferryError, SourceChanged
from blockferry.local.archive import archive_image
from blockferry.local.discard import discard_left
from blockferry.local.upload import upload_image
from blockferry.requests.archive import LocalArchiveRequest
from blockferry.requests.parts import parse
from botocore.exceptions import ClientError
from cloud_rig import PALETTE, CloudRig, filled
from rig import hashes
from tools.environment import repository_root

PREFIX = "blockferry"
FUNCTIONS = sorted(file.parent.name for file in (repository_root() / "functions").glob("*/permissions.json"))

CONDITIONAL = {
    ("*", "kms:"): "encrypted snapshots only; which of these actions EBS uses is its own business",
    ("*", "sts:AssumeRole"): "jobs between accounts only",
    ("*", "s3:ListBucket"): "S3 asks for it only where a record is missing",
    ("plan_transfer", "ec2:DeleteSnapshot"): "targets that cannot be used only",
    ("plan_transfer", "s3:AbortMultipartUpload"): "jobs that are refused after an object was begun only",
    ("plan_transfer", "s3:ListMultipartUploadParts"): "jobs that are planned again after an object was begun only",
    ("complete_transfer", "s3:AbortMultipartUpload"): "jobs that a worker has refused only",
    ("complete_transfer", "ebs:StartSnapshot"): "targets that could not be started when the job was planned only",
    ("complete_transfer", "s3:DeleteObject"): "jobs with a target that could not be written for a while only",
    ("complete_transfer", "ebs:List"): "ranges that nobody has counted behind their worker only",
    ("complete_transfer", "ec2:DeleteSnapshot"): "jobs that a worker has refused only",
    ("inspect_snapshots", "s3:GetObject"): "reports that a call before has stored only",
    ("move_blocks", "s3:DeleteObject"): "ranges that take more than some seconds only",
    ("unpack_image", "s3:DeleteObject"): "images that were replaced only",
    ("mark_expired", "ec2:DeleteTags"): "backups that were marked and may stay only",
    ("plan_replication", "states:DescribeExecution"): "runs beside others only",
    ("copy_backups", "ec2:DescribeSnapshots"): "copies that are claimed, or requests that are not answered only",
    ("take_backups", "ec2:DescribeSnapshots"): "sets that are claimed, or requests that are not answered only",
    ("take_backups", "states:DescribeExecution"): "sets that another run has claimed only",
    ("sweep_jobs", ""): "jobs that were left behind only; a sweep that finds none lists and reads records",
}
"""Declared actions, by function and beginning, that one job of each operation does not need."""


def declared(function: str) -> set[str]:
    return set(json.loads((repository_root() / "functions" / function / "permissions.json").read_text())["actions"])


def used(cloud: CloudRig, function: str) -> set[str]:
    """What the local cloud saw the function do, in both regions, since it is up."""
    name = f"{PREFIX}-{function.replace('_', '-')}"
    return {
        call["action"]
        for call in cloud.control("iam/calls")["calls"]
        for region in cloud.info.regions
        if call["principal"].endswith(f":{cloud.info.account_id}:assumed-role/{name}-{region}/{name}")
    }


def request(cloud: CloudRig, source: str) -> dict[str, Any]:
    return {"snapshot_id": source, "targets": [{"region": cloud.recovery}], "options": {}}


@contextlib.contextmanager
def without(cloud: CloudRig, role: str, action: str) -> Iterator[None]:
    """The role's policy without one action, which has to be in it."""
    iam = cloud.client("iam")
    before = iam.get_role_policy(RoleName=role, PolicyName="calls")["PolicyDocument"]
    statements = []
    found = False
    for statement in before["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        found = found or action in actions
        if kept := [each for each in actions if each != action]:
            statements.append({**statement, "Action": kept})
    assert found, f"{role} has no {action}"
    after = json.dumps({**before, "Statement": statements})
    iam.put_role_policy(RoleName=role, PolicyName="calls", PolicyDocument=after)
    try:
        yield
    finally:
        iam.put_role_policy(RoleName=role, PolicyName="calls", PolicyDocument=json.dumps(before))


def causes_of(cloud: CloudRig, state: JobState) -> list[str]:
    """The job's own cause, and those of the workers in its maps, which the job's does not repeat."""
    states = cloud.client("stepfunctions")
    causes = [state.cause or ""]
    for run in states.list_map_runs(executionArn=state.arn)["mapRuns"]:
        children = states.list_executions(mapRunArn=run["mapRunArn"])["executions"]
        causes += [states.describe_execution(executionArn=child["executionArn"]).get("cause", "") for child in children]
    return causes


def test_functions_act_as_their_own_roles_and_a_copy_needs_no_more_than_they_have(cloud: CloudRig) -> None:
    blocks = filled(70)
    source = cloud.snapshot(blocks)
    receipt = cloud.copy(request(cloud, source))
    assert cloud.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)
    for call in cloud.control("iam/calls")["calls"]:
        if call["action"] == "ebs:PutSnapshotBlock" and call["principal"].endswith("-move-blocks"):
            assert f"assumed-role/{PREFIX}-move-blocks-{cloud.home}/" in call["principal"]
            break
    else:
        pytest.fail("no block was written under the role of move_blocks")


@pytest.mark.parametrize(
    ("function", "action"),
    [
        ("plan_transfer", "ebs:StartSnapshot"),
        ("plan_transfer", "ec2:CreateTags"),
        ("move_blocks", "ebs:GetSnapshotBlock"),
        ("move_blocks", "ebs:PutSnapshotBlock"),
        ("complete_transfer", "ebs:CompleteSnapshot"),
        ("complete_transfer", "s3:ListBucket"),
        ("write_receipt", "s3:PutObject"),
        ("check_targets", "ec2:DescribeSnapshots"),
    ],
)
def test_a_copy_whose_function_lacks_one_action_fails_and_names_it(cloud: CloudRig, function: str, action: str) -> None:
    source = cloud.snapshot(filled(3))
    with without(cloud, f"{PREFIX}-{function.replace('_', '-')}-{cloud.home}", action):
        state = cloud.ended(cloud.start(request(cloud, source)))
    assert state.status == "FAILED"
    # The execution itself says so, whichever step it was, and shows no page of file names: as plain text where nothing
    # was started, else as the error of the function.
    told = state.cause or ""
    if state.error != "InvalidRequest":
        error = json.loads(told)
        assert error["stackTrace"] == []
        told = error["errorMessage"]
    assert f"is not authorized to perform: {action}" in told


@pytest.mark.parametrize("action", ["lambda:InvokeFunction", "s3:GetObject", "s3:PutObject", "states:StartExecution"])
def test_a_copy_whose_machine_lacks_one_action_fails_and_names_it(cloud: CloudRig, action: str) -> None:
    source = cloud.snapshot(filled(3))
    with without(cloud, f"{PREFIX}-copy-machine-{cloud.home}", action):
        state = cloud.ended(cloud.start(request(cloud, source)))
    assert state.status == "FAILED"
    causes = causes_of(cloud, state)
    assert any(f"is not authorized to perform: {action}" in cause for cause in causes), causes


@contextlib.contextmanager
def somebody_with(cloud: CloudRig, policy: str) -> Iterator[boto3.Session]:
    """The session of a person who has this one policy of the deployment and nothing else."""
    iam, name = cloud.client("iam"), f"somebody-with-{policy}"
    arn = f"arn:aws:iam::{cloud.info.account_id}:policy/{PREFIX}-{policy}"
    trust = {"Effect": "Allow", "Principal": {"AWS": cloud.info.account_id}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.attach_role_policy(RoleName=name, PolicyArn=arn)
    try:
        keys = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName=policy)["Credentials"]
        yield boto3.Session(
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["SessionToken"],
            region_name=cloud.home,
        )
    finally:
        iam.detach_role_policy(RoleName=name, PolicyArn=arn)
        iam.delete_role(RoleName=name)


@pytest.fixture
def operator(cloud: CloudRig) -> Iterator[Operator]:
    """A person with the policy for operators and nothing else."""
    with somebody_with(cloud, "operator") as session:
        yield Operator.of(region=cloud.home, session=session)


def test_the_policy_for_uploaders_is_enough_to_upload_and_to_clean_up_and_reaches_no_target_of_a_job(
    cloud: CloudRig, tmp_path: Path
) -> None:
    blocks = filled(5)
    first, second = tmp_path / "first.img", tmp_path / "second.img"
    first.write_bytes(b"".join(content for _, content in sorted(blocks.items())))
    second.write_bytes(first.read_bytes()[: -len(PALETTE[0])] + bytes(len(PALETTE[0])))
    target = cloud.ended(cloud.start(request(cloud, cloud.snapshot(blocks)))).output["targets"][0]["snapshot_id"]
    with somebody_with(cloud, "uploader") as session:
        aws = Aws(base=session)
        made = upload_image(first, region=cloud.home, aws=aws)
        on_top = upload_image(second, region=cloud.home, aws=aws, parent_snapshot_id=made.snapshot_id)
        broken = {"operation": "CompleteSnapshot", "action": "error", "status": 403, "code": "AccessDeniedException"}
        cloud.control("ebs/faults", broken)
        try:
            with pytest.raises(BlockferryError) as failed:
                upload_image(second, region=cloud.home, aws=aws)
        finally:
            cloud.control("ebs/faults", method="DELETE")
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            session.client("ec2", region_name=cloud.recovery).delete_snapshot(SnapshotId=target)
    (note,) = failed.value.__notes__
    assert note.startswith("the unfinished snapshot snap-")
    assert note.endswith(" is deleted")
    assert (made.blocks, made.warnings, on_top.blocks, on_top.warnings) == (5, (), 1, ())


def test_the_policy_for_archivers_is_enough_to_archive_and_to_clean_up_and_no_more(
    cloud: CloudRig, tmp_path: Path
) -> None:
    image, work = tmp_path / "disk.img", cloud.info.buckets[cloud.home]["work"]
    bucket = cloud.info.buckets[cloud.home]["archive"]
    image.write_bytes(b"".join(content for _, content in sorted(filled(5).items())))

    def asked(archive_id: str, *, base: str | None = None) -> LocalArchiveRequest:
        place = {"bucket": bucket, "prefix": "somebody", "archive_id": archive_id, "tags": {"keep": "7y"}}
        return parse(LocalArchiveRequest, {"archive": place, "base_manifest_uri": base}, what="archive")

    def changed(_uri: str) -> None:
        image.write_bytes(image.read_bytes()[: -len(PALETTE[0])])

    s3 = cloud.client("s3")
    claim = {"execution": "e" * 64, "job_id": "local-e", "machine": "another one"}
    s3.put_object(Bucket=bucket, Key="somebody/dead/unfinished.json", Body=json.dumps(claim).encode())
    with somebody_with(cloud, "archiver") as session:
        aws = Aws(base=session)
        made = archive_image(image, asked("first"), region=cloud.home, aws=aws)
        uri = made["manifest_uri"]
        on_top = archive_image(image, asked("second", base=uri), region=cloud.home, aws=aws)
        with pytest.raises(SourceChanged) as failed:
            archive_image(image, asked("third"), region=cloud.home, aws=aws, on_start=changed)
        discarded = discard_left(f"s3://{bucket}/somebody/dead/", region=cloud.home, aws=aws)
        mine = session.client("s3")
        for refused in (
            lambda: mine.delete_object(Bucket=bucket, Key="somebody/first/manifest.json"),
            lambda: mine.get_object(Bucket=bucket, Key="somebody/first/segments/0000000000.zst"),
            lambda: mine.put_object(Bucket=bucket, Key="somebody/first/other", Body=b""),
            lambda: mine.put_object(Bucket=work, Key="jobs/archive/nightly/manifest.json", Body=b""),
        ):
            with pytest.raises(ClientError, match="AccessDenied"):
                refused()
    assert failed.value.__notes__ == [f"what was begun of archive s3://{bucket}/somebody/third/ is deleted"]
    assert (made["changed_blocks"], made["warnings"], on_top["changed_blocks"]) == (5, [], 0)
    assert not discarded.finished
    left = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket, Prefix="somebody/")["Contents"]]
    assert left == [
        "somebody/dead/manifest.json",
        "somebody/first/index/0000000000.idx",
        "somebody/first/manifest.json",
        "somebody/first/segments/0000000000.zst",
        "somebody/second/manifest.json",
    ]


def test_the_policy_for_operators_is_enough_to_start_follow_stop_and_resume_jobs(
    cloud: CloudRig, operator: Operator
) -> None:
    blocks = filled(300)
    source = cloud.snapshot(blocks)
    wanted = {**request(cloud, source), "options": {"blocks_per_range": 100, "max_concurrency": 1}}
    cloud.control("ebs/config", {"latency_ms": 40})
    try:
        arn = operator.start("copy", wanted, job_id="operators-job")
        cloud.until(lambda: operator.state(arn).ranges.get("succeeded", 0) >= 1)
        operator.stop(arn, reason="test")
        cloud.until(lambda: not operator.state(arn).running)
    finally:
        cloud.control("ebs/config", {"latency_ms": 0})
    assert operator.targets(arn) == []  # there is no such record yet, and the operator is told so
    operator.resume(arn)
    cloud.until(lambda: not operator.state(arn).running)
    state = operator.state(arn)
    assert state.status == "SUCCEEDED", state.cause
    assert cloud.held(state.output["targets"][0]["snapshot_id"]) == hashes(blocks)
    assert operator.targets(arn) != []
    with pytest.raises(ClientError, match="s3:GetObject"):
        operator.s3.get_object(
            Bucket=cloud.info.buckets[cloud.home]["work"], Key="jobs/copy/operators-job/plan/ranges.jsonl"
        )


def test_an_operator_sets_the_speed_of_a_job_whose_workers_tell_that_they_run(
    cloud: CloudRig, operator: Operator
) -> None:
    blocks = filled(40)
    # One range, whose blocks may be 8,192: long enough for the worker to tell others of itself.
    wanted = request(cloud, cloud.snapshot(blocks, size_gib=4))
    wanted["options"] = {"blocks_per_range": 8_192, "max_concurrency": 1}
    job = ("copy", f"paced-{time.monotonic_ns()}")
    operator.running.set_speed(job, 8)
    arn = operator.start("copy", wanted, job_id=job[1])
    cloud.until(lambda: operator.running.look().workers.get(job, 0) == 1)
    assert operator.running.look().pace(job) == 8
    state = cloud.ended(arn)
    assert state.status == "SUCCEEDED", state.cause
    assert cloud.held(state.output["targets"][0]["snapshot_id"]) == hashes(blocks)
    # Forty blocks at eight a second, but for the first second's.
    assert state.output["duration_seconds"] >= 4
    assert operator.running.look().workers.get(job, 0) == 0
    operator.running.set_speed(job, None)
    assert operator.running.look().speeds == {}


def test_nobody_but_the_deployment_writes_or_deletes_records_of_jobs(cloud: CloudRig) -> None:
    receipt = cloud.copy(request(cloud, cloud.snapshot(filled(2))))
    s3, bucket = cloud.client("s3"), cloud.info.buckets[cloud.home]["work"]
    key = receipt["receipt_uri"].removeprefix(f"s3://{bucket}/")
    before = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    for planted in (
        key,
        "jobs/copy/x/plan/job.json",
        f"jobs/copy/{receipt['job_id']}/moved/refused.txt",
        "running/leases/copy/x/0000000000",
    ):
        with pytest.raises(ClientError, match=r"s3:PutObject.*explicit deny in a resource-based policy"):
            s3.put_object(Bucket=bucket, Key=planted, Body=b"{}")
    with pytest.raises(ClientError, match=r"s3:DeleteObject.*explicit deny in a resource-based policy"):
        s3.delete_object(Bucket=bucket, Key=key)
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == before


def test_an_encrypted_copy_needs_the_keys_and_only_through_ebs(cloud: CloudRig) -> None:
    blocks = filled(5)
    keys = {region: cloud.client("kms", region).create_key()["KeyMetadata"]["Arn"] for region in cloud.info.regions}
    source = cloud.snapshot(blocks, kms_key_arn=keys[cloud.home])
    wanted = request(cloud, source)
    wanted["targets"][0]["kms_key_arn"] = keys[cloud.recovery]
    receipt = cloud.copy(wanted)
    target = receipt["targets"][0]["snapshot_id"]
    assert cloud.held(target) == hashes(blocks)
    assert {"kms:CreateGrant", "kms:GenerateDataKeyWithoutPlaintext"} <= used(cloud, "plan_transfer")
    assert "kms:Decrypt" in used(cloud, "move_blocks")
    with without(cloud, f"{PREFIX}-plan-transfer-{cloud.home}", "kms:CreateGrant"):
        state = cloud.ended(cloud.start(wanted))
    assert state.status == "FAILED"
    assert any("is not authorized to perform: kms:CreateGrant" in cause for cause in causes_of(cloud, state))


def test_an_archive_needs_the_key_of_its_bucket_and_goes_on_when_the_worker_may_use_it(cloud: CloudRig) -> None:
    source = cloud.snapshot(filled(3))
    key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    with cloud.bucket(kms_key_arn=key) as bucket:
        with without(cloud, f"{PREFIX}-move-blocks-{cloud.home}", "kms:GenerateDataKey"):
            arn = cloud.start({"snapshot_id": source, "archive": {"bucket": bucket}}, operation="archive")
            state = cloud.ended(arn)
        assert state.status == "FAILED"
        denied = f"is not authorized to perform: kms:GenerateDataKey on resource: {key}"
        assert any(denied in cause for cause in causes_of(cloud, state))
        objects = cloud.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
        assert [each["Key"].rpartition("/")[2] for each in objects] == ["unfinished.json"]
        cloud.operator.resume(arn)
        state = cloud.ended(arn)
        assert state.status == "SUCCEEDED", state.cause
        uri = state.output["manifest_uri"]
        assert cloud.run("verify", {"manifest_uri": uri})["findings"] == 0
        (made,) = cloud.run("restore", {"manifest_uri": uri, "targets": [{"region": cloud.recovery}]})["targets"]
        assert cloud.held(made["snapshot_id"]) == hashes(filled(3))
        assert {"kms:Decrypt", "kms:GenerateDataKey"} <= used(cloud, "move_blocks")
        assert "kms:GenerateDataKey" in used(cloud, "complete_transfer")
        assert "kms:Decrypt" in used(cloud, "verify_blocks")


@contextlib.contextmanager
def resume_window_of_no_time(cloud: CloudRig) -> Iterator[str]:
    """The sweeper takes every job that ended without a receipt as given up."""
    name, lambdas = f"{PREFIX}-sweep-jobs", cloud.client("lambda")
    before = lambdas.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    now = {"Variables": {**before, "BLOCKFERRY_RESUME_WINDOW_HOURS": "0"}}
    lambdas.update_function_configuration(FunctionName=name, Environment=now)
    try:
        yield name
    finally:
        lambdas.update_function_configuration(FunctionName=name, Environment={"Variables": before})


def test_the_sweeper_may_take_away_what_an_abandoned_job_left(cloud: CloudRig) -> None:
    source = cloud.snapshot(filled(3))
    before = set(cloud.snapshots())
    with without(cloud, f"{PREFIX}-move-blocks-{cloud.home}", "ebs:PutSnapshotBlock"):
        state = cloud.ended(cloud.start(request(cloud, source)))
    assert state.status == "FAILED"
    (target,) = set(cloud.snapshots()) - before
    with resume_window_of_no_time(cloud) as name:
        answer = cloud.client("lambda").invoke(FunctionName=name, Payload=b"{}")
    result = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, result
    assert state.job_id in result["swept"]
    assert target in result["deleted_snapshots"]
    assert target not in cloud.snapshots()
    sweeping = {"ec2:DeleteSnapshot", "ec2:DescribeSnapshots", "s3:DeleteObject", "s3:PutObject"}
    assert sweeping | {"states:DescribeExecution"} <= used(cloud, "sweep_jobs")


def one_job_of_each_operation(cloud: CloudRig) -> None:
    base = cloud.snapshot(filled(3))
    parent = cloud.copy(request(cloud, base))["targets"][0]["snapshot_id"]
    snapshot = cloud.snapshot({1: PALETTE[9]}, parent_snapshot_id=base)
    targets = [{"region": cloud.recovery, "parent_snapshot_id": parent}]
    cloud.run("sync", {"base_snapshot_id": base, "snapshot_id": snapshot, "targets": targets})
    cloud.run("inspect", {"snapshot_id": snapshot, "base_snapshot_id": base, "options": {"count_zeros": True}})
    place = {"bucket": cloud.info.buckets[cloud.home]["archive"], "prefix": "permissions", "tags": {"keep": "7y"}}
    archive = cloud.run("archive", {"snapshot_id": snapshot, "archive": place})["manifest_uri"]
    cloud.run("verify", {"manifest_uri": archive, "snapshot_id": snapshot})
    cloud.run("restore", {"manifest_uri": archive, "targets": [{"region": cloud.recovery, "encrypted": False}]})
    with cloud.bucket() as images:
        for key, body in (("disk.img", PALETTE[0]), ("disk.img.gz", gzip.compress(PALETTE[0]))):
            cloud.client("s3").put_object(Bucket=images, Key=key, Body=body)
            cloud.run("fanout", {"image_uri": f"s3://{images}/{key}", "targets": [{"region": cloud.recovery}]})


def pending_backups(cloud: CloudRig) -> list[Any]:
    wanted = [{"Name": "tag:Type", "Values": ["Automated"]}, {"Name": "status", "Values": ["pending"]}]
    found: list[Any] = cloud.client("ec2").describe_snapshots(OwnerIds=["self"], Filters=wanted)["Snapshots"]
    return found


def nights_of_backups(cloud: CloudRig) -> None:
    """Two nights of an instance and of a volume by itself, and what there is of them at the end of the year."""
    alone = cloud.client("ec2").create_volume(AvailabilityZone=f"{cloud.home}a", Size=1)["VolumeId"]
    asks = [{"Key": "Backup", "Value": "Yes"}]
    cloud.client("ec2").create_tags(Resources=[alone], Tags=asks)
    with cloud.instance(Backup="Yes", Copy_Dest=cloud.recovery):
        for day in (1, 2):
            cloud.run("backup", {"as_of": f"2026-03-0{day}T02:00:00Z"})
            # A snapshot is a second younger than the one before.
            cloud.control("clock", {"advance": 1})
            cloud.until(lambda: pending_backups(cloud) == [])
            cloud.run("replicate", {"as_of": f"2026-03-0{day}T03:00:00Z"})
        for _ in range(2):
            cloud.run("expire", {"as_of": "2026-12-31T05:00:00Z"})
    cloud.client("ec2").delete_tags(Resources=[alone], Tags=asks)


def test_functions_use_only_what_they_declare_and_whatever_else_they_declare_has_a_reason(cloud: CloudRig) -> None:
    one_job_of_each_operation(cloud)
    nights_of_backups(cloud)
    cloud.client("lambda").invoke(FunctionName=f"{PREFIX}-sweep-jobs", Payload=b"{}")
    undeclared = {function: used(cloud, function) - declared(function) for function in FUNCTIONS}
    assert undeclared == {function: set() for function in FUNCTIONS}
    unused = {function: declared(function) - used(cloud, function) for function in FUNCTIONS}
    for function, actions in unused.items():
        print(f"{function}: declared and not used in these tests: {', '.join(sorted(actions)) or 'nothing'}")
    without_reason = {
        f"{function} {action}"
        for function, actions in unused.items()
        for action in actions
        if not any(name in ("*", function) and action.startswith(start) for name, start in CONDITIONAL)
    }
    assert without_reason == set()


def test_tags_that_policies_do_not_see_at_once_cost_time_only(cloud: CloudRig) -> None:
    blocks = filled(4)
    source = cloud.snapshot(blocks)
    before = denied_writes(cloud)
    cloud.control("ebs/config", {"tag_spread_seconds": 6})
    try:
        receipt = cloud.copy(request(cloud, source))
    finally:
        cloud.control("ebs/config", {"tag_spread_seconds": 0})
    assert cloud.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)
    assert denied_writes(cloud) > before


def denied_writes(cloud: CloudRig) -> int:
    calls = cloud.control("iam/calls")["calls"]
    return sum(c["count"] for c in calls if c["action"] == "ebs:PutSnapshotBlock" and not c["allowed"])
