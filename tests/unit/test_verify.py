"""Archives verified by the real machine: intact ones, every kind of damage, samples, and comparisons."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from blockferry.cli.render import verification_table
from blockferry.core.errors import ArchiveDamaged, IncompleteTransfer, InvalidRequest
from blockferry.formats.archive.manifest import Manifest, sealed
from blockferry.jobs.folder import RECEIPT, REPORT
from blockferry.verification.record import found_names
from fakes import ManualClock, content
from rig import HOME, Rig, running_rig, session
from volumes import Volume
from wire import TappedAws, Wire

ARCHIVES = "archives-111122223333"

BEFORE = {**{index: content(index % 7 + 1) for index in range(40)}, 900: content(0), 1500: content(5)}
AFTER = {**BEFORE, 3: content(9), 1500: content(6)}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as made:
        made.aws.s3(HOME).create_bucket(Bucket=ARCHIVES)
        yield made


def archived(rig: Rig, snapshot_id: str, base: str | None = None, **more: Any) -> str:
    place = {"bucket": ARCHIVES, "segment_blocks": 4, **more}
    request = {"snapshot_id": snapshot_id, "base_manifest_uri": base, "archive": place}
    receipt = rig.run("archive", {**request, "options": {"blocks_per_range": 512}})
    return str(receipt["manifest_uri"])


@pytest.fixture
def night(rig: Rig) -> tuple[str, str, str]:
    """The snapshot of a second night, its archive, and the full one that it is built upon."""
    volume = Volume(rig)
    full = archived(rig, volume.becomes(BEFORE).snapshot())
    later = volume.becomes(AFTER).snapshot()
    return later, archived(rig, later, full), full


def verify(rig: Rig, uri: str, *, job_id: str = "check", **more: Any) -> dict[str, Any]:
    return rig.run("verify", {"manifest_uri": uri, "options": {"blocks_per_range": 512}, **more}, job_id=job_id)


def tags(rig: Rig, uri: str) -> dict[str, str]:
    key = uri.removeprefix(f"s3://{ARCHIVES}/")
    found = rig.aws.s3(HOME).get_object_tagging(Bucket=ARCHIVES, Key=key)["TagSet"]
    return {each["Key"]: each["Value"] for each in found}


def stored(rig: Rig, name: str) -> Any:
    return rig.folder("check").read(name)


def test_an_archive_that_is_intact_is_read_whole_and_says_so(rig: Rig, night: tuple[str, str, str]) -> None:
    _, uri, _ = night
    receipt = verify(rig, uri)
    assert (receipt["status"], receipt["findings"], receipt["orphans"]) == ("SUCCEEDED", 0, 0)
    # Ten segments of four, one of zeros and one at the end; and the two that changed.
    assert (receipt["segments_checked"], receipt["segments_left_out"]) == (14, 0)
    assert (receipt["indexes_checked"], receipt["blocks_checked"]) == (5, 44)
    assert receipt["confidence"] == "every stored byte was read and checked"
    assert tags(rig, uri)["blockferry:verification"] == "intact"
    assert json.loads(stored(rig, RECEIPT)) == receipt


Damage = Callable[[Any, str, list[str]], None]


def missing(s3: Any, key: str, _others: list[str]) -> None:
    s3.delete_object(Bucket=ARCHIVES, Key=key)


def cut_off(s3: Any, key: str, _others: list[str]) -> None:
    body = s3.get_object(Bucket=ARCHIVES, Key=key)["Body"].read()
    s3.put_object(Bucket=ARCHIVES, Key=key, Body=body[:-1])


def changed(s3: Any, key: str, _others: list[str]) -> None:
    body = bytearray(s3.get_object(Bucket=ARCHIVES, Key=key)["Body"].read())
    body[len(body) // 2] ^= 1
    s3.put_object(Bucket=ARCHIVES, Key=key, Body=bytes(body))


def swapped(s3: Any, key: str, others: list[str]) -> None:
    other = next(each for each in others if each != key)
    s3.put_object(Bucket=ARCHIVES, Key=key, Body=s3.get_object(Bucket=ARCHIVES, Key=other)["Body"].read())


@pytest.mark.parametrize("damage", [missing, cut_off, changed, swapped])
@pytest.mark.parametrize("what", ["segments/", "index/"])
@pytest.mark.parametrize("whose", ["its own", "its base's"])
def test_damage_is_found_with_what_is_lost_and_told_all_the_same(
    rig: Rig, night: tuple[str, str, str], damage: Damage, what: str, whose: str
) -> None:
    _, uri, full = night
    folder = (uri if whose == "its own" else full).removeprefix(f"s3://{ARCHIVES}/").removesuffix("manifest.json")
    s3 = rig.aws.s3(HOME)
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=ARCHIVES, Prefix=folder + what)["Contents"]]
    damage(s3, keys[0], keys)
    with pytest.raises(ArchiveDamaged) as caught:
        verify(rig, uri)
    told = str(caught.value)
    assert f"s3://{ARCHIVES}/{keys[0]}" in told
    assert "1 finding" in told
    receipt = json.loads(stored(rig, RECEIPT))
    assert (receipt["status"], receipt["findings"]) == ("FAILED", 1)
    (finding,) = receipt["first_findings"]
    assert finding["object"] == f"s3://{ARCHIVES}/{keys[0]}"
    lost = {("segments/", "its own"): (3, 4), ("segments/", "its base's"): (0, 4)}.get((what, whose), (0, 512))
    assert (finding["first"], finding["stop"]) == lost
    assert f"s3://{ARCHIVES}/{keys[0]}" in stored(rig, REPORT).decode()
    assert tags(rig, uri)["blockferry:verification"] == "damaged"


def test_all_that_is_damaged_is_found_and_not_only_the_first(rig: Rig, night: tuple[str, str, str]) -> None:
    _, uri, full = night
    folder = full.removeprefix(f"s3://{ARCHIVES}/").removesuffix("manifest.json")
    s3 = rig.aws.s3(HOME)
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=ARCHIVES, Prefix=f"{folder}segments/")["Contents"]]
    for key in keys[::3]:
        changed(s3, key, [])
    with pytest.raises(ArchiveDamaged, match="4 findings"):
        verify(rig, uri)
    receipt = json.loads(stored(rig, RECEIPT))
    assert [finding["object"] for finding in receipt["first_findings"]] == [
        f"s3://{ARCHIVES}/{key}" for key in keys[::3]
    ]


def test_a_manifest_that_was_edited_is_all_that_can_be_said(rig: Rig, night: tuple[str, str, str]) -> None:
    _, uri, _ = night
    s3, key = rig.aws.s3(HOME), uri.removeprefix(f"s3://{ARCHIVES}/")
    members = json.loads(s3.get_object(Bucket=ARCHIVES, Key=key)["Body"].read())
    s3.put_object(Bucket=ARCHIVES, Key=key, Body=json.dumps(members | {"job_id": "other"}).encode())
    with pytest.raises(ArchiveDamaged, match="it was changed since it was written"):
        verify(rig, uri)
    receipt = json.loads(stored(rig, RECEIPT))
    assert [finding["code"] for finding in receipt["first_findings"]] == ["manifest"]
    assert receipt["segments_checked"] == 0


def test_an_archive_that_is_not_there_is_refused(rig: Rig) -> None:
    with pytest.raises(InvalidRequest, match="there is no s3://"):
        verify(rig, f"s3://{ARCHIVES}/none/manifest.json")


def test_a_sample_is_chosen_by_its_seed_and_says_what_it_shows(rig: Rig, night: tuple[str, str, str]) -> None:
    _, uri, _ = night
    first = verify(rig, uri, sample_percent=50, options={"seed": "a"})
    assert 0 < first["segments_checked"] < 14
    assert first["segments_checked"] + first["segments_left_out"] == 14
    assert first["confidence"].startswith(f"{first['segments_checked']} of 14 segments were read and checked; if none")
    assert tags(rig, uri)["blockferry:verification"] == "intact sample 50 percent"
    request = {"manifest_uri": uri, "sample_percent": 50}
    again = rig.run("verify", request | {"options": {"seed": "a"}})
    assert (again["segments_checked"], again["bytes_read"]) == (first["segments_checked"], first["bytes_read"])
    others = {rig.run("verify", request | {"options": {"seed": seed}})["bytes_read"] for seed in "bcde"}
    assert len(others) > 1


def test_a_sample_that_has_nothing_verifies_nothing(rig: Rig, night: tuple[str, str, str]) -> None:
    _, uri, _ = night
    with pytest.raises(
        IncompleteTransfer, match=r"sample of 0\.001 percent has none of the 14 segments of .* nothing was"
    ):
        verify(rig, uri, sample_percent=0.001, options={"seed": "a"})
    assert "blockferry:verification" not in tags(rig, uri)


def test_an_archive_is_compared_with_its_snapshot_block_by_block(rig: Rig, night: tuple[str, str, str]) -> None:
    later, uri, _ = night
    before = rig.calls()
    receipt = verify(rig, uri, snapshot_id=later)
    assert (receipt["blocks_compared"], receipt["findings"]) == (42, 0)
    assert rig.calls()["GetSnapshotBlock"] - before["GetSnapshotBlock"] == 42


def test_every_difference_to_a_snapshot_is_found(rig: Rig, night: tuple[str, str, str]) -> None:
    _, uri, _ = night
    other = {**AFTER, 5: content(33), 2000: content(1)}
    del other[900]
    with pytest.raises(ArchiveDamaged, match="3 findings"):
        verify(rig, uri, snapshot_id=rig.snapshot(other))
    findings = json.loads(stored(rig, RECEIPT))["first_findings"]
    told = [(finding["first"], finding["message"]) for finding in findings]
    assert [block for block, _ in told] == [5, 900, 2000]
    assert "holds something else" in told[0][1]
    assert told[1][1].startswith("the archive holds it, and snap-")
    assert told[2][1].endswith("holds it, and the archive does not")


def test_a_second_archive_must_hold_the_same(rig: Rig, night: tuple[str, str, str]) -> None:
    later, uri, full = night
    other = archived(rig, later)
    receipt = verify(rig, uri, other_manifest_uri=other)
    assert (receipt["blocks_compared"], receipt["findings"]) == (42, 0)
    with pytest.raises(ArchiveDamaged, match="2 findings"):
        rig.run("verify", {"manifest_uri": uri, "other_manifest_uri": full})


def told_of(rig: Rig, job_id: str = "check") -> list[tuple[str, int, int]]:
    """What the receipt says was found: its kind, and the blocks."""
    receipt = json.loads(rig.folder(job_id).read(RECEIPT) or b"")
    return [(each["code"], each["first"], each["stop"]) for each in receipt["first_findings"]]


def test_every_block_in_which_two_archives_differ_is_told_also_one_that_only_one_of_them_has(
    rig: Rig, night: tuple[str, str, str]
) -> None:
    _, uri, full = night
    more = archived(rig, Volume(rig, volume_id="vol-00000000000000042").becomes({**BEFORE, 700: content(4)}).snapshot())
    for number, (one, other, blocks) in enumerate(((uri, full, (3, 1500)), (more, full, (700,)), (full, more, (700,)))):
        job_id = f"check-{number}"
        with pytest.raises(ArchiveDamaged):
            verify(rig, one, job_id=job_id, other_manifest_uri=other)
        assert told_of(rig, job_id) == [("other_archive", block, block + 1) for block in blocks]
        receipt = json.loads(rig.folder(job_id).read(RECEIPT) or b"")
        assert receipt["blocks_compared"] == 42 + (700 in blocks)


def test_what_the_second_archive_cannot_tell_is_a_finding_and_the_rest_is_compared(
    rig: Rig, night: tuple[str, str, str]
) -> None:
    _, uri, _ = night
    other = archived(rig, Volume(rig, volume_id="vol-00000000000000043").becomes(AFTER).snapshot())
    folder = other.removeprefix(f"s3://{ARCHIVES}/").removesuffix("manifest.json")
    rig.aws.s3(HOME).delete_object(Bucket=ARCHIVES, Key=f"{folder}index/0000000512.idx")
    with pytest.raises(ArchiveDamaged, match="1 finding"):
        verify(rig, uri, other_manifest_uri=other)
    assert told_of(rig) == [("other_archive", 512, 1024)]
    # Block 900 is that of the range which nobody can tell of.
    assert json.loads(stored(rig, RECEIPT))["blocks_compared"] == 41


def test_an_archive_that_is_replaced_while_it_is_verified_is_damaged(rig: Rig, night: tuple[str, str, str]) -> None:
    _, uri, _ = night
    key, s3 = uri.removeprefix(f"s3://{ARCHIVES}/"), rig.aws.s3(HOME)

    def replaced(step: str, _event: Any) -> Any:
        if step == "Verify blocks":
            manifest = Manifest.model_validate_json(s3.get_object(Bucket=ARCHIVES, Key=key)["Body"].read())
            another = sealed(manifest.model_copy(update={"tool_version": "0.0.1"}))
            s3.put_object(Bucket=ARCHIVES, Key=key, Body=another.model_dump_json().encode())
        return nullcontext()

    rig.around = replaced
    with pytest.raises(ArchiveDamaged, match="was replaced while it was verified"):
        verify(rig, uri)


def test_what_a_verification_asked_for_is_in_its_receipt(rig: Rig, night: tuple[str, str, str]) -> None:
    _, uri, _ = night
    receipt = verify(rig, uri)
    # Fourteen segments; and each of four ranges opens two manifests and reads its indexes.
    assert receipt["requests"]["GetObject"] == 14 + 4 * 2 + 5
    assert receipt["requests"]["ListObjectsV2"] >= 4


def test_objects_that_nothing_refers_to_are_a_warning(rig: Rig, night: tuple[str, str, str]) -> None:
    _, uri, _ = night
    folder = uri.removeprefix(f"s3://{ARCHIVES}/").removesuffix("manifest.json")
    rig.aws.s3(HOME).put_object(Bucket=ARCHIVES, Key=f"{folder}segments/0000000900.zst", Body=b"left by a worker")
    receipt = verify(rig, uri)
    assert (receipt["status"], receipt["orphans"]) == ("SUCCEEDED", 1)
    assert [warning["code"] for warning in receipt["warnings"]] == ["objects_without_reference"]


READ = {("image", "GetObject"), ("ebs", "GetSnapshotBlock")}
"""What a verification spends its time with: reading archives and the snapshot."""


def slowly(rig: Rig, *, seconds_left: float) -> None:
    """Every read takes ten seconds, and a call has so many."""
    clock, wire = ManualClock(), Wire(rig.server.service.faults)
    wire.on_sent = lambda call: clock.advance(10.0 if (call.service, call.operation) in READ else 0.0)
    rig.aws, rig.clock, rig.seconds_left = TappedAws(base=session(), wire=wire, clock=clock), clock, seconds_left


def test_a_range_goes_on_where_a_call_has_ended(rig: Rig, night: tuple[str, str, str]) -> None:
    later, uri, _ = night
    # Of which 60 are kept back: time for two manifests, two indexes, and three segments or blocks.
    slowly(rig, seconds_left=60.0 + 65.0)
    receipt = verify(rig, uri, snapshot_id=later)
    calls = [attempt.event for attempt in rig.deployment.attempts["check"] if attempt.step == "Verify blocks"]
    phases = [event["progress"]["phase"] for event in calls if event["progress"] and event["range"]["first"] == 0]
    assert phases.count("stored") > 1
    assert phases.count("compared") > 1
    # Nothing is left out, and nothing is counted by two calls.
    assert (receipt["segments_checked"], receipt["blocks_checked"], receipt["blocks_compared"]) == (14, 44, 42)
    assert (receipt["indexes_checked"], receipt["findings"]) == (5, 0)


@pytest.mark.parametrize(
    ("of", "told"),
    [
        ("0000000512-0000001024-stored-0000000512", "512 to 1023"),
        ("0000001536-0000002048-compared-0000001536", "1536 to 2047"),
    ],
    ids=["its objects", "the snapshot"],
)
def test_a_range_that_nobody_looked_at_fails_the_job(rig: Rig, night: tuple[str, str, str], of: str, told: str) -> None:
    later, uri, _ = night
    rig.around = lambda step, event: lost(rig, of) if step == "Conclude verification" else nullcontext()
    with pytest.raises(IncompleteTransfer, match=f"blocks {told} were not looked at"):
        verify(rig, uri, snapshot_id=later)
    assert stored(rig, RECEIPT) is None


def test_a_part_of_a_range_that_nobody_looked_at_fails_the_job(rig: Rig, night: tuple[str, str, str]) -> None:
    _, uri, _ = night
    slowly(rig, seconds_left=60.0 + 65.0)

    @contextmanager
    def second_call_lost() -> Iterator[None]:
        names = [name for name in found_names(rig.folder("check")) if "/0000000000-" in name]
        assert len(names) > 2
        with lost(rig, names[1].rpartition("/")[2]):
            yield

    rig.around = lambda step, event: second_call_lost() if step == "Conclude verification" else nullcontext()
    with pytest.raises(IncompleteTransfer, match=r"blocks [1-9]\d* to 511 were not looked at"):
        verify(rig, uri)


@contextmanager
def lost(rig: Rig, of: str) -> Iterator[None]:
    """What one call has found is gone."""
    folder = rig.folder("check")
    (name,) = [name for name in found_names(folder) if f"/{of.removesuffix('.json')}.json" in name]
    folder.delete_below(name)
    yield


def test_a_receipt_fits_on_a_page(rig: Rig, night: tuple[str, str, str]) -> None:
    later, uri, _ = night
    shown = verification_table(verify(rig, uri, snapshot_id=later))
    assert f"archive   {uri}" in shown
    assert "checked   14 segments, 44 blocks" in shown
    assert f"compared  42 blocks with {later}" in shown
    assert "findings  none" in shown
