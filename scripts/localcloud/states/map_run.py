"""A Map Run: the children of a Distributed Map, their counts and their settings."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from localcloud.states import model
from localcloud.states.limits import MAX_CHILDREN, MAX_REDRIVABLE_EVENTS
from localcloud.states.spool import Spool

_COUNTED: Final = {
    model.RUNNING: "running",
    model.SUCCEEDED: "succeeded",
    model.FAILED: "failed",
    model.TIMED_OUT: "timedOut",
    model.ABORTED: "aborted",
    model.PENDING_REDRIVE: "pendingRedrive",
}


class MapRun:
    """A Map Run, shared by the conductor, its workers and the API: every access holds ``changed``."""

    def __init__(
        self,
        *,
        arn: str,
        identifier: str,
        execution_arn: str,
        parent_machine_arn: str,
        state_machine_arn: str,
        child_prefix: str,
        workflow: Mapping[str, Any],
        express: bool,
        started: float,
        spool: Spool,
    ) -> None:
        self.arn = arn
        self.identifier = identifier
        self.execution_arn = execution_arn
        self.parent_machine_arn = parent_machine_arn
        self.state_machine_arn = state_machine_arn
        self.child_prefix = child_prefix
        self.workflow = workflow
        self.express = express
        self.start_date = started
        self.spool = spool
        self.changed = threading.Condition()
        self.status = model.RUNNING
        self.stop_date: float | None = None
        self.redrive_count = 0
        self.redrive_date: float | None = None
        self.max_concurrency = 0
        self.tolerated_count: int | None = None
        self.tolerated_percentage: float | None = None
        self.children: dict[int, model.Execution] = {}
        self.next_child = 0
        self.to_redrive: list[int] = []
        self.reading = True
        self.read_error: Exception | None = None
        self.results_written = 0
        self.items_written = 0
        self.failures_not_redrivable = 0
        self.items_not_redrivable = 0
        self._executions: Counter[str] = Counter()
        self._items: Counter[str] = Counter()

    @property
    def label(self) -> str:
        return self.state_machine_arn.rsplit("/", 1)[-1]

    def concurrency(self, workers: int) -> int:
        return min(self.max_concurrency or MAX_CHILDREN, MAX_CHILDREN, workers)

    def let_go(self) -> None:
        """The inputs are not needed any more: nothing of this Map Run will be started or redriven."""
        with self.changed:
            if not self.reading:
                self.spool.close()

    def moved(self, child: model.Execution, before: str | None) -> None:
        """Count ``child`` under its status, no longer under ``before``."""
        if before is not None:
            self._executions[before] -= 1
            self._items[before] -= child.item_count
        self._executions[child.status] += 1
        self._items[child.status] += child.item_count

    def exceeded(self) -> bool:
        """Whether more items have failed than is tolerated."""
        failed = self._items[model.FAILED] + self._items[model.TIMED_OUT]
        if not failed:
            return False
        if self.tolerated_count is None and not self.tolerated_percentage:
            return True
        if self.tolerated_count is not None and failed > self.tolerated_count:
            return True
        if self.tolerated_percentage is None:
            return False
        if self.tolerated_percentage == 0:
            return True
        # The percentage is of all items, so it cannot be exceeded before all are known.
        return not self.reading and failed * 100 > self.tolerated_percentage * self.spool.total_items

    def prepare_redrive(self, now: float) -> None:
        """Mark the unsuccessful children that can run again."""
        self.redrive_count += 1
        self.redrive_date = now
        self.status = model.RUNNING
        self.stop_date = None
        self.to_redrive = []
        self.failures_not_redrivable = self.items_not_redrivable = 0
        for index, child in sorted(self.children.items()):
            if child.status == model.SUCCEEDED:
                continue
            if not self.express and len(child.history) >= MAX_REDRIVABLE_EVENTS:
                self.failures_not_redrivable += 1
                self.items_not_redrivable += child.item_count
                continue
            before, child.status = child.status, model.PENDING_REDRIVE
            self.moved(child, before)
            self.to_redrive.append(index)

    def settle_pending_redrives(self) -> None:
        """Children that were not redriven after all are what they were: unsuccessful."""
        for index in self.to_redrive:
            child = self.children[index]
            child.status = model.FAILED if child.error else model.ABORTED
            self.moved(child, model.PENDING_REDRIVE)
        self.to_redrive = []

    def update(self, **settings: Any) -> None:
        """UpdateMapRun: settings that are not ``None`` take effect at once."""
        with self.changed:
            if settings.get("max_concurrency") is not None:
                self.max_concurrency = settings["max_concurrency"]
            if settings.get("tolerated_count") is not None:
                self.tolerated_count = settings["tolerated_count"]
            if settings.get("tolerated_percentage") is not None:
                self.tolerated_percentage = settings["tolerated_percentage"]
            self.changed.notify_all()

    def describe(self) -> dict[str, Any]:
        """The answer of DescribeMapRun."""
        with self.changed:
            answer: dict[str, Any] = {
                "mapRunArn": self.arn,
                "executionArn": self.execution_arn,
                "status": self.status,
                "startDate": self.start_date,
                "maxConcurrency": self.max_concurrency,
                "toleratedFailurePercentage": float(self.tolerated_percentage or 0.0),
                "toleratedFailureCount": self.tolerated_count or 0,
                "itemCounts": self._counts(
                    self._items, self.spool.total_items, self.items_written, self.items_not_redrivable
                ),
                "executionCounts": self._counts(
                    self._executions, len(self.spool), self.results_written, self.failures_not_redrivable
                ),
                "redriveCount": self.redrive_count,
            }
            if self.stop_date is not None:
                answer["stopDate"] = self.stop_date
            if self.redrive_date is not None:
                answer["redriveDate"] = self.redrive_date
            return answer

    def _counts(self, counter: Counter[str], total: int, written: int, not_redrivable: int) -> dict[str, int]:
        counts = {name: counter[status] for status, name in _COUNTED.items()}
        counts["pending"] = total - sum(counts.values())
        return {**counts, "total": total, "resultsWritten": written, "failuresNotRedrivable": not_redrivable}
