"""A disk such as machines boot from, made by the programs of its own formats, and what these programs say of it.

GPT with its second header at the very end, boot code, an EFI file system, ext4, ext4 in a logical volume of LVM, and an
NTFS volume up to the second table. Needs no root, no loop device and no device mapper: every file system is made in a
file of its own and laid at its place.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SECTOR = 512
MIB = 2**20
DISK_BYTES = 1024 * MIB

PROGRAMS: Mapping[str, str] = {
    "sgdisk": "gdisk",
    "mkfs.vfat": "dosfstools",
    "fsck.vfat": "dosfstools",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "pvck": "lvm2",
    "mkntfs": "ntfs-3g",
    "ntfscp": "ntfs-3g",
    "ntfscat": "ntfs-3g",
    "ntfsfix": "ntfs-3g",
}
"""What makes and checks the disk, with the package that Debian has it in."""

PV_DATA = MIB
"""Where the first extent of a physical volume begins, as pvcreate lays it."""


@dataclass(frozen=True)
class Partition:
    """A part of the disk: ``kind`` is sgdisk's code of its type, ``first`` and ``size`` count bytes."""

    kind: str
    first: int
    size: int


BOOT = Partition("ef02", 1 * MIB, 1 * MIB)
EFI = Partition("ef00", 2 * MIB, 8 * MIB)
ROOT = Partition("8300", 10 * MIB, 16 * MIB)
LVM = Partition("8e00", 26 * MIB, 16 * MIB)
# Up to the last sector before the second table, which takes the last 33.
WINDOWS = Partition("0700", 42 * MIB, DISK_BYTES - 42 * MIB - 33 * SECTOR)

PARTITIONS = (BOOT, EFI, ROOT, LVM, WINDOWS)

LOGICAL_BYTES = 12 * MIB

FILES: Mapping[str, bytes] = {
    "hello.txt": b"written before it was ferried\n",
    "noise.bin": random.Random(12).randbytes(700_001),
}
"""What is in each file system that a program here can put files into."""


def missing_programs() -> str:
    """The programs that are not here, and how to get them; empty when there are all."""
    missing = {name: package for name, package in PROGRAMS.items() if _found(name) is None}
    packages = " ".join(sorted(set(missing.values())))
    return f"not installed: {', '.join(missing)} (apt-get install {packages})" if missing else ""


def make_disk(disk: Path, work: Path) -> None:
    """Make the disk, a sparse file of 1 GiB. ``work`` is an empty folder for what it is made of."""
    tree = work / "tree"
    tree.mkdir()
    for name, body in FILES.items():
        (tree / name).write_bytes(body)
    _sparse(disk, DISK_BYTES)
    parts: list[str] = []
    for number, each in enumerate(PARTITIONS, 1):
        last = (each.first + each.size) // SECTOR - 1
        parts += [f"--new={number}:{each.first // SECTOR}:{last}", f"--typecode={number}:{each.kind}"]
    run("sgdisk", *parts, str(disk))
    boot_code = random.Random(1).randbytes(440)
    with disk.open("r+b") as image:
        # As a boot loader is installed: its first stage before the protective partition table, the rest in a partition.
        image.write(boot_code)
        image.seek(BOOT.first)
        image.write(random.Random(2).randbytes(90_000))
    made = {EFI: _vfat, ROOT: _ext4, LVM: _physical_volume, WINDOWS: _ntfs}
    for number, (each, make) in enumerate(made.items()):
        file = work / f"partition-{number}.img"
        make(file, each.size, tree)
        _lay(file, disk, at=each.first)


def cut_out(disk: Path, first: int, size: int, into: Path) -> Path:
    """A part of the disk as a file of its own, sparse."""
    _sparse(into, size)
    _lay(disk, into, at=0, first=first, size=size)
    return into


def check_table(disk: Path) -> str:
    """Both headers and tables, their checksums, and that they agree."""
    return run("sgdisk", "--verify", str(disk))


