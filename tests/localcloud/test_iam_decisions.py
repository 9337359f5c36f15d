"""What the EBS server remembers of decisions, what is recorded of them, and the switch in the config."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from localcloud.ebs.decisions import Caller, Decision, MainServerDecisions
from localcloud.iam.plugin import enforced
from localcloud.iam.record import Record
from localcloud.local_keys import LocalKeys

ROLE = Caller("ASIAEXAMPLE", "token")
SNAPSHOT = "arn:aws:ec2:us-east-1::snapshot/snap-1"


class Asked(MainServerDecisions):
    """Allows everything, and counts how often it was asked."""

    def __init__(self, *, seconds: float = 60.0) -> None:
        super().__init__("http://127.0.0.1:9", LocalKeys.new(), seconds=seconds)
        self.questions: list[tuple[str, str]] = []

    def _ask(self, caller: Caller, action: str, resource: str, region: str, context: Mapping[str, str]) -> Decision:
        self.questions.append((action, resource))
        return Decision(True)

    def get(self, caller: Caller = ROLE, **tags: str) -> Decision:
        return self.decide(
            caller, "ebs:GetSnapshotBlock", SNAPSHOT, region="us-east-1", context=tuple(sorted(tags.items()))
        )


def test_the_same_question_is_asked_once_however_many_threads_ask() -> None:
    decisions = Asked()
    together = threading.Barrier(16)

    def ask(_: int) -> bool:
        together.wait()
        return decisions.get().allowed

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask, range(16)))
    assert len(decisions.questions) == 1


def test_other_tags_are_another_question() -> None:
    decisions = Asked()
    decisions.get(job="1")
    decisions.get(job="2")
    assert len(decisions.questions) == 2


@pytest.mark.parametrize("change", ["forgotten", "too_old"])
def test_a_question_is_asked_again_when_the_answer_is(change: str) -> None:
    decisions = Asked(seconds=0.0 if change == "too_old" else 60.0)
    decisions.get()
    if change == "forgotten":
        decisions.forget()
    decisions.get()
    assert len(decisions.questions) == 2


def test_nobody_asks_about_the_root_of_an_account() -> None:
    decisions = Asked()
    assert decisions.get(Caller("111122223333")).allowed
    assert decisions.questions == []


def test_the_record_counts_by_principal_action_and_outcome() -> None:
    record = Record()
    for resource, allowed in (("a", True), ("b", True), ("c", False)):
        record.add(principal="arn:role", action="s3:GetObject", resource=resource, allowed=allowed)
    record.add(principal="arn:aws:iam::111122223333:root", action="s3:GetObject", resource="a", allowed=True)
    found = [(call["allowed"], call["count"], call["resource"]) for call in record.listing()]
    assert found == [(False, 1, "c"), (True, 2, "b")]
    record.clear()
    assert record.listing() == []


@pytest.mark.parametrize(
    ("config", "expected"), [({}, True), ({"iam": {}}, True), ({"iam": {"enforced": False}}, False)]
)
def test_policies_are_enforced_unless_the_config_says_otherwise(config: dict[str, Any], expected: bool) -> None:
    assert enforced(config) is expected


@pytest.mark.parametrize("config", [{"iam": []}, {"iam": {"enforced": "no"}}, {"iam": {"enforce": False}}])
def test_a_config_that_means_nothing_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="local cloud config"):
        enforced(config)
