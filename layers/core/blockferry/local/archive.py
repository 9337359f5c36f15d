"""Archive: a raw disk image on this machine becomes an archive in S3, written by the pieces that jobs write them with.

Nothing is recorded but the claim beside the archive, and nothing is resumed: what a run has stored is deleted when it
fails, and what one left that died is deleted by ``discard``.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blockferry import __version__
from blockferry.aws.archives import Archive, open_chain
from blockferry.aws.call import Call
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.blocks import BLOCK_SIZE, blocks_of_volume, blocks_per_range
from blockferry.core.checksums import Linear
from blockferry.core.counts import by_operation
from blockferry.core.errors import InvalidRequest, NoRoom
from blockferry.core.holes import HoleDecision, HoleMeaning, HolePolicy
from blockferry.core.quotas import MAX_VOLUME_GIB
from blockferry.core.retry import Clock
from blockferry.core.tuning import Waits
from blockferry.cost.work import Work, cost_of
from blockferry.formats.archive.manifest import Manifest, Member, SourceFacts
from blockferry.formats.recognise import ImageFormat
from blockferry.jobs.archived import Note
from blockferry.jobs.record import JobWarning
from blockferry.local.claimed import Claimed, confirmed
from blockferry.local.holes import UploadHoles, decide
from blockferry.local.image import refuse_other_format, volume_size
from blockferry.local.interrupts import Interrupts
from blockferry.local.lanes import Lanes, Until
from blockferry.local.tuning import ArchiveTuning
from blockferry.requests.archive import LocalArchiveRequest
from blockferry.sources.archiving import AUTO, newest_base, unless_full, unusable_base, warnings_of
from blockferry.sources.device import ImageSource
from blockferry.targets.archive import ArchiveTarget
from blockferry.targets.archive_proposal import new_archive


@dataclass(frozen=True)
class ImageContents:
    """What the archive of an image is to hold: see ``Contents``."""

    facts: SourceFacts
    holes: HoleDecision
    base: tuple[Member, ...]
    compares: bool


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is started: the archive that is to be, what of the image counts as data, and the
    length of a range in blocks."""

    target: ArchiveTarget
    holes: UploadHoles
    range_blocks: int
    warnings: tuple[JobWarning, ...]


@dataclass(frozen=True)
class _Read:
    """What was read and stored: the manifest that says so, and the number of blocks that were read."""

    manifest: Manifest
    blocks_read: int


def archive_image(
    image: Path,
    request: LocalArchiveRequest,
    *,
    region: str,
    aws: Aws,
    image_format: ImageFormat | None = None,
    clock: Clock | None = None,
    waits: Waits | None = None,
    tuning: ArchiveTuning | None = None,
    interrupts: Interrupts | None = None,
    on_start: Callable[[str], None] = lambda _uri: None,
) -> dict[str, Any]:
    """Archive ``image``, and give what a job's receipt tells. ``region`` is where the bucket is asked for first.

    ``on_start`` is told the address of the archive. If anything fails, or one of the ``interrupts`` comes, what was
    stored is deleted, and a note of the error says so, or what could not be. Raises ``InvalidRequest`` for an unusable
    image, bucket, base or choice, ``SourceChanged`` for a file that changes meanwhile, ``UnreadableSource`` for a disk
    that fails, ``NoRoom``, and what ``Bucket`` raises.
    """
    tuning, interrupts = tuning or ArchiveTuning(), interrupts or Interrupts()
    call = Call(aws=aws, clock=clock or Clock(), waits=waits or Waits())
    began = call.clock.monotonic()
    with ImageSource(image) as source:
        found = prepare(source, request, region=region, call=call, image_format=image_format)
        source.refuse_changed()
        claimed = Claimed(found.target, call)
        lanes = Lanes(found.holes.source, call, tuning, interrupts)
        working = call.until(Until(lambda: interrupts.pending, clock=call.clock))
        with interrupts.held():
            try:
                with interrupts.minding():
                    target = claimed.target = found.target.start(working, token="", mark=found.target.execution)
                    on_start(target.address.uri())
                    read = _read(found, target, lanes, working, tuning, interrupts)
                    source.refuse_changed()
                    interrupts.check()
                    target.commit(working, read.manifest, claimed)
            except BaseException as error:
                lanes.stop()
                claimed.clear(error)
                raise
            lanes.stop()
            try:
                with interrupts.minding():
                    left = claimed.unclaim()
                    facts = target.facts(confirmed(target, working))
                    return _receipt(found, source, facts, read, call, left=left, seconds=call.clock.monotonic() - began)
            except BaseException as error:
                claimed.tell(error)
                raise


def prepare(
    source: ImageSource,
    request: LocalArchiveRequest,
    *,
    region: str,
    call: Call,
    image_format: ImageFormat | None,
) -> Prepared:
    """Look at everything that the archive needs. Raises ``InvalidRequest`` when it cannot be made."""
    # What is wrong with the image is told before AWS is asked for anything.
    if image_format is None:
        refuse_other_format(source, unpacking="archive")
    size = volume_size(source, request.volume_size_gib)
    name = image_name(source.path)
    base, why_full = _base(request, name, region=region, call=call)
    if base is not None:
        size = max(size, base.manifest.volume_size_gib)
        if request.volume_size_gib not in (None, size):
            raise InvalidRequest(
                f"base_manifest_uri {base.address.manifest_uri} is of a volume of {size} GiB, more than the "
                f"{request.volume_size_gib} GiB that were asked for: ask for as many, or name another base"
            )
    holes = _holes(request.options.holes, source, blocks_of_volume(size))
    now = datetime.now(UTC).isoformat()
    contents = ImageContents(
        facts=SourceFacts(image=name, start_time=now),
        holes=holes.decision,
        base=() if base is None else (member(base), *base.manifest.base),
        compares=base is not None,
    )
    mark = hashlib.sha256(secrets.token_bytes(32)).hexdigest()
    target = new_archive(
        request.archive,
        contents,
        call,
        home=region,
        size_gib=size,
        job_id=f"local-{mark[:16]}",
        mark=mark,
        machine=f"{platform.node()}, process {os.getpid()}, since {now}",
    )
    length = blocks_per_range(target.total_blocks, request.options.blocks_per_range)
    return Prepared(target, holes, length, warnings_of(why_full))


