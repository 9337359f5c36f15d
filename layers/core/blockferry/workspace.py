"""The work bucket of a region: ``jobs/<job_id>/...``. Nothing bigger than a pointer to it crosses a state."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError
from pydantic import BaseModel, ValidationError

from blockferry.blocks import BlockRange
from blockferry.digests import Stretch, pack, unpack
from blockferry.errors import IncompleteTransfer
from blockferry.jobs import Job, Proof

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "jobs/"

R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Workspace:
    """The objects of jobs in one bucket.

    ``job.json`` the record; ``plan.jsonl`` one range a line; ``digests/<first>-<stop>-<targets>.bin`` what was proved
    of a stretch; ``failed/<target>.txt`` a target that a worker gave up on; ``refused.txt`` why the job cannot be done
    at all; ``image/`` and ``image.json`` an image that was unpacked; ``targets.json`` the targets' states and
    ``missing.jsonl`` what they miss; ``results/`` the map's own results; ``proof.json`` and ``receipt.json`` the end.
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

    def mark_failed(self, job_id: str, target: int, reason: str) -> None:
        """Let the other workers know that a target cannot be written at present."""
        self.write(job_id, f"failed/{target}.txt", reason.encode(), content_type="text/plain; charset=utf-8")

    def refuse(self, job_id: str, reason: str) -> None:
        """Let all others know that the job cannot be done and why: its targets are to be deleted."""
        self.write(job_id, "refused.txt", reason.encode(), content_type="text/plain; charset=utf-8")

    def refusal(self, job_id: str) -> str | None:
        """Why the job cannot be done, if a worker has found that out."""
        body = self.read(job_id, "refused.txt")
        return None if body is None else body.decode()

    def failed_targets(self, job_id: str) -> frozenset[int]:
        """The targets that a worker has marked."""
        prefix = self.key(job_id, "failed/")
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        names = (item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", ()))
        return frozenset(int(name.removesuffix(".txt")) for name in names)

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
                answer = self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": doomed, "Quiet": True})
                if answer.get("Errors"):
                    first = answer["Errors"][0]
                    raise RuntimeError(f"s3://{self.bucket}/{first.get('Key')}: {first.get('Message')}")
                deleted += len(doomed)
        return deleted
