"""What a file is that is taken for a raw disk: told by its first and last bytes, whatever its name says.

A raw disk has no mark of its own and may begin with anything: boot code, zeros, a file system, noise. So a signature
stands here only if no boot code, partition table or file system has it, and whoever means it can insist.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

PackedCodec = Literal["bzip2", "gzip", "lz4", "xz", "zstd"]
"""Compressions that images are unpacked from."""

ImageCodec = Literal["raw", "gzip", "zstd", "xz", "bzip2", "lz4"]

ImageFormat = Literal["raw"]
"""Formats of a disk that an operator may insist on."""

HEAD_BYTES = 512
"""Bytes of a file's beginning that tell what it is: tar keeps its checksum at 148 and its magic at 257, VDI its
signature at 64; all other formats begin with theirs."""

TAIL_BYTES = 512
"""Bytes of a file's end that tell what it is: a VHD of fixed size, or a DMG."""


MAGIC_BYTES = 6
"""Bytes that tell whether a stream of a codec begins: those of xz, the longest."""


@dataclass(frozen=True)
class Format:
    """A kind of file that is no raw disk, under the ``name`` by which an error calls it.

    ``advice`` tells how to get to a raw disk, where ``{image}`` stands for the file and ``{raw}`` for the result;
    ``codec`` is set if it is compressed in a way that images are unpacked from.
    """

    name: str
    advice: str
    codec: PackedCodec | None = None

    def advice_for(self, image: str) -> str:
        """The advice for a file of this name."""
        return self.advice.format(image=shlex.quote(image), raw=shlex.quote(f"{image}.raw"))


def looks_like(head: bytes, tail: bytes | None = None) -> Format | None:
    """What a stream is that is no raw disk, or ``None``.

    ``head`` are its first ``HEAD_BYTES``, or all of a shorter one; ``tail`` its last ``TAIL_BYTES``, once they are
    known.
    """
    for at, magic, found in _SIGNATURES:
        if head.startswith(magic, at):
            return found
    for told in _RECOGNISERS:
        if recognised := told(head):
            return recognised
    return None if tail is None else _by_tail(tail)


def packed_as(head: bytes) -> PackedCodec | None:
    """What a stream is compressed with, of what images are unpacked from."""
    found = looks_like(head)
    return None if found is None else found.codec


def is_skippable(magic: bytes) -> bool:
    """Whether these bytes begin a skippable frame of zstd (RFC 8878, 3.1.2) or lz4, which have the same."""
    return len(magic) >= 4 and magic[1:4] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50


def may_begin(head: bytes, codec: PackedCodec) -> bool:
    """Whether these bytes begin a stream, member or frame of a codec, or are cut off before that is certain."""
    begins = [magic for _, magic, found in _SIGNATURES if found.codec == codec]
    if codec == "bzip2":
        begins = [b"BZh"]
    if codec in ("zstd", "lz4"):
        begins += [bytes([kind]) + b"\x2a\x4d\x18" for kind in range(0x50, 0x60)]
    return any(head.startswith(magic) or magic.startswith(head) for magic in begins)


def refusal(image: str, found: Format, *, file: str, insist: str, packed: bool = False, unpack: str = "") -> str:
    """Why ``image`` is not taken for a raw disk and what to do; ``file`` is what the command is to work on.

    ``packed`` says that it is what ``image`` unpacks to. ``unpack`` is another way out for what is compressed,
    ``insist`` what says that it is a raw disk all the same.
    """
    if packed:
        something = "something " if found.name.startswith("compressed") else ""
        what = f"unpacks to {something}{found.name}, not to a raw disk"
    else:
        what = f"is {found.name}, not a raw disk"
    other = f" {unpack}, or" if unpack and found.codec else ""
    return (
        f"image {image} {what}; nothing was started:{other} {found.advice_for(file)}; or, if these bytes really are "
        f"those of the disk, insist with {insist}"
    )


def _qemu(name: str, driver: str) -> Format:
    return Format(name, f"convert it with `qemu-img convert -f {driver} -O raw {{image}} {{raw}}`")


def _packed(codec: str, command: str, *, own: PackedCodec | None = None) -> Format:
    return Format(f"compressed with {codec}", f"decompress it with `{command} {{image}} > {{raw}}`", own)


