"""Receipts, estimates and reports as an operator reads them, made of those that the real steps return."""

from __future__ import annotations

import bz2
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import zstandard
from blockferry.cli import main as cli
from blockferry.cli.operate import JobState
from blockferry.cli.render import receipt_table
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.cost.bill import usd
from blockferry.inspection.answer import COPYING, answer, lasting, size
from blockferry.inspection.page import report_page
from blockferry.inspection.steps import inspect_snapshots
from blockferry.inspection.tuning import Tuning
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.transfer.receipt import report as receipt_page
from blockferry.transfer.sentences import cost_line
from fakes import content
from rig import ACCOUNT, BUCKET, HOME, RECOVERY, Rig, put, running_rig

BEFORE = {0: content(1), 1: content(2), 2: content(3)}
PRESERVE = {"options": {"holes": "preserve"}}
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
    """The second column by the first, with what goes on below it. A name that comes twice keeps its last value."""
    whole = re.sub(r"\n {2,}", " ", text)
    return {name: value.strip() for name, _, value in (line.partition("  ") for line in whole.splitlines())}


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
    assert shown["cost"].startswith(f"{usd(estimate['cost_usd']['total'])}; ")
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


def test_a_compressed_image_is_priced_by_what_it_tells_and_known_once_it_is_unpacked(rig: Rig) -> None:
    raw = content(1) + content(0) + content(2)
    packed = zstandard.compress(raw)
    uri = image_in_s3(rig, packed, "disk.img.zst")
    wanted = {"image_uri": uri, "targets": [{"region": RECOVERY}, {"region": HOME}]}
    text = receipt_table(rig.plan({**wanted, "options": {"dry_run": True}}, operation="fanout")["estimate"])
    shown = rows(text)
    assert shown["source"] == f"image {uri} (zstd, {len(packed)} bytes, not unpacked yet)"
    assert shown["target"] == HOME
    header = "the header of its first zstd frame (1,572,864 bytes; more if others follow)"
    assert shown["allocated"] == f"3 blocks, by {header}"
    assert shown["written"] == "3.0 MiB"
    assert shown["cost"].startswith("$0.0")
    assert "None" not in text

    receipt = rig.run("fanout", wanted)
    shown = rows(receipt_table(receipt))
    assert shown["source"] == f"image {uri} (zstd, {len(packed)} bytes, {len(raw)} bytes unpacked)"
    assert shown["target"].endswith(f"in {HOME}, completed, 2 blocks written, 1 GiB")
    assert shown["written"] == "2.0 MiB"
    assert "lineage" not in shown


def test_an_image_that_tells_nothing_is_bounded_by_the_volume_that_is_asked_for(rig: Rig) -> None:
    uri = image_in_s3(rig, bz2.compress(content(1)), "disk.img.bz2")
    wanted = {"image_uri": uri, "targets": [{"region": RECOVERY}], "options": {"dry_run": True}}
    shown = rows(receipt_table(rig.plan(wanted, operation="fanout")["estimate"]))
    assert shown["size and cost"] == "unknown until the image is unpacked; --size-gib N bounds them"
    assert not {"allocated", "requests", "time at quota", "cost"} & shown.keys()
    shown = rows(receipt_table(rig.plan({**wanted, "volume_size_gib": 2}, operation="fanout")["estimate"]))
    assert shown["allocated"] == "4096 blocks, by the volume of 2 GiB that was asked for: at most"
    assert "preserve: at most 4096 blocks" in shown["choice"] or "at most" in shown["allocated"]


def test_what_is_shown_of_a_job_fits_into_eighty_columns(rig: Rig) -> None:
    receipt = rig.copy({"snapshot_id": rig.snapshot(BEFORE), "targets": [{"region": RECOVERY}], **PRESERVE})
    text = receipt_table(receipt)
    assert max(len(line) for line in text.splitlines() if "s3://" not in line) <= 80
    shown = rows(text)
    assert shown["cost"] == cost_line(receipt["cost_usd"])
    assert shown["cost"].startswith(f"{usd(receipt['cost_usd']['total'])}; prices of us-east-1, 2026-08-01")
    assert "; included: EBS requests, data transfer between regions; not included: " in shown["cost"]


