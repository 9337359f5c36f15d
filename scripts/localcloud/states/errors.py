"""What can go wrong: inside an execution (States Language errors) and in an API call."""

from __future__ import annotations


class StateError(Exception):
    """A state failed with a States Language error; Retry and Catch see ``error``."""

    def __init__(self, error: str, cause: str = "") -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


class EvaluationError(StateError):
    """A JSONata expression failed, or gave a value that its field does not accept."""

    def __init__(self, cause: str, *, location: str = "") -> None:
        super().__init__("States.QueryEvaluationError", cause)
        self.location = location


class Cancelled(Exception):
    """The execution, branch or child was stopped from outside; nothing in the machine may catch this."""


class DeadlinePassed(Exception):
    """The execution ran longer than its machine's ``TimeoutSeconds``."""


class HistoryFull(Exception):
    """The execution has used up its history events; it fails with ``States.Runtime``, uncatchably."""


class ApiError(Exception):
    """An API request that is refused; ``code`` is the service's exception name."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
