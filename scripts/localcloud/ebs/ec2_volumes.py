"""CreateVolume, DescribeVolumes, DeleteVolume: volumes with the blocks of the snapshots they come from.

Source: EC2 API reference; EBS user guide, "How Amazon EBS encryption works" (encryption outcomes). What is
attached to which instance is the main server's matter.
"""

from __future__ import annotations

from localcloud.ebs import ec2_snapshots, encryption
from localcloud.ebs.ec2_query import Answer, Call, page, tag_filters_fit, tag_set, timestamp
from localcloud.ebs.errors import Ec2Error
from localcloud.ebs.model import MAX_VOLUME_GIB, UNENCRYPTED, Encryption, Snapshot, Volume

_FILTERS = frozenset(
    (
        "availability-zone",
        "encrypted",
        "size",
        "snapshot-id",
        "status",
        "tag-key",
        "tag-value",
        "volume-id",
        "volume-type",
    )
)
_BASE_IOPS = {"gp3": 3000, "io1": 100, "io2": 100}


def create_volume(call: Call) -> Answer:
    registry, params = call.registry, call.params
    zone = params.required("AvailabilityZone")
    snapshot_id, size = params.text("SnapshotId"), params.number("Size")
    tags = params.tags_for("volume")
    kind = params.text("VolumeType") or "gp2"
    with registry.lock:
        snapshot = _source(call, snapshot_id) if snapshot_id else None
        if size is None and snapshot is None:
            raise Ec2Error("MissingParameter", "The request must contain the parameter size or snapshotId")
        gib = size if size is not None else snapshot.volume_gib if snapshot else 0
        if not 1 <= gib <= MAX_VOLUME_GIB:
            raise Ec2Error("InvalidParameterValue", f"Volume of {gib}GiB is outside of 1 to {MAX_VOLUME_GIB}.")
        if snapshot is not None and gib < snapshot.volume_gib:
            raise Ec2Error(
                "InvalidParameterValue",
                f"Volume of {gib}GiB is smaller than snapshot '{snapshot_id}', expect size >= {snapshot.volume_gib}GiB",
            )
        outcome = _encryption(call, snapshot)
        related = snapshot is not None and snapshot.owner == call.account and snapshot.encryption == outcome
        volume = Volume(
            volume_id=registry.new_id("vol"),
            owner=call.account,
            region=call.region,
            size_gib=gib,
            zone=zone,
            created=registry.clock.now(),
            encryption=outcome,
            lineage=snapshot.lineage if snapshot and related else registry.new_lineage(),
            blocks=snapshot.blocks.copy() if snapshot else registry.new_map(),
            snapshot_id=snapshot_id or "",
            volume_type=kind,
            iops=params.number("Iops") or _BASE_IOPS.get(kind),
            throughput=params.number("Throughput") or (125 if kind == "gp3" else None),
            multi_attach=bool(params.flag("MultiAttachEnabled")),
            tags=tags,
        )
        registry.volumes[volume.volume_id] = volume
        return _view(volume)


def _source(call: Call, snapshot_id: str) -> Snapshot:
    snapshot = ec2_snapshots.find(call, snapshot_id)
    if snapshot.state != "completed" or snapshot.storage_tier != "standard":
        raise Ec2Error("IncorrectState", f"The snapshot '{snapshot_id}' is not completed in the standard tier.")
    return snapshot


def _encryption(call: Call, snapshot: Snapshot | None) -> Encryption:
    registry, params = call.registry, call.params
    settings = registry.settings(call.account, call.region)
    key_id = params.text("KmsKeyId")
    asked = bool(params.flag("Encrypted"))
    source = snapshot.encryption if snapshot else UNENCRYPTED
    if key_id and not (asked or source.encrypted or settings.encryption_by_default):
        raise Ec2Error("InvalidParameterDependency", "KmsKeyId needs Encrypted to be true.")
    if source.encrypted and not key_id and snapshot is not None and snapshot.owner == call.account:
        return source
    if not (asked or source.encrypted or settings.encryption_by_default):
        return UNENCRYPTED
    wanted = key_id or encryption.default_key(settings, registry.keys, account=call.account, region=call.region)
    key = registry.keys.find(wanted, account=call.account, region=call.region)
    if key is None or not key.enabled:
        raise Ec2Error("InvalidParameterValue", f"The KMS key '{wanted}' cannot be used.")
    return Encryption(kms_key_arn=key.arn)


def _view(volume: Volume) -> Answer:
    return {
        "volumeId": volume.volume_id,
        "size": volume.size_gib,
        "snapshotId": volume.snapshot_id,
        "availabilityZone": volume.zone,
        "status": "in-use" if volume.instance_id else "available",
        "createTime": timestamp(volume.created),
        "volumeType": volume.volume_type,
        "iops": volume.iops,
        "throughput": volume.throughput,
        "encrypted": volume.encryption.encrypted,
        "kmsKeyId": volume.encryption.kms_key_arn,
        "multiAttachEnabled": volume.multi_attach,
        "attachmentSet": [],
        "tagSet": tag_set(volume.tags),
    }


def describe_volumes(call: Call) -> Answer:
    ids, filters = call.params.texts("VolumeId"), call.params.filters(_FILTERS)
    registry = call.registry
    with registry.lock:
        mine = [v for v in registry.volumes.values() if (v.owner, v.region) == (call.account, call.region)]
        for volume_id in ids:
            if all(volume.volume_id != volume_id for volume in mine):
                raise Ec2Error("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
        found = []
        for volume in sorted(mine, key=lambda v: (v.created, v.volume_id)):
            facts = {
                "availability-zone": volume.zone,
                "encrypted": "true" if volume.encryption.encrypted else "false",
                "size": str(volume.size_gib),
                "snapshot-id": volume.snapshot_id,
                "status": "in-use" if volume.instance_id else "available",
                "volume-id": volume.volume_id,
                "volume-type": volume.volume_type,
            }
            if ids and volume.volume_id not in ids:
                continue
            if not all(each.fits([facts[each.name]]) for each in filters if each.name in facts):
                continue
            if tag_filters_fit(filters, volume.tags):
                found.append(_view(volume))
    shown, following = page(call, found, least=5, most=1000)
    return {"volumeSet": shown, "nextToken": following}


def delete_volume(call: Call) -> Answer:
    volume_id = call.params.required("VolumeId")
    registry = call.registry
    with registry.lock:
        volume = registry.volume(volume_id, account=call.account, region=call.region)
        if volume is None:
            raise Ec2Error("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
        if volume.instance_id:
            raise Ec2Error("VolumeInUse", f"Volume {volume_id} is currently attached.")
        del registry.volumes[volume_id]
        volume.blocks.clear()
    return {"return": True}
