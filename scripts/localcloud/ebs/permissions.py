"""Which actions on which resources a request needs, with the condition keys that describe them.

Source: service authorization reference, "Amazon Elastic Block Store" and "Amazon EC2"; EBS user guide, "IAM
permissions for EBS direct APIs" (the keys' ``kms:ViaService`` is EC2's). Snapshot ARNs have no account.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.ebs import ec2_query
from localcloud.ebs.decisions import Context, Decisions
from localcloud.ebs.errors import ApiError, EbsError, Ec2Error, key_access_denied
from localcloud.ebs.kms import partition_of
from localcloud.ebs.messages import Request
from localcloud.ebs.model import Snapshot
from localcloud.ebs.registry import Registry

_OF_SNAPSHOT = frozenset(
    {
        "DeleteSnapshot",
        "DescribeSnapshotAttribute",
        "LockSnapshot",
        "ModifySnapshotAttribute",
        "ModifySnapshotTier",
        "ResetSnapshotAttribute",
        "RestoreSnapshotTier",
        "UnlockSnapshot",
    }
)
_MAKES_SNAPSHOTS = frozenset({"CopySnapshot", "CreateSnapshot", "CreateSnapshots"})
_WRITES = frozenset({"ebs:PutSnapshotBlock", "ebs:CompleteSnapshot"})
_READS = frozenset({"GetSnapshotBlock", "ListSnapshotBlocks", "ListChangedBlocks"})


@dataclass(frozen=True, slots=True)
class _Need:
    action: str
    resource: str
    context: Context = ()


class Permissions:
    """Checks of requests by the caller's policies, which raise ``EbsError`` or ``Ec2Error`` for what these forbid."""

    def __init__(self, registry: Registry, decisions: Decisions) -> None:
        self._registry = registry
        self.decisions = decisions

    def check_direct(self, request: Request, operation: str, snapshot_id: str | None) -> None:
        if not request.caller.access_key or operation == "unknown":
            return
        if operation == "StartSnapshot":
            needs = self._of_start(request)
        else:
            ids = [snapshot_id or ""]
            if operation == "ListChangedBlocks" and request.query.get("firstSnapshotId"):
                ids.append(request.query["firstSnapshotId"])
            needs = [self._on_snapshot(f"ebs:{operation}", each, request.region) for each in ids]
        for need in needs:
            decision = self._decide(request, need)
            if not decision.allowed:
                raise EbsError(status=403, code=decision.error or "AccessDeniedException", message=decision.reason)
        if operation in _READS and self._registry.config.check_key_on_read:
            for need in needs:
                self._check_reading_key(request, need.resource.rsplit("/", 1)[-1])

    def check_new_key(self, request: Request, key_arn: str | None) -> None:
        """Check the key of a new snapshot: StartSnapshot makes a data key, and EBS keeps a grant to use it for
        as long as there is the snapshot."""
        if key_arn is None or not request.caller.access_key:
            return
        self._check_key(request, "kms:DescribeKey", key_arn)
        self._check_key(request, "kms:GenerateDataKeyWithoutPlaintext", key_arn)
        self._check_key(request, "kms:CreateGrant", key_arn, (("kms:GrantIsForAWSResource", "true"),))

    def check_ec2(self, request: Request) -> None:
        if not request.caller.access_key:
            return
        params = ec2_query.Params(ec2_query.parse(request))
        for need in self._of_ec2(request, params):
            decision = self._decide(request, need)
            if decision.error:
                raise _credentials_refused(decision.error)
            if not decision.allowed:
                raise Ec2Error(
                    "UnauthorizedOperation",
                    f"You are not authorized to perform this operation. {decision.reason}",
                    status=403,
                )

    # -- what is needed ----------------------------------------------------------

    def _of_start(self, request: Request) -> list[_Need]:
        try:
            wanted = json.loads(bytes(request.body) or b"{}")
        except ValueError:
            wanted = {}  # refused for that later on, to whoever may start snapshots
        wanted = wanted if isinstance(wanted, dict) else {}
        tags = {
            str(tag.get("Key")): str(tag.get("Value", ""))
            for tag in wanted.get("Tags") or []
            if isinstance(tag, Mapping)
        }
        context = _request_tags(tags)
        for name in ("Description", "VolumeSize"):
            if wanted.get(name) is not None:
                context += ((f"ebs:{name}", str(wanted[name])),)
        if wanted.get("ParentSnapshotId"):
            parent = _snapshot_arn(request.region, str(wanted["ParentSnapshotId"]))
            context += (("ebs:ParentSnapshot", parent),)
        new = _snapshot_arn(request.region, "*")
        needs = [_Need("ebs:StartSnapshot", new, context)]
        if tags:
            needs.append(_Need("ec2:CreateTags", new, _request_tags(tags)))
        return needs

    def _of_ec2(self, request: Request, params: ec2_query.Params) -> Iterator[_Need]:
        action, region = params.text("Action") or "", request.region
        name = f"ec2:{action}"
        if action in _OF_SNAPSHOT:
            yield self._on_snapshot(name, params.text("SnapshotId") or "", region)
        elif action in ("CreateTags", "DeleteTags"):
            tags = {tag.text("Key") or "": tag.text("Value") or "" for tag in params.structures("Tag")}
            for each in params.texts("ResourceId"):
                if each.startswith("snap-"):
                    need = self._on_snapshot(name, each, region)
                else:
                    need = _Need(name, f"arn:{partition_of(region)}:ec2:{region}:{request.account}:volume/{each}")
                yield _Need(need.action, need.resource, need.context + _request_tags(tags))
        elif action in _MAKES_SNAPSHOTS or action == "CreateVolume":
            kind = "volume" if action == "CreateVolume" else "snapshot"
            tags = _specified_tags(params)
            new = (
                f"arn:{partition_of(region)}:ec2:{region}:{request.account}:volume/*"
                if kind == "volume"
                else _snapshot_arn(region, "*")
            )
            yield _Need(name, new, _request_tags(tags))
            if action == "CreateSnapshot":
                volume = params.text("VolumeId") or "*"
                yield _Need(name, f"arn:{partition_of(region)}:ec2:{region}:{request.account}:volume/{volume}")
            if tags:
                yield _Need("ec2:CreateTags", new, (*_request_tags(tags), ("ec2:CreateAction", action)))
        else:
            yield _Need(name, "*")  # descriptions and settings have no resource level

    def _on_snapshot(self, action: str, snapshot_id: str, region: str) -> _Need:
        with self._registry.lock:
            snapshot = self._registry.snapshot(snapshot_id, region)
            tags: Context = ()
            if snapshot is not None and not (action in _WRITES and self._tags_spread(snapshot)):
                kinds = ("aws", "ec2") if action.startswith("ec2:") else ("aws",)
                tags = tuple(
                    (f"{kind}:ResourceTag/{key}", value) for kind in kinds for key, value in snapshot.tags.items()
                )
        return _Need(action, _snapshot_arn(region, snapshot_id), tags)

    def _tags_spread(self, snapshot: Snapshot) -> bool:
        """Whether policies do not see the tags of a new snapshot yet."""
        spread = snapshot.start_time + self._registry.config.tag_spread_seconds
        return self._registry.clock.now() < spread

    # -- keys --------------------------------------------------------------------

    def _check_reading_key(self, request: Request, snapshot_id: str) -> None:
        with self._registry.lock:
            snapshot = self._registry.snapshot(snapshot_id, request.region)
            readable = snapshot is not None and snapshot.shared_to(request.account)
            key_arn = snapshot.encryption.kms_key_arn if snapshot is not None and readable else None
        if key_arn is not None:
            self._check_key(request, "kms:Decrypt", key_arn)

    def _check_key(self, request: Request, action: str, key_arn: str, more: Context = ()) -> None:
        via = f"ec2.{request.region}.amazonaws.com"
        need = _Need(action, key_arn, (("kms:ViaService", via), ("kms:CallerAccount", request.account), *more))
        decision = self._decide(request, need)
        if not decision.allowed:
            raise key_access_denied(decision.reason)

    def _decide(self, request: Request, need: _Need) -> Any:
        return self.decisions.decide(
            request.caller, need.action, need.resource, region=request.region, context=need.context
        )


def _snapshot_arn(region: str, snapshot_id: str) -> str:
    return f"arn:{partition_of(region)}:ec2:{region}::snapshot/{snapshot_id}"


def _request_tags(tags: Mapping[str, str]) -> Context:
    keys: Context = (("aws:TagKeys", tuple(tags)),) if tags else ()
    return keys + tuple((f"aws:RequestTag/{key}", value) for key, value in tags.items())


def _specified_tags(params: ec2_query.Params) -> dict[str, str]:
    tags: dict[str, str] = {}
    for specification in params.structures("TagSpecification"):
        for tag in specification.structures("Tag"):
            tags[tag.text("Key") or ""] = tag.text("Value") or ""
    return tags


def _credentials_refused(error: str) -> ApiError:
    if error == "ExpiredTokenException":
        return Ec2Error("RequestExpired", "Request has expired.")
    return Ec2Error("AuthFailure", "AWS was not able to validate the provided access credentials", status=401)
