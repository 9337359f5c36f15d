"""The inputs that command lines make, and what is refused before anything is started."""

from __future__ import annotations

import argparse
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from blockferry.cli import main as cli
from blockferry.cli.operate import JobState
from blockferry.cli.start import request_of
from blockferry.core.errors import InvalidRequest
from blockferry.operations import OPERATIONS
from memory_ec2 import MemoryEc2, refusal

NEW, OLD, THERE, ELSEWHERE = (f"snap-{n:017x}" for n in (2, 1, 3, 4))
KEY = "arn:aws:kms:eu-west-1:111122223333:key/11111111-2222-3333-4444-555555555555"


class Started:
    """Keeps what is started; every job fails at once, so that nothing has to be printed of a result."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, dict[str, Any], str]] = []
        self.waited: list[str] = []
        self.region = "us-east-1"

    def ec2(self, _region: str) -> MemoryEc2:
        """Nobody may look at snapshots before the job does."""
        made = MemoryEc2()
        made.errors["DescribeSnapshots"] = refusal("UnauthorizedOperation", "DescribeSnapshots")
        return made

    def start(self, operation: str, request: dict[str, Any], *, job_id: str) -> str:
        self.jobs.append((operation, request, job_id))
        return f"arn:p-{operation}:{job_id}"

    def with_own_cause(self, state: JobState) -> JobState:
        return state

    def wait(self, arn: str, **_: Any) -> JobState:
        self.waited.append(arn)
        return JobState("job", arn, "FAILED", {}, 0, error="InvalidRequest", cause="for the test")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    made = Started()
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr("blockferry.cli.console.Operator.of", lambda **_: made)
    return made


def sent(started: Started, *arguments: str) -> dict[str, Any]:
    """The input of the job that the command line starts."""
    cli.main(list(arguments))
    ((operation, request, _),) = started.jobs
    assert operation == arguments[0]
    return request


def test_sync_sends_base_and_parents(started: Started) -> None:
    to = ["--to", f"eu-west-1={THERE}", "--to", f"eu-west-2={ELSEWHERE}"]
    more = ["--from", "us-east-1", "--verify-parent", "--lineage", "golden", "--tag", "a=b", "--dry-run"]
    assert sent(started, "sync", NEW, "--base", OLD, *to, *more) == {
        "snapshot_id": NEW,
        "base_snapshot_id": OLD,
        "lineage": "golden",
        "targets": [
            {"region": "eu-west-1", "parent_snapshot_id": THERE, "tags": {"a": "b"}},
            {"region": "eu-west-2", "parent_snapshot_id": ELSEWHERE, "tags": {"a": "b"}},
        ],
        "source": {"region": "us-east-1"},
        "options": {"verify_parent": True, "dry_run": True},
    }


def test_sync_that_follows_needs_no_base_and_no_parents(started: Started) -> None:
    assert sent(started, "sync", NEW, "--follow", "--to", "eu-west-1", "--to", "eu-west-2", "--lineage", "golden") == {
        "snapshot_id": NEW,
        "follow": True,
        "lineage": "golden",
        "targets": [{"region": "eu-west-1"}, {"region": "eu-west-2"}],
    }


def test_fanout_of_an_image_sends_its_address(started: Started) -> None:
    more = ["--from", "us-west-2", "--size-gib", "8", "--codec", "zstd", "--holes", "zero_fill", "--kms-key-arn", KEY]
    assert sent(started, "fanout", "s3://images/a/disk.bin", "--to", "eu-west-1", *more) == {
        "image_uri": "s3://images/a/disk.bin",
        "image_codec": "zstd",
        "volume_size_gib": 8,
        "targets": [{"region": "eu-west-1", "kms_key_arn": KEY}],
        "source": {"region": "us-west-2"},
        "options": {"holes": "zero_fill"},
    }


def test_fanout_of_a_snapshot_sends_its_id(started: Started) -> None:
    assert sent(started, "fanout", NEW, "--to", "eu-west-1", "--lineage", "golden") == {
        "snapshot_id": NEW,
        "lineage": "golden",
        "targets": [{"region": "eu-west-1"}],
    }


def test_a_copy_can_begin_a_lineage_of_its_own_name(started: Started) -> None:
    assert sent(started, "copy", NEW, "--to", "eu-west-1", "--lineage", "golden")["lineage"] == "golden"


def test_inspect_sends_all_that_is_to_be_looked_at_and_waits(started: Started) -> None:
    more = ["--chain", OLD, NEW, "--chain", THERE, "--to", "eu-west-1", "--from", "us-east-1", "--count-zeros"]
    assert sent(started, "inspect", NEW, "--base", OLD, *more) == {
        "snapshot_id": NEW,
        "base_snapshot_id": OLD,
        "chain": [OLD, NEW, THERE],
        "targets": [{"region": "eu-west-1"}],
        "source": {"region": "us-east-1"},
        "options": {"count_zeros": True},
    }
    assert len(started.waited) == 1


def test_inspect_of_a_chain_alone_is_enough(started: Started) -> None:
    assert sent(started, "inspect", "--chain", OLD, NEW) == {"chain": [OLD, NEW]}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["copy", NEW, "--to", "eu-west-1"], f"copy-{NEW}"),
        (["sync", NEW, "--follow", "--to", "eu-west-1"], f"sync-{NEW}"),
        (["fanout", "s3://images/a b/disk v1.img.zst", "--to", "eu-west-1"], "fanout-a-b-disk-v1-img-zst"),
        (["fanout", f"s3://images/{'x' * 200}", "--to", "eu-west-1"], f"fanout-{'x' * 46}"),
        (["inspect", "--chain", OLD, NEW], f"inspect-{NEW}"),
    ],
)
def test_a_job_is_named_after_its_operation_what_it_reads_and_the_time(
    started: Started, arguments: list[str], expected: str
) -> None:
    sent(started, *arguments)
    job_id = started.jobs[0][2]
    assert re.fullmatch(re.escape(expected) + r"-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}", job_id)
    assert len(job_id) <= 80


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("sync", {"snapshot_id": NEW, "follow": True, "targets": [{"region": "eu-west-1"}]}),
        ("fanout", {"image_uri": "s3://images/disk.img", "snapshot_id": None, "targets": [{"region": "eu-west-1"}]}),
        ("inspect", {"snapshot_id": None, "chain": [OLD, NEW], "options": None}),
    ],
)
def test_the_whole_input_can_come_from_a_file_or_from_standard_input(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, request_: dict[str, Any]
) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(request_))
    cli.main([operation, "--input", str(path)])
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request_)))
    cli.main([operation, "--input", "-", "--name", "mine"])
    assert [request for _, request, _ in started.jobs] == [request_, request_]
    assert started.jobs[1][2] == "mine"


def test_a_dry_run_of_a_file_keeps_its_other_options_and_is_waited_for(started: Started, tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    options = {"verify_parent": True}
    path.write_text(
        json.dumps({"snapshot_id": NEW, "follow": True, "targets": [{"region": "eu-west-1"}], "options": options})
    )
    assert sent(started, "sync", "--input", str(path), "--dry-run")["options"] == {**options, "dry_run": True}
    assert len(started.waited) == 1


TO = ["--to", "eu-west-1"]
ON = ["--to", f"eu-west-1={THERE}"]

BAD = [
    (["sync"], "name the snapshot, --base SNAPSHOT and at least one --to REGION=PARENT"),
    (["sync", NEW, *ON], "name the earlier snapshot with --base, or let --follow find it"),
    (["sync", NEW, "--base", OLD, *TO], "--to eu-west-1: write REGION=PARENT, the parent being a snapshot"),
    (["sync", NEW, "--base", OLD, "--to", "eu-west-1="], "--to eu-west-1=: write REGION=PARENT"),
    (["sync", NEW, "--follow", *ON], f"--to eu-west-1={THERE}: --follow finds the parents by itself"),
    (["sync", NEW, "--follow", "--base", OLD, *TO], "--follow finds the base by itself"),
    (["sync", NEW, "--base", NEW, *ON], "nothing changes between a snapshot and itself"),
    (["sync", NEW, "--base", OLD, "--to", "eu-west-1=vol-1"], "targets[0].parent_snapshot_id: 'vol-1'"),
    (["sync", NEW, "--base", OLD, *ON, *ON], "targets[1] is identical to targets[0] (region, role and parent)"),
    (["sync", NEW, "--follow", *TO, "--lineage", "a b"], "lineage"),
    (["fanout", "s3://images/disk.img"], "at least one --to REGION"),
    (["fanout", "disk.img", *TO], "uploaded with: blockferry upload"),
    (["fanout", "s3://images", *TO], "is not the address of an object in S3"),
    (["fanout", NEW, *TO, "--size-gib", "4"], "volume_size_gib belongs to image_uri"),
    (["fanout", "s3://images/disk.img", *TO, "--size-gib", "0"], "volume_size_gib"),
    (["fanout", "s3://images/disk.img", *TO, "--lineage", "x"], "an image has none"),
    (["fanout", NEW, *TO, "--kms-key-arn", KEY, "--holes", "skip_zero"], "skip_zero is not safe"),
    (["fanout", NEW, *TO, "--to", "eu-west-2", "--kms-key-arn", KEY], "use it with a single --to"),
    (["inspect"], "name a snapshot, or a --chain"),
    (["inspect", "--chain", NEW], "chain"),
    (["inspect", NEW, "--base", NEW], "nothing changes between a snapshot and itself"),
    (
        ["sync", NEW, "--input", "x.json", "--base", OLD, "--follow"],
        "leave out the snapshot or image, --base, --follow",
    ),
    (["fanout", "--input", "x.json", "--size-gib", "0", "--tag", "a=b"], "leave out --size-gib, --tag"),
    (["inspect", "--input", "missing.json"], "missing.json: No such file"),
]


@pytest.mark.parametrize(("arguments", "expected"), BAD, ids=[text for _, text in BAD])
def test_what_cannot_be_used_starts_nothing(
    started: Started, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert cli.main(arguments) == 2
    assert expected in capsys.readouterr().err
    assert started.jobs == []


@pytest.mark.parametrize(
    ("operation", "text", "expected"),
    [
        ("sync", '{"snapshot_id": "x", "hello": 1}', "hello: is not a known key"),
        ("fanout", '{"options": []}', "options"),
        ("copy", "\xff", "is not JSON"),
    ],
)
def test_a_file_that_cannot_be_used_starts_nothing(
    started: Started, capsys: pytest.CaptureFixture[str], tmp_path: Path, operation: str, text: str, expected: str
) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(text.encode("latin-1"))
    assert cli.main([operation, "--input", str(path), "--dry-run"]) == 2
    assert expected in capsys.readouterr().err
    assert started.jobs == []


BESIDE_AN_INPUT = {"input", "name", "wait", "dry_run", "full"}
"""Options of a starting command that are no part of its input."""


def options_of(operation: str) -> dict[str, Any]:
    """The options of a command of its own, as they are when none is given."""
    parser = argparse.ArgumentParser()
    cli.command_named(operation).add_options(parser)
    return vars(parser.parse_args([]))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_option_that_makes_up_an_input_is_dropped_beside_a_file(operation: str, tmp_path: Path) -> None:
    options = options_of(operation)
    for name in options.keys() - BESIDE_AN_INPUT:
        given = argparse.Namespace(**{**options, "input": tmp_path / "none.json", name: "given"})
        with pytest.raises(InvalidRequest, match="leave out"):
            request_of(operation, given, lambda _: {})
