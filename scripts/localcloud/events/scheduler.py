"""EventBridge Scheduler: what the base lets pass is checked, repeated requests are answered, schedules run.

Source: EventBridge Scheduler API reference (constraints of CreateSchedule and UpdateSchedule, in botocore's model),
and its user guide, "Managing targets" (default input of a Lambda target) and "Adding context attributes".
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from localcloud.ebs.events import iso
from localcloud.events.delivery import Deliverer, Delivery
from localcloud.events.expressions import BadExpression, parse
from localcloud.events.idempotency import Idempotency
from localcloud.events.targets import Origin
from localcloud.events.timetable import Timed
from localcloud.host import Host, Response

SCHEDULER = "services.scheduler"
RESPONSES = "core.responses"

Operation = Callable[[str, Mapping[str, Any]], Response]
"""``operation(name, body or query)``, as the base's functions are called."""


class Schedules:
    """The base's store of schedules with our creation, update and deletion in front of it."""

    def __init__(self, host: Host, *, now: Callable[[], float], deliverer: Deliverer, rate_starts: str) -> None:
        self._deliverer = deliverer
        self._first = rate_starts == "immediately"
        self._store: Any = host.lookup(SCHEDULER, "_schedules")
        self._tags: Any = host.lookup(SCHEDULER, "_tags")
        self._refuse: Callable[[int, str, str], Response] = host.lookup(SCHEDULER, "_error")
        self._account: Callable[[], str] = host.lookup(RESPONSES, "get_account_id")
        self._region: Callable[[], str] = host.lookup(RESPONSES, "get_region")
        self._scope: Callable[[str, str], Any] = host.lookup(RESPONSES, "request_scope")
        self._tokens = Idempotency(lambda message: self._refuse(409, "ConflictException", message))
        host.replace(SCHEDULER, "_now", now)
        # The base's loop has a clock of its own; ours is the timetable.
        host.replace(SCHEDULER, "start_scheduler", lambda: None)
        for name, checked in (
            ("_create_schedule", True),
            ("_update_schedule", True),
            ("_create_schedule_group", False),
        ):
            host.replace(SCHEDULER, name, self._once(name, host.lookup(SCHEDULER, name), checked=checked))
        for name in ("_delete_schedule", "_delete_schedule_group"):
            host.replace(SCHEDULER, name, self._once(name, host.lookup(SCHEDULER, name), checked=False))
        for name, members, sort in (
            ("_list_schedules", "Schedules", lambda each: (each["GroupName"], each["Name"])),
            ("_list_schedule_groups", "ScheduleGroups", lambda each: each["Name"]),
        ):
            host.replace(SCHEDULER, name, _paged(host.lookup(SCHEDULER, name), members, sort, self._refuse))

    def timed(self) -> Iterable[Timed]:
        """Every schedule of every account and Region."""
        for (account, region, key), record in list(self._store._data.items()):
            zone = ZoneInfo(record.get("ScheduleExpressionTimezone") or "UTC")
            window = record["FlexibleTimeWindow"]
            flexible = window["Mode"] == "FLEXIBLE"
            yield Timed(
                key=("schedule", account, region, key),
                version=record["LastModificationDate"],
                expression=parse(record["ScheduleExpression"], zone=zone),
                anchor=record["LastModificationDate"],
                first=self._first,
                enabled=record.get("State") != "DISABLED",
                run=self._run(account, region, record),
                start=record.get("StartDate"),
                end=record.get("EndDate"),
                window_seconds=60.0 * window["MaximumWindowInMinutes"] if flexible else 0.0,
                finish=self._finish(account, region, key, record),
            )

    def _run(self, account: str, region: str, record: Mapping[str, Any]) -> Callable[[float], None]:
        def run(due: float) -> None:
            execution = uuid.uuid4().hex[:16]
            origin = Origin(kind="schedule", arn=record["Arn"], account=account, region=region)
            target = dict(record["Target"])

            def payload(attempt: int) -> str:
                text = target.get("Input") or _notification(record, origin, due, execution)
                for name, value in (
                    ("schedule-arn", record["Arn"]),
                    ("scheduled-time", iso(due)),
                    ("execution-id", execution),
                    ("attempt-number", str(attempt)),
                ):
                    text = text.replace(f"<aws.scheduler.{name}>", value)
                return text

            self._deliverer.deliver(
                Delivery(delivery_id=execution, target=target, payload_for=payload, origin=origin, due=due)
            )

        return run

    def _finish(self, account: str, region: str, key: str, record: Mapping[str, Any]) -> Callable[[], None] | None:
        if record.get("ActionAfterCompletion") != "DELETE":
            return None

        def delete() -> None:
            with self._scope(account, region):
                if self._store.get(key) is record:
                    del self._store[key]
                    self._tags.pop(record["Arn"], None)

        return delete

    def _once(
        self, name: str, base: Callable[[str, Any], Response], *, checked: bool
    ) -> Callable[[str, Any], Response]:
        def operation(resource: str, request: Mapping[str, Any]) -> Response:
            token = request.get("ClientToken") or request.get("clientToken")
            scope = (self._account(), self._region(), name, resource)

            def do() -> Response:
                problem = _problem(request) if checked else None
                return base(resource, request) if problem is None else self._refuse(400, "ValidationException", problem)

            return self._tokens.answer(scope, token, request, do)

        return operation


