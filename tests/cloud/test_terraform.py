"""The deployed root, as Terraform sees it."""

from __future__ import annotations

import json

from cloud_rig import CloudRig
from localcloud.lifecycle import terraform_of, terraform_variables
from localcloud.state import CloudDirectory
from tools.build import build, local_architecture, local_runtime


def test_a_second_plan_is_empty(cloud: CloudRig, directory: CloudDirectory) -> None:
    artifacts = build(runtime=local_runtime(), architecture=local_architecture())
    assert terraform_of(directory, cloud.info).changes(terraform_variables(cloud.info, artifacts)) == ""


def test_both_regions_have_their_own_state_machine_and_buckets(cloud: CloudRig) -> None:
    for region in cloud.info.regions:
        arn = cloud.info.state_machines[region]["copy"]
        machine = cloud.client("stepfunctions", region).describe_state_machine(stateMachineArn=arn)
        text = machine["definition"]
        assert f":{region}:" in text
        assert "${" not in text
        assert json.loads(text)["StartAt"] == "Plan transfer"
        for name in cloud.info.buckets[region].values():
            location = cloud.client("s3", region).get_bucket_location(Bucket=name)["LocationConstraint"]
            assert (location or "us-east-1") == region
