"""The golden archives of tests/golden/archive-1: a full one, and one on top of it whose volume has grown.

They hold what archives of format version 1 look like for good, so they are made again on purpose only, when a new
version of the format gets a folder of its own: ``.venv/bin/python -m tools.golden_archives FOLDER``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from blockferry.core.blocks import BLOCK_SIZE, BLOCKS_PER_GIB, BlockRange
from blockferry.core.checksums import ZERO_BLOCK, ZERO_DIGEST, Linear, digest_of
from blockferry.core.holes import HoleMeaning
from blockferry.formats.archive import index, manifest
from blockferry.formats.archive.index import Kind, RangeIndex
from blockferry.formats.archive.layout import MANIFEST, ArchiveAddress, index_name, segment_name
from blockferry.formats.archive.manifest import Codec, Counts, IndexFacts, Manifest, Member, SourceFacts
from blockferry.formats.archive.segment import DEFAULT_LEVEL, Compressor, Segment, SegmentBuilder

GOLDEN = Path("tests/golden/archive-1")
"""Below the root of the repository: a folder for the bucket, with the keys as paths, and ``expected.json``."""

BUCKET = "golden-archives"

BLOCKS_PER_RANGE, SEGMENT_BLOCKS = 1_024, 2
"""So small that four GiB and a handful of blocks give ranges without an index and segments that are not full."""

ZEROS, REMOVED = "zeros", "removed"
"""What an archive may say of a block, beside the number of its content."""

Told = int | str


@dataclass(frozen=True, eq=False)
class Golden:
    """An archive: what it says of blocks (``told``), and what the snapshot then holds (``held``)."""

    archive_id: str
    size_gib: int
    told: Mapping[int, Told]
    held: Mapping[int, Told]
    snapshot_id: str
    start_time: str
    description: str
    tags: Mapping[str, str]

    @property
    def address(self) -> ArchiveAddress:
        return ArchiveAddress(BUCKET, "disks/", self.archive_id)


_FULL: Mapping[int, Told] = {0: 1, 1: 2, 2: 3, 3: ZEROS, 5: 4, 1023: 5, 1024: ZEROS, 2047: 6}

_CHANGES: Mapping[int, Told] = {1: 7, 2: REMOVED, 3: 8, 5: ZEROS, 700: 9, 1023: REMOVED, 2048: ZEROS, 4095: 10}
"""Changed, gone, no more zeros, zeros now, new, gone at the end of a range, and two where the volume has grown."""

FULL = Golden(
    archive_id="full",
    size_gib=1,
    told=_FULL,
    held=_FULL,
    snapshot_id="snap-0123456789abcdef0",
    start_time="2026-11-26T22:00:00+00:00",
    description='Übung 日本 😀 "root" of web-1\\2\tDEL:\x7f',
    tags={**{f"tag {number:02}": "x" * number for number in range(12)}, "Käse": "brie/été", "team": "web"},
)

INCREMENT = Golden(
    archive_id="increment",
    size_gib=2,
    told=_CHANGES,
    held={block: what for block, what in sorted({**_FULL, **_CHANGES}.items()) if what != REMOVED},
    snapshot_id="snap-0fedcba9876543210",
    start_time="2026-11-27T22:00:00+00:00",
    description="",
    tags={},
)

ARCHIVES = (FULL, INCREMENT)

Frame = Callable[[Golden, int], bytes]
"""Gives the frame of a block with data, by its index in an archive."""


@cache
def content(number: int) -> bytes:
    """A block: 64 bytes that look like noise, and a line that is repeated up to its end."""
    noise = hashlib.sha512(str(number).encode()).digest()
    line = f"block of the golden archives, content {number}\n".encode()
    return (noise + line * (BLOCK_SIZE // len(line)))[:BLOCK_SIZE]


def data_of(what: Told) -> bytes:
    """The block as it reads."""
    return content(what) if isinstance(what, int) else ZERO_BLOCK


def compressed() -> Frame:
    """Frames as the writer of today compresses them."""
    compressor = Compressor(DEFAULT_LEVEL)
    return lambda golden, block: compressor.frame(data_of(golden.told[block]))


def tree(frame: Frame) -> Mapping[str, bytes]:
    """Every file of the folder, by its path in it."""
    files: dict[str, bytes] = {}
    base: tuple[Member, ...] = ()
    for golden in ARCHIVES:
        made = objects(golden, frame, base)
        files |= {f"{BUCKET}/{golden.address.key(name)}": body for name, body in made.items()}
        sha256 = json.loads(made[MANIFEST])["sha256"]
        base = (Member(manifest_uri=golden.address.manifest_uri, sha256=sha256), *base)
    return {**files, "expected.json": expected()}


def objects(golden: Golden, frame: Frame, base: Sequence[Member]) -> Mapping[str, bytes]:
    """The objects of an archive by their names in it, the manifest last."""
    made: dict[str, bytes] = {}
    indexes: list[IndexFacts] = []
    segments: list[Segment] = []
    for within in _ranges(golden.size_gib):
        some = _segments(golden, within, frame, base)
        if not some:
            continue
        made |= {segment_name(each.facts.first): each.body for each in some}
        entries = tuple(entry for each in some for entry in each.entries)
        body = index.pack(RangeIndex(golden.archive_id, within, tuple(each.facts for each in some), entries))
        made[index_name(within.first)] = body
        sha256 = hashlib.sha256(body).hexdigest()
        indexes.append(IndexFacts(first=within.first, stop=within.stop, bytes=len(body), sha256=sha256))
        segments += some
    told = list(golden.told.values())
    sealed = manifest.sealed(
        Manifest(
            archive_id=golden.archive_id,
            created_at=golden.start_time.replace("T22:", "T23:"),
            tool_version="1.0.0",
            job_id=f"nightly-{golden.archive_id}",
            execution=hashlib.sha256(golden.archive_id.encode()).hexdigest(),
            volume_size_gib=golden.size_gib,
            codec=Codec(level=DEFAULT_LEVEL),
            segment_blocks=SEGMENT_BLOCKS,
            source=SourceFacts(
                snapshot_id=golden.snapshot_id,
                region="us-east-1",
                owner_id="111122223333",
                volume_id="vol-0123456789abcdef0",
                start_time=golden.start_time,
                description=golden.description,
                tags=dict(golden.tags),
                encrypted=True,
                kms_key_arn="arn:aws:kms:us-east-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef",
            ),
            holes=HoleMeaning.NOISE,
            base=tuple(base),
            counts=Counts(
                allocated_blocks=len(golden.held),
                data_blocks=sum(isinstance(what, int) for what in told),
                zero_blocks=told.count(ZEROS),
                removed_blocks=told.count(REMOVED),
                segments=len(segments),
                stored_bytes=sum(each.facts.stored_bytes for each in segments),
            ),
            linear_checksum=linear(golden),
            indexes=tuple(indexes),
        )
    )
    return {**made, MANIFEST: manifest.dump(sealed)}


def _ranges(size_gib: int) -> Iterator[BlockRange]:
    for first in range(0, size_gib * BLOCKS_PER_GIB, BLOCKS_PER_RANGE):
        yield BlockRange(first, first + BLOCKS_PER_RANGE)


def _segments(golden: Golden, within: BlockRange, frame: Frame, base: Sequence[Member]) -> list[Segment]:
    facts = {
        "snapshot_id": golden.snapshot_id,
        "volume_size_gib": golden.size_gib,
        "base": base[0].manifest_uri if base else None,
    }
    builder = SegmentBuilder(golden.archive_id, facts, blocks=SEGMENT_BLOCKS)
    made: list[Segment | None] = []
    for block, what in golden.told.items():
        if block not in within:
            continue
        if isinstance(what, int):
            made.append(builder.add(block, Kind.DATA, frame(golden, block), digest_of(content(what))))
        else:
            made.append(builder.add(block, Kind.ZEROS if what == ZEROS else Kind.REMOVED, b"", ZERO_DIGEST))
    return [each for each in (*made, builder.close()) if each is not None]


def linear(golden: Golden) -> str:
    """LINEAR (base64) over every block that the snapshot holds."""
    found = Linear()
    for block, what in golden.held.items():
        found.add(block, digest_of(data_of(what)))
    return found.value()


def expected() -> bytes:
    """``expected.json``: what each archive reads as, for readers in any language."""
    told = {
        golden.archive_id: {
            "manifest_uri": golden.address.manifest_uri,
            "volume_size_gib": golden.size_gib,
            "blocks": {str(block): digest_of(data_of(what)).hex() for block, what in golden.held.items()},
            "linear_checksum": linear(golden),
        }
        for golden in ARCHIVES
    }
    return (json.dumps(told, indent=1) + "\n").encode()


def main(arguments: list[str] | None = None) -> int:
    """Write the golden archives."""
    parser = argparse.ArgumentParser(prog="python -m tools.golden_archives", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to; what is there already is refused")
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True)
    for name, body in tree(compressed()).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        print(f"wrote {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
