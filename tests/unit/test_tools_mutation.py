"""The faults that are planted, who is asked about them, and what is accepted."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tools.environment import repository_root
from tools.mutation import run
from tools.mutation.accepted import ACCEPTED, Accepted, key_of
from tools.mutation.executed import MOST_TESTS, PACKAGE, TESTS, Executed, NotTried, asked_about
from tools.mutation.mutants import mutants_of, mutated
from tools.mutation.run import Result, Trial, table


def faults(source: str) -> set[str]:
    return {f"{mutant.before} -> {mutant.after}" for mutant in mutants_of(source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a, b): return a < b", "return a < b -> return a <= b"),
        ("def f(a, b): return a in b", "return a in b -> return a not in b"),
        ("def f(a, b): return a and b", "return a and b -> return b"),
        ("def f(a): return not a", "return not a -> return a"),
        ("def f(a): return a - 1", "return a - 1 -> return a + 1"),
        ("def f(a): return a - 1", "return a - 1 -> return a - 2"),
        ("def f(a): return a", "return a -> return None"),
        ("def f(a): return a[1:]", "return a[1:] -> return a[:]"),
        ("def f(a): return min(a)", "return min(a) -> return max(a)"),
        ("def f(a): return a == 'pending'", "return a == 'pending' -> return a == 'XXpending'"),
        ("def f(a): return a(1, key=2)", "return a(1, key=2) -> return a(1)"),
        ("def f(a): return {'x': a, 'y': 1}", "return {'x': a, 'y': 1} -> return {'y': 1}"),
        ("def f(a): return [x for x in a if x]", "return [x for x in a if x] -> return [x for x in a]"),
        ("def f(a):\n  if a: raise E", "if a: -> if False:"),
        ("def f(a):\n  if a: raise E", "if a: -> if True:"),
        ("def f(a):\n  while a: a = a.next", "while a: -> while False:"),
        ("def f(a):\n  a.check()", "a.check() -> pass"),
        ("def f(a):\n  a.done = 1", "a.done = 1 -> pass"),
        ("def f(a):\n  a += 1", "a += 1 -> a -= 1"),
        ("def f(a):\n  for x in a: continue", "continue -> break"),
        ("def f():\n  try: g()\n  except (A, B): pass", "except (A, B): -> except (B,):"),
        ("def f():\n  try: g()\n  except A: pass", "except A: -> except ():"),
        ("LIMIT = 5", "LIMIT = 5 -> LIMIT = 6"),
    ],
)
def test_a_fault_of_every_kind_is_planted(source: str, expected: str) -> None:
    assert expected in faults(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""What it is."""',
        "def f(a: int = ...) -> dict['x', 1]: ...",
        "import a",
        "def f(a): raise E(f'block {a + 1} is gone')",
        "T = TypeVar('T')",
        "Codec = Literal['gzip']",
        "t = Thread(name=f'worker-{n}', daemon=True)",
        "if TYPE_CHECKING:\n    x = 1",
        "def f(a): cast('IO[bytes]', a)",
        "@dataclass(frozen=True)\nclass C: pass",
    ],
)
def test_words_types_and_declarations_are_left_alone(source: str) -> None:
    assert {fault for fault in faults(source) if not fault.endswith("-> pass")} == set()


def test_each_fault_is_one_change_of_a_tree_that_compiles() -> None:
    source = Path(run.__file__).read_text()
    whole = ast.dump(ast.parse(source))
    mutants = mutants_of(source)
    assert len(mutants) > 100
    assert len({(key_of(mutant)) for mutant in mutants}) == len(mutants)
    for mutant in mutants[::10]:
        tree = mutated(source, mutant.position)
        compile(tree, "x", "exec")
        assert ast.dump(tree) != whole


def test_a_fault_keeps_its_name_when_the_lines_above_it_change() -> None:
    source = "def f(a):\n    a.check()\n    a.check()\n"
    names = [key_of(mutant) for mutant in mutants_of(source)]
    assert names == ["f: a.check() -> pass", "f: a.check() -> pass #2"]
    assert [key_of(mutant) for mutant in mutants_of("# more\n" + source)] == names


