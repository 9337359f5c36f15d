"""What there is of an object that a job writes: whether it is made, which uploads are the job's, and their end."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.aws.uploads import Upload, UploadBucket, upload_bucket
from blockferry.targets.kind import Sealings

EXECUTION = "blockferry-execution"
"""The object's metadata that has the mark of the execution that has made it."""

CLOCKS = timedelta(minutes=5)
"""How far the clocks of a function and of S3 may be apart; signatures allow more (API reference, RequestTimeTooSkewed),
but an upload that is taken for older than it is is kept."""


@dataclass(frozen=True)
class ObjectState:
    """What S3 says of an object: it is ``completed`` when it is there as it was sent."""

    snapshot_id: str
    state: str
    state_message: str = ""
    headers: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class OwnUpload:
    """An upload of the job. One that is not ``marked`` was begun by a call that died before it could say so."""

    upload: Upload
    marked: bool


def marker_of(execution: str) -> tuple[bytes, str]:
    """The part that says whose an upload is, and its SHA-256 (base64)."""
    body = f"blockferry execution {execution}\n".encode()
    return body, base64.b64encode(hashlib.sha256(body).digest()).decode()


def made_by(execution: str, headers: Mapping[str, Any]) -> bool:
    """Whether the object with these headers was made by this execution."""
    return bool(headers.get("Metadata", {}).get(EXECUTION) == execution)


def own_object(bucket: UploadBucket, key: str, execution: str) -> Mapping[str, Any] | None:
    """The headers of an object, if this execution has made it."""
    found = bucket.head(key)
    return found if found is not None and made_by(execution, found) else None


@dataclass(frozen=True)
class LeftObject:
    """An object of a job that cannot be finished. ``parts`` is the number of its last part, ``since`` when the job was
    planned."""

    identity: Identity
    bucket: str
    key: str
    execution: str
    parts: int
    since: datetime
    failed: bool = False

    @property
    def snapshot_id(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        return f"object {self.snapshot_id}"

    def uploads(self, bucket: UploadBucket) -> Iterator[OwnUpload]:
        """The uploads to its key that are the job's: those with its mark behind the last part, and those without any
        part that were begun after the job was planned."""
        _, sha256 = marker_of(self.execution)
        for each in bucket.begun(self.key):
            behind = bucket.sent(self.key, each.upload_id, first=self.parts + 1, most=1)
            if behind and (behind[0].number, behind[0].sha256) == (self.parts + 1, sha256):
                yield OwnUpload(each, marked=True)
            elif each.begun > self.since - CLOCKS and bucket.sent(self.key, each.upload_id, most=1) == []:
                yield OwnUpload(each, marked=False)

    def clear(self, bucket: UploadBucket) -> None:
        """End all uploads of the job to its key."""
        for each in list(self.uploads(bucket)):
            bucket.abort(self.key, each.upload.upload_id)

    def discard(self, call: Call, sealings: Sealings | None, *, mark: str) -> str | None:
        """End its uploads. What S3 has made an object of is kept."""
        bucket = upload_bucket(call, self.identity, self.bucket)
        self.clear(bucket)
        # Behind that: a completion that was on its way has come before, or finds no upload.
        return "it is complete" if own_object(bucket, self.key, self.execution) is not None else None
