"""Static checks of JSONata in a definition: does it parse, and may the field see what it refers to?"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from localcloud.states.expressions import built_in_functions, expression_in, names_in
from localcloud.states.findings import Findings

_BASE: Final = frozenset({"input", "context"})
RESULT: Final = _BASE | {"result"}
ERROR_OUTPUT: Final = _BASE | {"errorOutput"}
PLAIN: Final = _BASE
_VARIABLE = re.compile(r"^[^\W\d]\w*$")
_MAX_VARIABLE_LENGTH: Final = 80


@dataclass(frozen=True)
class Scope:
    """Variable names assigned in one ``States`` object, and in those around it.

    ``hidden`` are outer names that a Distributed Map's states cannot refer to.
    """

    own: frozenset[str]
    outer: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()

    def inner(self, own: frozenset[str], *, distributed: bool) -> Scope:
        around = self.own | self.outer
        if distributed:
            return Scope(own=own, hidden=around | self.hidden)
        return Scope(own=own, outer=around, hidden=self.hidden)


def assigned_names(states: Mapping[str, Any]) -> frozenset[str]:
    """Every variable that a state of ``states`` itself assigns."""
    names: set[str] = set()
    for state in states.values():
        if not isinstance(state, dict):
            continue
        blocks = [state]
        for field in ("Catch", "Choices"):
            blocks += [block for block in state.get(field) or () if isinstance(block, dict)]
        for block in blocks:
            if isinstance(block.get("Assign"), dict):
                names.update(block["Assign"])
    return frozenset(names)


class ExpressionChecker:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._functions = built_in_functions()

    def template(self, value: Any, location: str, scope: Scope, *, sees: frozenset[str] = PLAIN) -> None:
        """Check every string in ``value``; ``sees`` are the parts of ``$states`` the field may use."""
        if isinstance(value, str):
            self._string(value, location, scope, sees)
        elif isinstance(value, dict):
            for key, item in value.items():
                if key.endswith(".$"):
                    self._findings.schema(f"The field name '{key}' is of JSONPath, not of JSONata.", location)
                self.template(item, f"{location}/{key}", scope, sees=sees)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.template(item, f"{location}/{index}", scope, sees=sees)

    def assign(self, value: Any, location: str, scope: Scope, *, sees: frozenset[str]) -> None:
        if not isinstance(value, dict):
            self._findings.schema("Assign must be an object.", location)
            return
        for name in value:
            if not _VARIABLE.match(name) or len(name) > _MAX_VARIABLE_LENGTH:
                self._findings.schema(f"'{name}' is not a variable name.", location)
            elif name == "states":
                self._findings.schema("The variable 'states' is reserved.", location)
            elif name in scope.outer or name in scope.hidden:
                self._findings.error(
                    "VARIABLE_REDEFINED", f"The variable '{name}' is assigned in an outer scope already.", location
                )
        self.template(value, location, scope, sees=sees)

    def number(
        self,
        value: Any,
        location: str,
        scope: Scope,
        *,
        accepts: Callable[[float], bool],
        wanted: str,
        whole: bool = True,
    ) -> None:
        """A numeric field: a constant that ``accepts``, or an expression."""
        if isinstance(value, str) and self.is_expression(value):
            self._string(value, location, scope, PLAIN)
            return
        number = not isinstance(value, bool) and isinstance(value, int if whole else int | float)
        if not number or not accepts(value):
            self._findings.schema(f"The value must be {wanted}, or a JSONata expression.", location)

    def is_expression(self, value: Any) -> bool:
        try:
            return isinstance(value, str) and expression_in(value) is not None
        except ValueError:
            return False

    def _string(self, text: str, location: str, scope: Scope, sees: frozenset[str]) -> None:
        try:
            expression = expression_in(text)
            if expression is None:
                return
            names = names_in(expression)
        except ValueError as error:
            self._findings.error("INVALID_JSONATA_EXPRESSION", str(error), location)
            return
        for field in sorted(names.states_fields - sees - {"*"}):
            self._findings.error(
                "INVALID_JSONATA_EXPRESSION", f"$states.{field} cannot be used in this field.", location
            )
        if "eval" in names.variables:
            self._findings.error(
                "INVALID_JSONATA_EXPRESSION", "$eval is not available in Step Functions, use $parse.", location
            )
        variables = names.variables - self._functions - {"states", "eval", "$"}
        for name in sorted(variables - scope.own - scope.outer):
            if name in scope.hidden:
                self._findings.error(
                    "VARIABLE_NOT_ACCESSIBLE",
                    f"The states of a Distributed Map cannot refer to the outer variable '{name}'; use ItemSelector.",
                    location,
                )
            else:
                self._findings.warning("UNDEFINED_VARIABLE", f"No state assigns the variable '{name}'.", location)
