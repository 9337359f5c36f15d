"""Seconds of an invocation's time that a step keeps back for its end, so that what it did is stored before it is cut
off. The step stops when so much of its time is left, and is called again. And the seconds that a whole job has."""

from __future__ import annotations

JOB_SECONDS = 604_800.0
"""Time of a job, seven days: TimeoutSeconds of its state machine, which then ends it."""

PLAN_SECONDS = 60.0
"""Reserve of Plan transfer while it counts for a dry run: one request may take its whole read timeout."""

MOVE_SECONDS = 60.0
"""Reserve of Move blocks: one request may take its whole read timeout (30 s), then the digests are stored."""

UNPACK_SECONDS = 60.0
"""Reserve of Unpack image: one request may take its whole read timeout, then chunks are stored."""

INSPECT_SECONDS = 60.0
"""Reserve of Inspect snapshots: one request may take its whole read timeout, then the report is written."""

RECEIPT_SECONDS = 60.0
"""Reserve of Write receipt: a few requests, each of which may be tried again, then the receipt is stored."""

SWEEP_SECONDS = 30.0
"""Reserve of Sweep jobs: no job is begun with less, and what has to be deleted beyond it is left to the next sweep."""

BACKUP_SECONDS = 180.0
"""Reserve of Take backups: an attempt whose end is not known is waited for two minutes, then tags are set."""

COMPLETE_SECONDS = 300.0
"""Reserve of Complete transfer: one target may take its whole retry budgets, then the states are stored."""
