"""Rules of EventBridge: scheduled ones run by the local cloud's clock, and targets are called by our delivery."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from localcloud.events.delivery import Deliverer, Delivery
from localcloud.events.expressions import BadExpression, parse
from localcloud.events.targets import SUPPORTED, Origin
from localcloud.events.timetable import Timed
from localcloud.events.transform import target_input
from localcloud.host import Host

EVENTBRIDGE = "services.eventbridge"
RESPONSES = "core.responses"


class Rules:
    """The base's rules and targets, with our clock and our delivery."""

    def __init__(self, host: Host, *, now: Callable[[], float], deliverer: Deliverer) -> None:
        self._now = now
        self._deliverer = deliverer
        self._rules: Any = host.lookup(EVENTBRIDGE, "_rules")
        self._targets: Any = host.lookup(EVENTBRIDGE, "_targets")
        self._scope: Callable[[str, str], Any] = host.lookup(RESPONSES, "request_scope")
        self._account: Callable[[], str] = host.lookup(RESPONSES, "get_account_id")
        self._region: Callable[[], str] = host.lookup(RESPONSES, "get_region")
        self._view: Callable[[dict[str, Any]], Any] = host.lookup(EVENTBRIDGE, "_pattern_event_view")
        self._base_invoke: Callable[..., None] = host.replace(EVENTBRIDGE, "_invoke_target", self._invoke)
        host.replace(EVENTBRIDGE, "_now_ts", now)
        host.replace(EVENTBRIDGE, "_validate_schedule_expression", _is_valid)
        # The base's loop has a clock of its own; ours is the timetable.
        host.replace(EVENTBRIDGE, "start_scheduler", lambda: None)

    def timed(self) -> Iterable[Timed]:
        """Every rule with a schedule, of every account and Region; they know UTC only."""
        for (account, region, key), rule in list(self._rules._data.items()):
            if rule.get("ScheduleExpression"):
                yield Timed(
                    key=("rule", account, region, key),
                    version=(rule["CreationTime"], rule["ScheduleExpression"]),
                    expression=parse(rule["ScheduleExpression"], rule=True),
                    anchor=rule["CreationTime"],
                    first=False,
                    enabled=rule.get("State") == "ENABLED",
                    run=self._run(account, region, key, rule),
                )

    def _run(self, account: str, region: str, key: str, rule: Mapping[str, Any]) -> Callable[[float], None]:
        def run(due: float) -> None:
            event = {
                "EventId": str(uuid.uuid4()),
                "Source": "aws.events",
                "DetailType": "Scheduled Event",
                "Detail": "{}",
                "EventBusName": rule.get("EventBusName", "default"),
                "Time": int(due),
                "Resources": [rule["Arn"]],
                "Account": account,
                "Region": region,
            }
            with self._scope(account, region):
                for target in list(self._targets.get(key, [])):
                    self._invoke(target, event, rule)

        return run

    def _invoke(
        self, target: Mapping[str, Any], event: dict[str, Any], rule: Mapping[str, Any], view: Any = None
    ) -> None:
        parts = str(target.get("Arn", "")).split(":", 5)
        if len(parts) == 6 and parts[2] not in SUPPORTED:
            # Other buses and API destinations, which the base reaches; it refuses all else.
            self._base_invoke(target, event, rule, view)
            return
        seen = (view or self._view(event)).event_with_detail()
        payload = target_input(target, seen, rule_arn=rule["Arn"], rule_name=rule["Name"], now=self._now())
        origin = Origin(kind="rule", arn=rule["Arn"], account=self._account(), region=self._region())
        self._deliverer.deliver(
            Delivery(
                delivery_id=str(seen["id"]),
                target=dict(target),
                payload_for=lambda _attempt: payload,
                origin=origin,
                due=self._now(),
            )
        )


def _is_valid(text: str) -> bool:
    if not text:
        return True
    try:
        parse(text, rule=True)
    except BadExpression:
        return False
    return True
