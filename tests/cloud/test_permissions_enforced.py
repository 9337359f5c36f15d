"""The policies that Terraform made are what functions and machines really live on in the local cloud."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from blockferry.operate import JobState
from cloud_rig import CloudRig, filled
from rig import hashes
from tools.environment import repository_root

PREFIX = "blockferry"
FUNCTIONS = sorted(file.parent.name for file in (repository_root() / "functions").glob("*/permissions.json"))

CONDITIONAL = {
    ("*", "kms:"): "encrypted snapshots only; which of these actions EBS uses is its own business",
    ("*", "sts:AssumeRole"): "jobs between accounts only",
    ("*", "s3:ListBucket"): "S3 asks for it only where a record is missing",
    ("plan_transfer", "ec2:DeleteSnapshot"): "targets that cannot be used only",
    ("complete_transfer", "ebs:StartSnapshot"): "targets that could not be started when the job was planned only",
    ("complete_transfer", "ec2:CreateTags"): "the same targets",
    ("sweep_jobs", ""): "jobs that were left behind only; a sweep that finds none lists and reads records",
}
"""Declared actions, by function and beginning, that a plain copy does not need."""


def declared(function: str) -> set[str]:
    return set(json.loads((repository_root() / "functions" / function / "permissions.json").read_text())["actions"])


def used(cloud: CloudRig, function: str) -> set[str]:
    """What the local cloud saw the function do, in both regions, since it is up."""
    name = f"{PREFIX}-{function.replace('_', '-')}"
    return {
        call["action"]
        for call in cloud.control("iam/calls")["calls"]
        if call["principal"].endswith(f"/{name}") and f":{cloud.info.account_id}:" in call["principal"]
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
    causes = causes_of(cloud, state)
    assert any(f"is not authorized to perform: {action}" in cause for cause in causes), causes


@pytest.mark.parametrize("action", ["lambda:InvokeFunction", "s3:GetObject", "s3:PutObject", "states:StartExecution"])
def test_a_copy_whose_machine_lacks_one_action_fails_and_names_it(cloud: CloudRig, action: str) -> None:
    source = cloud.snapshot(filled(3))
    with without(cloud, f"{PREFIX}-copy-machine-{cloud.home}", action):
        state = cloud.ended(cloud.start(request(cloud, source)))
    assert state.status == "FAILED"
    causes = causes_of(cloud, state)
    assert any(f"is not authorized to perform: {action}" in cause for cause in causes), causes


def test_functions_use_only_what_they_declare_and_whatever_else_they_declare_has_a_reason(cloud: CloudRig) -> None:
    cloud.copy(request(cloud, cloud.snapshot(filled(3))))
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
