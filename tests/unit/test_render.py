"""Receipts, estimates and reports as an operator reads them, made of those that the real steps return."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import zstandard
from blockferry.cli import main as cli
from blockferry.cli.operate import JobState
from blockferry.cli.render import receipt_table
from blockferry.cli.render_inspection import inspection_report
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.cost.bill import usd
from blockferry.inspection.steps import inspect_snapshots
from blockferry.inspection.tuning import Tuning
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from fakes import content
from rig import ACCOUNT, BUCKET, HOME, RECOVERY, Rig, put, running_rig

BEFORE = {0: content(1), 1: content(2), 2: content(3)}
AFTER = {0: content(1), 1: content(9), 2: content(0), 3: content(4)}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


def later(rig: Rig, base: str, blocks: Mapping[int, bytes]) -> str:
    """A snapshot of the base's lineage in which ``blocks`` are written."""
    rig.control("clock", {"advance": 1})
    client = rig.client("ebs")
    made = str(client.start_snapshot(VolumeSize=1, ParentSnapshotId=base)["SnapshotId"])
    put(client, made, blocks)
    client.complete_snapshot(SnapshotId=made, ChangedBlocksCount=len(blocks))
    return made


def rows(text: str) -> dict[str, str]:
    """The second column by the first. A name that comes twice keeps its last value."""
    return {name: value.strip() for name, _, value in (line.partition("  ") for line in text.splitlines())}


def image_in_s3(rig: Rig, data: bytes, name: str) -> str:
    rig.aws.s3(HOME).put_object(Bucket=BUCKET, Key=name, Body=data)
    return f"s3://{BUCKET}/{name}"


def test_the_receipt_of_a_sync_names_delta_parents_and_what_was_compared(rig: Rig) -> None:
    base = rig.snapshot(BEFORE)
    parent = rig.snapshot(BEFORE, region=RECOVERY)
    snapshot = later(rig, base, {index: data for index, data in AFTER.items() if index})
    wanted = {
        "snapshot_id": snapshot,
        "base_snapshot_id": base,
        "targets": [{"region": RECOVERY, "parent_snapshot_id": parent}],
        "options": {"verify_parent": True},
        "lineage": "golden",
    }
    receipt = rig.run("sync", wanted)
    made = receipt["targets"][0]["snapshot_id"]
    shown = rows(receipt_table(receipt))
    assert shown["operation"] == "sync"
    assert shown["source"] == f"changes from {base} to {snapshot} in {HOME}"
    assert shown["lineage"] == "golden"
    assert shown["target"] == f"{made} in {RECOVERY}, completed, 3 blocks written, 1 GiB, on top of {parent}"
    assert shown["allocated"] == "4 blocks"
    assert (shown["changed"], shown["removed"]) == ("3 blocks", "0 blocks, written as zeros")
    assert shown["zero blocks"] == "1"
    assert shown["parents"] == "3 blocks compared with the base, all equal"
    assert (shown["read"], shown["written"]) == (f"{receipt['bytes_read'] / 2**20:.1f} MiB", "1.5 MiB")
    assert shown["receipt"] == receipt["receipt_uri"]

    estimate = rig.plan({**wanted, "options": {"dry_run": True, "verify_parent": True}}, operation="sync")["estimate"]
    shown = rows(receipt_table(estimate))
    assert shown["status"] == "DRY_RUN"
    assert shown["target"] == f"{RECOVERY}, 1 GiB, on top of {parent}"
    assert shown["allocated"] == "4 blocks, by ListChangedBlocks and ListSnapshotBlocks"
    assert shown["changed"] == "3 blocks"
    assert "PutSnapshotBlock 3" in shown["requests"]
    assert shown["cost"].startswith(f"{usd(estimate['cost_usd']['total'])} (")
    assert "parents" not in shown


