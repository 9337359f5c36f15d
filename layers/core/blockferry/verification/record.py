"""What the steps of a verification leave for each other in the work bucket."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, ValidationError

from blockferry.core.blocks import BlockRange
from blockferry.core.errors import IncompleteTransfer
from blockferry.formats.archive.manifest import Member
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import JobWarning, Place, Record
from blockferry.sources.foreign import JobForeign

PLAN = "plan/verification.json"
FOUND = "moved/verified/"

STORED, COMPARED = "stored", "compared"
"""What a call of a range is at: the objects of the archive, then the blocks of the snapshot."""

MOST_FINDINGS = 1_000
"""Findings of a call that are kept one by one; more of them are counted."""

Code = Literal["manifest", "index", "segment", "content", "other_archive"]


class Finding(Record):
    """Something that is not as it was. ``code`` says what was looked at; the blocks ``first <= index < stop`` are lost
    with it, or differ."""

    code: Code
    object: str
    first: int
    stop: int
    message: str


class Verification(Record):
    """What is to be verified, as it was planned. ``chain`` is the archive and those that it is built upon, and
    ``other`` a second one with its own; ``damage`` was found when they were opened, and then nothing else is looked
    at. ``foreign`` is an archive of another tool, in the place of a chain."""

    format: Literal[1] = 1
    job_id: str
    execution_arn: str
    started_at: str
    fingerprint: str
    place: Place
    chain: tuple[Member, ...] = ()
    other: tuple[Member, ...] = ()
    foreign: JobForeign | None = None
    warnings: tuple[JobWarning, ...] = ()
    snapshot_id: str | None = None
    sample_percent: float = 100.0
    seed: str = ""
    total_blocks: int = 0
    blocks_per_range: int = 0
    workers: int = 1
    workers_because: str = ""
    blocks_per_second: float = 0.0
    damage: tuple[Finding, ...] = ()

    @property
    def uri(self) -> str:
        """The address of the archive."""
        if self.foreign is not None:
            return self.foreign.uri
        return self.chain[0].manifest_uri if self.chain else self.damage[0].object


class Found(Record):
    """What one call found of a range: in its phase it has looked at everything ``first <= index < stop``."""

    first: int
    stop: int
    findings: tuple[Finding, ...] = ()
    more_findings: int = 0
    segments: int = 0
    segments_left_out: int = 0
    indexes: int = 0
    blocks: int = 0
    compared: int = 0
    orphans: int = 0
    stored_bytes: int = 0
    requests: dict[str, int] = Field(default_factory=dict)
    retries: dict[str, int] = Field(default_factory=dict)
    gb_seconds: float = 0.0


def save_plan(folder: JobFolder, plan: Verification) -> str:
    """Store a plan; returns its SHA-256 (hex), by which every later step goes."""
    body = plan.model_dump_json(indent=1).encode()
    folder.write(PLAN, body)
    return hashlib.sha256(body).hexdigest()


def planned(folder: JobFolder) -> Verification | None:
    """The plan that is stored, if there is one. Raises ``IncompleteTransfer`` when it is damaged."""
    return folder.record(PLAN, Verification)


def recorded(folder: JobFolder, record: str) -> Verification:
    """The plan with this SHA-256. Raises ``IncompleteTransfer`` when it is gone or another one."""
    body = folder.read(PLAN)
    if body is None or hashlib.sha256(body).hexdigest() != record:
        raise IncompleteTransfer(
            f"{folder.uri(PLAN)} is gone or is not what this execution has planned; start a new job"
        )
    return Verification.model_validate_json(body)


def save_found(folder: JobFolder, within: BlockRange, phase: str, found: Found) -> None:
    """Store what a call found, in place of what the same call has found before it was repeated."""
    name = f"{FOUND}{within.first:010d}-{within.stop:010d}-{phase}-{found.first:010d}.json"
    folder.write(name, found.model_dump_json().encode())


def found_names(folder: JobFolder) -> Iterator[str]:
    """Names of what calls found, in the order of the ranges, and of a phase in that of the calls."""
    return folder.names(FOUND)


def found_by(name: str) -> tuple[int, str]:
    """The first block of the range of a call, and its phase, by the name of what it found."""
    first, _, phase, _ = name.removeprefix(FOUND).split("-")
    return int(first), phase


def found(folder: JobFolder, name: str) -> Found:
    """What a call found. Raises ``IncompleteTransfer`` when it is gone or damaged."""
    body = folder.read(name)
    try:
        return Found.model_validate(json.loads(body or b"null"))
    except (ValueError, ValidationError) as error:
        raise IncompleteTransfer(f"{folder.uri(name)} is gone or damaged: {error}") from error
