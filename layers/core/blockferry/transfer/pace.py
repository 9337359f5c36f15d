"""The pace of one worker: its part of what the jobs that run leave each other."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Self

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.core.errors import OutOfTime
from blockferry.core.pacing import Pace
from blockferry.core.retry import Deadline
from blockferry.jobs.call import JobCall
from blockferry.jobs.running import Running
from blockferry.transfer.job import Job

FIRST_SECONDS, LATER_SECONDS = 5.0, 30.0
"""Pauses before the second look at what runs, when all workers that start together are there, and before later ones."""

SHORT_SECONDS, CARRIED_SECONDS = 5.0, 45.0
"""A stretch is over before others would have seen it, and is not announced, when neither the plan's pace takes longer
for it than the first, nor what the network of a worker carries longer than the second."""

SLICE_SECONDS = 10.0
"""The longest pause after which a worker with a slow pace looks whether it is still counted."""

LAST_SECONDS = 30.0
"""Nothing is looked at any more when so much of the time is left."""


class WorkerPace(Pace):
    """Lets the blocks of one worker through; a context in which the worker counts as running.

    At first as the plan said, and then by what runs: the blocks a second of the job, beside those of others, divided by
    its workers. Of these as many are counted as were seen in one of the last two looks, since between two ranges a
    worker is not there for a moment, and in the beginning as many as were planned. A look that fails changes nothing:
    more is asked for then than there is, at most, and EBS refuses the rest.
    """

    def __init__(self, job: Job, call: JobCall, *, first: int, blocks: int, deadline: Deadline) -> None:
        super().__init__(job.blocks_per_second, clock=call.clock)
        self._job = (call.folder.operation, call.folder.job_id)
        self._asked = job.asks
        self._first = first
        self._deadline = deadline
        self._running = Running(call.folder.bucket, call.folder.s3)
        self._workers = job.max_concurrency
        self._pauses = iter((FIRST_SECONDS,))
        carried = blocks / self._asked.blocks_per_worker
        short = blocks / job.blocks_per_second <= SHORT_SECONDS and carried <= CARRIED_SECONDS
        self._due = float("inf") if short else call.clock.monotonic()
        self._looking = threading.Lock()
        self._announced = False

    def __enter__(self) -> Self:
        self._look_if_due()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._announced:
            # A lease that could not be deleted ends by itself.
            with contextlib.suppress(ClientError, BotoCoreError):
                self._running.end(self._job, self._first)

    def take(self) -> None:
        self._look_if_due()
        super().take()

    def _wait(self, seconds: float) -> None:
        """Raises ``OutOfTime`` where the call would be over before the block is due."""
        if seconds >= self._deadline.remaining():
            raise OutOfTime("at its pace, the worker has no time left for another block")
        while seconds > 0:
            self._clock.sleep(min(seconds, SLICE_SECONDS))
            seconds -= SLICE_SECONDS
            self._look_if_due()

    def _look_if_due(self) -> None:
        if self._clock.monotonic() < self._due or not self._looking.acquire(blocking=False):
            return
        try:
            self._look()
        finally:
            self._looking.release()

    def _look(self) -> None:
        if self._deadline.remaining() < LAST_SECONDS:
            self._due = float("inf")
            return
        self._due = self._clock.monotonic() + next(self._pauses, LATER_SECONDS)
        self._announced = True
        try:
            self._running.renew(self._job, self._first, self._asked)
            seen = self._running.look(self._job)
        except (ClientError, BotoCoreError):
            return
        there = max(1, seen.workers.get(self._job, 0))
        self.change(seen.share(self._job, self._asked) / max(there, self._workers))
        self._workers = there
