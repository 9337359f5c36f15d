"""Bytes of an archive on this machine, held against the disk, with what is asked of S3 for them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.cli.main import main
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import ArchiveDamaged, InvalidRequest
from blockferry.local.cat import ByteRange, open_disk
from fakes import content
from rig import HOME, Rig, running_rig
from volumes import Volume

ARCHIVES = "archives-111122223333"

BEFORE = {**{index: content(index % 5 + 1) for index in range(20)}, 30: content(0), 2047: content(6)}
AFTER = {**BEFORE, 2: content(9)}
del AFTER[5]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as made:
        made.aws.s3(HOME).create_bucket(Bucket=ARCHIVES)
        yield made


@pytest.fixture
def uri(rig: Rig) -> str:
    """An archive on top of another one."""
    volume, made = Volume(rig), ""
    for blocks in (BEFORE, AFTER):
        request = {"snapshot_id": volume.becomes(blocks).snapshot(), "archive": {"bucket": ARCHIVES}}
        made = rig.run("archive", {**request, "base_manifest_uri": made or None})["manifest_uri"]
    return made


def expected(first: int, stop: int) -> bytes:
    blocks = range(first // BLOCK_SIZE, -(-stop // BLOCK_SIZE))
    whole = b"".join(AFTER.get(index, bytes(BLOCK_SIZE)) for index in blocks)
    return whole[first - blocks[0] * BLOCK_SIZE : stop - blocks[0] * BLOCK_SIZE]


def test_any_bytes_come_without_reading_the_rest(rig: Rig, uri: str) -> None:
    call = Call(aws=rig.aws)
    disk = open_disk(call, Identity(HOME), uri)
    for first, stop, frames in (
        (0, 512, 1),
        (BLOCK_SIZE - 1, BLOCK_SIZE + 1, 1),
        # The second block is in the newer archive, those around it in the older one.
        (BLOCK_SIZE, 4 * BLOCK_SIZE, 3),
        (5 * BLOCK_SIZE, 6 * BLOCK_SIZE, 0),
        (30 * BLOCK_SIZE + 7, 31 * BLOCK_SIZE - 7, 0),
        (2046 * BLOCK_SIZE, 2048 * BLOCK_SIZE, 1),
    ):
        before = call.counts.requests["GetObject"]
        assert b"".join(disk.pieces(ByteRange(first, stop))) == expected(first, stop), first
        # An index of each archive, and the frames.
        assert call.counts.requests["GetObject"] - before - frames == 2, first


def test_the_whole_disk_comes_in_its_size(rig: Rig, uri: str) -> None:
    disk = open_disk(Call(aws=rig.aws), Identity(HOME), uri)
    assert disk.size == 2**30
    place = 0
    for piece in disk.pieces(ByteRange(0, disk.size)):
        assert piece == expected(place, place + len(piece))
        place += len(piece)
    assert place == 2**30


def test_damage_is_told_and_what_is_not_damaged_is_read(rig: Rig, uri: str) -> None:
    folder = uri.removeprefix(f"s3://{ARCHIVES}/").removesuffix("manifest.json")
    rig.aws.s3(HOME).delete_object(Bucket=ARCHIVES, Key=f"{folder}segments/0000000002.zst")
    disk = open_disk(Call(aws=rig.aws), Identity(HOME), uri)
    assert b"".join(disk.pieces(ByteRange(0, 9))) == expected(0, 9)
    with pytest.raises(ArchiveDamaged, match=r"segments/0000000002.zst is missing or cut off: block 2 cannot be read"):
        list(disk.pieces(ByteRange(2 * BLOCK_SIZE, 2 * BLOCK_SIZE + 1)))


def test_bytes_behind_the_disk_are_refused(rig: Rig, uri: str) -> None:
    disk = open_disk(Call(aws=rig.aws), Identity(HOME), uri)
    with pytest.raises(InvalidRequest, match="which has 1073741824 bytes"):
        list(disk.pieces(ByteRange(2**30 - 1, 2**30 + 1)))


class _Out(io.TextIOWrapper):
    """Standard output that is no terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())

    def bytes(self) -> bytes:
        return bytes(self.buffer.getvalue())  # type: ignore[attr-defined]


def test_the_command_writes_bytes_or_blocks(rig: Rig, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, first, stop in (
        (("--range", "524287-524289"), 524_287, 524_290),
        (("--blocks", "1-2"), BLOCK_SIZE, 3 * BLOCK_SIZE),
    ):
        out = _Out()
        monkeypatch.setattr("sys.stdout", out)
        assert main(["cat", uri, *words]) == 0
        assert out.bytes() == expected(first, stop)


@pytest.mark.parametrize("words", [("--range", "9-3"), ("--range", "3"), ("--blocks", "x-y")])
def test_a_range_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert main(["cat", f"s3://{ARCHIVES}/x/manifest.json", *words]) == 2
    assert f"{words[0]} {words[1]!r}: write FIRST-LAST" in capsys.readouterr().err
