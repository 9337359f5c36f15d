"""The state machines and functions of this repository as they are deployed, in one process.

The engine of the local cloud runs the files of statemachines/, and a task calls the handler of its function, as Lambda
does. Only what surrounds an invocation comes from the test: clients, the work bucket, time. A process that dies in a
call fails its task with ``Runtime.ExitError``. Waits and retries take no time.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import IO, Any

from blockferry.lambdas import Invocation, Step, lambda_handler, logger
from localcloud.states.clock import Clock
from localcloud.states.errors import StateError
from localcloud.states.model import SUCCEEDED, Execution, Machine
from localcloud.states.services import Caller
from localcloud.states.testing import Machines, TaskFunctions, failed_at, make_machine
from moto.s3.models import s3_backends
from tools.environment import repository_root
from tools.machine_parts import REFUSE
from tools.machines import PLACEHOLDERS, machine_files, machine_name, render, states

EXECUTIONS = "arn:aws:states:us-east-1:111122223333:execution:blockferry-"
"""How the ARN of every execution begins, up to the name of the operation."""

NOTE_FAILURE = "Note failure"
"""The state in which a worker's failure is noted, by the same function."""


@dataclass(frozen=True)
class Attempt:
    """One call of a function, by the name of its state; ``failure`` is what it raised."""

    step: str
    event: Mapping[str, Any]
    answer: Any = None
    failure: BaseException | None = None


class ExecutionFailed(Exception):
    """The execution failed at ``step``; ``refused`` when it ended in the Fail state of a caught error, for good.

    ``failure`` is what the function raised. What becomes of the children of a map ends the map as
    ``States.ExceedToleratedFailureThreshold``: ``error`` and ``cause`` are those of the child.
    """

    def __init__(self, step: str, error: str, cause: str, *, refused: bool, failure: BaseException | None) -> None:
        super().__init__(f"{step} failed with {error}: {cause}")
        self.step = step
        self.error = error
        self.cause = cause
        self.refused = refused
        self.failure = failure


