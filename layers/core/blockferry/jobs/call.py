"""One call of a function for one job."""

from __future__ import annotations

from dataclasses import dataclass

from blockferry.aws.call import Call
from blockferry.jobs.folder import JobFolder


@dataclass(frozen=True, kw_only=True)
class JobCall(Call):
    """A call with the folder of the job that it is for."""

    folder: JobFolder
