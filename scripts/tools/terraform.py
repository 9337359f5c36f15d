"""Run Terraform on one root module of this repository, without leaving a trace in the tracked tree.

``terraform init`` writes ``.terraform.lock.hcl`` beside the module whatever TF_DATA_DIR says, and
``-lockfile=readonly`` only works where such a file lies already, with hashes that depend on where the
provider came from. So the module is run from a copy: ``terraform/``, ``statemachines/`` and ``functions/``
are copied below the work folder with the same positions to each other, so that
``${path.module}/../statemachines`` finds its file. Paths that point elsewhere (the build artifacts) are
given absolute, as variables. The work folder holds:

    source/             the copy, renewed by init(); the lock file in it is kept
    data/               TF_DATA_DIR: modules and (linked) providers
    terraform.tfstate   the state, through an override of whatever backend the module names
    terraform.log       the output of every command
    terraformrc         the CLI configuration, with the provider mirror if one was found
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tools import mirror
from tools.environment import repository_root

OLDEST_TERRAFORM = (1, 9, 0)
COPIED_FOLDERS = ("terraform", "statemachines", "functions")
LOCK_FILE = ".terraform.lock.hcl"
TAIL_LINES = 60  # of a failed command's output: an error of the provider takes about 20
# Only against a hang: an apply of the whole root takes about three minutes against the local cloud.
LONGEST_COMMAND_SECONDS = 1800.0
GRACE_SECONDS = 60.0  # for Terraform to write its state after an interrupt
PLAN_HAS_CHANGES = 2  # exit status of plan -detailed-exitcode

FindMirror = Callable[[Mapping[str, str]], Path | None]
"""How a copy of the AWS provider is found, as ``mirror.find_mirror`` does it."""


class TerraformFailed(Exception):
    """A Terraform command failed; the message has the end of its output and names the log."""


class TerraformMissing(TerraformFailed):
    """There is no Terraform on the PATH, or it is too old."""


class Terraform:
    """One root module, one work folder, one state.

    ``env`` is laid over this process's environment (credentials, AWS_ENDPOINT_URL). ``overrides`` maps
    file names to HCL that is put into the copy of the root module, such as ``local_override.tf``; a name
    that ends in ``_override.tf`` is merged over the module's own blocks.
    """

    def __init__(
        self,
        root_module: Path,
        work: Path,
        env: Mapping[str, str] | None = None,
        *,
        overrides: Mapping[str, str] | None = None,
        timeout_seconds: float = LONGEST_COMMAND_SECONDS,
        find_mirror: FindMirror = mirror.find_mirror,
    ) -> None:
        self._repository = repository_root()
        self._root_module = root_module.resolve()
        self._inside = self._root_module.relative_to(self._repository)
        self._work = work.resolve()
        self._overrides = dict(overrides or {})
        self._timeout_seconds = timeout_seconds
        self._work.mkdir(parents=True, exist_ok=True)
        self._environment = terraform_environment(self._work, {**os.environ, **(env or {})}, find_mirror)

    @property
    def log(self) -> Path:
        """Output of all commands so far."""
        return self._work / "terraform.log"

    @property
    def state(self) -> Path:
        """The state file; it exists after the first apply."""
        return self._work / "terraform.tfstate"

    @property
    def module(self) -> Path:
        """The copy of the root module in which the commands run."""
        return self._work / "source" / self._inside

    def init(self, *, backend: bool = True) -> None:
        """Renew the copy and install modules and providers. ``backend=False`` for validate and test."""
        require_terraform(self._environment)
        self._copy_sources(backend=backend)
        self._run("init", *(() if backend else ("-backend=false",)))

    def validate(self) -> None:
        """Check the module; raises TerraformFailed with what is wrong."""
        self._run("validate")

    def apply(self, variables: Mapping[str, object] | None = None, *, targets: Sequence[str] = ()) -> None:
        """Make it so. ``variables`` are input variables of the root module, of any JSON type."""
        self._run("apply", "-auto-approve", *self._inputs(variables), *(f"-target={name}" for name in targets))

    def plan(self, variables: Mapping[str, object] | None = None) -> bool:
        """Whether an apply would change anything."""
        return bool(self.changes(variables))

    def changes(self, variables: Mapping[str, object] | None = None) -> str:
        """What an apply would change, in Terraform's words; empty when nothing."""
        status, output = self._run(
            "plan", "-detailed-exitcode", *self._inputs(variables), accepted=(0, PLAN_HAS_CHANGES)
        )
        return output if status == PLAN_HAS_CHANGES else ""

    def destroy(self, variables: Mapping[str, object] | None = None) -> None:
        """Delete everything in the state."""
        self._run("destroy", "-auto-approve", *self._inputs(variables))

    def output(self) -> dict[str, object]:
        """Value of every output of the root module."""
        _, text = self._run("output", "-json", quiet=True)
        return {name: entry["value"] for name, entry in json.loads(text).items()}

    def test(self, *arguments: str) -> str:
        """Run the module's ``*.tftest.hcl`` files; returns Terraform's report."""
        return self._run("test", *arguments)[1]

    def fmt_check(self) -> None:
        """Check the formatting of the tracked files below the root module; changes nothing."""
        require_terraform(self._environment)
        self._run("fmt", "-check", "-diff", "-recursive", str(self._root_module), directory=self._repository)

    def _inputs(self, variables: Mapping[str, object] | None) -> tuple[str, ...]:
        if not variables:
            return ()
        file = self._work / "variables.tfvars.json"
        file.write_text(json.dumps(variables, indent=2, sort_keys=True))
        return (f"-var-file={file}",)

    def _copy_sources(self, *, backend: bool) -> None:
        source = self._work / "source"
        lock_file = self.module / LOCK_FILE
        kept = lock_file.read_bytes() if lock_file.is_file() else None
        shutil.rmtree(source, ignore_errors=True)
        for name in COPIED_FOLDERS:
            if (self._repository / name).is_dir():
                shutil.copytree(
                    self._repository / name,
                    source / name,
                    ignore=shutil.ignore_patterns(
                        ".terraform", LOCK_FILE, "*.tfstate", "*.tfstate.*", "*.auto.tfvars*", "__pycache__", "*.pyc"
                    ),
                )
        if kept is not None:
            lock_file.write_bytes(kept)
        for name, text in self._overrides.items():
            (self.module / name).write_text(text)
        if backend:
            (self.module / "backend_override.tf").write_text(
                f'terraform {{\n  backend "local" {{\n    path = {json.dumps(str(self.state))}\n  }}\n}}\n'
            )

    def _run(
        self,
        command: str,
        *arguments: str,
        accepted: Sequence[int] = (0,),
        directory: Path | None = None,
        quiet: bool = False,
    ) -> tuple[int, str]:
        """Run one command; returns its status and its output. ``quiet``: stdout stays out of the log."""
        line = ["terraform", command, *(() if command in {"fmt", "output"} else ("-no-color",)), *arguments]
        if command in {"init", "apply", "plan", "destroy"}:
            line.append("-input=false")
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(line)}\n".encode())
            log.flush()
            start = log.tell()
            process = subprocess.Popen(
                line,
                cwd=directory or self.module,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if quiet else log,
                stderr=log,
            )
            output = self._wait(process, line)
        logged = self._logged_since(start)
        if process.returncode not in accepted:
            tail = "\n".join(logged.strip().splitlines()[-TAIL_LINES:])
            raise TerraformFailed(
                f"terraform {command} of {self._inside} failed with status {process.returncode} "
                f"(whole output: {self.log}):\n{tail}"
            )
        return process.returncode, output.decode() if quiet else logged

    def _wait(self, process: subprocess.Popen[bytes], line: Sequence[str]) -> bytes:
        try:
            output, _ = process.communicate(timeout=self._timeout_seconds)
        except subprocess.TimeoutExpired:
            raise TerraformFailed(
                f"{' '.join(line)} did not end within {self._timeout_seconds:.0f} s and was stopped; "
                f"its output is in {self.log}"
            ) from None
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)  # Terraform then stops in order and writes its state
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
                process.kill()
                process.wait()
        return output or b""

    def _logged_since(self, start: int) -> str:
        with self.log.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")


