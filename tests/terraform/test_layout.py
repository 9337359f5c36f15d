"""What scripts/test does not see when it runs the modules' own tests: that every module has the usual files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools.environment import repository_root

ROOT = repository_root() / "terraform"
MODULES = [ROOT, *sorted(path for path in ROOT.glob("modules/*") if path.is_dir())]
FILES = {"main.tf", "outputs.tf", "variables.tf", "versions.tf"}
module = pytest.mark.parametrize("module", MODULES, ids=[str(path.relative_to(ROOT.parent)) for path in MODULES])


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf'^{kind} "\w+" {{\n.*?^}}', text, re.MULTILINE | re.DOTALL)


@module
def test_a_module_has_the_usual_files_and_tests(module: Path) -> None:
    assert {path.name for path in module.glob("*.tf")} >= FILES
    assert list(module.glob("tests/*.tftest.hcl"))


@module
def test_every_variable_has_description_type_default_and_validation_in_this_order(module: Path) -> None:
    for block in blocks((module / "variables.tf").read_text(), "variable"):
        attributes = re.findall(r"^  (\w+)", block, re.MULTILINE)
        order = [name for name in ("description", "type", "default", "nullable", "validation") if name in attributes]
        assert list(dict.fromkeys(name for name in attributes if name in order)) == order, block
        assert order[:2] == ["description", "type"], block


@module
def test_every_refusal_is_a_sentence(module: Path) -> None:
    messages = re.findall(r'error_message = "(.*)"$', "".join(p.read_text() for p in module.glob("*.tf")), re.MULTILINE)
    for message in messages:
        assert message[0].isupper(), message
        assert message.endswith("."), message


@module
def test_every_output_has_a_description(module: Path) -> None:
    for block in blocks((module / "outputs.tf").read_text(), "output"):
        assert "\n  description = " in block, block
