"""The parts of ``scripts/test``: what each one runs.

A part takes the commands runner, raises CommandFailed or TerraformFailed when something is wrong, and
returns the lines worth showing when all is well.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools import machines
from tools.archives import file_sha256
from tools.build import build
from tools.environment import ensure, python_of, repository_root
from tools.mirror import find_mirror
from tools.processes import LONGEST_COMMAND_SECONDS, CommandFailed, Commands
from tools.terraform import COPIED_FOLDERS, Terraform

PYTHON_FOLDERS = ("layers/core/blockferry", "functions", "scripts", "tests")
TYPED_FOLDERS = ("layers/core/blockferry", "scripts/localcloud", "scripts/tools")
MUTATION_TIMEOUT_SECONDS = 4 * 3600.0
MUTATED_MODULES = "BLOCKFERRY_MUTATED_MODULES"
TESTED_FILES = "BLOCKFERRY_TESTED_FILES"
# Only against a hang: a shared machine may be half as fast as the one before. An apply of the root alone takes two to
# three minutes.
CLOUD_TIMEOUT_SECONDS, UNIT_TIMEOUT_SECONDS = 2_700.0, 2_400.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """One check. ``slow`` ones are left out of a fast run; ``alone`` ones measure time or load the machine;
    ``on_request`` ones run only when they are named."""

    name: str
    says: str
    run: Callable[[Commands], list[str]]
    slow: bool = False
    alone: bool = False
    on_request: bool = False


def check_format(commands: Commands) -> list[str]:
    """Formatting of all Python files."""
    commands.run(sys.executable, "-m", "ruff", "format", "--check", "--diff", *_python_paths())
    return []


def check_lint(commands: Commands) -> list[str]:
    """Likely errors and bad habits in all Python files."""
    commands.run(sys.executable, "-m", "ruff", "check", *_python_paths())
    return []


def check_types(commands: Commands) -> list[str]:
    """Types of the package, the local cloud, the tools, and each function against the package."""
    commands.run(sys.executable, "-m", "mypy", *TYPED_FOLDERS)
    # Every function's module is called handler, so each is checked by itself.
    for handler in sorted((commands.directory / "functions").glob("*/handler.py")):
        commands.run(sys.executable, "-m", "mypy", handler)
    return []


def check_unit(commands: Commands) -> list[str]:
    """Tests that need nothing but this checkout."""
    # Two processes, as there are two cores: no test here shares anything with another one.
    side_by_side = ("-n", "2", "--dist", "worksteal")
    files = commands.environment.get(TESTED_FILES, "").split() or ["tests/unit", "tests/localcloud", "tests/terraform"]
    return _pytest(commands, *files, "-m", "not cloud", *side_by_side, timeout_seconds=UNIT_TIMEOUT_SECONDS)


def check_cloud(commands: Commands) -> list[str]:
    """Tests against the local cloud, with the Terraform root applied to it."""
    return _pytest(commands, "tests/cloud", "-m", "cloud", timeout_seconds=CLOUD_TIMEOUT_SECONDS)


def check_build(commands: Commands) -> list[str]:
    """The artifacts as they are deployed: every pinned package exists for Lambda's platform, twice the same."""
    folder = commands.directory / "build" / "checks" / "artifacts"
    hashes = []
    for output in (folder / "first", folder / "second"):
        shutil.rmtree(output, ignore_errors=True)
        artifacts = build(output=output)
        zips = [*artifacts.functions.values(), artifacts.layer]
        hashes.append({path.name: file_sha256(path) for path in zips})
    first, second = hashes
    if first != second:
        differing = sorted(name for name in first if first[name] != second.get(name))
        raise CommandFailed(f"two builds of the same sources differ: {', '.join(differing)}")
    return []


def check_terraform(commands: Commands) -> list[str]:
    """Formatting and validity of the configuration, and the tests of the root and of every module.

    The tests take two minutes, so a person who has changed nothing they read is told so instead; where
    CI is set they always run.
    """
    root = commands.directory / "terraform"
    work = commands.directory / "build" / "checks" / "terraform"
    Terraform(root, work / "root").fmt_check()
    passed = work / "passed.json"
    key = _terraform_key(commands)
    if not os.environ.get("CI") and passed.is_file():
        earlier = json.loads(passed.read_text())
        if earlier["key"] == key:
            return ["terraform test: nothing has changed since it passed with", *earlier["shown"]]
    shown = _terraform_tests(root, work)
    passed.write_text(json.dumps({"key": key, "shown": shown}))
    return shown


def _terraform_key(commands: Commands) -> str:
    """Hash of all that the result of the Terraform tests depends on."""
    digest = hashlib.sha256(commands.run("terraform", "version").encode())
    digest.update(str(find_mirror(os.environ)).encode())
    for folder in COPIED_FOLDERS:
        for path in sorted((commands.directory / folder).rglob("*")):
            if path.is_file() and ".terraform" not in path.parts and "__pycache__" not in path.parts:
                digest.update(f"\0{path.relative_to(commands.directory)}\0".encode())
                # Of the functions only the list of files and the declared permissions are read.
                if path.suffix != ".py":
                    digest.update(path.read_bytes())
    return digest.hexdigest()


