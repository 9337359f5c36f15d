"""Run a state machine in-process: the real engine, with Python callables as tasks and a dict as S3.

``run_machine(definition, {"x": 1}, tasks={"move-blocks": lambda event: {...}})`` returns the finished
execution. A task may raise ``StateError`` to fail with an error name of its own.
"""

from __future__ import annotations

import io
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import IO, Any, Self

from localcloud.states.cancellation import Cancellation
from localcloud.states.clock import Clock, SkippingClock
from localcloud.states.engine import Engine
from localcloud.states.errors import StateError
from localcloud.states.expressions import Evaluator
from localcloud.states.model import FAILED, Execution, Machine
from localcloud.states.registry import Registry
from localcloud.states.services import Caller, ObjectStore, Services, TaskCall, TaskInvoker
from localcloud.states.threads import Threads
from localcloud.states.tokens import TaskTokens
from localcloud.states.validate import errors_in

Task = Callable[[Any], Any]

ACCOUNT = "111122223333"
REGION = "us-east-1"


class TaskFunctions:
    """Tasks by function name or ARN, by resource ARN, or by integration (``sqs:sendMessage``).

    A function gets the payload and gives the function's output; any other task gets the arguments and
    gives the result. An exception is what an uncaught one is in Lambda: its class is the error name.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self._tasks = tasks
        self._lock = threading.Lock()
        self.calls: list[TaskCall] = []

    def invoke(self, call: TaskCall) -> Any:
        with self._lock:
            self.calls.append(call)
        resource = call.resource
        direct = self._tasks.get(resource.arn) or self._tasks.get(f"{resource.name}.{resource.pattern}".strip("."))
        if direct is not None:
            return _run(direct, call.arguments)
        if resource.service != "lambda" or resource.kind == "sdk":
            raise StateError("States.Runtime", f"the test has no task for {resource.arn}")
        name = resource.arn if resource.kind == "function" else str(call.arguments["FunctionName"])
        function = self._tasks.get(name) or self._tasks.get(name.split(":")[6] if name.startswith("arn:") else name)
        if function is None:
            raise StateError("Lambda.ResourceNotFoundException", f"the test has no function {name}")
        payload = call.arguments if resource.kind == "function" else call.arguments.get("Payload", {})
        result = _run(function, payload)
        if resource.kind == "function":
            return result
        return {
            "ExecutedVersion": "$LATEST",
            "Payload": result,
            "SdkHttpMetadata": {"HttpHeaders": {}, "HttpStatusCode": 200},
            "SdkResponseMetadata": {"RequestId": "0"},
            "StatusCode": 200,
        }


def _run(task: Task, argument: Any) -> Any:
    try:
        # A copy, as over the wire: a task must not change the state's data.
        return json.loads(json.dumps(task(json.loads(json.dumps(argument)))))
    except StateError:
        raise
    except Exception as error:
        cause = json.dumps({"errorMessage": str(error), "errorType": type(error).__name__})
        raise StateError(type(error).__name__, cause) from error


class MemoryObjects:
    """Objects in ``{bucket: {key: bytes}}``; pages of a listing are as big as S3's."""

    def __init__(self, buckets: MutableMapping[str, dict[str, bytes]]) -> None:
        self.buckets = buckets
        self.opened: list[str] = []

    def open(self, caller: Caller, arguments: Mapping[str, Any]) -> IO[bytes]:
        bucket, key = arguments["Bucket"], arguments["Key"]
        self.opened.append(key)
        if key not in self._bucket(bucket):
            raise FileNotFoundError(f"The specified key does not exist. (Bucket: {bucket}, Key: {key})")
        return io.BytesIO(self._bucket(bucket)[key])

    def list(self, caller: Caller, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        for key, body in sorted(self._bucket(arguments["Bucket"]).items()):
            if key.startswith(arguments.get("Prefix", "")):
                yield {"Etag": '"0"', "Key": key, "LastModified": 0, "Size": len(body), "StorageClass": "STANDARD"}

    def put(self, caller: Caller, *, bucket: str, key: str, body: IO[bytes]) -> None:
        self._bucket(bucket)[key] = body.read()

    def _bucket(self, name: str) -> dict[str, bytes]:
        if name not in self.buckets:
            raise FileNotFoundError(f"The specified bucket does not exist. (Bucket: {name})")
        return self.buckets[name]


def make_services(
    *,
    invoker: TaskInvoker,
    objects: ObjectStore | None = None,
    clock: Clock | None = None,
    seed: int = 1,
    max_workers: int = 64,
) -> Services:
    return Services(
        clock=clock or SkippingClock(),
        evaluator=Evaluator(seed=seed),
        invoker=invoker,
        objects=objects or MemoryObjects({}),
        threads=Threads("states-test"),
        tokens=TaskTokens(),
        registry=Registry(),
        random=random.Random(seed),  # noqa: S311 - repeatable on purpose
        shutdown=Cancellation(),
        max_workers=max_workers,
    )


def make_machine(definition: Mapping[str, Any] | str, *, kind: str = "STANDARD", name: str = "test") -> Machine:
    """A machine of this definition. Raises ``ValueError`` if the definition would be refused."""
    text = definition if isinstance(definition, str) else json.dumps(definition)
    problems = errors_in(text, kind=kind)
    if problems:
        raise ValueError("; ".join(str(problem) for problem in problems))
    return Machine(
        arn=f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{name}",
        name=name,
        definition=text,
        role_arn=f"arn:aws:iam::{ACCOUNT}:role/test",
        type=kind,
        account=ACCOUNT,
        region=REGION,
    )


class Machines:
    """An engine for tests that run several machines, or stop, redrive and look on. Use as a context manager.

    ``invoker`` does the tasks, ``objects`` is S3 to the maps, of whose children ``max_workers`` run at a time.
    """

    def __init__(
        self,
        *,
        invoker: TaskInvoker,
        objects: ObjectStore | None = None,
        clock: Clock | None = None,
        seed: int = 1,
        max_workers: int = 64,
    ) -> None:
        self.statuses: list[str] = []
        self.engine = Engine(
            make_services(invoker=invoker, objects=objects, clock=clock, seed=seed, max_workers=max_workers),
            on_status=lambda execution: self.statuses.append(execution.status),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def run(self, machine: Machine, value: Any = None, *, name: str | None = None) -> Execution:
        """Start an execution and wait until it has ended."""
        text = json.dumps({} if value is None else value)
        return self.finish(self.engine.start(machine, name=name, text=text))

    def finish(self, execution: Execution, *, seconds: float = 30.0) -> Execution:
        """Wait until ``execution`` is closed and at rest."""
        for event in (execution.closed, execution.unwound):
            if event is not None and not event.wait(seconds):
                raise TimeoutError(f"{execution.arn} is still {execution.status} after {seconds} s")
        return execution

    def redrive(self, execution: Execution) -> Execution:
        self.engine.redrive(execution.arn, client_token=None)
        return self.finish(execution)


class MachineRun(Machines):
    """An engine with one machine. Use as a context manager."""

    def __init__(
        self,
        definition: Mapping[str, Any] | str,
        *,
        tasks: Mapping[str, Task] | None = None,
        s3: MutableMapping[str, dict[str, bytes]] | None = None,
        clock: Clock | None = None,
        seed: int = 1,
        kind: str = "STANDARD",
    ) -> None:
        self.tasks = TaskFunctions(tasks or {})
        self.objects = MemoryObjects({} if s3 is None else s3)
        self.machine = make_machine(definition, kind=kind)
        super().__init__(invoker=self.tasks, objects=self.objects, clock=clock, seed=seed)

    def start(self, value: Any = None, *, name: str | None = None) -> Execution:
        return self.engine.start(self.machine, name=name, text=json.dumps({} if value is None else value))


def failed_at(execution: Execution) -> Execution:
    """Where an execution that failed did so: itself, or the child of its map that failed, however deep."""
    while execution.frame is not None and (map_run := execution.frame.map_run) is not None:
        failed = [child for _, child in sorted(map_run.children.items()) if child.status == FAILED]
        if not failed:
            break
        execution = failed[0]
    return execution


def run_machine(
    definition: Mapping[str, Any] | str,
    value: Any = None,
    *,
    tasks: Mapping[str, Task] | None = None,
    s3: MutableMapping[str, dict[str, bytes]] | None = None,
    clock: Clock | None = None,
    seed: int = 1,
) -> Execution:
    """Run ``definition`` with input ``value`` to its end. Waits and retry delays take no time by default."""
    with MachineRun(definition, tasks=tasks, s3=s3, clock=clock, seed=seed) as run:
        return run.finish(run.start(value))
