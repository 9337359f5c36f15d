"""Archives of another tool verified by the real machine: by the hashes in their names, and against snapshots."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import pytest
from blockferry.aws.objects import Bucket, Stored
from blockferry.cli.render import verification_table
from blockferry.core.blocks import BlockRange
from blockferry.core.errors import ArchiveDamaged, IncompleteTransfer, InvalidRequest
from blockferry.jobs.folder import RECEIPT
from blockferry.sources.address import Address
from blockferry.sources.foreign import ForeignObjects
from fakes import ManualClock, content
from foreign_archives import BLOCKS, BUCKET, FOLDER, URI, stored
from hypothesis import given
from hypothesis import strategies as st
from rig import HOME, Rig, running_rig, session
from wire import Call, TappedAws, Wire


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        made.aws.s3(HOME).create_bucket(Bucket=BUCKET)
        yield made


def verify(rig: Rig, uri: str = URI, **more: Any) -> dict[str, Any]:
    return rig.run("verify", {"foreign_uri": uri, "options": {"blocks_per_range": 512}, **more}, job_id="check")


def receipt_of(rig: Rig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rig.folder("check").read(RECEIPT) or b"")
    return found


def test_what_is_intact_is_read_whole_and_what_nobody_can_know_is_a_warning(rig: Rig) -> None:
    keys = stored(rig)
    receipt = verify(rig)
    assert (receipt["status"], receipt["findings"]) == ("SUCCEEDED", 0)
    assert (receipt["foreign_uri"], receipt["manifest_uri"]) == (URI, None)
    assert (receipt["segments_checked"], receipt["blocks_checked"]) == (len(keys), len(BLOCKS))
    sizes = [rig.aws.s3(HOME).head_object(Bucket=BUCKET, Key=key)["ContentLength"] for key in keys]
    assert receipt["bytes_read"] == sum(sizes)
    (warning,) = receipt["warnings"]
    assert warning["code"] == "last_segment_may_be_missing"
    assert "2047 to 2047" in warning["message"]
    assert rig.aws.s3(HOME).get_object_tagging(Bucket=BUCKET, Key=keys[0])["TagSet"] == []
    assert f"archive   {URI}" in verification_table(receipt)


@pytest.mark.parametrize("damage", ["cut off", "changed", "swapped"])
def test_damage_is_found_with_the_blocks_and_told_all_the_same(rig: Rig, damage: str) -> None:
    keys, s3 = stored(rig), rig.aws.s3(HOME)
    body = s3.get_object(Bucket=BUCKET, Key=keys[0])["Body"].read()
    other = s3.get_object(Bucket=BUCKET, Key=keys[1])["Body"].read()
    changed = {"cut off": body[:-1], "changed": body[:-9] + bytes(9), "swapped": other}
    s3.put_object(Bucket=BUCKET, Key=keys[0], Body=changed[damage])
    with pytest.raises(ArchiveDamaged, match="1 finding"):
        verify(rig)
    receipt = receipt_of(rig)
    assert (receipt["status"], receipt["segments_checked"]) == ("FAILED", len(keys))
    (finding,) = receipt["first_findings"]
    assert finding["object"] == f"s3://{BUCKET}/{keys[0]}"
    assert (finding["code"], finding["first"], finding["stop"]) == ("segment", 60, 64)


def test_an_object_that_goes_after_the_plan_fails_the_job(rig: Rig) -> None:
    keys = stored(rig)

    @contextmanager
    def losing(step: str, _event: Mapping[str, Any]) -> Iterator[None]:
        if step == "Verify blocks":
            rig.aws.s3(HOME).delete_object(Bucket=BUCKET, Key=keys[0])
        yield

    rig.around = losing
    told = f"there are {len(keys) - 1} objects below .*, and were {len(keys)} when the job was planned"
    with pytest.raises(IncompleteTransfer, match=told):
        verify(rig)


def test_what_is_held_is_compared_with_the_snapshot_block_by_block(rig: Rig) -> None:
    stored(rig)
    receipt = verify(rig, snapshot_id=rig.snapshot(BLOCKS))
    assert (receipt["status"], receipt["blocks_compared"]) == ("SUCCEEDED", len(BLOCKS))


def test_a_last_segment_that_the_tool_has_left_out_is_found_by_the_snapshot(rig: Rig) -> None:
    whole = BLOCKS | {2040: content(8), 2047: content(9)}
    stored(rig, blocks={index: data for index, data in whole.items() if index < 2040})
    other = {**whole, 61: content(0)}
    del other[100]
    with pytest.raises(ArchiveDamaged):
        verify(rig, snapshot_id=rig.snapshot(other))
    told = {(each["first"], each["message"].partition("snap-")[0]) for each in receipt_of(rig)["first_findings"]}
    assert {first for first, _ in told} == {61, 100, 2040, 2046, 2047}
    assert (100, "the archive holds it, and ") in told


def test_what_is_damaged_is_told_once_and_not_compared(rig: Rig) -> None:
    keys, s3 = stored(rig), rig.aws.s3(HOME)
    s3.put_object(Bucket=BUCKET, Key=keys[0], Body=b"x")
    with pytest.raises(ArchiveDamaged, match="1 finding"):
        verify(rig, snapshot_id=rig.snapshot(BLOCKS))
    assert receipt_of(rig)["blocks_compared"] == len(BLOCKS) - 4


def test_a_sample_takes_some_and_says_what_that_shows(rig: Rig) -> None:
    keys = stored(rig)
    options = {"blocks_per_range": 512, "seed": "2"}
    receipt = verify(rig, sample_percent=50, snapshot_id=rig.snapshot(BLOCKS), options=options)
    checked, left = receipt["segments_checked"], receipt["segments_left_out"]
    assert checked + left == len(keys)
    assert 0 < checked < len(keys)
    assert 0 < receipt["blocks_compared"] < len(BLOCKS)
    assert receipt["confidence"].startswith(f"{checked} of {len(keys)} segments were read")


def test_a_range_goes_on_where_a_call_has_ended(rig: Rig) -> None:
    keys = stored(rig)
    snapshot_id = rig.snapshot(BLOCKS)
    clock = ManualClock()

    def slowly(call: Call) -> None:
        clock.advance(10.0 if (call.service, call.operation) == ("image", "GetObject") else 0.0)

    wire = Wire(rig.server.service.faults, on_sent=slowly)
    # Of which 60 are kept back: time for three objects, and those of the first window are three.
    rig.aws, rig.clock, rig.seconds_left = TappedAws(base=session(), wire=wire, clock=clock), clock, 60.0 + 35.0
    receipt = verify(rig, snapshot_id=snapshot_id, options={"blocks_per_range": 2048})
    calls = [attempt.event for attempt in rig.deployment.attempts["check"] if attempt.step == "Verify blocks"]
    phases = [event["progress"]["phase"] for event in calls if event["progress"]]
    # The first call of all has no progress, and that of the snapshot begins with its phase.
    assert phases.count("stored") >= 1
    assert phases.count("compared") > 1
    # Nothing is left out, and nothing is counted by two calls.
    assert (receipt["segments_checked"], receipt["blocks_checked"]) == (len(keys), len(BLOCKS))
    assert receipt["blocks_compared"] == len(BLOCKS)


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"foreign_uri": f"s3://{BUCKET}/vol-1/2017 snap-1.img.lz4"}, "only the folder of an archive"),
        ({"foreign_uri": URI, "manifest_uri": f"s3://{BUCKET}/a/manifest.json"}, "name exactly one archive"),
        ({}, "name exactly one archive"),
        ({"foreign_uri": URI, "other_manifest_uri": f"s3://{BUCKET}/a/manifest.json"}, "with a snapshot only"),
        ({"foreign_uri": URI}, "there is no segment below"),
    ],
)
def test_what_cannot_be_verified_is_refused(rig: Rig, request_: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        rig.run("verify", request_, job_id="check")


def test_a_snapshot_of_another_size_is_refused(rig: Rig) -> None:
    stored(rig)
    with pytest.raises(InvalidRequest, match="has 2 GiB, and the archive is of a volume of 1 GiB"):
        verify(rig, snapshot_id=rig.snapshot({}, size_gib=2))


class Listing:
    """A bucket with these keys, which S3 lists in the order of their bytes; ``seen`` counts what it has listed."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = sorted(keys)
        self.seen = 0

    def uri(self, key: str) -> str:
        return f"s3://b/{key}"

    def listed(self, prefix: str, *, after: str = "") -> Iterator[Stored]:
        for key in self._keys:
            if key.startswith(prefix) and key > after:
                self.seen += 1
                yield Stored(key, 1, '"e"')


