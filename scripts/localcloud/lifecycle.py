"""Starts the local cloud with everything deployed in it, and takes it down again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tools.build import Artifacts, BuildFailed, build, local_architecture, local_runtime
from tools.environment import locked, repository_root
from tools.terraform import Terraform, TerraformFailed

from localcloud.request_lines import REQUEST_LOG, repeated
from localcloud.state import DIRECTORY_VARIABLE, CloudDirectory, CloudInfo, CloudState, Server

DEFAULT_REGIONS = ("us-east-1", "eu-west-1")
FAR_SIDE_ROLE = "arn:aws:iam::123456789012:role/blockferry-far-side"
"""A role that the functions may assume: if it is made in this other account, copies between accounts are possible."""
START_SECONDS = 60.0
STOP_SECONDS = 15.0
REPEATED_LINES = 40
"""Lines of the log of requests, at most, in the message of a failed apply."""
_REGION = re.compile(r"^[a-z]{2}(-[a-z]+)+-\d+$")


class CloudFailed(RuntimeError):
    """The local cloud could not be brought up or taken down; the message says why and what to do."""


def info(directory: CloudDirectory | None = None) -> CloudInfo | None:
    """The local cloud that is up, or ``None``."""
    state = (directory or CloudDirectory.default()).read()
    return state.info if state is not None and state.server.is_alive else None


def up(
    *,
    regions: Sequence[str] | None = None,
    port: int | None = None,
    config: Path | None = None,
    apply: bool = True,
    directory: CloudDirectory | None = None,
) -> CloudInfo:
    """Bring the local cloud up, or return the one that is up already.

    ``regions``: home and recovery region. ``config``: JSON file of the server (faults, delays, quotas).
    Without ``apply`` the server runs with nothing in it. Safe when several processes call it at once: one
    does it, the others get its result. Raises ``CloudFailed``, with nothing left running.
    """
    directory = directory or CloudDirectory.default()
    asked = checked_regions(regions) if regions is not None else None
    if config is not None and not config.is_file():
        raise CloudFailed(f"there is no config file {config}")
    _refuse_foreign(directory)
    directory.make()
    with locked(directory.lock):
        state = directory.read()
        if state is not None and state.server.is_alive and state.info is not None:
            _refuse_other(state, regions=asked, port=port, config=config)
            return state.info
        _stop(directory)
        try:
            return _bring_up(directory, asked or DEFAULT_REGIONS, port=port or 0, config=config, apply=apply)
        except (BuildFailed, TerraformFailed, OSError, ValueError) as error:
            _stop(directory)
            raise CloudFailed(str(error)) from error
        except BaseException:
            _stop(directory)
            raise


def down(directory: CloudDirectory | None = None) -> bool:
    """Take the local cloud down and delete what is in it; whether there was one. No process is left."""
    directory = directory or CloudDirectory.default()
    if not directory.path.is_dir():
        return False
    _refuse_foreign(directory)
    with locked(directory.lock):
        was_up = _stop(directory)
        for folder in (directory.data, directory.terraform / "source"):
            shutil.rmtree(folder, ignore_errors=True)
    return was_up


def _refuse_foreign(directory: CloudDirectory) -> None:
    """Raise ``CloudFailed`` for a folder with files of others, which would be closed to everybody else, or deleted."""
    if names := directory.foreign_files():
        raise CloudFailed(
            f"{directory.path} is no folder of a local cloud: it holds {', '.join(names[:5])}. "
            f"Let {DIRECTORY_VARIABLE} name a new or an empty one"
        )


def checked_regions(regions: Sequence[str]) -> tuple[str, str]:
    """Home and recovery region; raises ``CloudFailed`` unless these are two different regions."""
    for region in regions:
        if not _REGION.match(region):
            raise CloudFailed(f"{region!r} is not the name of a region; give two, such as us-east-1,eu-west-1")
    if len(regions) != 2 or regions[0] == regions[1]:
        raise CloudFailed(
            f"give exactly two different regions, home and recovery, such as us-east-1,eu-west-1; "
            f"not {','.join(regions)}"
        )
    return regions[0], regions[1]


def _refuse_other(state: CloudState, *, regions: tuple[str, str] | None, port: int | None, config: Path | None) -> None:
    """A running cloud is only an answer to ``up`` if it is the one that was asked for."""
    running = cast(CloudInfo, state.info)
    differences = []
    if regions and regions != running.regions:
        differences.append(f"regions {','.join(running.regions)}")
    if port and not running.endpoint_url.endswith(f":{port}"):
        differences.append(f"address {running.endpoint_url}")
    if config is not None and str(config.resolve()) != state.config:
        differences.append(f"config {state.config or 'none'}")
    if differences:
        raise CloudFailed(f"another local cloud is up, with {' and '.join(differences)}; run scripts/cloud down first")


def _bring_up(
    directory: CloudDirectory, regions: tuple[str, str], *, port: int, config: Path | None, apply: bool
) -> CloudInfo:
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"cloud: [{time.monotonic() - started:5.1f} s] {text}", file=sys.stderr, flush=True)

    artifacts = None
    if apply:
        say("building the functions and their layer")
        artifacts = build(runtime=local_runtime(), architecture=local_architecture())
    say("starting the server")
    config = config.resolve() if config is not None else None
    server = _start_server(directory, regions, port=port, config=config)
    directory.write(CloudState(server=server, config=str(config) if config else None, info=None))
    ready = _wait_until_ready(directory, server)
    running = CloudInfo(
        endpoint_url=ready["endpoint_url"],
        endpoint_urls={"ebs": ready["ebs_endpoint_url"]},
        secret_access_key=ready["secret_access_key"],
        control_token=ready["control_token"],
        regions=regions,
        account_id=ready["account_id"],
        state_machines={},
        buckets={},
        pid=server.pid,
    )
    if artifacts is not None:
        say(f"applying the Terraform at {running.endpoint_url}")
        outputs = _apply(directory, running, artifacts)
        running = CloudInfo(
            **{**vars(running), "state_machines": outputs["state_machines"], "buckets": outputs["buckets"]}
        )
    directory.write(CloudState(server=server, config=str(config) if config else None, info=running))
    say(f"up at {running.endpoint_url}")
    return running


def _start_server(directory: CloudDirectory, regions: tuple[str, str], *, port: int, config: Path | None) -> Server:
    shutil.rmtree(directory.data, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "localcloud.server", "--port", str(port)),
        *("--data-dir", str(directory.data), "--ready-file", str(directory.ready_file)),
        *("--home-region", regions[0]),
        *(() if config is None else ("--config", str(config))),
    ]
    # Spawned, not subprocess.Popen: nobody here waits for it, it outlives this process.
    pid = os.posix_spawn(
        sys.executable,
        command,
        os.environ | {"PYTHONPATH": str(repository_root() / "scripts")},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(directory.server_log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    server = Server.of(pid)
    if server is None:
        raise CloudFailed(f"the server ended at once; its log: {directory.server_log}")
    return server


def _wait_until_ready(directory: CloudDirectory, server: Server) -> dict[str, Any]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.is_alive:
        with contextlib.suppress(OSError, ValueError):
            ready: dict[str, Any] = json.loads(directory.ready_file.read_text())
            return ready
        time.sleep(0.05)
    state = "is not ready after 60 s" if server.is_alive else "ended"
    raise CloudFailed(f"the server {state}; its log ({directory.server_log}) ends with:\n{_tail(directory.server_log)}")


def _tail(file: Path, lines: int = 30) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    return "(nothing)"


def _apply(directory: CloudDirectory, running: CloudInfo, artifacts: Artifacts) -> dict[str, Any]:
    for old in directory.terraform.glob("terraform.tfstate*"):
        old.unlink()  # of a cloud whose resources went with it
    (directory.terraform / "terraform.log").unlink(missing_ok=True)
    terraform = terraform_of(directory, running)
    terraform.init()
    try:
        terraform.apply(terraform_variables(running, artifacts))
    except TerraformFailed as failed:
        raise TerraformFailed(f"{failed}{_repeated_requests(directory)}") from failed
    return terraform.output()


def _repeated_requests(directory: CloudDirectory) -> str:
    """What the server's log of requests says of those that were sent more than once: a refusal may come of that."""
    log = directory.data / "logs" / REQUEST_LOG
    with contextlib.suppress(OSError):
        if lines := repeated(log.read_text().splitlines()):
            return f"\nRequests that were sent more than once ({log}):\n" + "\n".join(lines[-REPEATED_LINES:])
    return ""


