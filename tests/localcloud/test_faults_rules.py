"""When a rule strikes, whichever part it belongs to."""

from __future__ import annotations

import re
from typing import Any

import pytest
from localcloud.compute.faults import Fault
from localcloud.ebs.faults import Rule as EbsRule
from localcloud.faults import Rule, Rules, flipped


def struck(calls: int, **when: Any) -> list[int]:
    """Numbers of the calls that the rule strikes."""
    rules: Rules[Rule] = Rules()
    rules.add(Rule.parse(when))
    return [number for number in range(1, calls + 1) if rules.striking(lambda _: True)]


@pytest.mark.parametrize(
    ("when", "calls"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"times": 2}, [1, 2]),
        ({"after": 6}, [7, 8]),
        ({"nth": 3}, [3]),
        ({"nth": 3, "times": 2}, [3, 4]),
        ({"nth": 2, "after": 4}, [6]),
        ({"every": 3}, [3, 6]),
        ({"every": 2, "after": 1, "times": 2}, [3, 5]),
        ({"probability": 1, "times": 3}, [1, 2, 3]),
        ({"probability": 0}, []),
    ],
    ids=str,
)
def test_a_rule_strikes_the_calls_it_names(when: dict[str, Any], calls: list[int]) -> None:
    assert struck(8, **when) == calls


def test_probability_is_repeatable_and_depends_on_the_seed() -> None:
    assert struck(1000, probability=0.3, seed=4) == struck(1000, probability=0.3, seed=4)
    assert struck(1000, probability=0.3, seed=4) != struck(1000, probability=0.3, seed=5)
    assert 250 < len(struck(1000, probability=0.3, seed=4)) < 350


def test_rules_count_what_they_are_about_each_for_itself() -> None:
    rules: Rules[Rule] = Rules()
    first, second = Rule(nth=2), Rule(every=3)
    numbers = [rules.add(first), rules.add(second)]

    rules.striking(lambda rule: rule is first)
    both = rules.striking(lambda rule: True)

    assert both == [first]
    assert [(each["id"], each["seen"], each["acted"]) for each in rules.listed()] == [
        (numbers[0], 2, 1),
        (numbers[1], 1, 0),
    ]


def test_one_rule_or_all_are_taken_away() -> None:
    rules: Rules[Rule] = Rules()
    first, second = rules.add(Rule()), rules.add(Rule())

    assert rules.clear(first)
    assert not rules.clear(first)
    assert [each["id"] for each in rules.listed()] == [second]
    assert rules.clear()
    assert not rules
    assert rules.striking(lambda _: True) == []


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Rule, 7, "a fault must be a JSON object, not 7"),
        (Rule, {"nht": 1}, "unknown members of a fault: nht; there are after, every"),
        (Rule, {"nth": 0}, "nth must be a whole number of at least 1, not 0"),
        (Rule, {"every": 1.5}, "every must be a whole number"),
        (Rule, {"times": True}, "times must be a whole number of at least 1, not True"),
        (Rule, {"after": -1}, "after must be a whole number of at least 0, not -1"),
        (Rule, {"probability": 1.2}, "probability must be a number of at least 0 and at most 1, not 1.2"),
        (Rule, {"nth": 1, "every": 2}, "nth, every and probability exclude each other"),
        (EbsRule, {"operation": "*"}, "action must be one of error, latency"),
        (EbsRule, {"action": "error", "status": 99}, "status must be a whole number of at least 100 and at most 599"),
        (EbsRule, {"action": "error", "code": ""}, "code must be a text, not ''"),
        (Fault, {"kind": "crash"}, "function must be given"),
        (Fault, {"kind": "crash", "function": "f", "when": "later"}, "when must be one of before, during, after, not"),
    ],
    ids=str,
)
def test_a_wrong_rule_is_refused_with_the_name_of_the_member(kind: type[Rule], given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind.parse(given)


def test_a_wrong_rule_of_a_list_is_named_by_its_place() -> None:
    with pytest.raises(ValueError, match=r"^faults\[1\]: nth must be"):
        Rule.parse_all([{"nth": 1}, {"nth": 0}])
    with pytest.raises(ValueError, match="faults must be a list"):
        Rule.parse_all({"nth": 1})


def test_null_stands_for_an_absent_member() -> None:
    assert EbsRule.parse({"action": "error", "nth": None, "code": None}) == EbsRule(action="error")


def test_a_flipped_bit_is_one_bit_wherever_it_falls() -> None:
    assert flipped(b"\x00\x00", 9) == b"\x00\x02"
    assert flipped(b"\x00\x00", 17) == b"\x02\x00"
    assert flipped(b"", 3) == b""
