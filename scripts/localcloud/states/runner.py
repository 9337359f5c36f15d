"""What the state types need from the interpreter that runs them."""

from __future__ import annotations

from typing import Any, Protocol

from localcloud.states.cancellation import Cancellation
from localcloud.states.history import History
from localcloud.states.model import Execution, Frame
from localcloud.states.services import Caller, Services


class Runner(Protocol):
    @property
    def execution(self) -> Execution: ...

    @property
    def services(self) -> Services: ...

    @property
    def history(self) -> History: ...

    @property
    def caller(self) -> Caller: ...

    @property
    def input(self) -> Any: ...

    def run(self, frame: Frame, cancellation: Cancellation) -> Any:
        """Run a branch or iteration to its end and return its output."""
        ...

    def event(self, frame: Frame, event_type: str, details: dict[str, Any] | None = None) -> int:
        """Add a history event that follows the frame's last one."""
        ...

    def run_child(self, child: Execution) -> None:
        """Run or resume a child execution of a Map Run to its final status. Raises nothing."""
        ...
