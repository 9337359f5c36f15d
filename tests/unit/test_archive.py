"""Archives of snapshots: made by the real machine, read back block by block, and held against the snapshot."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blockferry.aws.archives import Chain, open_chain
from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.cli.render import receipt_table
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.checksums import Linear, digest_of
from blockferry.core.errors import InvalidRequest, TransferFailed
from blockferry.formats.archive.index import Kind
from blockferry.formats.archive.layout import SEGMENTS, segment_name
from blockferry.formats.archive.manifest import dump
from fakes import content
from rig import HOME, RECOVERY, THIRD, Rig, hashes, running_rig
from volumes import Volume

ARCHIVES = "archives-111122223333"

OPTIONS = {"blocks_per_range": 512}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as made:
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


@pytest.mark.parametrize("description", ["\U0001f600" * 255, " two\nlines, \x7f and \\ ", "é" * 255])
def test_a_description_that_no_header_takes_is_in_the_manifest_as_it_is(rig: Rig, description: str) -> None:
    uri = rig.run("archive", request(rig.snapshot({0: content(1)}, Description=description)))["manifest_uri"]
    assert chain(rig, uri).manifest.source.description == description
    key = uri.removeprefix(f"s3://{ARCHIVES}/")
    headers = rig.aws.s3(HOME).head_object(Bucket=ARCHIVES, Key=key)["Metadata"]
    # S3 user guide, user-defined object metadata: 2 KB, the names included.
    assert sum(len(name) + len(value) for name, value in headers.items()) <= 2_048
    assert headers["description"].isascii()
    assert headers["description"].isprintable()
    assert headers["uncompressed-size"] == str(2**30)


BEFORE = {0: content(1), 1: content(2), 2: content(3), 700: content(4), 701: content(0), 1500: content(5)}
"""Kept, changed, removed, becomes zero, stays zero, removed at the other end."""

AFTER = {0: content(1), 1: content(9), 700: content(0), 701: content(0), 702: content(7), 2047: content(0)}

STORED = {"data_blocks": 2, "zero_blocks": 2, "removed_blocks": 2}
"""What differs: 1 and 702; 700 and 2047; 2 and 1500."""


def stored(rig: Rig, uri: str) -> dict[str, int]:
    counts = chain(rig, uri).manifest.counts.model_dump()
    return {name: counts[name] for name in STORED}


def restored(rig: Rig, uri: str, **more: Any) -> tuple[dict[int, str], dict[str, Any]]:
    """What a restored snapshot holds, and the receipt."""
    asked = {"manifest_uri": uri, "targets": [{"region": RECOVERY, "encrypted": False}], "options": OPTIONS, **more}
    receipt = rig.run("restore", asked)
    (target,) = receipt["targets"]
    return rig.held(target["snapshot_id"]), receipt


def test_an_increment_stores_only_what_changed_and_reads_as_the_snapshot(rig: Rig) -> None:
    volume = Volume(rig)
    first = volume.becomes(BEFORE).snapshot()
    base = rig.run("archive", request(first))["manifest_uri"]
    second = volume.becomes(AFTER).snapshot()
    before = rig.calls()
    receipt = rig.run("archive", request(second, base=base))
    assert rig.calls()["GetSnapshotBlock"] - before["GetSnapshotBlock"] == 4
    uri = receipt["manifest_uri"]
    assert read(rig, uri) == AFTER
    assert [member.address.manifest_uri for member in chain(rig, uri).members] == [uri, base]
    assert stored(rig, uri) == STORED
    assert (receipt["allocated_blocks"], receipt["changed_blocks"], receipt["removed_blocks"]) == (6, 4, 2)
    assert receipt["linear_checksum"] == linear(AFTER)
    assert receipt["targets"][0]["base_manifest_uri"] == base
    # The next one finds the newest by itself, and is built upon both.
    third = volume.becomes(AFTER | {1: content(6)}).snapshot()
    again = rig.run("archive", request(third, base="auto"))["manifest_uri"]
    assert [each.manifest_uri for each in chain(rig, again).manifest.base] == [uri, base]
    held, told = restored(rig, again)
    assert held == hashes(AFTER | {1: content(6)})
    assert told["linear_checksum"] == linear(AFTER | {1: content(6)})


def test_what_is_shown_of_an_archive_names_it_and_what_it_is_built_upon(rig: Rig) -> None:
    volume = Volume(rig)
    base = rig.run("archive", request(volume.becomes(BEFORE).snapshot()))["manifest_uri"]
    asked = request(volume.becomes(AFTER).snapshot(), base=base, archive_id="second")
    dry = rig.run("archive", asked | {"options": {**OPTIONS, "dry_run": True}})
    receipt = rig.run("archive", asked)
    uri = f"s3://{ARCHIVES}/disks/second/manifest.json"
    # As one line: lines are as long as the terminal lets them be.
    shown = " ".join(receipt_table(receipt).split())
    assert f" target {uri} in {HOME}, completed, 6 blocks written, 1 GiB, encrypted, on top of {base} " in shown
    assert " removed 2 blocks zero blocks " in shown
    before = " ".join(receipt_table(dry).split())
    assert f" target {uri} in {HOME}, 1 GiB, on top of {base} " in before


def test_a_base_whose_snapshot_is_gone_is_compared_by_digest(rig: Rig) -> None:
    volume = Volume(rig)
    first = volume.becomes(BEFORE).snapshot()
    base = rig.run("archive", request(first))["manifest_uri"]
    second = volume.becomes(AFTER).snapshot()
    rig.client("ec2").delete_snapshot(SnapshotId=first)
    before = rig.calls()
    receipt = rig.run("archive", request(second, base="auto"))
    assert rig.calls()["GetSnapshotBlock"] - before["GetSnapshotBlock"] == len(AFTER)
    uri = receipt["manifest_uri"]
    assert stored(rig, uri) == STORED
    assert (receipt["changed_blocks"], receipt["removed_blocks"]) == (4, 2)
    assert [each.manifest_uri for each in chain(rig, uri).manifest.base] == [base]
    assert read(rig, uri) == AFTER
    assert receipt["linear_checksum"] == linear(AFTER)
    assert restored(rig, uri)[0] == hashes(AFTER)


def test_a_chain_that_is_full_begins_anew(rig: Rig) -> None:
    volume = Volume(rig)
    bases, told, uris = [], [], []
    for seed in range(4):
        snapshot = volume.becomes({0: content(seed + 1)}).snapshot()
        receipt = rig.run("archive", request(snapshot, base="auto", options={"max_chain": 2}))
        uris.append(receipt["manifest_uri"])
        bases.append(len(chain(rig, uris[-1]).manifest.base))
        told += [(seed, warning["code"], warning["message"]) for warning in receipt["warnings"]]
    assert bases == [0, 1, 0, 1]
    snapshot = volume.becomes({0: content(5)}).snapshot()
    asked = request(snapshot, base=uris[-1], options={"max_chain": 2, "dry_run": True})
    told += [(4, warning["code"], warning["message"]) for warning in rig.run("archive", asked)["warnings"]]
    assert told == [
        (
            0,
            "full_archive",
            f"it is a full one: below s3://{ARCHIVES}/disks/ is no archive of an earlier snapshot of "
            "vol-0123456789abcdef0 that is whole",
        ),
        (
            2,
            "full_archive",
            f"it is a full one: the chain of {uris[1]} has 2 archives, and options.max_chain is 2",
        ),
        (
            4,
            "full_archive",
            f"it is a full one: the chain of {uris[3]} has 2 archives, and options.max_chain is 2",
        ),
    ]


def test_an_archive_restores_to_every_target_with_its_tags_and_exact_blocks(rig: Rig) -> None:
    snapshot = Volume(rig).becomes(BEFORE).snapshot(Description="root of web-1")
    rig.client("ec2").create_tags(Resources=[snapshot], Tags=[{"Key": "team", "Value": "web"}])
    uri = rig.run("archive", request(snapshot, segment_blocks=3))["manifest_uri"]
    before = rig.calls()
    targets = [{"region": RECOVERY}, {"region": THIRD}, {"region": HOME}]
    receipt = rig.run("restore", {"manifest_uri": uri, "targets": targets, "options": OPTIONS})
    assert rig.calls()["GetSnapshotBlock"] == before["GetSnapshotBlock"]
    for target in receipt["targets"]:
        made = rig.facts(target["snapshot_id"])
        assert rig.held(target["snapshot_id"]) == hashes(BEFORE)
        assert made["written_linear_checksum"] == linear(BEFORE)
        assert (made["description"], made["tags"]["team"]) == ("root of web-1", "web")
        assert made["tags"]["blockferry:source-snapshot-id"] == snapshot
        assert made["tags"]["blockferry:source-archive"] == uri
    assert (receipt["source"]["archived_snapshot_id"], receipt["bytes_read"]) == (snapshot, 6 * BLOCK_SIZE)


def test_a_fanout_takes_an_archive(rig: Rig) -> None:
    uri = rig.run("archive", request(Volume(rig).becomes(BEFORE).snapshot()))["manifest_uri"]
    receipt = rig.run("fanout", {"manifest_uri": uri, "targets": [{"region": RECOVERY}], "options": OPTIONS})
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(BEFORE)


DAMAGES = ("missing", "cut off", "a byte changed", "another segment's")


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("what", ["segment", "index", "base segment", "base index"])
def test_damage_is_final_and_nothing_is_left(rig: Rig, what: str, kind: str) -> None:
    volume = Volume(rig)
    base = rig.run("archive", request(volume.becomes(BEFORE).snapshot()))["manifest_uri"]
    uri = rig.run("archive", request(volume.becomes(AFTER).snapshot(), base=base))["manifest_uri"]
    folder = (base if "base" in what else uri).removeprefix(f"s3://{ARCHIVES}/").removesuffix("manifest.json")
    some = keys(rig, folder + (SEGMENTS if "segment" in what else "index/"))
    key = some[0]
    s3 = rig.aws.s3(HOME)
    body = s3.get_object(Bucket=ARCHIVES, Key=key)["Body"].read()
    if kind == "missing":
        s3.delete_object(Bucket=ARCHIVES, Key=key)
    else:
        other = s3.get_object(Bucket=ARCHIVES, Key=some[-1])["Body"].read()
        changed = {"cut off": body[:-1], "a byte changed": bytes([body[0] ^ 1]) + body[1:], "another segment's": other}
        s3.put_object(Bucket=ARCHIVES, Key=key, Body=changed[kind])
    before = {each["snapshot_id"] for each in rig.snapshots()}
    if kind == "cut off" and "segment" in what:
        # Only the index at its end is cut off: every block is there, and a restore asks for no more.
        assert restored(rig, uri)[0] == hashes(AFTER)
        return
    with pytest.raises(TransferFailed) as caught:
        restored(rig, uri)
    told = str(caught.value)
    assert f"s3://{ARCHIVES}/{key}" in told
    assert "block" in told
    assert "resume" not in told
    assert "Nothing is left of the job" in told
    assert {each["snapshot_id"] for each in rig.snapshots()} == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"archive": {"bucket": "no-such-bucket-anywhere"}}, "archive.bucket: HeadBucket of no-such-bucket-anywhere: "),
        ({"base_manifest_uri": f"s3://{ARCHIVES}/disks/none/manifest.json"}, "base_manifest_uri: there is no s3://"),
        ({"snapshot_id": "snap-0123456789abcdef0"}, "EC2 does not know it"),
    ],
)
def test_what_cannot_be_archived_is_refused_and_nothing_is_left(rig: Rig, change: Any, why: str) -> None:
    snapshot = Volume(rig).becomes(BEFORE).snapshot()
    with pytest.raises(InvalidRequest) as caught:
        rig.run("archive", request(snapshot) | change)
    assert why in str(caught.value)
    assert keys(rig) == []


def test_segments_so_small_that_nobody_could_list_them_all_in_time_are_refused(rig: Rig) -> None:
    snapshot = rig.snapshot({}, size_gib=65_536)
    with pytest.raises(InvalidRequest) as caught:
        rig.run("archive", request(snapshot, segment_blocks=63))
    assert "archive.segment_blocks: a volume of 65536 GiB may have 2130441 segments of 63 blocks" in str(caught.value)
    assert "name 64 or more, or leave segment_blocks out" in str(caught.value)
    assert keys(rig) == []
    planned = rig.run("archive", request(snapshot, segment_blocks=64, options={"dry_run": True}))
    assert planned["targets"][0]["volume_size_gib"] == 65_536


def test_an_archive_is_never_written_over(rig: Rig) -> None:
    snapshot = Volume(rig).becomes(BEFORE).snapshot()
    rig.run("archive", request(snapshot, archive_id="nightly"))
    before = keys(rig)
    with pytest.raises(InvalidRequest, match="an archive is never written over"):
        rig.run("archive", request(snapshot, archive_id="nightly"))
    assert keys(rig) == before
    rig.aws.s3(HOME).put_object(Bucket=ARCHIVES, Key="disks/other/unfinished.json", Body=b'{"execution": "x"}')
    with pytest.raises(InvalidRequest, match="an archive is never written over"):
        rig.run("archive", request(snapshot, archive_id="other"))


def test_an_archive_of_another_volume_is_no_base(rig: Rig) -> None:
    base = rig.run("archive", request(Volume(rig).becomes(BEFORE).snapshot()))["manifest_uri"]
    other = Volume(rig, volume_id="vol-0aaaaaaaaaaaaaaaa").becomes(AFTER).snapshot()
    with pytest.raises(InvalidRequest, match="an archive is built upon one of the same volume"):
        rig.run("archive", request(other, base=base))
    # Nobody has to be told by hand that there is none.
    uri = rig.run("archive", request(other, base="auto"))["manifest_uri"]
    assert chain(rig, uri).manifest.full


def test_of_snapshots_of_no_volume_ebs_says_whether_they_are_related_and_auto_takes_none(rig: Rig) -> None:
    first = rig.snapshot({0: content(1)})
    base = rig.run("archive", request(first))["manifest_uri"]
    other = rig.snapshot({0: content(2)})
    told = f"is of {first}, and EBS says that {other} is not of the same volume (UNRELATED_SNAPSHOTS)"
    with pytest.raises(InvalidRequest) as caught:
        rig.run("archive", request(other, base=base))
    assert str(caught.value).endswith(f"{told}: leave base_manifest_uri out for a full archive")
    receipt = rig.run("archive", request(other, base="auto"))
    assert chain(rig, receipt["manifest_uri"]).manifest.full
    (warning,) = receipt["warnings"]
    assert warning["code"] == "full_archive"
    assert f"{other} is not of a volume, so auto cannot tell" in warning["message"]


def test_a_manifest_that_was_edited_is_refused_before_anything_is_started(rig: Rig) -> None:
    uri = rig.run("archive", request(Volume(rig).becomes(BEFORE).snapshot()))["manifest_uri"]
    key = uri.removeprefix(f"s3://{ARCHIVES}/")
    s3 = rig.aws.s3(HOME)
    members = json.loads(s3.get_object(Bucket=ARCHIVES, Key=key)["Body"].read())
    s3.put_object(Bucket=ARCHIVES, Key=key, Body=json.dumps(members | {"volume_size_gib": 2}).encode())
    before = len(rig.snapshots())
    with pytest.raises(InvalidRequest, match="it was changed since it was written"):
        restored(rig, uri)
    assert len(rig.snapshots()) == before


def test_a_dry_run_tells_the_size_by_a_sample_and_writes_nothing(rig: Rig) -> None:
    half = {index: content(index + 1)[: BLOCK_SIZE // 2].ljust(BLOCK_SIZE, b"x") for index in range(0, 2048, 64)}
    snapshot = Volume(rig).becomes(half).snapshot()
    told = rig.run("archive", request(snapshot, options={"dry_run": True}))
    assert keys(rig) == []
    assert (told["status"], told["allocated_blocks"]) == ("DRY_RUN", 32)
    assert told["bytes_written_from"] == "a sample of 32 blocks"
    receipt = rig.run("archive", request(snapshot))
    assert told["bytes_written"] == pytest.approx(receipt["bytes_written"], rel=0.25)
    assert told["requests"]["PutObject.STANDARD_IA"] >= receipt["requests"]["PutObject.STANDARD_IA"]
    assert told["usd_a_month"] == pytest.approx(told["bytes_written"] / 2**30 * 0.0125, abs=1e-6)
    assert told["holes_choices"] == []
    assert told["targets"][0]["archive_id"].startswith(snapshot)


def test_a_disk_image_is_archived_and_comes_back(rig: Rig) -> None:
    blocks = {0: content(1), 1: content(0), 2: content(3)}
    rig.aws.s3(HOME).put_object(Bucket=ARCHIVES, Key="disk.img.gz", Body=gzip.compress(b"".join(blocks.values()), 1))
    asked = request("") | {"snapshot_id": None, "image_uri": f"s3://{ARCHIVES}/disk.img.gz", "volume_size_gib": 2}
    receipt = rig.run("archive", asked)
    uri = receipt["manifest_uri"]
    manifest = chain(rig, uri).manifest
    assert (manifest.source.image, manifest.volume_size_gib) == (f"s3://{ARCHIVES}/disk.img.gz", 2)
    assert (manifest.counts.data_blocks, manifest.counts.zero_blocks) == (2, 1)
    assert restored(rig, uri)[0] == hashes(blocks)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"allocated_blocks": 7}, "have 6 blocks, and it says that there are 7"),
        ({}, "the LINEAR checksum over all blocks of its indexes, and those of its bases, is "),
    ],
    ids=["number", "checksum"],
)
@pytest.mark.parametrize("holes", [None, "zero_fill"])
def test_an_archive_whose_sums_are_not_those_of_its_blocks_is_damaged_and_nothing_is_left(
    rig: Rig, change: Any, why: str, holes: str | None
) -> None:
    """Whoever wrote it left something out, or put together what does not belong together."""
    uri = rig.run("archive", request(Volume(rig).becomes(BEFORE).snapshot()))["manifest_uri"]
    found = chain(rig, uri).manifest
    counts = found.counts.model_copy(update=change)
    other = found.model_copy(update={"counts": counts, "linear_checksum": "A" * 43 + "="})
    rig.aws.s3(HOME).put_object(Bucket=ARCHIVES, Key=uri.removeprefix(f"s3://{ARCHIVES}/"), Body=dump(other))
    before = {each["snapshot_id"] for each in rig.snapshots()}
    options = {**OPTIONS, "holes": holes}
    if holes is not None and not change:
        # The blocks that were filled are none of the archive's, and the sum of all is another one.
        assert restored(rig, uri, options=options)[1]["status"] == "SUCCEEDED"
        return
    with pytest.raises(TransferFailed) as caught:
        restored(rig, uri, options=options)
    assert f"{uri} is damaged: " in str(caught.value)
    assert why in str(caught.value)
    assert {each["snapshot_id"] for each in rig.snapshots()} == before


AWS = """#!/bin/sh
# Stands in for the AWS CLI: lists two keys below each prefix, and notes what is to be thawed.
case "$2" in
    list-objects-v2) printf '%s\\n' "$6a b.zst" "$6c.zst" ;;
    restore-object) echo "$4 $6 $8" >>thawed ;;
