"""JSONata as Step Functions evaluates it.

Expectations: developer guide, "Transforming data with JSONata in Step Functions".
"""

from __future__ import annotations

from typing import Any

import pytest
from localcloud.states.errors import EvaluationError
from localcloud.states.expressions import Evaluator, names_in

STATES = {"input": {"title": "Doctor", "missing": None, "numbers": [1, 2, 3]}, "context": {"Execution": {"Name": "x"}}}


def evaluate(template: Any, **variables: Any) -> Any:
    return Evaluator(seed=1).template(template, {**variables, "states": STATES}, location="Output")


def test_the_guides_example_gives_the_guides_result() -> None:
    template = {
        "static": "Hello",
        "title": "{% $states.input.title %}",
        "name": "{% $customerName %}",
        "not-evaluated": "$customerName",
    }
    assert evaluate(template, customerName="María") == {
        "static": "Hello",
        "title": "Doctor",
        "name": "María",
        "not-evaluated": "$customerName",
    }


def test_strings_are_evaluated_however_deep_they_are() -> None:
    assert evaluate([1, {"a": ["{% $two %}"]}], two=2) == [1, {"a": [2]}]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("$partition([1,2,3,4], 3)", [[1, 2, 3], [4]]),
        ("$range(0, 10, 2)", [0, 2, 4, 6, 8, 10]),
        ("$range(5, 1, -2)", [5, 3, 1]),
        ("$partition([1,2,3], 1.9)", [[1], [2], [3]]),
        ("$hash('abc', 'SHA-1')", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("$hash('abc', 'MD5')", "900150983cd24fb0d6963f7d28e17f72"),
        ("$parse('{\"foo\": [1, null]}')", {"foo": [1, None]}),
        ("$random(7) = $random(7)", True),
        ("$length($uuid())", 36),
        ("$merge([{'a': 1}, {'b': 2}])", {"a": 1, "b": 2}),
    ],
)
def test_functions_of_step_functions_and_of_jsonata(expression: str, value: Any) -> None:
    assert evaluate(f"{{% {expression} %}}") == value


def test_json_null_is_a_value() -> None:
    assert evaluate("{% $states.input.missing %}") is None
    assert evaluate("{% $nothing %}", nothing=None) is None


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("$states.input.thisFieldDoesNotExist", "returned nothing"),
        ("1 + 'a'", "must evaluate to a number"),
        ("$eval('1')", r"\$eval is not available"),
        ("($f := function($n) { $f($n + 1) }; $f(1))", "Expression evaluation timeout"),
        ("($f := function($n) { 1 + $f($n + 1) }; $f(1))", "Stack overflow error"),
        ("$partition([1], 0)", "greater than zero"),
        ("function($x) { $x }", "not JSON"),
    ],
)
def test_a_failed_evaluation_is_a_query_evaluation_error(expression: str, reason: str) -> None:
    with pytest.raises(EvaluationError, match=reason) as caught:
        evaluate(f"{{% {expression} %}}")
    assert caught.value.error == "States.QueryEvaluationError"
    assert caught.value.location == "Output"


def test_the_seed_makes_random_values_repeatable() -> None:
    assert evaluate("{% [$random(), $uuid()] %}") == evaluate("{% [$random(), $uuid()] %}")


def test_names_bound_inside_an_expression_are_not_variables_of_the_machine() -> None:
    names = names_in("($y := 2; $states.result.a + $job.b + $sum($map([1], function($q) { $q + $y })))")
    assert "job" in names.variables
    assert not {"y", "q"} & names.variables
    assert names.states_fields == {"result"}
