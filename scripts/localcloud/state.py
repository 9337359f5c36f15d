"""What is known of this checkout's local cloud: where its files are, whether its server lives, its addresses.

Everything lies below ``.cloud`` of the repository, or the folder that ``BLOCKFERRY_CLOUD_DIR`` names, so that
a second cloud can run beside the first.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.environment import repository_root

from localcloud.local_keys import TOKEN_VARIABLE, LocalKeys, write_private

DIRECTORY_VARIABLE = "BLOCKFERRY_CLOUD_DIR"


@dataclass(frozen=True, kw_only=True)
class CloudInfo:
    """A local cloud that is up. ``state_machines`` and ``buckets`` are empty if Terraform was not applied.

    ``state_machines``: region -> operation -> ARN; ``buckets``: region -> ``work`` or ``archive`` -> name;
    ``endpoint_urls``: service -> address of its faster door; ``secret_access_key`` and ``control_token``: see
    ``localcloud.local_keys``.
    """

    endpoint_url: str
    endpoint_urls: Mapping[str, str]
    secret_access_key: str
    control_token: str
    regions: tuple[str, ...]
    account_id: str
    state_machines: Mapping[str, Mapping[str, str]]
    buckets: Mapping[str, Mapping[str, str]]
    pid: int

    def to_json(self) -> str:
        """One JSON object on one line, as ``scripts/cloud up --json`` prints it."""
        return json.dumps(asdict(self) | {"regions": list(self.regions)})

    @classmethod
    def from_object(cls, raw: Mapping[str, Any]) -> CloudInfo:
        return cls(**{**raw, "regions": tuple(raw["regions"])})

    @property
    def keys(self) -> LocalKeys:
        return LocalKeys(secret=self.secret_access_key, token=self.control_token)

    def environment(self, region: str | None = None) -> dict[str, str]:
        """Environment variables with which AWS clients of this machine talk to the local cloud only."""
        region = region or self.regions[0]
        doors = {f"AWS_ENDPOINT_URL_{name.upper()}": url for name, url in sorted(self.endpoint_urls.items())}
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            **doors,
            "AWS_ACCESS_KEY_ID": self.account_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": "",  # one left over from a real account would be sent along
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
            TOKEN_VARIABLE: self.control_token,
            **without_proxy(os.environ),
        }


@dataclass(frozen=True, kw_only=True)
class Server:
    """The server's process. A process id alone may be another process's by now, so its start counts too."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Server | None:
        started = start_time(pid)
        return None if started is None else cls(pid=pid, started=started)

    @property
    def is_alive(self) -> bool:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # it may be our own child, which stays until somebody asks
        return start_time(self.pid) == self.started


@dataclass(frozen=True, kw_only=True)
class CloudState:
    """The state file: the server, and once it is up what it offers."""

    server: Server
    config: str | None
    info: CloudInfo | None


class CloudDirectory:
    """The files of one local cloud."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @classmethod
    def default(cls) -> CloudDirectory:
        named = os.environ.get(DIRECTORY_VARIABLE)
        return cls(Path(named) if named else repository_root() / ".cloud")

    @property
    def lock(self) -> Path:
        return self.path / "cloud.lock"

    @property
    def ready_file(self) -> Path:
        return self.path / "ready.json"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def server_log(self) -> Path:
        return self.path / "server.log"

    @property
    def terraform(self) -> Path:
        return self.path / "terraform"

    @property
    def _state_file(self) -> Path:
        return self.path / "state.json"

    def make(self) -> None:
        """Make the folder, and keep everybody else out of it: logs, packages and the secrets are in there."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        self.lock.touch()

    def foreign_files(self) -> list[str]:
        """What is in a folder that ``make`` has not made one of ours."""
        try:
            # Looked at once: another process that makes the folder at this moment begins with the lock.
            names = sorted(file.name for file in self.path.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [] if self.lock.name in names else names

    def read(self) -> CloudState | None:
        """The recorded state, or ``None`` if there is none; whether the server still lives is for the caller."""
        try:
            raw = json.loads(self._state_file.read_text())
            info = raw["info"]
            return CloudState(
                server=Server(**raw["server"]),
                config=raw["config"],
                info=None if info is None else CloudInfo.from_object(info),
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None  # written by another version, or half written when the machine went down

    def write(self, state: CloudState) -> None:
        self.make()
        write_private(self._state_file, json.dumps(asdict(state), indent=2))

    def forget(self) -> None:
        """Remove the record of a cloud that is down."""
        for file in (self._state_file, self.ready_file):
            file.unlink(missing_ok=True)


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep requests to this machine away from a proxy; none where no proxy is set."""
    if not any(environment.get(name) for proxy in ("http_proxy", "all_proxy") for name in (proxy, proxy.upper())):
        return {}
    listed = (environment.get("no_proxy") or environment.get("NO_PROXY") or "").split(",")
    names = ",".join(dict.fromkeys([*filter(None, listed), "127.0.0.1", "localhost"]))
    return {"NO_PROXY": names, "no_proxy": names}


def start_time(pid: int) -> str | None:
    """When a process started, in an unspecified unit; ``None`` if there is no such living process."""
    if sys.platform == "linux":
        try:
            # After the command, which is in parentheses and may hold anything: state is 3rd, start is 22nd.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in ("Z", "X") else fields[19]
    done = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = done.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()
