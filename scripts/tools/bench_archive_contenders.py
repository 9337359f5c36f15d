"""One contender of ``scripts/bench archive``, in a process of its own: prints one JSON object.

The archive and the restore are those of a worker; ``parts`` of each does the same work piece by piece, one kind after
another, so that what the worker adds can be seen.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import zstandard
from blockferry.aws.archives import Archive, Chain
from blockferry.aws.objects import Bucket
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.counts import RequestCounts
from blockferry.core.holes import HoleMeaning, HolePolicy
from blockferry.core.mover import move
from blockferry.core.retry import Clock, Deadline
from blockferry.formats.archive import index
from blockferry.formats.archive.index import RangeIndex
from blockferry.formats.archive.layout import ArchiveAddress, index_name, segment_name
from blockferry.formats.archive.manifest import Codec, Counts, IndexFacts, Manifest, SourceFacts
from blockferry.formats.archive.segment import Compressor
from blockferry.sources.archive import FRAMES_PER_READ, ArchiveSource
from blockferry.sources.snapshot import SnapshotSource
from blockferry.targets.segments import SegmentSink
from blockferry.targets.sink import SnapshotSink

from tools.bench_contenders import REGION, start_target

ADDRESS = ArchiveAddress("bench", "", "archive")
LEVEL = 3
SEGMENT_BLOCKS = 64


def main() -> None:
    """Run one contender, as the arguments say: ``CONTENDER SNAPSHOT BLOCKS THREADS``."""
    contender, snapshot_id, blocks, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    aws = Aws()
    bucket = Bucket(aws.image_s3(Identity(REGION)), ADDRESS.bucket)
    work = {
        "archive": archive,
        "archive-parts": archive_parts,
        "restore": restore,
        "restore-parts": restore_parts,
    }[contender]
    print(json.dumps(work(aws, bucket, snapshot_id, blocks, threads)))


def _timed(work: Callable[[], Any], blocks: int) -> tuple[Any, dict[str, float]]:
    before, began = _cpu(), time.perf_counter()
    result = work()
    wall, cpu = time.perf_counter() - began, _cpu() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result, {
        "cpu_ms_per_block": 1000 * cpu / blocks,
        "mib_per_second": blocks * BLOCK_SIZE / 2**20 / wall,
        "peak_mib": peak,
    }


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _source(aws: Aws, snapshot_id: str, threads: int) -> SnapshotSource:
    return SnapshotSource(aws.ebs(Identity(REGION), counts=RequestCounts(), connections=threads), snapshot_id)


def _move(source: Any, sinks: Sequence[Any], blocks: int, threads: int) -> Any:
    moved = move(
        BlockRange(0, blocks),
        source,
        sinks,
        holes=HolePolicy.PRESERVE,
        threads=threads,
        deadline=Deadline(None, clock=Clock()),
    )
    if moved.blocks_read != blocks or moved.next_index != blocks:
        raise RuntimeError(f"{moved.blocks_read} blocks moved, {blocks} expected")
    return moved


def archive(aws: Aws, bucket: Bucket, snapshot_id: str, blocks: int, threads: int) -> dict[str, float]:
    """What a worker of ``archive`` runs for a range. Its index goes to the bucket, for the restore."""
    kept: list[RangeIndex] = []
    sink = SegmentSink(
        bucket,
        ADDRESS,
        BlockRange(0, blocks),
        keep=lambda stored, _etags: kept.append(stored),
        level=LEVEL,
        segment_blocks=SEGMENT_BLOCKS,
        facts={"snapshot_id": snapshot_id},
        put={},
    )
    _, figures = _timed(lambda: _move(_source(aws, snapshot_id, threads), [sink], blocks, threads), blocks)
    body = index.pack(kept[0])
    bucket.put(ADDRESS.key(index_name(0)), body, sha256=_sha256(body))
    return figures | {"ratio": blocks * BLOCK_SIZE / sum(segment.stored_bytes for segment in kept[0].segments)}


def archive_parts(aws: Aws, bucket: Bucket, snapshot_id: str, blocks: int, threads: int) -> dict[str, float]:
    """GET with SHA-256, zstd, and PUT of segments of the same sizes, each alone, with as many threads."""
    _, got = _timed(lambda: _move(_source(aws, snapshot_id, threads), [], blocks, threads), blocks)
    data = _contents(aws, snapshot_id, blocks)
    compressor = Compressor(LEVEL)
    with ThreadPoolExecutor(threads) as pool:
        frames, packed = _timed(lambda: list(pool.map(compressor.frame, data)), blocks)
    segments = [b"".join(frames[n : n + SEGMENT_BLOCKS]) for n in range(0, blocks, SEGMENT_BLOCKS)]

    def put() -> None:
        for number, body in enumerate(segments):
            # Its SHA-256 belongs to the request: S3 checks it.
            bucket.put(f"parts/{number}", body, sha256=_sha256(body))

    _, sent = _timed(put, blocks)
    return _sum(got, packed, sent)


def restore(aws: Aws, bucket: Bucket, snapshot_id: str, blocks: int, threads: int) -> dict[str, float]:
    """What a worker of ``restore`` runs for a range."""
    chain = _chain(bucket, blocks)
    sink = SnapshotSink(aws.ebs(Identity(REGION), counts=RequestCounts(), connections=threads), start_target())
    _, figures = _timed(lambda: _move(ArchiveSource(chain), [sink], blocks, threads), blocks)
    return figures


def restore_parts(aws: Aws, bucket: Bucket, snapshot_id: str, blocks: int, threads: int) -> dict[str, float]:
    """GET of the same ranges, zstd, SHA-256, and PUT of the blocks, each alone, with as many threads."""
    chain = _chain(bucket, blocks)
    (found,) = chain.newest.indexes(BlockRange(0, blocks))
    pieces: list[tuple[int, int, int]] = []
    for number, segment in enumerate(found.segments):
        entries = found.entries_of(number)
        for place in range(0, len(entries), FRAMES_PER_READ):
            some = entries[place : place + FRAMES_PER_READ]
            pieces.append((segment.first, some[0].offset, sum(entry.length for entry in some)))

    def fetch(piece: tuple[int, int, int]) -> None:
        bucket.get(ADDRESS.key(segment_name(piece[0])), first=piece[1], length=piece[2])

    data = _contents(aws, snapshot_id, blocks)
    compressor = Compressor(LEVEL)
    frames = [compressor.frame(each) for each in data]
    ebs = aws.ebs(Identity(REGION), counts=RequestCounts(), connections=threads)
    target = start_target()
    digests = [hashlib.sha256(each).digest() for each in data]
    with ThreadPoolExecutor(threads) as pool:
        _, got = _timed(lambda: list(pool.map(fetch, pieces)), blocks)
        _, unpacked = _timed(lambda: list(pool.map(_expanded, frames)), blocks)
        _, hashed = _timed(lambda: list(pool.map(lambda each: hashlib.sha256(each).digest(), data)), blocks)

        def put(number: int) -> None:
            ebs.put_block(target, number, data[number], digests[number])

        _, sent = _timed(lambda: list(pool.map(put, range(blocks))), blocks)
    return _sum(got, unpacked, hashed, sent)


def _expanded(frame: bytes) -> int:
    return len(zstandard.ZstdDecompressor().decompress(frame))


def _contents(aws: Aws, snapshot_id: str, blocks: int) -> list[bytes]:
    source = _source(aws, snapshot_id, 1)
    return [source.read(ref).data for ref in source.blocks(BlockRange(0, blocks))]


def _chain(bucket: Bucket, blocks: int) -> Chain:
    body = bucket.get(ADDRESS.key(index_name(0))) or b""
    facts = IndexFacts(first=0, stop=blocks, bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
    none = Counts(
        allocated_blocks=blocks, data_blocks=blocks, zero_blocks=0, removed_blocks=0, segments=1, stored_bytes=0
    )
    manifest = Manifest(
        archive_id=ADDRESS.archive_id,
        created_at="",
        tool_version="",
        job_id="bench",
        execution="0" * 64,
        volume_size_gib=64,
        codec=Codec(level=LEVEL),
        segment_blocks=SEGMENT_BLOCKS,
        source=SourceFacts(snapshot_id="bench"),
        holes=HoleMeaning.NOISE,
        counts=none,
        linear_checksum="A" * 43 + "=",
        indexes=(facts,),
    )
    return Chain((Archive(ADDRESS, manifest, bucket),))


def _sum(*parts: dict[str, float]) -> dict[str, float]:
    return {"cpu_ms_per_block": sum(part["cpu_ms_per_block"] for part in parts)}


def _sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


if __name__ == "__main__":
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    main()
