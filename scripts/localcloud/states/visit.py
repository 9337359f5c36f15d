"""One visit to a state: what its expressions see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from localcloud.states.clock import iso
from localcloud.states.errors import EvaluationError
from localcloud.states.expressions import Evaluator
from localcloud.states.limits import checked_payload
from localcloud.states.model import Execution, Frame

NOTHING: Final = object()
"""Stands for a part of ``$states`` that a field may not see; JSON null is a value."""


class Visit:
    """Variables and ``$states`` as they were when the state was entered."""

    def __init__(
        self, *, execution: Execution, execution_input: Any, frame: Frame, evaluator: Evaluator, entered: float
    ) -> None:
        self.name = frame.state
        self.state: Mapping[str, Any] = frame.workflow["States"][frame.state]
        self.input = frame.input
        self.path = f"{frame.path}/States/{frame.state}"
        self._variables = frame.variables.visible()
        self._evaluator = evaluator
        machine = execution.machine
        about: dict[str, Any] = {
            "Id": execution.arn,
            "Input": execution_input,
            "Name": execution.name,
            "RoleArn": machine.role_arn,
            "StartTime": iso(execution.start_date),
            "RedriveCount": execution.redrive_count,
        }
        if execution.redrive_date is not None and not execution.express:
            about["RedriveTime"] = iso(execution.redrive_date)
        self._context: dict[str, Any] = {
            "Execution": about,
            "State": {"EnteredTime": iso(entered), "Name": frame.state, "RetryCount": 0},
            "StateMachine": {"Id": execution.state_machine_arn, "Name": execution.state_machine_arn.split(":")[-1]},
        }

    def set_retry_count(self, count: int) -> None:
        self._context = {**self._context, "State": {**self._context["State"], "RetryCount": count}}

    def value(
        self,
        template: Any,
        field: str,
        *,
        result: Any = NOTHING,
        error_output: Any = NOTHING,
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """``template`` evaluated. ``context`` is added to the context object. Raises ``EvaluationError``."""
        states: dict[str, Any] = {"input": self.input, "context": {**self._context, **(context or {})}}
        if result is not NOTHING:
            states["result"] = result
        if error_output is not NOTHING:
            states["errorOutput"] = error_output
        return self._evaluator.template(template, {**self._variables, "states": states}, location=field)

    def field(self, name: str, default: Any, **more: Any) -> Any:
        """The value of a field of the state, or ``default`` if it has none."""
        return self.value(self.state[name], name, **more) if name in self.state else default

    def number(self, name: str, default: float | None, *, least: float, most: float, whole: bool = True) -> Any:
        """A numeric field. Raises ``EvaluationError`` if its expression gives anything else."""
        if name not in self.state:
            return default
        value = self.value(self.state[name], name)
        wrong_type = isinstance(value, bool) or not isinstance(value, int | float)
        if wrong_type or (whole and not float(value).is_integer()):
            kind = "an integer" if whole else "a number"
            raise EvaluationError(
                f"The JSONata expression of the field '{name}' returned an unexpected result type: {kind} is expected.",
                location=name,
            )
        if not least <= value <= most:
            raise EvaluationError(
                f"The value {value} of the field '{name}' is not between {least} and {most}.", location=name
            )
        return int(value) if whole else value

    def outputs(
        self,
        block: Mapping[str, Any],
        default: Any,
        field: str = "",
        **more: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """Output and Assign of the state, a choice or a catcher; both see the values at state entry."""
        output = self.value(block["Output"], f"{field}Output", **more) if "Output" in block else default
        assigned = self.value(block["Assign"], f"{field}Assign", **more) if "Assign" in block else {}
        checked_payload(output, what=f"The state '{self.name}' returned a result which")
        return output, assigned

    def checked_result(self, result: Any) -> str:
        """The result of a task or sub-workflow as JSON; raises ``States.DataLimitExceeded``."""
        return checked_payload(result, what=f"The state/task '{self.name}' returned a result which")
