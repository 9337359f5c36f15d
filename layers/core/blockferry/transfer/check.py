"""Check targets: has EBS sealed them?"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry import snapshots
from blockferry.aws_errors import translated
from blockferry.errors import InvalidRequest, RetryLater, TargetFailed
from blockferry.sessions import Aws
from blockferry.transfer.steps import recorded_job
from blockferry.workspace import Workspace

FIRST_WAIT_SECONDS = 2
MAX_WAIT_SECONDS = 60
"""Small snapshots seal in seconds; a large one is asked about once a minute, far below the history limit."""


def check_targets(*, job_id: str, waited_seconds: int | None, aws: Aws, workspace: Workspace) -> dict[str, Any]:
    """State of every target.

    Returns ``{"completed": bool, "wait_seconds": int, "states": {snapshot id: state}}``. Every target is asked about
    before anything is raised: ``TargetFailed`` naming each one that is neither pending nor completed, and those that
    cannot be asked about; ``RetryLater`` when that is all there is and may pass.
    """
    job = recorded_job(workspace, job_id)
    states: dict[str, str] = {}
    failed: list[str] = []
    unknown: list[str] = []
    for target in job.targets:
        name = f"{target.snapshot_id} in {target.region}"
        try:
            facts = snapshots.describe(aws.ec2(target.identity), target.snapshot_id, region=target.region)
        except InvalidRequest as error:
            failed.append(f"{name}: {error}")
        except (ClientError, BotoCoreError) as error:
            passing = translated(error)
            (unknown if isinstance(passing, RetryLater) else failed).append(f"{name}: {passing}")
        else:
            states[target.snapshot_id] = facts.state
            if facts.state not in ("pending", "completed"):
                failed.append(f"{name} is in state {facts.state}: {facts.state_message or 'EC2 gives no reason'}")
    told = "\n".join(f"- {line}" for line in (*failed, *unknown))
    if failed:
        raise TargetFailed(f"targets failed after they were completed:\n{told}")
    if unknown:
        raise RetryLater(f"targets whose state EC2 does not tell:\n{told}")
    wait = FIRST_WAIT_SECONDS if waited_seconds is None else min(MAX_WAIT_SECONDS, waited_seconds * 2)
    return {
        "completed": all(state == "completed" for state in states.values()),
        "wait_seconds": wait,
        "states": states,
    }
