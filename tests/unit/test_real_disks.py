"""A disk that machines boot from goes into an archive and comes back: every byte of it, and its own programs agree."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import disk_images
import pytest
from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.local.cat import ByteRange, open_disk
from blockferry.local.upload import upload_image
from disk_images import CHECKS, DISK_BYTES, FILES
from rig import HOME, Rig, running_rig

MISSING = disk_images.missing_programs()

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

ARCHIVES = "archives-111122223333"


@dataclass(frozen=True)
class Ferried:
    """The disk that was uploaded and archived, and the image that was made of what was restored."""

    rig: Rig
    manifest_uri: str
    snapshot_id: str
    before: Path
    after: Path


@pytest.fixture(scope="module")
def ferried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ferried]:
    folder = tmp_path_factory.mktemp("disk")
    (folder / "work").mkdir()
    before, after = folder / "before.img", folder / "after.img"
    disk_images.make_disk(before, folder / "work")
    with pytest.MonkeyPatch.context() as patch, running_rig(patch) as rig:
        rig.aws.s3(HOME).create_bucket(Bucket=ARCHIVES)
        uploaded = upload_image(before, region=HOME, aws=rig.aws)
        request = {"snapshot_id": uploaded.snapshot_id, "archive": {"bucket": ARCHIVES}}
        uri = rig.run("archive", request)["manifest_uri"]
        targets = [{"region": HOME, "encrypted": False}]
        (made,) = rig.run("restore", {"manifest_uri": uri, "targets": targets})["targets"]
        read_out(rig, made["snapshot_id"], after)
        yield Ferried(rig, uri, made["snapshot_id"], before, after)


def read_out(rig: Rig, snapshot_id: str, image: Path) -> None:
    """What a volume of the snapshot reads, with plain boto3."""
    ebs = rig.client("ebs")
    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot_id, MaxResults=10_000)
    assert "NextToken" not in listed
    with image.open("wb") as file:
        file.truncate(listed["VolumeSize"] << 30)
        for block in listed["Blocks"]:
            index, token = block["BlockIndex"], block["BlockToken"]
            got = ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=index, BlockToken=token)
            file.seek(index * BLOCK_SIZE)
            file.write(got["BlockData"].read())


def test_a_bootable_disk_comes_back_byte_for_byte(ferried: Ferried) -> None:
    assert ferried.before.stat().st_size == ferried.after.stat().st_size == DISK_BYTES
    assert filecmp.cmp(ferried.before, ferried.after, shallow=False)
    # Also the two ends of it, where the tables are, are in blocks that were stored.
    assert {0, DISK_BYTES // BLOCK_SIZE - 1} <= ferried.rig.held(ferried.snapshot_id).keys()


def test_the_partition_tables_at_both_ends_are_whole_and_agree(ferried: Ferried) -> None:
    assert "No problems found" in disk_images.check_table(ferried.after)


def test_the_check_of_the_tables_notices_a_lost_end(ferried: Ferried, tmp_path: Path) -> None:
    cut = disk_images.cut_out(ferried.after, 0, DISK_BYTES - BLOCK_SIZE, tmp_path / "cut.img")
    with cut.open("r+b") as image:
        image.truncate(DISK_BYTES)
    assert "No problems found" not in disk_images.run("sgdisk", "--verify", str(cut))


def test_the_efi_partition_is_clean(ferried: Ferried, tmp_path: Path) -> None:
    disk_images.check_efi(ferried.after, tmp_path)


@pytest.mark.parametrize("name", CHECKS)
def test_a_file_system_is_clean_and_has_its_files(ferried: Ferried, name: str, tmp_path: Path) -> None:
    assert CHECKS[name](ferried.after, tmp_path) == FILES


def test_a_partition_is_read_from_the_archive_without_the_rest(ferried: Ferried, tmp_path: Path) -> None:
    part, image = disk_images.ROOT, tmp_path / "root.img"
    disk = open_disk(Call(aws=ferried.rig.aws), Identity(HOME), ferried.manifest_uri)
    with image.open("wb") as file:
        for piece in disk.pieces(ByteRange(part.first, part.first + part.size)):
            file.write(piece)
    wanted = disk_images.cut_out(ferried.before, part.first, part.size, tmp_path / "wanted.img")
    assert filecmp.cmp(image, wanted, shallow=False)
