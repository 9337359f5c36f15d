"""The objects of an archive: what is packed comes back, and whatever else there is, is refused by name."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import ZERO_BLOCK, ZERO_DIGEST, digest_of
from blockferry.core.errors import ArchiveDamaged, InvalidRequest
from blockferry.core.holes import HoleMeaning
from blockferry.formats.archive import index, manifest, segment
from blockferry.formats.archive.index import Entry, Kind, RangeIndex, SegmentFacts
from blockferry.formats.archive.layout import ArchiveAddress, index_name, parse_manifest_uri, segment_name
from blockferry.formats.archive.manifest import Codec, Counts, IndexFacts, Manifest, Member, SourceFacts
from blockferry.formats.archive.segment import Compressor, Segment, SegmentBuilder
from hypothesis import given
from hypothesis import strategies as st

ARCHIVE = "snap-0123456789abcdef0-20261127T000000Z"
FACTS = {"snapshot_id": "snap-0123456789abcdef0", "volume_size_gib": 1}


def block(seed: int) -> bytes:
    """Half noise, half a pattern: what compresses as disks do."""
    return (digest_of(seed.to_bytes(8, "big")) * 8192)[: BLOCK_SIZE // 2] + bytes([seed % 251 + 1]) * (BLOCK_SIZE // 2)


CONTENT = {seed: block(seed) for seed in range(8)}
DIGEST = {seed: digest_of(data) for seed, data in CONTENT.items()}
FRAME = {seed: Compressor(1).frame(data) for seed, data in CONTENT.items()}


def built(kinds: dict[int, int | Kind], within: BlockRange, *, blocks: int = 64) -> tuple[RangeIndex, list[Segment]]:
    """The index and segments of a range: a number stands for the block of that content."""
    builder = SegmentBuilder(ARCHIVE, FACTS, blocks=blocks)
    segments: list[Segment] = []
    for place, what in sorted(kinds.items()):
        if isinstance(what, Kind):
            full = builder.add(place, what, b"", ZERO_DIGEST)
        else:
            full = builder.add(place, Kind.DATA, FRAME[what], DIGEST[what])
        segments += [] if full is None else [full]
    last = builder.close()
    segments += [] if last is None else [last]
    entries = tuple(entry for each in segments for entry in each.entries)
    return RangeIndex(ARCHIVE, within, tuple(each.facts for each in segments), entries), segments


contents = st.dictionaries(
    st.integers(10, 209), st.one_of(st.integers(0, 7), st.sampled_from([Kind.ZEROS, Kind.REMOVED])), max_size=200
)


@given(contents, st.integers(1, 64))
def test_what_is_packed_comes_back(kinds: dict[int, int | Kind], blocks: int) -> None:
    within = BlockRange(10, 210)
    packed, segments = built(kinds, within, blocks=blocks)
    again = index.unpack(index.pack(packed), name="x")
    assert again == packed
    assert [entry.block for entry in again.entries] == sorted(kinds)
    for number, each in enumerate(segments):
        entries = again.entries_of(number)
        assert tuple(entries) == each.entries
        assert sum(entry.kind is Kind.DATA for entry in entries) <= blocks
        segment.check(each.body, again.segments[number], entries, name="x")
        assert segment.own_index(each.body, name="x")[1] == each.entries
        for entry in entries:
            assert again.segment_of(entry.block) == each.facts
            if entry.kind is Kind.DATA:
                frame = each.body[entry.offset : entry.offset + entry.length]
                assert segment.expand(frame, entry, name="x") == CONTENT[kinds[entry.block]]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 201])
def test_no_block_is_left_out_whatever_their_number(count: int) -> None:
    packed, segments = built({place: place % 8 for place in range(count)}, BlockRange(0, 256))
    assert [each.facts.first for each in segments] == list(range(0, count, 64))
    assert sum(len(each.entries) for each in segments) == len(packed.entries) == count


def test_zeros_and_removed_blocks_take_no_data() -> None:
    packed, (only,) = built({0: Kind.ZEROS, 5: Kind.REMOVED, 6: 1}, BlockRange(0, 64))
    assert [(entry.kind, entry.length) for entry in packed.entries][:2] == [(Kind.ZEROS, 0), (Kind.REMOVED, 0)]
    assert len(only.parts) == 2
    assert zstandard.ZstdDecompressor().decompress(only.parts[0]) == CONTENT[1]


def test_the_same_blocks_give_the_same_segments_wherever_the_work_was_cut() -> None:
    kinds: dict[int, int | Kind] = {place: place % 8 for place in range(150)}
    whole, _ = built(kinds, BlockRange(0, 256))
    head, _ = built({place: what for place, what in kinds.items() if place < 128}, BlockRange(0, 128))
    rest, _ = built({place: what for place, what in kinds.items() if place >= 128}, BlockRange(128, 256))
    assert index.joined([head, rest], BlockRange(0, 256)) == whole
    with pytest.raises(ValueError, match="blocks 0 to 127 is missing"):
        index.joined([rest], BlockRange(0, 256))
    with pytest.raises(ValueError, match="ends at block 128"):
        index.joined([head], BlockRange(0, 256))


def test_a_standard_zstd_unpacks_a_segment_to_its_blocks(tmp_path: Path) -> None:
    zstd = shutil.which("zstd")
    if zstd is None:
        pytest.skip("the program zstd is not installed")
    _, (only,) = built({0: 1, 2: Kind.ZEROS, 3: 2, 9: 3}, BlockRange(0, 64))
    (tmp_path / "segment.zst").write_bytes(only.body)
    done = subprocess.run([zstd, "-dc", tmp_path / "segment.zst"], capture_output=True, check=True)
    assert done.stdout == CONTENT[1] + CONTENT[2] + CONTENT[3]


def read_or_refused(read: Callable[[], object]) -> object:
    """What was read, or the error by which it is refused."""
    try:
        return read()
    except ArchiveDamaged as error:
        return error


PACKED, SEGMENTS = built({0: 1, 2: Kind.ZEROS, 3: 2, 7: Kind.REMOVED, 9: 3}, BlockRange(0, 64), blocks=2)
BODY = index.pack(PACKED)


@given(st.data())
def test_a_segment_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(SEGMENTS) - 1))
    body = bytearray(SEGMENTS[number].body)
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ArchiveDamaged, match="segment x is damaged"):
        segment.check(bytes(body), PACKED.segments[number], PACKED.entries_of(number), name="x")


@given(st.data())
def test_a_frame_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    entry = PACKED.entries[0]
    frame = bytearray(SEGMENTS[0].body[entry.offset : entry.offset + entry.length])
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= data.draw(st.integers(1, 255))
    # A reserved bit that nobody looks at may change nothing; the block is what counts.
    found = read_or_refused(lambda: segment.expand(bytes(frame), entry, name="x"))
    assert found == CONTENT[1] or "segment x is damaged at block 0" in str(found)


@given(st.integers(0, len(SEGMENTS[0].body) - 1))
def test_a_segment_that_ends_early_is_refused(length: int) -> None:
    with pytest.raises(ArchiveDamaged, match=f"it has {length} bytes instead of"):
        segment.check(SEGMENTS[0].body[:length], PACKED.segments[0], PACKED.entries_of(0), name="x")
    with pytest.raises(ArchiveDamaged, match="segment x is damaged"):
        segment.own_index(SEGMENTS[0].body[:length], name="x")


def facts_of(body: bytes) -> SegmentFacts:
    """Those by which the bytes are what was stored."""
    return SegmentFacts(0, len(body), hashlib.sha256(body).hexdigest())


def own(entries: tuple[Entry, ...]) -> bytes:
    """The frame in which a segment has its own index."""
    packed = index.pack_in_segment(ARCHIVE, entries, {})
    return segment.SKIPPABLE + len(packed).to_bytes(4, "little") + packed


def test_a_segment_whose_sum_is_right_is_looked_at_all_the_same() -> None:
    _, (good,) = built({0: 1, 3: 2}, BlockRange(0, 64))
    frames = b"".join(good.parts[:-1])
    segment.check(good.body, facts_of(good.body), good.entries, name="x")
    lying = (good.entries[0], good.entries[1]._replace(digest=DIGEST[1]))
    for body, entries, why in (
        (frames + good.parts[-1].replace(segment.SKIPPABLE, FRAME[1][:4]), good.entries, "no index of its own ends it"),
        (good.body + b"x", good.entries, "no index of its own ends it"),
        (frames + own(good.entries[:1]), good.entries, "its own index is not that of its range"),
        (frames + own(lying), lying, "is damaged at block 3: the block does not have the SHA-256 of the index"),
    ):
        with pytest.raises(ArchiveDamaged, match=why):
            segment.check(body, facts_of(body), entries, name="x")


def test_a_frame_with_anything_behind_it_is_refused() -> None:
    with pytest.raises(ArchiveDamaged, match="segment x is damaged at block 0"):
        segment.expand(FRAME[1] + FRAME[2], PACKED.entries[0], name="x")


def test_the_level_that_is_asked_for_is_that_of_the_frames() -> None:
    text = b"".join(b"%d words, " % (number * number) for number in range(60_000))[:BLOCK_SIZE]
    for level in (1, 6):
        zstd = zstandard.ZstdCompressor(level=level, write_checksum=True)
        assert segment.Compressor(level).frame(text) == zstd.compress(text)


def test_the_own_index_is_found_behind_frames_of_any_shape() -> None:
    small = zstandard.ZstdCompressor(write_checksum=False).compress(b"of another tool")
    entries = PACKED.entries[:1]
    line, found = segment.own_index(FRAME[1] + small + own(entries), name="x")
    assert (line["archive_id"], found) == (ARCHIVE, entries)
    with pytest.raises(ArchiveDamaged, match="segment x is damaged: no index of its own ends it"):
        segment.own_index(FRAME[1], name="x")
    # The header of a frame, and that of its only block.
    header = zstandard.frame_header_size(small)
    with pytest.raises(ArchiveDamaged, match=f"it ends within a frame, at byte {header + 1}"):
        segment.own_index(small[: header + 1], name="x")
    with pytest.raises(ArchiveDamaged, match="no index of its own ends it"):
        segment.own_index(small[: header + 3], name="x")


def test_segments_that_were_swapped_are_refused() -> None:
    with pytest.raises(ArchiveDamaged, match="segment x is damaged"):
        segment.check(SEGMENTS[1].body, PACKED.segments[0], PACKED.entries_of(0), name="x")


@given(st.data())
def test_an_index_with_any_byte_changed_is_refused_or_says_something_else(data: st.DataObject) -> None:
    """Its SHA-256 stands in the manifest; what is not even an index is told here."""
    body = bytearray(BODY)
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    found = read_or_refused(lambda: index.unpack(bytes(body), name="x"))
    assert str(found).startswith("index x is damaged: ") if isinstance(found, ArchiveDamaged) else found != PACKED


@given(st.binary(max_size=400))
def test_no_bytes_confuse_the_readers(data: bytes) -> None:
    entry = PACKED.entries[0]
    for read in (
        lambda: index.unpack(data, name="x"),
        lambda: index.unpack(BODY.partition(b"\n")[0] + b"\n" + data, name="x"),
        lambda: index.unpack_in_segment(data, name="x"),
        lambda: segment.own_index(data, name="x"),
        lambda: segment.own_index(FRAME[1][:9] + data, name="x"),
        lambda: segment.expand(data, entry, name="x"),
        lambda: segment.expand(FRAME[1][:9] + data, entry, name="x"),
        lambda: manifest.load(data, name="x"),
    ):
        with pytest.raises(ArchiveDamaged):
            read()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "blockferry-index-2"}, "this version of Blockferry reads 'blockferry-index-1'"),
        ({"entries": 4}, "bytes of entries"),
        ({"entries": True}, "entries is True"),
        ({"first": 1}, "damaged: block 0 is out of order or range"),
        ({"first": -1}, "first is -1"),
        ({"stop": 2**32}, "stop is 4294967296"),
        ({"stop": 9}, "block 9 is out of order or range"),
        ({"stop": 0}, "a range needs"),
        ({"segments": []}, "5 entries in 0 segments"),
        ({"segments": [[0, 10, "0" * 64], [3, 10**9, "0" * 64]]}, "is said to have 1000000000 bytes"),
        ({"segments": [[0, 10**6, "0" * 64], [5, 10**6, "0" * 64]]}, "the segment of block 5 does not begin with it"),
        ({"segments": [[2, 10**6, "0" * 64]]}, "block 0 is before the first segment"),
        ({"segments": [[0, 10**6, "0" * 64], [0, 10**6, "0" * 64]]}, "out of order or range"),
        ({"segments": [[0, 20, "0" * 64], [7, 10**6, "0" * 64]]}, "of block 0 end behind its end"),
        ({"segments": [[0, 10**6, "x" * 64]]}, "a segment is"),
        ({"segments": [["0", 10**6, "0" * 64]]}, "a segment is"),
        ({"segments": [[0, "9", "0" * 64]]}, "a segment is"),
        ({"segments": [[0, 10**6, 5]]}, "a segment is"),
        ({"segments": 5}, "not iterable"),
        ({"segments": [[0, 0, "0" * 64]]}, "the segment of block 0 is said to have 0 bytes"),
        ({"segments": [[-1, 10**6, "0" * 64]]}, "the segment of block -1 is out of order or range"),
        (
            {"segments": [[0, 10**6, "0" * 64], [64, 10**6, "0" * 64]]},
            "the segment of block 64 is out of order or range",
        ),
        ({"segments": [*PACKED.segments, [20, 10**6, "0" * 64]]}, "segment of block 20 does not begin with it"),
        ({"archive_id": 5}, "archive_id is no text"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(change: dict[str, object], why: str) -> None:
    line, _, records = BODY.partition(b"\n")
    body = json.dumps(json.loads(line) | change).encode() + b"\n" + records
    with pytest.raises(ArchiveDamaged, match="index x is damaged") as caught:
        index.unpack(body, name="x")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (Entry(0, Kind.DATA, 0, 0, DIGEST[1]), "is said to have 0 bytes"),
        (Entry(0, Kind.DATA, 7, 100, DIGEST[1]), "is at 7, the one before ends at 0"),
        (Entry(0, Kind.DATA, 0, BLOCK_SIZE * 2, DIGEST[1]), "is said to have 1048576 bytes"),
        (Entry(0, Kind.ZEROS, 0, 5, ZERO_DIGEST), "has no data, but says where it is"),
        (Entry(0, Kind.ZEROS, 5, 0, ZERO_DIGEST), "has no data, but says where it is"),
        (Entry(0, Kind.REMOVED, 0, 0, DIGEST[1]), "has no data, but says where it is"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(entry: Entry, why: str) -> None:
    bad = RangeIndex(ARCHIVE, BlockRange(0, 64), (SegmentFacts(0, 10**6, "0" * 64),), (entry,))
    with pytest.raises(ArchiveDamaged, match=why):
        index.unpack(index.pack(bad), name="x")


@pytest.mark.parametrize("name", ["entries", "first", "stop", "segments", "archive_id"])
def test_an_index_that_lacks_a_member_is_refused(name: str) -> None:
    line, _, records = BODY.partition(b"\n")
    known = json.loads(line)
    del known[name]
    with pytest.raises(ArchiveDamaged, match=f"index x is damaged: '{name}'"):
        index.unpack(json.dumps(known).encode() + b"\n" + records, name="x")


EMPTY = RangeIndex(ARCHIVE, BlockRange(0, 64), (), ())


@pytest.mark.parametrize(
    "body",
    [index.pack(EMPTY)[:-1], b"[" * 100_000 + b"\n", index.pack(EMPTY)[:-2] + b',"x":"' + b"x" * (16 << 20) + b'"}\n'],
    ids=["no end of the line", "nested too deep", "too long"],
)
def test_what_does_not_begin_with_a_line_of_json_is_no_index(body: bytes) -> None:
    assert index.unpack(index.pack(EMPTY), name="x") == EMPTY
    with pytest.raises(ArchiveDamaged, match="index x is damaged"):
        index.unpack(body, name="x")


def of_one(length: int, stored: int, *more: Entry) -> RangeIndex:
    """The index of a segment of so many bytes, with one frame."""
    entry = Entry(0, Kind.DATA, 0, length, DIGEST[1])
    return RangeIndex(ARCHIVE, BlockRange(0, 64), (SegmentFacts(0, stored, "0" * 64),), (entry, *more))


def test_the_greatest_frame_and_the_greatest_segment_are_taken_and_none_that_is_greater() -> None:
    for good in (
        of_one(1, 10**6),
        of_one(BLOCK_SIZE + 1_024, 10**6),
        of_one(9, index.MAX_SEGMENT_BYTES),
        of_one(9, 10),
    ):
        assert index.unpack(index.pack(good), name="x") == good
    for bad, why in (
        (of_one(BLOCK_SIZE + 1_025, 10**6), "is said to have"),
        (of_one(9, index.MAX_SEGMENT_BYTES + 1), "is said to have"),
        # Its own index is behind the frames.
        (of_one(9, 9), "end behind its end"),
        (of_one(9, 1), "end behind its end"),
    ):
        with pytest.raises(ArchiveDamaged, match=why):
            index.unpack(index.pack(bad), name="x")


def test_no_block_is_there_twice_and_none_of_an_unknown_kind() -> None:
    twice = of_one(9, 10**6, Entry(0, Kind.ZEROS, 0, 0, ZERO_DIGEST))
    with pytest.raises(ArchiveDamaged, match="block 0 is out of order or range"):
        index.unpack(index.pack(twice), name="x")
    body = bytearray(index.pack(of_one(9, 10**6)))
    body[-index.ENTRY.size + 4] = 3
    with pytest.raises(ArchiveDamaged, match="the entry of block 0 has the kind 3 000000"):
        index.unpack(bytes(body), name="x")


def test_a_block_before_the_first_segment_is_in_none() -> None:
    later = RangeIndex(ARCHIVE, BlockRange(0, 64), (SegmentFacts(5, 10, "0" * 64),), ())
    assert later.segment_of(5) == later.segments[0]
    with pytest.raises(KeyError):
        later.segment_of(4)
    entry = Entry(10, Kind.DATA, 0, 9, DIGEST[1])
    before = RangeIndex(ARCHIVE, BlockRange(10, 64), (SegmentFacts(9, 10**6, "0" * 64),), (entry,))
    with pytest.raises(ArchiveDamaged, match="the segment of block 9 is out of order or range"):
        index.unpack(index.pack(before), name="x")


def test_the_own_index_of_a_segment_is_looked_at_as_closely() -> None:
    bad = Entry(0, Kind.DATA, 0, 0, DIGEST[1])
    with pytest.raises(ArchiveDamaged, match="segment x is damaged: its index: the frame of block 0 is said to have 0"):
        index.unpack_in_segment(index.pack_in_segment(ARCHIVE, [bad], {}), name="x")
    line, _, _ = index.pack_in_segment(ARCHIVE, [bad], {}).partition(b"\n")
    empty = json.dumps(json.loads(line) | {"entries": 0}).encode() + b"\n"
    with pytest.raises(ArchiveDamaged, match="segment x is damaged: its index: it has no entry"):
        index.unpack_in_segment(empty, name="x")


def test_a_segment_ends_with_4096_entries_however_little_data_is_in_it() -> None:
    _, segments = built(dict.fromkeys(range(4_097), Kind.ZEROS), BlockRange(0, 8_192))
    assert [len(each.entries) for each in segments] == [4_096, 1]


def test_a_frame_that_says_that_it_is_huge_takes_no_memory() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    tracemalloc.start()
    with pytest.raises(ArchiveDamaged, match="says that it holds 268435456 bytes"):
        segment.expand(bomb, PACKED.entries[0], name="x")
    unknown = zstandard.ZstdCompressor(write_content_size=False).compress(CONTENT[1])
    with pytest.raises(ArchiveDamaged, match="segment x is damaged at block 0"):
        segment.expand(unknown, PACKED.entries[0], name="x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def made(**members: object) -> Manifest:
    known: dict[str, object] = {
        "archive_id": ARCHIVE,
        "created_at": "2026-11-27T00:00:00+00:00",
        "tool_version": "1.2.3",
        "job_id": "nightly",
        "execution": "e" * 64,
        "volume_size_gib": 1,
        "codec": Codec(level=3),
        "segment_blocks": 64,
        "source": SourceFacts(snapshot_id="snap-0123456789abcdef0", description="Übung 日本", tags={"näme": "wert\n"}),
        "holes": HoleMeaning.NOISE,
        "counts": Counts(
            allocated_blocks=5, data_blocks=3, zero_blocks=1, removed_blocks=1, segments=2, stored_bytes=1000
        ),
        "linear_checksum": "A" * 43 + "=",
        "indexes": (IndexFacts(first=0, stop=64, bytes=len(BODY), sha256="0" * 64),),
    }
    return manifest.sealed(Manifest(**(known | members)))  # type: ignore[arg-type]


def test_a_manifest_comes_back_with_every_tag_and_letter() -> None:
    told = made(base=(Member(manifest_uri=f"s3://bucket-a/x/{ARCHIVE}/manifest.json", sha256="1" * 64),))
    again = manifest.load(manifest.dump(told), name="x")
    assert again == told
    assert again.source.description == "Übung 日本"
    assert not again.full
    assert [each.name for each in again.overlapping(BlockRange(63, 65))] == [index_name(0)]
    assert list(again.overlapping(BlockRange(64, 65))) == []


def test_jq_gives_the_sha_of_a_manifest_whatever_letters_are_in_it(tmp_path: Path) -> None:
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("the program jq is not installed")
    letters = "".join(map(chr, range(0x3000))) + "\ue000\ufffd\uffff\U0001f600"
    tags = {"\U0001f600": "", "\uffff": "", "z": "", "Z": "", "é": ""}
    told = made(source=SourceFacts(snapshot_id="snap-0123456789abcdef0", description=letters, tags=tags))
    (tmp_path / "manifest.json").write_bytes(manifest.dump(told))
    printed = subprocess.run([jq, "-cS", "del(.sha256)", tmp_path / "manifest.json"], capture_output=True, check=True)
    assert digest_of(printed.stdout).hex() == told.sha256


@given(st.data())
def test_a_manifest_with_any_byte_changed_is_refused_or_says_the_same(data: st.DataObject) -> None:
    told = made()
    body = bytearray(manifest.dump(told))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    found = read_or_refused(lambda: manifest.load(bytes(body), name="x"))
    assert found == told or str(found).startswith("manifest x ")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"volume_size_gib": 2}, "it was changed since it was written"),
        ({"format": "blockferry-archive-2"}, "read it with a newer one"),
        ({"format": "tar"}, "this version of Blockferry reads 'blockferry-archive-1'"),
        ({"features": ["recipients"]}, r"does not know \(recipients\): read it with a newer one"),
    ],
)
def test_a_manifest_that_was_edited_or_is_newer_is_refused(change: dict[str, object], why: str) -> None:
    members = json.loads(manifest.dump(made())) | change
    with pytest.raises(ArchiveDamaged, match=why):
        manifest.load(json.dumps(members).encode(), name="s3://bucket-a/x/manifest.json")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"surprise": 1}, r"does not know \(surprise\): read it with a newer one"),
        (
            {"codec": {"name": "zstd", "level": 3, "window": 9}},
            r"does not know \(codec.window\): read it with a newer one",
        ),
        ({"block_size": 4096}, "block_size"),
        ({"indexes": [{"first": 0, "stop": 4096, "bytes": 1, "sha256": "0" * 64}]}, "out of order or range"),
        ({"source": {"snapshot_id": None}}, "of a snapshot or of an image"),
        ({"base": [{"manifest_uri": "http://x", "sha256": "0" * 64}]}, "is not the address of an archive's manifest"),
        ({"codec": {"name": "lz4", "level": 3}}, "codec"),
    ],
)
def test_a_manifest_whose_sum_is_right_is_looked_at_all_the_same(change: dict[str, object], why: str) -> None:
    members = json.loads(manifest.dump(made())) | change
    members["sha256"] = manifest._digest(members)
    with pytest.raises(ArchiveDamaged, match=why):
        manifest.load(json.dumps(members).encode(), name="x")


MEMBER = Member(manifest_uri=f"s3://bucket-a/x/{ARCHIVE}/manifest.json", sha256="1" * 64)


def test_a_manifest_takes_a_chain_of_a_thousand_and_no_sum_that_is_none() -> None:
    whole = made(base=(MEMBER,) * 1_000)
    assert manifest.load(manifest.dump(whole), name="x") == whole
    for change in (
        {"base": [MEMBER.model_dump()] * 1_001},
        {"execution": "E" * 64},
        {"execution": "XX^" + "e" * 64},
        {"counts": {**made().counts.model_dump(), "segments": -1}},
        {"indexes": [{"first": 5, "stop": 5, "bytes": 1, "sha256": "0" * 64}]},
    ):
        members = json.loads(manifest.dump(made())) | change
        members["sha256"] = manifest._digest(members)
        with pytest.raises(ArchiveDamaged, match=f"manifest x is damaged: {next(iter(change))}|out of order or range"):
            manifest.load(json.dumps(members).encode(), name="x")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"x":' + b"[" * 100_000, "is damaged"),
        (b"[]", "it is no object of JSON"),
        (b'"' + b"x" * (16 << 20), f"it has {(16 << 20) + 1} bytes"),
        (b'"' + b"x" * ((16 << 20) - 1), "is damaged: Unterminated"),
        (b'{"format": "another one"}', "reads 'blockferry-archive-1'$"),
        (b'{"format": "blockferry-archive-1", "features": "some"}', r"does not know \(no list\)"),
        (b'{"format": "blockferry-archive-1", "features": ["b", "a", "c", "d"]}', r"does not know \(a, b, c, d\)"),
    ],
    ids=[
        "nested too deep",
        "a list",
        "too long",
        "as long as may be",
        "another format",
        "features",
        "unknown features",
    ],
)
def test_what_is_no_manifest_of_this_version_is_refused_with_the_reason(body: bytes, why: str) -> None:
    with pytest.raises(ArchiveDamaged, match=why):
        manifest.load(body, name="x")


def test_a_source_is_named_by_its_snapshot_or_its_image() -> None:
    named = [SourceFacts(snapshot_id="snap-0"), SourceFacts(image="s3://b/k")]
    assert [each.name for each in named] == ["snap-0", "s3://b/k"]


def test_an_archive_is_named_by_its_manifest() -> None:
    place = parse_manifest_uri("s3://bucket-a/deep/er/snap-1.x/manifest.json")
    assert place == ArchiveAddress("bucket-a", "deep/er/", "snap-1.x")
    assert place.manifest_uri == "s3://bucket-a/deep/er/snap-1.x/manifest.json"
    assert place.uri(segment_name(64)) == "s3://bucket-a/deep/er/snap-1.x/segments/0000000064.zst"
    assert parse_manifest_uri("s3://bucket-a/snap-1/manifest.json").prefix == ""


@pytest.mark.parametrize("uri", ["s3://bucket-a/manifest.json", "s3://b/x/manifest.json", "s3://bucket-a/x/", "x"])
def test_what_is_no_manifest_is_refused(uri: str) -> None:
    with pytest.raises(InvalidRequest, match="is not the address of an archive's manifest"):
        parse_manifest_uri(uri)


def test_a_block_of_zeros_is_known_by_its_digest() -> None:
    assert digest_of(ZERO_BLOCK) == ZERO_DIGEST