def _terraform_tests(root: Path, work: Path) -> list[str]:
    shown = []
    examples = sorted(path.parent for path in root.glob("examples/*/main.tf"))
    tested = sorted({path.parent.parent for path in root.rglob("tests/*.tftest.hcl")})
    if root not in tested:
        raise CommandFailed(f"{root} has no tests/*.tftest.hcl")
    for module in dict.fromkeys([root, *examples, *tested]):
        name = module.relative_to(root).as_posix()
        terraform = Terraform(module, work / ("root" if module == root else name.replace("/", "-")))
        terraform.init(backend=False)
        if module == root or module in examples:
            terraform.validate()
        if module in tested:
            report = terraform.test()
            closing = re.findall(r"^(?:Success|Failure)!.*$", report, re.MULTILINE)
            if not closing or re.search(r"\b0 passed", closing[-1]):
                raise CommandFailed(f"terraform test of {name} ran no test:\n{report}")
            shown.append(f"terraform test {'root' if module == root else name}: {closing[-1]}")
    return shown


def check_machines(commands: Commands) -> list[str]:
    """Two linters on every state machine, with ARNs filled in; the project's own rules are unit tests."""
    files = machines.machine_files(commands.directory)
    if not files:
        raise CommandFailed(f"there is no state machine in {commands.directory / 'statemachines'}")
    shown = []
    with tempfile.TemporaryDirectory() as folder:
        rendered, templates = [], []
        for file in files:
            text = machines.render(file.read_text())
            rendered.append(Path(folder) / file.name)
            rendered[-1].write_text(text)
            templates.append(Path(folder) / f"{machines.machine_name(file)}.template.json")
            templates[-1].write_text(machines.cloudformation_template(json.loads(text)))
        commands.run(python_of(Path(sys.prefix)).with_name("cfn-lint"), *templates)
        validator = _asl_validator(commands)
        if validator is None:
            shown.append("asl-validator was not run: Node.js is not on the PATH")
        else:
            paths = [argument for path in rendered for argument in ("--json-path", str(path))]
            commands.run(validator, *paths)
    return shown


def check_checkov(commands: Commands) -> list[str]:
    """Security findings in the Terraform configuration; exceptions and their reasons are in terraform/.checkov.yaml."""
    python = ensure(
        commands.directory / ".venv-checkov",
        commands.directory / "requirements-checkov.txt",
        link_project=False,
    )
    output = commands.run(
        python, "-m", "checkov.main", "--config-file", "terraform/.checkov.yaml", "--directory", "terraform"
    )
    return re.findall(r"^Passed checks: .*$", output, re.MULTILINE)


def check_mutation(commands: Commands) -> list[str]:
    """Faults planted in what decides whether data is right or may be deleted: a test notices each of them."""
    modules = commands.environment.get(MUTATED_MODULES, "").split()
    output = commands.run(
        *(sys.executable, "-m", "tools.mutation.run", *modules), timeout_seconds=MUTATION_TIMEOUT_SECONDS
    )
    return output.splitlines()


PARTS = (
    # The longest one begins first, and the others run beside it: much of its time is waiting.
    Part(name="cloud", says="pytest of tests/cloud against the local cloud", run=check_cloud, slow=True),
    Part(name="format", says="ruff format --check", run=check_format),
    Part(name="lint", says="ruff check", run=check_lint),
    Part(name="types", says="mypy, strict", run=check_types),
    Part(name="unit", says="pytest of tests/unit, tests/localcloud and tests/terraform", run=check_unit),
    Part(name="build", says="scripts/build for Lambda's platform, twice, with the same result", run=check_build),
    Part(name="terraform", says="terraform fmt, validate and test, with mocked providers", run=check_terraform),
    Part(name="machines", says="cfn-lint and asl-validator on the state machines", run=check_machines),
    Part(name="checkov", says="checkov on the Terraform configuration", run=check_checkov, slow=True),
    Part(
        name="mutation",
        says="small faults planted in what decides about data; only when it is named",
        run=check_mutation,
        slow=True,
        alone=True,
        on_request=True,
    ),
)


def _python_paths() -> list[str]:
    root = repository_root()
    scripts = sorted(
        path.relative_to(root).as_posix()
        for path in (root / "scripts").iterdir()
        if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env python3")
    )
    return [*(folder for folder in PYTHON_FOLDERS if (root / folder).is_dir()), *scripts]


def _pytest(commands: Commands, *arguments: str, timeout_seconds: float = LONGEST_COMMAND_SECONDS) -> list[str]:
    """Run pytest. Its status 5, nothing collected, is a failure: a part without tests proves nothing."""
    output = commands.run(sys.executable, "-m", "pytest", "-q", *arguments, timeout_seconds=timeout_seconds)
    lines = output.rstrip().splitlines()
    not_run = [line for line in lines if line.startswith(("SKIPPED", "XFAIL"))]
    return [*not_run, lines[-1]]


def _asl_validator(commands: Commands) -> Path | None:
    """asl-validator, installed from the lock when that has changed; None where Node.js is missing.

    Only a person's machine may lack Node.js: where CI is set, a check that is not run is a failure.
    """
    root = commands.directory
    executable = root / "node_modules" / ".bin" / "asl-validator"
    if shutil.which("npm") is None or shutil.which("node") is None:
        if os.environ.get("CI"):
            raise CommandFailed("Node.js with npm is needed for asl-validator")
        return None
    stamp = root / "node_modules" / ".blockferry-stamp"
    lock = hashlib.sha256((root / "package-lock.json").read_bytes()).hexdigest()
    if not executable.exists() or not stamp.is_file() or stamp.read_text() != lock:
        commands.run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        stamp.write_text(lock)
    return executable
