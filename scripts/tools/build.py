"""Build what Terraform deploys: one zip per function, and the layer they share.

The same sources and the same lock give the same bytes on every machine (see ``archives``), so an
artifact's hash changes exactly when its content does. Nothing is built during a plan.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform as this_machine
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tools import archives, dependencies
from tools.dependencies import DependenciesFailed, Platform
from tools.environment import locked, repository_root

DEFAULT_RUNTIME = "python3.13"
DEFAULT_ARCHITECTURE = "arm64"
# Lambda refuses a function whose code and layers unzip to more (Lambda developer guide, quotas).
LARGEST_UNZIPPED_BYTES = 250 * 1024 * 1024


class BuildFailed(Exception):
    """An artifact could not be made; the message names it and says why."""


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """What one build made: the zips, by the folder name of each function."""

    output: Path
    runtime: str
    architecture: str
    functions: Mapping[str, Path]
    layer: Path

    def as_json(self) -> str:
        """One JSON object, for other programs."""
        return json.dumps(
            {
                "output": str(self.output),
                "runtime": self.runtime,
                "architecture": self.architecture,
                "functions": {name: str(path) for name, path in self.functions.items()},
                "layer": str(self.layer),
            },
            indent=2,
        )


def build(
    *,
    runtime: str = DEFAULT_RUNTIME,
    architecture: str = DEFAULT_ARCHITECTURE,
    output: Path | None = None,
    source: Path | None = None,
) -> Artifacts:
    """Bring all artifacts up to date; what has not changed is left alone.

    ``output`` defaults to ``build`` in the repository and ``source`` to the repository itself.
    Raises BuildFailed, and ValueError for an unknown runtime or architecture.
    """
    root = source or repository_root()
    output = (output or repository_root() / "build").resolve()
    platform = Platform(runtime=runtime, architecture=architecture)
    functions: dict[str, Path] = {}
    with locked(output / ".build.lock"):
        for folder in function_folders(root):
            functions[folder.name] = output / "functions" / f"{folder.name}.zip"
            _bring_up_to_date(functions[folder.name], function_entries(folder), output)
        layer = output / f"layer-{platform}.zip"
        _bring_up_to_date_layer(layer, root / "layers" / "core", platform, output)
    return Artifacts(output=output, runtime=runtime, architecture=architecture, functions=functions, layer=layer)


def local_runtime() -> str:
    """The runtime whose minor version this Python has: what the local cloud can execute."""
    return f"python3.{sys.version_info.minor}"


def local_architecture() -> str:
    """This machine's architecture in Lambda's words."""
    return "arm64" if this_machine.machine() in {"arm64", "aarch64"} else "x86_64"


def function_folders(root: Path) -> list[Path]:
    """The folder of every function, sorted by name."""
    folders = sorted(
        path for path in (root / "functions").glob("*") if path.is_dir() and not path.name.startswith((".", "_"))
    )
    if not folders:
        raise BuildFailed(f"there is no function in {root / 'functions'}")
    return folders


def function_entries(folder: Path) -> dict[str, bytes | Path]:
    """What goes into a function's zip: its Python files.

    ``permissions.json`` is for Terraform's policies and for tests, so it stays out: a change in it must
    not deploy new code.
    """
    entries: dict[str, bytes | Path] = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py") if "__pycache__" not in path.parts
    }
    if "handler.py" not in entries:
        raise BuildFailed(f"{folder} has no handler.py, which every function must have")
    return entries


def package_entries(core: Path) -> dict[str, bytes | Path]:
    """The blockferry package as it lies in the layer: the files that an installation would have too."""
    entries: dict[str, bytes | Path] = {
        f"python/{path.relative_to(core).as_posix()}": path
        for path in (core / "blockferry").rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and (path.suffix in {".py", ".json"} or path.name == "py.typed")
    }
    if "python/blockferry/__init__.py" not in entries:
        raise BuildFailed(f"there is no package blockferry in {core}")
    return entries


def layer_entries(core: Path, platform: Platform, *, cache: Path) -> dict[str, bytes | Path]:
    """All files of the layer: the package and its pinned dependencies, below ``python/``."""
    entries = package_entries(core)
    packages = dependencies.installed_packages(core / "requirements.txt", platform, cache=cache)
    for path in packages.rglob("*"):
        inside = PurePosixPath(path.relative_to(packages).as_posix())
        if path.is_file() and dependencies.belongs_in_layer(inside):
            entries[f"python/{inside}"] = path
    return entries


def _bring_up_to_date(target: Path, entries: Mapping[str, bytes | Path], output: Path) -> None:
    key = _content_key(entries)
    if _recorded_key(target, output) == key and archives.is_intact(target):
        return
    archives.write_zip(target, entries)
    _record_key(target, key, output)


def _bring_up_to_date_layer(target: Path, core: Path, platform: Platform, output: Path) -> None:
    """Write the layer if it has changed, without reading the thousands of installed files: the lock's hash stands for
    them."""
    key = _content_key(
        {
            **package_entries(core),
            "requirements.txt": core / "requirements.txt",
            "platform": str(platform).encode(),
        }
    )
    if _recorded_key(target, output) == key and archives.is_intact(target):
        return
    print(f"building {target.name}", file=sys.stderr, flush=True)
    try:
        entries = layer_entries(core, platform, cache=repository_root() / "build" / ".cache")
    except DependenciesFailed as failure:
        raise BuildFailed(str(failure)) from failure
    size = sum(len(entry) if isinstance(entry, bytes) else entry.stat().st_size for entry in entries.values())
    if size >= LARGEST_UNZIPPED_BYTES:
        raise BuildFailed(
            f"{target.name} would unzip to {size} bytes, Lambda takes less than {LARGEST_UNZIPPED_BYTES}: "
            "remove a dependency from pyproject.toml, or trim more in scripts/tools/dependencies.py"
        )
    archives.write_zip(target, entries)
    _record_key(target, key, output)


def _content_key(entries: Mapping[str, bytes | Path]) -> str:
    """Hash of the content of all entries and of the code that packs them."""
    digest = hashlib.sha256()
    for module in (__file__, archives.__file__, dependencies.__file__):
        digest.update(Path(module).read_bytes())
    for name in sorted(entries):
        content = entries[name]
        data = content.read_bytes() if isinstance(content, Path) else content
        digest.update(f"\0{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def _key_file(target: Path, output: Path) -> Path:
    return output / ".built" / f"{target.relative_to(output).as_posix().replace('/', '-')}.key"


def _recorded_key(target: Path, output: Path) -> str | None:
    try:
        return _key_file(target, output).read_text()
    except OSError:
        return None


def _record_key(target: Path, key: str, output: Path) -> None:
    file = _key_file(target, output)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(key)


def main(arguments: list[str] | None = None) -> int:
    """The command ``scripts/build``."""
    parser = argparse.ArgumentParser(
        prog="scripts/build",
        description="Build the zips of the Lambda functions and of their layer, reproducibly.",
    )
    parser.add_argument("--runtime", default=DEFAULT_RUNTIME, help="Lambda runtime (default: %(default)s)")
    parser.add_argument("--architecture", default=DEFAULT_ARCHITECTURE, help="arm64 or x86_64 (default: %(default)s)")
    parser.add_argument(
        "--local",
        action="store_true",
        help="for this machine's Python and processor, as the local cloud needs",
    )
    parser.add_argument("--output", type=Path, help="where the zips go (default: build/ in the repository)")
    parser.add_argument("--json", action="store_true", help="print one JSON object that names the zips")
    options = parser.parse_args(arguments)
    try:
        artifacts = build(
            runtime=local_runtime() if options.local else options.runtime,
            architecture=local_architecture() if options.local else options.architecture,
            output=options.output,
        )
    except (BuildFailed, ValueError) as failure:
        print(f"scripts/build: {failure}", file=sys.stderr)
        return 1
    if options.json:
        print(artifacts.as_json())
    else:
        for path in (*artifacts.functions.values(), artifacts.layer):
            print(f"{archives.file_sha256(path)}  {path}")
    return 0
