"""What there is of an archive that a job writes: whether it is finished, whose it is, and how it is cleared away."""

from __future__ import annotations

import json
from dataclasses import dataclass

from blockferry.aws.archives import bucket_of
from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.core.quotas import DELETED_OBJECTS
from blockferry.formats.archive.layout import (
    MANIFEST,
    UNFINISHED,
    ArchiveAddress,
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
    """An archive of a job that cannot be finished."""

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
        """Delete its objects, if it has no manifest and its claim is that of this execution."""
        bucket = bucket_of(call, self.identity, self.address.bucket)
        unfinished = self.address.key(UNFINISHED)
        claim = bucket.get(unfinished)
        owner = None if claim is None else claimed_by(claim)
        if bucket.get(self.address.key(MANIFEST)) is not None:
            # Whoever wrote the manifest may have died before it took its claim away.
            bucket.delete([unfinished] if owner == mark else [])
            return "it is complete"
        if claim is None:
            return None if not any(True for _ in bucket.listed(self.address.key())) else "nobody says whose it is"
        if owner != mark:
            return "it is another execution's"
        doomed: list[str] = []
        # As they are listed: an archive of 64 TiB has two million.
        for each in bucket.listed(self.address.key()):
            doomed += [] if each.key == unfinished else [each.key]
            if len(doomed) == DELETED_OBJECTS:
                bucket.delete(doomed)
                doomed = []
        bucket.delete(doomed)
        # Last: whoever dies before it finds out again whose the rest is.
        bucket.delete([unfinished])
        return None


def claimed_by(body: bytes) -> str | None:
    """The mark of the execution that a claim is of."""
    try:
        told = json.loads(body)
    except ValueError:
        return None
    return str(told["execution"]) if isinstance(told, dict) and "execution" in told else None
