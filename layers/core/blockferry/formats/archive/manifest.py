"""The manifest of an archive: written last, so an archive is one that has it. Its SHA-256 over itself makes every other
object provable: it names each index with its SHA-256, and an index each segment with its own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from blockferry.core.blocks import BlockRange, blocks_of_volume
from blockferry.core.errors import ArchiveDamaged, InvalidRequest
from blockferry.core.holes import HoleMeaning
from blockferry.core.quotas import MAX_VOLUME_GIB
from blockferry.formats.archive.layout import ARCHIVE_ID, index_name, parse_manifest_uri
from blockferry.formats.archive.segment import MAX_LEVEL, MIN_LEVEL

FORMAT = "blockferry-archive-1"

GIVEN_UP = "blockferry-given-up-1"
"""The format of what stands in the place of a manifest that nobody is to write any more: there is no archive."""

FEATURES: frozenset[str] = frozenset()
"""What an archive may need beyond version 1 to be read, as far as this version of Blockferry knows it."""

MAX_MANIFEST_BYTES = 16 << 20
"""10,000 ranges take two MiB; what is larger is none of ours."""

MAX_GIVEN_UP_BYTES = 4_096

MAX_CHAIN = 1_000

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A part of a manifest. Unknown members are refused: another version has written it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Codec(Part):
    """How blocks are compressed."""

    name: Literal["zstd"] = "zstd"
    level: Annotated[int, Field(ge=MIN_LEVEL, le=MAX_LEVEL)]


class SourceFacts(Part):
    """The snapshot that was archived, or the image: exactly one of ``snapshot_id`` and ``image`` (its address, or the
    name of a file). ``start_time`` is ISO 8601."""

    snapshot_id: str | None = None
    image: str | None = None
    region: str | None = None
    owner_id: str | None = None
    volume_id: str | None = None
    start_time: str | None = None
    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    encrypted: bool = False
    kms_key_arn: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.snapshot_id is None) == (self.image is None):
            raise ValueError("an archive is of a snapshot or of an image")
        return self

    @property
    def name(self) -> str:
        return self.snapshot_id or self.image or ""


class Member(Part):
    """An archive that this one is built upon, by the address of its manifest and the manifest's SHA-256."""

    manifest_uri: str
    sha256: Sha256

    @model_validator(mode="after")
    def _address(self) -> Self:
        try:
            parse_manifest_uri(self.manifest_uri)
        except InvalidRequest as error:
            raise ValueError(str(error)) from error
        return self


class IndexFacts(Part):
    """The index object of the range ``first <= index < stop``: how long it is, and its SHA-256."""

    first: Count
    stop: Count
    bytes: Count
    sha256: Sha256

    @property
    def range(self) -> BlockRange:
        return BlockRange(self.first, self.stop)

    @property
    def name(self) -> str:
        return index_name(self.first)


class Counts(Part):
    """``allocated_blocks`` are those of the whole snapshot, also of those that only the base's archive stores; the
    others are what this archive has itself. ``stored_bytes`` are those of its segments."""

    allocated_blocks: Count
    data_blocks: Count
    zero_blocks: Count
    removed_blocks: Count
    segments: Count
    stored_bytes: Count


class Manifest(Part):
    """What ``manifest.json`` holds. Times are ISO 8601.

    ``execution`` is the mark of the job's execution. ``holes`` is what the holes of the source stand for. ``base`` are
    the archives that this one is built upon, the nearest first and the full one last; empty for a full archive.
    ``indexes`` are the ranges of which anything is stored, ascending. ``linear_checksum`` is LINEAR (base64) over
    every allocated block of the snapshot, those of the bases included. ``sha256`` is over the rest of the manifest.
    """

    format: Literal["blockferry-archive-1"] = "blockferry-archive-1"
    features: tuple[str, ...] = Field(default=(), strict=False)
    archive_id: Annotated[str, Field(pattern=f"^{ARCHIVE_ID}$")]
    created_at: str
    tool_version: str
    job_id: str
    execution: Sha256
    block_size: Literal[524288] = 524288
    volume_size_gib: Annotated[int, Field(ge=1, le=MAX_VOLUME_GIB)]
    codec: Codec
    segment_blocks: Annotated[int, Field(ge=1, le=64)]
    source: SourceFacts
    holes: Annotated[HoleMeaning, Field(strict=False)]
    base: Annotated[tuple[Member, ...], Field(strict=False, max_length=MAX_CHAIN)] = ()
    counts: Counts
    linear_checksum: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]
    indexes: Annotated[tuple[IndexFacts, ...], Field(strict=False)]
    sha256: Sha256 = "0" * 64

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        last = 0
        for index in self.indexes:
            if not last <= index.first < index.stop <= self.total_blocks:
                raise ValueError(f"the index of block {index.first} is out of order or range")
            last = index.stop
        return self

    @property
    def total_blocks(self) -> int:
        return blocks_of_volume(self.volume_size_gib)

    @property
    def full(self) -> bool:
        return not self.base

    def overlapping(self, within: BlockRange) -> Iterator[IndexFacts]:
        """The indexes that have anything of a range."""
        return (each for each in self.indexes if each.first < within.stop and within.first < each.stop)


