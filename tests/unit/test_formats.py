from __future__ import annotations

import random
from typing import Any

import pytest
from blockferry.formats.recognise import HEAD_BYTES, TAIL_BYTES, looks_like, packed_as, refusal
from hypothesis import given
from hypothesis import strategies as st
from image_files import ALL, DISK, PACKED, tar, vhd_footer


def seen(data: bytes) -> str | None:
    found = looks_like(data[:HEAD_BYTES], data[-TAIL_BYTES:])
    return None if found is None else found.name


@pytest.mark.parametrize("name", ALL)
def test_a_file_is_told_by_its_first_and_last_bytes(name: str) -> None:
    found = looks_like(ALL[name].body[:HEAD_BYTES], ALL[name].body[-TAIL_BYTES:])
    assert found is not None
    assert found.name.startswith(ALL[name].name)
    assert ALL[name].command in found.advice_for("disk")


def test_what_images_are_unpacked_from_is_told_apart() -> None:
    assert {name: packed_as(ALL[name].body[:HEAD_BYTES]) for name in ALL if name in PACKED} == {
        "gzip": "gzip",
        "zstd": "zstd",
        "zstd with an index in front": "zstd",
        "xz": "xz",
        "bzip2": "bzip2",
        "lz4": "lz4",
    }
    assert {packed_as(ALL[name].body[:HEAD_BYTES]) for name in ALL if name not in PACKED} == {None}


def boot(begin: bytes) -> bytes:
    return begin.ljust(510, b"\0") + b"\x55\xaa" + bytes(512)


RAW_DISKS = {
    "zeros": bytes(1024),
    "ones": b"\xff" * 1024,
    "one byte": b"\x1f",
    "boot code": DISK,
    "GPT": boot(bytes(446) + bytes.fromhex("00000200eeffffff01000000ffffff3f")),
    "GPT and its copy": bytes(1024) + b"EFI PART".ljust(512, b"\0"),
    "GRUB": boot(bytes.fromhex("eb63909000000000") + b"GRUB \0Geom\0Hard Disk\0Read\0 Error"),
    "Windows": boot(bytes.fromhex("33c08ed0bc007c8ec08ed8be007cbf0006b90002fcf3a450681c06cb")),
    "ISO hybrid": boot(bytes.fromhex("33eda10090e90000") + b"isolinux"),
    "FAT": boot(bytes.fromhex("eb3c90") + b"mkfs.fat\0\2\4\4\0"),
    "NTFS": boot(bytes.fromhex("eb5290") + b"NTFS    \0\2\x08"),
    "exFAT": boot(bytes.fromhex("eb7690") + b"EXFAT   "),
    "XFS": b"XFSB\0\0\x10\0".ljust(1024, b"\0"),
    "LUKS": b"LUKS\xba\xbe\0\2".ljust(1024, b"\0"),
    "LVM": bytes(512) + b"LABELONE".ljust(512, b"\0"),
    "squashfs": b"hsqs\x07\0\0\0".ljust(1024, b"\0"),
    "APFS": bytes(32) + b"NXSB".ljust(992, b"\0"),
    "text": b"# a shell script\nPKI=1 BZh9 QFI <html>\n" * 30,
    "a name like bzip2's": b"BZh9 was here".ljust(1024, b"\0"),
    "a footer not at its place": bytes(700) + vhd_footer(2) + bytes(3),
}


@pytest.mark.parametrize("name", RAW_DISKS)
def test_a_raw_disk_is_taken_for_one(name: str) -> None:
    assert seen(RAW_DISKS[name]) is None


def test_noise_is_taken_for_a_raw_disk() -> None:
    dice = random.Random(20)
    assert {seen(dice.randbytes(1024)) for _ in range(20_000)} == {None}


@given(st.binary(max_size=700), st.binary(max_size=700))
def test_any_bytes_of_any_length_can_be_looked_at(head: bytes, tail: bytes) -> None:
    looks_like(head, tail)
    looks_like(head)


@given(st.integers(0, 511), st.integers(1, 255))
def test_a_tar_without_its_magic_is_told_by_its_whole_header(at: int, change: int) -> None:
    header = bytearray(ALL["tar of old"].body[:512])
    assert seen(bytes(header)) == "a tar archive"
    header[at] ^= change
    if not 148 <= at < 156 and bytes(header[257:263]) not in (b"ustar\0", b"ustar "):
        assert seen(bytes(header)) != "a tar archive"


def test_a_tar_is_an_appliance_if_it_begins_with_a_description_of_one() -> None:
    names = ("box.ovf", "BOX.OVF", "box.ovf.img", "ovf", "disk.vmdk")
    assert [seen(tar(name, b"x")) for name in names] == ["an OVA archive"] * 2 + ["a tar archive"] * 3


def test_the_tail_counts_only_when_it_is_known() -> None:
    body = ALL["fixed VHD"].body
    assert looks_like(body[:HEAD_BYTES]) is None
    assert looks_like(body[:HEAD_BYTES], body[-TAIL_BYTES:]) is not None


def test_a_command_names_the_file_safely() -> None:
    found = looks_like(b"QFI\xfb")
    assert found is not None
    text = refusal("a file", found, file="my disk'.img", insist="--format raw")
    assert "`qemu-img convert -f qcow2 -O raw 'my disk'\"'\"'.img' 'my disk'\"'\"'.img.raw'`" in text


