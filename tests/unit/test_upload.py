"""Uploads, held against what the EBS server of the local cloud itself holds."""

from __future__ import annotations

import errno
import importlib
import json
import os
import random
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from blockferry.aws import snapshots
from blockferry.aws.ebs.client import EbsDirect, NewSnapshot, StartedSnapshot
from blockferry.aws.snapshots import PROVED_TAG
from blockferry.cli import main as cli
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import (
    EncryptionDiffers,
    InvalidRequest,
    RequestRefused,
    RetryLater,
    SourceChanged,
    TargetFailed,
    UnreadableSource,
)
from blockferry.core.holes import HolePolicy
from blockferry.core.retry import RetryPolicy
from blockferry.core.tuning import Waits
from blockferry.local.estimate import estimate_upload
from blockferry.local.upload import upload_image
from botocore.exceptions import ClientError
from fakes import content
from rig import ACCOUNT, HOME, RECOVERY, Rig, hashes, running_rig

OTHER_ACCOUNT = "123456789012"


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


def image(folder: Path, data: bytes, *, size: int | None = None) -> Path:
    path = folder / "disk.img"
    path.write_bytes(data)
    with path.open("r+b") as handle:
        handle.truncate(size or len(data))
    return path


def sparse(folder: Path, blocks: Mapping[int, bytes], *, size: int) -> Path:
    """An image that has exactly these blocks as data, and else holes."""
    path = folder / "disk.img"
    with path.open("wb") as handle:
        handle.truncate(size)
        for index, data in blocks.items():
            handle.seek(index * BLOCK_SIZE)
            handle.write(data)
    return path


def test_an_image_becomes_a_completed_snapshot_of_its_size_without_its_zeros(rig: Rig, tmp_path: Path) -> None:
    noise = random.Random(5).randbytes(BLOCK_SIZE)
    path = image(tmp_path, noise + content(0) + content(3), size=3 * 2**30)
    made = upload_image(path, region=HOME, aws=rig.aws, description="disk", tags={"a": "b"})
    assert rig.held(made.snapshot_id) == hashes({0: noise, 2: content(3)})
    facts = rig.facts(made.snapshot_id)
    assert (facts["state"], facts["volume_size"], facts["description"]) == ("completed", 3, "disk")
    assert facts["tags"] == {
        "a": "b",
        "blockferry:holes": "zeros",
        "blockferry:execution": facts["tags"]["blockferry:execution"],
        "blockferry:lineage": "upload-" + facts["tags"]["blockferry:execution"][:16],
        "blockferry:linear-checksum": made.linear_checksum,
        "blockferry:proved-snapshot-id": made.snapshot_id,
    }
    assert made.linear_checksum == facts["linear_checksum"]
    assert (made.blocks, made.volume_size_gib) == (2, 3)


def test_an_unaligned_tail_is_kept(rig: Rig, tmp_path: Path) -> None:
    made = upload_image(image(tmp_path, content(1) + b"tail"), region=HOME, aws=rig.aws)
    assert rig.held(made.snapshot_id) == hashes({0: content(1), 1: b"tail" + bytes(BLOCK_SIZE - 4)})


def test_a_failed_upload_leaves_no_snapshot(rig: Rig, tmp_path: Path) -> None:
    denied = {"status": 403, "code": "AccessDeniedException", "reason": "UNAUTHORIZED_ACCOUNT"}
    rig.control("faults", {"operation": "PutSnapshotBlock", "action": "error", **denied})
    with pytest.raises(RequestRefused, match="PutSnapshotBlock block 0"):
        upload_image(image(tmp_path, content(1)), region=HOME, aws=rig.aws)
    assert rig.snapshots() == []


def test_a_volume_too_small_for_the_image_is_refused_before_anything_is_started(rig: Rig, tmp_path: Path) -> None:
    path = image(tmp_path, content(1), size=2**30 + 1)
    with pytest.raises(InvalidRequest, match="more than a volume of 1 GiB holds"):
        upload_image(path, region=HOME, aws=rig.aws, volume_size_gib=1)
    assert rig.snapshots() == []


