"""What an upload does about holes: every wish against every target, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HoleMeaning, HolePolicy
from blockferry.local.holes import CANNOT_TELL, UploadHoles, decide
from blockferry.sources.device import ImageSource
from blockferry.sources.device_delta import ImageDelta
from blockferry.sources.extents import WholeImage, WrittenImage
from blockferry.sources.snapshot import SnapshotSource
from fakes import content
from memory_ebs import MemoryEbs

NONE, NOISE, _, ZEROS = HoleMeaning
PRESERVE, ZERO_FILL, SKIP_ZERO = HolePolicy

IMAGE_BLOCKS, VOLUME_BLOCKS = 4, 8
ALL = BlockRange(0, VOLUME_BLOCKS)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[ImageSource]:
    """Data at 1, zeros written without data at 2, holes at 0 and 3."""
    path = tmp_path / "disk.img"
    with path.open("wb") as handle:
        handle.truncate(IMAGE_BLOCKS * BLOCK_SIZE)
        handle.seek(BLOCK_SIZE)
        handle.write(content(1))
    with ImageSource(path) as source:
        yield source


@pytest.fixture
def fiemap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that tells extents: those of the data, and an unwritten one."""
    monkeypatch.setattr("blockferry.sources.extents._ask", lambda *_: [(BLOCK_SIZE, 2 * BLOCK_SIZE, 1)])


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not tell extents."""
    monkeypatch.setattr("blockferry.local.holes.tells_extents", lambda _descriptor: False)


def decided(
    image: ImageSource, asked: HolePolicy | None, *, encrypted: bool, on_parent: bool = False, fills: bool = False
) -> UploadHoles:
    total = IMAGE_BLOCKS if fills else VOLUME_BLOCKS
    return decide(asked, image, may_be_encrypted=encrypted, on_parent=on_parent, total_blocks=total)


def listed(source: Any) -> list[int]:
    return [ref.index for ref in source.blocks(ALL)]


def told(holes: UploadHoles) -> tuple[HolePolicy, HolePolicy | None, HoleMeaning, HoleMeaning, str]:
    assert holes.decision.policy == holes.policy
    return holes.policy, holes.decision.policy, holes.decision.taken_for, holes.decision.left, holes.decision.by


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_wish_is_only_offered_where_it_loses_nothing(image: ImageSource, encrypted: bool) -> None:
    for asked in (None, ZERO_FILL):
        offered = decided(image, asked, encrypted=encrypted).decision.possible
        assert offered == ((PRESERVE, ZERO_FILL) if encrypted else (PRESERVE, ZERO_FILL, SKIP_ZERO))


def test_zeros_are_not_left_out_where_a_hole_does_not_read_as_zeros(image: ImageSource) -> None:
    with pytest.raises(InvalidRequest, match="--holes skip_zero is not safe"):
        decided(image, SKIP_ZERO, encrypted=True)


@pytest.mark.parametrize("asked", [None, SKIP_ZERO])
def test_holes_and_zeros_are_left_out_of_an_unencrypted_snapshot(image: ImageSource, asked: HolePolicy | None) -> None:
    holes = decided(image, asked, encrypted=False)
    assert told(holes) == (SKIP_ZERO, SKIP_ZERO, ZEROS, ZEROS, "request" if asked else "default")
    assert holes.source is image
    assert not holes.fills
    assert holes.warnings == ()


@pytest.mark.parametrize(("fills", "left"), [(False, NOISE), (True, NONE)])
def test_all_of_an_image_goes_to_a_snapshot_that_is_or_may_be_encrypted(
    image: ImageSource, fills: bool, left: HoleMeaning
) -> None:
    holes = decided(image, None, encrypted=True, fills=fills)
    assert told(holes) == (PRESERVE, PRESERVE, ZEROS, left, "default")
    assert "may be encrypted" in holes.decision.reason
    assert listed(holes.source) == [0, 1, 2, 3]
    assert holes.fills
    assert holes.warnings == ()


@pytest.mark.usefixtures("fiemap")
@pytest.mark.parametrize("encrypted", [False, True])
def test_preserve_keeps_what_was_written_with_data_or_without(image: ImageSource, encrypted: bool) -> None:
    holes = decided(image, PRESERVE, encrypted=encrypted)
    assert told(holes) == (PRESERVE, PRESERVE, NOISE, NOISE, "request")
    assert isinstance(holes.source, WrittenImage)
    assert listed(holes.source) == [1, 2]
    assert holes.fills
    assert holes.warnings == ()


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(("fills", "left"), [(False, NOISE), (True, NONE)])
def test_preserve_takes_all_for_written_where_nobody_tells_holes_from_zeros(
    image: ImageSource, fills: bool, left: HoleMeaning
) -> None:
    holes = decided(image, PRESERVE, encrypted=True, fills=fills)
    assert told(holes) == (PRESERVE, PRESERVE, ZEROS, left, "request")
    assert holes.decision.reason == CANNOT_TELL["message"]
    assert holes.warnings == (CANNOT_TELL,)
    assert set(CANNOT_TELL) == {"code", "message"}
    assert CANNOT_TELL["code"] == "unwritten_extents_unknown"
    assert isinstance(holes.source, WholeImage)
    assert listed(holes.source) == [0, 1, 2, 3]
    assert holes.fills


@pytest.mark.parametrize("encrypted", [False, True])
def test_zero_fill_leaves_no_hole_in_the_volume(image: ImageSource, encrypted: bool) -> None:
    holes = decided(image, ZERO_FILL, encrypted=encrypted)
    assert told(holes) == (ZERO_FILL, ZERO_FILL, ZEROS, NONE, "request")
    assert holes.source is image
    assert holes.to_put(None) == (image, ZERO_FILL)
    # On top of a parent the list has to hold every block itself, as what it leaves out stays the parent's.
    on_top = decided(image, ZERO_FILL, encrypted=encrypted, on_parent=True)
    assert listed(on_top.source) == list(range(VOLUME_BLOCKS))
    assert on_top.fills


@pytest.mark.parametrize(("encrypted", "written"), [(True, [0, 1, 2, 3]), (False, [1])])
def test_on_top_of_a_parent_zeros_go_over_its_holes_where_those_do_not_read_as_zeros(
    image: ImageSource, encrypted: bool, written: list[int]
) -> None:
    parent = SnapshotSource(cast(Any, MemoryEbs({"snap-p": {}})), "snap-p", total_blocks=VOLUME_BLOCKS)
    source, policy = decided(image, None, encrypted=encrypted, on_parent=True).to_put(parent)
    assert isinstance(source, ImageDelta)
    assert policy is PRESERVE
    read = [source.read(ref) for ref in source.blocks(ALL)]
    assert [block.index for block in read if not block.unchanged] == written


def test_without_a_parent_the_image_is_put_as_it_was_decided(image: ImageSource) -> None:
    assert decided(image, None, encrypted=False).to_put(None) == (image, SKIP_ZERO)
