"""Puts the engine in the place of the base's own, with the base's store of state machines before it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import queue
import random
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from localcloud.host import ControlError, ControlRequest, Host, Response
from localcloud.states.acting import RoleActing
from localcloud.states.api import Api
from localcloud.states.aws_clients import AwsClients
from localcloud.states.aws_invoker import AwsInvoker
from localcloud.states.aws_objects import AwsObjects
from localcloud.states.cancellation import Cancellation
from localcloud.states.clock import SystemClock
from localcloud.states.describe import status_event
from localcloud.states.engine import Engine
from localcloud.states.errors import ApiError
from localcloud.states.expressions import Evaluator
from localcloud.states.machine_store import MachineStore
from localcloud.states.model import Execution
from localcloud.states.registry import Registry
from localcloud.states.services import Services, permit_all
from localcloud.states.threads import Threads
from localcloud.states.tokens import TaskTokens

_LOGGER = logging.getLogger("localcloud.states")
_STEP_FUNCTIONS: Final = "services.stepfunctions"
_CONFIG: Final = {"wait_scale": 1.0, "timeout_scale": 1.0, "seed": None, "max_open": 1000, "max_workers": 256}
_REFUSED: Final = frozenset({"TestState", "CreateActivity", "GetActivityTask"})
"""What the base would answer from its own interpreter, which is not the one executions run in."""


def install(host: Host) -> None:
    config = {**_CONFIG, **host.part_config("states")}
    unknown = config.keys() - _CONFIG.keys()
    if unknown:
        raise ValueError(f"local cloud config: 'states' has no setting '{sorted(unknown)[0]}'")
    for name in _CONFIG.keys() - {"seed"}:
        if isinstance(config[name], bool) or not isinstance(config[name], int | float) or config[name] < 0:
            raise ValueError(f"local cloud config: 'states' needs a number that is not negative for '{name}'")
    acting = RoleActing(host.roles, endpoint_url=host.endpoint_url) if host.roles is not None else None
    clients = AwsClients(
        endpoint_url=host.endpoint_url,
        root_secret=host.keys.secret,
        credentials_for=acting.credentials if acting else None,
    )
    spool_dir = host.data_dir / "states"
    spool_dir.mkdir(parents=True, exist_ok=True)
    chance = random.Random(config["seed"])  # noqa: S311 - jitter and identifiers, repeatable with a seed
    clock = SystemClock(wait_scale=config["wait_scale"], timeout_scale=config["timeout_scale"])
    services = Services(
        clock=clock,
        evaluator=Evaluator(seed=config["seed"]),
        invoker=AwsInvoker(clients),
        objects=AwsObjects(clients),
        threads=Threads("states"),
        tokens=TaskTokens(),
        registry=Registry(),
        random=chance,
        shutdown=Cancellation(),
        permit=acting.permit if acting else permit_all,
        spool_dir=str(spool_dir),
        max_workers=config["max_workers"],
    )
    events = _StatusEvents(host, now=services.clock.now)
    engine = Engine(services, on_status=events.publish, max_open=config["max_open"])
    machines = MachineStore(host, registry=services.registry, chance=chance)
    api = Api(engine=engine, machines=machines)
    machines.plug_in()
    for action in api.actions - {"RedriveExecution"}:
        # The base calls its own functions in-process too, as EventBridge does to start an execution.
        host.replace(_STEP_FUNCTIONS, _function_name(action), _in_process(api, action))
    host.control["states"] = _Control(engine, clock)
    host.handlers["states"] = _handler(api, host.handlers["states"], services.threads)

    def close() -> None:
        engine.close()
        events.close()

    host.on_shutdown(close)


def _function_name(action: str) -> str:
    return "_" + "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in action).lstrip("_")


def _in_process(api: Api, action: str) -> Callable[[Mapping[str, Any]], Response]:
    def call(request: Mapping[str, Any]) -> Response:
        return _answer(api, action, request)

    return call


def _answer(api: Api, action: str, request: Mapping[str, Any]) -> Response:
    try:
        return _json(200, api.handle(action, request))
    except ApiError as error:
        return _error(error)


def _json(status: int, value: Mapping[str, Any], **headers: str) -> Response:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return status, {"Content-Type": "application/x-amz-json-1.0", **headers}, body


def _error(error: ApiError) -> Response:
    body = {"__type": error.code, "message": error.message}
    return _json(error.status, body, **{"x-amzn-errortype": error.code})


def _handler(api: Api, base: Any, threads: Threads) -> Any:
    async def handle(method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Response:
        action = headers.get("x-amz-target", "").rsplit(".", 1)[-1]
        if action in _REFUSED:
            return _error(ApiError("UnsupportedOperation", f"The local cloud does not support {action}"))
        if action not in api.actions:
            answer: Response = await base(method, path, headers, body, query)
            return answer
        try:
            request = json.loads(body) if body else {}
        except ValueError:
            return _error(ApiError("SerializationException", "The request is not JSON"))
        if not isinstance(request, dict):
            return _error(ApiError("SerializationException", "The request must be a JSON object"))
        # Not on the event loop: some actions wait, and executions call this very server meanwhile.
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Response] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                result = context.run(_answer, api, action, request)
            except Exception as error:
                _LOGGER.exception("%s failed", action)
                result = _error(ApiError("InternalFailure", repr(error), status=500))
            with contextlib.suppress(RuntimeError):  # the loop is gone when the server ends
                loop.call_soon_threadsafe(_settle, done, result)

        threads.submit(work)
        return await done

    return handle


def _settle(done: asyncio.Future[Response], result: Response) -> None:
    if not done.done():
        done.set_result(result)


class _Control:
    """``GET states``: what runs, and the scales of time. ``POST states`` with ``wait_scale`` or
    ``timeout_scale`` changes them for the waits and timeouts that begin from then on.
    """

    def __init__(self, engine: Engine, clock: SystemClock) -> None:
        self._engine = engine
        self._clock = clock

    def __call__(self, request: ControlRequest) -> dict[str, Any]:
        if request.path:
            raise ControlError(f"'states' has nothing at '{request.path}'", status=404)
        if request.method == "POST":
            changes = request.json()
            for name, value in changes.items():
                if name not in ("wait_scale", "timeout_scale"):
                    raise ControlError(f"'states' has no setting '{name}'")
                if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                    raise ControlError(f"'{name}' must be a number that is not negative")
            for name, value in changes.items():
                setattr(self._clock, name, float(value))
        elif request.method != "GET":
            raise ControlError(f"'states' does not answer {request.method}", status=405)
        running = [execution.arn for execution in self._engine.registry.all() if execution.is_open]
        return {
            "running": sorted(running),
            "wait_scale": self._clock.wait_scale,
            "timeout_scale": self._clock.timeout_scale,
        }


class _StatusEvents:
    """Publishes status changes on the default event bus, in order, off the executions' threads."""

    def __init__(self, host: Host, *, now: Callable[[], float]) -> None:
        self._put_events = host.lookup("services.eventbridge", "_put_events")
        self._scope = host.lookup("core.responses", "request_scope")
        self._now = now
        self._queue: queue.SimpleQueue[tuple[Execution, dict[str, Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="states-events", daemon=True)
        self._thread.start()

    def publish(self, execution: Execution) -> None:
        self._queue.put((execution, status_event(execution, self._now())))

    def close(self) -> None:
        self._queue.put(None)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            execution, detail = job
            entry = {
                "Source": "aws.states",
                "DetailType": "Step Functions Execution Status Change",
                "Detail": json.dumps(detail),
                "Resources": [execution.arn],
            }
            try:
                with self._scope(execution.machine.account, execution.machine.region):
                    self._put_events({"Entries": [entry]}, allow_aws_source=True)
            except Exception:
                # Delivery is best effort in AWS too; an execution never fails for it.
                _LOGGER.exception("the status event of %s was not delivered", execution.arn)
