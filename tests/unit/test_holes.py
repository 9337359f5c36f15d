"""What a volume reads where somebody wrote zeros: of images and snapshots, through every way into an encrypted one."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blockferry.aws.snapshots import HOLES_TAG, PROVED_TAG, add_tags, describe
from blockferry.cli.render import receipt_table
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import InvalidRequest, TransferFailed
from blockferry.core.holes import HolePolicy
from blockferry.jobs.folder import REPORT
from blockferry.local.upload import upload_image
from blockferry.sources.meaning import meaning_of
from blockferry.transfer.sentences import choice_line, holes_line
from fakes import content
from rig import ACCOUNT, HOME, NOISE, RECOVERY, THIRD, ZEROS, Rig, hashes, running_rig

IMAGE_BYTES = 128 * 2**20


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as made:
        yield made


def run(command: str, *arguments: str) -> str:
    found = shutil.which(command) or shutil.which(command, path="/sbin:/usr/sbin")
    assert found is not None, f"{command} is not installed"
    return subprocess.run([found, *arguments], capture_output=True, text=True, check=True).stdout


def ext4(folder: Path, *, discard: bool = True) -> Path:
    """A file system on a sparse file. What mkfs relies on to be zero are real holes, since it discards first, or else
    unwritten extents (fallocate with ZERO_RANGE)."""
    path = folder / "ext4.img"
    with path.open("wb") as handle:
        handle.truncate(IMAGE_BYTES)
    more = "lazy_itable_init=0,lazy_journal_init=0," + ("discard" if discard else "nodiscard")
    run("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", more, str(path))
    return path


def believed_zero(image: Path) -> set[int]:
    """Blocks of 512 KiB with inode tables or journal in them: the file system relies on every byte there."""
    found = re.findall(r"Inode table at (\d+)-(\d+)", run("dumpe2fs", str(image)))
    journal = run("debugfs", "-R", "stat <8>", str(image))
    found += re.findall(r"\(\d+-\d+\):(\d+)-(\d+)", journal)
    assert len(found) > 1
    per_block = BLOCK_SIZE // 4096
    return {b for first, last in found for b in range(int(first) // per_block, int(last) // per_block + 1)}


def image_reads(image: Path) -> list[str]:
    with image.open("rb") as handle:
        return [*hashes(dict(enumerate(iter(lambda: handle.read(BLOCK_SIZE), b"")))).values()]


@pytest.mark.parametrize("discard", [True, False], ids=["real holes", "unwritten extents"])
def test_an_ext4_image_uploaded_encrypted_reads_as_the_image_where_the_file_system_relies_on_zeros(
    rig: Rig, tmp_path: Path, discard: bool
) -> None:
    rig.client("ec2").enable_ebs_encryption_by_default()
    image = ext4(tmp_path, discard=discard)
    made = upload_image(image, region=HOME, aws=rig.aws)
    assert rig.facts(made.snapshot_id)["encrypted"]
    reads, wanted = rig.reads(made.snapshot_id), image_reads(image)
    lost = {index for index in believed_zero(image) if reads[index] != wanted[index]}
    assert lost == set()
    assert reads[: len(wanted)] == wanted


def test_an_uploaded_snapshot_copied_into_an_encrypted_one_reads_as_the_image(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(content(1) + content(0) + content(3))
    uploaded = upload_image(path, region=HOME, aws=rig.aws)
    assert rig.reads(uploaded.snapshot_id)[:3] == image_reads(path)
    receipt = rig.copy(
        {"snapshot_id": uploaded.snapshot_id, "targets": [{"region": RECOVERY, "encrypted": True}], "options": {}}
    )
    assert rig.reads(receipt["targets"][0]["snapshot_id"])[:3] == image_reads(path)


def test_an_ext4_image_whose_holes_are_to_stay_keeps_the_zeros_that_were_written_without_data(
    rig: Rig, tmp_path: Path
) -> None:
    rig.client("ec2").enable_ebs_encryption_by_default()
    image = ext4(tmp_path, discard=False)
    made = upload_image(image, region=HOME, aws=rig.aws, holes=HolePolicy.PRESERVE)
    reads, wanted = rig.reads(made.snapshot_id), image_reads(image)
    assert {index for index in believed_zero(image) if reads[index] != wanted[index]} == set()
    # Nobody wrote in the free space, which is most of it.
    assert reads[: len(wanted)].count(NOISE) > len(wanted) // 2


def test_where_the_file_system_cannot_tell_all_of_the_image_counts_as_written_and_the_outcome_says_so(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.ioctl", cannot)
    rig.client("ec2").enable_ebs_encryption_by_default()
    path = tmp_path / "disk.img"
    path.write_bytes(content(1))
    with path.open("r+b") as handle:
        handle.truncate(4 * BLOCK_SIZE)
    made = upload_image(path, region=HOME, aws=rig.aws, holes=HolePolicy.PRESERVE)
    assert rig.reads(made.snapshot_id)[:4] == image_reads(path)
    assert (made.holes_taken_for, made.holes_stand_for) == ("zeros", "noise")
    assert [warning["code"] for warning in made.warnings] == ["unwritten_extents_unknown"]


def test_a_volume_reads_what_the_tests_say_that_it_reads(rig: Rig) -> None:
    """The reader of these tests against the volumes of the local cloud."""
    for source in (rig.snapshot({0: content(1)}), rig.snapshot({0: content(1)}, Encrypted=True)):
        made = rig.client("ec2").create_volume(SnapshotId=source, AvailabilityZone=f"{HOME}a")["VolumeId"]
        seen = [hashlib.sha256(rig.get(f"volumes/{made}/blocks/{index}")).hexdigest() for index in (0, 1, 2047)]
        told = reads_at(rig, source, 0, 1, 2047)
        assert seen[0] == told[0]
        assert (seen[1] == ZEROS, seen[2] == ZEROS) == (told[1] == ZEROS, told[2] == ZEROS)
        assert seen[1] == seen[2] == ZEROS or ZEROS not in seen


# -- full copies -------------------------------------------------------------------------------------------------------

BLOCKS = {0: content(1), 1: content(0), 700: content(3)}
ENCRYPTED = {"region": RECOVERY, "encrypted": True}
PLAIN = {"region": THIRD, "encrypted": False}


def copy_of(snapshot: str, *targets: dict[str, Any], holes: str | None = None) -> dict[str, Any]:
    return {"snapshot_id": snapshot, "targets": list(targets or [ENCRYPTED]), "options": {"holes": holes}}


def made_of(receipt: dict[str, Any]) -> list[str]:
    return [target["snapshot_id"] for target in receipt["targets"]]


def refused(rig: Rig, wanted: dict[str, Any], *, operation: str = "copy") -> str:
    before = rig.snapshots()
    with pytest.raises(InvalidRequest) as caught:
        rig.plan(wanted, operation=operation)
    assert rig.snapshots() == before
    return str(caught.value)


def tagged(rig: Rig, blocks: dict[int, bytes], meaning: str | None, *, own: bool = True, **more: Any) -> str:
    """A snapshot that says what its holes stand for, in tags of its own or in inherited ones."""
    made = rig.snapshot(blocks, **more)
    tags = {} if meaning is None else {HOLES_TAG: meaning, PROVED_TAG: made if own else "snap-00000000000000001"}
    add_tags(rig.client("ec2", more.get("region", HOME)), made, tags) if tags else None
    return made


def of_volume(rig: Rig, blocks: dict[int, bytes], tags: dict[str, str] | None = None, **more: Any) -> str:
    """A snapshot that EBS has made of a volume."""
    volume = f"vol-0{len(rig.snapshots()):016x}"
    rig.control("volumes", {"volume_id": volume, "owner": ACCOUNT, "region": HOME, "size": 1, **more})
    for index, data in blocks.items():
        rig.post(f"volumes/{volume}/blocks/{index}", data)
    made = str(rig.client("ec2").create_snapshot(VolumeId=volume)["SnapshotId"])
    if tags:
        add_tags(rig.client("ec2"), made, tags)
    return made


def reads_at(rig: Rig, snapshot: str, *indices: int) -> list[str]:
    reads = rig.reads(snapshot)
    return [reads[index] for index in indices]


def test_a_copy_of_a_snapshot_of_a_volume_keeps_its_holes_as_ec2_does(rig: Rig) -> None:
    source = of_volume(rig, BLOCKS)
    receipt = rig.copy(copy_of(source))
    (made,) = made_of(receipt)
    assert rig.held(made) == hashes(BLOCKS)
    assert rig.facts(made)["tags"][HOLES_TAG] == receipt["targets"][0]["holes_stand_for"] == "noise"
    assert (receipt["holes"], receipt["holes_taken_for"], receipt["holes_decided_by"]) == (
        "preserve",
        "noise",
        "default",
    )
    assert f"{source} was made by EBS of vol-" in receipt["holes_reason"]
    page = rig.folder(receipt["job_id"]).read(REPORT)
    assert page is not None
    assert f"Holes: {holes_line(receipt)}." in page.decode()


def test_zeros_that_may_have_been_left_out_are_written_where_a_hole_would_not_read_as_zeros(rig: Rig) -> None:
    source = tagged(rig, {0: content(1)}, "zeros")
    receipt = rig.copy(copy_of(source, ENCRYPTED, PLAIN))
    for made in made_of(receipt):
        assert rig.reads(made) == [*hashes({0: content(1)}).values(), *[ZEROS] * 2047]
        assert rig.facts(made)["tags"][HOLES_TAG] == "none"
    assert (receipt["holes"], receipt["holes_taken_for"], receipt["holes_decided_by"]) == (
        "zero_fill",
        "zeros",
        "default",
    )


def test_the_operator_is_asked_where_nobody_knows_and_sees_what_each_answer_costs(rig: Rig) -> None:
    source = rig.snapshot(BLOCKS)
    text = refused(rig, copy_of(source))
    assert text.startswith(f"options.holes: {source} is not of a volume, and no tag {HOLES_TAG} of its own")
    estimate = rig.plan(
        {**copy_of(source), "options": {"holes": "preserve", "dry_run": True}},
    )["estimate"]
    choices = {choice["holes"]: choice for choice in estimate["holes_choices"]}
    assert f"- {choice_line({**choices['preserve'], 'chosen': False})}; right if nobody relies" in text
    assert f"- {choice_line(choices['zero_fill'])}; right in any case" in text
    assert (choices["preserve"]["blocks_written"], choices["zero_fill"]["blocks_written"]) == (3, 2048)
    # 1 GiB in eu-west-1: $0.05 a month; 2,048 writes, 3 reads, 4 lists, the transfer at $0.02 a GiB, and 17 seconds of
    # a function of 1.769 GB.
    assert choices["zero_fill"]["usd_a_month"] == pytest.approx(0.05)
    assert choices["preserve"]["usd_a_month"] == pytest.approx(0.05 * 3 / 2048, abs=1e-6)
    assert choices["zero_fill"]["usd_once"] == pytest.approx(
        2048 * 0.000006 + 3 * 0.000003 + 0.02 + 1024 / 60 * 1.769 * 0.0000133334, abs=1e-5
    )
    assert choices["preserve"]["usd_once"] == estimate["cost_usd"]["total"]
    assert {name: choice["possible"] for name, choice in choices.items()} == {
        "preserve": True,
        "zero_fill": True,
        "skip_zero": False,
    }
    assert [name for name, choice in choices.items() if choice["chosen"]] == ["preserve"]


def test_the_operators_answer_holds_for_the_targets_and_is_in_the_receipt(rig: Rig) -> None:
    source = rig.snapshot(BLOCKS)
    receipt = rig.copy(copy_of(source, ENCRYPTED, PLAIN, holes="preserve"))
    assert [rig.held(made) for made in made_of(receipt)] == [hashes(BLOCKS)] * 2
    assert (receipt["holes_taken_for"], receipt["holes_decided_by"]) == ("unknown", "request")
    assert [t["holes_stand_for"] for t in receipt["targets"]] == ["noise", "noise"]
    # The answer is known from then on: nobody is asked again.
    again = rig.copy({**copy_of(made_of(receipt)[1]), "source": {"region": THIRD}})
    assert (again["holes"], again["holes_taken_for"], again["holes_decided_by"]) == ("preserve", "noise", "default")


def test_without_a_question_an_answer_changes_nothing_about_what_is_known(rig: Rig) -> None:
    source = rig.snapshot(BLOCKS)
    (made,) = made_of(rig.copy(copy_of(source, PLAIN, holes="preserve")))
    assert rig.facts(made)["tags"][HOLES_TAG] == "unknown"
    text = refused(rig, {**copy_of(made), "source": {"region": THIRD}})
    assert f"its tag {HOLES_TAG} says unknown" in text


def test_keeping_holes_that_may_stand_for_zeros_is_refused_with_the_way_out(rig: Rig) -> None:
    source = tagged(rig, BLOCKS, "zeros")
    text = refused(rig, copy_of(source, holes="preserve"))
    assert "options.holes: preserve is not safe" in text
    assert "use zero_fill" in text
    (made,) = made_of(rig.copy(copy_of(source, PLAIN, holes="preserve")))
    assert rig.facts(made)["tags"][HOLES_TAG] == "zeros"


def test_a_target_whose_account_may_encrypt_counts_as_encrypted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    source = rig.snapshot(BLOCKS)
    monkeypatch.setattr("blockferry.aws.snapshots.encrypted_by_default", lambda _ec2: None)
    assert "options.holes" in refused(rig, copy_of(source, {"region": RECOVERY}))
    assert rig.copy(copy_of(source, PLAIN))["holes"] == "preserve"


def test_a_default_that_is_switched_on_after_the_plan_makes_no_encrypted_snapshot(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tagged(rig, BLOCKS, "zeros")
    rig.client("ec2", RECOVERY).enable_ebs_encryption_by_default()
    monkeypatch.setattr("blockferry.aws.snapshots.encrypted_by_default", lambda _ec2: False)
    assert "Encryption by default is on" in refused(rig, copy_of(source, {"region": RECOVERY}))


def test_a_tag_that_a_tool_carried_on_to_the_next_snapshot_of_a_volume_warns_there_too(rig: Rig) -> None:
    for meaning, expected in (("zeros", "zeros"), ("none", "noise")):
        source = of_volume(rig, BLOCKS, {HOLES_TAG: meaning, PROVED_TAG: "snap-00000000000000001"})
        assert meaning_of(describe(rig.client("ec2"), source, region=HOME))[0] == expected


def test_holes_of_an_encrypted_snapshot_are_noise_already(rig: Rig) -> None:
    source = tagged(rig, BLOCKS, "zeros", Encrypted=True)
    receipt = rig.copy(copy_of(source, ENCRYPTED))
    assert rig.held(made_of(receipt)[0]) == hashes(BLOCKS)
    assert receipt["holes_taken_for"] == receipt["targets"][0]["holes_stand_for"] == "noise"


def test_skipping_zeros_says_so_in_the_tags_of_what_is_made(rig: Rig) -> None:
    (made,) = made_of(rig.copy(copy_of(of_volume(rig, BLOCKS), PLAIN, holes="skip_zero")))
    assert rig.facts(made)["tags"][HOLES_TAG] == "zeros"


# -- images in S3 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "holes", "held", "left"),
    [
        (ENCRYPTED, None, {0: content(1), 1: content(0), 2: content(3)}, "noise"),
        (ENCRYPTED, "preserve", {0: content(1), 1: content(0), 2: content(3)}, "noise"),
        (PLAIN, None, {0: content(1), 2: content(3)}, "zeros"),
        (PLAIN, "preserve", {0: content(1), 1: content(0), 2: content(3)}, "noise"),
        (PLAIN, "skip_zero", {0: content(1), 2: content(3)}, "zeros"),
    ],
)
def test_an_image_in_s3_is_written_whole_unless_its_zeros_read_as_zeros(
    rig: Rig, target: dict[str, Any], holes: str | None, held: dict[int, bytes], left: str
) -> None:
    rig.aws.s3(HOME).create_bucket(Bucket="images")
    rig.aws.s3(HOME).put_object(Bucket="images", Key="disk.img", Body=content(1) + content(0) + content(3))
    wanted = {"image_uri": "s3://images/disk.img", "targets": [target], "options": {"holes": holes}}
    receipt = rig.run("fanout", wanted)
    (made,) = made_of(receipt)
    assert rig.held(made) == hashes(held)
    assert rig.facts(made)["tags"][HOLES_TAG] == receipt["targets"][0]["holes_stand_for"] == left
    assert reads_at(rig, made, 0, 1, 2) == [*hashes({0: content(1), 1: content(0), 2: content(3)}).values()]
    assert receipt["holes_taken_for"] == "zeros"


def test_a_dry_run_of_an_image_prices_every_choice_that_can_be_known(rig: Rig) -> None:
    rig.aws.s3(HOME).create_bucket(Bucket="images")
    rig.aws.s3(HOME).put_object(Bucket="images", Key="disk.img", Body=content(1) + content(0))
    wanted = {"image_uri": "s3://images/disk.img", "targets": [PLAIN], "options": {"dry_run": True}}
    estimate = rig.plan(wanted, operation="fanout")["estimate"]
    written = [(c["holes"], c["blocks_written"], c["possible"], c["chosen"]) for c in estimate["holes_choices"]]
    assert written == [("preserve", 2, True, False), ("zero_fill", 2048, True, False), ("skip_zero", None, True, True)]
    text = receipt_table(estimate)
    assert "zero_fill: 2048 blocks, $" in text
    assert "skip_zero: unknown until the blocks are read" in text


# -- chains ------------------------------------------------------------------------------------------------------------


class Chain:
    """A base of unknown origin and a later snapshot of the same lineage, as uploads on top of each other are."""

    def __init__(self, rig: Rig, *, base: str | None = None, later: str | None = None) -> None:
        self.rig = rig
        self.base = tagged(rig, {0: content(1), 9: content(9)}, base)
        self.later = rig.snapshot({0: content(2)}, ParentSnapshotId=self.base)
        if later is not None:
            add_tags(rig.client("ec2"), self.later, {HOLES_TAG: later, PROVED_TAG: self.later})

    def parent(self, holes: str | None = None, target: dict[str, Any] = ENCRYPTED) -> str:
        """A copy of the base that a job has proved."""
        return made_of(self.rig.copy(copy_of(self.base, target, holes=holes)))[0]

    def delta(self, parent: str, region: str = RECOVERY, **options: Any) -> dict[str, Any]:
        return {
            "base_snapshot_id": self.base,
            "snapshot_id": self.later,
            "targets": [{"region": region, "parent_snapshot_id": parent}],
            "options": options,
        }


def forget_holes(rig: Rig, snapshot: str) -> None:
    """As a version made it that knew no such tag."""
    tags = rig.server.service.registry.snapshots[snapshot].tags
    del tags[HOLES_TAG]


def test_a_parent_without_holes_is_built_upon_and_what_is_made_has_none_either(rig: Rig) -> None:
    chain = Chain(rig, base="zeros", later="zeros")
    receipt = rig.run("sync", chain.delta(chain.parent()))
    (made,) = made_of(receipt)
    assert (
        rig.reads(made)
        == [*hashes({0: content(2)}).values(), *[ZEROS] * 8, *hashes({9: content(9)}).values()] + [ZEROS] * 2038
    )
    assert receipt["targets"][0]["holes_stand_for"] == "none"
    assert receipt["holes_taken_for"] == "zeros"


def test_neither_tags_nor_a_comparison_bless_a_parent_whose_holes_read_differently(rig: Rig) -> None:
    chain = Chain(rig)
    parent = chain.parent("preserve")
    forget_holes(rig, parent)
    text = refused(rig, chain.delta(parent), operation="sync")
    assert "is encrypted, so its holes do not read as those of the source" in text
    assert "options.holes: zero_fill, and sync on top of that one" in text
    assert "set options.holes to preserve" in text
    job_id = rig.plan(chain.delta(parent, verify_parent=True), operation="sync")["job_id"]
    rig.move_all(job_id)
    with pytest.raises(
        TransferFailed, match=f"{parent} in {RECOVERY} does not read as base {chain.base}: block 1 is not"
    ):
        rig.complete(job_id)


def test_a_comparison_shows_that_an_older_copy_has_no_holes(rig: Rig) -> None:
    chain = Chain(rig)
    parent = chain.parent("zero_fill")
    forget_holes(rig, parent)
    assert "do not read as those of the source" in refused(rig, chain.delta(parent), operation="sync")
    receipt = rig.run("sync", chain.delta(parent, verify_parent=True))
    (made,) = made_of(receipt)
    assert NOISE not in rig.reads(made)
    assert receipt["targets"][0]["holes_stand_for"] == "none"
    assert receipt["parent_blocks_compared"] == 2048


def test_the_operators_answer_is_asked_for_once_in_a_chain(rig: Rig) -> None:
    chain = Chain(rig)
    receipt = rig.run("sync", chain.delta(chain.parent("preserve")))
    assert receipt["targets"][0]["holes_stand_for"] == "noise"
    older = chain.parent("preserve")
    forget_holes(rig, older)
    receipt = rig.run("sync", chain.delta(older, holes="preserve"))
    assert (receipt["holes_decided_by"], receipt["targets"][0]["holes_stand_for"]) == ("request", "noise")


def test_a_chain_whose_source_lost_its_zeros_later_is_refused_whatever_the_operator_says(rig: Rig) -> None:
    chain = Chain(rig, later="zeros")
    parent = chain.parent("preserve")
    for options in ({}, {"holes": "preserve"}):
        text = refused(rig, chain.delta(parent, **options), operation="sync")
        assert "options.holes: zero_fill" in text
        assert "set options.holes to preserve" not in text


def test_an_encrypted_chain_of_a_volume_is_built_upon_with_or_without_the_tag(rig: Rig) -> None:
    base = of_volume(rig, {0: content(1)})
    volume = rig.facts(base)["volume_id"]
    rig.post(f"volumes/{volume}/blocks/5", content(5))
    later = str(rig.client("ec2").create_snapshot(VolumeId=volume)["SnapshotId"])
    (parent,) = made_of(rig.copy(copy_of(base)))
    forget_holes(rig, parent)
    wanted = {
        "base_snapshot_id": base,
        "snapshot_id": later,
        "targets": [{"region": RECOVERY, "parent_snapshot_id": parent}],
    }
    receipt = rig.run("sync", wanted)
    assert (receipt["holes_taken_for"], receipt["targets"][0]["holes_stand_for"]) == ("noise", "noise")


def test_an_unencrypted_chain_carries_the_worst_that_is_known_of_its_holes(rig: Rig) -> None:
    chain = Chain(rig, base="noise", later="noise")
    known = chain.parent(target=PLAIN)
    for parent, options, left in (
        (known, {}, "noise"),
        (chain.parent("skip_zero", target=PLAIN), {}, "zeros"),
        (rig.snapshot({0: content(1), 9: content(9)}, region=THIRD), {"verify_parent": True}, "zeros"),
    ):
        receipt = rig.run("sync", chain.delta(parent, THIRD, **options))
        assert receipt["targets"][0]["holes_stand_for"] == left
    forget_holes(rig, known)
    receipt = rig.run("sync", chain.delta(known, THIRD))
    assert receipt["targets"][0]["holes_stand_for"] == "unknown"
