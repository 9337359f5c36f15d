"""Asynchronous invocations wait in line, so that a day of schedules does not start a day of functions at once.

Source: Lambda developer guide, "Asynchronous invocation" (events go to a queue; how many leave it at a time is
Lambda's decision) and "Error handling for asynchronous invocation" (a throttled event goes back to the queue for up to
six hours, after a second at first and five minutes at most, which is no retry; a function whose reserved
concurrency is 0 does not get its events). Here ``at_once`` leave the queue for each function; invocations whose answer
is waited for are not held up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from localcloud.host import Host

LAMBDA = "services.lambda_svc"
LONGEST_WAIT_SECONDS = 21_600.0
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 1.0, 300.0


def install(host: Host, *, at_once: int) -> None:
    """The base runs each asynchronous invocation in a thread with a copy of the caller's context."""
    waits_until: ContextVar[float | None] = ContextVar("waits_until", default=None)
    lines: dict[str, threading.Semaphore] = {}
    lock = threading.Lock()
    closed = threading.Event()
    base_invoke: Callable[[dict[str, Any], Any], None] = host.lookup(LAMBDA, "invoke_async_with_retry")
    base_execute: Callable[[dict[str, Any], Any], dict[str, Any]] = host.lookup(LAMBDA, "_execute_function")
    reserved: Callable[[dict[str, Any], dict[str, Any]], int | None] = host.lookup(LAMBDA, "_reserved_concurrency")

    def invoke(function: dict[str, Any], event: Any) -> None:
        configs = function.get("event_invoke_configs") or {}
        config = function.get("event_invoke_config") or configs.get("$LATEST") or {}
        token = waits_until.set(time.monotonic() + float(config.get("MaximumEventAgeInSeconds", LONGEST_WAIT_SECONDS)))
        try:
            base_invoke(function, event)
        finally:
            waits_until.reset(token)

    def execute(function: dict[str, Any], event: Any) -> dict[str, Any]:
        until = waits_until.get()
        if until is None:
            return base_execute(function, event)
        config = function.get("config") or function
        with lock:
            line = lines.setdefault(config.get("FunctionArn", ""), threading.Semaphore(at_once))
        pause = FIRST_PAUSE_SECONDS
        while True:
            with line:
                result = base_execute(function, event)
            if not result.get("throttle") or reserved(function, config) == 0 or time.monotonic() + pause > until:
                return result
            if closed.wait(pause):
                return result
            pause = min(2 * pause, LAST_PAUSE_SECONDS)

    host.replace(LAMBDA, "invoke_async_with_retry", invoke)
    host.replace(LAMBDA, "_execute_function", execute)
    host.on_shutdown(closed.set)