@pytest.mark.parametrize(
    ("begin", "name"),
    [
        (b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(512, b"\1"), "a VDI image"),
        (b"PK\x05\x06".ljust(22, b"\0"), "a zip archive"),
        (b"\xef\xbb\xbf \r\n<HTML><body>", "a web page"),
        (b"<!DOCTYPE HTML PUBLIC", "a web page"),
        (b"\xef\xbb\xbf<?XML version", "an XML document"),
        (b"\n# disk descriptorfile", "the descriptor of a VMDK image, without its data"),
        (bytes.fromhex("5f2a4d1800000000"), "compressed with zstd"),
        (bytes.fromhex("502a4d18"), "compressed with zstd"),
        (b"BZh1" + bytes.fromhex("314159265359"), "compressed with bzip2"),
        (b"BZh9" + bytes.fromhex("177245385090"), "compressed with bzip2"),
    ],
)
def test_a_beginning_alone_tells_a_file(begin: bytes, name: str) -> None:
    assert seen(begin) == name


@pytest.mark.parametrize(
    "begin",
    [
        bytes.fromhex("602a4d18"),
        bytes.fromhex("502a4d"),
        bytes.fromhex("50004d18"),
        b"BZh0" + bytes.fromhex("314159265359"),
        b"BZh9" + bytes.fromhex("314159265358"),
        bytes(1) + bytes.fromhex("7f10dabe"),
        b"\1KDMV",
    ],
)
def test_a_beginning_that_is_nearly_one_tells_nothing(begin: bytes) -> None:
    assert seen(begin) is None


def lzma_alone(*, properties: int = 0x5D, dictionary: int = 1 << 23, size: int = 2**64 - 1, first: int = 0) -> bytes:
    return bytes([properties]) + dictionary.to_bytes(4, "little") + size.to_bytes(8, "little") + bytes([first])


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (lzma_alone(), True),
        (lzma_alone(dictionary=1 << 12), True),
        (lzma_alone(dictionary=3 << 11), True),
        (lzma_alone(dictionary=1 << 30), True),
        (lzma_alone(dictionary=3 << 29), True),
        (lzma_alone(size=1), True),
        (lzma_alone(size=2**48 - 1), True),
        (lzma_alone(properties=0x5E), False),
        (lzma_alone(first=1), False),
        (lzma_alone(dictionary=1 << 11), False),
        (lzma_alone(dictionary=3 << 10), False),
        (lzma_alone(dictionary=1 << 31), False),
        (lzma_alone(dictionary=(1 << 23) + 1), False),
        (lzma_alone(size=0), False),
        (lzma_alone(size=2**48), False),
        (lzma_alone()[:13], False),
    ],
)
def test_lzma_without_a_magic_is_told_by_values_as_tools_choose_them(header: bytes, told: bool) -> None:
    assert seen(header) == ("compressed with lzma" if told else None)


def test_a_footer_is_looked_for_where_it_ends_the_file_and_nowhere_else() -> None:
    dmg = bytes.fromhex("6b6f6c7900000004 00000200")
    for tail, name in (
        (b"\1" + b"conectix".ljust(511, b"\2"), "a VHD image of fixed size"),
        (b"\1" * 600 + b"conectix".ljust(512, b"\2"), "a VHD image of fixed size"),
        (dmg.ljust(512, b"\0"), "a DMG image"),
        (b"\1\1" + b"conectix".ljust(510, b"\2"), None),
        (b"\1" + dmg.ljust(511, b"\0"), None),
    ):
        found = looks_like(DISK[:HEAD_BYTES], tail)
        assert (found.name if found else None) == name


UNPACKS = "have it unpacked"


@pytest.mark.parametrize(
    ("name", "more", "begin"),
    [
        ("gzip", {}, "image i is compressed with gzip, not a raw disk; nothing was started: decompress it with"),
        ("gzip", {"unpack": UNPACKS}, "image i is compressed with gzip, not a raw disk; nothing was started: have it "
         "unpacked, or decompress it with"),
        ("lzop", {"unpack": UNPACKS}, "image i is compressed with lzop, not a raw disk; nothing was started: "
         "decompress it with"),
        ("gzip", {"packed": True}, "image i unpacks to something compressed with gzip, not to a raw disk; nothing was "
         "started: decompress it with `gzip -dc disk > disk.raw`"),
        ("VMDK", {"packed": True}, "image i unpacks to a VMDK image, not to a raw disk; nothing was started: convert"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_it_is_and_every_way_out(name: str, more: dict[str, Any], begin: str) -> None:
    found = looks_like(ALL[name].body[:HEAD_BYTES])
    assert found is not None
    text = refusal("i", found, file="disk", insist="INSIST", **more)
    assert text.startswith(begin)
    assert text.endswith("; or, if these bytes really are those of the disk, insist with INSIST")


@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0"])
def test_a_tar_with_its_magic_is_told_whatever_its_checksum(magic: bytes) -> None:
    assert seen((b"\1" * 257 + magic).ljust(1024, b"\2")) == "a tar archive"
    assert seen((b"\1" * 256 + magic).ljust(1024, b"\2")) is None


def summed(header: bytes) -> bytes:
    """A tar header without its magic, with the checksum that fits it."""
    blank = header[:148] + b" " * 8 + header[156:257] + bytes(8) + header[265:512]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def test_a_tar_of_old_has_a_name_of_one_letter_at_least_and_anything_behind_its_header() -> None:
    short = summed(tar("x", b"x")[:512])
    assert seen(short) == "a tar archive"
    assert seen(summed(b"\0" + short[1:])) is None
    found = looks_like(short + b"\3" * 1024)
    assert found is not None
    assert found.name == "a tar archive"
