"""A parent's tags have to say all of it: made of this base, by a job, proved, and set on this very snapshot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockferry.core.errors import InvalidRequest
from fakes import content
from rig import ACCOUNT, HOME, RECOVERY, THIRD, Rig, running_rig

VOLUME = "vol-0123456789abcdef0"
SOURCE, REGION = "blockferry:source-snapshot-id", "blockferry:source-region"
JOB, CHECKSUM, PROVED = "blockferry:job-id", "blockferry:linear-checksum", "blockferry:proved-snapshot-id"


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as made:
        yield made


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({SOURCE: None}, f"it has no tag {SOURCE}"),
        ({SOURCE: "snap-00000000000000009"}, f"it was made of snap-00000000000000009 in {HOME}"),
        ({REGION: THIRD}, f"in {THIRD}"),
        ({REGION: None}, "its tags say that it was made of"),
        ({PROVED: "snap-00000000000000009"}, "its tags were copied from snap-00000000000000009"),
        ({PROVED: None}, f"it lacks the tags {CHECKSUM} and {PROVED}"),
        ({CHECKSUM: None}, f"it lacks the tags {CHECKSUM} and {PROVED}"),
        ({JOB: None}, "is not shown to equal the base"),
        ({}, None),
    ],
)
def test_a_copy_whose_tags_leave_a_doubt_is_refused_as_parent_with_the_doubt(
    rig: Rig, change: dict[str, str | None], doubt: str | None
) -> None:
    rig.control("volumes", {"volume_id": VOLUME, "owner": ACCOUNT, "region": HOME, "size": 1})
    snapshots = []
    for number in (1, 2):
        rig.post(f"volumes/{VOLUME}/blocks/0", content(number))
        snapshots.append(rig.client("ec2").create_snapshot(VolumeId=VOLUME)["SnapshotId"])
        rig.control("clock", {"advance": 1})
    base, snapshot = snapshots
    parent = rig.copy({"snapshot_id": base, "targets": [{"region": RECOVERY}]})["targets"][0]["snapshot_id"]
    ec2 = rig.client("ec2", RECOVERY)
    for key, value in change.items():
        ec2.delete_tags(Resources=[parent], Tags=[{"Key": key}])
        if value is not None:
            ec2.create_tags(Resources=[parent], Tags=[{"Key": key, "Value": value}])
    targets = [{"region": RECOVERY, "parent_snapshot_id": parent}]
    request = {"base_snapshot_id": base, "snapshot_id": snapshot, "targets": targets}
    if doubt is None:
        assert rig.plan(request, operation="sync")["job_id"]
        return
    with pytest.raises(InvalidRequest) as refused:
        rig.plan(request, operation="sync")
    text = str(refused.value)
    assert f"parent_snapshot_id {parent} in {RECOVERY} is not shown to equal the base {base}" in text
    assert doubt in text
    assert "options.verify_parent" in text
