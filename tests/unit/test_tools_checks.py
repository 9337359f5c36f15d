"""scripts/test: what it runs, what it says, and that nothing failed passes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tools import parts
from tools.checks import chosen, main, run_parts
from tools.parts import PARTS, Part
from tools.processes import CommandFailed, Commands


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path, dict(os.environ))


def part(name: str, run: Callable[[Commands], list[str]], *, alone: bool = False) -> Part:
    return Part(name=name, says="", run=run, alone=alone)


def fails(_: Commands) -> list[str]:
    raise CommandFailed("the reason")


def test_a_fast_run_leaves_out_the_slow_parts() -> None:
    assert [p.name for p in chosen(fast=False, only=None)] == [
        *("cloud", "format", "lint", "types", "unit", "build", "terraform", "machines", "checkov")
    ]
    left_out = {p.name for p in chosen(fast=False, only=None)} - {p.name for p in chosen(fast=True, only=None)}
    assert left_out == {"checkov", "cloud"}


def test_planting_faults_takes_long_and_happens_only_when_it_is_named() -> None:
    assert {p.name for p in PARTS} - {p.name for p in chosen(fast=False, only=None)} == {"mutation"}
    assert [p.name for p in chosen(fast=True, only=["mutation"])] == ["mutation"]


def test_the_modules_named_are_those_that_faults_are_planted_in() -> None:
    seen: list[str] = []

    def look(commands: Commands) -> list[str]:
        seen.append(commands.environment[parts.MUTATED_MODULES])
        return []

    mutation = part("mutation", look)
    assert main(["--only", "mutation", "--modules", "mover.py", "retry.py"], known=[mutation]) == 0
    assert seen == ["mover.py retry.py"]


def test_modules_without_the_part_that_looks_at_them_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "lint", "--modules", "mover.py"])
    assert "--only mutation --modules" in capsys.readouterr().err


def test_named_parts_run_in_their_order_even_in_a_fast_run() -> None:
    assert [p.name for p in chosen(fast=True, only=["lint", "cloud"])] == ["cloud", "lint"]


def test_one_failed_part_fails_the_run_and_shows_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], known=[part("good", lambda _: ["3 passed in 0.1s"]), part("bad", fails)]) == 1
    printed = capsys.readouterr().out
    assert "\n3 passed in 0.1s\n" in f"\n{printed}"
    assert "\nthe reason\n" in printed
    assert printed.splitlines()[-1].startswith("total: 1 of 2 parts FAILED (bad) in ")


def test_a_run_without_failures_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--jobs", "1"], known=[part("one", lambda _: []), part("two", lambda _: [], alone=True)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("total: all 2 parts ok in ")


def test_parts_run_side_by_side_but_some_alone(commands: Commands) -> None:
    both = threading.Barrier(2, timeout=10)
    running: list[str] = []

    def meet(_: Commands) -> list[str]:
        running.append("x")
        both.wait()  # only passes when two parts are here at once
        running.pop()
        return []

    def alone(_: Commands) -> list[str]:
        assert running == []
        return []

    outcomes = run_parts([part("cloud", alone, alone=True), part("one", meet), part("two", meet)], commands, jobs=2)
    assert [(outcome.part.name, outcome.failure) for outcome in outcomes] == [
        ("one", None),
        ("two", None),
        ("cloud", None),
    ]


def test_a_failed_command_keeps_its_output_and_status(commands: Commands) -> None:
    with pytest.raises(CommandFailed, match=r"(?s)some words.*status 3"):
        commands.run(sys.executable, "-c", "print('some words'); raise SystemExit(3)")


def test_a_hanging_command_ends_with_its_children_and_its_output(commands: Commands, tmp_path: Path) -> None:
    file = tmp_path / "child"
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(file)!r}, 'w').write(str(child.pid))\n"
        "print('so far', flush=True)\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(CommandFailed, match=r"(?s)so far.*did not end within"):
        commands.run(sys.executable, "-c", code, timeout_seconds=2)
    child = Path(f"/proc/{file.read_text()}/stat")
    deadline = time.monotonic() + 10
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        os.sched_yield()


def test_after_a_stop_nothing_is_started(commands: Commands) -> None:
    commands.stop()
    with pytest.raises(CommandFailed, match="interrupted"):
        commands.run(sys.executable, "-c", "")


def test_a_pytest_part_without_a_test_is_a_failure(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    with pytest.raises(CommandFailed, match="status 5"):
        parts._pytest(commands, "tests")


def test_a_pytest_part_shows_the_closing_line_and_what_was_skipped(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\n@pytest.mark.skip(reason='no disk')\ndef test_b(): pass\n"
    )
    shown = parts._pytest(commands, "-rs", "test_it.py")
    assert shown[0].startswith("SKIPPED")
    assert shown[-1].startswith("1 passed, 1 skipped in")


def test_a_repository_without_state_machines_does_not_pass(commands: Commands) -> None:
    with pytest.raises(CommandFailed, match="no state machine"):
        parts.check_machines(commands)


def test_ci_does_not_go_without_node(commands: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    assert parts._asl_validator(commands) is None
    monkeypatch.setenv("CI", "true")
    with pytest.raises(CommandFailed, match=r"Node\.js"):
        parts._asl_validator(commands)
