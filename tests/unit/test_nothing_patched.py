"""Tests hand figures in. None replaces a constant or a class of this repository where its modules look it up: such a
test goes on passing when a module reads the value from elsewhere, and tries nothing any more."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

import pytest
from tools.environment import repository_root

TESTS = repository_root() / "tests"

REPLACING = frozenset({"setattr", "delattr", "patch", "object", "multiple"})
"""Calls that put another value in the place of one: those of pytest's monkeypatch, of unittest.mock and of Python."""

CAPITAL = re.compile(r"_*[A-Z]\w*")
"""The name of a constant or of a class."""


def replaced(text: str) -> Iterator[str]:
    """The constants and classes of this repository, or of nobody knows what, that a module with this text replaces."""
    tree = ast.parse(text)
    known = dict(_imported(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[what, *more]) if name in REPLACING:
                dotted = _words(what)
                if dotted is None:
                    target, names = known.get(_root(what), ""), [_words(more[0]) if more else None]
                    names += [keyword.arg for keyword in node.keywords]
                else:
                    target, _, last = dotted.rpartition(".")
                    names = [last]
                yield from (ast.unparse(node) for each in names if each and _ours(target) and _capital(each))
            case ast.Assign(targets=targets):
                yield from (ast.unparse(node) for each in targets if _is_of_a_module(each, known))
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target) if _is_of_a_module(target, known):
                yield ast.unparse(node)


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from ((each.asname or each.name.split(".")[0], each.name) for each in names)
            case ast.ImportFrom(module=module, names=names):
                yield from ((each.asname or each.name, f"{module}.{each.name}") for each in names)


def _words(node: ast.expr) -> str | None:
    """The text of a string, of which parts may be put in only when it runs."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values):
            return "".join(each.value if isinstance(each, ast.Constant) else "?" for each in values)
    return None


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _ours(module: str) -> bool:
    """Whether a module is of this repository; what is not known to be another's counts as such."""
    return module.split(".")[0] not in {*sys.stdlib_module_names, "botocore", "hypercorn", "moto"}


def _capital(name: str) -> bool:
    return CAPITAL.fullmatch(name) is not None


def _is_of_a_module(target: ast.expr, known: dict[str, str]) -> bool:
    return (
        isinstance(target, ast.Attribute)
        and _capital(target.attr)
        and (module := known.get(_root(target))) is not None
        and _ours(module)
    )


@pytest.mark.parametrize(
    "line",
    [
        'monkeypatch.setattr("blockferry.transfer.plan.SECONDS", 0.0)',
        'monkeypatch.setattr("blockferry.aws.sessions._DESCRIBING", x)',
        'monkeypatch.setattr("blockferry.aws.ebs.client.RetryPolicy", x)',
        'monkeypatch.setattr(plan, "SECONDS", 0.0)',
        'monkeypatch.setattr(transfer.plan, "SECONDS", 0.0)',
        'monkeypatch.setattr(whatever, "SECONDS", 0.0)',
        'monkeypatch.setattr(f"{__name__}.DELTA", x)',
        'monkeypatch.setattr(f"blockferry.{module}.SECONDS", x)',
        'monkeypatch.delattr("tools.mirror.SEARCH_ROOTS")',
        'mock.patch("localcloud.compute.pool.SECONDS", 0.02)',
        'patch("localcloud.compute.pool.SECONDS", 0.02)',
        'mock.patch.object(plan, "SECONDS", 0.02)',
        "mock.patch.multiple(plan, SECONDS=0.02)",
        'setattr(plan, "SECONDS", 0.0)',
        "plan.SECONDS = 0.0",
        "plan.SECONDS += 1.0",
        "plan.SECONDS: float = 0.0",
    ],
)
def test_a_constant_that_is_replaced_is_found_in_whatever_form(line: str) -> None:
    found = list(replaced(f"from blockferry.transfer import plan\nfrom blockferry import transfer\n{line}"))
    assert found == [ast.unparse(ast.parse(line))]


@pytest.mark.parametrize(
    "line",
    [
        'monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", x)',
        'monkeypatch.setattr("botocore.endpoint.URLLib3Session", x)',
        'monkeypatch.setattr("fcntl.ioctl", x)',
        'monkeypatch.setattr("stat.S_ISREG", x)',
        'monkeypatch.setattr(plan, "start", x)',
        'monkeypatch.setattr("blockferry.cli.console.Operator.of", x)',
        "monkeypatch.setenv('AWS_REGION', 'us-east-1')",
        "SECONDS = 1.0",
        "rig.SECONDS = 1.0",
        "plan.seconds = 1.0",
    ],
)
def test_the_world_outside_and_single_functions_may_be_stood_in_for(line: str) -> None:
    assert list(replaced(f"import botocore.handlers\nfrom blockferry.transfer import plan\n{line}")) == []


def test_no_test_replaces_a_constant_or_a_class_of_this_repository() -> None:
    files = sorted(TESTS.rglob("*.py"))
    assert len(files) > 100
    found = {str(file.relative_to(TESTS)): list(replaced(file.read_text())) for file in files}
    assert {file: lines for file, lines in found.items() if lines} == {}