NAME = "A" * 43 + "="


def objects_in(keys: list[str], total: int) -> tuple[Listing, ForeignObjects]:
    listing = Listing(keys)
    return listing, ForeignObjects(cast(Bucket, listing), Address("b", FOLDER), total)


@given(
    st.sets(st.integers(0, 140_000).map(lambda n: n - n % 3), max_size=60),
    st.integers(0, 140_000),
    st.integers(1, 5_000),
)
def test_the_objects_of_a_range_are_those_of_all_that_hold_blocks_of_it(
    firsts: set[int], first: int, length: int
) -> None:
    runs = {first: min(3, 64 - first % 64) for first in firsts}
    keys = [f"{FOLDER}{first}.{NAME}.{blocks}.zstd" for first, blocks in runs.items()]
    _, objects = objects_in([*keys, f"{FOLDER}notes.txt", f"{FOLDER[:-1]}0/5.{NAME}.1.zstd"], 150_000)
    within = BlockRange(first, first + length)
    found = [(segment.first, segment.blocks) for segment in objects.within(within)]
    assert found == sorted(run for run in runs.items() if run[0] < within.stop and run[0] + run[1] > within.first)


def test_a_range_of_a_large_volume_lists_little_more_than_its_own() -> None:
    total = 2**21
    keys = [f"{FOLDER}{first}.{NAME}.64.zstd" for first in range(0, total, 64)]
    seen = {}
    for first in (8_192, 40_960, 409_600, 1_228_800):
        listing, objects = objects_in(keys, total)
        assert [segment.first for segment in objects.within(BlockRange(first, first + 4_096))] == list(
            range(first, first + 4_096, 64)
        )
        seen[first] = listing.seen
    # Some that are shorter and begin alike are in between.
    assert 64 < seen[1_228_800] < 80
    assert seen[409_600] < 1_000
    assert max(seen.values()) < len(keys) // 2
