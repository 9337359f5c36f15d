"""The rooms of the package: each knows only those below it, and no two modules know each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.environment import repository_root

PACKAGE = repository_root() / "layers" / "core" / "blockferry"

ROOMS = (
    "core",
    "formats",
    "lifecycle",
    "aws",
    "requests",
    "jobs",
    "sources",
    "targets",
    "cost",
    "transfer",
    "inspection",
    "verification",
    "backups",
    "local",
    "operations",
    "lambdas",
    "cli",
)
"""From the bottom up."""


def module_of(file: Path) -> str:
    """The dotted name below the package, which is itself ``""``; a folder is called as its ``__init__`` is imported."""
    return ".".join(part for part in file.relative_to(PACKAGE).with_suffix("").parts if part != "__init__")


MODULES = {module_of(file): file for file in PACKAGE.rglob("*.py")}


def imports_of(text: str) -> Iterator[str]:
    """The modules of the package that a module with this text imports, wherever in it and in whatever form."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names):
                yield from (_below(name.name) for name in names if name.name.split(".")[0] == PACKAGE.name)
            case ast.ImportFrom(level=1 | 2 | 3):
                raise AssertionError(f"line {node.lineno}: write the whole name of what is imported")
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == PACKAGE.name:
                for name in names:
                    whole = _below(f"{module}.{name.name}")
                    yield whole if whole in MODULES else _below(module)


def _below(name: str) -> str:
    return name.removeprefix(PACKAGE.name).removeprefix(".")


ARROWS = {module: set(imports_of(file.read_text())) - {module} for module, file in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".", 1)[0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import blockferry.cli.main", ["cli.main"]),
        ("import json, blockferry.cli.main as m", ["cli.main"]),
        ("from blockferry.cli import main, copy", ["cli.main", "cli.copy"]),
        ("from blockferry.cli.main import main", ["cli.main"]),
        ("from blockferry.aws.ebs import anything", ["aws.ebs"]),
        ("from blockferry import cli", ["cli"]),
        ("from blockferry import __version__", [""]),
        ("def later():\n    from blockferry.cli.main import main", ["cli.main"]),
        ("if TYPE_CHECKING:\n    from blockferry.cli.main import main", ["cli.main"]),
        ("import json\nfrom blockferry_more import cli\nimport blockferrying", []),
    ],
)
def test_an_import_is_seen_in_whatever_form(text: str, found: list[str]) -> None:
    assert list(imports_of(text)) == found


def test_a_relative_import_is_refused_since_it_hides_its_room() -> None:
    with pytest.raises(AssertionError, match="line 1"):
        list(imports_of("from ..cli import main"))


def test_every_import_of_the_package_is_of_a_module_that_there_is() -> None:
    assert {other for others in ARROWS.values() for other in others} <= set(MODULES)


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module) for module in MODULES} - {""} == set(ROOMS)


def test_no_module_knows_one_of_a_room_above_it() -> None:
    upwards = [
        f"{module} -> {other}"
        for module, others in ARROWS.items()
        for other in others
        if module and other and ROOMS.index(room_of(other)) > ROOMS.index(room_of(module))
    ]
    assert upwards == []


def test_no_modules_know_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for other in sorted(ARROWS[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in sorted(ARROWS):
        visit(module, ())


def test_what_is_pure_knows_no_aws() -> None:
    for module, file in MODULES.items():
        if room_of(module) in ("core", "formats"):
            assert not {"boto3", "botocore"} & set(file.read_text().replace(".", " ").split()), module


KINDS = ("JobSnapshot", "JobDelta", "JobImage", "FullSnapshot", "SnapshotOnParent", "SnapshotOrigin", "SnapshotTarget")


def test_no_step_asks_of_what_kind_a_source_or_target_is() -> None:
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                assert not set(KINDS) & {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}, module
