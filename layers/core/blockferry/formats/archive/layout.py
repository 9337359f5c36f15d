"""Where the objects of an archive are: below ``<prefix>/<archive_id>/``, by names whose order is that of the blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass

from blockferry.core.errors import InvalidRequest

MANIFEST = "manifest.json"
INDEX, SEGMENTS = "index/", "segments/"
UNFINISHED = "unfinished.json"
"""Says whose archive this will be, as long as it has no manifest."""

ARCHIVE_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"

_URI = re.compile(
    rf"s3://([a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9])/((?:.*/)?)({ARCHIVE_ID})/{re.escape(MANIFEST)}", re.DOTALL
)


def index_name(first: int) -> str:
    """The index object of the range that begins with this block."""
    return f"{INDEX}{first:010d}.idx"


def segment_name(first: int) -> str:
    """The segment whose first block this is."""
    return f"{SEGMENTS}{first:010d}.zst"


_PART = re.compile(rf"{INDEX}[0-9]{{10}}\.idx|{SEGMENTS}[0-9]{{10}}\.zst")


def is_part(name: str) -> bool:
    """Whether an object of this name, below the address of an archive, is an index or a segment of it. Others may be
    there, too: the address of an archive may be the prefix of other ones."""
    return _PART.fullmatch(name) is not None


def with_slash(prefix: str) -> str:
    """A prefix as archives have it: empty, or with a slash at its end."""
    return prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


@dataclass(frozen=True, order=True)
class ArchiveAddress:
    """An archive's place. ``prefix`` is empty or ends with a slash."""

    bucket: str
    prefix: str
    archive_id: str

    def key(self, name: str = "") -> str:
        return f"{self.prefix}{self.archive_id}/{name}"

    def uri(self, name: str = "") -> str:
        return f"s3://{self.bucket}/{self.key(name)}"

    @property
    def manifest_uri(self) -> str:
        return self.uri(MANIFEST)


def parse_manifest_uri(uri: str, *, what: str = "manifest_uri") -> ArchiveAddress:
    """The archive whose manifest this names. Raises ``InvalidRequest`` for anything else."""
    found = _URI.fullmatch(uri)
    if found is None:
        raise InvalidRequest(
            f"{what}: {uri!r} is not the address of an archive's manifest "
            f"(s3://<bucket>/<prefix>/<archive id>/{MANIFEST})"
        )
    return ArchiveAddress(*found.groups())
