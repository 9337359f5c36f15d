"""Every state of every state machine follows the rules, and every rule catches what it is there for."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blockferry.operations import OPERATIONS
from localcloud.states.validate import validate_definition
from pydantic import ValidationError
from tools.environment import repository_root
from tools.machine_definitions import MACHINES as MACHINES_BY_NAME
from tools.machine_definitions import rendered
from tools.machine_parts import DONE, PROGRESS
from tools.machine_rules import LAMBDA_SERVICE_ERRORS, LAMBDA_THROTTLED, RULES
from tools.machines import PLACEHOLDERS, cloudformation_template, machine_files, machine_name, render, states
from tools.render import schema_of, write_machines

REQUESTS = {name: operation.request for name, operation in OPERATIONS.items()}
"""The model behind each machine's input. A machine of no operation fails its tests."""

MACHINES = pytest.mark.parametrize("file", machine_files(), ids=machine_name)


def beside(file: Path, folder: str, ending: str) -> Path:
    return file.parent / folder / f"{machine_name(file)}{ending}"


def test_there_are_machines_to_check() -> None:
    assert {machine_name(file) for file in machine_files()} == REQUESTS.keys()


@MACHINES
def test_a_machine_is_json_before_anything_is_filled_in(file: Path) -> None:
    assert isinstance(json.loads(file.read_text()), dict)


@MACHINES
@pytest.mark.parametrize("rule", RULES)
def test_a_machine_follows_the_rule(file: Path, rule: str) -> None:
    assert RULES[rule](json.loads(file.read_text())) == []


@MACHINES
def test_a_rendered_machine_is_still_json_and_has_no_placeholder_left(file: Path) -> None:
    rendered = render(file.read_text())
    assert json.loads(rendered)["StartAt"]
    assert "${" not in rendered


@MACHINES
def test_the_local_cloud_finds_nothing_wrong_with_a_rendered_machine(file: Path) -> None:
    assert validate_definition(render(file.read_text())) == []


def test_the_local_cloud_sees_a_name_that_a_json_parser_would_drop() -> None:
    twice = json.dumps(good()).replace('"TimeoutSeconds": 3600', '"TimeoutSeconds": 3600, "TimeoutSeconds": 1')
    assert [finding.code for finding in validate_definition(twice)] == ["DUPLICATE_KEY"]


@MACHINES
def test_a_machine_has_an_example_that_its_model_accepts(file: Path) -> None:
    example = json.loads(beside(file, "examples", ".json").read_text())
    REQUESTS[machine_name(file)].model_validate(example)


@MACHINES
def test_the_model_refuses_the_example_with_a_key_it_does_not_know(file: Path) -> None:
    example = json.loads(beside(file, "examples", ".json").read_text())
    with pytest.raises(ValidationError, match="no_such_key"):
        REQUESTS[machine_name(file)].model_validate({**example, "no_such_key": 1})


@MACHINES
def test_the_published_schema_is_the_one_of_the_model(file: Path) -> None:
    assert beside(file, "schemas", ".schema.json").read_text() == schema_of(machine_name(file)), "run scripts/render"


@pytest.mark.parametrize("folder", ["examples", "schemas"])
def test_no_example_or_schema_is_left_of_a_machine_that_is_gone(folder: str) -> None:
    found = {path.name.split(".")[0] for path in (repository_root() / "statemachines" / folder).glob("*.json")}
    assert found == REQUESTS.keys()


@MACHINES
def test_what_is_checked_in_is_what_is_rendered_from_the_parts(file: Path) -> None:
    assert file.read_text() == rendered(MACHINES_BY_NAME[machine_name(file)]), "run scripts/render"


def test_a_file_that_differs_from_its_parts_is_written_anew_and_no_other(tmp_path: Path) -> None:
    assert {file.name for file in write_machines(tmp_path)} == {file.name for file in machine_files()}
    assert write_machines(tmp_path) == []
    (tmp_path / "copy.asl.json").write_text("{}")
    assert write_machines(tmp_path) == [tmp_path / "copy.asl.json"]
    assert (tmp_path / "copy.asl.json").read_text() == rendered(MACHINES_BY_NAME["copy"])


def test_every_placeholder_is_a_function_of_this_repository() -> None:
    for name in PLACEHOLDERS:
        assert (repository_root() / "functions" / name.removesuffix("_arn") / "handler.py").is_file(), name