def terraform_environment(
    work: Path, environment: Mapping[str, str], find_mirror: FindMirror = mirror.find_mirror
) -> dict[str, str]:
    """The environment for Terraform commands; writes the CLI configuration into ``work``.

    Without a mirror the user's own CLI configuration stays in force, as it may name a network mirror;
    where there is none either, Terraform asks the registry.
    """
    result = {
        **environment,
        "TF_IN_AUTOMATION": "1",
        "TF_INPUT": "0",
        "CHECKPOINT_DISABLE": "1",
        "TF_DATA_DIR": str(work / "data"),
    }
    result.pop("TF_WORKSPACE", None)  # the state of this work folder, not one of the operator's
    for name in [name for name in result if name.startswith("TF_CLI_ARGS")]:
        del result[name]
    try:
        folder = find_mirror(environment)
    except mirror.MirrorUnusable as unusable:
        raise TerraformFailed(str(unusable)) from unusable
    configuration = mirror.user_configuration(environment)
    if folder is None and configuration is not None:
        return result
    file = work / "terraformrc"
    file.write_text(_cli_configuration(folder))
    result["TF_CLI_CONFIG_FILE"] = str(file)
    return result


def require_terraform(environment: Mapping[str, str]) -> None:
    """Raises TerraformMissing, with what to do, unless a Terraform that is new enough is on the PATH."""
    oldest = ".".join(map(str, OLDEST_TERRAFORM[:2]))
    executable = shutil.which("terraform", path=environment.get("PATH"))
    if executable is None:
        raise TerraformMissing(f"Terraform is not on the PATH. Install version {oldest} or newer and try again.")
    done = subprocess.run(
        [executable, "version", "-json"], env=dict(environment), capture_output=True, text=True, check=False
    )
    try:
        text = json.loads(done.stdout)["terraform_version"]
        version = tuple(int(number) for number in re.findall(r"\d+", text)[:3])
    except (ValueError, KeyError) as unreadable:
        raise TerraformMissing(f"{executable} did not tell its version: {done.stdout}{done.stderr}") from unreadable
    if version < OLDEST_TERRAFORM:
        raise TerraformMissing(
            f"Terraform {oldest} or newer is needed; {executable} is version {text}. Install a newer one."
        )


def _cli_configuration(folder: Path | None) -> str:
    if folder is None:
        return "disable_checkpoint = true\n"
    provider = json.dumps([mirror.PROVIDER])
    return (
        "disable_checkpoint = true\n\n"
        "provider_installation {\n"
        f"  filesystem_mirror {{\n    path    = {json.dumps(str(folder))}\n    include = {provider}\n  }}\n"
        f"  direct {{\n    exclude = {provider}\n  }}\n"
        "}\n"
    )
