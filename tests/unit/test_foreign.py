"""Archives that other tools have made: by their layout, restored exactly, with what they cannot show told."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lz4.frame
import pytest
import zstandard
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import ArchiveDamaged, InvalidRequest, TransferFailed
from blockferry.formats.foreign import expand, in_order, parse_folder, parse_segment
from blockferry.sources.declared import declared_by
from fakes import content
from foreign_archives import BLOCKS, BUCKET, FOLDER, objects, stored
from hypothesis import given
from hypothesis import strategies as st
from rig import HOME, RECOVERY, Rig, hashes, running_rig


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        made.aws.s3(HOME).create_bucket(Bucket=BUCKET)
        yield made


def restored(rig: Rig, uri: str = f"s3://{BUCKET}/{FOLDER}") -> tuple[dict[int, str], dict[str, Any]]:
    request = {"foreign_uri": uri, "targets": [{"region": RECOVERY, "encrypted": False}]}
    receipt = rig.run("restore", {**request, "options": {"blocks_per_range": 512}})
    return rig.held(receipt["targets"][0]["snapshot_id"]), receipt


def test_a_foreign_archive_is_restored_exactly_and_what_it_cannot_show_is_told(rig: Rig) -> None:
    # A neighbour whose name begins the same, and keys whose order is not that of the blocks.
    stored(rig, "snap-0123456789abcdef0.10/", {5: content(7)})
    keys = stored(rig)
    assert [key.split(".")[1].split("/")[1] for key in sorted(keys)] != sorted(BLOCKS)
    held, receipt = restored(rig)
    assert held == hashes(BLOCKS)
    facts = rig.facts(receipt["targets"][0]["snapshot_id"])
    assert facts["volume_size"] == 1
    assert facts["tags"]["blockferry:source-archive"] == f"s3://{BUCKET}/{FOLDER}"
    (warning,) = [each for each in receipt["warnings"] if each["code"] == "last_segment_may_be_missing"]
    assert "up to 64 blocks that would have been among 2047 to 2047" in warning["message"]
    assert receipt["source"]["archived_snapshot_id"] == "snap-0123456789abcdef0"


@pytest.mark.parametrize("damage", ["cut off", "changed", "swapped"])
def test_damage_is_final_names_the_object_and_leaves_nothing(rig: Rig, damage: str) -> None:
    keys = stored(rig)
    s3 = rig.aws.s3(HOME)
    body = s3.get_object(Bucket=BUCKET, Key=keys[0])["Body"].read()
    other = s3.get_object(Bucket=BUCKET, Key=keys[1])["Body"].read()
    changed = {"cut off": body[:-1], "changed": body[:-9] + bytes(9), "swapped": other}
    s3.put_object(Bucket=BUCKET, Key=keys[0], Body=changed[damage])
    with pytest.raises(TransferFailed) as caught:
        restored(rig)
    assert f"s3://{BUCKET}/{keys[0]}" in str(caught.value)
    assert "blocks 60 to 63 cannot be read" in str(caught.value)
    assert "Nothing is left of the job" in str(caught.value)
    assert rig.snapshots() == []


def test_an_object_that_goes_while_the_job_runs_ends_it(rig: Rig) -> None:
    keys = stored(rig)

    @contextmanager
    def losing(step: str, _event: Mapping[str, Any]) -> Iterator[None]:
        if step == "Move blocks":
            rig.aws.s3(HOME).delete_object(Bucket=BUCKET, Key=keys[0])
        yield

    rig.around = losing
    with pytest.raises(TransferFailed, match="hold 72 blocks, and held 76 when the job was planned"):
        restored(rig)
    assert rig.snapshots() == []


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        (f"s3://{BUCKET}/snap-0123456789abcdef0/", "is not the folder of an archive of flexible-snapshot-proxy"),
        (f"s3://{BUCKET}/snap-0123456789abcdef0.2/", "there is no segment below"),
        (f"s3://{BUCKET}/vol-1/2017 snap-1.img.lz4.gpg", "decrypt it with gpg -d"),
        (f"s3://{BUCKET}/vol-1/2017 snap-1.tar.zstd", "an archive of files"),
    ],
)
def test_what_is_no_foreign_archive_is_refused(rig: Rig, uri: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        restored(rig, uri)


def test_an_object_that_nobody_knows_is_refused(rig: Rig) -> None:
    stored(rig)
    rig.aws.s3(HOME).put_object(Bucket=BUCKET, Key=FOLDER + "readme.txt", Body=b"x")
    with pytest.raises(InvalidRequest, match=r"'readme.txt' below .* is no segment"):
        restored(rig)


@pytest.mark.parametrize(("codec", "pack"), [("zstd", zstandard.compress), ("lz4", lz4.frame.compress)])
def test_an_image_of_a_whole_volume_is_restored(rig: Rig, codec: str, pack: Callable[[bytes], bytes]) -> None:
    raw = b"".join((content(1), content(0), content(2)))
    key = f"vol-1/2017-01-01T00:00:00+00:00 snap-1.img.{codec}"
    rig.aws.s3(HOME).put_object(Bucket=BUCKET, Key=key, Body=pack(raw))
    held, _ = restored(rig, f"s3://{BUCKET}/{key}")
    assert held == hashes({0: content(1), 2: content(2)})


SAID = {
    "snapshot-snapshotid": "snap-1",
    "snapshot-volumeid": "vol-1",
    "snapshot-starttime": "2017-01-01T00:00:00+00:00",
    "snapshot-volumesize": "3",
    "snapshot-description": "of old",
}


def said_of_an_image(rig: Rig, body: bytes, **more: str) -> str:
    key = "vol-1/2017-01-01T00:00:00+00:00 snap-1 - of old.img.lz4"
    metadata = SAID | {name.replace("_", "-"): value for name, value in more.items()}
    rig.aws.s3(HOME).put_object(Bucket=BUCKET, Key=key, Body=lz4.frame.compress(body), Metadata=metadata)
    return f"s3://{BUCKET}/{key}"


def test_what_is_written_beside_an_image_is_held_against_it_and_told(rig: Rig) -> None:
    raw = content(1) + content(2)
    held, receipt = restored(rig, said_of_an_image(rig, raw, uncompressed_size=str(len(raw))))
    assert held == hashes({0: content(1), 1: content(2)})
    assert receipt["source"]["declared"] == {
        "snapshot_id": "snap-1",
        "volume_id": "vol-1",
        "started_at": "2017-01-01T00:00:00+00:00",
        "description": "of old",
        "volume_gib": 3,
        "raw_bytes": len(raw),
    }
    made = rig.facts(receipt["targets"][0]["snapshot_id"])
    assert (made["volume_size"], made["description"]) == (3, "of old")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"uncompressed_size": "524289"}, "unpacks to 1048576 bytes, and its metadata says 524289 bytes"),
        ({"uncompressed_size": "2097152"}, "its metadata says 2097152 bytes .* it is not all there, or another disk"),
    ],
)
def test_an_image_that_is_not_what_is_written_beside_it_is_refused(rig: Rig, said: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        restored(rig, said_of_an_image(rig, content(1) + content(2), **said))
    assert rig.snapshots() == []


@pytest.mark.parametrize("said", ["", "-1", "many", "1e3", "9" * 20, "\u0663"])
def test_what_can_be_no_size_says_nothing(said: str) -> None:
    found = declared_by(SAID | {"snapshot-volumesize": said, "uncompressed-size": said})
    assert (found.volume_gib, found.raw_bytes) == (None, None)
    found.refuse_other_size("x", 7)


def test_an_image_larger_than_its_volume_was_is_another_one() -> None:
    found = declared_by({"snapshot-volumesize": "1"})
    found.refuse_other_size("x", 2**30)
    with pytest.raises(InvalidRequest, match="a volume of 1 GiB"):
        found.refuse_other_size("x", 2**30 + 1)
    assert declared_by({"snapshot-volumesize": "65537"}).volume_gib is None


def test_segments_that_cannot_be_are_refused() -> None:
    one = parse_segment(next(iter(objects({3: content(1), 4: content(2)}))))
    assert one is not None
    assert (one.first, one.blocks, one.stop) == (3, 2, 5)
    over = parse_segment(one.name.replace("3.", "4.", 1))
    across = parse_segment(one.name.replace("3.", "63.", 1))
    assert over is not None
    assert across is not None
    for wrong, total in (([one, over], 64), ([across], 128), ([one], 4)):
        with pytest.raises(ArchiveDamaged):
            in_order(wrong, total, name="x")
    assert parse_folder("snap-0123456789abcdef0.1") == ("snap-0123456789abcdef0", 1)
    assert parse_folder("snap-0123456789abcdef0.01") is None


@given(st.binary(max_size=300))
def test_no_bytes_confuse_the_reader_of_an_object(data: bytes) -> None:
    segment = parse_segment(next(iter(objects({3: content(1)}))))
    assert segment is not None
    with pytest.raises(ArchiveDamaged, match="blocks 3 to 3 cannot be read"):
        expand(data, segment, name="x")


def test_an_object_that_unpacks_to_more_takes_no_memory() -> None:
    segment = parse_segment(next(iter(objects({3: content(1)}))))
    assert segment is not None
    bombs = (
        zstandard.ZstdCompressor().compress(bytes(BLOCK_SIZE * 64)),
        zstandard.ZstdCompressor(write_content_size=False).compress(random.Random(1).randbytes(BLOCK_SIZE + 1)),
    )
    for bomb in bombs:
        with pytest.raises(ArchiveDamaged):
            expand(bomb, segment, name="x")
