"""Puts our execution environments in the place of the base's Lambda workers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from localcloud.compute.concurrency import Concurrency, account_concurrency, plug_in
from localcloud.compute.environment import Answer
from localcloud.compute.faults import REQUEST_KINDS, Faults
from localcloud.compute.function import Credentials, Function
from localcloud.compute.outcome import Outcome
from localcloud.compute.packages import BadPackage, BuiltForAnotherMachine, PackageStore, refuse_foreign
from localcloud.compute.pool import Pool, PoolSettings
from localcloud.compute.runtime_api import Invocation
from localcloud.host import ControlError, ControlRequest, Host, Response, RoleRefused, ServiceRoles

LAMBDA = "services.lambda_svc"
LOGS = "services.cloudwatch_logs"
CLOUDWATCH = "services.cloudwatch"
RESPONSES = "core.responses"
LOG_SOURCE = "environment"
"""Marks results whose log is written already, so that the base does not write it again."""

MAX_REQUEST_BYTES = {"RequestResponse": 6 * 1024 * 1024, "Event": 1024 * 1024}  # Lambda quotas


def install(host: Host) -> None:
    settings, faults = _configured(host.part_config("lambda"))
    concurrency = plug_in(host, limit=account_concurrency(host.part_config("lambda")))
    base = _Base(host)
    packages = PackageStore(host.data_dir / "lambda" / "packages")
    pool = Pool(
        settings=settings,
        packages=packages,
        scratch=host.data_dir / "lambda" / "environments",
        log_folder=host.data_dir / "logs",
        default_account_id=host.default_account_id,
        server_variables={
            "AWS_ENDPOINT_URL": host.endpoint_url,
            "AWS_ENDPOINT_URL_EBS": host.ebs_endpoint_url,
            "PATH": os.environ.get("PATH", os.defpath),
        },
        credentials_for=role_credentials(host.roles)
        if host.roles is not None
        else account_credentials(host.keys.secret),
        deliver=base.deliver_log_events,
        faults=faults,
    )
    host.on_shutdown(pool.close)
    base.plug_in(pool, packages, faults)
    host.control["lambda"] = _Control(pool, faults, concurrency)


def account_credentials(secret: str) -> Callable[[Function], Credentials]:
    """Credentials of the function's account: in the local cloud a 12-digit access key is the account's root."""
    return lambda function: Credentials(access_key_id=function.account_id, secret_access_key=secret)


def role_credentials(roles: ServiceRoles) -> Callable[[Function], Credentials]:
    """Credentials of the function's own role, one session an environment, named after the function as in AWS."""

    def credentials_for(function: Function) -> Credentials:
        try:
            keys = roles.credentials(
                role_arn=function.role_arn,
                service="lambda.amazonaws.com",
                source_arn=f"arn:aws:lambda:{function.region}:{function.account_id}:function:{function.name}",
                session_name=function.name,
            )
        except RoleRefused as refused:
            raise RoleRefused(f"The role defined for the function cannot be assumed by Lambda: {refused}") from refused
        return Credentials(
            access_key_id=keys.access_key_id,
            secret_access_key=keys.secret_access_key,
            session_token=keys.session_token,
        )

    return credentials_for


def _configured(config: Mapping[str, Any]) -> tuple[PoolSettings, Faults]:
    known = {field.name for field in fields(PoolSettings)}
    if unknown := sorted(set(config) - known - {"faults", "account_concurrency"}):
        raise ValueError(f"local cloud config: unknown keys in 'lambda': {', '.join(unknown)}")
    for name in sorted(known & set(config)):
        if isinstance(config[name], bool) or not isinstance(config[name], int | float) or config[name] < 0:
            raise ValueError(f"local cloud config: '{name}' in 'lambda' must be a number of at least 0")
    faults = Faults()
    for raw in config.get("faults", []):
        faults.add(raw)
    return PoolSettings(**{name: config[name] for name in known if name in config}), faults