def test_every_page_tells_the_same_cost_in_the_same_words(rig: Rig) -> None:
    receipt = rig.copy({"snapshot_id": rig.snapshot(BEFORE), "targets": [{"region": RECOVERY}], **PRESERVE})
    said = cost_line(receipt["cost_usd"])
    assert f"Cost: {said}." in receipt_page(receipt)
    report = inspected(rig, snapshot_id=receipt["source"]["snapshot_id"])
    assert cost_line(report["inspection"]["cost_usd"]) in " ".join(report_page(report).split())


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


def cells(text: str, head: str) -> list[list[str]]:
    """The rows of the Markdown table whose head has this in it."""
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("|") and head in line)
    rows = []
    for line in lines[at:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def test_an_inspection_answers_in_a_few_lines(report: dict[str, Any]) -> None:
    base, snapshot = report["base"]["snapshot_id"], report["source"]["snapshot_id"]
    native = next(choice for choice in report["choices"] if choice["name"] == "copy_snapshot")
    lines = answer(report)
    assert lines[:4] == [
        f"{snapshot} in {HOME}: 0.0020 of 1 GiB, not encrypted, 0.0005 GiB zeros",
        f"since {base}: 0.0015 GiB changed, 0.0005 of it new, 0 gone",
        f"to copy it to {RECOVERY}: CopySnapshot",
        f"  aws ec2 copy-snapshot --source-region {HOME} --source-snapshot-id {snapshot} --region {RECOVERY} "
        f"--description '[Copied {snapshot} from {HOME}]'",
    ]
    head, best, *_ = lines[4:]
    assert head.split() == ["once", "12", "months", "with", "storage", "time"]
    assert best.split() == ["CopySnapshot", usd(native["one_time_usd"]), usd(native["year_usd"]), "not", "promised"]
    freed = report["chain"]["snapshots"]
    assert lines[-4:] == [
        "the 2 snapshots hold 0.0029 GiB; deleting one alone frees at most:",
        f"  {snapshot}  0.0015 GiB, {usd(freed[1]['frees_usd_month'])} a month",
        f"  {base}  0.0010 GiB, {usd(freed[0]['frees_usd_month'])} a month",
        f"more: --full, or {report['report_uri']}",
    ]


def test_an_answer_never_has_more_than_fifteen_lines(rig: Rig) -> None:
    names = [rig.snapshot(BEFORE)]
    for n in range(6):
        names.append(later(rig, names[-1], {n: content(n + 20)}))
    copy = {"snapshot_id": names[-2], "targets": [{"region": RECOVERY}, {"region": HOME}]}
    rig.copy({**copy, "options": {"holes": "preserve"}})
    wanted = {"snapshot_id": names[-1], "base_snapshot_id": names[-2], "chain": names, "targets": copy["targets"]}
    report = inspected(rig, **wanted, options={"count_zeros": True})
    lines = answer(report)
    assert report["recommendation"]["choice"] == "sync"
    assert len(lines) == 15
    assert lines[2] == "to copy it to 2 places: blockferry sync"
    head = (
        f"the 7 snapshots hold {size(report['chain']['stored_bytes'])}; deleting one alone frees at most, the 3 most:"
    )
    assert lines[10] == head
    assert max(len(line) for line in lines if "s3://" not in line and "--base" not in line) <= 80


def test_an_answer_shows_only_what_can_be_done_today(report: dict[str, Any]) -> None:
    text = "\n".join(answer(report))
    assert "blockferry sync" not in text
    assert "S3" not in text
    page = report_page(report)
    assert "- blockferry sync: not possible: no proved copy" in page
    assert "S3 Glacier" not in page
    assert report["cheapest_keep"]["choice"] == "snapshot_archive_tier"


FIELDS = re.compile(r"\b[a-z]+_[a-z_]+\b|targets\[|\b(frees|c12)_")


def test_no_page_calls_anything_by_the_name_of_a_field(report: dict[str, Any]) -> None:
    for text in (report_page(report), "\n".join(answer(report))):
        assert FIELDS.findall(text) == []


def test_where_no_way_leads_the_answer_says_why(rig: Rig) -> None:
    report = inspected(rig, snapshot_id=rig.snapshot(BEFORE), targets=[{"region": "cn-north-1"}])
    text = " ".join(" ".join(answer(report)).split())
    assert "to copy it to cn-north-1: no way: the copy in cn-north-1: CopySnapshot does not lead from partition" in text
    assert "carry the objects over with credentials of the other partition" in text


@pytest.mark.parametrize(
    ("blocks", "text"),
    [(0, "0 GiB"), (1, "0.0005 GiB"), (300, "0.15 GiB"), (2048 * 3, "3.0 GiB"), (2048 * 1234, "1,234 GiB")],
)
def test_sizes_have_one_unit_and_two_digits_that_say_something(blocks: int, text: str) -> None:
    assert size(blocks * BLOCK_SIZE) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "not promised"), (1, "1 s"), (900, "15 min"), (2098, "35 min"), (34_200, "9.5 h")]
)
def test_times_are_told_as_people_tell_them(seconds: int | None, text: str) -> None:
    assert lasting(seconds) == text


