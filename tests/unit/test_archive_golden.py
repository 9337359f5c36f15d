"""Golden archives: what was written once as version 1 is read for good, and is written the same way today."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blockferry.aws.archives import open_chain
from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import Linear
from blockferry.core.errors import ArchiveDamaged, InvalidRequest
from blockferry.formats.archive import index, manifest, segment
from blockferry.formats.archive.index import Kind
from blockferry.formats.archive.layout import MANIFEST, index_name, segment_name
from rig import HOME, RECOVERY, Rig, running_rig
from tools import golden_archives
from tools.environment import repository_root
from tools.golden_archives import ARCHIVES, BUCKET, FULL, INCREMENT, Golden, content, data_of

FOLDER = repository_root() / golden_archives.GOLDEN

EACH = pytest.mark.parametrize("golden", ARCHIVES, ids=[each.archive_id for each in ARCHIVES])


def stored() -> Mapping[str, bytes]:
    """The files of the golden folder, by their paths in it."""
    return {str(file.relative_to(FOLDER)): file.read_bytes() for file in sorted(FOLDER.rglob("*")) if file.is_file()}


def expected(golden: Golden) -> Any:
    return json.loads((FOLDER / "expected.json").read_text())[golden.archive_id]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """With the golden archives in their bucket."""
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as made:
        s3 = made.aws.s3(HOME)
        s3.create_bucket(Bucket=BUCKET)
        for name, body in stored().items():
            if name.startswith(f"{BUCKET}/"):
                s3.put_object(Bucket=BUCKET, Key=name.removeprefix(f"{BUCKET}/"), Body=body)
        yield made


@EACH
def test_they_read_as_what_was_archived(rig: Rig, golden: Golden) -> None:
    chain = open_chain(Call(aws=rig.aws), Identity(HOME), golden.address.manifest_uri)
    held = chain.held(BlockRange(0, chain.manifest.total_blocks))
    told = expected(golden)
    assert {str(block): located.entry.digest.hex() for block, located in held.items()} == told["blocks"]
    linear = Linear()
    for block, located in held.items():
        linear.add(block, located.entry.digest)
        archive, entry = chain.members[located.member], located.entry
        if entry.kind is Kind.DATA:
            (facts,) = archive.manifest.overlapping(BlockRange(block, block + 1))
            (data,) = archive.frames(archive.index(facts).segment_of(block), [entry])
            assert data == data_of(golden.held[block])
    assert linear.value() == chain.manifest.linear_checksum == told["linear_checksum"]
    assert (chain.manifest.volume_size_gib, chain.manifest.counts.allocated_blocks) == (
        told["volume_size_gib"],
        len(told["blocks"]),
    )
    for archive in chain.members:
        for facts in archive.manifest.indexes:
            found = archive.index(facts)
            for number in range(len(found.segments)):
                archive.segment(found, number)


@EACH
def test_they_are_restored_to_snapshots(rig: Rig, golden: Golden) -> None:
    receipt = rig.run(
        "restore",
        {
            "manifest_uri": golden.address.manifest_uri,
            "targets": [{"region": RECOVERY, "encrypted": False}],
            "options": {"blocks_per_range": 1_024},
        },
    )
    (target,) = receipt["targets"]
    held = {str(block): digest for block, digest in rig.held(target["snapshot_id"]).items()}
    assert held == expected(golden)["blocks"]
    assert target["linear_checksum"] == expected(golden)["linear_checksum"]
    assert target["volume_size_gib"] == golden.size_gib


def test_the_manifest_keeps_every_letter_and_tag_of_the_source() -> None:
    found = manifest.load(stored()[f"{BUCKET}/disks/full/manifest.json"], name="x")
    assert found.source.description == FULL.description
    assert found.source.tags == dict(FULL.tags)
    assert len(found.source.tags) == 14


def stored_frame(golden: Golden, block: int) -> bytes:
    """The frame of a block as it lies in a golden segment."""
    folder = FOLDER / BUCKET / golden.address.key()
    for file in sorted((folder / "segments").iterdir()):
        body = file.read_bytes()
        for entry in segment.own_index(body, name=file.name)[1]:
            if (entry.block, entry.kind) == (block, Kind.DATA):
                return body[entry.offset : entry.offset + entry.length]
    raise KeyError(block)


def test_todays_writer_makes_the_same_bytes_of_the_same_frames() -> None:
    """The frames are those of the folder: another version of zstd may compress otherwise, and nothing else may."""
    made = golden_archives.tree(stored_frame)
    there = stored()
    assert sorted(made) == sorted(there)
    for name, body in made.items():
        assert body == there[name], name


@EACH
def test_todays_frames_hold_the_same_and_say_how_much(golden: Golden) -> None:
    made = golden_archives.compressed()
    for block, what in golden.told.items():
        if not isinstance(what, int):
            continue
        for frame in (made(golden, block), stored_frame(golden, block)):
            parameters = zstandard.get_frame_parameters(frame)
            assert (parameters.content_size, parameters.has_checksum, parameters.dict_id) == (BLOCK_SIZE, True, 0)
            assert zstandard.ZstdDecompressor().decompress(frame) == content(what)


def test_they_are_small_and_hold_every_kind_of_entry() -> None:
    there = stored()
    assert sum(map(len, there.values())) < 50 << 10
    kinds = {
        golden.archive_id: {
            entry.kind
            for name, body in there.items()
            if name.startswith(f"{BUCKET}/{golden.address.key('index/')}")
            for entry in index.unpack(body, name=name).entries
        }
        for golden in ARCHIVES
    }
    assert kinds == {"full": {Kind.DATA, Kind.ZEROS}, "increment": set(Kind)}


@pytest.mark.parametrize("golden", [FULL, INCREMENT], ids=["itself", "what is built upon it"])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {"format": "blockferry-archive-2"},
            "has the format 'blockferry-archive-2', this version of Blockferry reads 'blockferry-archive-1': read it "
            "with a newer one",
        ),
        (
            {"features": ["recipients"]},
            "needs what this version of Blockferry does not know (recipients): read it with a newer one",
        ),
        (
            {"recipients": []},
            "has what this version of Blockferry does not know (recipients): read it with a newer one",
        ),
    ],
    ids=["version 2", "an unknown feature", "an unknown member"],
)
def test_what_is_not_understood_is_refused_with_a_clear_word(
    rig: Rig, golden: Golden, change: dict[str, Any], why: str
) -> None:
    s3, key = rig.aws.s3(HOME), FULL.address.key("manifest.json")
    members = json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()) | change
    members["sha256"] = manifest._digest(members)
    s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(members).encode())
    with pytest.raises(ArchiveDamaged) as caught:
        open_chain(Call(aws=rig.aws), Identity(HOME), golden.address.manifest_uri)
    assert str(caught.value) == f"manifest {FULL.address.manifest_uri} {why}"
    with pytest.raises(InvalidRequest) as refused:
        rig.run("restore", {"manifest_uri": golden.address.manifest_uri, "targets": [{"region": RECOVERY}]})
    assert why in str(refused.value)
    assert rig.snapshots() == []


def test_the_example_of_the_specification_is_a_golden_archive() -> None:
    """Its dumps are whole objects, and what it says of their bytes is there."""
    text = (repository_root() / "docs/archive-format.md").read_text()
    dumps = [
        bytes.fromhex("".join(re.findall(r"^[0-9a-f]{8}: ([0-9a-f ]{39})  ", block, re.MULTILINE)))
        for block in re.findall(r"^```\n(00000000: .*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    there = stored()
    body, found = (there[f"{BUCKET}/{FULL.address.key(name)}"] for name in (segment_name(1_023), index_name(1_024)))
    assert dumps == [body, found]
    (entry,) = segment.own_index(body, name="x")[1]
    assert body[0x0A6:0x0AE].hex() == "5b2a4d18dc000000"
    assert (body[0x159], index.ENTRY.unpack(body[0x15A:])[0]) == (0x0A, 0x3FF)
    assert entry[:4] == (0x3FF, Kind.DATA, 0, 0xA6)
    assert (index.ENTRY.unpack(found[0x0B4:0x0E4])[:2], index.ENTRY.unpack(found[0x0E4:])[:2]) == ((1024, 1), (2047, 0))
    sha256 = manifest.load(there[f"{BUCKET}/{FULL.address.key(MANIFEST)}"], name="x").sha256
    assert f"by the command above: `{sha256}`" in text


def test_readers_pass_over_members_of_an_index_that_they_do_not_know() -> None:
    line, _, entries = stored()[f"{BUCKET}/disks/full/index/0000000000.idx"].partition(b"\n")
    later = json.dumps({**json.loads(line), "later": [1]}).encode() + b"\n" + entries
    assert index.unpack(later, name="x") == index.unpack(line + b"\n" + entries, name="x")


def test_the_tool_writes_what_is_read_and_nothing_over_what_is_there(tmp_path: Path) -> None:
    assert golden_archives.main([str(tmp_path / "made")]) == 0
    made = {str(file.relative_to(tmp_path / "made")) for file in (tmp_path / "made").rglob("*") if file.is_file()}
    assert made == set(stored())
    with pytest.raises(FileExistsError):
        golden_archives.main([str(tmp_path / "made")])