esac
"""


def test_a_chain_in_cold_classes_is_refused_with_one_command_that_thaws_all_of_it(rig: Rig, tmp_path: Path) -> None:
    volume, place = Volume(rig), {"prefix": "it's cold"}
    base = rig.run("archive", request(volume.becomes(BEFORE).snapshot(), storage_class="GLACIER", **place))
    uri = rig.run(
        "archive",
        request(volume.becomes(AFTER).snapshot(), base=base["manifest_uri"], storage_class="DEEP_ARCHIVE", **place),
    )["manifest_uri"]
    before = len(rig.snapshots())
    with pytest.raises(InvalidRequest) as caught:
        restored(rig, uri)
    assert len(rig.snapshots()) == before
    first, command, last = str(caught.value).splitlines()
    folders = [each.removesuffix("manifest.json") + SEGMENTS for each in (uri, base["manifest_uri"])]
    assert first == (
        f"manifest_uri: the segments in {', '.join(folders)} are in DEEP_ARCHIVE and GLACIER and cannot be read before "
        "they are thawed; nothing was started. To thaw them for a week:"
    )
    assert last == (
        "That takes up to 5 hours in GLACIER and 12 in DEEP_ARCHIVE; then start the job again. Where it was asked for "
        "already, wait"
    )
    aws = tmp_path / "aws"
    aws.write_text(AWS)
    aws.chmod(0o755)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True)
    assert sorted((tmp_path / "thawed").read_text().splitlines()) == sorted(
        f"{ARCHIVES} {folder.removeprefix(f's3://{ARCHIVES}/')}{name} Days=7"
        for folder in folders
        for name in ("a b.zst", "c.zst")
    )


def test_a_base_that_is_deleted_while_it_is_built_upon_ends_the_job_for_good(rig: Rig) -> None:
    volume = Volume(rig)
    base = rig.run("archive", request(volume.becomes(BEFORE).snapshot()))["manifest_uri"]
    second = volume.becomes(AFTER).snapshot()
    rig.plan(request(second, base=base), operation="archive", job_id="later")
    rig.aws.s3(HOME).delete_object(Bucket=ARCHIVES, Key=base.removeprefix(f"s3://{ARCHIVES}/"))
    rig.move_all("later")
    with pytest.raises(TransferFailed) as caught:
        rig.finish("later")
    assert str(caught.value).startswith(
        f"{base}, which the archive is built upon, is gone; start a new job with another base, or without one. "
    )
    assert not any("later" in key or key.endswith("unfinished.json") for key in keys(rig))


def test_a_chain_whose_base_was_deleted_says_what_is_lost(rig: Rig) -> None:
    volume = Volume(rig)
    base = rig.run("archive", request(volume.becomes(BEFORE).snapshot()))["manifest_uri"]
    uri = rig.run("archive", request(volume.becomes(AFTER).snapshot(), base=base))["manifest_uri"]
    rig.aws.s3(HOME).delete_object(Bucket=ARCHIVES, Key=base.removeprefix(f"s3://{ARCHIVES}/"))
    with pytest.raises(InvalidRequest) as caught:
        restored(rig, uri)
    assert str(caught.value) == (
        f"manifest_uri: archive {uri} is built upon {base}, which is gone: what did not change since that one cannot "
        "be read any more. If it was deleted or moved, bring it back to that address; nothing was started"
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"bucket": "s3://x/y"}, "archive.bucket: 's3://x/y' is not the name of a bucket (3 to 63 small letters"),
        ({"tags": {"cost": "a&b"}}, "tags: S3 does not take 'cost' with 'a&b': letters, digits, spaces and "),
        ({"kms_key_arn": "arn:aws:kms:us-east-1:111122223333:alias/mine"}, "only the ARN of the key itself is taken"),
    ],
)
def test_what_an_archive_cannot_be_given_is_told_before_anything_is_asked_of_aws(
    rig: Rig, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        rig.run("archive", request("snap-0123456789abcdef0", **change))
    assert why in str(caught.value)


def test_object_tags_may_have_any_letters(rig: Rig) -> None:
    uri = rig.run("archive", request(rig.snapshot({0: content(1)}), tags={"Käse": "brie + été 日本"}))["manifest_uri"]
    key = uri.removeprefix(f"s3://{ARCHIVES}/")
    found = rig.aws.s3(HOME).get_object_tagging(Bucket=ARCHIVES, Key=key)["TagSet"]
    assert found == [{"Key": "Käse", "Value": "brie + été 日本"}]


def test_a_base_that_is_no_address_and_a_place_to_look_for_one_that_is_not_there_are_told(rig: Rig) -> None:
    snapshot = Volume(rig).becomes(BEFORE).snapshot()
    with pytest.raises(InvalidRequest, match=r"base_manifest_uri: 'latest' is not the address .*, nor auto"):
        rig.run("archive", request(snapshot, base="latest"))
    with pytest.raises(InvalidRequest) as caught:
        rig.run("archive", request(snapshot, base="auto", bucket="no-such-bucket-anywhere"))
    assert "base_manifest_uri: ListObjectsV2 of s3://no-such-bucket-anywhere/disks/: " in str(caught.value)
    assert "check the name of the bucket" in str(caught.value)
