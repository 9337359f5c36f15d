"""Find a copy of the AWS provider on this machine, so that Terraform need not ask the registry.

The provider is some 700 MB unpacked, and machines without a way out often have it laid down already. A
mirror is a folder laid out as Terraform lays one out ("CLI configuration file", provider installation):
``registry.terraform.io/hashicorp/aws/<version>/<os>_<arch>/`` unpacked, or
``registry.terraform.io/hashicorp/aws/terraform-provider-aws_<version>_<os>_<arch>.zip`` packed.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

MIRROR_VARIABLE = "BLOCKFERRY_TERRAFORM_MIRROR"
REGISTRY = "registry.terraform.io"
PROVIDER = f"{REGISTRY}/hashicorp/aws"
OLDEST_PROVIDER = (5, 100, 0)  # the lower bound in terraform/**/versions.tf
SEARCH_ROOTS = ("/opt", "/usr/share", "/usr/local", "/var/lib")
SEARCH_DEPTH = 3  # a mirror lies near the top of such a root; deeper costs seconds on a full machine
SEARCH_LIMIT = 20_000  # folders looked at in all, so that a strange machine cannot hold up a start


class MirrorUnusable(Exception):
    """The mirror that the operator named holds no provider that will do."""


def find_mirror(
    environment: Mapping[str, str], *, roots: Iterable[str] = SEARCH_ROOTS, most_folders: int = SEARCH_LIMIT
) -> Path | None:
    """The folder that holds ``registry.terraform.io/`` with a fitting provider, or None.

    Asks, in this order: the variable BLOCKFERRY_TERRAFORM_MIRROR, Terraform's own settings, the places
    where Terraform looks by itself, and then a short search of the places where administrators put
    such things: below ``roots`` and the user's home, in no more than ``most_folders``. Raises
    MirrorUnusable when the variable names a folder without a fitting provider.
    """
    named = environment.get(MIRROR_VARIABLE)
    if named:
        mirror = Path(named).expanduser().resolve()
        if not holds_provider(mirror):
            raise MirrorUnusable(
                f"{MIRROR_VARIABLE} is {named}, but there is no {PROVIDER} for {platform_name()} of version "
                f"{'.'.join(map(str, OLDEST_PROVIDER))} or newer in it. Unset it to use other places."
            )
        return mirror
    for folder in _usual_places(environment):
        if holds_provider(folder):
            return folder.resolve()
    for folder in _search([*map(Path, roots), _home(environment)], most_folders):
        if holds_provider(folder):
            return folder
    return None


def user_configuration(environment: Mapping[str, str]) -> Path | None:
    """Terraform's CLI configuration file of this user, if there is one.

    TF_CLI_CONFIG_FILE may name a file that does not exist; Terraform then warns and uses none, so no
    other file stands in for it here either.
    """
    named = environment.get("TF_CLI_CONFIG_FILE")
    file = Path(named) if named else _home(environment) / ".terraformrc"
    return file if file.is_file() else None


def holds_provider(folder: Path) -> bool:
    """Whether a mirror has the AWS provider for this machine in a version that will do."""
    provider = folder / PROVIDER
    target = platform_name()
    unpacked = [path.parent.name for path in provider.glob(f"*/{target}") if _has_executable(path)]
    packed = [
        path.name.removeprefix("terraform-provider-aws_").removesuffix(f"_{target}.zip")
        for path in provider.glob(f"terraform-provider-aws_*_{target}.zip")
    ]
    return any(_version(name) >= OLDEST_PROVIDER for name in (*unpacked, *packed))


def platform_name() -> str:
    """This machine in Terraform's words, such as linux_amd64."""
    machine = platform.machine().lower()
    return f"{sys.platform}_{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"


def _has_executable(folder: Path) -> bool:
    return any(folder.glob("terraform-provider-aws*"))


def _version(text: str) -> tuple[int, ...]:
    """(5, 100, 0) of "5.100.0"; a pre-release or anything else counts as older than all."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", text) else ()


def _home(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("HOME") or Path.home())


def _usual_places(environment: Mapping[str, str]) -> Iterator[Path]:
    configuration = user_configuration(environment)
    if configuration:
        text = configuration.read_text(errors="replace")
        # path = of filesystem_mirror blocks, and the plug-in cache, which has the same layout.
        for value in re.findall(r'^\s*(?:path|plugin_cache_dir)\s*=\s*"([^"]+)"', text, re.MULTILINE):
            yield Path(os.path.expandvars(value)).expanduser()
    if environment.get("TF_PLUGIN_CACHE_DIR"):
        yield Path(environment["TF_PLUGIN_CACHE_DIR"]).expanduser()
    yield _home(environment) / ".terraform.d" / "plugins"
    data_home = environment.get("XDG_DATA_HOME")
    yield (Path(data_home) if data_home else _home(environment) / ".local" / "share") / "terraform" / "plugins"
    yield _home(environment) / ".terraform.d" / "plugin-cache"
    yield Path("/usr/local/share/terraform/plugins")
    yield Path("/usr/share/terraform/plugins")


def _search(roots: list[Path], most_folders: int) -> Iterator[Path]:
    """Folders below ``roots`` that hold a ``registry.terraform.io``, nearest first."""
    level = [root for root in roots if root.is_dir()]
    looked_at = 0
    for _ in range(SEARCH_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            looked_at += 1
            if looked_at > most_folders:
                return
            try:
                with os.scandir(folder) as entries:
                    names = sorted(
                        entry.name for entry in entries if entry.is_dir(follow_symlinks=entry.name == REGISTRY)
                    )
            except OSError:  # not ours to read, or gone meanwhile
                continue
            if REGISTRY in names:
                yield folder
            below.extend(folder / name for name in names if name not in {"node_modules", "site-packages", ".git"})
        level = below
