"""The base's state machines, versions and aliases: checked when they come in, resolved when they run."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from localcloud.host import Host, Response
from localcloud.states.engine import check_name
from localcloud.states.errors import ApiError
from localcloud.states.model import Machine
from localcloud.states.registry import Registry
from localcloud.states.validate import errors_in

_MODULE: Final = "services.stepfunctions"
_RESPONSES: Final = "core.responses"
_UNTRACED: Final = {"enabled": False}


class MachineStore:
    """Hooks Create, Update, Publish, Describe and Delete; everything else of them is the base's."""

    def __init__(self, host: Host, *, registry: Registry, chance: random.Random) -> None:
        self._host = host
        self._registry = registry
        self._chance = chance
        self._machines = host.lookup(_MODULE, "_state_machines")
        self._versions = host.lookup(_MODULE, "_state_machine_versions")
        self._aliases = host.lookup(_MODULE, "_state_machine_aliases")
        self._account = host.lookup(_RESPONSES, "get_account_id")
        self._region = host.lookup(_RESPONSES, "get_region")
        self._error = host.lookup(_RESPONSES, "error_response_json")
        self._json = host.lookup(_RESPONSES, "json_response")
        self._base: dict[str, Any] = {}
        self._updated: dict[str, float] = {}

    def plug_in(self) -> None:
        for name, function in (
            ("_create_state_machine", self._create),
            ("_update_state_machine", self._update),
            ("_publish_state_machine_version", self._publish),
            ("_describe_state_machine", self._describe),
            ("_delete_state_machine", self._delete),
        ):
            self._base[name] = self._host.replace(_MODULE, name, function)

    def owns(self, arn: str) -> bool:
        parts = arn.split(":")
        return len(parts) > 5 and parts[3] == self._region() and parts[4] == self._account()

    def resolve(self, arn: str) -> Machine:
        """The machine, version, or version behind an alias.

        Raises ``ApiError`` StateMachineDoesNotExist or InvalidArn.
        """
        if not arn.startswith("arn:"):
            raise ApiError("InvalidArn", f"Invalid Arn: '{arn}'")
        alias_arn = version_arn = None
        record = self._machines.get(arn)
        if record is None:
            alias = self._aliases.get(arn)
            if alias is not None:
                alias_arn = arn
            version_arn = arn if alias is None else self._routed(alias)
            record = self._versions.get(version_arn)
        if record is None or record["stateMachineArn"] not in self._machines:
            raise ApiError("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")
        base_arn = record["stateMachineArn"]
        extras = {
            "loggingConfiguration": record.get("loggingConfiguration", {"level": "OFF"}),
            "tracingConfiguration": record.get("tracingConfiguration", _UNTRACED),
            "encryptionConfiguration": record.get("encryptionConfiguration", {"type": "AWS_OWNED_KEY"}),
        }
        revision = record.get("stateMachineRevisionId") or record.get("revisionId")
        if revision:
            extras["revisionId"] = revision
        return Machine(
            arn=base_arn,
            name=self._machines[base_arn]["name"],
            definition=record["definition"],
            role_arn=record["roleArn"],
            type=record.get("type", "STANDARD"),
            account=self._account(),
            region=self._region(),
            version_arn=version_arn,
            alias_arn=alias_arn,
            update_date=self._updated.get(base_arn) or _epoch(record.get("creationDate")),
            extras=extras,
        )

    def _routed(self, alias: Mapping[str, Any]) -> str:
        """One of the alias's versions, by weight."""
        routes = alias.get("routingConfiguration") or [{}]
        weights = [float(route.get("weight", 0)) for route in routes]
        chosen = self._chance.choices(routes, weights=weights if any(weights) else None)[0]
        return str(chosen.get("stateMachineVersionArn", ""))

    def _create(self, data: Mapping[str, Any]) -> Response:
        try:
            check_name(str(data.get("name", "")))
            _check_definition(data, kind=data.get("type") or "STANDARD")
            tracing = _tracing(data)
        except ApiError as error:
            return self._refusal(error)
        arn = f"arn:aws:states:{self._region()}:{self._account()}:stateMachine:{data['name']}"
        known = self._machines.get(arn)
        if known is not None and known.get("tracingConfiguration", _UNTRACED) != (tracing or _UNTRACED):
            return self._refusal(ApiError("StateMachineAlreadyExists", f"State Machine Already Exists: '{arn}'"))
        response: Response = self._base["_create_state_machine"](data)
        if response[0] == 200:
            self._trace(arn, tracing)
        return response

    def _update(self, data: Mapping[str, Any]) -> Response:
        arn = str(data.get("stateMachineArn", ""))
        known = self._machines.get(arn)
        try:
            if "definition" in data and known is not None:
                _check_definition(data, kind=known.get("type", "STANDARD"))
            tracing = _tracing(data)
        except ApiError as error:
            return self._refusal(error)
        # Before the base publishes a version of what it has stored.
        if known is not None and tracing is not None:
            known["tracingConfiguration"] = tracing
        response: Response = self._base["_update_state_machine"](data)
        if response[0] == 200:
            self._updated[arn] = time.time()
            self._trace(arn, tracing)
        return response

    def _publish(self, data: Mapping[str, Any]) -> Response:
        response: Response = self._base["_publish_state_machine_version"](data)
        if response[0] == 200:
            self._trace(str(data.get("stateMachineArn", "")), None)
        return response

    def _describe(self, data: Mapping[str, Any]) -> Response:
        arn = str(data.get("stateMachineArn", ""))
        response: Response = self._base["_describe_state_machine"](data)
        if response[0] != 200 or arn in self._machines:
            return response
        # The base leaves tracing out of versions and aliases.
        alias = self._aliases.get(arn)
        version = self._versions.get(arn if alias is None else self._routed(alias), {})
        described: Response = self._json(
            {**_body(response), "tracingConfiguration": version.get("tracingConfiguration", _UNTRACED)}
        )
        return described

    def _delete(self, data: Mapping[str, Any]) -> Response:
        response: Response = self._base["_delete_state_machine"](data)
        if response[0] == 400 and b"StateMachineDoesNotExist" in response[2]:
            # DeleteStateMachine declares no such error: deleting what is gone succeeds, also for a repeated request.
            return 200, {"Content-Type": "application/x-amz-json-1.0"}, b"{}"
        if response[0] == 200:
            self._registry.forget_machine(str(data.get("stateMachineArn", "")))
        return response

    def _trace(self, arn: str, tracing: Mapping[str, Any] | None) -> None:
        """Store the tracing of a machine, and of versions that were just published from it."""
        machine = self._machines.get(arn)
        if machine is None:
            return
        if tracing is not None:
            machine["tracingConfiguration"] = dict(tracing)
        machine.setdefault("tracingConfiguration", dict(_UNTRACED))
        for version in self._versions.values():
            if version["stateMachineArn"] == arn:
                version.setdefault("tracingConfiguration", dict(machine["tracingConfiguration"]))

    def _refusal(self, error: ApiError) -> Response:
        response: Response = self._error(error.code, error.message, error.status)
        return response


def _check_definition(data: Mapping[str, Any], *, kind: str) -> None:
    if kind not in ("STANDARD", "EXPRESS"):
        raise ApiError("ValidationException", f"'{kind}' is not a type of state machine")
    problems = errors_in(str(data.get("definition", "")), kind=kind)
    if problems:
        listed = ", ".join(str(problem) for problem in problems)
        raise ApiError("InvalidDefinition", f"Invalid State Machine Definition: '{listed}'")


def _tracing(data: Mapping[str, Any]) -> dict[str, Any] | None:
    tracing = data.get("tracingConfiguration")
    if tracing is None:
        return None
    if not isinstance(tracing, dict) or not isinstance(tracing.get("enabled", False), bool):
        raise ApiError("InvalidTracingConfiguration", "Invalid Tracing Configuration: 'enabled' must be a boolean")
    return {"enabled": tracing.get("enabled", False)}


def _body(response: Response) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(response[2])
    return body


def _epoch(moment: Any) -> float:
    return datetime.fromisoformat(str(moment)).timestamp() if moment else 0.0
