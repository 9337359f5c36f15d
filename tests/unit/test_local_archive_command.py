"""The command that archives an image of this machine: what it makes is restored by jobs, and it says what it does."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blockferry.aws.sessions import Identity
from blockferry.cli.archive import is_local
from blockferry.cli.main import main
from blockferry.core.blocks import BLOCK_SIZE
from fakes import content
from rig import HOME, RECOVERY, ZEROS, Rig, hashes, running_rig

ARCHIVES = "archives-111122223333"

TAIL = b"tail" + bytes(BLOCK_SIZE - 4)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as made:
        made.aws.s3(HOME).create_bucket(Bucket=ARCHIVES)
        yield made


def sparse(folder: Path, blocks: dict[int, bytes], *, size: int) -> Path:
    path = folder / "disk.img"
    with path.open("wb") as handle:
        handle.truncate(size)
        for index, data in blocks.items():
            handle.seek(index * BLOCK_SIZE)
            handle.write(data)
    return path


def blockferry(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> tuple[Any, str]:
    assert main([*words, "--json"]) == status, capsys.readouterr().err
    told = capsys.readouterr()
    return (json.loads(told.out) if told.out else None), told.err


def test_what_the_command_archives_is_restored_bit_by_bit_a_chain_too(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = 700 * BLOCK_SIZE + 4
    image = sparse(tmp_path, {0: content(1), 3: content(0), 600: content(2), 700: b"tail"}, size=size)
    to = ("--to", f"s3://{ARCHIVES}/disks")
    first, told = blockferry(capsys, "archive", str(image), *to)
    assert told.splitlines()[-1].startswith(f"writing s3://{ARCHIVES}/disks/disk.img-")
    image = sparse(tmp_path, {0: content(1), 5: content(3), 700: b"tail"}, size=size)
    second, _ = blockferry(capsys, "archive", str(image), *to, "--base", first["manifest_uri"])
    assert (second["changed_blocks"], second["removed_blocks"]) == (1, 2)
    expected = {0: content(1), 5: content(3), 700: TAIL}
    receipt = rig.run(
        "restore",
        {
            "manifest_uri": second["manifest_uri"],
            "targets": [{"region": RECOVERY, "encrypted": False}],
        },
    )
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(expected)
    assert receipt["linear_checksum"] == second["linear_checksum"]
    # A hole of an encrypted snapshot would not read as zeros: they are written.
    encrypted = rig.run(
        "restore",
        {"manifest_uri": first["manifest_uri"], "targets": [{"region": RECOVERY, "encrypted": True}]},
    )
    held = rig.held(encrypted["targets"][0]["snapshot_id"])
    data = hashes({0: content(1), 600: content(2), 700: TAIL})
    assert held == {index: data.get(index, ZEROS) for index in range(2048)}


def test_a_dry_run_is_printed_and_nothing_is_stored(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = sparse(tmp_path, {0: content(1)}, size=2 * BLOCK_SIZE)
    assert main(["archive", str(image), "--to", f"s3://{ARCHIVES}/disks", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "DRY_RUN" in told
    assert "1 block, by the data of the image" in told
    assert "a month" in told
    assert "Contents" not in rig.aws.s3(HOME).list_objects_v2(Bucket=ARCHIVES)


def test_the_receipt_is_printed_for_people(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = sparse(tmp_path, {0: content(1)}, size=2 * BLOCK_SIZE)
    assert main(["archive", str(image), "--to", f"s3://{ARCHIVES}/disks", "--id", "mine", "--level", "1"]) == 0
    told = capsys.readouterr().out
    assert f"s3://{ARCHIVES}/disks/mine/manifest.json in {HOME}, completed, 1 block written" in " ".join(told.split())
    assert "holes of a file read as zeros" in " ".join(told.split())


class Full(io.StringIO):
    """Standard output on a disk that is full."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class Interrupting(io.StringIO):
    def flush(self) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("output", "why"),
    [(Full, "a disk of this machine is full (No space left on device)"), (Interrupting, "interrupted")],
)
def test_an_archive_or_snapshot_of_which_nothing_more_can_be_told_is_told_of_as_finished(
    rig: Rig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    output: type[io.StringIO],
    why: str,
) -> None:
    image = sparse(tmp_path, {0: content(1)}, size=2 * BLOCK_SIZE)
    monkeypatch.setattr(sys, "stdout", output())
    assert main(["archive", str(image), "--to", f"s3://{ARCHIVES}/disks", "--id", "mine"]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == f"blockferry: {why}; archive s3://{ARCHIVES}/disks/mine/manifest.json is finished"
    assert main(["upload", str(image)]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    (snapshot,) = rig.aws.ec2(Identity(HOME)).describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert told == f"blockferry: {why}; snapshot {snapshot['SnapshotId']} in {HOME} is completed"
    assert snapshot["State"] == "completed"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-", "--to", "s3://b-1/p"], "image standard input is a stream"),
        (["./none.img", "--to", "s3://archives-111122223333"], "image none.img: No such file or directory"),
        (["./none.img"], "name the bucket: --to s3://BUCKET/PREFIX"),
        (["./none.img", "--to", "bucket"], "write s3://BUCKET/PREFIX"),
        (["./none.img", "--to", "s3://b-1", "--name", "n", "--codec", "gzip"], "leave out --name, --codec"),
        (["snap-0123", "--to", "s3://b-1"], "'snap-0123' is not a snapshot id"),
    ],
)
def test_a_command_that_cannot_be_is_refused_with_exit_status_2(
    rig: Rig, capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    assert main(["archive", *words]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("subject", "local"),
    [
        ("snap-0123456789abcdef0", False),
        ("s3://bucket/disk.img", False),
        ("snap-012345", False),
        (None, False),
        ("./snap-0123456789abcdef0", True),
        ("disk.img", True),
        ("/dev/nvme1n1", True),
        ("-", True),
    ],
)
def test_a_source_is_taken_for_what_it_looks_like(subject: str | None, local: bool) -> None:
    assert is_local(subject) is local


def test_what_a_dead_command_has_left_is_discarded(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    s3 = rig.aws.s3(HOME)
    claim = {"execution": "e" * 64, "job_id": "local-e", "machine": "host, process 1"}
    s3.put_object(Bucket=ARCHIVES, Key="disks/mine/unfinished.json", Body=json.dumps(claim).encode())
    s3.put_object(Bucket=ARCHIVES, Key="disks/mine/segments/0000000000.zst", Body=b"x")
    assert main(["discard", f"s3://{ARCHIVES}/disks/mine/"]) == 0
    assert "is deleted, and nobody can finish it (begun by: host, process 1)" in capsys.readouterr().out
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=ARCHIVES)["Contents"]]
    assert keys == ["disks/mine/manifest.json"]
    refused = {"manifest_uri": f"s3://{ARCHIVES}/disks/mine/manifest.json", "targets": [{"region": RECOVERY}]}
    with pytest.raises(Exception, match="is no archive: it was given up before it was finished"):
        rig.run("restore", refused)
