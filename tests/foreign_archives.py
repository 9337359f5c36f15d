"""Archives as flexible-snapshot-proxy makes them, by the layout of its objects."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping

import zstandard
from blockferry.core.checksums import digest_of
from fakes import content
from rig import HOME, Rig

BUCKET = "old-archives"
FOLDER = "snap-0123456789abcdef0.1/"
URI = f"s3://{BUCKET}/{FOLDER}"

BLOCKS = {
    **{index: content(index % 9 + 1) for index in range(60, 70)},
    100: content(0),
    **{index: content(index % 5 + 1) for index in range(1000, 1064)},
    2046: content(3),
}


def runs(blocks: Mapping[int, bytes]) -> Iterator[list[int]]:
    """Contiguous runs, cut at multiples of 64."""
    run: list[int] = []
    for index in sorted(blocks):
        if run and (index != run[-1] + 1 or index % 64 == 0):
            yield run
            run = []
        run.append(index)
    yield run


def objects(blocks: Mapping[int, bytes]) -> dict[str, bytes]:
    """The objects of an archive, by name."""
    found = {}
    for run in runs(blocks):
        raw = b"".join(blocks[index] for index in run)
        digest = urlsafe_b64encode(digest_of(raw)).decode()
        found[f"{run[0]}.{digest}.{len(run)}.zstd"] = zstandard.ZstdCompressor(level=1).compress(raw)
    return found


def stored(rig: Rig, folder: str = FOLDER, blocks: Mapping[int, bytes] = BLOCKS) -> list[str]:
    keys = []
    for name, body in objects(blocks).items():
        rig.aws.s3(HOME).put_object(Bucket=BUCKET, Key=folder + name, Body=body)
        keys.append(folder + name)
    return keys
