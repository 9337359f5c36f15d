"""What there is of an archive that is written: whether it is finished, whose it is, and how it is cleared away.

An archive is finished by its manifest, which is written where there is none. Whoever wants to be sure that another one
cannot finish it any more, and has not either, writes something else there first: then it is *given up*, for good.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blockferry.aws.archives import bucket_of
from blockferry.aws.call import Call
from blockferry.aws.objects import Bucket
from blockferry.aws.sessions import Identity
from blockferry.core.checksums import digest_of, encode
from blockferry.core.errors import OutOfTime, RetryLater
from blockferry.core.quotas import DELETED_OBJECTS
from blockferry.core.reserves import SWEEP_SECONDS
from blockferry.formats.archive import manifest
from blockferry.formats.archive.layout import (
    INDEX,
    MANIFEST,
    SEGMENTS,
    UNFINISHED,
    ArchiveAddress,
    is_part,
)
from blockferry.formats.archive.manifest import Manifest
from blockferry.targets.kind import Sealings


@dataclass(frozen=True)
class ArchiveState:
    """What S3 says of an archive: it is ``completed`` when it has its manifest."""

    snapshot_id: str
    state: str
    state_message: str = ""
    manifest: Manifest | None = None


@dataclass(frozen=True)
class LeftArchive:
    """An archive of a job, or of a command, that cannot be finished."""

    identity: Identity
    address: ArchiveAddress
    failed: bool = False

    @property
    def snapshot_id(self) -> str:
        return self.address.archive_id

    @property
    def name(self) -> str:
        return f"archive {self.address.uri()}"

    def discard(self, call: Call, sealings: Sealings | None, *, mark: str) -> str | None:
        """Delete its objects, if it has no manifest and its claim is that of this execution, or it is given up. What
        else lies below its address is kept.

        Raises ``OutOfTime`` where there are more than the call has time for: another one goes on.
        """
        bucket = bucket_of(call, self.identity, self.address.bucket)
        unfinished = self.address.key(UNFINISHED)
        claim = bucket.get(unfinished)
        owner = None if claim is None else claimed_by(claim)
        there = bucket.get(self.address.key(MANIFEST))
        given_up = there is not None and manifest.is_given_up(there)
        if there is not None and not given_up:
            # Whoever wrote the manifest may have died before it took its claim away.
            bucket.delete([unfinished] if owner == mark else [])
            return "it is complete"
        if claim is None and not given_up:
            return None if next(parts_of(bucket, self.address), None) is None else "nobody says whose it is"
        if claim is not None and owner != mark:
            return "it is another execution's"
        doomed: list[str] = []
        gone = 0
        # As they are listed: an archive of 64 TiB has two million.
        for key in parts_of(bucket, self.address):
            doomed.append(key)
            if len(doomed) == DELETED_OBJECTS:
                bucket.delete(doomed)
                gone, doomed = gone + len(doomed), []
                if call.seconds_left < SWEEP_SECONDS:
                    raise OutOfTime(f"{gone} of its objects are deleted, and there are more")
        bucket.delete(doomed)
        # Last: whoever dies before it finds out again whose the rest is.
        bucket.delete([unfinished])
        return None


def parts_of(bucket: Bucket, address: ArchiveAddress) -> Iterator[str]:
    """The keys of the indexes and segments that are there of an archive. What others keep below its address, whole
    archives perhaps, is not among them."""
    for place in (INDEX, SEGMENTS):
        for each in bucket.listed(address.key(place)):
            if is_part(each.key.removeprefix(address.key())):
                yield each.key


def claim_of(mark: str, *, job_id: str, machine: str | None) -> bytes:
    """The claim of an execution; ``machine`` says which process it is, where it is no job's."""
    told = {"execution": mark, "job_id": job_id} | ({} if machine is None else {"machine": machine})
    return (json.dumps(told) + "\n").encode()


def claimed_by(body: bytes) -> str | None:
    """The mark of the execution that a claim is of."""
    return _member(body, "execution")


def machine_of(body: bytes) -> str | None:
    """The process that a claim is of; ``None`` where it is a job's."""
    return _member(body, "machine")


def whose(body: bytes, address: ArchiveAddress) -> str:
    """Whose a claim is that is in the way, and what to do about it, behind "is being written by"."""
    machine = machine_of(body)
    if machine is None:
        return (
            f"another job, or was left by one ({body.decode(errors='replace').strip():.200}): name another "
            "archive.archive_id, or wait until the resume window of that job is over"
        )
    return (
        f"a command on a machine ({machine:.200}), or was left by one that died: name another archive.archive_id; what "
        f"a dead one left is deleted with: blockferry discard {address.uri()}"
    )


def give_up(call: Call, identity: Identity, address: ArchiveAddress, *, mark: str, put: Mapping[str, Any]) -> bool:
    """Make sure that an archive can never be finished, also by a request that is still on its way; ``mark`` is that of
    its claim. Returns ``False`` when it is finished: then nothing is changed. Raises ``RetryLater`` when what was in
    the place of the manifest is gone as soon as it is looked at."""
    bucket = bucket_of(call, identity, address.bucket)
    body = manifest.given_up(mark)
    key = address.key(MANIFEST)
    if bucket.put(key, body, sha256=encode(digest_of(body)), once=True, **put) is not None:
        return True
    there = bucket.get(key)
    if there is None:
        raise RetryLater(f"{bucket.uri(key)} was there, and was deleted just now: begin again")
    return manifest.is_given_up(there)


def _member(body: bytes, name: str) -> str | None:
    try:
        told = json.loads(body)
    except ValueError:
        return None
    return str(told[name]) if isinstance(told, dict) and name in told else None