def _fixed_vhd(footer: int) -> Format:
    # What precedes the footer is the raw disk. qemu-img takes such a file for raw, and may cut a VHD to its geometry.
    return Format("a VHD image of fixed size", f"cut its footer off with `head -c -{footer} {{image}} > {{raw}}`")


_DISK_IN_IT = "and convert the disk in it with `qemu-img convert -O raw`"

_DYNAMIC_VHD = Format(
    "a dynamic VHD image",
    "convert it with `qemu-img convert -O raw --image-opts "
    "driver=vpc,force_size_calc=current_size,file.driver=file,file.filename={image} {raw}`",
)
"""A VHD that grows. Without ``force_size_calc`` qemu-img may take the size from the geometry, which is rounded down,
and lose the disk's end."""

_VMDK = _qemu("a VMDK image", "vmdk")
_VMDK_DESCRIPTOR = _qemu("the descriptor of a VMDK image, without its data", "vmdk")
_VDI = _qemu("a VDI image", "vdi")
_PARALLELS = _qemu("a Parallels image", "parallels")
_DMG = _qemu("a DMG image", "dmg")
_EWF = Format("an EWF (E01) image", "export it with `ewfexport -f raw -t {raw} {image}`")
_OVA = Format("an OVA archive", f"unpack it with `tar -xf {{image}}` {_DISK_IN_IT}")
_TAR = Format("a tar archive", f"unpack it with `tar -xf {{image}}`, {_DISK_IN_IT} unless that is raw")
_ZIP = Format("a zip archive", f"unpack it with `unzip {{image}}`, {_DISK_IN_IT} unless that is raw")
_RAR = Format("a rar archive", f"unpack it with `unrar x {{image}}`, {_DISK_IN_IT} unless that is raw")
_SEVEN = Format("a 7z archive", f"unpack it with `7z x {{image}}`, {_DISK_IN_IT} unless that is raw")
_GZIP = _packed("gzip", "gzip -dc", own="gzip")
_ZSTD = _packed("zstd", "zstd -dc", own="zstd")
_XZ = _packed("xz", "xz -dc", own="xz")
_BZIP2 = _packed("bzip2", "bzip2 -dc", own="bzip2")
_LZMA = _packed("lzma", "xz --format=lzma -dc")
_LZ4 = _packed("lz4", "lz4 -dc", own="lz4")
_LZ4_LEGACY = _packed("lz4 -l", "lz4 -dc")
_DOWNLOAD_AGAIN = "it is what a server said instead of sending a disk: read it, and download the disk again"

_SIGNATURES: Sequence[tuple[int, bytes, Format]] = (
    (0, b"conectix", _DYNAMIC_VHD),
    (0, b"vhdxfile", _qemu("a VHDX image", "vhdx")),
    (64, bytes.fromhex("7f10dabe"), _VDI),
    (0, b"<<< Oracle VM VirtualBox Disk Image >>>", _VDI),
    (0, b"KDMV", _VMDK),
    (0, b"COWD", _VMDK),
    (0, bytes.fromhex("bebafeca00000000"), _VMDK),
    (0, b"QFI\xfb\0\0\0\x01", _qemu("a qcow image", "qcow")),
    (0, b"QFI\xfb", _qemu("a qcow2 image", "qcow2")),
    (0, b"QED\0", _qemu("a QED image", "qed")),
    (0, b"WithoutFreeSpace", _PARALLELS),
    (0, b"WithouFreSpacExt", _PARALLELS),
    (0, bytes.fromhex("3aff26ed"), Format("an Android sparse image", "convert it with `simg2img {image} {raw}`")),
    (0, b"EVF\x09\x0d\x0a\xff\0", _EWF),
    (0, b"EVF2\x0d\x0a\x81\0", _EWF),
    (
        0,
        b"MSWIM\0\0\0",
        Format("a WIM archive", "it holds files: apply it to a volume with `wimapply {image} 1 /dev/DEVICE`"),
    ),
    (
        0,
        b"partclone-image",
        Format("a partclone image", "restore it with `partclone.restore -C --restore_raw_file -s {image} -O {raw}`"),
    ),
    (
        0,
        b"\0ntfsclone-image",
        Format("an ntfsclone image", "restore it with `ntfsclone --restore-image --overwrite {raw} {image}`"),
    ),
    (
        0,
        b"FsA0",
        Format("an fsarchiver archive", "restore it with `fsarchiver restfs {image} id=0,dest=/dev/DEVICE`"),
    ),
    (0, b"VMA\0\0\0\0\x01", Format("a VMA archive", "unpack it with `vma extract {image} DIRECTORY`")),
    (0, b"\x1f\x8b\x08", _GZIP),
    (0, b"\x28\xb5\x2f\xfd", _ZSTD),
    (0, b"\xfd7zXZ\0", _XZ),
    (0, b"\x04\x22\x4d\x18", _LZ4),
    (0, b"\x02\x21\x4c\x18", _LZ4_LEGACY),
    (0, b"\x89LZO\0\r\n\x1a\n", _packed("lzop", "lzop -dc")),
    (0, b"LZIP\x01", _packed("lzip", "lzip -dc")),
    (0, b"PK\x03\x04", _ZIP),
    (0, b"PK\x05\x06", _ZIP),
    (0, b"7z\xbc\xaf\x27\x1c", _SEVEN),
    (0, b"Rar!\x1a\x07", _RAR),
    (
        0,
        b"version https://git-lfs.github.com/spec/",
        Format("a pointer of Git LFS", "get what it points to with `git lfs pull`"),
    ),
)
"""Signatures of formats: the offset in the file, the bytes that are there, and the format."""


