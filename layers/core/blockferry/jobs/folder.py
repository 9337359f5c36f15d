"""The objects of one job in the work bucket, below one prefix for each function that writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError
from pydantic import BaseModel, ValidationError

from blockferry.aws.errors import not_deleted
from blockferry.core.blocks import BlockRange
from blockferry.core.errors import IncompleteTransfer, OutOfTime
from blockferry.core.quotas import DELETED_OBJECTS
from blockferry.jobs import recounts
from blockferry.jobs.digests import Stretch, pack, unpack
from blockferry.jobs.record import Proof, Sealing, Stopped, Swept
from blockferry.jobs.recounts import Recounted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "jobs/"

JOB = "plan/job.json"
RANGES = "plan/ranges.jsonl"
STARTED = "plan/started.json"
DIGESTS = "moved/digests/"
RECOUNTS = "moved/recounts/"
FAILED = "moved/failed/"
STOPPED = "moved/failed/stopped.json"
REFUSED = "moved/refused.txt"
STARTED_LATE = "proved/started/"
SEALING = "proved/sealing/"
MISSING = "proved/missing.jsonl"
ROUNDS = "proved/rounds.json"
TOLD = "proved/told.json"
RESUMED = "proved/resumed.json"
TARGETS = "proved/targets.json"
RESULTS = "results"
RECEIPT = "receipt.json"
REPORT = "report.md"
SWEPT = "swept.json"

FINAL = ".final.txt"

NOTHING_TOLD = b"null"

RANGE_PAGE = 20
"""Keys that are asked for at a time where those of one range are looked for."""

DELETES_AT_A_TIME = 4
"""DeleteObjects under way while the next keys are listed, which bounds the rate: S3 takes 3,500 keys a second."""

DIFFERS_AGAIN = frozenset({"duration_seconds", "inspection", "tool_version", "cost_usd"})
"""Members of a receipt that are not the same when a repeated call finds it out again: times, its own requests, and what
comes with an upgrade between the two calls."""

TEXT, MARKDOWN = "text/plain; charset=utf-8", "text/markdown; charset=utf-8"

R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Marks:
    """Positions of targets: ``failed`` could not be written for a while, ``given_up`` cannot be made at all.
    ``stopped``: a range could not be moved, and no other is begun until the job is resumed."""

    failed: frozenset[int]
    given_up: frozenset[int]
    stopped: bool = False


@dataclass(frozen=True)
class JobFolder:
    """``jobs/<operation>/<job_id>/`` in the work bucket.

    Plan transfer writes below ``plan/``: ``job.json`` the record, ``ranges.jsonl`` one range a line, ``started.json``
    the targets that it has started. Unpack image writes ``image/``. Move blocks writes below ``moved/``:
    ``digests/<first>-<stop>-<targets>.bin`` what was proved of a stretch, ``recounts/<first>-<stop>.bin`` what a whole
    range was found to hold when it was listed again, ``failed/<target>.txt`` a target that could not be written for a
    while, ``failed/<target>.final.txt`` why one cannot be made at all, ``failed/stopped.json`` why a range could not be
    moved, ``refused.txt`` why the job cannot be done at all. Complete transfer writes below ``proved/``:
    ``started/<sha256 of the record>.json`` the targets with those that it has started, ``sealing/<snapshot id>.json``
    whether EBS was asked to seal a target, ``targets.json`` the targets' states and ``missing.jsonl`` what they miss,
    ``rounds.json`` how often that was planned, ``told.json`` for which ``stopped.json`` the execution has failed,
    ``proof-<sha256>.json``. The map writes its results below ``results/``, Write receipt ``receipt.json`` and
    ``report.md``, and Sweep jobs ``swept.json``.
    """

    bucket: str
    s3: S3Client
    operation: str
    job_id: str

    @property
    def prefix(self) -> str:
        return f"{PREFIX}{self.operation}/{self.job_id}/"

    def key(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def uri(self, name: str = "") -> str:
        return f"s3://{self.bucket}/{self.key(name)}"

    # -- plan/ -------------------------------------------------------------------------

    def save_ranges(self, ranges: Iterable[BlockRange]) -> int:
        """Write the plan and return the number of ranges in it."""
        return self._save_lines(RANGES, ({"first": r.first, "stop": r.stop} for r in ranges))

    # -- moved/ ------------------------------------------------------------------------

    def save_stretch(self, stretch: Stretch) -> None:
        """Store what was proved of a stretch."""
        # Zero-padded, so that S3's listing order is the order of blocks. The targets are part of the name: a range
        # that is moved again for one target must not replace what was proved for the others.
        targets = ".".join(str(number) for number in stretch.targets)
        self.write(f"{DIGESTS}{stretch.first:010d}-{stretch.stop:010d}-{targets}.bin", pack(stretch))

    def stretch_keys(self, within: BlockRange | None = None) -> Iterator[str]:
        """Keys of the digest objects in ascending order of their first block; of those that begin ``within``."""
        first, end = ("", "~") if within is None else (f"{within.first:010d}", f"{within.stop:010d}")
        prefix = self.key(DIGESTS)
        # A range has one digest object, or one for each call that it took: most of 1,000 keys would be those of others.
        for key in self._keys(DIGESTS, after=first, page=None if within is None else RANGE_PAGE):
            if key.removeprefix(prefix) >= end:
                return
            yield key

    def stretches(self, within: BlockRange) -> list[Stretch]:
        """What is on record of a range of the plan, in ascending order of the first block. Raises
        ``IncompleteTransfer`` when an object is damaged."""
        return [self.stretch(key) for key in self.stretch_keys(within)]

    def stretch(self, key: str) -> Stretch:
        """The stretch under a key. Raises ``IncompleteTransfer`` when the object is damaged."""
        body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return unpack(body, name=f"s3://{self.bucket}/{key}")

    def save_recount(self, found: Recounted, digests: bytes) -> None:
        """Store what was found when a range was counted again."""
        self.write(_recount_name(BlockRange(found.first, found.stop)), recounts.pack(found, digests))

    def recount(self, within: BlockRange) -> tuple[Recounted, memoryview] | None:
        """What was found when the range was counted again, with the digests; ``None`` when nobody has. Raises
        ``IncompleteTransfer`` when the object is damaged."""
        name = _recount_name(within)
        body = self.read(name)
        return None if body is None else recounts.unpack(body, within, name=self.uri(name))

    def mark_failed(self, target: int, reason: str) -> None:
        """Let the other workers know that a target cannot be written at present."""
        self.write(f"{FAILED}{target}.txt", reason.encode(), content_type=TEXT)

    def give_up(self, target: int, reason: str) -> None:
        """Let all others know that a target cannot be made, whatever is repeated: it is to be deleted."""
        self.write(f"{FAILED}{target}{FINAL}", reason.encode(), content_type=TEXT)

    def refuse(self, reason: str) -> None:
        """Let all others know that the job cannot be done and why: its targets are to be deleted."""
        self.write(REFUSED, reason.encode(), content_type=TEXT)

    def refusal(self) -> str | None:
        """Why the job cannot be done, if a worker has found that out."""
        return self._text(REFUSED)

    def marks(self) -> Marks:
        """The targets that are marked as failed or given up, and whether the moving of blocks has ended."""
        keys = set(self._keys(FAILED))
        stopped = self.key(STOPPED) in keys
        names = [key.removeprefix(self.key(FAILED)) for key in keys - {self.key(STOPPED)}]
        final = frozenset(int(name.removesuffix(FINAL)) for name in names if name.endswith(FINAL))
        return Marks(frozenset(int(name.split(".", 1)[0]) for name in names) - final, final, stopped)

    def stop(self, stopped: Stopped) -> None:
        """Let no other range be begun, and keep why; of several reasons the first one."""
        self._write_once(STOPPED, stopped.model_dump_json().encode())

    def stopped(self) -> Stopped | None:
        """Why the moving of blocks ended, if it did."""
        return self.record(STOPPED, Stopped)

    def forget_stop(self) -> None:
        """Let ranges be begun again."""
        self._delete_keys([{"Key": self.key(STOPPED)}])

    def failure(self, target: int) -> str | None:
        """Why a target was marked as failed."""
        return self._text(f"{FAILED}{target}.txt")

    def given_up(self, target: int) -> str | None:
        """Why a target was given up."""
        return self._text(f"{FAILED}{target}{FINAL}")

    def forget_failures(self, targets: Iterable[int]) -> None:
        """Take the marks of failed targets away: they are tried again."""
        doomed = [{"Key": self.key(f"{FAILED}{target}.txt")} for target in targets]
        if doomed:
            self._delete_keys(doomed)

    # -- proved/ -----------------------------------------------------------------------

    def sealing(self, snapshot_id: str) -> Sealing | None:
        """How far the completion of a target has come; ``None`` when EBS was never asked."""
        return self.record(f"{SEALING}{snapshot_id}.json", Sealing)

    def save_sealing(self, snapshot_id: str, sealing: Sealing) -> None:
        self.write(f"{SEALING}{snapshot_id}.json", sealing.model_dump_json().encode())

    def save_missing(self, missing: Iterable[tuple[BlockRange, tuple[int, ...]]]) -> None:
        """Write the plan of what single targets still miss."""
        items = ({"first": r.first, "stop": r.stop, "targets": list(numbers)} for r, numbers in missing)
        self._save_lines(MISSING, items)

    def rounds(self) -> int:
        """How often missing ranges were planned since the job was started or resumed."""
        body = self.read(ROUNDS)
        return 0 if body is None else int(json.loads(body)["planned"])

    def save_rounds(self, planned: int) -> None:
        self.write(ROUNDS, json.dumps({"planned": planned}).encode())

    def told(self) -> Stopped | None:
        """The stop for which the execution has failed, as long as it was not resumed."""
        body = self.read(TOLD)
        return None if body in (None, NOTHING_TOLD) else self._parsed(TOLD, body or b"", Stopped)

    def save_told(self, stopped: Stopped | None) -> None:
        self.write(TOLD, NOTHING_TOLD if stopped is None else stopped.model_dump_json().encode())

    def save_rest(self, ranges: Iterable[BlockRange]) -> None:
        """Write the plan of ranges that no worker has moved, for all targets that take them."""
        self._save_lines(MISSING, ({"first": r.first, "stop": r.stop} for r in ranges))

    def resumed(self) -> bool:
        """Whether ranges that no worker had moved were ever planned once more."""
        return self.read(RESUMED) is not None

    def save_resumed(self) -> None:
        self.write(RESUMED, b"{}")

    def recounted(self) -> set[tuple[int, int]]:
        """First block and end of the ranges that were counted again behind their workers."""
        names = (key.removeprefix(self.key(RECOUNTS)).removesuffix(".bin") for key in self._keys(RECOUNTS))
        return {(int(first), int(stop)) for first, _, stop in (name.partition("-") for name in names)}

    def save_proof(self, proof: Proof) -> str:
        """Store a proof under its SHA-256 (hex), which is returned."""
        body = proof.model_dump_json(indent=1).encode()
        digest = hashlib.sha256(body).hexdigest()
        self.write(_proof_name(digest), body)
        return digest

    def proof(self, digest: str) -> Proof:
        """The proof with this SHA-256. Raises ``IncompleteTransfer`` when it is gone or another one."""
        name = _proof_name(digest)
        body = self.read(name)
        if body is None:
            raise IncompleteTransfer(f"{self.uri(name)} is gone; redrive from Complete transfer")
        if hashlib.sha256(body).hexdigest() != digest:
            raise IncompleteTransfer(f"{self.uri(name)} is not what Complete transfer has stored; start a new job")
        return self._parsed(name, body, Proof)

    # -- its end -----------------------------------------------------------------------

    def save_receipt(self, receipt: Mapping[str, Any], page: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
        """Store a receipt, and the ``page`` of it for people, if there is none yet; returns the one that is stored.

        What a repeated call has found out is the same but for ``DIFFERS_AGAIN``. Raises ``IncompleteTransfer`` for
        another receipt: it is not the job's.
        """
        new = json.loads(json.dumps(receipt))
        stored = self._write_once(RECEIPT, json.dumps(new, indent=1).encode())
        told = new if stored is None else json.loads(stored)
        if any(told.get(name) != new.get(name) for name in (told.keys() | new.keys()) - DIFFERS_AGAIN):
            raise IncompleteTransfer(
                f"{self.uri(RECEIPT)} is there already and says something else than what this job has proved; it is "
                "kept, and this job has no receipt: look at who wrote it, and start a new job under another name"
            )
        self.write(REPORT, page(told).encode(), content_type=MARKDOWN)
        return dict(told)

    def swept(self) -> Swept | None:
        """The mark of the sweeper, if it has given the job up."""
        return self.record(SWEPT, Swept)

    def save_swept(self, swept: Swept) -> None:
        self.write(SWEPT, swept.model_dump_json().encode())

    # -- objects -----------------------------------------------------------------------

    def read(self, name: str) -> bytes | None:
        """An object's bytes; ``None`` when there is none."""
        try:
            return self.s3.get_object(Bucket=self.bucket, Key=self.key(name))["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise

    def write(self, name: str, body: bytes, *, content_type: str = "application/json", once: bool = False) -> None:
        """Store an object; S3 checks its SHA-256 on arrival, and with ``once`` that there is none of that name."""
        condition: Any = {"IfNoneMatch": "*"} if once else {}
        self.s3.put_object(
            Bucket=self.bucket,
            Key=self.key(name),
            Body=body,
            ContentType=content_type,
            ChecksumAlgorithm="SHA256",
            **condition,
        )

    def _write_once(self, name: str, body: bytes) -> bytes | None:
        """Store an object unless there is one; returns the one that is there."""
        try:
            self.write(name, body, once=True)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("PreconditionFailed", "412"):
                raise
            return self.read(name)
        return None

    def record(self, name: str, model: type[R]) -> R | None:
        """A stored record; ``None`` when there is none. Raises ``IncompleteTransfer`` when it is damaged."""
        body = self.read(name)
        return None if body is None else self._parsed(name, body, model)

    def delete_all_but(self, *, keep: frozenset[str], late: Callable[[], bool] | None = None) -> int:
        """Delete the job's objects except the named ones; returns how many went. Raises ``OutOfTime`` when it is
        ``late`` behind the first thousand, and there are more: another call goes on with the rest."""
        return self._delete(self._keys(""), keep, late)

    def delete_below(self, name: str, *, late: Callable[[], bool] | None = None) -> int:
        """Delete the job's objects in a folder, which ends with a slash; returns how many went. Raises ``OutOfTime`` as
        ``delete_all_but``."""
        return self._delete(self._keys(name), frozenset(), late)

    def _parsed(self, name: str, body: bytes, model: type[R]) -> R:
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            raise IncompleteTransfer(f"{self.uri(name)} is damaged: {error}") from error

    def _save_lines(self, name: str, items: Iterable[Mapping[str, Any]]) -> int:
        """Store a list for the map, one JSON object a line; returns how many there are."""
        lines = [json.dumps(item) for item in items]
        self.write(name, ("\n".join(lines) + "\n").encode())
        return len(lines)

    def _text(self, name: str) -> str | None:
        body = self.read(name)
        return None if body is None else body.decode()

    def names(self, name: str, *, after: str = "") -> Iterator[str]:
        """Names of the objects below a name, ascending, those ``after`` it only."""
        return (key.removeprefix(self.prefix) for key in self._keys(name, after=after))

    def _keys(self, name: str, *, after: str = "", page: int | None = None) -> Iterator[str]:
        """Keys below a name, ascending, those ``after`` it only; ``page`` of them are asked for at a time."""
        more: Any = {"StartAfter": self.key(f"{name}{after}")} if after else {}
        if page is not None:
            more["PaginationConfig"] = {"PageSize": page}
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.key(name), **more)
        return (item["Key"] for page in pages for item in page.get("Contents", ()))

    def _delete(self, keys: Iterable[str], keep: frozenset[str], late: Callable[[], bool] | None) -> int:
        kept = {self.key(name) for name in keep}
        doomed = ({"Key": key} for key in keys if key not in kept)
        deleted = 0
        begun: set[Future[None]] = set()
        # An unpacked image of 64 TiB has two million objects.
        with ThreadPoolExecutor(DELETES_AT_A_TIME, thread_name_prefix="delete") as pool:
            while some := list(islice(doomed, DELETED_OBJECTS)):
                if deleted and late is not None and late():
                    raise OutOfTime(f"{self.uri()}: {deleted} objects are deleted, and there are more")
                begun.add(pool.submit(self._delete_keys, some))
                deleted += len(some)
                if len(begun) == DELETES_AT_A_TIME:
                    done, begun = wait(begun, return_when=FIRST_COMPLETED)
                    for each in done:
                        each.result()
        for each in begun:
            each.result()
        return deleted

    def _delete_keys(self, doomed: list[Any]) -> None:
        answer = self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": doomed, "Quiet": True})
        if answer.get("Errors"):
            raise not_deleted(f"s3://{self.bucket}/", answer["Errors"][0])


def _recount_name(within: BlockRange) -> str:
    return f"{RECOUNTS}{within.first:010d}-{within.stop:010d}.bin"


def _proof_name(digest: str) -> str:
    return f"proved/proof-{digest}.json"
