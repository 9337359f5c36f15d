"""Archives of snapshots: made by the real machine, read back block by block, and held against the snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from blockferry.aws.archives import Chain, bucket_of, open_chain
from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import Linear, digest_of
from blockferry.core.errors import InvalidRequest
from blockferry.formats.archive.index import Kind
from blockferry.formats.archive.layout import SEGMENTS, UNFINISHED, segment_name
from fakes import content
from rig import HOME, RECOVERY, Rig, running_rig

ARCHIVES = "archives-111122223333"

OPTIONS = {"blocks_per_range": 512}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        made.aws.s3(HOME).create_bucket(Bucket=ARCHIVES)
        yield made


def request(snapshot_id: str, *, base: str | None = None, options: Any = None, **archive: Any) -> dict[str, Any]:
    return {
        "snapshot_id": snapshot_id,
        "base_manifest_uri": base,
        "archive": {"bucket": ARCHIVES, "prefix": "disks", **archive},
        "options": {**OPTIONS, **(options or {})},
    }


def chain(rig: Rig, uri: str) -> Chain:
    return open_chain(Call(aws=rig.aws), Identity(HOME), uri)


def read(rig: Rig, uri: str) -> dict[int, bytes]:
    """Every allocated block of an archive, frame by frame, each checked on the way."""
    found = chain(rig, uri)
    blocks: dict[int, bytes] = {}
    for number, archive in enumerate(found.members):
        for facts in archive.manifest.indexes:
            index = archive.index(facts)
            for place in range(len(index.segments)):
                archive.segment(index, place)
            for block, located in found.held(facts.range).items():
                if located.member == number:
                    entry = located.entry
                    data = index.segment_of(block) and (
                        bytes(BLOCK_SIZE)
                        if entry.kind is Kind.ZEROS
                        else archive.frames(index.segment_of(block), [entry])[0]
                    )
                    blocks[block] = data
    return dict(sorted(blocks.items()))


def linear(blocks: dict[int, bytes]) -> str:
    found = Linear()
    for index, data in sorted(blocks.items()):
        found.add(index, digest_of(data))
    return found.value()


def keys(rig: Rig, prefix: str = "") -> list[str]:
    found = rig.aws.s3(HOME).list_objects_v2(Bucket=ARCHIVES, Prefix=prefix)
    return [each["Key"] for each in found.get("Contents", [])]


BLOCKS = {0: content(1), 3: bytes(BLOCK_SIZE), 511: content(2), 512: content(3), 700: content(4), 2047: content(5)}


def test_a_full_archive_holds_exactly_what_the_snapshot_holds(rig: Rig) -> None:
    snapshot = rig.snapshot(BLOCKS, Description="Übung", Tags=[{"Key": "näme", "Value": "wert"}])
    receipt = rig.run("archive", request(snapshot, segment_blocks=2))
    uri = receipt["manifest_uri"]
    assert read(rig, uri) == BLOCKS
    manifest = chain(rig, uri).manifest
    assert (manifest.source.snapshot_id, manifest.source.description) == (snapshot, "Übung")
    assert manifest.source.tags["näme"] == "wert"
    assert manifest.linear_checksum == receipt["linear_checksum"] == linear(BLOCKS)
    assert manifest.counts.model_dump() == {
        "allocated_blocks": 6,
        "data_blocks": 5,
        "zero_blocks": 1,
        "removed_blocks": 0,
        "segments": 3,
        "stored_bytes": receipt["bytes_written"],
    }
    (target,) = receipt["targets"]
    assert (target["snapshot_id"], target["manifest_uri"], target["state"]) == (None, uri, "completed")
    assert (receipt["status"], receipt["allocated_blocks"], receipt["bytes_read"]) == ("SUCCEEDED", 6, 6 * BLOCK_SIZE)
    folder = uri.removeprefix(f"s3://{ARCHIVES}/").removesuffix("manifest.json")
    names = [key.removeprefix(folder) for key in keys(rig)]
    assert names == [
        "index/0000000000.idx",
        "index/0000000512.idx",
        "index/0000001536.idx",
        "manifest.json",
        *(segment_name(first) for first in (0, 512, 2047)),
    ]


def child(rig: Rig, parent: str, changes: dict[int, bytes], *, size_gib: int = 1) -> str:
    """A snapshot of the same lineage that differs in these blocks."""
    return rig.snapshot(changes, ParentSnapshotId=parent, size_gib=size_gib)


def test_an_incremental_archive_stores_only_what_changed_and_reads_as_the_snapshot(rig: Rig) -> None:
    first = rig.snapshot(BLOCKS)
    base = rig.run("archive", request(first))["manifest_uri"]
    changes = {0: content(9), 5: content(8), 511: bytes(BLOCK_SIZE)}
    second = child(rig, first, changes)
    before = rig.calls()
    receipt = rig.run("archive", request(second, base=base))
    assert rig.calls()["GetSnapshotBlock"] - before["GetSnapshotBlock"] == 3
    uri = receipt["manifest_uri"]
    assert read(rig, uri) == dict(sorted((BLOCKS | changes).items()))
    found = chain(rig, uri)
    assert [member.address.manifest_uri for member in found.members] == [uri, base]
    assert found.manifest.counts.model_dump() == {
        "allocated_blocks": 7,
        "data_blocks": 2,
        "zero_blocks": 1,
        "removed_blocks": 0,
        "segments": 1,
        "stored_bytes": receipt["bytes_written"],
    }
    assert receipt["linear_checksum"] == linear(BLOCKS | changes)
    assert receipt["targets"][0]["base_manifest_uri"] == base
    # The middle of a chain of three is built upon the same two.
    third = child(rig, second, {1: content(7)})
    again = rig.run("archive", request(third, base="auto"))
    assert [each.manifest_uri for each in chain(rig, again["manifest_uri"]).manifest.base] == [uri, base]
    assert read(rig, again["manifest_uri"]) == dict(sorted((BLOCKS | changes | {1: content(7)}).items()))