def test_the_page_begins_with_the_answer_and_has_every_figure(report: dict[str, Any]) -> None:
    page = report_page(report)
    assert "\n".join(answer(report)[:-1]) in page
    head, *rows = cells(page, "a restore")
    assert head == ["", "once", "a month", "a restore", "at least", "12 months", "time"]
    copies = [c for c in report["choices"] if c["possible"] and c["name"] in COPYING]
    assert {row[0]: row[5] for row in rows} == {choice["title"]: usd(choice["year_usd"]) for choice in copies}
    assert "It holds 4 blocks of 512 KiB, 1 of them all zeros." in " ".join(page.split())
    assert "blocks: 1 added, 2 overwritten, 0 removed." in " ".join(page.split())
    assert report["receipt_uri"] in page


def test_the_page_gives_the_reason_and_what_several_choices_share_once(report: dict[str, Any]) -> None:
    flowing = " ".join(report_page(report).split())
    assert f"{' '.join(report['recommendation']['reason'].split())}." in flowing
    native, timed = (next(c for c in report["choices"] if c["name"] == n) for n in ("copy_snapshot", "time_based_copy"))
    shared = native["notes"][0]
    assert shared in timed["notes"]
    assert flowing.count(f": {shared}") == 1
    for caveat in report["cheapest_keep"]["caveats"]:
        assert f"- {caveat}" in flowing


def test_the_chain_is_a_table_with_what_deleting_each_member_frees(report: dict[str, Any]) -> None:
    page = report_page(report)
    _, first, second = cells(page, "deleting it frees")
    older, newer = report["chain"]["snapshots"]
    assert (first[0], second[0]) == (older["snapshot_id"], newer["snapshot_id"])
    assert first[2:7] == ["0.0015", "", "", "", "0.0010"]
    assert second[2:9] == ["0.0020", "0.0005", "0.0010", "0", "0.0015", usd(newer["frees_usd_month"]), ""]
    assert "2 snapshots of vol-ffffffff store 0.0029 GiB" in page


def test_an_inspection_of_a_single_snapshot_shows_neither_delta_nor_chain(rig: Rig) -> None:
    report = inspected(rig, snapshot_id=rig.snapshot(BEFORE))
    page = report_page(report)
    for text in (page, "\n".join(answer(report))):
        assert "since" not in text.casefold()
        assert "frees" not in text
        assert "None" not in text
    assert "- no targets are named" in page


def test_a_finished_inspection_is_printed_in_short_in_full_or_as_json(
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
    assert capsys.readouterr().out == "\n".join(answer(report)) + "\n"
    assert cli.main(["status", "look", "--full"]) == 0
    assert capsys.readouterr().out == report_page(report)
    assert cli.main(["status", "look", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(report))
