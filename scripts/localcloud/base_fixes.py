"""Corrections of the base where Terraform would notice, and of what it reads of the machine it runs on.

A second plan wanted to change every alarm, because the base forgets most of the fields that the Query protocol
sends and describes even fewer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from localcloud.host import Host, Response

CLOUDWATCH = "services.cloudwatch"
APP = "app"
_INTEGERS = frozenset(("Period", "EvaluationPeriods", "DatapointsToAlarm", "MaxRecords"))
_TIMESTAMPS = frozenset(("StateUpdatedTimestamp", "AlarmConfigurationUpdatedTimestamp", "StateTransitionedTimestamp"))
_OF_SINGLE_METRIC = ("MetricName", "Namespace", "Statistic", "Period", "Unit", "Dimensions", "ExtendedStatistic")

_BELOW_LOCALHOST = re.compile(r"([^.]+)\.localhost(?::\d+)?")

AlarmOperation = Callable[..., Response]


def install(host: Host) -> None:
    _keep_to_ourselves(host)
    _repair_alarms(host)
    _find_buckets_below_localhost(host)


def _find_buckets_below_localhost(host: Host) -> None:
    """The base knows buckets below its own name, 127.0.0.1, which has nothing below it, and below ``s3.`` of any."""
    bucket_of: Callable[[str], str | None] = host.lookup(APP, "_extract_s3_vhost_bucket")

    def bucket_in(name: str) -> str | None:
        below = _BELOW_LOCALHOST.fullmatch(name.lower())
        return bucket_of(f"{below.group(1)}.s3.localhost" if below else name)

    host.replace(APP, "_extract_s3_vhost_bucket", bucket_in)


def _keep_to_ourselves(host: Host) -> None:
    """The base runs scripts from folders of the machine and looks for Docker; a local cloud does neither."""
    host.replace(APP, "_collect_scripts", lambda *folders: [])
    host.replace(APP, "_docker_socket_present", lambda: False)


def _repair_alarms(host: Host) -> None:
    describe: AlarmOperation = host.lookup(CLOUDWATCH, "_describe_alarms")
    put: AlarmOperation = host.lookup(CLOUDWATCH, "_put_metric_alarm")
    alarms = host.lookup(CLOUDWATCH, "_alarms")
    xml: Callable[[int, str, str], Response] = host.lookup(CLOUDWATCH, "_xml")

    def put_completely(params: Mapping[str, Any], data: Any, is_cbor: bool, is_json: bool = False) -> Response:
        response = put(params, data, is_cbor, is_json)
        if response[0] == 200:
            request = data if is_cbor or is_json else nested_query(params)
            complete_alarm(alarms[request["AlarmName"]], request)
        return response

    def describe_completely(params: Mapping[str, Any], data: Any, is_cbor: bool, is_json: bool = False) -> Response:
        if is_cbor or is_json:
            return describe(params, data, is_cbor, is_json)
        status, _, body = describe(params, nested_query(params), False, True)
        if status != 200:
            return describe(params, data, is_cbor, is_json)
        content = {"MetricAlarms": [], "CompositeAlarms": [], **json.loads(body)}
        inner = f"<DescribeAlarmsResult>{to_xml(content)}</DescribeAlarmsResult>"
        return xml(status, "DescribeAlarmsResponse", inner)

    host.replace(CLOUDWATCH, "_put_metric_alarm", put_completely)
    host.replace(CLOUDWATCH, "_describe_alarms", describe_completely)


def complete_alarm(alarm: dict[str, Any], request: Mapping[str, Any]) -> None:
    """Add what the base left out, drop what it made up, in the alarm it stored for ``request``."""
    for name in (
        "Metrics",
        "InsufficientDataActions",
        "ThresholdMetricId",
        "EvaluateLowSampleCountPercentile",
    ):
        if request.get(name):
            alarm[name] = request[name]
    if request.get("ExtendedStatistic") and not request.get("Statistic"):
        alarm["Statistic"] = None
    if request.get("Metrics"):
        for name in _OF_SINGLE_METRIC:
            if not request.get(name):
                alarm[name] = None


def nested_query(params: Mapping[str, Any]) -> dict[str, Any]:
    """Query protocol parameters as the object they spell: ``A.member.1.B=x`` is ``{"A": [{"B": "x"}]}``."""
    tree: dict[str, Any] = {}
    for name, value in params.items():
        parts = name.split(".")
        node = tree
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        node[parts[-1]] = value[0] if isinstance(value, list) else value
    nested = _without_members(tree, "")
    assert isinstance(nested, dict)  # noqa: S101
    return nested


def _without_members(node: Any, name: str) -> Any:
    if not isinstance(node, dict):
        if name in _INTEGERS and re.fullmatch(r"\d+", node):
            return int(node)
        return {"true": True, "false": False}.get(node, node)
    if set(node) == {"member"}:
        members = node["member"]
        return [_without_members(members[index], "") for index in sorted(members, key=int)]
    return {key: _without_members(value, key) for key, value in node.items()}


def to_xml(content: Mapping[str, Any]) -> str:
    """Query protocol XML of an object; fields without a value are left out, as CloudWatch does."""
    return "".join(f"<{name}>{_inner_xml(name, value)}</{name}>" for name, value in content.items() if _given(value))


def _inner_xml(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return to_xml(value)
    if isinstance(value, list):
        return "".join(f"<member>{_inner_xml('', item)}</member>" for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if name in _TIMESTAMPS and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return escape(str(value))


def _given(value: Any) -> bool:
    return value is not None and value != ""
