"""CreateSnapshot, CreateSnapshots, CopySnapshot.

Source: EC2 API reference; EBS user guide, "Create snapshots", "Copy an Amazon EBS snapshot" (tags are not
copied, a bad key fails silently, twenty copies per destination Region), "How snapshots work" (when a copy
is incremental); events: "Amazon EventBridge events for EBS".
"""

from __future__ import annotations

import hashlib
import re

from localcloud.ebs import ec2_snapshots, encryption
from localcloud.ebs.ec2_query import Answer, Call, tag_set, timestamp
from localcloud.ebs.ec2_tags import MOST_TAGS
from localcloud.ebs.errors import Ec2Error
from localcloud.ebs.events import MULTI_VOLUME, iso
from localcloud.ebs.model import UNENCRYPTED, Encryption, Snapshot, Volume
from localcloud.ebs.registry import Registry

_MOST_PENDING_PER_VOLUME = 5
_BOOT_DEVICES = ("/dev/xvda", "/dev/sda1")


def create_snapshot(call: Call) -> Answer:
    volume_id = call.params.required("VolumeId")
    registry = call.registry
    with registry.lock:
        volume = registry.volume(volume_id, account=call.account, region=call.region)
        if volume is None:
            raise Ec2Error("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
        snapshot = _of_volume(call, volume, call.params.tags_for("snapshot"))
        due = registry.clock.now() + registry.config.volume_snapshot_seconds
        registry.timers.at(due, lambda: _volume_snapshot_done(registry, snapshot))
        return ec2_snapshots.view(call, snapshot)


def _of_volume(call: Call, volume: Volume, tags: dict[str, str]) -> Snapshot:
    """A pending snapshot of the volume as it is at this moment."""
    registry = call.registry
    pending = sum(
        s.volume_id == volume.volume_id and s.state == "pending" for s in registry.in_account(call.account, call.region)
    )
    if pending >= _MOST_PENDING_PER_VOLUME:
        raise Ec2Error(
            "ConcurrentSnapshotLimitExceeded",
            f"Maximum allowed in-progress snapshots for the volume '{volume.volume_id}' exceeded.",
        )
    snapshot = registry.add(
        Snapshot(
            snapshot_id=registry.new_id("snap"),
            owner=call.account,
            region=call.region,
            origin="volume",
            volume_id=volume.volume_id,
            volume_gib=volume.size_gib,
            start_time=registry.clock.now(),
            encryption=volume.encryption,
            lineage=volume.lineage,
            blocks=volume.blocks.copy(),
            parent_id=volume.last_snapshot_id,
            description=call.params.text("Description") or "",
            tags=tags,
            outpost_arn=call.params.text("OutpostArn"),
        )
    )
    volume.last_snapshot_id = snapshot.snapshot_id
    return snapshot


def _volume_snapshot_done(registry: Registry, snapshot: Snapshot) -> None:
    with registry.lock:
        if not registry.still_pending(snapshot):
            return
        registry.complete(snapshot)
    registry.events.notify(
        registry.config,
        snapshot,
        event="createSnapshot",
        result="succeeded",
        source=f"volume/{snapshot.volume_id}",
    )


def create_snapshots(call: Call) -> Answer:
    registry, wanted = call.registry, call.params.under("InstanceSpecification")
    instance_id = wanted.required("InstanceId")
    excluded = set(wanted.texts("ExcludeDataVolumeId"))
    with registry.lock:
        attached = [v for v in registry.volumes.values() if v.instance_id == instance_id]
        attached = [v for v in attached if (v.owner, v.region) == (call.account, call.region)]
        if not attached:
            raise Ec2Error("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")
        boot = {v.volume_id for v in attached if v.device in _BOOT_DEVICES}
        data = {v.volume_id for v in attached} - boot
        if excluded - data:
            # "If you specify the ID of the root volume, the request fails" (API reference, InstanceSpecification); what
            # becomes of an id that is not attached AWS does not say.
            raise Ec2Error(
                "InvalidParameterValue",
                f"ExcludeDataVolumeIds: {', '.join(sorted(excluded - data))} are no data volumes of {instance_id}.",
            )
        if wanted.flag("ExcludeBootVolume"):
            attached = [v for v in attached if v.volume_id not in boot]
        chosen = [v for v in attached if v.volume_id not in excluded]
        if not chosen:
            raise Ec2Error("InvalidParameterValue", "No volumes are left to take snapshots of.")
        tags = call.params.tags_for("snapshot")
        inherit = call.params.text("CopyTagsFromSource") == "volume"
        if inherit:
            _refuse_tags_that_clash(chosen, tags)
        snapshots = [_of_volume(call, v, {**(v.tags if inherit else {}), **tags}) for v in chosen]
        due = registry.clock.now() + registry.config.volume_snapshot_seconds
        registry.timers.at(due, lambda: _instance_snapshots_done(registry, snapshots))
        return {
            "snapshotSet": [
                {
                    "snapshotId": s.snapshot_id,
                    "volumeId": s.volume_id,
                    "state": s.state,
                    "volumeSize": s.volume_gib,
                    "startTime": timestamp(s.start_time),
                    "progress": "0%",
                    "ownerId": s.owner,
                    "description": s.description,
                    "encrypted": s.encryption.encrypted,
                    "tagSet": tag_set(s.tags),
                }
                for s in snapshots
            ]
        }


def _refuse_tags_that_clash(volumes: list[Volume], tags: dict[str, str]) -> None:
    """What EC2 does with a key that a request and a volume both have is not documented: refused here, so that nobody
    builds upon it."""
    for volume in volumes:
        if both := volume.tags.keys() & tags.keys():
            raise Ec2Error(
                "InvalidParameterCombination",
                f"Tags {', '.join(sorted(both))} are in the request and on volume {volume.volume_id}.",
            )
        if len(volume.tags.keys() | tags.keys()) > MOST_TAGS:
            raise Ec2Error("TagLimitExceeded", f"The snapshot of {volume.volume_id} would have too many tags.")


def _instance_snapshots_done(registry: Registry, snapshots: list[Snapshot]) -> None:
    with registry.lock:
        kept = [snapshot for snapshot in snapshots if registry.still_pending(snapshot)]
        for snapshot in kept:
            registry.complete(snapshot)
    if not kept:
        return
    about = {"region": kept[0].region, "account": kept[0].owner}
    config, events = registry.config, registry.events
    arns = [events.snapshot_arn(config, resource=f"snapshot/{s.snapshot_id}", **about) for s in kept]
    sources = [events.snapshot_arn(config, resource=f"volume/{s.volume_id}", **about) for s in kept]
    events.emit(
        config,
        detail_type=MULTI_VOLUME,
        account=kept[0].owner,
        region=kept[0].region,
        resources=arns,
        detail={
            "event": "createSnapshots",
            "result": "succeeded",
            "cause": "",
            "request-id": "",
            "startTime": iso(kept[0].start_time),
            "endTime": iso(registry.clock.now()),
            "snapshots": [
                {"snapshot_id": arn, "source": source, "status": "completed"}
                for arn, source in zip(arns, sources, strict=True)
            ],
        },
    )


# -- CopySnapshot ----------------------------------------------------------------


def copy_snapshot(call: Call) -> Answer:
    """Served in the destination Region. What cannot be told at once ends the copy in ``error``."""
    registry, params = call.registry, call.params
    source_id, source_region = params.required("SourceSnapshotId"), params.required("SourceRegion")
    minutes = _completion_minutes(call)
    tags = params.tags_for("snapshot")
    with registry.lock:
        running = sum(
            s.origin == "copy" and s.state == "pending" for s in registry.in_account(call.account, call.region)
        )
        if registry.config.quotas_enabled and running >= registry.config.concurrent_copies:
            raise Ec2Error(
                "ResourceLimitExceeded",
                f"Too many snapshot copies in progress. The limit is {registry.config.concurrent_copies}"
                " for this destination region.",
            )
        source = _source(call, source_id, source_region)
        outcome, failure = _copied_encryption(call, source) if source else (UNENCRYPTED, _NO_SOURCE)
        group = _copy_group(call, source, outcome) if source else ""
        earlier = any(
            s.copy_group == group and s.state == "completed" for s in registry.in_account(call.account, call.region)
        )
        snapshot = registry.add(
            Snapshot(
                snapshot_id=registry.new_id("snap"),
                owner=call.account,
                region=call.region,
                origin="copy",
                volume_id="vol-ffffffff",
                volume_gib=source.volume_gib if source else 1,
                start_time=registry.clock.now(),
                encryption=outcome,
                lineage=group if source and registry.config.copies_related else registry.new_lineage(),
                blocks=source.blocks.copy() if source and not failure else registry.new_map(),
                source_snapshot_id=source_id,
                source_region=source_region,
                copy_group=group,
                incremental=bool(source) and earlier,
                description=params.text("Description") or "",
                tags=tags,
                transfer_type="time-based" if minutes else "standard",
                completion_minutes=minutes,
            )
        )
        due = registry.clock.now() + registry.config.copy_seconds
        registry.timers.at(due, lambda: _copy_done(registry, snapshot, failure))
        return {"snapshotId": snapshot.snapshot_id, "tagSet": tag_set(tags)}


_NO_SOURCE = "Source snapshot ID is not valid"


def _completion_minutes(call: Call) -> int | None:
    minutes = call.params.number("CompletionDurationMinutes")
    if minutes is not None and (not 15 <= minutes <= 2880 or minutes % 15):
        raise Ec2Error("InvalidParameterValue", "CompletionDurationMinutes must be 15 to 2880 in steps of 15.")
    return minutes


def _source(call: Call, source_id: str, source_region: str) -> Snapshot | None:
    """The snapshot to copy; ``None`` for one that is not there, when that shows only later."""
    if not re.fullmatch(r"snap-([0-9a-f]{8}|[0-9a-f]{17})", source_id):
        raise Ec2Error("InvalidSnapshotID.Malformed", f"The snapshot ID '{source_id}' is malformed")
    source = call.registry.snapshot(source_id, source_region)
    if source is None or not (source.public or source.shared_to(call.account)):
        if call.registry.config.missing_copy_source == "refuse":
            raise Ec2Error("InvalidSnapshot.NotFound", f"The snapshot '{source_id}' does not exist.")
        return None
    if source.state != "completed" or source.storage_tier != "standard":
        raise Ec2Error("IncorrectState", f"The snapshot '{source_id}' is not completed in the standard tier.")
    return source


def _copied_encryption(call: Call, source: Snapshot) -> tuple[Encryption, str]:
    """How the copy is encrypted, and why it will fail (empty if it will not)."""
    registry, params = call.registry, call.params
    settings = registry.settings(call.account, call.region)
    key_id = params.text("KmsKeyId")
    encrypted = bool(params.flag("Encrypted")) or source.encryption.encrypted or settings.encryption_by_default
    if not encrypted:
        if key_id:
            raise Ec2Error("InvalidParameterDependency", "KmsKeyId needs Encrypted to be true.")
        return UNENCRYPTED, ""
    wanted = key_id or encryption.default_key(settings, registry.keys, account=call.account, region=call.region)
    key = registry.keys.find(wanted, account=call.account, region=call.region)
    problem = "" if key is not None and key.enabled else "Given key ID is not accessible"
    source_key = source.encryption.kms_key_arn
    if not problem and source_key is not None:
        readable = registry.keys.find(source_key, account=source.owner, region=source.region)
        if readable is None or not readable.enabled:
            problem = "Source snapshot's key is not accessible"
    if problem and not registry.config.silent_kms_failure:
        raise Ec2Error("InvalidParameterValue", problem)
    return Encryption(kms_key_arn=key.arn if key else wanted), problem


def _copy_group(call: Call, source: Snapshot, outcome: Encryption) -> str:
    """Copies of one lineage to one account, Region and key build on each other."""
    place = f"{source.lineage}|{call.account}|{call.region}|{outcome.kms_key_arn}"
    return hashlib.sha256(place.encode()).hexdigest()[:32]


def _copy_done(registry: Registry, snapshot: Snapshot, failure: str) -> None:
    with registry.lock:
        if not registry.still_pending(snapshot):
            return
        if failure:
            registry.fail(snapshot, failure)
        else:
            registry.complete(snapshot)
    events = registry.events
    source_arn = events.snapshot_arn(
        registry.config,
        region=snapshot.source_region or snapshot.region,
        account=snapshot.owner,
        resource=f"snapshot/{snapshot.source_snapshot_id}",
    )
    events.notify(
        registry.config,
        snapshot,
        event="copySnapshot",
        result="failed" if failure else "succeeded",
        cause=failure,
        extra={
            "source": source_arn,
            "incremental": "true" if snapshot.incremental else "false",
            "transferType": snapshot.transfer_type,
        },
    )