def test_every_placeholder_is_used_by_some_machine() -> None:
    text = "".join(file.read_text() for file in machine_files())
    assert {name for name in PLACEHOLDERS if f"${{{name}}}" in text} == PLACEHOLDERS


def test_the_template_for_the_linter_leaves_the_definition_alone() -> None:
    definition = good()
    definition["States"]["Move all ranges"]["MaxConcurrency"] = "{% $states.input.n %}"
    before = copy.deepcopy(definition)
    template = json.loads(cloudformation_template(definition))
    assert definition == before
    inside = template["Resources"]["Machine"]["Properties"]["Definition"]
    assert inside["States"]["Move all ranges"]["MaxConcurrency"] == 1


def task(**changes: Any) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Comment": "Why it is there.",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": "${move_blocks_arn}", "Payload": "{% $states.input %}"},
        "TimeoutSeconds": 60,
        "Retry": [
            {
                "ErrorEquals": [LAMBDA_THROTTLED],
                "IntervalSeconds": 2,
                "MaxAttempts": 960,
                "BackoffRate": 2,
                "MaxDelaySeconds": 180,
                "JitterStrategy": "FULL",
            },
            {
                "ErrorEquals": sorted(LAMBDA_SERVICE_ERRORS),
                "IntervalSeconds": 1,
                "MaxAttempts": 3,
                "BackoffRate": 2,
                "MaxDelaySeconds": 10,
                "JitterStrategy": "FULL",
            },
        ],
        **changes,
    }


def good() -> dict[str, Any]:
    """A small machine that follows every rule and has every kind of state the rules look at."""
    return {
        "Comment": "What it is for.",
        "QueryLanguage": "JSONata",
        "StartAt": "Plan the work",
        "TimeoutSeconds": 3600,
        "States": {
            "Plan the work": task(
                Next="Anything to do?",
                Catch=[{"ErrorEquals": ["InvalidRequest"], "Next": "Refuse request"}],
            ),
            "Refuse request": {"Type": "Fail", "Comment": "Why.", "Error": "InvalidRequest", "Cause": "No."},
            "Anything to do?": {
                "Type": "Choice",
                "Comment": "Why.",
                "Choices": [{"Comment": "Why.", "Condition": "{% $states.input.n > 0 %}", "Next": "Move all ranges"}],
                "Default": "Nothing to do",
            },
            "Nothing to do": {"Type": "Succeed", "Comment": "Why."},
            "Move all ranges": {
                "Type": "Map",
                "Comment": "Why.",
                "Label": "MoveAllRanges",
                "MaxConcurrency": 10,
                "ToleratedFailureCount": 0,
                "ItemReader": {
                    "Resource": "arn:aws:states:::s3:getObject",
                    "ReaderConfig": {"InputType": "JSONL"},
                    "Arguments": {"Bucket": "{% $states.input.bucket %}", "Key": "{% $states.input.key %}"},
                },
                "ResultWriter": {
                    "Resource": "arn:aws:states:::s3:putObject",
                    "Arguments": {"Bucket": "{% $states.input.bucket %}", "Prefix": "{% $states.input.prefix %}"},
                },
                "ItemProcessor": {
                    "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                    "StartAt": "Move one range",
                    "States": {
                        "Move one range": task(
                            Arguments={"FunctionName": "${move_blocks_arn}", "Payload": {"progress": PROGRESS}},
                            Next="Range done?",
                        ),
                        "Range done?": {
                            "Type": "Choice",
                            "Comment": "Why.",
                            "Choices": [{"Comment": "Why.", "Condition": DONE, "Next": "Say how"}],
                            "Default": "Move one range",
                        },
                        "Say how": {"Type": "Succeed", "Comment": "Why."},
                    },
                },
                "End": True,
            },
        },
    }


def test_the_good_machine_breaks_no_rule() -> None:
    assert {name: found for name, rule in RULES.items() if (found := rule(good()))} == {}


@pytest.mark.parametrize("between_calls", [{}, {"Type": "Map", "Output": {"progress": PROGRESS}}])
def test_what_hands_the_progress_on_may_stand_between_two_calls(between_calls: dict[str, Any]) -> None:
    definition = good()
    between(**between_calls)(definition)
    assert RULES["whoever_is_not_done_is_called_again"](definition) == []