def check_efi(disk: Path, work: Path) -> None:
    """Raises ``AssertionError`` when fsck finds anything."""
    run("fsck.vfat", "-n", str(cut_out(disk, EFI.first, EFI.size, work / "efi.img")))


def check_root(disk: Path, work: Path) -> dict[str, bytes]:
    """Have the root file system checked; returns its files."""
    return _checked_ext4(cut_out(disk, ROOT.first, ROOT.size, work / "root.img"), work)


def check_lvm(disk: Path, work: Path) -> dict[str, bytes]:
    """Have headers and metadata of the physical volume, and the file system in its logical volume, checked; returns the
    files of this."""
    volume = cut_out(disk, LVM.first, LVM.size, work / "pv.img")
    for what in ("headers", "metadata"):
        said = run("pvck", "--dump", what, str(volume))
        # It tells what it finds wrong, and ends with 0 all the same.
        assert "CHECK" not in said, said
    assert 'id = "' in said, said
    return _checked_ext4(cut_out(volume, PV_DATA, LOGICAL_BYTES, work / "lv.img"), work)


def check_windows(disk: Path, work: Path) -> dict[str, bytes]:
    """Have the NTFS volume checked, also its second boot sector at the end; returns its files."""
    volume = cut_out(disk, WINDOWS.first, WINDOWS.size, work / "ntfs.img")
    said = run("ntfsfix", "--no-action", str(volume))
    assert "Checking the alternate boot sector... OK" in said, said
    return {name: run_for_bytes("ntfscat", "--force", str(volume), name) for name in FILES}


def run(program: str, *arguments: str) -> str:
    """What a program says. Raises ``AssertionError`` when it fails."""
    return run_for_bytes(program, *arguments).decode(errors="replace")


def run_for_bytes(program: str, *arguments: str) -> bytes:
    """What a program gives. Raises ``AssertionError`` when it fails."""
    found = _found(program)
    assert found is not None, f"{program} is not installed"
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
    done = subprocess.run([found, *arguments], capture_output=True, check=False, env=environment)
    assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stdout!r} {done.stderr!r}"
    return done.stdout


