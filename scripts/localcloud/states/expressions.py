"""JSONata as Step Functions evaluates it.

Source: developer guide, "Transforming data with JSONata in Step Functions": strings that start with
``{%`` and end with ``%}`` are expressions; ``$eval`` is not available; ``$partition``, ``$range``,
``$hash``, ``$random``, ``$uuid`` and ``$parse`` are added; an expression without a value is an error.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from jsonata.jexception import JException
from jsonata.jsonata import Jsonata
from jsonata.utils import Utils

from localcloud.states.errors import EvaluationError

_OPEN: Final = "{%"
_CLOSE: Final = "%}"
_CPU_SECONDS: Final = 1.0
"""The service gives an expression one second. Here it is CPU time, so that a busy machine fails nothing."""
_MAX_DEPTH: Final = 1500
_CHECK_EVERY: Final = 256
_CACHE_SIZE: Final = 512
_HASHES: Final = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}

ADDED_FUNCTIONS: Final = frozenset({"partition", "range", "hash", "random", "uuid", "parse"})


def expression_in(text: str) -> str | None:
    """The JSONata between the markers; ``None`` for a plain string.

    Raises ``ValueError`` for a string with only one of the markers.
    """
    opens, closes = text.startswith(_OPEN), text.endswith(_CLOSE) and len(text) >= len(_OPEN) + len(_CLOSE)
    if opens and closes:
        return text[len(_OPEN) : -len(_CLOSE)].strip()
    if opens or closes:
        raise ValueError("an expression must start with '{%' and end with '%}'")
    return None


class _Compiled(threading.local):
    """Parsed expressions by text. Per thread: jsonata-python keeps state of an evaluation on the object."""

    def __init__(self) -> None:
        self.cache: dict[str, Jsonata] = {}

    def get(self, expression: str) -> Jsonata:
        found = self.cache.get(expression)
        if found is None:
            if len(self.cache) >= _CACHE_SIZE:
                self.cache.clear()
            found = Jsonata(expression)
            # So that "no value" (None) and JSON null stay apart.
            found.set_output_convert_nulls(False)
            self.cache[expression] = found
        return found


class Evaluator:
    """Evaluates expressions and JSON templates. ``seed`` makes ``$random`` and ``$uuid`` repeatable."""

    def __init__(self, *, seed: int | None = None) -> None:
        self._compiled = _Compiled()
        self._random = random.Random(seed)  # noqa: S311 - what $random gives is not a secret
        self._functions: dict[str, Any] = {
            "partition": Jsonata.JLambda(_partition),
            "range": Jsonata.JLambda(_range),
            "hash": Jsonata.JLambda(_hash),
            "random": Jsonata.JLambda(self._random_number),
            "uuid": Jsonata.JLambda(self._uuid),
            "parse": Jsonata.JLambda(_parse),
            "eval": Jsonata.JLambda(_no_eval),
        }

    def value(self, expression: str, names: Mapping[str, Any], *, location: str) -> Any:
        """The value of one expression. Raises ``EvaluationError``."""
        frame = Jsonata.Frame(None)
        _bound_effort(frame)
        for name, function in self._functions.items():
            frame.bind(name, function)
        for name, bound in names.items():
            frame.bind(name, Utils.NULL_VALUE if bound is None else bound)
        try:
            result = self._compiled.get(expression).evaluate(None, frame)
        except EvaluationError as error:
            raise EvaluationError(error.cause, location=location) from error
        except RecursionError as error:
            raise EvaluationError("Stack overflow error", location=location) from error
        except JException as error:
            raise EvaluationError(
                f"The JSONata expression '{expression}' specified for the field '{location}' threw an error "
                f"during evaluation. {error.error}: {error}",
                location=location,
            ) from error
        except Exception as error:  # jsonata-python lets Python errors of wrong types through
            raise EvaluationError(
                f"The JSONata expression '{expression}' specified for the field '{location}' threw an error "
                f"during evaluation. {error}",
                location=location,
            ) from error
        if result is None or callable(result) or isinstance(result, Jsonata.JFunctionCallable):
            raise EvaluationError(
                f"The JSONata expression '{expression}' specified for the field '{location}' returned nothing "
                "(undefined).",
                location=location,
            )
        return _plain(result, expression, location)

    def template(self, template: Any, names: Mapping[str, Any], *, location: str) -> Any:
        """``template`` with every expression in it, however deep, replaced by its value."""
        if isinstance(template, str):
            expression = expression_in(template)
            return template if expression is None else self.value(expression, names, location=location)
        if isinstance(template, dict):
            return {key: self.template(value, names, location=f"{location}/{key}") for key, value in template.items()}
        if isinstance(template, list):
            return [self.template(value, names, location=f"{location}/{index}") for index, value in enumerate(template)]
        return template

    def _random_number(self, seed: Any = None) -> float:
        if seed is None or seed is Utils.NULL_VALUE:
            return self._random.random()
        return random.Random(_integer(seed, "$random")).random()  # noqa: S311 - same seed, same number

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


def _bound_effort(frame: Any) -> None:
    """Stop an expression that recurses too deep or computes too long."""
    depth = 0
    steps = 0
    begun = time.thread_time()

    def enter(*_: Any) -> None:
        nonlocal depth, steps
        depth += 1
        steps += 1
        if depth > _MAX_DEPTH:
            raise EvaluationError("Stack overflow error")
        if steps % _CHECK_EVERY == 0 and time.thread_time() - begun > _CPU_SECONDS:
            raise EvaluationError("Expression evaluation timeout")

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    frame.set_evaluate_entry_callback(enter)
    frame.set_evaluate_exit_callback(leave)


def _plain(value: Any, expression: str, location: str) -> Any:
    """``value`` as JSON types only; whole floats become integers, as JavaScript prints them."""
    if value is None or value is Utils.NULL_VALUE:
        return None
    if isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EvaluationError(
                f"The JSONata expression '{expression}' gave a number that JSON cannot hold.", location=location
            )
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, dict):
        return {str(key): _plain(item, expression, location) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item, expression, location) for item in value]
    raise EvaluationError(
        f"The JSONata expression '{expression}' gave a {type(value).__name__}, which is not JSON.", location=location
    )


def _integer(value: Any, function: str) -> int:
    """Integer parameters are rounded down, as the developer guide says."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EvaluationError(f"{function} needs a number, not {json.dumps(value, default=str)}")
    return math.floor(value)