def test_the_walk_finds_states_inside_maps_and_branches() -> None:
    definition = good()
    definition["States"]["Both at once"] = {
        "Type": "Parallel",
        "Branches": [{"StartAt": "Left side", "States": {"Left side": {"Type": "Pass"}}}],
    }
    found = {state.path for state in states(definition)}
    assert {"Move all ranges / Move one range", "Both at once / Left side"} < found


Mutation = Callable[[dict[str, Any]], object]


def state(name: str, change: Mutation) -> Mutation:
    """Change one top-level state."""
    return lambda definition: change(definition["States"][name])


def children(change: Mutation) -> Mutation:
    """Change the states inside the Map: the rules must look there too."""
    return state("Move all ranges", lambda m: change(m["ItemProcessor"]["States"]))


def child(change: Mutation) -> Mutation:
    return children(lambda states: change(states["Move one range"]))


def question(change: Mutation) -> Mutation:
    """Change the question whether the child is done."""
    return children(lambda states: change(states["Range done?"]))


def between(**more: Any) -> Mutation:
    """Wait between two calls of the child."""
    wait = {"Type": "Wait", "Comment": "Why.", "Seconds": 1, "Next": "Move one range", **more}
    return children(
        lambda states: (states.update({"Wait a bit": wait}), states["Range done?"].update(Default="Wait a bit"))
    )


def reader(change: Mutation) -> Mutation:
    return state("Move all ranges", lambda m: change(m["ItemReader"]))


def rename(definition: dict[str, Any], old: str, new: str) -> None:
    text = json.dumps(definition).replace(json.dumps(old), json.dumps(new))
    definition.clear()
    definition.update(json.loads(text))


