"""The demo's independent comparison finds what it is there to find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import content
from rig import Rig, running_rig
from tools.readback import (
    Changes,
    client,
    compare_blocks,
    compare_images,
    data_blocks,
    holds_image,
    restore,
    same_bytes,
)

HOME = "us-east-1"


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


def test_equal_snapshots_have_no_differences(rig: Rig) -> None:
    blocks = {0: content(1), 9: content(0)}
    one, other = rig.snapshot(blocks), rig.snapshot(blocks)
    compared = compare_blocks((client(HOME), one), (client(HOME), other))
    assert (compared.blocks, compared.differences) == (2, ())


def test_missing_extra_and_different_blocks_are_named(rig: Rig) -> None:
    one = rig.snapshot({0: content(1), 1: content(2), 2: content(3)})
    other = rig.snapshot({1: content(2), 2: content(4), 3: content(0)})
    compared = compare_blocks((client(HOME), one), (client(HOME), other))
    assert compared.differences == (
        f"block 0 is only in {one}",
        f"block 3 is only in {other}",
        "block 2 differs",
    )


def test_a_restored_image_has_the_blocks_in_their_places_and_zeros_elsewhere(rig: Rig, tmp_path: Path) -> None:
    snapshot = rig.snapshot({1: content(5)})
    rebuilt = tmp_path / "copy.img"
    rebuilt.write_bytes(b"old content")
    assert restore(client(HOME), snapshot, rebuilt, size=3 * 2**19) == 1
    assert rebuilt.read_bytes() == bytes(2**19) + content(5) + bytes(2**19)


@pytest.mark.parametrize(("other", "same"), [(b"abc", True), (b"abd", False), (b"ab", False), (b"abcd", False)])
def test_files_are_compared_to_the_last_byte(tmp_path: Path, other: bytes, same: bool) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(other)
    assert same_bytes(tmp_path / "a", tmp_path / "b") is same


def test_a_snapshot_that_reads_as_an_image_is_told_from_one_that_does_not(rig: Rig, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(content(1) + content(0) + content(3) + b"tail")
    data = data_blocks(image)
    assert data == {0, 2, 3}
    tail = b"tail".ljust(len(content(0)), b"\0")
    whole = {0: content(1), 1: content(0), 2: content(3), 3: tail}
    right = [whole, {index: data for index, data in whole.items() if index != 1}]
    wrong = [{**whole, 2: content(4)}, {i: d for i, d in whole.items() if i != 3}, {**whole, 1: content(9)}]
    assert [holds_image(client(HOME), rig.snapshot(blocks), image, data=data) for blocks in right + wrong] == (
        [True, True, False, False, False]
    )


def test_two_images_are_compared_block_by_block(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(content(1) + content(2) + content(0) + content(4))
    second.write_bytes(content(1) + content(9) + content(3) + content(0))
    assert compare_images(first, second) == Changes(overwritten=1, added=1, zeroed=1)
    second.write_bytes(content(1))
    with pytest.raises(ValueError, match="different sizes"):
        compare_images(first, second)
