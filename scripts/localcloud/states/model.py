"""Records of the engine: machines, executions, and where in the graph an execution is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from localcloud.states.cancellation import Cancellation
from localcloud.states.errors import StateError
from localcloud.states.history import History
from localcloud.states.limits import MAX_PAYLOAD_BYTES, MAX_VARIABLES_BYTES, compact, size_of

if TYPE_CHECKING:
    from localcloud.states.map_run import MapRun

RUNNING = "RUNNING"
SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
TIMED_OUT = "TIMED_OUT"
ABORTED = "ABORTED"
PENDING_REDRIVE = "PENDING_REDRIVE"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What an execution runs, frozen when it starts. ``extras`` are what only descriptions show."""

    arn: str
    name: str
    definition: str
    role_arn: str
    type: str
    account: str
    region: str
    version_arn: str | None = None
    alias_arn: str | None = None
    update_date: float = 0.0
    extras: Mapping[str, Any] = field(default_factory=dict)


class VariableBudget:
    """Counts the bytes of all variables of an execution."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0

    def add(self, change: int) -> None:
        with self._lock:
            self._bytes += change
            if self._bytes > MAX_VARIABLES_BYTES:
                self._bytes -= change
                raise StateError(
                    "States.DataLimitExceeded", "The total size of all variables exceeds the limit of 10 MiB."
                )


class Variables:
    """The variables of one scope. Inner scopes see outer ones; nobody assigns to another scope."""

    def __init__(self, *, outer: Variables | None = None, budget: VariableBudget | None = None) -> None:
        self._outer = outer
        self._values: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self._budget: VariableBudget = budget or (outer._budget if outer else VariableBudget())

    def visible(self) -> dict[str, Any]:
        """Name to value, inner over outer: a snapshot, as states see variables at their entry."""
        return {**(self._outer.visible() if self._outer else {}), **self._values}

    def assign(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Set all ``values``; returns them as JSON. Raises ``States.DataLimitExceeded``."""
        texts = {name: compact(value) for name, value in values.items()}
        sizes = {name: size_of(text) for name, text in texts.items()}
        if sum(sizes.values()) > MAX_PAYLOAD_BYTES:
            raise StateError(
                "States.DataLimitExceeded", "The variables of one Assign field have a size exceeding 256 KiB."
            )
        self._budget.add(sum(sizes.values()) - sum(self._sizes.get(name, 0) for name in sizes))
        self._values.update(values)
        self._sizes.update(sizes)
        return texts

    def clear(self) -> None:
        """The scope is over."""
        self._budget.add(-sum(self._sizes.values()))
        self._values.clear()
        self._sizes.clear()


@dataclass
class Frame:
    """A position in one ``States`` object: of the machine, of a branch, or of a map's iteration.

    It is what a redrive goes on from: the state that did not exit, its input and the variables.
    """

    workflow: Mapping[str, Any]
    input: Any
    variables: Variables
    path: str = ""
    state: str = ""
    entered: bool = False
    entered_event: int = 0
    previous_event: int = 0
    finished: bool = False
    output: Any = None
    branches: list[Frame] | None = None
    map_run: MapRun | None = None

    def enter(self, state: str) -> None:
        self.state = state
        self.entered = False
        self.leave_inner()

    def leave_inner(self) -> None:
        """Give up what is inside the state: its branches' variables and its Map Run's inputs."""
        for branch in self.branches or ():
            branch.leave_inner()
            branch.variables.clear()
        self.branches = None
        if self.map_run is not None:
            self.map_run.let_go()
        self.map_run = None

    def rejoin(self, event: int) -> None:
        """The next events of everything that did not finish follow ``event``."""
        self.previous_event = event
        for branch in self.branches or ():
            if not branch.finished:
                branch.rejoin(event)


@dataclass(kw_only=True, eq=False)
class Execution:
    """One execution, of a machine or as a child of a Map Run. Times are seconds since the epoch."""

    arn: str
    name: str
    machine: Machine
    state_machine_arn: str
    input: str
    start_date: float
    history: History
    frame: Frame | None
    cancellation: Cancellation
    status: str = RUNNING
    stop_date: float | None = None
    output: str | None = None
    error: str | None = None
    cause: str | None = None
    trace_header: str | None = None
    redrive_count: int = 0
    redrive_date: float | None = None
    map_run: MapRun | None = None
    item_count: int = 0
    express: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    closed: threading.Event | None = None
    """The event that is set while the execution is not running; children of a map have none, there may be very many."""
    unwound: threading.Event | None = None
    """The event that is set once no thread works on the execution any more; children of a map have none."""
    on_status: Callable[[Execution], None] | None = None
    """The listener to changes of status, called with the lock held, so that it is told them in order."""

    @property
    def is_open(self) -> bool:
        return self.status == RUNNING

    def change_status(self, status: str) -> None:
        """The caller holds the lock and has set everything else."""
        self.status = status
        if self.on_status is not None:
            self.on_status(self)
        if self.closed is not None and status != RUNNING:
            self.closed.set()