def test_a_full_copy_shows_nothing_of_deltas(rig: Rig) -> None:
    snapshot = rig.snapshot(BEFORE)
    wanted = {"snapshot_id": snapshot, "targets": [{"region": RECOVERY, "encrypted": True}]}
    receipt = rig.copy({**wanted, "options": {"holes": "preserve"}})
    shown = rows(receipt_table(receipt))
    made = receipt["targets"][0]["snapshot_id"]
    assert shown["source"] == f"{snapshot} in {HOME}"
    assert shown["target"] == f"{made} in {RECOVERY}, completed, 3 blocks written, 1 GiB, encrypted"
    assert not {"changed", "removed", "parents", "choice"} & shown.keys()
    assert shown["holes"].startswith("preserve, as the request says; what they stand for is not known: ")


def test_a_compressed_image_is_unknown_before_it_is_unpacked_and_known_afterwards(rig: Rig) -> None:
    raw = content(1) + content(0) + content(2)
    packed = zstandard.compress(raw)
    uri = image_in_s3(rig, packed, "disk.img.zst")
    wanted = {"image_uri": uri, "targets": [{"region": RECOVERY}, {"region": HOME}]}
    text = receipt_table(rig.plan({**wanted, "options": {"dry_run": True}}, operation="fanout")["estimate"])
    shown = rows(text)
    assert shown["source"] == f"image {uri} (zstd, {len(packed)} bytes, not unpacked yet)"
    assert shown["target"] == HOME
    unknown = "unknown until the image is unpacked"
    assert [shown[name] for name in ("allocated", "read", "written", "cost")] == [unknown] * 4
    assert not {"requests", "time at quota"} & shown.keys()
    assert "None" not in text

    receipt = rig.run("fanout", wanted)
    shown = rows(receipt_table(receipt))
    assert shown["source"] == f"image {uri} (zstd, {len(packed)} bytes, {len(raw)} bytes unpacked)"
    assert shown["target"].endswith(f"in {HOME}, completed, 2 blocks written, 1 GiB")
    assert shown["written"] == "2.0 MiB"
    assert "lineage" not in shown


def test_a_raw_image_is_shown_with_its_size(rig: Rig) -> None:
    uri = image_in_s3(rig, content(1) + b"tail", "disk.img")
    wanted = {"image_uri": uri, "targets": [{"region": RECOVERY}], "options": {"dry_run": True}}
    shown = rows(receipt_table(rig.plan(wanted, operation="fanout")["estimate"]))
    assert shown["source"] == f"image {uri} (raw, {BLOCK_SIZE + 4} bytes)"
    assert shown["allocated"] == "2 blocks, by size of the image"
    assert "seconds_at_quota" not in shown


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0.0, "$0.00"),
        (4e-8, "under $0.000001"),
        (0.0000012, "$0.000001"),
        (0.000016, "$0.000016"),
        (0.018937, "$0.019"),
        (0.25, "$0.25"),
        (1234.5, "$1,234.50"),
    ],
)
def test_dollars_have_two_digits_that_say_something_and_no_exponent(amount: float, text: str) -> None:
    assert usd(amount) == text


# -- inspections -------------------------------------------------------------------------------------------------------


