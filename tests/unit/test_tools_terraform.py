"""How Terraform is run: from a copy, with its own state, and with its last words in the error."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from tools import terraform
from tools.terraform import Terraform, TerraformFailed, TerraformMissing, require_terraform, terraform_environment

# Stands in for the program: writes down how it was called, and does what the test laid down for it.
PROGRAM = """#!/bin/sh
here="{folder}"
if [ "$1" = version ]; then echo '{{"terraform_version": "'"$(cat "$here/version")"'"}}'; exit 0; fi
{{ echo "$*"; pwd; env | grep '^TF_\\|^CHECKPOINT' | sort; }} >> "$here/calls-$1"
[ "$1" = init ] && [ ! -f .terraform.lock.hcl ] && echo lock > .terraform.lock.hcl
[ -f "$here/$1.out" ] && cat "$here/$1.out"
[ -f "$here/$1.sleep" ] && exec sleep 60
exit "$(cat "$here/$1.status" 2> /dev/null || echo 0)"
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "version").write_text("1.11.4")
    executable = folder / "terraform"
    executable.write_text(PROGRAM.format(folder=folder))
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repository"
    (root / "terraform" / "modules" / "region").mkdir(parents=True)
    (root / "terraform" / "main.tf").write_text("# root")
    (root / "terraform" / "terraform.tfstate").write_text("an operator's own")
    (root / "statemachines").mkdir()
    (root / "statemachines" / "copy.asl.json").write_text("{}")
    monkeypatch.setattr(terraform, "repository_root", lambda: root)
    return root


def tracked(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def environment(program: Path) -> dict[str, str]:
    return {"PATH": f"{program}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": str(program)}


def make(repository: Path, program: Path, **options: object) -> Terraform:
    return Terraform(
        repository / "terraform",
        repository.parent / "work",
        environment(program),
        find_mirror=lambda _: None,
        **options,  # type: ignore[arg-type]
    )


def calls(program: Path, command: str) -> list[str]:
    return (program / f"calls-{command}").read_text().splitlines()


def test_nothing_is_written_into_the_tracked_tree(repository: Path, program: Path) -> None:
    before = tracked(repository)
    run = make(repository, program)
    run.init()
    run.apply({"name_prefix": "x"})
    run.destroy()
    assert tracked(repository) == before


def test_the_copy_keeps_the_positions_and_leaves_state_behind(repository: Path, program: Path) -> None:
    run = make(repository, program)
    run.init()
    assert (run.module / ".." / "statemachines" / "copy.asl.json").read_text() == "{}"
    assert not (run.module / "terraform.tfstate").exists()
    assert json.dumps(str(run.state)) in (run.module / "backend_override.tf").read_text()


def test_a_second_init_brings_changes_over_and_keeps_the_lock(repository: Path, program: Path) -> None:
    run = make(repository, program)
    run.init()
    (run.module / ".terraform.lock.hcl").write_text("with hashes")
    (repository / "terraform" / "main.tf").unlink()
    (repository / "terraform" / "other.tf").write_text("# new")
    run.init()
    assert (run.module / ".terraform.lock.hcl").read_text() == "with hashes"
    assert not (run.module / "main.tf").exists()
    assert (run.module / "other.tf").exists()


def test_overrides_lie_in_the_copy_of_the_root_module(repository: Path, program: Path) -> None:
    run = make(repository, program, overrides={"local_override.tf": "# local"})
    run.init()
    assert (run.module / "local_override.tf").read_text() == "# local"


def test_variables_keep_their_types(repository: Path, program: Path) -> None:
    run = make(repository, program)
    run.init()
    run.apply({"options": {"a": [1, None, True]}, "name": 'quo"te'})
    line = calls(program, "apply")[0]
    file = Path(line.split("-var-file=")[1].split()[0])
    assert json.loads(file.read_text()) == {"options": {"a": [1, None, True]}, "name": 'quo"te'}


def test_the_environment_is_its_own(
    repository: Path, program: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TF_CLI_ARGS_plan", "-destroy")
    monkeypatch.setenv("TF_WORKSPACE", "production")
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(tmp_path / "gone"))
    run = make(repository, program)
    run.init()
    seen = dict(line.split("=", 1) for line in calls(program, "init")[2:])
    assert seen == {
        "CHECKPOINT_DISABLE": "1",
        "TF_CLI_CONFIG_FILE": str(run.log.with_name("terraformrc")),
        "TF_DATA_DIR": str(run.log.with_name("data")),
        "TF_INPUT": "0",
        "TF_IN_AUTOMATION": "1",
    }


def test_a_mirror_is_written_into_the_configuration(tmp_path: Path) -> None:
    result = terraform_environment(tmp_path, {"HOME": str(tmp_path)}, lambda _: tmp_path / 'a "mirror"')
    text = Path(result["TF_CLI_CONFIG_FILE"]).read_text()
    assert f"path    = {json.dumps(str(tmp_path / 'a ') + chr(92) + '', ensure_ascii=False)[:-3]}" in text
    assert 'include = ["registry.terraform.io/hashicorp/aws"]' in text


def test_without_a_mirror_the_users_configuration_stays_in_force(tmp_path: Path) -> None:
    file = tmp_path / "own"
    file.write_text('provider_installation {\n  network_mirror {\n    url = "https://mirror.example/"\n  }\n}\n')
    result = terraform_environment(tmp_path, {"TF_CLI_CONFIG_FILE": str(file)}, lambda _: None)
    assert result["TF_CLI_CONFIG_FILE"] == str(file)


@pytest.mark.parametrize(("status", "changes"), [("0", False), ("2", True)])
def test_a_plan_says_whether_there_are_changes(repository: Path, program: Path, status: str, changes: bool) -> None:
    (program / "plan.status").write_text(status)
    (program / "plan.out").write_text("Plan: 1 to add\n")
    run = make(repository, program)
    run.init()
    assert run.plan() is changes
    assert run.changes() == ("Plan: 1 to add\n" if changes else "")


def test_outputs_are_values(repository: Path, program: Path) -> None:
    (program / "output.out").write_text('{"arns": {"sensitive": false, "type": "x", "value": {"copy": "arn"}}}')
    run = make(repository, program)
    run.init()
    assert run.output() == {"arns": {"copy": "arn"}}


def test_a_failure_has_the_end_of_the_output_and_the_log_all_of_it(repository: Path, program: Path) -> None:
    (program / "apply.status").write_text("1")
    (program / "apply.out").write_text("".join(f"line {number}\n" for number in range(500)))
    run = make(repository, program)
    run.init()
    with pytest.raises(TerraformFailed) as failure:
        run.apply()
    assert "terraform apply of terraform failed with status 1" in str(failure.value)
    assert str(failure.value).endswith("line 499")
    assert "line 100\n" not in str(failure.value)
    assert "line 100\n" in run.log.read_text()


def test_a_command_that_hangs_is_interrupted(repository: Path, program: Path) -> None:
    (program / "apply.sleep").touch()
    run = make(repository, program, timeout_seconds=2)
    run.init()
    with pytest.raises(TerraformFailed, match="did not end within"):
        run.apply()


def test_no_terraform_and_an_old_one_are_told_apart(program: Path, tmp_path: Path) -> None:
    with pytest.raises(TerraformMissing, match="not on the PATH"):
        require_terraform({"PATH": str(tmp_path)})
    (program / "version").write_text("1.8.5")
    with pytest.raises(TerraformMissing, match=r"1\.9 or newer is needed; .* is version 1\.8\.5"):
        require_terraform(environment(program))
    (program / "version").write_text("2.0.0-rc1")
    require_terraform(environment(program))
