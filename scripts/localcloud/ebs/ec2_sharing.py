"""Modify-, Describe- and ResetSnapshotAttribute: who else may use a snapshot.

Source: EC2 API reference; EBS user guide, "Share an Amazon EBS snapshot" (what is encrypted with the
aws/ebs key cannot be shared, what is encrypted cannot be public).
"""

from __future__ import annotations

import re

from localcloud.ebs import ec2_snapshots
from localcloud.ebs.ec2_query import Answer, Call, Params
from localcloud.ebs.errors import Ec2Error
from localcloud.ebs.model import Snapshot


def modify_attribute(call: Call) -> Answer:
    params = call.params
    permission = params.under("CreateVolumePermission")
    added, removed = _grantees(permission.structures("Add")), _grantees(permission.structures("Remove"))
    operation = params.text("OperationType")
    if operation is not None:
        named = set(params.texts("UserId")) | set(params.texts("UserGroup"))
        if operation not in ("add", "remove"):
            raise Ec2Error("InvalidParameterValue", f"OperationType '{operation}' is neither add nor remove.")
        added, removed = (added | named, removed) if operation == "add" else (added, removed | named)
    if not added and not removed:
        raise Ec2Error("MissingParameter", "Nobody is named to add or to remove.")
    for user in added | removed:
        if user != "all" and not re.fullmatch(r"[0-9]{12}", user):
            raise Ec2Error("InvalidUserID.Malformed", f'Invalid user id: "{user}"')
    registry = call.registry
    with registry.lock:
        snapshot = ec2_snapshots.find_own(call, params.required("SnapshotId"))
        if added:
            _refuse_unshareable(call, snapshot, public="all" in added)
        new = added - {"all"} - snapshot.shared_with
        snapshot.shared_with = (snapshot.shared_with | (added - {"all"})) - removed
        snapshot.public = (snapshot.public or "all" in added) and "all" not in removed
    for user in sorted(new):
        registry.events.notify(
            registry.config,
            snapshot,
            event="shareSnapshot",
            result="succeeded",
            account=user,
            end=registry.clock.now(),
            extra={"source": snapshot.owner},
        )
    return {"return": True}


def _grantees(entries: list[Params]) -> set[str]:
    found = {entry.text("UserId") or entry.text("Group") for entry in entries}
    return {grantee for grantee in found if grantee}


def _refuse_unshareable(call: Call, snapshot: Snapshot, *, public: bool) -> None:
    key = snapshot.encryption.kms_key_arn
    if key is None:
        return
    if public:
        raise Ec2Error("InvalidParameterValue", "An encrypted snapshot cannot be made public.")
    if key == call.registry.keys.aws_managed(account=snapshot.owner, region=snapshot.region).arn:
        raise Ec2Error("InvalidParameterValue", "A snapshot encrypted with the default aws/ebs key cannot be shared.")


def describe_attribute(call: Call) -> Answer:
    attribute = call.params.required("Attribute")
    with call.registry.lock:
        snapshot = ec2_snapshots.find_own(call, call.params.required("SnapshotId"))
        if attribute == "productCodes":
            return {"snapshotId": snapshot.snapshot_id, "productCodes": []}
        _refuse_other(attribute)
        grants = [{"userId": user} for user in sorted(snapshot.shared_with)]
        grants += [{"group": "all"}] if snapshot.public else []
        return {"snapshotId": snapshot.snapshot_id, "createVolumePermission": grants}


def reset_attribute(call: Call) -> Answer:
    _refuse_other(call.params.required("Attribute"))
    with call.registry.lock:
        snapshot = ec2_snapshots.find_own(call, call.params.required("SnapshotId"))
        snapshot.shared_with, snapshot.public = set(), False
    return {"return": True}


def _refuse_other(attribute: str) -> None:
    if attribute != "createVolumePermission":
        raise Ec2Error("InvalidParameterValue", f"Value ({attribute}) for parameter attribute is invalid.")
