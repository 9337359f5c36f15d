"""Plugs events into the main server: one clock for rules, schedules and the EBS process, delivery, and control.

Control requests:

| request | |
|---|---|
| ``GET clock``, ``POST clock {"advance": seconds}`` | schedules and EBS; what is due is called before the answer |
| ``GET, POST, DELETE events/faults[?id=N]`` | faults of deliveries, see ``faults`` |
| ``GET events/deliveries`` | what became of the last thousand deliveries |
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from localcloud.control import proxy_to
from localcloud.ebs.clock import Clock, OffsetClock, Timers
from localcloud.events import queueing
from localcloud.events.delivery import Deliverer
from localcloud.events.faults import Fault, Faults
from localcloud.events.rules import Rules
from localcloud.events.scheduler import Schedules
from localcloud.events.targets import ApiTargets
from localcloud.events.timetable import Timetable, TooManyRuns
from localcloud.host import ControlError, ControlHandler, ControlRequest, Host

RATE_STARTS = ("immediately", "after_interval")
_CONFIG: Mapping[str, Any] = {"faults": [], "seed": 1, "rate_starts": "immediately", "invocations_at_once": 4}
_THREADS = 8
_TICK_SECONDS = 0.5
"""How late a run may be. Scheduler promises the minute."""
_SETTLE_SECONDS = 60.0
_log = logging.getLogger("localcloud.events")


def install(host: Host) -> None:
    config = {**_CONFIG, **host.part_config("events")}
    if unknown := sorted(config.keys() - _CONFIG.keys()):
        raise ValueError(f"local cloud config: unknown keys in 'events': {', '.join(unknown)}")
    if config["rate_starts"] not in RATE_STARTS:
        raise ValueError(f"local cloud config: 'rate_starts' in 'events' must be one of {', '.join(RATE_STARTS)}")
    at_once = config["invocations_at_once"]
    if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
        raise ValueError("local cloud config: 'invocations_at_once' in 'events' must be a whole number of at least 1")
    queueing.install(host, at_once=at_once)
    faults = Faults()
    for fault in Fault.parse_all(config["faults"]):
        faults.add(fault)
    clock = OffsetClock()
    timers = Timers(clock)
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="events")
    deliverer = Deliverer(
        targets=ApiTargets(
            endpoint_url=host.endpoint_url,
            root_secret=host.keys.secret,
            refusal=lambda target, origin: host.target_refusal(target, origin.arn),
        ),
        clock=clock,
        timers=timers,
        pool=pool,
        faults=faults,
        seed=config["seed"],
    )
    rules = Rules(host, now=clock.now, deliverer=deliverer)
    schedules = Schedules(host, now=clock.now, deliverer=deliverer, rate_starts=config["rate_starts"])
    timetable = Timetable(clock, lambda: [*rules.timed(), *schedules.timed()])
    runner = Runner(timetable, timers)
    host.control["clock"] = ClockControl(
        clock=clock,
        timetable=timetable,
        runner=runner,
        deliverer=deliverer,
        ebs=proxy_to(host.ebs_endpoint_url, host.keys),
    )
    host.control["events"] = EventsControl(faults, deliverer, host.control["events"])

    def close() -> None:
        runner.close()
        pool.shutdown(wait=False, cancel_futures=True)

    host.on_shutdown(close)
    runner.start()


class Runner:
    """A thread that runs what the passing of time makes due."""

    def __init__(self, timetable: Timetable, timers: Timers) -> None:
        self._timetable = timetable
        self._timers = timers
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="events-clock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()

    def run_due(self) -> int:
        ran = self._timetable.run_due()
        self._timers.run_due()
        return ran

    def _loop(self) -> None:
        while not self._stopped.wait(_TICK_SECONDS):
            try:
                self.run_due()
            except Exception:  # time goes on for all other schedules
                _log.exception("running what is due")


@dataclass(frozen=True, kw_only=True)
class ClockControl:
    """``/_local/clock``. The EBS process goes first: who is called sees snapshots as they are by then."""

    clock: Clock
    timetable: Timetable
    runner: Runner
    deliverer: Deliverer
    ebs: ControlHandler

    def __call__(self, request: ControlRequest) -> dict[str, Any]:
        if request.path or request.method not in ("GET", "POST"):
            raise ControlError("GET shows the clock, POST moves it", status=404 if request.path else 405)
        if request.method == "GET":
            return {"now": self.clock.now()}
        seconds = request.json().get("advance")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
            raise ControlError('the body must be {"advance": seconds}, and time does not go back')
        try:
            self.timetable.check(seconds)
        except TooManyRuns as error:
            raise ControlError(str(error)) from error
        self.ebs(ControlRequest(method="POST", path="clock", query={}, body=request.body))
        self.clock.advance(seconds)
        ran = self.runner.run_due()
        if not self.deliverer.settle(_SETTLE_SECONDS):
            raise ControlError(f"targets have not answered within {_SETTLE_SECONDS:g} s", status=504)
        return {"now": self.clock.now(), "runs": ran}


class EventsControl:
    """``/_local/events/...``; what is not ours goes to the part that puts events on the bus."""

    def __init__(self, faults: Faults, deliverer: Deliverer, bus: ControlHandler) -> None:
        self._faults = faults
        self._deliverer = deliverer
        self._bus = bus

    def __call__(self, request: ControlRequest) -> Any:
        match request.method, request.path:
            case _, "":
                return self._bus(request)
            case "GET", "deliveries":
                return {"deliveries": self._deliverer.recent()}
            case "GET", "faults":
                return {"faults": self._faults.listing()}
            case "POST", "faults":
                try:
                    return {"id": self._faults.add(Fault.parse(request.json()))}
                except ValueError as error:
                    raise ControlError(str(error)) from error
            case "DELETE", "faults":
                number = request.query.get("id", "")
                if number and not number.isdigit():
                    raise ControlError("id must be the number of a fault")
                if not self._faults.remove(int(number) if number else None):
                    raise ControlError(f"there is no fault {number}", status=404)
                return {}
        raise ControlError(f"no such control request: {request.method} /_local/events/{request.path}", status=404)
