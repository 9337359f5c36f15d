"""The rooms of the package: each knows only those below it, and no two modules know each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tools.environment import repository_root

PACKAGE = repository_root() / "layers" / "core" / "blockferry"

ROOMS = (
    "core",
    "formats",
    "aws",
    "requests",
    "jobs",
    "sources",
    "targets",
    "cost",
    "transfer",
    "inspection",
    "local",
    "operations",
    "lambdas",
    "cli",
)
"""From the bottom up."""


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {module_of(file): file for file in PACKAGE.rglob("*.py")}


def imports_of(file: Path) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("blockferry"):
            inner = (node.module or "").removeprefix("blockferry").removeprefix(".")
            for name in node.names:
                whole = f"{inner}.{name.name}".removeprefix(".")
                found = whole if whole in MODULES else inner
                if found in MODULES and found != "__init__":
                    yield found


ARROWS = {module: set(imports_of(file)) - {module} for module, file in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".", 1)[0]


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module) for module in MODULES} - {"__init__"} == set(ROOMS)


def test_no_module_knows_one_of_a_room_above_it() -> None:
    upwards = [
        f"{module} -> {other}"
        for module, others in ARROWS.items()
        for other in others
        if module != "__init__" and ROOMS.index(room_of(other)) > ROOMS.index(room_of(module))
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
