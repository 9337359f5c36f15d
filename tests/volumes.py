"""Volumes of the EBS server, and snapshots of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rig import ACCOUNT, HOME, Rig


class Volume:
    """A volume in the home region whose blocks are ``content``, and snapshots of it."""

    def __init__(self, rig: Rig, *, volume_id: str = "vol-0123456789abcdef0", size_gib: int = 1, **more: Any) -> None:
        self.rig, self.volume_id, self.content = rig, volume_id, dict[int, bytes]()
        facts = {"volume_id": volume_id, "owner": ACCOUNT, "region": HOME, "size": size_gib, **more}
        rig.control("volumes", facts)

    def becomes(self, blocks: Mapping[int, bytes]) -> Volume:
        for index in self.content.keys() - blocks.keys():
            self.rig.control(f"volumes/{self.volume_id}/blocks/{index}", method="DELETE")
        for index, data in blocks.items():
            if self.content.get(index) != data:
                self.rig.post(f"volumes/{self.volume_id}/blocks/{index}", data)
        self.content = dict(blocks)
        return self

    def grows(self, size_gib: int) -> Volume:
        # The EBS server itself has no ModifyVolume.
        self.rig.server.service.registry.volumes[self.volume_id].size_gib = size_gib
        return self

    def snapshot(self, **more: Any) -> str:
        made = self.rig.client("ec2").create_snapshot(VolumeId=self.volume_id, **more)["SnapshotId"]
        # A second between two snapshots: EC2's times have no finer grain.
        self.rig.control("clock", {"advance": 1})
        assert self.rig.state(made) == "completed"
        return str(made)