@cache
def step_of(function: str) -> Step:
    """The work of a function, by its folder."""
    path = repository_root() / "functions" / function / "handler.py"
    spec = importlib.util.spec_from_file_location(f"{function}_handler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    step: Step = module.step
    return step


@cache
def _text(operation: str) -> str:
    (file,) = (file for file in machine_files() if machine_name(file) == operation)
    return render(file.read_text())


@cache
def machine_of(operation: str) -> Machine:
    """The whole machine, as it is deployed."""
    return make_machine(_text(operation), name=f"blockferry-{operation}")


_ASSIGNED = {"job": "{% $states.input %}", "record": "{% $states.input.record %}"}


@cache
def rest_of(operation: str, begin: str, until: str | None) -> Machine:
    """The machine from one of its states on, with the job in the input, up to another one that is left out."""
    definition = json.loads(_text(operation))
    all_states = definition["States"]
    if until is not None:
        all_states[until] = {"Type": "Succeed"}
    wanted, waiting = {}, [begin]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted[name] = all_states[name]
            waiting += _ways_out(all_states[name])
    go_on = {"Type": "Pass", "Assign": _ASSIGNED, "Next": begin}
    definition |= {"StartAt": "Go on", "States": {"Go on": go_on, **wanted}}
    return make_machine(definition, name=f"rest-of-{operation}")


def _ways_out(state: Mapping[str, Any]) -> Iterator[str]:
    for rule in (state, *state.get("Choices", ()), *state.get("Catch", ())):
        yield from (rule[name] for name in ("Next", "Default") if name in rule)


@cache
def _step_names() -> Mapping[str, str]:
    """The state of each function, by its ARN; but for that of another state's failure."""
    return {
        state.body["Arguments"]["FunctionName"]: state.name
        for file in machine_files()
        for state in states(json.loads(_text(machine_name(file))))
        if state.type == "Task" and state.name != NOTE_FAILURE
    }


class MotoObjects:
    """S3 to a map: that of moto, without the way through a client and HTTP, which is no part of any test."""

    def open(self, caller: Caller, arguments: Mapping[str, Any]) -> IO[bytes]:
        found = self._backend(arguments["Bucket"]).get_object(arguments["Bucket"], arguments["Key"])
        if found is None:
            raise FileNotFoundError(f"there is no {arguments['Key']} in {arguments['Bucket']}")
        return io.BytesIO(found.value)

    def list(self, caller: Caller, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        raise NotImplementedError("no machine lists objects")

    def put(self, caller: Caller, *, bucket: str, key: str, body: IO[bytes]) -> None:
        self._backend(bucket).put_object(bucket, key, body.read())

    def _backend(self, bucket: str) -> Any:
        (backend,) = (account["aws"] for account in s3_backends.values() if bucket in account["aws"].buckets)
        return backend


class _Context:
    aws_request_id = "request-1"

    def get_remaining_time_in_millis(self) -> int:
        raise AssertionError("the time left is that of the invocation")


Surroundings = Callable[[Mapping[str, Any]], Invocation]
"""What surrounds the call that an event makes."""

Around = Callable[[str, Mapping[str, Any]], AbstractContextManager[object]]


class Deployment:
    """All machines and functions. Use as a context manager.

    ``around`` is entered for each call of a function, with the name of its state and its event. One child of a map runs
    at a time, so that calls have an order.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        clock: Clock,
        around: Around = lambda _step, _event: nullcontext(),
    ) -> None:
        self._surroundings = surroundings
        self._around = around
        self.attempts: dict[str, list[Attempt]] = {}
        tasks = {arn: self._task(arn) for arn in (render(f"${{{name}}}") for name in PLACEHOLDERS)}
        self._machines = Machines(invoker=TaskFunctions(tasks), objects=MotoObjects(), clock=clock, max_workers=1)

        # What functions log is for operators: thousands of lines that no test reads.
        logger.setLevel(logging.CRITICAL)

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        self._machines.__exit__()
        logger.setLevel(logging.INFO)

    def job(self, operation: str, request: Mapping[str, Any], job_id: str) -> DeployedJob:
        return DeployedJob(self, machine_of(operation), request, job_id, name=job_id)

    def execution(self, arn: str) -> Execution:
        return self._machines.engine.registry.execution(arn)

    def rest(
        self, operation: str, pointer: Mapping[str, Any], *, begin: str, until: str | None = None
    ) -> dict[str, Any]:
        """The output of the rest of a machine for a job that was planned: see ``rest_of``."""
        job = DeployedJob(self, rest_of(operation, begin, until), pointer, pointer["job_id"])
        return job.run()

    def _task(self, arn: str) -> Callable[[Any], Any]:
        function = arn.rsplit(":", 1)[1].removeprefix("blockferry-").replace("-", "_")
        handler = lambda_handler(step_of(function), lambda event, _context: self._surroundings(event))

        def call(event: Mapping[str, Any]) -> Any:
            name = NOTE_FAILURE if "failure" in event else _step_names()[arn]
            attempts = self.attempts.setdefault(event["job_id"], [])
            try:
                with self._around(name, event):
                    answer = handler(event, _Context())
            except Exception as error:
                attempts.append(Attempt(name, event, failure=error))
                raise
            except BaseException as death:
                attempts.append(Attempt(name, event, failure=death))
                cause = json.dumps({"errorMessage": "RequestId: 1 Error: the process died", "errorType": "ExitError"})
                raise StateError("Runtime.ExitError", cause) from death
            attempts.append(Attempt(name, event, answer))
            return answer

        return call


@dataclass
class DeployedJob:
    """One execution of a machine. ``run`` again after ``ExecutionFailed`` is its redrive."""

    deployment: Deployment
    machine: Machine
    request: Mapping[str, Any]
    job_id: str
    name: str | None = None
    execution: Execution | None = field(default=None, init=False)

    @property
    def attempts(self) -> list[Attempt]:
        """Every call of a function so far."""
        return self.deployment.attempts.get(self.job_id, [])

    @property
    def redrives(self) -> int:
        return 0 if self.execution is None else self.execution.redrive_count

    def run(self) -> dict[str, Any]:
        """The output. Raises ``ExecutionFailed``."""
        machines = self.deployment._machines
        if self.execution is None:
            self.execution = machines.run(self.machine, self.request, name=self.name)
        else:
            machines.redrive(self.execution)
        if self.execution.status != SUCCEEDED:
            raise self._failure(self.execution)
        output: dict[str, Any] = json.loads(self.execution.output or "null")
        return output

    def _failure(self, execution: Execution) -> ExecutionFailed:
        failed = failed_at(execution)
        state = failed.frame.state if failed.frame is not None else ""
        error, cause = failed.error or execution.status, failed.cause or ""
        last = self.attempts[-1] if self.attempts else None
        if state == REFUSE and last is not None:
            return ExecutionFailed(last.step, error, cause, refused=True, failure=last.failure)
        failure = None if last is None else last.failure
        if failure is not None:
            cause = json.loads(cause)["errorMessage"]
        return ExecutionFailed(state, error, cause, refused=False, failure=failure)
