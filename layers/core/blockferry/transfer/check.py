"""Check targets: has EBS sealed them?"""

from __future__ import annotations

from typing import Any

from blockferry import snapshots
from blockferry.errors import InvalidRequest, TargetFailed
from blockferry.sessions import Aws
from blockferry.transfer.steps import recorded_job
from blockferry.workspace import Workspace

FIRST_WAIT_SECONDS = 2
MAX_WAIT_SECONDS = 60
"""Small snapshots seal in seconds; a large one is asked about once a minute, far below the history limit."""


def check_targets(*, job_id: str, waited_seconds: int | None, aws: Aws, workspace: Workspace) -> dict[str, Any]:
    """State of every target.

    Returns ``{"completed": bool, "wait_seconds": int, "states": {snapshot id: state}}``. Raises ``TargetFailed``
    naming each target that is neither pending nor completed.
    """
    job = recorded_job(workspace, job_id)
    states: dict[str, str] = {}
    failed: list[str] = []
    for target in job.targets:
        name = f"{target.snapshot_id} in {target.region}"
        try:
            facts = snapshots.describe(aws.ec2(target.identity), target.snapshot_id, region=target.region)
        except InvalidRequest as error:
            failed.append(f"{name}: {error}")
            continue
        states[target.snapshot_id] = facts.state
        if facts.state not in ("pending", "completed"):
            failed.append(f"{name} is in state {facts.state}: {facts.state_message or 'EC2 gives no reason'}")
    if failed:
        raise TargetFailed("targets failed after they were completed:\n" + "\n".join(f"- {f}" for f in failed))
    wait = FIRST_WAIT_SECONDS if waited_seconds is None else min(MAX_WAIT_SECONDS, waited_seconds * 2)
    return {
        "completed": all(state == "completed" for state in states.values()),
        "wait_seconds": wait,
        "states": states,
    }
