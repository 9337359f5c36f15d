"""What targets receive. Expectations: EventBridge user guide, "Amazon EventBridge input transformation"."""

from __future__ import annotations

import json
from typing import Any

import pytest
from localcloud.events.transform import Missing, at_path, target_input

EVENT: dict[str, Any] = {
    "version": "0",
    "id": "7bf73129-1428-4cd3-a780-95db273d1602",
    "detail-type": "EBS Snapshot Notification",
    "source": "aws.ec2",
    "account": "111122223333",
    "time": "2026-01-01T00:00:00Z",
    "region": "us-east-1",
    "resources": ["arn:aws:ec2::us-east-1:snapshot/snap-01234567", "second"],
    "detail": {"event": "createSnapshot", "result": "succeeded", "count": 3, "on": True, "list": [{"a": 1}, {"a": 2}]},
}
ARN = "arn:aws:events:us-east-1:111122223333:rule/r"


def received(**target: Any) -> str:
    return target_input(target, EVENT, rule_arn=ARN, rule_name="r", now=1_767_225_661.5)


def transformed(template: str, **paths: str) -> str:
    return received(InputTransformer={"InputPathsMap": paths, "InputTemplate": template})


def test_without_anything_it_is_the_event() -> None:
    assert json.loads(received()) == EVENT


def test_a_constant_is_the_same_for_every_event() -> None:
    assert received(Input='{"do": "sweep"}') == '{"do": "sweep"}'


def test_a_path_takes_a_part_of_the_event() -> None:
    assert json.loads(received(InputPath="$.detail.list[1]")) == {"a": 2}
    assert json.loads(received(InputPath="$.resources")) == EVENT["resources"]


def test_elements_of_lists_are_reached_by_index_and_wildcard() -> None:
    assert at_path(EVENT, "$.resources[0]") == "arn:aws:ec2::us-east-1:snapshot/snap-01234567"
    assert at_path(EVENT, "$.detail.list[*].a") == [1, 2]
    assert at_path(EVENT, "$.detail-type") == "EBS Snapshot Notification"
    with pytest.raises(Missing):
        at_path(EVENT, "$.resources[2]")


def test_strings_get_quotes_where_a_json_value_stands_and_keep_those_they_have() -> None:
    text = transformed('{"a": <snap>, "b": "<snap>", "c": "is <snap>"}', snap="$.resources[0]")

    arn = EVENT["resources"][0]
    assert json.loads(text) == {"a": arn, "b": arn, "c": f"is {arn}"}


def test_numbers_booleans_and_objects_stay_what_they_are() -> None:
    text = transformed('{"n": <n>, "t": <t>, "l": <l>}', n="$.detail.count", t="$.detail.on", l="$.detail.list")

    assert json.loads(text) == {"n": 3, "t": True, "l": [{"a": 1}, {"a": 2}]}


def test_an_object_inside_a_string_loses_its_quotes() -> None:
    assert transformed('"it was <l>"', l="$.detail.list") == '"it was [{a: 1}, {a: 2}]"'


def test_the_reserved_variables() -> None:
    text = transformed(
        '{"arn": <aws.events.rule-arn>, "name": <aws.events.rule-name>, "at": <aws.events.event.ingestion-time>,'
        ' "event": <aws.events.event>, "whole": <aws.events.event.json>}'
    )

    assert json.loads(text) == {
        "arn": ARN,
        "name": "r",
        "at": "2026-01-01T00:01:01Z",
        "event": {key: value for key, value in EVENT.items() if key != "detail"},
        "whole": EVENT,
    }


def test_a_template_of_plain_text() -> None:
    assert transformed("snapshot <result> in <region>", result="$.detail.result", region="$.region") == (
        "snapshot succeeded in us-east-1"
    )


def test_a_variable_whose_path_leads_nowhere_is_empty() -> None:
    assert json.loads(transformed('{"a": "<gone>"}', gone="$.detail.gone")) == {"a": ""}