def _problem(request: Mapping[str, Any]) -> str | None:
    """Why Scheduler would refuse this schedule."""
    try:
        zone = ZoneInfo(request.get("ScheduleExpressionTimezone") or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return f"Invalid ScheduleExpressionTimezone {request['ScheduleExpressionTimezone']}."
    try:
        parse(str(request.get("ScheduleExpression") or ""), zone=zone)
    except BadExpression as error:
        return f"Invalid Schedule Expression {request.get('ScheduleExpression')}. {error}"
    window = request.get("FlexibleTimeWindow") or {}
    minutes = window.get("MaximumWindowInMinutes")
    if window.get("Mode") not in ("OFF", "FLEXIBLE"):
        return "FlexibleTimeWindow.Mode must be OFF or FLEXIBLE."
    if (window["Mode"] == "FLEXIBLE") != (minutes is not None):
        return "MaximumWindowInMinutes is given with Mode FLEXIBLE, and only then."
    if minutes is not None and not 1 <= minutes <= 1440:
        return "MaximumWindowInMinutes must be between 1 and 1440."
    policy = (request.get("Target") or {}).get("RetryPolicy") or {}
    for name, low, high in (("MaximumEventAgeInSeconds", 60, 86400), ("MaximumRetryAttempts", 0, 185)):
        if policy.get(name) is not None and not low <= policy[name] <= high:
            return f"{name} must be between {low} and {high}."
    for name, values in (("State", ("ENABLED", "DISABLED")), ("ActionAfterCompletion", ("NONE", "DELETE"))):
        if request.get(name, values[0]) not in values:
            return f"{name} must be one of {', '.join(values)}."
    start, end = request.get("StartDate"), request.get("EndDate")
    if any(isinstance(date, bool) or not isinstance(date, int | float | None) for date in (start, end)):
        return "StartDate and EndDate are seconds since the epoch."
    if start is not None and end is not None and end <= start:
        return "EndDate must be later than StartDate."
    return None


def _notification(record: Mapping[str, Any], origin: Origin, due: float, execution: str) -> str:
    """What a target without Input receives; the time is the run's."""
    return json.dumps(
        {
            "version": "0",
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, execution)),
            "detail-type": "Scheduled Event",
            "source": "aws.scheduler",
            "account": origin.account,
            "time": iso(due),
            "region": origin.region,
            "resources": [record["Arn"]],
            "detail": "{}",
        }
    )


def _paged(
    base: Callable[[Mapping[str, Any]], Response],
    members: str,
    sort: Callable[[Mapping[str, Any]], Any],
    refuse: Callable[[int, str, str], Response],
) -> Callable[[Mapping[str, Any]], Response]:
    """A listing in pages with tokens, made of the base's, which gives one page and no token for the next."""

    def listing(query: Mapping[str, Any]) -> Response:
        size, begin = str(query.get("MaxResults", "100")), str(query.get("NextToken", "0"))
        if not size.isdigit() or not 1 <= int(size) <= 100:
            return refuse(400, "ValidationException", "MaxResults must be between 1 and 100.")
        if not begin.isdigit():
            return refuse(400, "ValidationException", "NextToken is not valid.")
        whole = {name: value for name, value in query.items() if name not in ("MaxResults", "NextToken")}
        status, headers, body = base({**whole, "MaxResults": str(10**9)})
        if status != 200:
            return status, headers, body
        found = sorted(json.loads(body)[members], key=sort)
        first, last = int(begin), int(begin) + int(size)
        page: dict[str, Any] = {members: found[first:last]}
        if last < len(found):
            page["NextToken"] = str(last)
        return status, headers, json.dumps(page).encode()

    return listing