def inspected(rig: Rig, **request: Any) -> dict[str, Any]:
    answer = inspect_snapshots(
        JobCall(aws=rig.aws, folder=rig.workspace.folder("inspect", "look")),
        Execution(f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-inspect:look"),
        started_at="2026-01-01T00:00:00.000Z",
        request=request,
        progress=None,
        tuning=Tuning(lists_per_second=10_000.0),
    )
    assert answer["done"]
    report: dict[str, Any] = answer["report"]
    return report


@pytest.fixture
def report(rig: Rig) -> dict[str, Any]:
    """Of a snapshot, what changed to it, and the chain of both."""
    base = rig.snapshot(BEFORE)
    snapshot = later(rig, base, {1: content(9), 2: content(0), 3: content(4)})
    return inspected(
        rig,
        snapshot_id=snapshot,
        base_snapshot_id=base,
        chain=[snapshot, base],
        targets=[{"region": RECOVERY}],
        options={"count_zeros": True},
    )


def test_an_inspection_tells_what_is_there_what_changed_and_what_a_job_would_do(report: dict[str, Any]) -> None:
    first, *_, last = inspection_report(report).split("\n\n")
    shown = rows(f"{first}\n{last}")
    base, snapshot = report["base"]["snapshot_id"], report["source"]["snapshot_id"]
    assert shown["snapshot"] == f"{snapshot} in {HOME}, not encrypted, standard tier"
    assert shown["allocated"] == "4 blocks (0.002 GiB)"
    assert shown["zero blocks"] == "1, 3 are not"
    assert shown["delta"] == (
        f"since {base}: 1 blocks added, 2 blocks overwritten, 0 blocks removed; 0.001 GiB to write"
    )
    assert shown["a job would"].startswith("send ListSnapshotBlocks")
    assert "PutSnapshotBlock 3" in shown["a job would"]
    assert shown["time at quota"] == "1 s"
    assert (shown["receipt"], shown["report"]) == (report["receipt_uri"], report["report_uri"])


def test_the_choices_are_a_table_in_which_dollars_end_in_one_column(report: dict[str, Any]) -> None:
    lines = inspection_report(report).splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("choice "))
    table = lines[head : head + 1 + len(report["choices"])]
    assert [line.split()[0] for line in table[1:]] == [choice["name"] for choice in report["choices"]]
    possible = [line for line, choice in zip(table[1:], report["choices"], strict=True) if choice["possible"]]
    assert len(possible) > 5
    assert {len(line) for line in (table[0], *possible)} == {len(table[0])}
    for line, choice in zip(table[1:], report["choices"], strict=True):
        if choice["possible"]:
            assert line.endswith(usd(choice["year_usd"]))
            assert usd(choice["one_time_usd"]) in line


def test_the_recommendation_comes_with_its_reason_and_conditions_are_told_once(report: dict[str, Any]) -> None:
    text = inspection_report(report)
    flowing = " ".join(text.split())
    advice = report["recommendation"]
    assert f"To copy it: {advice['choice']}. {' '.join(advice['reason'].split())}." in flowing
    assert f"To keep it for less: {report['cheapest_keep']['choice']}" in flowing
    for choice in report["choices"]:
        for remark in [choice["why_not"]] if choice["why_not"] else choice["conditions"] + choice["notes"]:
            assert f": {remark}" in flowing
    shared = next(n for c in report["choices"] if c["name"] == "s3_standard" for n in c["notes"])
    in_remarks = flowing.partition("12 months direct")[2]
    assert in_remarks.count(shared) == 1


def test_the_chain_is_a_table_with_what_deleting_each_member_frees(report: dict[str, Any]) -> None:
    lines = inspection_report(report).splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("snapshot ") and "deleting frees" in line)
    assert lines[head - 1].startswith("Chain: 2 snapshots of vol-ffffffff store 6 blocks")
    first, second = report["chain"]["snapshots"]
    assert lines[head + 1].split()[0] == first["snapshot_id"]
    assert lines[head + 2].split()[2:6] == ["4", "1", "2", "0"]
    assert lines[head + 2].split()[6] == str(second["frees_blocks"])


def test_an_inspection_of_a_single_snapshot_shows_neither_delta_nor_chain(rig: Rig) -> None:
    text = inspection_report(inspected(rig, snapshot_id=rig.snapshot(BEFORE)))
    assert not {"delta", "zero blocks"} & rows(text).keys()
    assert "Chain:" not in text
    assert "None" not in text
    assert "- no targets are named" in text


def test_a_finished_inspection_is_printed_as_report_or_as_json(
    report: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = JobState("look", "arn:blockferry-inspect:look", "SUCCEEDED", {}, 0, output=report)

    class Finished:
        def find(self, *_: Any) -> JobState:
            return done

        def with_own_cause(self, state: JobState) -> JobState:
            return state

    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr("blockferry.cli.console.Operator.of", lambda **_: Finished())
    assert cli.main(["status", "look"]) == 0
    assert capsys.readouterr().out == inspection_report(report) + "\n"
    assert cli.main(["status", "look", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(report))
