"""The work bucket of a region: a folder for each job. Nothing bigger than a pointer into it crosses a state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockferry.jobs.folder import PREFIX, SWEPT, JobFolder

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SWEEPS = "sweep"
"""No operation: what stands here in place of one is the sweeper's own, below the one name that its role may write."""

SLOTS = "backup-slots"
"""No operation: in place of one, what is common to all runs that look after backups, a folder for each slot."""

NO_JOBS = frozenset({SWEEPS, SLOTS, "backup", "expire", "replicate"})
"""What leaves nothing behind that anybody has to look at: runs that look after backups are many, and each goes by what
it finds."""


@dataclass(frozen=True)
class Workspace:
    """The jobs of one bucket: ``jobs/<operation>/<job_id>/...``."""

    bucket: str
    s3: S3Client

    def folder(self, operation: str, job_id: str) -> JobFolder:
        """The folder of a job, whether it has left anything or not."""
        return JobFolder(self.bucket, self.s3, operation, job_id)

    def folders(self) -> Iterator[JobFolder]:
        """The folder of every job that has left anything in the bucket, but for those of ``NO_JOBS``."""
        for operation in self._names(PREFIX):
            if operation in NO_JOBS:
                continue
            for job_id in self._names(f"{PREFIX}{operation}/"):
                yield self.folder(operation, job_id)

    def folders_in_turn(self) -> list[JobFolder]:
        """The folders of all jobs, beginning where an earlier sweep said that the next one is to go on."""
        found = sorted(self.folders(), key=_place)
        after = self._own.read(SWEPT)
        try:
            place = tuple(json.loads(after or b"[]"))
            first = next((number for number, folder in enumerate(found) if _place(folder) >= place), 0)
        except (ValueError, TypeError):
            # Damaged, or somebody else's. It only says where to begin.
            first = 0
        return found[first:] + found[:first]

    def go_on_at(self, folder: JobFolder) -> None:
        """Note where the next sweep is to begin."""
        self._own.write(SWEPT, json.dumps(_place(folder)).encode())

    @property
    def _own(self) -> JobFolder:
        return self.folder(SWEEPS, "next")

    def earlier_versions(self) -> list[str]:
        """Names of jobs that versions before 0.9 have left directly below ``jobs/``."""
        return [name for name in self._names(PREFIX) if self._holds(f"{PREFIX}{name}/job.json")]

    def _holds(self, key: str) -> bool:
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=key, MaxKeys=1)
        return any(item["Key"] == key for item in found.get("Contents", ()))

    def _names(self, prefix: str) -> Iterator[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        for page in pages:
            for common in page.get("CommonPrefixes", ()):
                yield common["Prefix"].removeprefix(prefix).removesuffix("/")


def _place(folder: JobFolder) -> tuple[str, str]:
    return folder.operation, folder.job_id
