"""The seams between the engine and the world: tasks, objects, time, randomness."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from localcloud.states.cancellation import Cancellation
from localcloud.states.clock import Clock
from localcloud.states.expressions import Evaluator
from localcloud.states.registry import Registry
from localcloud.states.resources import Resource
from localcloud.states.threads import Threads
from localcloud.states.tokens import TaskTokens


class Abandonment:
    """Tells a task call that nobody waits for it any more."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def abandon(self) -> None:
        with self._lock:
            self.event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_abandon(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self.event.is_set():
                self._callbacks.append(callback)
                return
        callback()


@dataclass(frozen=True, kw_only=True)
class Caller:
    """On whose behalf a call is made."""

    account: str
    region: str
    role_arn: str
    execution_arn: str
    state_machine_arn: str


@dataclass(frozen=True, kw_only=True)
class TaskCall:
    """One attempt of a Task state. ``submitted`` is called with the first answer of .sync integrations."""

    resource: Resource
    arguments: Any
    caller: Caller
    role_arn: str | None = None
    abandonment: Abandonment = field(default_factory=Abandonment)
    submitted: Callable[[Any], None] = lambda _: None


class TaskInvoker(Protocol):
    def invoke(self, call: TaskCall) -> Any:
        """The task's result, as JSON types. Raises ``StateError`` with the service's error name."""
        ...


class ObjectStore(Protocol):
    """S3, as Distributed Maps use it. Raises ``OSError`` with the reason for whatever goes wrong."""

    def open(self, caller: Caller, arguments: Mapping[str, Any]) -> IO[bytes]:
        """Stream of an object; ``arguments``: Bucket, Key, and VersionId, ExpectedBucketOwner if given."""
        ...

    def list(self, caller: Caller, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Etag, Key, LastModified (epoch seconds), Size and StorageClass of every object, page by page."""
        ...

    def put(self, caller: Caller, *, bucket: str, key: str, body: IO[bytes]) -> None: ...


Permit = Callable[[Caller, str, str], None]
"""``permit(caller, action, resource)`` raises ``StateError`` unless the machine's role allows what Step Functions
does as it without a request of its own, as starting the children of a Map Run."""


def permit_all(caller: Caller, action: str, resource: str) -> None:
    """The ``Permit`` of a cloud in which no policies are enforced: it allows everything."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """What every execution works with."""

    clock: Clock
    evaluator: Evaluator
    invoker: TaskInvoker
    objects: ObjectStore
    threads: Threads
    tokens: TaskTokens
    registry: Registry
    random: random.Random
    shutdown: Cancellation
    """The root of all cancellations."""
    permit: Permit = permit_all
    spool_dir: str | None = None
    max_workers: int = 256
    """Threads of one map, whatever its MaxConcurrency."""
