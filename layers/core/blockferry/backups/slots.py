"""Who makes the backups of a slot: claims in the work bucket, of which each thing has one.

A claim is made by a conditional write, so of several runs that start side by side one has it. It holds what was to be
made, so that a later run can put right what a run that died has left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from botocore.exceptions import ClientError
from pydantic import Field, ValidationError

from blockferry.core.errors import IncompleteTransfer
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import Record
from blockferry.jobs.workspace import SLOTS, Workspace

CLAIMS = "claims/"

SETTLING = timedelta(minutes=2)
"""How long EC2 may take until it shows what an unanswered request has made."""

CONFLICTS = 5
"""Times that a write is tried that met another one at the same moment, which S3 answers with 409."""


class Claim(Record):
    """Who makes the backup of something in a slot. ``at`` is when the execution last set out to ask EC2 for it,
    ``tags`` are those that the backup of each volume is to have, ``made`` the snapshots by their volumes, once all is
    done."""

    format: Literal[1] = 1
    execution_arn: str
    at: str
    tags: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)
    made: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Held:
    """A claim as it is stored, with the ETag by which it is replaced."""

    claim: Claim
    etag: str


@dataclass(frozen=True)
class Slot:
    """The claims of one slot, named as ``slot_name`` names it."""

    folder: JobFolder

    @classmethod
    def of(cls, workspace: Workspace, name: str) -> Slot:
        return cls(workspace.folder(SLOTS, name))

    def claim(self, resource: str, claim: Claim) -> Held | None:
        """Claim a thing; ``None`` when it is claimed already."""
        return self._put(resource, claim, {"IfNoneMatch": "*"})

    def replace(self, resource: str, held: Held, claim: Claim) -> Held | None:
        """Put another claim in the place of one; ``None`` when somebody else was quicker."""
        return self._put(resource, claim, {"IfMatch": held.etag})

    def held(self, resource: str) -> Held | None:
        """The claim of a thing, if there is one. Raises ``IncompleteTransfer`` when it is damaged."""
        name = self._name(resource)
        try:
            answer = self.folder.s3.get_object(Bucket=self.folder.bucket, Key=self.folder.key(name))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        try:
            return Held(Claim.model_validate_json(answer["Body"].read()), answer["ETag"])
        except ValidationError as error:
            raise IncompleteTransfer(f"{self.folder.uri(name)} is damaged: {error}") from error

    def resources(self) -> list[str]:
        """What is claimed."""
        return [name.removeprefix(CLAIMS).removesuffix(".json") for name in self.folder.names(CLAIMS)]

    def _put(self, resource: str, claim: Claim, condition: Mapping[str, str]) -> Held | None:
        name = self._name(resource)
        body = claim.model_dump_json().encode()
        for attempt in range(CONFLICTS):
            try:
                answer = self.folder.s3.put_object(
                    Bucket=self.folder.bucket,
                    Key=self.folder.key(name),
                    Body=body,
                    ContentType="application/json",
                    ChecksumAlgorithm="SHA256",
                    **condition,  # type: ignore[arg-type]
                )
                return Held(claim, answer["ETag"])
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in ("PreconditionFailed", "412"):
                    # The answer to an earlier attempt of this very request may be lost: then it is ours.
                    found = self.held(resource)
                    return found if found is not None and found.claim == claim else None
                if code not in ("ConditionalRequestConflict", "409") or attempt == CONFLICTS - 1:
                    raise
        return None

    def _name(self, resource: str) -> str:
        return f"{CLAIMS}{resource}.json"


def goes_on(describe: Callable[[str], Mapping[str, object]], execution_arn: str) -> bool:
    """Whether an execution may still be at work, by what ``describe`` says of it."""
    try:
        return describe(execution_arn)["status"] == "RUNNING"
    except ClientError as error:
        if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
            return False
        raise
