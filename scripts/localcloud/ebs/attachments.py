"""Which volume is attached to which instance, as EC2 keeps it: in the volume and in the instance alike.

The base notes it in the volume only, and lets a volume be attached twice and two volumes be one device. Source: EC2 API
reference, AttachVolume and DetachVolume.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Records = Mapping[str, dict[str, Any]]


def refusal(params: Mapping[str, str], volumes: Records, instances: Records) -> tuple[str, str] | None:
    """Code and message with which EC2 refuses to attach or detach; ``None`` where the base decides."""
    volume = volumes.get(params.get("VolumeId", ""))
    if volume is None:
        return None
    if params.get("Action") == "DetachVolume":
        if not volume.get("Attachments"):
            return "IncorrectState", f"Volume '{params['VolumeId']}' is in the 'available' state."
        return None
    if volume.get("Attachments") and not volume.get("MultiAttachEnabled"):
        holder = volume["Attachments"][0]["InstanceId"]
        return "VolumeInUse", f"{params['VolumeId']} is already attached to an instance ({holder})"
    instance = instances.get(params.get("InstanceId", ""))
    device = params.get("Device", "")
    if instance is not None and any(each["DeviceName"] == device for each in _mapped(instance)):
        return (
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )
    return None


def attached(params: Mapping[str, str], earlier: list[dict[str, Any]], volumes: Records, instances: Records) -> None:
    """Note in the instance what the base has noted in the volume, which keeps its ``earlier`` attachments."""
    volume, instance = volumes[params["VolumeId"]], instances[params["InstanceId"]]
    volume["Attachments"] = [*earlier, *volume["Attachments"]]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    ebs = {"VolumeId": params["VolumeId"], "Status": "attached", "AttachTime": now, "DeleteOnTermination": False}
    instance["BlockDeviceMappings"] = [*_mapped(instance), {"DeviceName": params["Device"], "Ebs": ebs}]


def detached(volume_id: str, instances: Records) -> None:
    """Take a volume from every instance."""
    for instance in instances.values():
        instance["BlockDeviceMappings"] = [
            each for each in _mapped(instance) if each.get("Ebs", {}).get("VolumeId") != volume_id
        ]


def _mapped(instance: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(instance.get("BlockDeviceMappings") or [])
