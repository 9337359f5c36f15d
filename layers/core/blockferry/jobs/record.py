"""What the steps of a job leave for each other beside its plan: what EBS was asked for, what was proved, warnings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from blockferry.aws.sessions import Identity


class Record(BaseModel):
    """A value that is stored in the work bucket; an unknown member means that another version has written it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(Record):
    """A side of a job: where it is, and as whom to act there; without a role as the function itself."""

    region: str
    role_arn: str | None
    external_id: str | None

    @property
    def identity(self) -> Identity:
        return Identity(self.region, self.role_arn, self.external_id)

    def quota(self, home: str) -> str:
        """The account and Region whose quotas its requests use; ``home`` is the account of the function itself."""
        account = home if self.role_arn is None else self.role_arn.split(":")[4]
        return f"{account}/{self.region}"


class JobWarning(Record):
    """What an operator should know of a job that goes on all the same; ``code`` is for programs."""

    code: str
    message: str


class Sums(Record):
    """The count and the checksum by which EBS seals a snapshot: blocks put, and LINEAR over their digests (base64)."""

    blocks_written: int
    linear_checksum: str


class Sealing(Record):
    """How far the completion of a target has come, stored as ``proved/sealing/<snapshot_id>.json``.

    ``asked`` is stored before EBS is asked, so that a target is never taken for unsealed because an answer or a process
    was lost: it is in doubt as long as nothing else is known. ``refused``: EBS did not take the completion, for
    certain. ``object_checksum`` is what S3 has to answer for an object that is made of parts.
    """

    state: Literal["asked", "accepted", "refused"]
    changed_blocks: int
    linear_checksum: str
    object_checksum: str | None = None


class Proof(Sums):
    """What Complete transfer found out, stored as ``proved/proof-<its SHA-256>.json`` for the receipt.

    ``allocated_blocks`` are those that the source holds, ``changed_blocks`` those of them that were written,
    ``removed_blocks`` those written as zeros because only the base holds them; ``blocks_read`` were asked for.
    ``requests`` counts what the workers that finished and the recount sent, by operation and region; ``retries`` what
    was sent again, by operation and error code; ``parent_blocks`` the blocks that were compared with parents.
    """

    allocated_blocks: int
    changed_blocks: int
    removed_blocks: int
    zero_blocks: int
    blocks_read: int
    parent_blocks: int
    requests: dict[str, int]
    retries: dict[str, int]
    worker_gb_seconds: float


class Stopped(Record):
    """Why the moving of blocks ended, stored as ``moved/failed/stopped.json``: the range ``first <= index < stop``
    could not be moved, with the name and the text of the error that was left when nothing more was tried."""

    first: int
    stop: int
    error: str
    cause: str


class Swept(Record):
    """The mark of a job that was given up, stored as ``swept.json``. ``at`` is when (ISO 8601); ``kept`` says that
    targets were kept which EBS was asked to seal and which have not come to their end yet."""

    at: str
    kept: bool