class _Base:
    """The attributes of ministack that running a function needs."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._layer_archive: Callable[[Any], bytes | None] = host.lookup(LAMBDA, "_resolve_layer_zip")
        self._trace_id: Callable[[dict[str, Any]], str | None] = host.lookup(LAMBDA, "_xray_trace_id_for_invocation")
        self._functions = host.lookup(LAMBDA, "_functions")
        self._error: Callable[[str, str, int], Response] = host.lookup(LAMBDA, "error_response_json")
        self._request_scope = host.lookup(RESPONSES, "request_scope")
        self._account_id: Callable[[], str] = host.lookup(RESPONSES, "get_account_id")
        self._region: Callable[[], str] = host.lookup(RESPONSES, "get_region")
        self._log_groups = host.lookup(LOGS, "_log_groups")
        self._group_arn: Callable[[str], str] = host.lookup(LOGS, "_make_group_arn")
        self._append: Callable[[dict[str, Any], list[dict[str, Any]]], None] = host.lookup(LOGS, "_append_log_events")
        self._record: Callable[[str, str, float, str, dict[str, str]], None] = host.lookup(CLOUDWATCH, "record_metric")
        self._forward = host.lookup(LOGS, "_fanout_to_subscription_filters")

    def plug_in(self, pool: Pool, packages: PackageStore, faults: Faults) -> None:
        execute = _Executor(self, pool, packages)
        self._host.replace(LAMBDA, "_execute_function_warm", execute)
        write_log = self._host.lookup(LAMBDA, "_emit_lambda_logs")
        invoke = self._host.lookup(LAMBDA, "_invoke")
        delete = self._host.lookup(LAMBDA, "_delete_function")
        check_sizes = self._host.lookup(LAMBDA, "_validate_total_unzipped_size")

        def write_log_once(*args: Any, log_source: str | None = None, **kwargs: Any) -> None:
            if log_source != LOG_SOURCE:
                write_log(*args, log_source=log_source, **kwargs)

        async def checked_invoke(name: str, event: Any, headers: dict[str, str], *args: Any) -> Response:
            refusal = self._refusal(name, headers, faults)
            if refusal is not None:
                return refusal
            answer: Response = await invoke(name, event, headers, *args)
            return answer

        def check_packages(code: bytes | None, layers: Sequence[Any] | None) -> Response | None:
            """What the base checks of code and layers when a function is made or changed, and whether they run here."""
            refusal: Response | None = check_sizes(code, layers)
            if refusal is None:
                try:
                    refuse_foreign([*filter(None, [code, *map(self._layer_archive, layers or ())])])
                except BuiltForAnotherMachine as error:
                    return self._error("InvalidParameterValueException", str(error), 400)
            return refusal

        def delete_and_retire(name: str, query: dict[str, Any], qualifier: str | None = None) -> Response:
            answer: Response = delete(name, query, qualifier)
            if answer[0] == 204 and name not in self._functions:
                pool.retire(self._account_id(), self._region(), name)
            return answer

        def count_throttle(name: str, duration_ms: float, error: bool, throttle: bool) -> None:
            # The base counts what came in through Invoke only, and a throttle twice; the rest is in "count".
            if throttle and not error:
                self._record("AWS/Lambda", "Throttles", 1, "Count", {"FunctionName": name})

        self._host.replace(LAMBDA, "_emit_lambda_metrics", count_throttle)
        self._host.replace(LAMBDA, "_emit_lambda_logs", write_log_once)
        self._host.replace(LAMBDA, "_validate_total_unzipped_size", check_packages)
        self._host.replace(LAMBDA, "_invoke", checked_invoke)
        self._host.replace(LAMBDA, "_delete_function", delete_and_retire)

    def layer_archives(self, config: Mapping[str, Any]) -> list[bytes]:
        archives = []
        for attachment in config.get("Layers") or []:
            archive = self._layer_archive(attachment)
            if archive is None:
                raise BadPackage(f"the layer {attachment} has no content")
            archives.append(archive)
        return archives

    def trace_id(self, config: dict[str, Any]) -> str | None:
        return self._trace_id(config)

    def count(self, function: Function, answer: Answer) -> None:
        """Metrics of an invocation that ran, whoever asked for it: a client, a schedule, a queue."""
        failed = answer.outcome.status != "success"
        with self._request_scope(function.account_id, function.region):
            for metric, value, unit in (
                ("Invocations", 1.0, "Count"),
                ("Errors", float(failed), "Count"),
                ("Throttles", 0.0, "Count"),
                ("Duration", answer.duration_ms, "Milliseconds"),
            ):
                self._record("AWS/Lambda", metric, value, unit, {"FunctionName": function.name})

    def deliver_log_events(self, function: Function, stream: str, events: Sequence[tuple[int, str]]) -> None:
        """Append to the log stream; makes group and stream if needed, as Lambda does at a first invocation."""
        with self._request_scope(function.account_id, function.region):
            group = self._log_groups.get(function.log_group)
            if group is None:
                group = self._log_groups[function.log_group] = {
                    "arn": self._group_arn(function.log_group),
                    "creationTime": events[0][0],
                    "retentionInDays": None,
                    "tags": {},
                    "subscriptionFilters": {},
                    "streams": {},
                }
            entries = [{"timestamp": at, "message": text, "ingestionTime": at} for at, text in events]
            self._append(
                group["streams"].setdefault(
                    stream,
                    {
                        "events": [],
                        "uploadSequenceToken": "1",
                        "creationTime": events[0][0],
                        "firstEventTimestamp": None,
                        "lastEventTimestamp": None,
                        "lastIngestionTime": None,
                    },
                ),
                entries,
            )
            self._forward(function.log_group, stream, [{"timestamp": at, "message": text} for at, text in events])

    def _refusal(self, name: str, headers: Mapping[str, str], faults: Faults) -> Response | None:
        """What Lambda's front end answers before a function is run: payload limits, and faults."""
        kind = headers.get("x-amz-invocation-type", "RequestResponse")
        limit = MAX_REQUEST_BYTES.get(kind)
        if limit is not None and int(headers.get("content-length") or 0) > limit:
            return self._error(
                "RequestTooLargeException",
                f"Request must be smaller than {limit} bytes for the InvokeFunction operation",
                413,
            )
        fault = faults.strike(name, REQUEST_KINDS)
        if fault is None:
            return None
        if fault.kind == "throttle":
            return self._error("TooManyRequestsException", "Rate Exceeded.", 429)
        return self._error("ServiceException", "Service encountered an internal error.", 500)


