"""What a rule's target receives: the event, a part of it, a constant, or a template filled from it.

Source: EventBridge user guide, "Amazon EventBridge input transformation" (paths, reserved variables, quoting).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from localcloud.ebs.events import iso

_STEP = re.compile(r"\.(?P<name>[A-Za-z0-9_/-]+|\*)|\[(?P<index>[0-9]+|\*)\]|\['(?P<quoted>[^']+)'\]")
_VARIABLE = re.compile(r"<([^<>]+)>")
_VALUE_OR_STRING = re.compile(r'"(?:\\.|[^"\\])*"|<[^<>]+>')


class Missing(LookupError):
    """The path leads to nothing in this event."""


def at_path(event: Any, path: str) -> Any:
    """The value at a path such as ``$.detail.items[0]['snapshot_id']``; raises ``Missing``."""
    if not path.startswith("$"):
        raise Missing(path)
    return _walk(event, path, 1)


def _walk(value: Any, path: str, position: int) -> Any:
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise Missing(path)
        position = step.end()
        name = step["name"] or step["quoted"]
        if "*" in (name, step["index"]):
            members = value.values() if isinstance(value, Mapping) else value
            if not isinstance(value, Mapping | list):
                raise Missing(path)
            return [_walk(each, path, position) for each in members]
        if step["index"] is not None:
            if not isinstance(value, list) or int(step["index"]) >= len(value):
                raise Missing(path)
            value = value[int(step["index"])]
        else:
            if not isinstance(value, Mapping) or name not in value:
                raise Missing(path)
            value = value[name]
    return value


def target_input(
    target: Mapping[str, Any], event: Mapping[str, Any], *, rule_arn: str, rule_name: str, now: float
) -> str:
    """The text the target is called with. ``now`` is when EventBridge took the event in."""
    if transformer := target.get("InputTransformer"):
        variables: dict[str, Any] = {}
        for name, path in (transformer.get("InputPathsMap") or {}).items():
            try:
                variables[name] = at_path(event, path)
            except Missing:
                # "If you specify a variable to match a JSON path that doesn't exist, that variable isn't created."
                variables[name] = ""
        variables |= {
            "aws.events.rule-arn": rule_arn,
            "aws.events.rule-name": rule_name,
            "aws.events.event.ingestion-time": iso(now),
            "aws.events.event": {key: value for key, value in event.items() if key != "detail"},
            "aws.events.event.json": event,
        }
        return filled(transformer.get("InputTemplate", ""), variables)
    if target.get("Input"):
        return str(target["Input"])
    if path := target.get("InputPath"):
        try:
            return json.dumps(at_path(event, path))
        except Missing:
            return json.dumps(event)
    return json.dumps(event)


def filled(template: str, variables: Mapping[str, Any]) -> str:
    """The template with its variables; a string in a JSON value's place gets the quotes it lacks."""

    def inside(match: re.Match[str]) -> str:
        if match[1] not in variables:
            return match[0]
        value = variables[match[1]]
        # Inside a string the quotes of an object or array would end the string: EventBridge drops them.
        return value if isinstance(value, str) else json.dumps(value).replace('"', "")

    def whole(match: re.Match[str]) -> str:
        token = match[0]
        if token.startswith('"'):
            return _VARIABLE.sub(inside, token)
        name = token[1:-1]
        return json.dumps(variables[name]) if name in variables else token

    if '"' not in template and not template.lstrip().startswith(("{", "[")):
        return _VARIABLE.sub(inside, template)
    return _VALUE_OR_STRING.sub(whole, template)