@pytest.mark.parametrize("size_gib", [0, 65_537])
def test_a_size_that_no_volume_has_is_refused(rig: Rig, tmp_path: Path, size_gib: int) -> None:
    with pytest.raises(InvalidRequest, match="a volume has 1 to 65536 GiB"):
        upload_image(image(tmp_path, content(1)), region=HOME, aws=rig.aws, volume_size_gib=size_gib)
    assert rig.snapshots() == []


def test_a_reserved_tag_is_refused_before_anything_is_started(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="reserved prefix"):
        upload_image(image(tmp_path, content(1)), region=HOME, aws=rig.aws, tags={"blockferry:job-id": "x"})
    assert rig.snapshots() == []


@pytest.mark.parametrize("when", ["before it is started", "while its blocks are put"])
def test_a_file_that_changes_meanwhile_leaves_no_snapshot(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path = image(tmp_path, content(1) + content(2))
    before = {"before it is started": "encrypted_by_default", "while its blocks are put": "move"}[when]
    module = "blockferry.local.upload.snapshots" if before == "encrypted_by_default" else "blockferry.local.upload"
    real = getattr(
        importlib.import_module("blockferry.local.upload" if before == "move" else "blockferry.aws.snapshots"), before
    )

    def write_first(*arguments: Any, **more: Any) -> Any:
        done = real(*arguments, **more)
        with path.open("ab") as handle:
            handle.write(b"more")
        return done

    monkeypatch.setattr(f"{module}.{before}", write_first)
    with pytest.raises(SourceChanged, match=rf"image {path} changed while it was read \(its size from"):
        upload_image(path, region=HOME, aws=rig.aws)
    assert rig.snapshots() == []
    assert rig.calls().get("StartSnapshot", 0) == (1 if before == "move" else 0)
    assert rig.calls().get("CompleteSnapshot", 0) == 0


def failing(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """The disk of the image cannot be read any more after so many bytes."""
    real = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        if offset >= after:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, length, offset)

    monkeypatch.setattr("blockferry.sources.device.os.pread", pread)


def test_an_image_that_cannot_be_read_any_more_leaves_no_snapshot_and_is_named(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image(tmp_path, content(1) + content(2) + content(3))
    failing(monkeypatch, after=BLOCK_SIZE)
    assert cli.main(["upload", str(path), "--format", "raw"]) == 1
    told = capsys.readouterr().err
    assert f"image {path}: block " in told
    assert "Input/output error" in told
    assert f"the unfinished snapshot {only_started(told)} is deleted" in told
    assert rig.snapshots() == []


def test_an_image_whose_ends_cannot_be_read_is_refused_before_anything_is_started(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image(tmp_path, content(1) + content(2))
    failing(monkeypatch, after=BLOCK_SIZE)
    with pytest.raises(UnreadableSource, match=f"image {path}: its end .*Input/output error"):
        upload_image(path, region=HOME, aws=rig.aws)
    assert rig.calls().get("StartSnapshot", 0) == 0


def test_a_file_that_becomes_shorter_meanwhile_is_told_as_one_that_changed(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image(tmp_path, content(1) + content(2))
    start = EbsDirect.start_snapshot

    def cut(self: EbsDirect, new: NewSnapshot) -> StartedSnapshot:
        os.truncate(path, 100)
        return start(self, new)

    monkeypatch.setattr(EbsDirect, "start_snapshot", cut)
    with pytest.raises(SourceChanged, match=rf"image {path} changed while it was read \(its size from"):
        upload_image(path, region=HOME, aws=rig.aws)
    assert rig.snapshots() == []


def test_a_file_system_that_stops_telling_extents_ends_the_upload_and_leaves_no_snapshot(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image(tmp_path, content(1) + content(2))
    asked: list[int] = []

    def ioctl(descriptor: int, request: int, buffer: bytearray) -> int:
        asked.append(request)
        if len(asked) > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return 0

    monkeypatch.setattr("blockferry.sources.extents.fcntl.ioctl", ioctl)
    assert cli.main(["upload", str(path), "--format", "raw", "--holes", "preserve"]) == 1
    told = capsys.readouterr().err
    assert f"image {path}: its extents" in told
    assert "Input/output error" in told
    assert rig.snapshots() == []


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_puts_an_image_on_top_of_a_parent(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = rig.snapshot({0: content(1)}, size_gib=2, region=RECOVERY)
    path = image(tmp_path, content(1) + content(2))
    command = ["upload", str(path), "--region", RECOVERY, "--parent", parent, "--tag", "a=b", "--description", "disk"]
    assert cli.main([*command, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert rig.held(made["snapshot_id"]) == hashes({0: content(1), 1: content(2)})
    assert rig.facts(made["snapshot_id"])["tags"]["a"] == "b"
    assert (made["blocks"], made["parent_snapshot_id"], made["volume_size_gib"]) == (1, parent, 2)
    assert cli.main(command) == 0
    assert f"in {RECOVERY}, 2 GiB: 1 block written on top of {parent}" in capsys.readouterr().out


def test_the_command_refuses_standard_input_with_exit_status_2(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["upload", "-"]) == 2
    assert "image standard input is a stream" in capsys.readouterr().err
    assert rig.snapshots() == []


def test_an_interrupted_command_leaves_no_snapshot_and_says_so(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("blockferry.local.upload.move", interrupt)
    assert cli.main(["upload", str(image(tmp_path, content(1)))]) == 1
    told = capsys.readouterr().err
    assert f"interrupted; the unfinished snapshot {only_started(told)} is deleted" in told
    assert rig.snapshots() == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_an_upload_with_nothing_left_and_no_further_one_ends_the_clean_up(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    deleted = snapshots.delete

    def struck(*_: object, **__: object) -> None:
        signal.raise_signal(getattr(signal, name))

    def struck_again(*given: Any, **more: Any) -> str | None:
        struck()
        why = deleted(*given, **more)
        struck()
        return why

    monkeypatch.setattr("blockferry.local.upload.move", struck)
    monkeypatch.setattr("blockferry.aws.snapshots.delete", struck_again)
    assert cli.main(["upload", str(image(tmp_path, content(1)))]) == 1
    assert rig.snapshots() == []
    told = capfd.readouterr().err
    assert f"blockferry: interrupted by {name}; the unfinished snapshot {only_started(told)} is deleted\n" in told
    assert told.count(f"blockferry: {name}: clearing away what was started, which takes a moment; ") == 2


def test_a_signal_in_the_clean_up_after_an_error_leaves_the_error_the_message(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    deleted = snapshots.delete

    def struck(*given: Any, **more: Any) -> str | None:
        signal.raise_signal(signal.SIGTERM)
        return deleted(*given, **more)

    rig.control("faults", {"operation": "PutSnapshotBlock", "action": "error", "status": 400, "code": "Validation"})
    monkeypatch.setattr("blockferry.aws.snapshots.delete", struck)
    assert cli.main(["upload", str(image(tmp_path, content(1)))]) == 1
    assert rig.snapshots() == []
    told = capfd.readouterr().err.splitlines()[-1]
    assert told.startswith("blockferry: PutSnapshotBlock block 0 of ")
    assert told.endswith(" is deleted")


def only_started(told: str) -> str:
    """The snapshot, with its Region, that the command said it writes."""
    (line,) = [line for line in told.splitlines() if line.startswith("writing ")]
    return line.removeprefix("writing ")


# -- zeros and encryption ----------------------------------------------------------------------------------------------


def test_where_the_account_encrypts_an_image_is_written_whole_and_its_holes_only_stay_if_asked_for(
    rig: Rig, tmp_path: Path
) -> None:
    rig.client("ec2").enable_ebs_encryption_by_default()
    path = sparse(tmp_path, {0: content(1), 5: content(0)}, size=7 * BLOCK_SIZE)
    made = upload_image(path, region=HOME, aws=rig.aws)
    assert rig.held(made.snapshot_id) == hashes({0: content(1)} | {index: content(0) for index in range(1, 7)})
    assert rig.facts(made.snapshot_id)["kms_key_arn"]
    assert (made.blocks, made.holes, made.holes_taken_for, made.holes_stand_for) == (7, "preserve", "zeros", "noise")
    asked = upload_image(path, region=HOME, aws=rig.aws, holes=HolePolicy.PRESERVE)
    assert rig.held(asked.snapshot_id) == hashes({0: content(1), 5: content(0)})
    assert (asked.holes_taken_for, asked.holes_decided_by, asked.warnings) == ("noise", "request", ())


def test_zeros_are_written_where_it_cannot_be_found_out_whether_the_account_encrypts(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockferry.aws.snapshots.encrypted_by_default", lambda _ec2: None)
    made = upload_image(sparse(tmp_path, {1: content(0)}, size=3 * BLOCK_SIZE), region=HOME, aws=rig.aws)
    assert rig.held(made.snapshot_id) == hashes(dict.fromkeys(range(3), content(0)))


# -- on top of a parent ------------------------------------------------------------------------------------------------

PARENT = {0: content(1), 1: content(2), 2: content(3), 3: content(0), 4: content(0), 1500: content(4)}
"""Kept, changed, a hole in the image, zeros that the image has, zeros that are a hole in the image, behind its end."""

IMAGE = {0: content(1), 1: content(9), 3: content(0), 7: content(0), 8: content(8)}
"""Block 7 is zeros, and 8 is data, where the parent has holes."""

IMAGE_SIZE = 20 * BLOCK_SIZE

PUT = {1: content(9), 2: content(0), 8: content(8), 1500: content(0)}


def test_only_what_differs_from_the_parent_is_put(rig: Rig, tmp_path: Path) -> None:
    parent = rig.snapshot(PARENT)
    rig.control("stats/reset", {})
    path = sparse(tmp_path, IMAGE, size=IMAGE_SIZE)
    made = upload_image(path, region=HOME, aws=rig.aws, parent_snapshot_id=parent)
    assert rig.held(made.snapshot_id) == hashes({**PARENT, **PUT})
    assert rig.image_of(made.snapshot_id, size_gib=1) == hashes({0: content(1), 1: content(9), 8: content(8)})
    facts = rig.facts(made.snapshot_id)
    assert (facts["state"], facts["parent_id"], facts["volume_size"]) == ("completed", parent, 1)
    assert made.blocks == len(PUT) == rig.calls()["PutSnapshotBlock"]
    assert rig.calls()["GetSnapshotBlock"] == len(PARENT)
    assert made.linear_checksum == facts["written_linear_checksum"]
    assert made.parent_snapshot_id == parent


def test_an_image_that_equals_its_parent_puts_nothing(rig: Rig, tmp_path: Path) -> None:
    parent = rig.snapshot({0: content(1), 9: content(2)})
    rig.control("stats/reset", {})
    path = sparse(tmp_path, {0: content(1), 9: content(2)}, size=10 * BLOCK_SIZE)
    made = upload_image(path, region=HOME, aws=rig.aws, parent_snapshot_id=parent)
    assert "PutSnapshotBlock" not in rig.calls()
    assert made.blocks == 0
    assert rig.held(made.snapshot_id) == rig.held(parent)
    assert rig.state(made.snapshot_id) == "completed"


def test_an_unaligned_tail_over_a_parent_is_filled_up_with_zeros(rig: Rig, tmp_path: Path) -> None:
    parent = rig.snapshot({0: content(1), 1: content(2)})
    path = image(tmp_path, content(1) + b"tail")
    made = upload_image(path, region=HOME, aws=rig.aws, parent_snapshot_id=parent)
    assert rig.held(made.snapshot_id) == hashes({0: content(1), 1: b"tail" + bytes(BLOCK_SIZE - 4)})


@pytest.mark.parametrize(
    ("image_gib", "parent_gib", "asked_gib", "expected"),
    [(1, 2, None, 2), (3, 2, None, 3), (1, 2, 4, 4), (66, 1, None, 66)],
)
def test_the_volume_is_as_large_as_image_parent_and_wish(
    rig: Rig, tmp_path: Path, image_gib: int, parent_gib: int, asked_gib: int | None, expected: int
) -> None:
    last = parent_gib * 2048 - 1
    parent = rig.snapshot({0: content(1), last: content(2)}, size_gib=parent_gib)
    end = image_gib * 2048 - 1
    path = sparse(tmp_path, {0: content(1), end: content(5)}, size=image_gib * 2**30)
    made = upload_image(path, region=HOME, aws=rig.aws, parent_snapshot_id=parent, volume_size_gib=asked_gib)
    assert made.volume_size_gib == expected
    assert rig.image_of(made.snapshot_id, size_gib=expected) == hashes({0: content(1), end: content(5)})


@pytest.mark.parametrize(
    ("holes", "filled", "left"),
    [(None, range(20), "noise"), ("preserve", [7], "noise"), ("zero_fill", range(2048), "none")],
)
def test_on_an_encrypted_parent_zeros_of_the_image_are_written_over_holes_and_so_are_its_holes_unless_asked_otherwise(
    rig: Rig, tmp_path: Path, holes: str | None, filled: Iterable[int], left: str
) -> None:
    parent = rig.snapshot(PARENT, Encrypted=True)
    path = sparse(tmp_path, IMAGE, size=IMAGE_SIZE)
    asked = None if holes is None else HolePolicy(holes)
    made = upload_image(path, region=HOME, aws=rig.aws, parent_snapshot_id=parent, holes=asked)
    assert rig.held(made.snapshot_id) == hashes({**dict.fromkeys(filled, content(0)), **PARENT, **PUT})
    assert rig.facts(made.snapshot_id)["tags"]["blockferry:holes"] == made.holes_stand_for == left
    assert rig.facts(made.snapshot_id)["kms_key_arn"] == rig.facts(parent)["kms_key_arn"]


def test_a_failed_upload_on_a_parent_leaves_the_parent_only(rig: Rig, tmp_path: Path) -> None:
    parent = rig.snapshot(PARENT)
    rig.control(
        "faults", {"operation": "GetSnapshotBlock", "action": "error", "status": 403, "code": "AccessDeniedException"}
    )
    path = sparse(tmp_path, IMAGE, size=IMAGE_SIZE)
    with pytest.raises(RequestRefused, match="GetSnapshotBlock block"):
        upload_image(path, region=HOME, aws=rig.aws, parent_snapshot_id=parent)
    assert [(s["snapshot_id"], s["state"]) for s in rig.snapshots()] == [(parent, "completed")]


def refused(rig: Rig, folder: Path, parent: str, **more: Any) -> str:
    before = rig.snapshots()
    path = image(folder, content(1))
    with pytest.raises(InvalidRequest) as caught:
        upload_image(path, region=HOME, aws=rig.aws, clock=rig.clock, parent_snapshot_id=parent, **more)
    assert rig.snapshots() == before
    return str(caught.value)


def test_an_unknown_parent_is_refused(rig: Rig, tmp_path: Path) -> None:
    elsewhere = rig.snapshot({}, region=RECOVERY)
    for parent in (elsewhere, "snap-00000000000000001"):
        assert f"parent {parent} in {HOME}: EC2 does not know it" in refused(rig, tmp_path, parent)


def test_a_parent_of_another_account_is_refused(rig: Rig, tmp_path: Path) -> None:
    foreign = rig.snapshot({}, account=OTHER_ACCOUNT)
    rig.client("ec2", HOME, OTHER_ACCOUNT).modify_snapshot_attribute(
        SnapshotId=foreign, Attribute="createVolumePermission", OperationType="add", UserIds=[ACCOUNT]
    )
    assert f"belongs to account {OTHER_ACCOUNT}" in refused(rig, tmp_path, foreign)


def test_a_pending_parent_is_refused(rig: Rig, tmp_path: Path) -> None:
    pending = rig.client("ebs").start_snapshot(VolumeSize=1)["SnapshotId"]
    assert f"{pending} in {HOME} is pending" in refused(rig, tmp_path, pending)


def test_an_archived_parent_is_refused_with_the_command_that_restores_it(rig: Rig, tmp_path: Path) -> None:
    parent = rig.snapshot({})
    rig.client("ec2").modify_snapshot_tier(SnapshotId=parent, StorageTier="archive")
    rig.control("clock", {"advance": 60})
    assert "restore-snapshot-tier" in refused(rig, tmp_path, parent)


def test_a_parent_larger_than_the_size_asked_for_is_refused(rig: Rig, tmp_path: Path) -> None:
    parent = rig.snapshot({}, size_gib=3)
    text = refused(rig, tmp_path, parent, volume_size_gib=2)
    assert "has 3 GiB, more than the 2 GiB that were asked for" in text


def test_an_unencrypted_parent_is_refused_where_the_account_encrypts(rig: Rig, tmp_path: Path) -> None:
    parent = rig.snapshot({})
    rig.client("ec2").enable_ebs_encryption_by_default()
    assert "EBS refuses a snapshot on top of an unencrypted parent" in refused(rig, tmp_path, parent)


def test_leaving_zeros_out_is_refused_where_the_snapshot_may_be_encrypted(rig: Rig, tmp_path: Path) -> None:
    parent = rig.snapshot({}, Encrypted=True)
    assert "--holes skip_zero is not safe" in refused(rig, tmp_path, parent, holes=HolePolicy.SKIP_ZERO)


def test_more_tags_than_ec2_keeps_with_those_of_the_upload_are_refused(rig: Rig, tmp_path: Path) -> None:
    tags = {f"tag{number}": "" for number in range(46)}
    with pytest.raises(InvalidRequest, match="46 and 5 of the upload"):
        upload_image(image(tmp_path, content(1)), region=HOME, aws=rig.aws, tags=tags)
    assert rig.snapshots() == []


def test_a_snapshot_whose_last_tags_are_refused_is_kept_and_says_what_that_means(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}, "CreateTags")

    monkeypatch.setattr("blockferry.aws.snapshots.add_tags", denied)
    assert cli.main(["upload", str(image(tmp_path, content(1))), "--json"]) == 0
    answer = capsys.readouterr()
    made = json.loads(answer.out)
    assert rig.state(made["snapshot_id"]) == "completed"
    assert [warning["code"] for warning in made["warnings"]] == ["not_marked_as_proved"]
    assert f"warning: {made['snapshot_id']} is good" in answer.err


# -- the dry run -------------------------------------------------------------------------------------------------------


def test_a_dry_run_prices_every_choice_and_starts_nothing(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.client("ec2").enable_ebs_encryption_by_default()
    path = sparse(tmp_path, {0: content(1), 5: content(0)}, size=7 * BLOCK_SIZE)
    assert cli.main(["upload", str(path), "--dry-run", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)
    choices = [(c["holes"], c["blocks_written"], c["possible"], c["chosen"]) for c in estimate["holes_choices"]]
    assert choices == [
        (None, 7, True, True),
        ("preserve", 2, True, False),
        ("zero_fill", 2048, True, False),
        ("skip_zero", 1, False, False),
    ]
    assert (estimate["image_blocks"], estimate["data_blocks"], estimate["encrypted"]) == (7, 1, True)
    filled = estimate["holes_choices"][2]
    assert filled["usd_once"] == pytest.approx(2048 * 0.000006)
    assert filled["usd_a_month"] == pytest.approx(0.05)
    assert cli.main(["upload", str(path), "--dry-run", "--holes", "preserve"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    text = " ".join(shown.split())
    assert "no --holes: 7 blocks, $0.000042 once" in text
    assert "preserve: 2 blocks, $0.000012 once and $0.000049 a month to keep (chosen)" in text
    assert "skip_zero: not possible here" in text
    assert "cost $0.000012; prices of us-east-1, 2026-08-01; included: EBS requests; not included: " in text
    assert rig.snapshots() == []
    assert "StartSnapshot" not in rig.calls()


def test_a_dry_run_on_a_parent_lists_it_and_reads_nothing_of_it(rig: Rig, tmp_path: Path) -> None:
    parent = rig.snapshot(PARENT)
    rig.control("stats/reset", {})
    path = sparse(tmp_path, IMAGE, size=IMAGE_SIZE)
    estimate = estimate_upload(path, region=HOME, aws=rig.aws, parent_snapshot_id=parent)
    assert [c["blocks_written"] for c in estimate["holes_choices"]] == [7, 8, 2048, 7]
    assert {c["blocks_written_from"] for c in estimate["holes_choices"]} == {"the image and its parent: at most"}
    assert "GetSnapshotBlock" not in rig.calls()
    made = upload_image(path, region=HOME, aws=rig.aws, parent_snapshot_id=parent)
    assert made.blocks <= 7


# -- a completion whose answer is lost ---------------------------------------------------------------------------------


def lose_answers_to_the_completion(rig: Rig, *, times: int | None) -> None:
    rig.control("config", {"complete_again": "refuse"})
    rig.control("faults", {"operation": "CompleteSnapshot", "action": "close_after", "times": times})


def test_an_upload_whose_completion_answers_the_second_time_only_succeeds(rig: Rig, tmp_path: Path) -> None:
    lose_answers_to_the_completion(rig, times=1)
    made = upload_image(image(tmp_path, content(1)), region=HOME, aws=rig.aws)
    assert rig.state(made.snapshot_id) == "completed"
    assert rig.held(made.snapshot_id) == hashes({0: content(1)})


def test_a_snapshot_that_ebs_may_have_sealed_is_kept_and_named(rig: Rig, tmp_path: Path) -> None:
    rig.control("config", {"seal_seconds": 5.0})
    lose_answers_to_the_completion(rig, times=None)
    impatient = Waits(requests=RetryPolicy(max_attempts=1))
    with pytest.raises(RetryLater) as caught:
        upload_image(image(tmp_path, content(1)), region=HOME, aws=rig.aws, waits=impatient)
    (made,) = rig.snapshots()
    (note,) = caught.value.__notes__
    assert f"{made['snapshot_id']} in {HOME} is kept: EBS was asked to seal it" in note
    rig.control("clock", {"advance": 6})
    assert rig.state(made["snapshot_id"]) == "completed"


def test_an_interruption_while_ebs_is_asked_to_seal_keeps_the_snapshot(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed = EbsDirect.complete_snapshot

    def interrupted(self: EbsDirect, snapshot_id: str, **arguments: Any) -> None:
        sealed(self, snapshot_id, **arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(EbsDirect, "complete_snapshot", interrupted)
    assert cli.main(["upload", str(image(tmp_path, content(1)))]) == 1
    (made,) = rig.snapshots()
    assert made["state"] == "completed"
    assert f"interrupted; {made['snapshot_id']} in {HOME} is kept" in capsys.readouterr().err


def test_a_completion_that_ebs_refuses_leaves_no_snapshot(rig: Rig, tmp_path: Path) -> None:
    rig.control(
        "faults", {"operation": "CompleteSnapshot", "action": "error", "status": 400, "code": "ValidationException"}
    )
    with pytest.raises(TargetFailed, match="it was not completed: CompleteSnapshot"):
        upload_image(image(tmp_path, content(1)), region=HOME, aws=rig.aws)
    assert rig.snapshots() == []


def test_a_failure_is_not_hidden_by_a_snapshot_that_cannot_be_deleted(rig: Rig, tmp_path: Path) -> None:
    rig.control(
        "faults",
        [
            {"operation": "PutSnapshotBlock", "action": "error", "status": 400, "code": "ValidationException"},
            {"operation": "DeleteSnapshot", "action": "error", "status": 403, "code": "UnauthorizedOperation"},
        ],
    )
    with pytest.raises(RequestRefused, match="PutSnapshotBlock") as caught:
        upload_image(image(tmp_path, content(1)), region=HOME, aws=rig.aws)
    assert f"{rig.snapshots()[0]['snapshot_id']} in {HOME} could not be deleted" in caught.value.__notes__[0]


def test_an_upload_that_came_out_encrypted_is_not_left_without_its_zeros(rig: Rig, tmp_path: Path) -> None:
    rig.control("faults", {"operation": "StartSnapshot", "action": "other_key"})
    with pytest.raises(EncryptionDiffers, match="came out encrypted"):
        upload_image(image(tmp_path, content(1) + content(0)), region=HOME, aws=rig.aws)
    assert rig.snapshots() == []


def test_an_upload_that_only_ec2_shows_as_encrypted_is_not_sealed_without_its_zeros(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = EbsDirect.start_snapshot

    def silent_about_its_key(self: EbsDirect, new: NewSnapshot) -> StartedSnapshot:
        return StartedSnapshot(start(self, new).snapshot_id, None)

    monkeypatch.setattr(EbsDirect, "start_snapshot", silent_about_its_key)
    rig.control("faults", {"operation": "StartSnapshot", "action": "other_key"})
    with pytest.raises(EncryptionDiffers, match="encrypted") as caught:
        upload_image(image(tmp_path, content(1) + content(0)), region=HOME, aws=rig.aws)
    (note,) = caught.value.__notes__
    assert re.fullmatch(rf"the unfinished snapshot snap-\w+ in {HOME} is deleted", note)
    assert rig.snapshots() == []


def test_a_snapshot_that_ebs_finds_fault_with_after_it_was_proved_is_kept_and_named(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = EbsDirect.complete_snapshot

    def broken(self: EbsDirect, snapshot_id: str, **arguments: Any) -> None:
        rig.control("config", {"seal_seconds": 60.0})
        sealed(self, snapshot_id, **arguments)
        registry = rig.server.service.registry
        registry.fail(registry.snapshots[snapshot_id], "planted")

    monkeypatch.setattr(EbsDirect, "complete_snapshot", broken)
    with pytest.raises(TargetFailed, match=r"is in state error.*planted") as caught:
        upload_image(image(tmp_path, content(1)), region=HOME, aws=rig.aws)
    (left,) = rig.snapshots()
    assert caught.value.__notes__[0].startswith(
        f"{left['snapshot_id']} in {HOME} is kept: EBS took its checksum, as its tag {PROVED_TAG} says; it is in state"
    )


def test_a_parent_that_shows_as_pending_again_can_be_built_upon(rig: Rig, tmp_path: Path) -> None:
    parent = rig.snapshot({0: content(1)})
    rig.control("config", {"describe_stale_seconds": 60.0})
    rig.client("ec2").describe_snapshots(SnapshotIds=[parent])
    path = image(tmp_path, content(1) + content(2))
    assert upload_image(path, region=HOME, aws=rig.aws, clock=rig.clock, parent_snapshot_id=parent).blocks == 1