def dump(manifest: Manifest) -> bytes:
    """The object, with its SHA-256."""
    members = manifest.model_dump(mode="json")
    members["sha256"] = _digest(members)
    return (json.dumps(members, ensure_ascii=False, indent=1) + "\n").encode()


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with its SHA-256."""
    return manifest.model_copy(update={"sha256": _digest(manifest.model_dump(mode="json"))})


def given_up(execution: str) -> bytes:
    """What stands in the place of the manifest of an archive that is given up, whose claim had this mark."""
    return (json.dumps({"format": GIVEN_UP, "execution": execution}) + "\n").encode()


def is_given_up(data: bytes) -> bool:
    """Whether there is no archive, and none can come, where this stands in the place of a manifest."""
    try:
        members = json.loads(data) if len(data) <= MAX_GIVEN_UP_BYTES else None
    except (ValueError, RecursionError):
        return False
    return isinstance(members, dict) and members.get("format") == GIVEN_UP


def load(data: bytes, *, name: str) -> Manifest:
    """The manifest in an object. Raises ``ArchiveDamaged`` when it is not what was written, or of another version."""
    try:
        if len(data) > MAX_MANIFEST_BYTES:
            raise ValueError(f"it has {len(data)} bytes")
        members = json.loads(data)
        if not isinstance(members, dict):
            raise ValueError("it is no object of JSON")
    except (ValueError, RecursionError) as error:
        raise ArchiveDamaged(f"manifest {name} is damaged: {error}") from error
    _refuse_unknown(members, name)
    if members.get("sha256") != _digest(members):
        raise ArchiveDamaged(
            f"manifest {name} is damaged: it was changed since it was written, its SHA-256 is not what it says"
        )
    try:
        return Manifest.model_validate(members)
    except ValidationError as error:
        problems = error.errors()
        strange = [_path(each) for each in problems if each["type"] == "extra_forbidden"]
        if strange:
            raise ArchiveDamaged(
                f"manifest {name} has what this version of Blockferry does not know ({', '.join(strange):.200}): read "
                "it with a newer one"
            ) from error
        raise ArchiveDamaged(f"manifest {name} is damaged: {_path(problems[0])}: {problems[0]['msg']}") from error


def _path(problem: ErrorDetails) -> str:
    return ".".join(str(part) for part in problem["loc"])


def _refuse_unknown(members: dict[str, Any], name: str) -> None:
    version = members.get("format")
    if version != FORMAT:
        newer = isinstance(version, str) and re.fullmatch(r"blockferry-archive-\d+", version)
        raise ArchiveDamaged(
            f"manifest {name} has the format {version!r:.60}, this version of Blockferry reads {FORMAT!r}"
            + (": read it with a newer one" if newer else "")
        )
    features = members.get("features")
    unknown = sorted({str(each) for each in features} - FEATURES) if isinstance(features, list) else ["no list"]
    if unknown:
        raise ArchiveDamaged(
            f"manifest {name} needs what this version of Blockferry does not know ({', '.join(unknown):.200}): read it "
            "with a newer one"
        )


def _digest(members: dict[str, Any]) -> str:
    """The SHA-256 over the manifest without its own, as ``jq -cS 'del(.sha256)'`` prints it."""
    rest = {name: value for name, value in members.items() if name != "sha256"}
    text = json.dumps(rest, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    # jq takes DEL for a control character; JSON, and so Python, does not.
    text = text.replace("\x7f", "\\u007f")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass") + b"\n").hexdigest()
