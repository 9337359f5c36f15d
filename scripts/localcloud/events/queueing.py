"""Asynchronous invocations wait in line, so that a day of schedules does not start a day of functions at once.

Source: Lambda developer guide, "Asynchronous invocation" (events go to a queue; how many leave it at a time is
Lambda's decision). Here it is ``at_once`` for each function; invocations whose answer is waited for are not held up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from localcloud.host import Host

LAMBDA = "services.lambda_svc"


def install(host: Host, *, at_once: int) -> None:
    """The base runs each asynchronous invocation in a thread with a copy of the caller's context."""
    waits: ContextVar[bool] = ContextVar("waits", default=False)
    lines: dict[str, threading.Semaphore] = {}
    lock = threading.Lock()
    base_invoke: Callable[[dict[str, Any], Any], None] = host.lookup(LAMBDA, "invoke_async_with_retry")
    base_execute: Callable[[dict[str, Any], Any], dict[str, Any]] = host.lookup(LAMBDA, "_execute_function")

    def invoke(function: dict[str, Any], event: Any) -> None:
        token = waits.set(True)
        try:
            base_invoke(function, event)
        finally:
            waits.reset(token)

    def execute(function: dict[str, Any], event: Any) -> dict[str, Any]:
        if not waits.get():
            return base_execute(function, event)
        arn = (function.get("config") or function).get("FunctionArn", "")
        with lock:
            line = lines.setdefault(arn, threading.Semaphore(at_once))
        with line:
            return base_execute(function, event)

    host.replace(LAMBDA, "invoke_async_with_retry", invoke)
    host.replace(LAMBDA, "_execute_function", execute)
