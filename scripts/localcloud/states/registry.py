"""Everything that has run, by ARN."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from localcloud.states.errors import ApiError
from localcloud.states.map_run import MapRun
from localcloud.states.model import Execution


class Registry:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executions: dict[str, Execution] = {}
        self._by_machine: dict[str, list[Execution]] = {}
        self._map_runs: dict[str, MapRun] = {}

    def add(self, execution: Execution) -> Execution | None:
        """Remember ``execution``; returns the one that has its ARN already, if there is one."""
        with self._lock:
            known = self._executions.setdefault(execution.arn, execution)
            if known is not execution:
                return known
            if execution.map_run is None:
                self._by_machine.setdefault(execution.machine.arn, []).append(execution)
            return None

    def add_map_run(self, map_run: MapRun) -> None:
        with self._lock:
            self._map_runs[map_run.arn] = map_run

    def execution(self, arn: str) -> Execution:
        """The execution of this ARN. Raises ``ApiError`` ExecutionDoesNotExist."""
        with self._lock:
            found = self._executions.get(arn)
        if found is None:
            raise ApiError("ExecutionDoesNotExist", f"Execution Does Not Exist: '{arn}'")
        return found

    def map_run(self, arn: str) -> MapRun:
        """The Map Run of this ARN. Raises ``ApiError`` ResourceNotFound."""
        with self._lock:
            found = self._map_runs.get(arn)
        if found is None:
            raise ApiError("ResourceNotFound", f"Map Run Does Not Exist: '{arn}'")
        return found

    def of_machine(self, arn: str) -> list[Execution]:
        with self._lock:
            return list(self._by_machine.get(arn, ()))

    def map_runs_of(self, execution_arn: str) -> list[MapRun]:
        with self._lock:
            return [run for run in self._map_runs.values() if run.execution_arn == execution_arn]

    def forget_machine(self, arn: str) -> None:
        """A deleted machine takes its closed executions with it; open ones run to their end."""
        with self._lock:
            kept = []
            for execution in self._by_machine.pop(arn, ()):
                if execution.is_open:
                    kept.append(execution)
                    continue
                self._executions.pop(execution.arn, None)
                for map_run_arn in [run.arn for run in self._map_runs.values() if run.execution_arn == execution.arn]:
                    for child in self._map_runs.pop(map_run_arn).children.values():
                        self._executions.pop(child.arn, None)
            if kept:
                self._by_machine[arn] = kept

    def all(self) -> Iterable[Execution]:
        with self._lock:
            return list(self._executions.values())