def _partition(values: Any, size: Any) -> list[Any]:
    chunk = _integer(size, "$partition")
    if chunk <= 0:
        raise EvaluationError("$partition needs a chunk size greater than zero")
    items = list(values) if isinstance(values, list | tuple | range) else [values]
    return [items[start : start + chunk] for start in range(0, len(items), chunk)]


def _range(first: Any, last: Any, delta: Any) -> list[int]:
    start, end, step = (_integer(value, "$range") for value in (first, last, delta))
    if step == 0:
        raise EvaluationError("$range needs a delta other than zero")
    return list(range(start, end + (1 if step > 0 else -1), step))


def _hash(text: Any, algorithm: Any) -> str:
    if not isinstance(text, str) or algorithm not in _HASHES:
        raise EvaluationError(f"$hash needs a string and one of {', '.join(_HASHES)}")
    return hashlib.new(_HASHES[algorithm], text.encode(), usedforsecurity=False).hexdigest()


def _parse(text: Any) -> Any:
    if not isinstance(text, str):
        raise EvaluationError("$parse needs a string")
    try:
        value = json.loads(text)
    except ValueError as error:
        raise EvaluationError(f"$parse: not JSON: {error}") from error
    return Utils.NULL_VALUE if value is None else value


def _no_eval(*_: Any) -> Any:
    raise EvaluationError("$eval is not available in Step Functions, use $parse")


class Names:
    """What an expression refers to: ``variables`` it does not bind itself, and ``states`` fields."""

    def __init__(self) -> None:
        self.variables: set[str] = set()
        self.states_fields: set[str] = set()
        self.bound: set[str] = set()


def names_in(expression: str) -> Names:
    """Parse ``expression`` and list what it refers to. Raises ``ValueError`` if it does not parse."""
    try:
        parsed = Jsonata(expression)
    except JException as error:
        raise ValueError(f"{error.error}: {error}") from error
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error
    names = Names()
    _collect(parsed.ast, names, set())
    names.variables -= names.bound
    return names


def _collect(node: Any, names: Names, seen: set[int]) -> None:
    if id(node) in seen:
        return
    seen.add(id(node))
    kind = getattr(node, "type", None)
    if kind == "lambda":
        names.bound.update(str(argument.value) for argument in getattr(node, "arguments", None) or [])
    elif kind == "bind":
        names.bound.add(str(node.lhs.value))
    elif kind == "variable":
        if node.value:  # empty for "$", the context value
            names.variables.add(str(node.value))
    elif kind == "path":
        steps = list(node.steps)
        if len(steps) > 1 and steps[0].type == "variable" and steps[0].value == "states":
            names.states_fields.add(str(steps[1].value) if steps[1].type == "name" else "*")
    for attribute, child in vars(node).items():
        if attribute.startswith("_"):
            continue
        for item in _children(child):
            _collect(item, names, seen)


def _children(value: Any) -> list[Any]:
    if hasattr(value, "lbp"):
        return [value]
    if isinstance(value, list | tuple):
        return [child for item in value for child in _children(item)]
    if isinstance(value, dict):
        return [child for item in value.values() for child in _children(item)]
    return []


def built_in_functions() -> frozenset[str]:
    """Names that are functions in every expression."""
    return frozenset(Jsonata.static_frame.bindings) - {"eval"} | ADDED_FUNCTIONS