def terraform_of(directory: CloudDirectory, running: CloudInfo) -> Terraform:
    """Terraform on the root module, against this cloud, with its state in the cloud's folder."""
    environment = running.environment() | {
        # The operator's own profiles must not reach the provider.
        "AWS_PROFILE": "",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    return Terraform(repository_root() / "terraform", directory.terraform, environment)


def terraform_variables(running: CloudInfo, artifacts: Artifacts) -> dict[str, object]:
    home, recovery = running.regions
    return {
        "home_region": home,
        "recovery_region": recovery,
        "artifacts_dir": str(artifacts.output),
        "lambda": {"runtime": artifacts.runtime, "architecture": artifacts.architecture},
        "trusted_role_arns": [FAR_SIDE_ROLE],
        "archive_bucket_names": None,  # every bucket of the account
        "restore_bucket_names": None,
        "backups": {"allow_as_of": True},
        "force_destroy": True,  # what is in the buckets is thrown away with the cloud anyway
    }


def _stop(directory: CloudDirectory) -> bool:
    """End the recorded server, if it lives, and forget it. The logs stay for whoever wants to know why."""
    state = directory.read()
    was_up = state is not None and state.server.is_alive
    if state is not None and was_up:
        _end(state.server)
    directory.forget()
    for old in directory.terraform.glob("terraform.tfstate*"):
        old.unlink()
    return was_up


def _end(server: Server) -> None:
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not server.is_alive:
                return
            time.sleep(0.02)
    raise CloudFailed(f"the server, process {server.pid}, does not end; end it by hand: kill -9 {server.pid}")
