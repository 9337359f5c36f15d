"""Task tokens of ``.waitForTaskToken`` tasks, and what SendTask* calls say about them."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from localcloud.states.errors import ApiError, StateError
from localcloud.states.limits import MAX_PAYLOAD_BYTES, size_of

_REMEMBERED = 10_000
"""Ended tokens are told from unknown ones (TaskTimedOut, TaskDoesNotExist) for this many tasks."""


@dataclass(eq=False)
class Waiting:
    """A task that waits for its token to come back."""

    changed: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    failure: StateError | None = None
    answered: bool = False
    heartbeat_at: float = field(default_factory=time.monotonic)


class TaskTokens:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, Waiting] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()

    def create(self) -> tuple[str, Waiting]:
        token = base64.b64encode(secrets.token_bytes(96)).decode()
        waiting = Waiting()
        with self._lock:
            self._open[token] = waiting
        return token, waiting

    def end(self, token: str) -> None:
        """End the waiting of a task: later answers come too late."""
        with self._lock:
            if self._open.pop(token, None) is not None:
                self._ended[token] = None
                while len(self._ended) > _REMEMBERED:
                    self._ended.popitem(last=False)

    def succeed(self, token: str, output: str) -> None:
        """Give a waiting task its output. Raises ``ApiError``: InvalidOutput, InvalidToken, TaskDoesNotExist,
        TaskTimedOut."""
        if size_of(output) > MAX_PAYLOAD_BYTES:
            raise ApiError("InvalidOutput", "Invalid Output: the output is bigger than 262144 bytes")
        try:
            value = json.loads(output)
        except ValueError as error:
            raise ApiError("InvalidOutput", f"Invalid Output: '{output[:100]}'") from error
        with self._lock:
            waiting = self._find(token)
            waiting.result = value
            waiting.answered = True
        waiting.changed.set()

    def fail(self, token: str, *, error: str, cause: str) -> None:
        with self._lock:
            waiting = self._find(token)
            waiting.failure = StateError(error, cause)
            waiting.answered = True
        waiting.changed.set()

    def heartbeat(self, token: str) -> None:
        with self._lock:
            waiting = self._find(token)
            waiting.heartbeat_at = time.monotonic()
        waiting.changed.set()

    def _find(self, token: str) -> Waiting:
        if not token:
            raise ApiError("InvalidToken", "Invalid Token: ''")
        waiting = self._open.get(token)
        if waiting is None or waiting.answered:
            if waiting is not None or token in self._ended:
                raise ApiError("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'")
            raise ApiError("TaskDoesNotExist", "Task does not exist")
        return waiting