def _found(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/sbin:/usr/sbin:/usr/local/sbin")


def _sparse(file: Path, size: int) -> None:
    with file.open("wb") as made:
        made.truncate(size)


def _lay(source: Path, target: Path, *, at: int, first: int = 0, size: int | None = None) -> None:
    """Copy bytes into a file that has a hole there; what is a hole in the source stays one."""
    with source.open("rb") as reader, target.open("r+b") as writer:
        end = first + size if size is not None else source.stat().st_size
        place = first
        while (place := _seek(reader, place, os.SEEK_DATA, end)) < end:
            stop = _seek(reader, place, os.SEEK_HOLE, end)
            reader.seek(place)
            writer.seek(at + place - first)
            writer.write(reader.read(stop - place))
            place = stop


def _seek(file: BinaryIO, place: int, what: int, end: int) -> int:
    try:
        return min(os.lseek(file.fileno(), place, what), end)
    except OSError as error:
        # No data behind it.
        if error.errno == errno.ENXIO:
            return end
        raise


def _vfat(file: Path, size: int, _tree: Path) -> None:
    _sparse(file, size)
    run("mkfs.vfat", "-n", "EFI", str(file))


def _ext4(file: Path, size: int, tree: Path) -> None:
    _sparse(file, size)
    run("mkfs.ext4", "-q", "-F", "-d", str(tree), str(file))


def _ntfs(file: Path, size: int, tree: Path) -> None:
    _sparse(file, size)
    run("mkntfs", "--force", "--quick", "--quiet", "--label", "windows", "--sector-size", str(SECTOR), str(file))
    for name in FILES:
        run("ntfscp", "--force", str(file), str(tree / name), name)


def _checked_ext4(file: Path, work: Path) -> dict[str, bytes]:
    run("e2fsck", "-f", "-n", str(file))
    found = {}
    for name in FILES:
        run("debugfs", "-R", f"dump {name} {work / name}", str(file))
        found[name] = (work / name).read_bytes()
    return found


def _physical_volume(file: Path, size: int, tree: Path) -> None:
    """As ``pvcreate``, ``vgcreate`` and ``lvcreate`` leave it, which want a block device: label in the second sector,
    metadata area behind it (LVM2's lib/format_text/layout.h), and one logical volume with ext4 in it."""
    _sparse(file, size)
    logical = file.with_suffix(".lv")
    _ext4(logical, LOGICAL_BYTES, tree)
    text = _VOLUME_GROUP.format(
        sectors=size // SECTOR,
        start=PV_DATA // SECTOR,
        extents=(size - PV_DATA) // MIB,
        used=LOGICAL_BYTES // MIB,
    ).encode()
    with file.open("r+b") as volume:
        volume.seek(SECTOR)
        volume.write(_label(size))
        volume.seek(_METADATA)
        volume.write(_metadata_header(text + b"\0").ljust(SECTOR, b"\0") + text + b"\0")
    _lay(logical, file, at=PV_DATA)


_METADATA = 4096
_METADATA_BYTES = PV_DATA - _METADATA
_PV_ID = "BBBBBB-BBBB-BBBB-BBBB-BBBB-BBBB-BBBBBB"


def _lvm_crc(data: bytes) -> int:
    """CRC-32 without the inversions, from LVM2's INITIAL_CRC."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _label(size: int) -> bytes:
    """The sector with label_header, pv_header and pv_header_extension."""
    areas = struct.pack("<6Q", PV_DATA, 0, 0, 0, _METADATA, _METADATA_BYTES) + bytes(16)
    pv = _PV_ID.replace("-", "").encode() + struct.pack("<Q", size) + areas + struct.pack("<II", 2, 1)
    checked = (struct.pack("<I8s", 32, b"LVM2 001") + pv).ljust(SECTOR - 20, b"\0")
    return struct.pack("<8sQI", b"LABELONE", 1, _lvm_crc(checked)) + checked


def _metadata_header(text: bytes) -> bytes:
    """mda_header, whose only raw_locn is behind it."""
    place = struct.pack("<QQII", SECTOR, len(text), _lvm_crc(text), 0)
    fields = struct.pack("<16sIQQ", b" LVM2 x[5A%r0N*>", 1, _METADATA, _METADATA_BYTES)
    checked = (fields + place).ljust(SECTOR - 4, b"\0")
    return struct.pack("<I", _lvm_crc(checked)) + checked


_VOLUME_GROUP = """\
ferry {{
id = "AAAAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAAAA"
seqno = 2
format = "lvm2"
status = ["RESIZEABLE", "READ", "WRITE"]
flags = []
extent_size = 2048
max_lv = 0
max_pv = 0
metadata_copies = 0

physical_volumes {{

pv0 {{
id = "BBBBBB-BBBB-BBBB-BBBB-BBBB-BBBB-BBBBBB"
device = "/dev/sda4"

status = ["ALLOCATABLE"]
flags = []
dev_size = {sectors}
pe_start = {start}
pe_count = {extents}
}}
}}

logical_volumes {{

data {{
id = "CCCCCC-CCCC-CCCC-CCCC-CCCC-CCCC-CCCCCC"
status = ["READ", "WRITE", "VISIBLE"]
flags = []
creation_time = 1767225600
creation_host = "ferry"
segment_count = 1

segment1 {{
start_extent = 0
extent_count = {used}

type = "striped"
stripe_count = 1

stripes = [
"pv0", 0
]
}}
}}
}}

}}
# Generated by LVM2

contents = "Text Format Volume Group"
version = 1

description = ""

creation_host = "ferry"
creation_time = 1767225600

"""

CHECKS: Mapping[str, Callable[[Path, Path], dict[str, bytes]]] = {
    "ext4": check_root,
    "ext4 in a logical volume": check_lvm,
    "NTFS": check_windows,
}
"""The file systems with files, by name, and what checks them."""