def image_name(path: Path) -> str:
    """The name by which a manifest knows an image on a machine, and ``auto`` finds archives of the same one."""
    return f"file://{platform.node()}{path.absolute().as_uri().removeprefix('file://')}"


def member(base: Archive) -> Member:
    """An archive as manifests name it that are built upon it."""
    return Member(manifest_uri=base.address.manifest_uri, sha256=base.manifest.sha256)


def _base(request: LocalArchiveRequest, name: str, *, region: str, call: Call) -> tuple[Archive | None, str | None]:
    """The archive to build upon, of whatever disk: all is compared by digest."""
    uri, most = request.base_manifest_uri, request.options.max_chain
    if uri is None:
        return None, None
    place = Identity(region, request.archive.role_arn, request.archive.external_id)
    largest = request.volume_size_gib or MAX_VOLUME_GIB
    with unusable_base():
        if uri != AUTO:
            return unless_full(open_chain(call, place, uri, what="base_manifest_uri").newest, most)
        found = newest_base(
            request.archive,
            most,
            lambda manifest: manifest.source.image == name and manifest.volume_size_gib <= largest,
            place,
            call,
        )
    where = f"s3://{request.archive.bucket}/{request.archive.prefix}"
    return found or (None, f"below {where} is no archive of {name} that is whole")


def _holes(asked: HolePolicy | None, source: ImageSource, total_blocks: int) -> UploadHoles:
    if asked is HolePolicy.PRESERVE:
        return decide(asked, source, may_be_encrypted=False, on_parent=False, total_blocks=total_blocks)
    reason = "holes of a file read as zeros, and may be zeros that somebody wrote"
    decision = HoleDecision(
        HolePolicy.PRESERVE, HoleMeaning.ZEROS, HoleMeaning.ZEROS, "default", reason, (HolePolicy.PRESERVE,)
    )
    return UploadHoles(decision, HolePolicy.PRESERVE, source, fills=False)


def _read(
    found: Prepared,
    target: ArchiveTarget,
    lanes: Lanes,
    call: Call,
    tuning: ArchiveTuning,
    interrupts: Interrupts,
) -> _Read:
    """Store the image, all but the manifest."""
    linear = Linear()
    blocks_read = 0
    # Not all in memory: of an image of 64 TiB it names two million objects.
    with tempfile.SpooledTemporaryFile(tuning.notes_in_memory) as kept:
        for stored in lanes.stored(target, found.range_blocks):
            linear.extend(stored.note.stop - 1, stored.digests)
            blocks_read += stored.blocks_read
            with _in_temporary_file():
                kept.write(stored.note.model_dump_json().encode() + b"\n")
        kept.seek(0)
        made = target.made_of(call, _notes(kept, interrupts))
    # What it is built upon was opened before all was read.
    target.chain(call)
    return _Read(target.proved(made, linear.blocks, linear.value()), blocks_read)


@contextmanager
def _in_temporary_file() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NoRoom(
            f"what is stored already could not be noted in a temporary file ({error}): make room for those, or name "
            "another folder for them in TMPDIR, and begin again"
        ) from error


def _notes(kept: Iterable[bytes], interrupts: Interrupts) -> Iterator[Note]:
    for line in kept:
        # Behind each note its objects are listed.
        interrupts.check()
        yield Note.model_validate_json(line)


def _receipt(
    found: Prepared,
    source: ImageSource,
    target: dict[str, Any],
    read: _Read,
    call: Call,
    *,
    left: str | None,
    seconds: float,
) -> dict[str, Any]:
    placed = call.counts.placed
    told = f"archive {target['manifest_uri']} is finished, but {left}"
    warnings = (*found.warnings, *(() if left is None else (JobWarning(code="claim_left", message=told),)))
    return {
        **known(found, source),
        "status": "SUCCEEDED",
        "targets": [target],
        "manifest_uri": target["manifest_uri"],
        "allocated_blocks": target["allocated_blocks"],
        "changed_blocks": target["changed_blocks"],
        "removed_blocks": target["removed_blocks"],
        "zero_blocks": target["zero_blocks"],
        "bytes_read": read.blocks_read * BLOCK_SIZE,
        "bytes_written": target["stored_bytes"],
        "linear_checksum": target["linear_checksum"],
        "duration_seconds": round(seconds, 3),
        "requests": dict(sorted(by_operation(placed).items())),
        "retries": dict(sorted(call.counts.retries.items())),
        "cost_usd": cost_of(Work(requests=placed, home=None)),
        "warnings": [*found.holes.warnings, *(warning.model_dump() for warning in warnings)],
        "tool_version": __version__,
    }


def known(found: Prepared, source: ImageSource) -> dict[str, Any]:
    """The members of a receipt that are known before anything is read."""
    decision = found.holes.decision
    return {
        "job_id": found.target.job_id,
        "operation": "archive",
        "source": {"image_uri": found.target.source.name, "codec": "raw", "image_bytes": source.size},
        "holes": HolePolicy.PRESERVE.value,
        "holes_taken_for": decision.taken_for.value,
        "holes_decided_by": decision.by,
        "holes_reason": decision.reason,
    }
