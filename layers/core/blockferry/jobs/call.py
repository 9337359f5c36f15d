"""One call of a function for one job."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from blockferry.aws.call import Call
from blockferry.jobs.folder import JobFolder


@dataclass(frozen=True, kw_only=True)
class JobCall(Call):
    """A call with the folder of the job that it is for."""

    folder: JobFolder

    @classmethod
    def of(cls, call: Call, folder: JobFolder) -> Self:
        """The same call for the job that the folder is of."""
        return cls(**{each.name: getattr(call, each.name) for each in fields(Call)}, folder=folder)
