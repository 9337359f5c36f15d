"""The execution of a state machine that a job is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Execution:
    """An execution by its ARN, ``arn:<partition>:states:<region>:<account>:execution:<state machine>:<name>``.

    ``mark`` is its SHA-256 (hex): every snapshot of the job carries it as a tag. A name may be that of several jobs, of
    other operations, Regions and deployments; an ARN is that of one.
    """

    arn: str

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]

    @property
    def account(self) -> str:
        return self.arn.split(":")[4]

    @property
    def job_id(self) -> str:
        return self.arn.split(":")[7]

    @property
    def mark(self) -> str:
        return hashlib.sha256(self.arn.encode()).hexdigest()

    def client_token(self, number: int) -> str:
        """The idempotency key of a target: at most 64 ASCII characters, the same whenever it is started again."""
        return hashlib.sha256(f"{self.arn}/{number}".encode()).hexdigest()
