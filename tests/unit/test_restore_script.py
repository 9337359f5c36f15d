"""docs/restore-archive.sh: an archive becomes a disk image with standard programs, or none where anything is wrong."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.formats.archive import manifest
from tools import golden_archives
from tools.environment import repository_root
from tools.golden_archives import ARCHIVES, BUCKET, FULL, INCREMENT, Golden, data_of

SCRIPT = repository_root() / "docs/restore-archive.sh"

PROGRAMS = ("bash", "zstd", "jq", "awk", "dd", "od", "sha256sum", "split", "basenc", "base64")

MISSING = [name for name in PROGRAMS if shutil.which(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"programs are not installed: {', '.join(MISSING)}")

AWS = """#!/bin/sh
# Stands in for the AWS CLI: copies objects from a folder of buckets.
[ "$1 $2 $3 $#" = "s3 cp --only-show-errors 5" ] || { echo "unknown: $*" >&2; exit 252; }
exec cp "$BUCKETS/${4#s3://}" "$5"
"""


class Place:
    """Buckets in a folder, a stand-in for the AWS CLI before all other programs, and room for images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.buckets = folder / "buckets"
        shutil.copytree(repository_root() / golden_archives.GOLDEN / BUCKET, self.buckets / BUCKET)
        programs = folder / "programs"
        programs.mkdir()
        (programs / "aws").write_text(AWS)
        (programs / "aws").chmod(0o755)
        (folder / "work").mkdir()
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "BUCKETS": str(self.buckets),
            "TMPDIR": str(folder / "work"),
        }
        self.image = folder / "disk.img"

    def file(self, golden: Golden, name: str) -> Path:
        return self.buckets / BUCKET / golden.address.key(name)

    def restore(self, uri: str, *more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["bash", SCRIPT, uri, self.image, *more],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert list((self.folder / "work").iterdir()) == []
        assert not (self.folder / "disk.img.part").exists()
        return done


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def image_of(golden: Golden, file: Path) -> Path:
    """The disk that was archived, as an image."""
    with file.open("wb") as image:
        image.truncate(golden.size_gib << 30)
        for block, what in golden.held.items():
            image.seek(block * BLOCK_SIZE)
            image.write(data_of(what))
    return file


@pytest.mark.parametrize("golden", ARCHIVES, ids=["a full one", "a chain"])
def test_an_archive_becomes_the_image_byte_for_byte(place: Place, golden: Golden) -> None:
    done = place.restore(golden.address.manifest_uri)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"restored {golden.address.manifest_uri} to {place.image}: every SHA-256 agrees\n"
    wanted = image_of(golden, place.folder / "wanted.img")
    assert filecmp.cmp(place.image, wanted, shallow=False)


def test_a_copy_of_the_archives_in_a_folder_is_enough(place: Place) -> None:
    (place.folder / "programs/aws").write_text("#!/bin/sh\nexit 1\n")
    done = place.restore(INCREMENT.address.manifest_uri, str(place.buckets))
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        hashlib.sha256(place.image.read_bytes()[:BLOCK_SIZE]).hexdigest()
        == (
            json.loads((repository_root() / golden_archives.GOLDEN / "expected.json").read_text())["increment"][
                "blocks"
            ]["0"]
        )
    )


def changed(file: Path) -> None:
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.write_bytes(body)


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def missing(file: Path) -> None:
    file.unlink()


def another(file: Path) -> None:
    shutil.copy(next(each for each in sorted(file.parent.iterdir()) if each != file), file)


def another_archives(file: Path) -> None:
    here, there = FULL.address.key(), INCREMENT.address.key()
    shutil.copy(str(file).replace(here, there), file)


@pytest.mark.parametrize(
    ("golden", "name", "damage", "why"),
    [
        (FULL, "segments/0000000002.zst", changed, "is damaged: its SHA-256 is not"),
        (FULL, "segments/0000001024.zst", cut_off, "is damaged: it has 441 bytes instead of 442"),
        (FULL, "segments/0000001023.zst", missing, "cannot be read"),
        (FULL, "segments/0000000000.zst", another, "is damaged: it has "),
        (FULL, "index/0000000000.idx", changed, "is damaged: its SHA-256 is not"),
        (FULL, "index/0000001024.idx", another, "is damaged: it has "),
        (FULL, "index/0000000000.idx", missing, "cannot be read"),
        (FULL, "manifest.json", changed, "is damaged: it was changed"),
        (FULL, "manifest.json", another_archives, "is that of another archive"),
        (INCREMENT, "segments/0000002048.zst", changed, "is damaged: its SHA-256 is not"),
    ],
)
def test_damage_fails_naming_the_object_and_leaves_no_image(
    place: Place, golden: Golden, name: str, damage: Callable[[Path], None], why: str
) -> None:
    damage(place.file(golden, name))
    done = place.restore(golden.address.manifest_uri)
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"restore-archive: {golden.address.uri(name)} {why}")
    assert last.endswith("; there is no image")
    assert not place.image.exists()


def edited(file: Path, change: dict[str, Any], *, summed: bool) -> None:
    members = json.loads(file.read_text()) | change
    if summed:
        members["sha256"] = manifest._digest(members)
    file.write_text(json.dumps(members))


@pytest.mark.parametrize(
    ("change", "summed", "why"),
    [
        ({"format": "blockferry-archive-2"}, True, "is no archive of version 1"),
        ({"features": ["recipients"]}, True, 'needs ["recipients"], which is not known here'),
        ({"recipients": []}, True, "has what is not known here"),
        ({"volume_size_gib": 2}, False, "is damaged: it was changed"),
        ({"job_id": "x"}, True, ""),
    ],
)
def test_a_manifest_that_is_newer_or_edited_is_refused(
    place: Place, change: dict[str, Any], summed: bool, why: str
) -> None:
    edited(place.file(FULL, "manifest.json"), change, summed=summed)
    refused = place.restore(FULL.address.manifest_uri) if why else place.restore(INCREMENT.address.manifest_uri)
    assert refused.returncode == 1
    # A base that was replaced has another SHA-256 than the one that it is named with.
    told = why or f"is not the archive that {INCREMENT.address.manifest_uri} is built upon"
    assert refused.stderr == f"restore-archive: {FULL.address.manifest_uri} {told}; there is no image\n"
    assert not place.image.exists()


def test_an_entry_that_is_left_out_everywhere_is_noticed_by_the_checksum_over_all(place: Place) -> None:
    """Manifest and indexes agree with each other, and not with the snapshot."""
    file = place.file(FULL, "manifest.json")
    edited(file, {"indexes": json.loads(file.read_text())["indexes"][:1]}, summed=True)
    done = place.restore(FULL.address.manifest_uri)
    assert done.returncode == 1
    assert "restore-archive: the checksum over all blocks is " in done.stderr


def test_an_image_that_is_there_is_not_touched(place: Place) -> None:
    place.image.write_text("precious")
    done = place.restore(FULL.address.manifest_uri)
    assert (done.returncode, done.stderr) == (
        1,
        f"restore-archive: {place.image} exists already; name another\n",
    )
    assert place.image.read_text() == "precious"
