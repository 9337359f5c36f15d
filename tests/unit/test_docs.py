"""What the pages tell people to type can be typed: commands, options, files, outputs, links; and lists are complete."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from blockferry.cli import main as cli
from localcloud import service_faults
from localcloud.compute import faults as function_faults
from localcloud.ebs import faults as ebs_faults
from localcloud.events import faults as event_faults
from localcloud.faults import Rule
from pages import PAGES, ROOT, Typed, typed

COMMANDS = [each for page in PAGES for each in typed(page)]


def of(*programs: str) -> list[Any]:
    return [pytest.param(each, id=str(each)) for each in COMMANDS if each.words[0] in programs]


def status_of(arguments: list[str]) -> int:
    try:
        cli._parser().parse_args(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize("command", of("blockferry", ".venv/bin/blockferry"))
def test_every_command_line_of_blockferry_is_one(command: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = list(command.words[1:])
    if not command.whole and len(arguments) == 1:
        # A sentence may name a command without all that it takes.
        arguments.append("--help")
    assert status_of(arguments) == 0, capsys.readouterr().err


def start_arguments() -> dict[str, str]:
    text = (ROOT / "terraform" / "modules" / "region" / "machines.tf").read_text()
    block = re.search(r"start_arguments = \{\n(.*?)\n  \}", text, re.DOTALL)
    assert block is not None
    return dict(re.findall(r'^\s+(\w+)\s+= "(.*)"$', block[1], re.MULTILINE))


def test_the_start_commands_of_terraform_are_command_lines() -> None:
    assert set(start_arguments()) == {path.name.split(".")[0] for path in ROOT.glob("statemachines/*.asl.json")}
    for operation, arguments in start_arguments().items():
        cli._parser().parse_args([operation, *shlex.split(arguments), "--region", "eu-west-1"])


@pytest.mark.parametrize("command", of(*(f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir())))
def test_every_script_is_there_and_has_the_options(command: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    script = ROOT / command.words[0]
    if script.is_dir():
        assert len(command.words) == 1
        return
    program = re.search(r"^    from (\S+) import main", script.read_text(), re.MULTILINE)
    assert program is not None
    main = importlib.import_module(program[1]).main
    subcommand = [word for word in command.words[1:2] if not word.startswith("-")]
    shown = ""
    for arguments in ([*subcommand, "--help"], ["--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0, capsys.readouterr().err
        shown += capsys.readouterr().out
    for word in [*subcommand, *(word for word in command.words if word.startswith("--"))]:
        assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", shown), f"{word} is not in the help of {script.name}"


@pytest.mark.parametrize(
    "path", sorted({word for each in COMMANDS for word in each.words if word.startswith("scripts/")})
)
def test_every_script_that_a_command_names_exists(path: str) -> None:
    assert (ROOT / path).exists()


FOLDERS = ("docs/", "functions/", "layers/", "scripts/", "statemachines/", "terraform/", "tests/")


@pytest.mark.parametrize("command", [pytest.param(each, id=str(each)) for each in COMMANDS if each.whole])
def test_files_and_folders_that_a_command_names_exist(command: Typed) -> None:
    named = [word.split("file://")[-1] for word in command.words if word.split("file://")[-1].startswith(FOLDERS)]
    named += [word.removeprefix("-chdir=") for word in command.words if word.startswith("-chdir=")]
    named += [word for verb, word in zip(command.words, command.words[1:], strict=False) if verb == "cd"]
    for path in named:
        # Of the checkout's own name there is no folder in it.
        assert (ROOT / path).exists() or path == "blockferry", path


def declared(folder: Path, kind: str) -> set[str]:
    return {
        name for file in folder.glob("*.tf") for name in re.findall(rf'^{kind} "(\w+)"', file.read_text(), re.MULTILINE)
    }


@pytest.mark.parametrize("command", of("terraform"))
def test_outputs_and_variables_of_terraform_exist(command: Typed) -> None:
    folder = next((word.removeprefix("-chdir=") for word in command.words if word.startswith("-chdir=")), "terraform")
    arguments = [word for word in command.words[1:] if not word.startswith("-")]
    if arguments and arguments[0] == "output":
        assert set(arguments[1:]) <= declared(ROOT / folder, "output")
    variables = [word for option, word in zip(command.words, command.words[1:], strict=False) if option == "-var"]
    assert {name.partition("=")[0] for name in variables} <= declared(ROOT / folder, "variable")


def rows(page: Path, heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None, heading
    first = re.findall(r"^\| (`.*?) \|", section[1], re.MULTILINE)
    return {name for cell in first for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize(("heading", "kind"), [("Variables", "variable"), ("Outputs", "output")])
def test_the_page_of_terraform_lists_all_of_them(heading: str, kind: str) -> None:
    assert rows(ROOT / "terraform" / "README.md", heading) == declared(ROOT / "terraform", kind)


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Faults of EBS", ebs_faults.Rule),
        ("Faults of functions", function_faults.Fault),
        ("Faults of events and schedules", event_faults.Fault),
        ("Faults of all other services", service_faults.ServiceRule),
    ],
)
def test_the_members_of_faults_are_told_without_a_look_at_the_source(heading: str, kind: type[Rule]) -> None:
    page = ROOT / "docs" / "local-cloud.md"
    common = {field.name for field in dataclasses.fields(Rule)}
    assert rows(page, "Faults") == common
    assert rows(page, heading) == {field.name for field in dataclasses.fields(kind)} - common


def alarms() -> set[str]:
    """The names of all alarms of the modules, in a deployment called blockferry."""
    found = set()
    for file in ROOT.glob("terraform/modules/*/*.tf"):
        text = file.read_text()
        for resource in re.findall(r'^resource "aws_cloudwatch_metric_alarm".*?^}', text, re.MULTILINE | re.DOTALL):
            name = re.search(r'alarm_name\s+= "(.*)"', resource)
            each = re.search(r"for_each = .*?\blocal\.(\w+)", resource)
            assert name is not None
            assert each is not None
            table = re.search(rf"^  {each[1]} = \{{\n(.*?)^  \}}", text, re.MULTILINE | re.DOTALL)
            assert table is not None
            for key in re.findall(r"^    ([\w-]+)\s+=", table[1], re.MULTILINE):
                called = name[1].replace("${each.key}", key).replace("${var.name_prefix}", "blockferry")
                found.add(called.replace("${var.name}", "blockferry-OPERATION"))
    return found


def test_the_runbook_has_every_alarm_and_no_other() -> None:
    assert len(alarms()) == 14
    assert set(re.findall(r"^## (\S+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)) == alarms()


def test_every_alarm_in_the_runbook_says_what_to_look_at_and_what_to_do() -> None:
    _, *sections = re.split(r"^## .*\n", (ROOT / "docs" / "runbook.md").read_text(), flags=re.MULTILINE)
    for section in sections:
        meaning, look, do = section.strip().split("\n\n")
        assert not meaning.startswith(("Look at:", "Do:"))
        assert look.startswith("Look at: ")
        assert do.startswith("Do: ")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_pages_and_headings_that_are_there(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", page.read_text()):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


def test_words_of_the_glossary_are_in_order_and_once() -> None:
    words = re.findall(r"^\| (?!word|-)([\w ,-]+?) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert len(words) > 30
    assert words == sorted(set(words), key=str.lower)
