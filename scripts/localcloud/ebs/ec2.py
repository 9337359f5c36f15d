"""The EC2 actions that are served here, and their dispatch."""

from __future__ import annotations

import uuid
from types import MappingProxyType

from localcloud.ebs import ec2_settings, ec2_snapshots, ec2_tags
from localcloud.ebs.ec2_query import Action, Call, Params, parse, xml_error, xml_response
from localcloud.ebs.errors import ApiError, Ec2Error
from localcloud.ebs.messages import Request, Response
from localcloud.ebs.registry import Registry

ACTIONS: MappingProxyType[str, Action] = MappingProxyType(
    {
        "DescribeSnapshots": ec2_snapshots.describe_snapshots,
        "DeleteSnapshot": ec2_snapshots.delete_snapshot,
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
