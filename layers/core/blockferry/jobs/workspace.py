"""The work bucket of a region: ``jobs/<job_id>/...``. Nothing bigger than a pointer to it crosses a state."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError
from pydantic import BaseModel, ValidationError

from blockferry.core.blocks import BlockRange
from blockferry.core.errors import IncompleteTransfer
from blockferry.jobs.digests import Stretch, pack, unpack
from blockferry.jobs.record import Job, Proof, Sealing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "jobs/"

FINAL = ".final.txt"

R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Marks:
    """Positions of targets: ``failed`` could not be written for a while, ``given_up`` cannot be made at all."""

    failed: frozenset[int]
    given_up: frozenset[int]


@dataclass(frozen=True)
class Workspace:
    """The objects of jobs in one bucket.

    ``job.json`` the record; ``plan.jsonl`` one range a line; ``digests/<first>-<stop>-<targets>.bin`` what was proved
    of a stretch; ``failed/<target>.txt`` a target that could not be written for a while, ``failed/<target>.final.txt``
    why one cannot be made at all; ``refused.txt`` why the job cannot be done at all; ``sealing/<snapshot id>.json``
    whether EBS was asked to seal a target; ``rounds.json`` how often missing ranges were planned; ``image/`` and
    ``image.json`` an image that was unpacked; ``targets.json`` the targets' states and ``missing.jsonl`` what they
    miss; ``results/`` the map's own results; ``proof.json`` and ``receipt.json`` the end.
    """

    bucket: str
    s3: S3Client

    def key(self, job_id: str, name: str) -> str:
        return f"{PREFIX}{job_id}/{name}"

    def uri(self, job_id: str, name: str) -> str:
        return f"s3://{self.bucket}/{self.key(job_id, name)}"

    def job_ids(self) -> Iterator[str]:
        """Every job that has left anything in the bucket."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=PREFIX, Delimiter="/")
        for page in pages:
            for common in page.get("CommonPrefixes", ()):
                yield common["Prefix"].removeprefix(PREFIX).removesuffix("/")

    def job(self, job_id: str) -> Job | None:
        return self.record(job_id, "job.json", Job)

    def save_job(self, job: Job) -> None:
        self.write(job.job_id, "job.json", job.model_dump_json(indent=1).encode())

    def proof(self, job_id: str) -> Proof | None:
        return self.record(job_id, "proof.json", Proof)

    def save_proof(self, job_id: str, proof: Proof) -> None:
        self.write(job_id, "proof.json", proof.model_dump_json(indent=1).encode())

    def save_plan(self, job_id: str, ranges: Iterable[BlockRange]) -> int:
        """Write the plan and return the number of ranges in it."""
        lines = [json.dumps({"first": r.first, "stop": r.stop}) for r in ranges]
        self.write(job_id, "plan.jsonl", ("\n".join(lines) + "\n").encode())
        return len(lines)

    def save_missing(self, job_id: str, missing: Iterable[tuple[BlockRange, tuple[int, ...]]]) -> None:
        """Write the plan of what single targets still miss."""
        lines = [json.dumps({"first": r.first, "stop": r.stop, "targets": list(numbers)}) for r, numbers in missing]
        self.write(job_id, "missing.jsonl", ("\n".join(lines) + "\n").encode())

    def sealing(self, job_id: str, snapshot_id: str) -> Sealing | None:
        """How far the completion of a target has come; ``None`` when EBS was never asked."""
        return self.record(job_id, f"sealing/{snapshot_id}.json", Sealing)

    def save_sealing(self, job_id: str, snapshot_id: str, sealing: Sealing) -> None:
        self.write(job_id, f"sealing/{snapshot_id}.json", sealing.model_dump_json().encode())

    def rounds(self, job_id: str) -> int:
        """How often missing ranges were planned since the job was started or resumed."""
        body = self.read(job_id, "rounds.json")
        return 0 if body is None else int(json.loads(body)["planned"])

    def save_rounds(self, job_id: str, planned: int) -> None:
        self.write(job_id, "rounds.json", json.dumps({"planned": planned}).encode())

    def mark_failed(self, job_id: str, target: int, reason: str) -> None:
        """Let the other workers know that a target cannot be written at present."""
        self.write(job_id, f"failed/{target}.txt", reason.encode(), content_type="text/plain; charset=utf-8")

    def refuse(self, job_id: str, reason: str) -> None:
        """Let all others know that the job cannot be done and why: its targets are to be deleted."""
        self.write(job_id, "refused.txt", reason.encode(), content_type="text/plain; charset=utf-8")

    def refusal(self, job_id: str) -> str | None:
        """Why the job cannot be done, if a worker has found that out."""
        return self._text(job_id, "refused.txt")

    def give_up(self, job_id: str, target: int, reason: str) -> None:
        """Let all others know that a target cannot be made, whatever is repeated: it is to be deleted."""
        self.write(job_id, f"failed/{target}{FINAL}", reason.encode(), content_type="text/plain; charset=utf-8")

    def marks(self, job_id: str) -> Marks:
        """The targets that are marked as failed or given up."""
        prefix = self.key(job_id, "failed/")
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        names = [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", ())]
        final = frozenset(int(name.removesuffix(FINAL)) for name in names if name.endswith(FINAL))
        return Marks(frozenset(int(name.split(".", 1)[0]) for name in names) - final, final)

    def failure(self, job_id: str, target: int) -> str | None:
        """Why a target was marked as failed."""
        return self._text(job_id, f"failed/{target}.txt")

    def given_up(self, job_id: str, target: int) -> str | None:
        """Why a target was given up."""
        return self._text(job_id, f"failed/{target}{FINAL}")

    def forget_failures(self, job_id: str, targets: Iterable[int]) -> None:
        """Take the marks of failed targets away: they are tried again."""
        doomed = [{"Key": self.key(job_id, f"failed/{target}.txt")} for target in targets]
        if doomed:
            self._delete_keys(doomed)

    def _text(self, job_id: str, name: str) -> str | None:
        body = self.read(job_id, name)
        return None if body is None else body.decode()

    def save_stretch(self, job_id: str, stretch: Stretch) -> None:
        # Zero-padded, so that S3's listing order is the order of blocks. The targets are part of the name: a range
        # that is moved again for one target must not replace what was proved for the others.
        targets = ".".join(str(number) for number in stretch.targets)
        self.write(job_id, f"digests/{stretch.first:010d}-{stretch.stop:010d}-{targets}.bin", pack(stretch))

    def stretch_keys(self, job_id: str) -> Iterator[str]:
        """Keys of the digest objects in ascending order of their first block."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.key(job_id, "digests/")
        )
        for page in pages:
            for item in page.get("Contents", ()):
                yield item["Key"]

    def stretch(self, key: str) -> Stretch:
        """The stretch under a key. Raises ``IncompleteTransfer`` when the object is damaged."""
        body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return unpack(body, name=f"s3://{self.bucket}/{key}")

    def read(self, job_id: str, name: str) -> bytes | None:
        """An object's bytes; ``None`` when there is none."""
        try:
            return self.s3.get_object(Bucket=self.bucket, Key=self.key(job_id, name))["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise

    def write(self, job_id: str, name: str, body: bytes, *, content_type: str = "application/json") -> None:
        """Store an object; S3 checks its SHA-256 on arrival."""
        self.s3.put_object(
            Bucket=self.bucket,
            Key=self.key(job_id, name),
            Body=body,
            ContentType=content_type,
            ChecksumAlgorithm="SHA256",
        )

    def record(self, job_id: str, name: str, model: type[R]) -> R | None:
        """A stored record; ``None`` when there is none. Raises ``IncompleteTransfer`` when it is damaged."""
        body = self.read(job_id, name)
        if body is None:
            return None
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            raise IncompleteTransfer(f"{self.uri(job_id, name)} is damaged: {error}") from error

    def delete_all_but(self, job_id: str, *, keep: frozenset[str]) -> int:
        """Delete a job's objects except the named ones; returns how many went."""
        return self._delete(self.key(job_id, ""), keep)

    def delete_below(self, job_id: str, folder: str) -> int:
        """Delete a job's objects in a folder, which ends with a slash; returns how many went."""
        return self._delete(self.key(job_id, folder), frozenset())

    def _delete(self, prefix: str, keep: frozenset[str]) -> int:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        deleted = 0
        for page in pages:
            doomed: list[Any] = [
                {"Key": item["Key"]}
                for item in page.get("Contents", ())
                if item["Key"].removeprefix(prefix) not in keep
            ]
            if doomed:
                self._delete_keys(doomed)
                deleted += len(doomed)
        return deleted

    def _delete_keys(self, doomed: list[Any]) -> None:
        answer = self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": doomed, "Quiet": True})
        if answer.get("Errors"):
            first = answer["Errors"][0]
            raise RuntimeError(f"s3://{self.bucket}/{first.get('Key')}: {first.get('Message')}")