class _Executor:
    """Replaces ``_execute_function_warm(func, event, request_id)``; called in a thread of its own."""

    def __init__(self, base: _Base, pool: Pool, packages: PackageStore) -> None:
        self._base = base
        self._pool = pool
        self._packages = packages

    def __call__(self, func: dict[str, Any], event: Any, request_id: str) -> dict[str, Any]:
        config = func.get("config") or func
        try:
            function = self._function(config, func.get("code_zip"))
        except BadPackage as error:
            return _result(_refused("Runtime.InvalidPackage", str(error)))
        if not re.fullmatch(r"python3\.\d+", function.runtime):
            return _result(
                _refused(
                    "Runtime.Unsupported",
                    f"the local cloud runs Python functions only; {function.name} wants {function.runtime}",
                )
            )
        invocation = Invocation(
            request_id=request_id,
            payload=json.dumps(event).encode(),
            function_arn=config.get("FunctionArn", ""),
            trace_id=self._base.trace_id(config),
        )
        try:
            return _result(self._pool.run(function, invocation, self._base.count))
        except OSError as error:
            return _result(_refused("Runtime.StartFailed", f"no execution environment could be started: {error}"))

    def _function(self, config: Mapping[str, Any], code: bytes | None) -> Function:
        if not code:
            raise BadPackage("the function has no code")
        name = config["FunctionName"]
        _, _, _, region, account_id, *_ = config["FunctionArn"].split(":")
        logging = config.get("LoggingConfig") or {}
        log_format = logging.get("LogFormat") or "Text"
        archives = self._base.layer_archives(config)
        return Function(
            account_id=account_id,
            region=region,
            name=name,
            version=config.get("Version") or "$LATEST",
            handler=config.get("Handler") or "",
            runtime=config.get("Runtime") or "",
            role_arn=config.get("Role") or "",
            memory_mb=int(config.get("MemorySize") or 128),
            timeout_seconds=int(config.get("Timeout") or 3),
            variables=tuple(sorted(((config.get("Environment") or {}).get("Variables") or {}).items())),
            code=self._packages.code(code),
            layers=self._packages.layers(archives) if archives else None,
            log_group=logging.get("LogGroup") or f"/aws/lambda/{name}",
            log_format=log_format,
            log_level=(logging.get("ApplicationLogLevel") or "INFO") if log_format == "JSON" else None,
        )


def _refused(error_type: str, message: str) -> Answer:
    payload = json.dumps({"errorType": error_type, "errorMessage": message}).encode()
    return Answer(outcome=Outcome(payload=payload, status="error", error_type=error_type), log_tail="", duration_ms=0.0)


def _result(answer: Answer) -> dict[str, Any]:
    """The base's shape of an invocation's result."""
    outcome = answer.outcome
    try:
        body: Any = json.loads(outcome.payload)
    except ValueError:
        body = outcome.payload  # not JSON, which only a custom marshaller can do: passed on as it is
    result: dict[str, Any] = {"body": body, "log": answer.log_tail, "log_source": LOG_SOURCE}
    if outcome.status != "success":
        result |= {"error": True, "function_error": "Unhandled"}
    return result


@dataclass(frozen=True)
class _Control:
    """``/_local/lambda/...``: GET workers, concurrency; POST kill; GET, POST, DELETE faults."""

    pool: Pool
    faults: Faults
    concurrency: Concurrency

    def __call__(self, request: ControlRequest) -> Any:
        match request.method, request.path:
            case "GET", "workers":
                return {"workers": self.pool.workers()}
            case "GET", "concurrency":
                return {"limit": self.concurrency.limit, "running": self.concurrency.running()}
            case "POST", "kill":
                body = request.json()
                if not isinstance(body.get("function"), str):
                    raise ControlError("function must be the name of a function, or *")
                return {"killed": self.pool.kill(body["function"], only_busy=bool(body.get("only_busy", False)))}
            case "GET", "faults":
                return {"faults": self.faults.listing()}
            case "POST", "faults":
                return {"id": self.faults.add(request.json())}
            case "DELETE", "faults":
                number = request.query.get("id")
                self.faults.remove(None if number is None else int(number))
                return {}
        raise ControlError(f"no such control request: {request.method} /_local/lambda/{request.path}", status=404)
