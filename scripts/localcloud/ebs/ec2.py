"""The EC2 actions that are served here, and their dispatch."""

from __future__ import annotations

import uuid
from types import MappingProxyType

from localcloud.ebs import (
    ec2_create,
    ec2_locks,
    ec2_settings,
    ec2_sharing,
    ec2_snapshots,
    ec2_tags,
    ec2_tiers,
    ec2_volumes,
)
from localcloud.ebs.ec2_query import Action, Call, Params, parse, xml_error, xml_response
from localcloud.ebs.errors import ApiError, Ec2Error
from localcloud.ebs.messages import Request, Response
from localcloud.ebs.registry import Registry

ACTIONS: MappingProxyType[str, Action] = MappingProxyType(
    {
        "DescribeSnapshots": ec2_snapshots.describe_snapshots,
        "DeleteSnapshot": ec2_snapshots.delete_snapshot,
        "CreateSnapshot": ec2_create.create_snapshot,
        "CreateSnapshots": ec2_create.create_snapshots,
        "CopySnapshot": ec2_create.copy_snapshot,
        "ModifySnapshotAttribute": ec2_sharing.modify_attribute,
        "DescribeSnapshotAttribute": ec2_sharing.describe_attribute,
        "ResetSnapshotAttribute": ec2_sharing.reset_attribute,
        "LockSnapshot": ec2_locks.lock_snapshot,
        "UnlockSnapshot": ec2_locks.unlock_snapshot,
        "DescribeLockedSnapshots": ec2_locks.describe_locked,
        "ModifySnapshotTier": ec2_tiers.modify_tier,
        "RestoreSnapshotTier": ec2_tiers.restore_tier,
        "DescribeSnapshotTierStatus": ec2_tiers.describe_status,
        "CreateVolume": ec2_volumes.create_volume,
        "DescribeVolumes": ec2_volumes.describe_volumes,
        "DeleteVolume": ec2_volumes.delete_volume,
        "CreateTags": ec2_tags.create_tags,
        "DeleteTags": ec2_tags.delete_tags,
        "DescribeTags": ec2_tags.describe_tags,
        "GetEbsEncryptionByDefault": ec2_settings.get_encryption_by_default,
        "EnableEbsEncryptionByDefault": ec2_settings.enable_encryption_by_default,
        "DisableEbsEncryptionByDefault": ec2_settings.disable_encryption_by_default,
        "GetEbsDefaultKmsKeyId": ec2_settings.get_default_key,
        "ModifyEbsDefaultKmsKeyId": ec2_settings.modify_default_key,
        "ResetEbsDefaultKmsKeyId": ec2_settings.reset_default_key,
    }
)


def action_of(request: Request) -> str:
    return parse(request).get("Action", "")


def handle(registry: Registry, request: Request) -> Response:
    """Serve one query-protocol request; refusals come as EC2's XML errors."""
    values = parse(request)
    name = values.get("Action", "")
    action = ACTIONS.get(name)
    request_id = str(uuid.uuid4())
    try:
        if action is None:
            raise Ec2Error("InvalidAction", f"The action {name} is not valid for this web service.")
        call = Call(
            action=name,
            params=Params(values),
            account=request.account,
            region=request.region,
            registry=registry,
        )
        if call.params.flag("DryRun") or call.params.flag("dryRun"):
            raise Ec2Error("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", status=412)
        return xml_response(name, action(call), request_id)
    except ApiError as refusal:
        return xml_error(refusal, request_id)
