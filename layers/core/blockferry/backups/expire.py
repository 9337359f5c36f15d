"""Expire: what the state machine of the same name does. Deciding is ``blockferry.lifecycle.expiring``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.sessions import Identity
from blockferry.backups import record
from blockferry.backups.inventory import (
    backups_of,
    described,
    shared_with,
    with_copies,
    with_images,
    with_jobs,
    with_locks,
)
from blockferry.backups.record import Run
from blockferry.backups.settings import Settings
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import RANGES, RESULTS
from blockferry.jobs.workspace import Workspace
from blockferry.lifecycle.expiring import Backup, expiry, objection
from blockferry.lifecycle.items import Action, Item, Outcome
from blockferry.lifecycle.tags import MARK_TAG, Told
from blockferry.requests.lifecycle import ExpireRequest
from blockferry.requests.parts import parse

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

MARK, DELETE = "mark_expired", "delete_expired"

WORKERS = 4
"""Calls that act side by side. EC2 takes some ten requests a second that change something, of the whole account."""

MOST_AGE = timedelta(hours=24)
"""Age of a plan by which nothing is deleted any more: what else there is of a volume may have changed since."""

GONE = "InvalidSnapshot.NotFound"
USED = frozenset({"InvalidSnapshot.InUse", "OperationNotPermitted"})


def plan_expiry(
    call: JobCall,
    workspace: Workspace,
    execution: Execution,
    settings: Settings,
    *,
    started_at: str,
    request: Mapping[str, Any],
    planned_at: datetime | None = None,
) -> dict[str, Any]:
    """Look at all backups of the Region, decide about each, and write down what is to be done.

    Returns ``{"job_id", "bucket", "plan_key", "results_prefix", "max_concurrency", "record", "to_do"}``. Raises
    ``InvalidRequest`` for an input that cannot be used.
    """
    asked = parse(ExpireRequest, request, what="expire")
    now = settings.now(asked.as_of, started_at)
    known = record.planned(call.folder, execution, request)
    if known is None:
        run = Run(
            operation="expire",
            job_id=execution.job_id,
            execution_arn=execution.arn,
            planned_at=(planned_at or datetime.now(UTC)).isoformat(),
            now=now.isoformat(),
            dry_run=asked.dry_run,
            fingerprint=record.fingerprint_of(request),
        )
        known = _decide(call, workspace, execution, settings, run)
    run, digest = known
    return {
        "job_id": execution.job_id,
        "bucket": call.folder.bucket,
        "plan_key": call.folder.key(RANGES),
        "results_prefix": call.folder.key(RESULTS),
        "max_concurrency": WORKERS,
        "record": digest,
        "to_do": bool(run.batches),
    }


def _decide(call: JobCall, workspace: Workspace, execution: Execution, settings: Settings, run: Run) -> tuple[Run, str]:
    ec2 = call.ec2(Identity(execution.region))
    backups = backups_of(ec2, settings.names, settings.schedule)
    backups = with_images(ec2, backups, all_of_region=True)
    backups = with_locks(ec2, backups)
    backups = with_jobs(workspace, backups)
    backups, notes = with_copies(call, settings, backups)
    today = settings.schedule.day_of(datetime.fromisoformat(run.now))
    items, problems = expiry(backups, today=today, run=run.mark, rules=settings.rules)
    to_do: dict[str, list[Mapping[str, Any]]] = {MARK: [], DELETE: []}
    looked = []
    for backup, item in zip(backups, items, strict=True):
        if item.outcome is not Outcome.PLANNED:
            looked.append(item)
        elif item.action is Action.DELETE:
            to_do[DELETE].append({"snapshot_id": item.resource, "reason": item.reason})
        else:
            # What an earlier run has marked and is due is deleted: a mark that is touched goes.
            goes = backup.tags.get(MARK_TAG, run.mark) != run.mark
            to_do[MARK].append({"snapshot_id": item.resource, "reason": item.reason, "goes": goes})
    run = run.model_copy(
        update={"problems": tuple(record.problem_line(each) for each in problems), "notes": tuple(notes)}
    )
    return record.save(call.folder, run, looked, to_do)


def mark_expired(call: JobCall, digest: str, settings: Settings, *, region: str, first: int) -> dict[str, Any]:
    """Mark what a batch says is due, and take the mark of what may stay.

    Whatever changed since the plan counts: a snapshot is marked if nothing stands against it now.
    """
    run = record.recorded(call.folder, digest)
    batch = record.things(call.folder, MARK, first)
    ec2 = call.ec2(Identity(region))
    judging = _Judging(ec2, settings, run, [thing["snapshot_id"] for thing in batch])
    items = [_marked(ec2, judging, run, thing) for thing in batch]
    record.save_outcome(call.folder, MARK, first, items)
    return {"items": len(items)}


def _marked(ec2: EC2Client, judging: _Judging, run: Run, thing: Mapping[str, Any]) -> Item:
    snapshot_id = thing["snapshot_id"]

    def item(outcome: Outcome, reason: str, action: Action = Action.MARK) -> Item:
        return Item(snapshot_id, action, outcome, reason)

    try:
        backup = judging.found.get(snapshot_id)
        if backup is None:
            return item(Outcome.SKIPPED, "it is there no more", Action.NONE)
        against = judging.objection(backup)
        if thing["goes"] and MARK_TAG in backup.tags and judging.ours(backup):
            if run.dry_run:
                return item(Outcome.PLANNED, thing["reason"])
            ec2.delete_tags(Resources=[snapshot_id], Tags=[{"Key": MARK_TAG}])
            return item(Outcome.DONE, thing["reason"])
        if against is not None or thing["goes"]:
            return item(Outcome.SKIPPED, against or "it has no mark any more", Action.NONE)
        if run.dry_run:
            return item(Outcome.PLANNED, thing["reason"])
        ec2.create_tags(Resources=[snapshot_id], Tags=[{"Key": MARK_TAG, "Value": run.mark}])
        return item(Outcome.DONE, thing["reason"])
    except (ClientError, BotoCoreError) as error:
        if _code(error) == GONE:
            return item(Outcome.SKIPPED, "it is there no more", Action.NONE)
        return item(Outcome.FAILED, str(error))


def delete_expired(
    call: JobCall, digest: str, settings: Settings, *, region: str, first: int, now: datetime | None = None
) -> dict[str, Any]:
    """Delete what a batch says is due, each unless something stands against it now."""
    run = record.recorded(call.folder, digest)
    batch = record.things(call.folder, DELETE, first)
    ec2 = call.ec2(Identity(region))
    if (now or datetime.now(UTC)) - datetime.fromisoformat(run.planned_at) > MOST_AGE:
        reason = (
            f"the plan is of {run.planned_at}, and nothing is deleted by one of another day: the next run plans anew"
        )
        items = [Item(thing["snapshot_id"], Action.NONE, Outcome.SKIPPED, reason) for thing in batch]
    else:
        judging = _Judging(ec2, settings, run, [thing["snapshot_id"] for thing in batch])
        items = [_deleted(ec2, judging, run, settings, thing) for thing in batch]
    record.save_outcome(call.folder, DELETE, first, items)
    return {"items": len(items)}


def _deleted(ec2: EC2Client, judging: _Judging, run: Run, settings: Settings, thing: Mapping[str, Any]) -> Item:
    snapshot_id, reason = thing["snapshot_id"], thing["reason"]
    try:
        backup = judging.found.get(snapshot_id)
        if backup is None:
            return Item(snapshot_id, Action.DELETE, Outcome.DONE, f"{reason}; it was gone already")
        against = judging.objection(backup)
        if against is None and not settings.act_at_once and backup.tags.get(MARK_TAG) in (None, run.mark):
            against = "its mark was taken away meanwhile"
        if against is not None:
            return Item(snapshot_id, Action.NONE, Outcome.SKIPPED, against)
        if run.dry_run:
            return Item(snapshot_id, Action.DELETE, Outcome.PLANNED, reason)
        ec2.delete_snapshot(SnapshotId=snapshot_id)
        return Item(snapshot_id, Action.DELETE, Outcome.DONE, reason)
    except (ClientError, BotoCoreError) as error:
        code = _code(error)
        if code == GONE:
            return Item(snapshot_id, Action.DELETE, Outcome.DONE, f"{reason}; it was gone already")
        if code in USED:
            return Item(snapshot_id, Action.NONE, Outcome.SKIPPED, f"EC2 keeps it: {error}")
        return Item(snapshot_id, Action.DELETE, Outcome.FAILED, str(error))


class _Judging:
    """Some snapshots as they are now, and what stands against deleting them."""

    def __init__(self, ec2: EC2Client, settings: Settings, run: Run, ids: Sequence[str]) -> None:
        self._ec2 = ec2
        self._names = settings.names
        self._today = settings.schedule.day_of(datetime.fromisoformat(run.now))
        found = list(described(ec2, ids, settings.names, settings.schedule).values())
        found = with_locks(ec2, with_images(ec2, found, all_of_region=False))
        self.found = {backup.snapshot_id: backup for backup in found}

    def ours(self, backup: Backup) -> bool:
        return Told(backup.snapshot_id, backup.tags, self._names).automated

    def objection(self, backup: Backup) -> str | None:
        """What the plan cannot have known, since it is new or a question for each. What follows from the other backups
        and from the work bucket is the plan's."""
        told = Told(backup.snapshot_id, backup.tags, self._names)
        # Whether copies are complete was found out by the plan, and does not change for the worse.
        known = replace(backup, copies=frozenset(told.wanted()))
        against = objection(known, told, self._today)
        if against is not None:
            return against
        return objection(replace(known, shared=shared_with(self._ec2, backup.snapshot_id)), told, self._today)


def _code(error: Exception) -> str:
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
