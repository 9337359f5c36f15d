"""Small files of every format that is no raw disk, made of the headers that tell it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass

import lz4.frame
import zstandard

DISK = b"\xfa\x33\xc0" + b"boot code ".ljust(507, b"\x90") + b"\x55\xaa" + b"the rest of a disk " * 400
"""What a raw disk may look like: boot code, the mark of a boot record, data."""


@dataclass(frozen=True)
class Sample:
    """A file, what an error has to call it, and a part of the command that makes a raw disk of it."""

    body: bytes
    name: str
    command: str


def _head(magic: bytes, at: int = 0) -> bytes:
    return (bytes(at) + magic).ljust(4096, b"\x01")


def vhd_footer(kind: int) -> bytes:
    """The footer of a VHD: 2 fixed, 3 dynamic."""
    fields = struct.pack(
        ">8sIIQI4sI4sQQHBBI", b"conectix", 2, 0x10000, 2**64 - 1, 0, b"win ", 0xA0000, b"Wi2k", 2**30, 2**30, 2080, 16,
        63, kind,
    )  # fmt: skip
    return fields.ljust(512, b"\0")


def tar(name: str, body: bytes, *, pax: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar archive of one file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=pax) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(body)
        archive.addfile(member, io.BytesIO(body))
    return made.getvalue()


def old_tar() -> bytes:
    """As before POSIX: no magic at 257, only the checksum tells."""
    header = bytearray(tar("disk.img", DISK)[:512])
    header[257:265] = bytes(8)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + DISK.ljust(8192, b"\0")


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("disk.img", DISK)
    return made.getvalue()


_QEMU = "qemu-img convert -f {} -O raw"

DISK_FORMATS = {
    "fixed VHD": Sample(DISK + vhd_footer(2), "a VHD image of fixed size", "head -c -512"),
    "fixed VHD of old": Sample(DISK + vhd_footer(2)[:511], "a VHD image of fixed size", "head -c -511"),
    "dynamic VHD": Sample(
        vhd_footer(3) + b"cxsparse".ljust(1024, b"\xff") + vhd_footer(3), "a dynamic VHD image", "driver=vpc"
    ),
    "VHDX": Sample(_head(b"vhdxfile"), "a VHDX image", _QEMU.format("vhdx")),
    "VDI": Sample(
        _head(b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + bytes.fromhex("7f10dabe")),
        "a VDI image",
        _QEMU.format("vdi"),
    ),
    "VDI of another tool": Sample(_head(bytes.fromhex("7f10dabe"), at=64), "a VDI image", _QEMU.format("vdi")),
    "VMDK": Sample(_head(b"KDMV\x01\0\0\0\x03\0\0\0"), "a VMDK image", _QEMU.format("vmdk")),
    "stream-optimised VMDK": Sample(_head(b"KDMV\x03\0\0\0\x01\0\x03\0"), "a VMDK image", _QEMU.format("vmdk")),
    "VMDK of ESX": Sample(_head(b"COWD\x01\0\0\0"), "a VMDK image", _QEMU.format("vmdk")),
    "VMDK of vSphere": Sample(_head(struct.pack("<QQ", 0xCAFEBABE, 0x200000001)), "a VMDK image", "-f vmdk"),
    "VMDK descriptor": Sample(
        b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "disk-flat.vmdk" 0\n',
        "the descriptor of a VMDK image, without its data",
        _QEMU.format("vmdk"),
    ),
    "qcow2": Sample(_head(b"QFI\xfb\0\0\0\x03"), "a qcow2 image", _QEMU.format("qcow2")),
    "qcow": Sample(_head(b"QFI\xfb\0\0\0\x01"), "a qcow image", _QEMU.format("qcow")),
    "QED": Sample(_head(b"QED\0"), "a QED image", _QEMU.format("qed")),
    "Parallels": Sample(_head(b"WithoutFreeSpace"), "a Parallels image", _QEMU.format("parallels")),
    "Parallels extended": Sample(_head(b"WithouFreSpacExt"), "a Parallels image", _QEMU.format("parallels")),
    "DMG": Sample(DISK + struct.pack(">4sII", b"koly", 4, 512).ljust(512, b"\0"), "a DMG image", "-f dmg"),
    "E01": Sample(_head(b"EVF\x09\x0d\x0a\xff\0"), "an EWF (E01) image", "ewfexport"),
    "Ex01": Sample(_head(b"EVF2\x0d\x0a\x81\0"), "an EWF (E01) image", "ewfexport"),
    "Android sparse": Sample(_head(bytes.fromhex("3aff26ed01000000")), "an Android sparse image", "simg2img"),
    "WIM": Sample(_head(b"MSWIM\0\0\0"), "a WIM archive", "wimapply"),
    "partclone": Sample(_head(b"partclone-image\0"), "a partclone image", "partclone.restore"),
    "ntfsclone": Sample(_head(b"\0ntfsclone-image"), "an ntfsclone image", "ntfsclone --restore-image"),
    "fsarchiver": Sample(_head(b"FsA0"), "an fsarchiver archive", "fsarchiver restfs"),
    "VMA": Sample(_head(b"VMA\0\0\0\0\x01"), "a VMA archive", "vma extract"),
}  # fmt: skip

ARCHIVES = {
    "OVA": Sample(tar("appliance.ovf", b"<Envelope/>"), "an OVA archive", "tar -xf"),
    "tar": Sample(tar("disk.img", DISK), "a tar archive", "tar -xf"),
    "POSIX tar": Sample(tar("disk.img", DISK, pax=tarfile.PAX_FORMAT), "a tar archive", "tar -xf"),
    "tar of old": Sample(old_tar(), "a tar archive", "tar -xf"),
    "zip": Sample(zipped(), "a zip archive", "unzip"),
    "7z": Sample(_head(bytes.fromhex("377abcaf271c0004")), "a 7z archive", "7z x"),
    "rar": Sample(_head(b"Rar!\x1a\x07\x01\0"), "a rar archive", "unrar x"),
}

NO_IMAGES = {
    "web page": Sample(b"<!DOCTYPE html>\n<html><title>Sign in</title></html>\n", "a web page", "download"),
    "XML": Sample(b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "an XML document", "download"),
    "pointer": Sample(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS", "git lfs pull"
    ),
}

PACKED = {
    "gzip": Sample(gzip.compress(DISK, mtime=0), "compressed with gzip", "gzip -dc"),
    "zstd": Sample(zstandard.compress(DISK), "compressed with zstd", "zstd -dc"),
    "zstd with an index in front": Sample(
        bytes.fromhex("502a4d1804000000") + b"size" + zstandard.compress(DISK), "compressed with zstd", "zstd -dc"
    ),
    "xz": Sample(lzma.compress(DISK), "compressed with xz", "xz -dc"),
    "bzip2": Sample(bz2.compress(DISK), "compressed with bzip2", "bzip2 -dc"),
    "lz4": Sample(lz4.frame.compress(DISK), "compressed with lz4", "lz4 -dc"),
}
"""What fanout unpacks by itself, when its name or ``image_codec`` says so."""

OTHERWISE_PACKED = {
    "lzma": Sample(lzma.compress(DISK, format=lzma.FORMAT_ALONE), "compressed with lzma", "xz --format=lzma -dc"),
    "lz4 of kernels": Sample(_head(bytes.fromhex("02214c18")), "compressed with lz4 -l", "lz4 -dc"),
    "lzop": Sample(_head(bytes.fromhex("894c5a4f000d0a1a0a")), "compressed with lzop", "lzop -dc"),
    "lzip": Sample(_head(b"LZIP\x01\x0c"), "compressed with lzip", "lzip -dc"),
}

ALL = DISK_FORMATS | ARCHIVES | NO_IMAGES | PACKED | OTHERWISE_PACKED


def xz_of_blocks(pieces: list[bytes], *, check: int = lzma.CHECK_CRC64, level: int = 1) -> bytes:
    """A single stream with one block for each piece, none of them empty, as ``xz --threads`` and pixz make it."""
    blocks, records = b"", _xz_number(len(pieces))
    header = b""
    for piece in pieces:
        alone = lzma.compress(piece, check=check, preset=level)
        index_size = (int.from_bytes(alone[-8:-4], "little") + 1) * 4
        header, index = alone[:12], alone[-12 - index_size : -12]
        blocks += alone[12 : -12 - index_size]
        # Without indicator and count before, and padding and checksum behind.
        records += index[2 : 2 + _xz_numbers(index[2:], 2)]
    index = b"\0" + records
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    fields = (len(index) // 4 - 1).to_bytes(4, "little") + header[6:8]
    return header + blocks + index + zlib.crc32(fields).to_bytes(4, "little") + fields + b"YZ"


def _xz_number(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _xz_number(rest) if rest else bytes([low])


def _xz_numbers(data: bytes, count: int) -> int:
    """Bytes that as many numbers take."""
    length = 0
    while count:
        count -= data[length] < 0x80
        length += 1
    return length
