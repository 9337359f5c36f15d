"""The state machine files: where they are, what is filled into them, and a walk over their states."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from blockferry.operations import OPERATIONS

from tools.environment import repository_root

Definition = Mapping[str, Any]

# All that Terraform fills into a definition: ARNs, nothing else. (The local cloud and the linters fill
# in the same names.)
PLACEHOLDERS = frozenset(f"{name}_arn" for operation in OPERATIONS.values() for name in operation.functions)


def machine_files(root: Path | None = None) -> list[Path]:
    """Every definition, sorted by name."""
    return sorted(((root or repository_root()) / "statemachines").glob("*.asl.json"))


def machine_name(file: Path) -> str:
    """``copy`` for copy.asl.json."""
    return file.name.removesuffix(".asl.json")


def render(text: str, *, account: str = "111122223333", region: str = "us-east-1") -> str:
    """A definition with an ARN in every placeholder, as ``templatefile`` would fill them in."""
    for name in PLACEHOLDERS:
        function = name.removesuffix("_arn").replace("_", "-")
        text = text.replace(f"${{{name}}}", f"arn:aws:lambda:{region}:{account}:function:blockferry-{function}")
    return text


@dataclass(frozen=True, kw_only=True)
class State:
    """One state with the graph it belongs to; ``path`` names the states around it."""

    path: str
    name: str
    body: Definition
    siblings: Mapping[str, Definition]

    @property
    def type(self) -> str:
        """Task, Choice, Map and so on."""
        return str(self.body.get("Type"))

    def retriers(self) -> list[Definition]:
        """The entries of Retry."""
        return list(self.body.get("Retry", ()))

    def targets(self) -> list[str]:
        """The state names this state may go to."""
        rules = (*self.body.get("Choices", ()), *self.body.get("Catch", ()))
        named = (self.body.get("Next"), self.body.get("Default"), *(rule.get("Next") for rule in rules))
        return [name for name in named if name is not None]


def graphs(definition: Definition, path: str = "") -> Iterator[tuple[str, Definition]]:
    """The definition itself and every graph inside its Map and Parallel states."""
    yield path, definition
    for name, body in definition.get("States", {}).items():
        inner = f"{path}{name} / "
        for key in ("ItemProcessor", "Iterator"):
            if key in body:
                yield from graphs(body[key], inner)
        for branch in body.get("Branches", ()):
            yield from graphs(branch, inner)


def states(definition: Definition) -> Iterator[State]:
    """Every state, also those inside Map and Parallel states."""
    for path, graph in graphs(definition):
        siblings = graph.get("States", {})
        for name, body in siblings.items():
            yield State(path=f"{path}{name}", name=name, body=body, siblings=siblings)


def strings(value: object) -> Iterator[str]:
    """Every string in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def cloudformation_template(definition: Definition) -> str:
    """A template around one rendered definition, which is the form that cfn-lint reads."""
    checked = json.loads(json.dumps(definition))
    for state in states(checked):
        # AWS takes an expression here, cfn-lint's schema only a number.
        if isinstance(state.body.get("MaxConcurrency"), str):
            cast(dict[str, Any], state.body)["MaxConcurrency"] = 1
    return json.dumps(
        {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Resources": {
                "Machine": {
                    "Type": "AWS::StepFunctions::StateMachine",
                    "Properties": {
                        "RoleArn": "arn:aws:iam::111122223333:role/blockferry",
                        "Definition": checked,
                    },
                }
            },
        },
        indent=2,
    )