def test_a_fault_inside_a_function_names_the_outermost_one_and_a_default_takes_effect_at_import() -> None:
    source = (
        "class C:\n    @property\n    def f(self, a=1):\n        def g():\n            return a + 1\n        return g\n"
    )
    by_line = {mutant.lines.start: mutant.function for mutant in mutants_of(source)}
    assert by_line == {3: None, 5: ("C.f", 2), 6: ("C.f", 2)}


def test_the_tests_that_execute_the_line_are_asked_those_first_that_execute_most_of_the_module_for_their_time(
    tmp_path: Path,
) -> None:
    (tmp_path / "m.py").write_text("LIMIT = 5\ndef f(a):\n    return a < LIMIT\ndef g():\n    return 1\n")
    whole = {"m.py": [3, 5]}
    lines = {"a::1": whole | {"n.py": [1] * 9}, "a::2": whole, "b::1": whole, "b::2": {"m.py": [5]}}
    tests = Executed(dict.fromkeys(lines, 0.1) | {"b::1": 0.15}, lines)
    constant, *_, inside = [m for m in mutants_of((tmp_path / "m.py").read_text()) if "LIMIT" in m.before]
    assert asked_about("m.py", inside, tests, tmp_path) == ["a::2", "b::1", "a::1"]
    assert asked_about("m.py", constant, tests, tmp_path) == ["a::2", "b::1", "a::1"]


@pytest.mark.parametrize("factor", [1.0, 20.0])
def test_which_tests_are_asked_does_not_depend_on_how_fast_the_machine_is(factor: float) -> None:
    # The quarter that takes longest is costly, and of it as many are asked as may be.
    seconds = {f"a::{number}": factor * (0.01 if number < 300 else 0.2) for number in range(400)}
    tests = Executed(seconds, {test: {"m.py": [1]} for test in seconds})
    asked = tests.chosen(seconds, "m.py")
    assert {test for test in seconds if int(test[3:]) < 300} <= set(asked)
    assert len(asked) == 300 + MOST_TESTS


def test_of_the_costly_tests_those_are_asked_that_are_about_the_module() -> None:
    # Many more are quick, and none of them executes the module.
    quick: dict[str, dict[str, list[int]]] = {f"quick::{number}": {} for number in range(2_000)}
    whole = {f"jobs::{number}": {"m.py": [1], "other.py": list(range(50))} for number in range(300)}
    own = {f"own::{number}": {"m.py": list(range(30)), "other.py": [1]} for number in range(MOST_TESTS)}
    tests = Executed(dict.fromkeys(quick, 0.01) | dict.fromkeys(whole | own, 5.0), quick | whole | own)
    assert set(tests.chosen(whole | own, "m.py")) == set(own)


def test_an_accepted_fault_has_a_reason_and_is_still_there(tmp_path: Path) -> None:
    file = tmp_path / "accepted.toml"
    entry = '[[accepted]]\nmodule = "m.py"\nwhy = "{}"\nmutants = ["f: a.check() -> pass", "f: gone -> pass"]\n'
    file.write_text(entry.format("the check repeats another one"))
    accepted = Accepted.read(file)
    assert accepted.stale("m.py", mutants_of("def f(a):\n    a.check()\n")) == ["f: gone -> pass"]
    file.write_text(entry.format(" "))
    with pytest.raises(ValueError, match=r"m\.py: .* has no reason"):
        Accepted.read(file)


def test_every_module_of_the_check_and_of_what_is_accepted_exists() -> None:
    package = repository_root() / PACKAGE
    assert [module for module in run.MODULES if not (package / module).is_file()] == []
    assert sorted(set(run.MODULES)) == list(run.MODULES)
    assert set(Accepted.read(ACCEPTED).reasons) <= set(run.MODULES)