BROKEN: list[tuple[str, str, Mutation]] = [
    # (what is broken, the rule that says so, how)
    ("machine without query language", "machine_is_jsonata_described_and_bounded", lambda d: d.pop("QueryLanguage")),
    ("machine without comment", "machine_is_jsonata_described_and_bounded", lambda d: d.pop("Comment")),
    ("machine without timeout", "machine_is_jsonata_described_and_bounded", lambda d: d.pop("TimeoutSeconds")),
    ("machine with timeout 0", "machine_is_jsonata_described_and_bounded", lambda d: d.update(TimeoutSeconds=0)),
    ("JSONPath state", "nothing_is_jsonpath", child(lambda s: s.update(QueryLanguage="JSONPath"))),
    ("Parameters", "nothing_is_jsonpath", child(lambda s: s.update(Parameters={}))),
    ("state without comment", "every_state_and_choice_says_why", child(lambda s: s.pop("Comment"))),
    ("empty comment", "every_state_and_choice_says_why", state("Nothing to do", lambda s: s.update(Comment=" "))),
    (
        "choice rule without comment",
        "every_state_and_choice_says_why",
        state("Anything to do?", lambda s: s["Choices"][0].pop("Comment")),
    ),
    ("one-word name", "names_are_sentences", lambda d: rename(d, "Move one range", "MoveOneRange")),
    ("lower-case name", "names_are_sentences", lambda d: rename(d, "Move one range", "move one range")),
    ("choice without question", "names_are_sentences", lambda d: rename(d, "Anything to do?", "Look for work")),
    ("question that is no choice", "names_are_sentences", lambda d: rename(d, "Nothing to do", "Nothing to do?")),
    ("name over 80 characters", "names_are_sentences", lambda d: rename(d, "Nothing to do", "Do " + "x" * 80)),
    ("same name twice", "names_are_sentences", lambda d: rename(d, "Move one range", "Plan the work")),
    ("task without timeout", "every_task_is_known_and_bounded", child(lambda s: s.pop("TimeoutSeconds"))),
    (
        "unknown integration",
        "every_task_is_known_and_bounded",
        child(lambda s: s.update(Resource="arn:aws:states:::lamda:invoke")),
    ),
    ("task without retry", "every_task_retries_lambda_errors", child(lambda s: s.pop("Retry"))),
    *(
        (
            f"{error} not retried",
            "every_task_retries_lambda_errors",
            child(lambda s, error=error: s["Retry"][1]["ErrorEquals"].remove(error)),  # type: ignore[misc]
        )
        for error in sorted(LAMBDA_SERVICE_ERRORS)
    ),
    ("throttling not retried", "every_task_waits_for_a_free_place", child(lambda s: s["Retry"].pop(0))),
    (
        "throttling retried like a failure of the service",
        "every_task_waits_for_a_free_place",
        child(lambda s: s["Retry"][0]["ErrorEquals"].append("Lambda.ServiceException")),
    ),
    (
        "a retrier of everything before that of throttling",
        "every_task_waits_for_a_free_place",
        child(lambda s: s["Retry"].insert(0, {**s["Retry"][1], "ErrorEquals": ["States.TaskFailed"]})),
    ),
    (
        "patience of minutes",
        "every_task_waits_for_a_free_place",
        child(lambda s: s["Retry"][0].update(MaxAttempts=8)),
    ),
    (
        "patience beyond the life of pending targets",
        "every_task_waits_for_a_free_place",
        child(lambda s: s["Retry"][0].update(MaxAttempts=4_000)),
    ),
    (
        "patience that fills the history",
        "every_task_waits_for_a_free_place",
        lambda d: (
            d.update(TimeoutSeconds=604_800),
            d["States"]["Plan the work"]["Retry"][0].update(MaxAttempts=2_880, MaxDelaySeconds=60),
        ),
    ),
    *(
        (
            f"retry without {name}",
            "every_retry_is_bounded_and_jittered",
            child(lambda s, name=name: s["Retry"][0].pop(name)),  # type: ignore[misc]
        )
        for name in ("MaxDelaySeconds", "JitterStrategy", "MaxAttempts", "IntervalSeconds")
    ),
    (
        "retry in step",
        "every_retry_is_bounded_and_jittered",
        child(lambda s: s["Retry"][0].update(JitterStrategy="NONE")),
    ),
    (
        "retrier of a Map without limit",
        "every_retry_is_bounded_and_jittered",
        state("Move all ranges", lambda s: s.update(Retry=[{"ErrorEquals": ["States.ALL"]}])),
    ),
    ("start that is not there", "every_transition_leads_somewhere", lambda d: d.update(StartAt="Nowhere at all")),
    (
        "next that is not there",
        "every_transition_leads_somewhere",
        state("Plan the work", lambda s: s.update(Next="Nowhere at all")),
    ),
    (
        "default that is not there",
        "every_transition_leads_somewhere",
        state("Anything to do?", lambda s: s.update(Default="Nowhere at all")),
    ),
    (
        "catch that leads nowhere",
        "every_transition_leads_somewhere",
        state("Plan the work", lambda s: s["Catch"][0].update(Next="Nowhere at all")),
    ),
    (
        "choice that leads nowhere",
        "every_transition_leads_somewhere",
        state("Anything to do?", lambda s: s["Choices"][0].update(Next="Nowhere at all")),
    ),
    (
        "transition out of a Map",
        "every_transition_leads_somewhere",
        child(lambda s: s.update(Next="Nothing to do")),
    ),
    ("unreachable state", "every_transition_leads_somewhere", state("Plan the work", lambda s: s.pop("Catch"))),
    (
        "choice without default",
        "every_transition_leads_somewhere",
        state("Anything to do?", lambda s: s.pop("Default")),
    ),
    ("next and end", "every_transition_leads_somewhere", state("Plan the work", lambda s: s.update(End=True))),
    ("neither next nor end", "every_transition_leads_somewhere", child(lambda s: s.pop("Next"))),
    (
        "graph without end",
        "every_transition_leads_somewhere",
        children(lambda s: (s.pop("Say how"), s["Range done?"]["Choices"][0].update(Next="Move one range"))),
    ),
    (
        "progress of another",
        "whoever_is_not_done_is_called_again",
        child(lambda s: s["Arguments"]["Payload"].update(progress="{% $states.input.state %}")),
    ),
    ("nobody asks", "whoever_is_not_done_is_called_again", child(lambda s: s.update(Next="Say how"))),
    (
        "asked something else",
        "whoever_is_not_done_is_called_again",
        question(lambda s: s["Choices"][0].update(Condition="{% $states.input.moved %}")),
    ),
    (
        "asked two things",
        "whoever_is_not_done_is_called_again",
        question(lambda s: s["Choices"].append({"Condition": "{% $states.input.moved %}", "Next": "Say how"})),
    ),
    (
        "called again although it is done",
        "whoever_is_not_done_is_called_again",
        question(lambda s: s["Choices"][0].update(Next="Move one range")),
    ),
    ("never called again", "whoever_is_not_done_is_called_again", question(lambda s: s.update(Default="Say how"))),
    ("wait that forgets", "whoever_is_not_done_is_called_again", between(Output={"waited": True})),
    ("wait that leads elsewhere", "whoever_is_not_done_is_called_again", between(Next="Say how")),
    ("map that forgets", "whoever_is_not_done_is_called_again", between(Type="Map")),
    ("task in between", "whoever_is_not_done_is_called_again", between(Type="Task")),
    (
        "question about a task without progress",
        "whoever_is_not_done_is_called_again",
        child(lambda s: s["Arguments"]["Payload"].pop("progress")),
    ),
    ("fail without cause", "every_failure_says_why", state("Refuse request", lambda s: s.pop("Cause"))),
    ("fail without error", "every_failure_says_why", state("Refuse request", lambda s: s.pop("Error"))),
    *(
        (
            f"map without {name}",
            "every_distributed_map_tolerates_nothing",
            state("Move all ranges", lambda s, name=name: s.pop(name)),  # type: ignore[misc]
        )
        for name in ("Label", "MaxConcurrency", "ToleratedFailureCount", "ResultWriter", "ItemReader")
    ),
    (
        "one tolerated failure",
        "every_distributed_map_tolerates_nothing",
        state("Move all ranges", lambda s: s.update(ToleratedFailureCount=1)),
    ),
    (
        "a percentage beside the count",
        "every_distributed_map_tolerates_nothing",
        state("Move all ranges", lambda s: s.update(ToleratedFailurePercentage=5)),
    ),
    (
        "tolerance from an expression",
        "every_distributed_map_tolerates_nothing",
        state("Move all ranges", lambda s: s.update(ToleratedFailureCount="{% $states.input.n %}")),
    ),
    (
        "label with spaces",
        "every_distributed_map_tolerates_nothing",
        state("Move all ranges", lambda s: s.update(Label="Move all ranges")),
    ),
    (
        "label over 40 characters",
        "every_distributed_map_tolerates_nothing",
        state("Move all ranges", lambda s: s.update(Label="x" * 41)),
    ),
    (
        "no concurrency limit",
        "every_distributed_map_tolerates_nothing",
        state("Move all ranges", lambda s: s.update(MaxConcurrency=0)),
    ),
    (
        "inline map",
        "every_distributed_map_tolerates_nothing",
        state("Move all ranges", lambda s: s["ItemProcessor"]["ProcessorConfig"].update(Mode="INLINE")),
    ),
    (
        "unknown input type",
        "every_distributed_map_tolerates_nothing",
        reader(lambda r: r["ReaderConfig"].update(InputType="XML")),
    ),
    (
        "items from elsewhere",
        "every_distributed_map_tolerates_nothing",
        reader(lambda r: r.update(Resource="arn:aws:states:::dynamodb:scan")),
    ),
    (
        "unknown placeholder",
        "only_arns_are_filled_in",
        child(lambda s: s["Arguments"].update(FunctionName="${other_function_arn}")),
    ),
    (
        "placeholder within a string",
        "only_arns_are_filled_in",
        child(lambda s: s["Arguments"].update(FunctionName="${move_blocks_arn}:live")),
    ),
    (
        "placeholder in an expression",
        "only_arns_are_filled_in",
        reader(lambda r: r["Arguments"].update(Key="{% '${x}' %}")),
    ),
    ("Terraform directive", "only_arns_are_filled_in", reader(lambda r: r["Arguments"].update(Key="{%{'a':1}.a%}"))),
    (
        "ARN written out",
        "only_arns_are_filled_in",
        child(
            lambda s: s["Arguments"].update(
                FunctionName="arn:aws:lambda:us-east-1:111122223333:function:blockferry-move-blocks"
            )
        ),
    ),
    (
        "expression that does not parse",
        "every_expression_parses",
        reader(lambda r: r["Arguments"].update(Key="{% $a( %}")),
    ),
    (
        "expression within a string",
        "every_expression_parses",
        reader(lambda r: r["Arguments"].update(Key="jobs/{% $id %}")),
    ),
]


@pytest.mark.parametrize(("rule", "mutate"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_machine_is_found_by_its_rule(rule: str, mutate: Mutation) -> None:
    definition = good()
    mutate(definition)
    assert definition != good()
    assert RULES[rule](definition) != []


def test_every_rule_has_a_broken_machine_that_it_catches() -> None:
    assert {rule for _, rule, _ in BROKEN} == RULES.keys()
