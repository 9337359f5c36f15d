from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockferry.blocks import BLOCK_SIZE
from blockferry.errors import InvalidRequest, RequestRefused
from blockferry.upload import upload_image
from fakes import content
from rig import HOME, Rig, hashes, running_rig


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


def image(folder: Path, data: bytes, *, size: int | None = None) -> Path:
    path = folder / "disk.img"
    path.write_bytes(data)
    with path.open("r+b") as handle:
        handle.truncate(size or len(data))
    return path


def test_an_image_becomes_a_completed_snapshot_of_its_size_without_its_zeros(rig: Rig, tmp_path: Path) -> None:
    noise = random.Random(5).randbytes(BLOCK_SIZE)
    path = image(tmp_path, noise + content(0) + content(3), size=3 * 2**30)
    made = upload_image(path, region=HOME, aws=rig.aws, description="disk", tags={"a": "b"})
    assert rig.held(made.snapshot_id) == hashes({0: noise, 2: content(3)})
    facts = rig.facts(made.snapshot_id)
    assert (facts["state"], facts["volume_size"], facts["description"]) == ("completed", 3, "disk")
    assert facts["tags"] == {"a": "b"}
    assert made.linear_checksum == facts["linear_checksum"]
    assert (made.blocks, made.volume_size_gib) == (2, 3)


def test_an_unaligned_tail_is_kept(rig: Rig, tmp_path: Path) -> None:
    made = upload_image(image(tmp_path, content(1) + b"tail"), region=HOME, aws=rig.aws)
    assert rig.held(made.snapshot_id) == hashes({0: content(1), 1: b"tail" + bytes(BLOCK_SIZE - 4)})


def test_a_failed_upload_leaves_no_snapshot(rig: Rig, tmp_path: Path) -> None:
    rig.control(
        "faults", {"operation": "PutSnapshotBlock", "action": "error", "status": 403, "code": "AccessDeniedException"}
    )
    with pytest.raises(RequestRefused, match="PutSnapshotBlock block 0"):
        upload_image(image(tmp_path, content(1)), region=HOME, aws=rig.aws)
    assert rig.snapshots() == []


def test_a_volume_too_small_for_the_image_is_refused_before_anything_is_started(rig: Rig, tmp_path: Path) -> None:
    path = image(tmp_path, content(1), size=2**30 + 1)
    with pytest.raises(InvalidRequest, match="more than a volume of 1 GiB holds"):
        upload_image(path, region=HOME, aws=rig.aws, volume_size_gib=1)
    assert rig.snapshots() == []