def _skippable(head: bytes) -> Format | None:
    """Zstd, if the stream begins with a frame that is skipped, such as an index."""
    return _ZSTD if is_skippable(head) else None


def _bzip2(head: bytes) -> Format | None:
    """Bzip2, by its level and by the beginning of the first block or of the end behind it."""
    marks = (bytes.fromhex("314159265359"), bytes.fromhex("177245385090"))
    return _BZIP2 if re.match(rb"BZh[1-9]", head) and head[4:10] in marks else None


def _lzma_alone(head: bytes) -> Format | None:
    """LZMA without a container, which has no magic, but few values: usual properties, a dictionary as tools choose it,
    a possible size, a first byte 0."""
    if len(head) < 14 or head[0] != 0x5D or head[13] != 0:
        return None
    dictionary, size = int.from_bytes(head[1:5], "little"), head[5:13]
    chosen = any(dictionary in (1 << power, 3 << power - 1) for power in range(12, 31))
    possible = size == b"\xff" * 8 or 0 < int.from_bytes(size, "little") < 1 << 48
    return _LZMA if chosen and possible else None


def _tar(head: bytes) -> Format | None:
    """Tar, by the magic of POSIX and GNU, and without one by the checksum of the header; an OVA by its first member."""
    if head[257:263] in (b"ustar\0", b"ustar ") or _tar_checksum_fits(head):
        return _OVA if re.match(rb"[^\0]{1,96}\.ovf\0", head, re.IGNORECASE) else _TAR
    return None


def _tar_checksum_fits(head: bytes) -> bool:
    field = head[148:156]
    if len(head) < HEAD_BYTES or not head[0] or not re.fullmatch(rb" *[0-7]+[\0 ]+", field):
        return False
    return int(field.strip(b" \0"), 8) == sum(head[:HEAD_BYTES]) - sum(field) + 8 * ord(" ")


def _text(head: bytes) -> Format | None:
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if begin.startswith(b"# disk descriptorfile"):
        return _VMDK_DESCRIPTOR
    if begin.startswith((b"<!doctype html", b"<html")):
        return Format("a web page", _DOWNLOAD_AGAIN)
    if begin.startswith(b"<?xml"):
        return Format("an XML document", _DOWNLOAD_AGAIN)
    return None


_RECOGNISERS: Sequence[Callable[[bytes], Format | None]] = (_skippable, _bzip2, _lzma_alone, _tar, _text)


def _by_tail(tail: bytes) -> Format | None:
    last = tail[-TAIL_BYTES:]
    if last.startswith(b"conectix"):
        return _fixed_vhd(len(last))
    # Old tools wrote a footer of 511 bytes.
    if last.startswith(b"conectix", 1):
        return _fixed_vhd(TAIL_BYTES - 1)
    return _DMG if last.startswith(b"koly\0\0\0\x04\0\0\x02\0") else None
