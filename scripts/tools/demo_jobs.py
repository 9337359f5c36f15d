"""The jobs of the demo: what they are about, how they are started, and waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockferry.cli.operate import JobState, Operator
from blockferry.cli.watch import saying
from blockferry.local.upload import Uploaded

from tools.readback import Changes

Say = Callable[[str], None]


@dataclass(frozen=True)
class Night:
    """The disk after the second day and its snapshot, which was uploaded on top of the first one's."""

    image: Path
    uploaded: Uploaded
    changes: Changes


class JobFailed(RuntimeError):
    """A job of the demo ended otherwise than it should have."""


def ended(operator: Operator, operation: str, request: Mapping[str, Any], say: Say) -> JobState:
    """Start a job and wait for its end."""
    arn = operator.start(operation, request, job_id=f"demo-{operation}-{time.time_ns()}")
    say(f"started {arn}")
    return operator.wait(arn, sleep=time.sleep, on_progress=saying(say))


def succeeded(operator: Operator, operation: str, request: Mapping[str, Any], say: Say) -> Any:
    state = ended(operator, operation, request, say)
    if state.status != "SUCCEEDED":
        raise JobFailed(f"{operation} {state.job_id} {state.status}: {state.error}: {state.cause}")
    return state.output
