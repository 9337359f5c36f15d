"""The layer's third-party packages: installed for Lambda's platform from the lock, and trimmed.

Every file comes from a wheel whose hash is in ``layers/core/requirements.txt``. The wheels are for the
Lambda runtime, not for this machine, so pip is told the platform and never builds anything.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tools.environment import locked

# The operating system of the python3.11 runtime is Amazon Linux 2 (glibc 2.26), that of python3.12 and
# later Amazon Linux 2023 (glibc 2.34): a wheel for a newer glibc than the runtime's does not load.
# (Lambda developer guide, "Lambda runtimes".)
GLIBC_MINOR_BY_PYTHON_MINOR = {11: 26, 12: 34, 13: 34, 14: 34}
OLDEST_GLIBC_MINOR = 17  # what the oldest wheels in use (manylinux2014) ask for
MACHINE_BY_ARCHITECTURE = {"arm64": "aarch64", "x86_64": "x86_64"}

# botocore carries the models of over 400 services, half of the layer's unzipped size, and Lambda reads
# a layer from its store at each cold start. These are the services that the functions call, that the
# credential chain needs (sts, sso, sso-oidc) and that the tracer may ask for sampling rules (xray). A
# test reads every client made in the package and the functions and holds it against this list; a
# client that is missing all the same fails with botocore's UnknownServiceError, at once and by name.
BOTOCORE_SERVICES = frozenset(
    {
        "cloudwatch",
        "ebs",
        "ec2",
        "events",
        "kms",
        "lambda",
        "logs",
        "s3",
        "sso",
        "sso-oidc",
        "ssm",
        "stepfunctions",
        "sts",
        "xray",
    }
)
# What no import reads. RECORD, INSTALLER, REQUESTED and direct_url.json tell how pip put the files
# there, which differs from machine to machine; METADATA, entry points and the licences stay.
INSTALLER_FILES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})


class DependenciesFailed(Exception):
    """The pinned packages could not be installed for the asked runtime."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One Lambda runtime on one architecture, as in ``python3.13`` on ``arm64``."""

    runtime: str
    architecture: str

    def __post_init__(self) -> None:
        runtimes = [f"python3.{minor}" for minor in GLIBC_MINOR_BY_PYTHON_MINOR]
        if self.runtime not in runtimes:
            known = ", ".join(runtimes)
            raise ValueError(f"runtime {self.runtime!r} is not one of {known}")
        if self.architecture not in MACHINE_BY_ARCHITECTURE:
            known = ", ".join(MACHINE_BY_ARCHITECTURE)
            raise ValueError(f"architecture {self.architecture!r} is not one of {known}")

    @property
    def python_minor(self) -> int:
        """13 for python3.13."""
        return int(self.runtime.removeprefix("python3."))

    def wheel_tags(self) -> list[str]:
        """pip's platform tags that load on this runtime, newest first."""
        machine = MACHINE_BY_ARCHITECTURE[self.architecture]
        newest = GLIBC_MINOR_BY_PYTHON_MINOR[self.python_minor]
        tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, OLDEST_GLIBC_MINOR - 1, -1)]
        return [*tags, f"manylinux2014_{machine}"]

    def __str__(self) -> str:
        return f"{self.runtime}-{self.architecture}"


def installed_packages(lock: Path, platform: Platform, *, cache: Path) -> Path:
    """Folder with the packages of ``lock`` for ``platform``; installed once per content of the lock.

    Raises DependenciesFailed with pip's words when a package is not to be had as a wheel, or a hash
    differs.
    """
    key = hashlib.sha256(lock.read_bytes() + "\n".join(platform.wheel_tags()).encode()).hexdigest()[:16]
    folder = cache / f"{platform}-{key}"
    if folder.is_dir():
        return folder
    with locked(cache / f"{folder.name}.lock"):
        if not folder.is_dir():
            partial = Path(tempfile.mkdtemp(dir=cache, prefix=f"{folder.name}."))
            try:
                _install(lock, platform, partial)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _install(lock: Path, platform: Platform, target: Path) -> None:
    command = [
        sys.executable,
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile"),
        *("--require-hashes", "--no-deps", "--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", f"3.{platform.python_minor}"),
        *(argument for tag in platform.wheel_tags() for argument in ("--platform", tag)),
        *("--target", str(target), "--requirement", str(lock)),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise DependenciesFailed(f"installing {lock} for {platform} failed:\n{done.stdout.strip()}")


def belongs_in_layer(path: PurePosixPath) -> bool:
    """Whether a file of the installed packages (path below the folder) goes into the layer."""
    parts = path.parts
    if parts[0] == "bin" or "__pycache__" in parts or path.suffix == ".pyc":
        return False
    if len(parts) == 2 and parts[0].endswith(".dist-info") and path.name in INSTALLER_FILES:
        return False
    if path.suffix == ".pyi" or "tests" in parts[1:-1]:
        return False
    if parts[0] == "zstandard" and path.name.startswith("_cffi"):
        return False  # the second copy of the codec, 2 MB zipped: on CPython only backend_c is imported
    if parts[:2] == ("lz4", "block"):
        return False  # images are streams of frames
    if parts[:2] == ("botocore", "data") and len(parts) > 3:
        return parts[2] in BOTOCORE_SERVICES
    return True
