"""How many invocations run at a time: an account's concurrency in a Region, and what functions reserve of it.

Sources: Lambda developer guide, "Understanding Lambda function scaling" and "Configuring reserved concurrency" (a limit
for each account and Region, new accounts start with 10; what is reserved is taken off for all others; 100 cannot be
reserved), API reference of Invoke (``TooManyRequestsException`` and its reasons) and of GetAccountSettings. In an
account with less than 100 nothing can be reserved: the service names the account's whole limit as the minimum then.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from localcloud.host import Host, Response

LAMBDA = "services.lambda_svc"

DEFAULT_ACCOUNT_CONCURRENCY = 10
"""The concurrency of a new account. Whatever works here works in an account that has asked for more."""

MOST_KEPT_UNRESERVED = 100

Function = Mapping[str, Any]
Key = tuple[str, str, str]
"""A function by account, Region and name: versions and aliases share what their function has."""


def account_concurrency(config: Mapping[str, Any]) -> int:
    """``account_concurrency`` of the config's ``lambda`` object. Raises ``ValueError`` if it is no such number."""
    limit = config.get("account_concurrency", DEFAULT_ACCOUNT_CONCURRENCY)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError("local cloud config: 'account_concurrency' in 'lambda' must be a whole number of at least 1")
    return limit


class Concurrency:
    """Counts the invocations that run. Safe between threads.

    ``functions`` holds the records of the account and Region that the calling thread acts for; ``reserved`` says what
    one of them reserves.
    """

    def __init__(
        self, *, limit: int, functions: Mapping[str, Function], reserved: Callable[[Function], int | None]
    ) -> None:
        self.limit = limit
        self._functions = functions
        self._reserved = reserved
        self._running: Counter[Key] = Counter()
        self._pooled: dict[tuple[str, str], Counter[str]] = {}
        self._lock = threading.Lock()

    def acquire(self, function: Function, config: Mapping[str, Any]) -> tuple[tuple[Key, bool] | None, str | None]:
        """A slot, or ``None`` and which limit is reached (``function``, ``account``). Never waits: nor does Lambda."""
        _, _, _, region, account, _, name, *_ = config["FunctionArn"].split(":")
        key = (account, region, name)
        reserved = self._reserved(self._functions.get(name) or function)
        unreserved = self.unreserved()
        with self._lock:
            if reserved is not None:
                if self._running[key] >= reserved:
                    return None, "function"
            elif self._pooled.setdefault((account, region), Counter()).total() >= unreserved:
                return None, "account"
            else:
                self._pooled[account, region][name] += 1
            self._running[key] += 1
        return (key, reserved is None), None

    def release(self, slot: tuple[Key, bool] | None) -> None:
        if slot is None:
            return
        (account, region, name), pooled = slot
        with self._lock:
            self._running[account, region, name] -= 1
            if pooled:
                self._pooled[account, region][name] -= 1

    def running(self) -> list[dict[str, Any]]:
        """What runs at present, for ``GET /_local/lambda/concurrency``."""
        with self._lock:
            counts = sorted((key, count) for key, count in self._running.items() if count)
        return [
            {"account_id": account, "region": region, "function": name, "running": count}
            for (account, region, name), count in counts
        ]

    def unreserved(self, *, without: str | None = None) -> int:
        """What is left for functions that reserve nothing; ``without`` one function's reservation."""
        functions = (self._functions.get(name) for name in list(self._functions) if name != without)
        return self.limit - sum(self._reserved(each) or 0 for each in functions if each is not None)

    @property
    def least_unreserved(self) -> int:
        return min(MOST_KEPT_UNRESERVED, self.limit)


def plug_in(host: Host, *, limit: int) -> Concurrency:
    """Put our counting in the place of the base's, which knows neither accounts nor Regions."""
    functions = host.lookup(LAMBDA, "_functions")
    base_reserved: Callable[[Function, Function], int | None] = host.lookup(LAMBDA, "_reserved_concurrency")
    base_put: Callable[[str, dict[str, Any]], Response] = host.lookup(LAMBDA, "_put_function_concurrency")
    base_settings: Callable[[], Response] = host.lookup(LAMBDA, "_get_account_settings")
    error: Callable[[str, str, int], Response] = host.lookup(LAMBDA, "error_response_json")

    def reserved_of_function(record: dict[str, Any], config: dict[str, Any]) -> int | None:
        # A version's record does not hold the reservation, which its function shares with all versions.
        return base_reserved(functions.get(config.get("FunctionName")) or record, config)

    concurrency = Concurrency(
        limit=limit, functions=functions, reserved=lambda record: base_reserved(record, record.get("config") or record)
    )

    def put(name: str, request: dict[str, Any]) -> Response:
        wanted = request.get("ReservedConcurrentExecutions", 0)
        # Nothing is taken from the others by 0, which switches a function off.
        if (
            name in functions
            and wanted
            and concurrency.unreserved(without=name) - wanted < concurrency.least_unreserved
        ):
            return error(
                "InvalidParameterValueException",
                "Specified ReservedConcurrentExecutions for function decreases account's "
                f"UnreservedConcurrentExecution below its minimum value of [{concurrency.least_unreserved}].",
                400,
            )
        return base_put(name, request)

    def settings() -> Response:
        status, headers, body = base_settings()
        answer = json.loads(body)
        answer["AccountLimit"] |= {
            "ConcurrentExecutions": concurrency.limit,
            "UnreservedConcurrentExecutions": concurrency.unreserved(),
        }
        encoded = json.dumps(answer).encode()
        kept = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        return status, kept, encoded

    host.replace(LAMBDA, "_reserved_concurrency", reserved_of_function)
    host.replace(LAMBDA, "_acquire_execution_slot", concurrency.acquire)
    host.replace(LAMBDA, "_release_execution_slot", concurrency.release)
    host.replace(LAMBDA, "_throttle_response", throttled)
    host.replace(LAMBDA, "_put_function_concurrency", put)
    host.replace(LAMBDA, "_get_account_settings", settings)
    return concurrency


def throttled(reason_code: str, msg: str, retry_after: int = 1) -> dict[str, Any]:
    """The base's shape of a throttled invocation, with AWS's words."""
    return {
        "throttle": True,
        "body": {
            "__type": "TooManyRequestsException",
            "Type": "User",
            "message": "Rate Exceeded.",
            "Reason": reason_code,
            "retryAfterSeconds": str(retry_after),
        },
        "error": True,
        "log": "",
    }
