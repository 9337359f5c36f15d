"""Targets of schedules and of EventBridge rules act under their roles.

``localcloud.events`` asks before every delivery. Source: EventBridge Scheduler user guide, "Setting up the
execution role" and "Universal targets"; EventBridge user guide, "Using IAM roles" and "Resource-based
policies" (Lambda without a role).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from localcloud.host import Host, Response, RoleRefused
from localcloud.iam.evaluation import EVALUATOR
from localcloud.iam.roles import RoleSessions

SCHEDULER = "services.scheduler"
_ACTIONS = {
    "lambda": "lambda:InvokeFunction",
    "states": "states:StartExecution",
    "sqs": "sqs:SendMessage",
    "sns": "sns:Publish",
    "events": "events:PutEvents",
    "kinesis": "kinesis:PutRecord",
    "firehose": "firehose:PutRecord",
}
_UNIVERSAL = re.compile(r"arn:aws[a-z-]*:scheduler:::aws-sdk:(\w+):(\w+)")


class Targets:
    def __init__(self, host: Host, roles: RoleSessions) -> None:
        self._host = host
        self._roles = roles
        self._context = host.lookup(EVALUATOR, "EvalContext")
        self._resource_decision = host.lookup(EVALUATOR, "evaluate_resource_policy")
        self._function_policy = host.lookup("services.lambda_svc", "function_policy_for_arn")
        self._scope = host.lookup("core.responses", "request_scope")
        self._account: Callable[[], str] = host.lookup("core.responses", "get_account_id")
        self._region: Callable[[], str] = host.lookup("core.responses", "get_region")
        self._error: Callable[[int, str, str], Response] = host.lookup(SCHEDULER, "_error")

    def plug_in(self) -> None:
        for name in ("_create_schedule", "_update_schedule"):
            self._host.replace(SCHEDULER, name, self._checked(self._host.lookup(SCHEDULER, name)))

    def refusal(self, target: Mapping[str, Any], source_arn: str) -> str:
        """Why the rule or schedule ``source_arn`` may not call the target, empty if it may."""
        arn, role_arn = str(target.get("Arn", "")), target.get("RoleArn")
        region, account = source_arn.split(":")[3:5]
        if not role_arn:
            return self._without_role(arn, source_arn, region=region, account=account)
        scheduled = ":scheduler:" in source_arn
        if scheduled:
            # Scheduler names the group: arn:..:schedule/<group>/<name> becomes arn:..:schedule-group/<group>.
            source_arn = source_arn.replace(":schedule/", ":schedule-group/", 1).rpartition("/")[0]
        try:
            keys = self._roles.kept_credentials(
                role_arn=role_arn,
                service="scheduler.amazonaws.com" if scheduled else "events.amazonaws.com",
                source_arn=source_arn,
                session_name="scheduler" if scheduled else "events",
            )
        except RoleRefused as refused:
            return str(refused)
        universal = _UNIVERSAL.fullmatch(arn)
        service = arn.split(":")[2] if arn.count(":") >= 5 else ""
        if universal:
            action = f"{_PREFIXES.get(universal.group(1), universal.group(1))}:{_capital(universal.group(2))}"
            arn = "*"
        elif service in _ACTIONS:
            action = _ACTIONS[service]
        else:
            return f"the local cloud knows no action for the target {arn}"
        decision = self._roles.may(keys, action, arn, region=region)
        return "" if decision.allowed else decision.reason

    def _without_role(self, arn: str, source_arn: str, *, region: str, account: str) -> str:
        """A function's own policy has to let EventBridge in; queues' and topics' policies are not asked."""
        if ":lambda:" not in arn:
            return ""
        asked = self._context(
            principal_arn="events.amazonaws.com",
            principal_type="Service",
            principal_account="",
            action="lambda:InvokeFunction",
            resource_arn=arn,
            region=region,
            service_context={"aws:sourcearn": source_arn, "aws:sourceaccount": account},
        )
        with self._scope(account, region):
            policy = self._function_policy(arn)
        document = policy[0] if policy is not None else None
        if self._resource_decision(document, asked, service="events.amazonaws.com").decision == "Allow":
            return ""
        return f"no resource-based policy of {arn} allows events.amazonaws.com the lambda:InvokeFunction action"

    def _checked(self, base: Callable[..., Response]) -> Callable[..., Response]:
        """Scheduler tries the role when a schedule is made or changed."""

        def call(name: str, body: dict[str, Any]) -> Response:
            role_arn = (body.get("Target") or {}).get("RoleArn")
            if role_arn:
                try:
                    self._roles.kept_credentials(
                        role_arn=role_arn,
                        service="scheduler.amazonaws.com",
                        source_arn=self._group_arn(body.get("GroupName") or "default"),
                        session_name=name,
                    )
                except RoleRefused:
                    message = "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."
                    return self._error(400, "ValidationException", message)
            return base(name, body)

        return call

    def _group_arn(self, group: str) -> str:
        return f"arn:aws:scheduler:{self._region()}:{self._account()}:schedule-group/{group}"


_PREFIXES = {"sfn": "states", "eventbridge": "events", "cloudwatchlogs": "logs"}
"""Services whose IAM prefix is not the name that Scheduler uses."""


def _capital(operation: str) -> str:
    return operation[:1].upper() + operation[1:]
