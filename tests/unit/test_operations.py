"""The table of operations, and everything that must say the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest
from blockferry.cli import main as cli
from blockferry.core.errors import InvalidRequest
from blockferry.operations import OPERATIONS, pairing_of
from blockferry.operations.operation import Operation
from blockferry.transfer.job import SOURCES, TARGETS
from tools.environment import repository_root
from tools.machines import machine_files, machine_name, states

ROOT = repository_root()
EACH = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def called_by(file: Path) -> set[str]:
    """The functions that a machine calls, by their folders."""
    names = (
        state.body["Arguments"]["FunctionName"]
        for state in states(json.loads(file.read_text()))
        if state.type == "Task"
    )
    return {name.removeprefix("${").removesuffix("_arn}") for name in names}


def test_every_operation_has_a_state_machine_that_calls_its_functions_and_no_other() -> None:
    assert {machine_name(file): called_by(file) for file in machine_files()} == {
        name: set(operation.functions) for name, operation in OPERATIONS.items()
    }


def test_terraform_lets_each_state_machine_call_the_functions_of_its_operation() -> None:
    text = (ROOT / "terraform/modules/region/machines.tf").read_text()
    (shared,) = re.findall(r"transfer_functions = \[(.*?)\]", text)
    (block,) = re.findall(r"machine_functions = \{(.*?)\n  \}", text, re.DOTALL)
    found = {}
    for name, value in re.findall(r"(\w+)\s*=\s*(.+)", block):
        own = set(re.findall(r'"(\w+)"', value))
        found[name] = own | (set(re.findall(r'"(\w+)"', shared)) if "local.transfer_functions" in value else set())
    assert found == {name: set(operation.functions) for name, operation in OPERATIONS.items()}


@EACH
def test_every_function_of_an_operation_says_what_it_calls(operation: Operation) -> None:
    for name in operation.functions:
        assert json.loads((ROOT / "functions" / name / "permissions.json").read_text())["actions"]


@EACH
def test_the_kinds_of_an_operation_can_be_put_on_record(operation: Operation) -> None:
    for kinds, on_record in ((operation.sources, SOURCES), (operation.targets, TARGETS)):
        for kind in kinds:
            assert resolve_name(on_record[kind.model_fields["kind"].default]) is kind


def test_all_kinds_that_are_put_on_record_belong_to_an_operation() -> None:
    for kinds, on_record in (("sources", SOURCES), ("targets", TARGETS)):
        used = (kind for operation in OPERATIONS.values() for kind in getattr(operation, kinds))
        assert {kind.model_fields["kind"].default for kind in used} == set(on_record)


@EACH
def test_an_operation_has_a_command_that_says_what_it_is_for(
    operation: Operation, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"{operation.name} {operation.summary}" in told
    with pytest.raises(SystemExit):
        cli.main([operation.name, "--help"])
    assert "--input" in capsys.readouterr().out


def test_the_table_of_the_documentation_is_this_one() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    told = {row[0]: tuple(re.findall(r"`(\w+)`", cell) for cell in row[1:]) for row in rows if row[0] in OPERATIONS}
    assert told == {
        name: (
            [kind.__name__ for kind in operation.sources],
            [kind.__name__ for kind in operation.targets],
            list(operation.functions),
        )
        for name, operation in OPERATIONS.items()
    }


def test_an_operation_that_is_no_transfer_is_refused_by_its_name() -> None:
    for name in ("inspect", "later"):
        with pytest.raises(InvalidRequest, match=f"operation {name} is no transfer of this version"):
            pairing_of(name)


LOADED = """
import sys
from blockferry.cli import main
from blockferry.operations import pairing_of
main._parser(["copy"])
pairing_of("copy")
import blockferry.transfer.complete, blockferry.transfer.move, blockferry.transfer.plan, blockferry.transfer.receipt
print(*(name for name in sys.modules if name.startswith("blockferry.")))
"""


def test_a_copy_loads_nothing_that_only_other_operations_need() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"blockferry.sources.snapshot", "blockferry.targets.full", "blockferry.cli.copy"} <= loaded
    others = {value.partition(":")[0] for value in (*SOURCES.values(), *TARGETS.values())}
    others |= {f"blockferry.{room}.{name}" for room in ("operations", "requests", "cli") for name in OPERATIONS}
    others |= {
        f"blockferry.{name}" for name in ("aws.archives", "formats.codecs", "local.upload", "verification.check")
    }
    needed = {"blockferry.sources.snapshot", "blockferry.targets.full"}
    needed |= {f"blockferry.{room}.copy" for room in ("operations", "requests", "cli")}
    assert loaded & others == needed


def test_terraform_tells_of_backups_whoever_asks_for_it_and_nobody_else() -> None:
    text = (ROOT / "terraform/modules/region/functions.tf").read_text()
    (told,) = re.findall(r"told_of_backups = \[(.*?)\]", text)
    handlers = ROOT.glob("functions/*/handler.py")
    asking = {file.parent.name for file in handlers if "settings_of_environment" in file.read_text()}
    assert set(re.findall(r'"(\w+)"', told)) == asking