def test_the_table_counts_what_became_of_the_faults_of_each_module() -> None:
    one, two = mutants_of("def f(a):\n    a.check()\n    a.stop()\n")
    lines = table([Result("m.py", one, "killed", "t"), Result("m.py", two, "survived", "")])
    assert [line.split() for line in lines] == [
        ["faults", "killed", "timeout", "accepted", "survived", "untested"],
        ["m.py", "2", "1", "0", "0", "1", "0"],
        ["all", "2", "1", "0", "0", "1", "0"],
    ]


def project(root: Path, module: str, tests: str) -> Path:
    """A project of one module and its tests; the folder for what is measured."""
    package, folder = root / PACKAGE, root / "build"
    for directory in (package, root / TESTS, folder):
        directory.mkdir(parents=True)
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["layers/core"]\n')
    (package / "__init__.py").touch()
    (package / "m.py").write_text(module)
    (root / TESTS / "test_m.py").write_text(tests)
    return folder


NAMED = "NAME = 'a'\n\n\ndef name():\n    return NAME\n"


def test_a_case_whose_name_a_fault_changes_is_asked_under_its_new_name(tmp_path: Path) -> None:
    folder = project(
        tmp_path,
        NAMED,
        "import pytest\nfrom blockferry.m import NAME, name\n\n"
        "@pytest.mark.parametrize('known', [NAME])\ndef test_cases(known):\n    assert name() == 'a'\n\n"
        "def test_more():\n    assert name()\n",
    )
    results = list(Trial(tmp_path, folder, accepted=Accepted({})).results(["m.py"], 1))
    (renamed,) = [result for result in results if result.mutant.before == "NAME = 'a'"]
    assert (renamed.verdict, renamed.by) == ("killed", f"{TESTS}/test_m.py::test_cases[XXa]")


def test_a_function_that_only_runs_at_import_is_asked_about_through_what_it_made(tmp_path: Path) -> None:
    folder = project(
        tmp_path,
        "def made(word):\n    return word + 'b'\n\n\nNAME = made('a')\nNAMES = (NAME,)\n\n\n"
        "def names():\n    return NAMES\n",
        "from blockferry.m import names\n\ndef test_it():\n    assert names() == ('ab',)\n",
    )
    results = list(Trial(tmp_path, folder, accepted=Accepted({})).results(["m.py"], 1))
    assert {result.verdict for result in results} == {"killed"}
    assert "made" in {result.mutant.scope for result in results}


def test_a_fault_inside_a_function_is_tried_without_importing_anything_anew(tmp_path: Path) -> None:
    folder = project(
        tmp_path,
        "from functools import cache\n\n@cache\ndef table():\n    return 1\n\ndef name():\n    return table() + 1\n",
        "from pathlib import Path\nfrom blockferry.m import name\n\n"
        "with Path(__file__).with_name('imported').open('a') as log:\n    log.write('once more,')\n\n"
        "def test_it():\n    assert name() == 2\n",
    )
    # What is frozen is not among all objects that the garbage collector lists.
    (tmp_path / "tests" / "conftest.py").write_text("import gc\n\ndef pytest_collection_finish():\n    gc.freeze()\n")
    results = list(Trial(tmp_path, folder, accepted=Accepted({})).results(["m.py"], 1))
    # Also where the function's answer had been remembered before the fault was planted.
    assert {result.mutant.scope for result in results} == {"table", "name"}
    assert {result.verdict for result in results} == {"killed"}
    # As the lines are counted, as the worker starts, and as it is looked whether all passes without a fault.
    assert (tmp_path / TESTS / "imported").read_text() == "once more," * 3


