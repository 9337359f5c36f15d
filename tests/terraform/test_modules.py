"""Every Terraform module is formatted, valid and passes its own ``*.tftest.hcl``, without an account."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tools.environment import repository_root
from tools.terraform import Terraform, TerraformFailed

pytestmark = pytest.mark.skipif(shutil.which("terraform") is None, reason="Terraform is not on the PATH")

ROOT = repository_root() / "terraform"
MODULES = [ROOT, *sorted(path.parent for path in ROOT.glob("modules/*/versions.tf"))]
NAMES = [str(path.relative_to(ROOT.parent)) for path in MODULES]
FILES = {"main.tf", "outputs.tf", "variables.tf", "versions.tf"}


def initialised(module: Path, work: Path) -> Terraform:
    terraform = Terraform(module, work)
    terraform.init(backend=False)
    return terraform


def test_every_file_is_formatted(tmp_path: Path) -> None:
    Terraform(ROOT, tmp_path).fmt_check()


@pytest.mark.parametrize("module", MODULES, ids=NAMES)
def test_a_module_has_the_usual_files_and_tests(module: Path) -> None:
    assert {path.name for path in module.glob("*.tf")} >= FILES
    assert list(module.glob("tests/*.tftest.hcl"))


@pytest.mark.parametrize("module", MODULES, ids=NAMES)
def test_a_module_is_valid_and_passes_its_tests(module: Path, tmp_path: Path) -> None:
    # A test validates the module first.
    assert "Success!" in initialised(module, tmp_path).test()


def test_a_permission_that_terraform_lacks_is_noticed(tmp_path: Path) -> None:
    """The comparison of declared and granted actions is worth nothing unless it fails when they differ."""
    terraform = initialised(ROOT / "modules" / "region", tmp_path)
    iam = terraform.module / "iam.tf"
    text = iam.read_text()
    changed = text.replace('"ebs:GetSnapshotBlock", ', "", 1)
    assert changed != text
    iam.write_text(changed)
    with pytest.raises(TerraformFailed, match="Declared, but not granted"):
        terraform.test("-filter=tests/declared.tftest.hcl")
