"""Reading objects of S3: ranges of an image that must not change meanwhile, each with one retry budget.

boto3 retries requests but not bodies, so both are retried here. Give it a client with few retries of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from blockferry.aws.errors import translated
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import BlockferryError, OutOfTime, RequestRefused, RetryLater, SourceChanged
from blockferry.core.retry import Attempts, Clock, Deadline, RetryPolicy

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class _ShortBody(BlockferryError):
    """An answer has another length than what was asked for: read again."""


class ObjectReader:
    """Reads objects with one S3 client.

    Every method raises ``RequestRefused`` for errors that no repetition mends, ``RetryLater`` when the budget is used
    up on errors that pass, ``OutOfTime`` when the deadline leaves no room for another attempt. Safe to share between
    threads.
    """

    def __init__(
        self,
        s3: S3Client,
        *,
        counts: RequestCounts | None = None,
        clock: Clock | None = None,
        deadline: Deadline | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self._s3 = s3
        self._counts = counts or RequestCounts()
        self._clock = clock or Clock()
        self._deadline = deadline or Deadline(None, clock=self._clock)
        self._policy = policy or RetryPolicy()

    def part(self, bucket: str, key: str, *, etag: str, first: int, length: int) -> bytes:
        """``length`` bytes from offset ``first`` on. Raises ``SourceChanged`` when the object is not ``etag`` now."""
        name = f"s3://{bucket}/{key}"
        what = f"GetObject of {name}, {length} bytes from {first} on"

        def send() -> bytes:
            answer = self._s3.get_object(
                Bucket=bucket, Key=key, Range=f"bytes={first}-{first + length - 1}", IfMatch=etag
            )
            return _body(answer, length)

        try:
            return self._call(what, send)
        except ClientError as error:
            status = status_of(error)
            # Without a permission to list the bucket a deleted object is answered with 403, and stays a refusal.
            if status == 404:
                raise SourceChanged(f"{what}: the image was deleted while it was read; start a new job") from error
            if status in (412, 416):
                raise SourceChanged(
                    f"{what}: the image was replaced while it was read, its ETag is no longer {etag}; start a new job"
                ) from error
            raise RequestRefused(f"{what}: {translated(error)}") from error

    def whole(self, bucket: str, key: str) -> bytes | None:
        """All bytes of a small object; ``None`` when there is none."""
        what = f"GetObject of s3://{bucket}/{key}"
        try:
            return self._call(what, lambda: _body(self._s3.get_object(Bucket=bucket, Key=key), None))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise RequestRefused(f"{what}: {translated(error)}") from error

    def _call(self, what: str, send: Callable[[], bytes]) -> bytes:
        """The body that ``send`` gets, asked for within the budget. Raises ``ClientError`` for what does not pass."""
        attempts = Attempts(self._policy, clock=self._clock, deadline=self._deadline)
        while True:
            self._counts.sent("GetObject", self._s3.meta.region_name)
            try:
                return send()
            except ClientError as failure:
                error = translated(failure)
                if not isinstance(error, RetryLater):
                    raise
                code = failure.response["Error"]["Code"]
            except (_ShortBody, BotoCoreError, HTTPError, OSError) as failure:
                # What urllib3 and the socket raise while a body is read does not always come wrapped by botocore.
                error = RetryLater(f"{type(failure).__name__}: {failure}")
                code = type(failure).__name__.removeprefix("_")
            self._counts.retried("GetObject", code)
            if attempts.pause():
                continue
            text = f"{what}: {error} (after {attempts.failed} attempts)"
            raise (OutOfTime(text) if attempts.out_of_time else RetryLater(text)) from error


def parts(
    reader: ObjectReader, bucket: str, key: str, *, etag: str, size_bytes: int, start: int, length: int
) -> Iterator[bytes]:
    """The object from offset ``start`` on, ``length`` bytes at a time, read when they are asked for."""
    for first in range(start, size_bytes, length):
        yield reader.part(bucket, key, etag=etag, first=first, length=min(length, size_bytes - first))


def _body(answer: Any, length: int | None) -> bytes:
    with closing(answer["Body"]) as body:
        announced = answer.get("ContentLength")
        # Looked at before the body is: whoever ignores the range sends an image that does not fit into memory.
        if length is not None and announced not in (None, length):
            raise _ShortBody(f"{announced} bytes were announced, {length} were asked for")
        data: bytes = body.read()
    expected = announced if length is None else length
    if expected is not None and len(data) != expected:
        raise _ShortBody(f"{len(data)} bytes came instead of {expected}")
    return data


def status_of(error: ClientError) -> int:
    """The HTTP status of an answer; 0 when there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