def test_a_fault_that_the_first_tests_do_not_notice_is_shown_to_the_others_after_all_have_had_their_turn(
    tmp_path: Path,
) -> None:
    folder = project(
        tmp_path,
        "def small(number):\n    return number < 5\n\n\ndef large(number):\n    return number > 5\n",
        "from blockferry.m import large, small\n\n"
        "def test_both():\n    assert small(3) and large(6)\n\ndef test_edges():\n"
        "    assert not small(5)\n    assert not large(5)\n",
    )
    trial = Trial(tmp_path, folder, accepted=Accepted({}), first_seconds=0.0)
    assert {result.verdict for result in trial.results(["m.py"], 1)} == {"killed"}
    said = [line for line in (folder / "progress.log").read_text().splitlines() if line.startswith(PACKAGE)]
    told = [line.split(": ")[1] for line in said if "in small" in line or "in large" in line]
    assert "undecided, in small" in told
    undecided = told.index("undecided, in small")
    assert any(line.endswith("in large") for line in told[undecided:])
    assert told[-1].startswith("killed")


def test_a_fault_under_which_a_test_is_not_found_at_all_ends_the_run(tmp_path: Path) -> None:
    folder = project(
        tmp_path,
        NAMED,
        "from blockferry.m import NAME, name\n\nif NAME == 'a':\n    def test_it():\n        assert name()\n",
    )
    with pytest.raises(NotTried, match=r"not found any more: tests/unit/test_m\.py::test_it"):
        list(Trial(tmp_path, folder, accepted=Accepted({})).results(["m.py"], 1))


def test_what_no_test_notices_survives_and_what_is_accepted_is_not_tried(tmp_path: Path) -> None:
    folder = project(
        tmp_path,
        "LIMIT = 5\n\n\ndef small(number, *, strict=True):\n    if strict and number > LIMIT:\n        return False\n"
        "    return True\n\n\ndef unused():\n    print()\n",
        "from blockferry.m import small\n\ndef test_it():\n    assert small(5)\n    assert not small(7)\n",
    )
    accepted = Accepted({"m.py": {"small: if strict and number > LIMIT: -> if number > LIMIT:": "an example"}})
    results = list(Trial(tmp_path, folder, accepted=accepted).results(["m.py"], 1))
    assert {f"{r.mutant.before} -> {r.mutant.after}": r.verdict for r in results if r.mutant.scope != "unused"} == {
        "LIMIT = 5 -> LIMIT = 6": "survived",  # only taking effect anew shows that 6 is never asked about
        "def small(number, *, strict=True): -> def small(number, *, strict=False):": "killed",
        "if strict and number > LIMIT: -> if True:": "killed",
        "if strict and number > LIMIT: -> if False:": "killed",
        "if strict and number > LIMIT: -> if number > LIMIT:": "accepted",
        "if strict and number > LIMIT: -> if strict:": "killed",
        "if strict and number > LIMIT: -> if strict and number >= LIMIT:": "killed",
        "return False -> return True": "killed",
        "return True -> return False": "killed",
    }
    assert {r.verdict for r in results if r.mutant.scope == "unused"} == {"untested"}


def test_the_default_of_a_field_is_asked_about_where_objects_of_its_class_are_made(tmp_path: Path) -> None:
    folder = project(
        tmp_path,
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Left:\n    failed: bool = False\n\n"
        "    def name(self):\n        return 'a'\n\n\ndef left():\n    return Left()\n",
        "from blockferry.m import Left, left\n\ndef test_name():\n    assert Left(True).name() == 'a'\n\n"
        "def test_it():\n    assert not left().failed\n",
    )
    results = list(Trial(tmp_path, folder, accepted=Accepted({})).results(["m.py"], 1))
    (default,) = [result for result in results if result.mutant.scope == "Left"]
    assert (default.verdict, default.by) == ("killed", f"{TESTS}/test_m.py::test_it")


def test_tests_that_fail_without_a_fault_end_the_run_and_all_that_they_said_is_kept(tmp_path: Path) -> None:
    folder = project(tmp_path, NAMED, "def test_it():\n    print('said first' + ' more' * 2_000)\n    assert False\n")
    with pytest.raises(NotTried, match=f"see {folder / 'measured-0.log'}:\n") as caught:
        Trial(tmp_path, folder, accepted=Accepted({}))
    assert "said first" in (folder / "measured-0.log").read_text()
    assert "said first" not in str(caught.value)
    assert "test_it" in str(caught.value)
