"""What scripts/build makes: the same bytes from the same sources, and nothing that is not needed."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from tools import dependencies
from tools.archives import checksum_file, is_intact, write_zip
from tools.build import (
    LARGEST_UNZIPPED_BYTES,
    Artifacts,
    BuildFailed,
    build,
    function_entries,
    local_architecture,
    local_runtime,
    main,
    package_entries,
)
from tools.dependencies import BOTOCORE_SERVICES, DependenciesFailed, Platform, belongs_in_layer, installed_packages
from tools.environment import repository_root


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in the place of the installed packages, so that these tests need no package index."""
    folder = tmp_path / "installed"
    for name, text in {
        "six.py": "six",
        "boto3/__init__.py": "boto3",
        "boto3-1.0.dist-info/METADATA": "Name: boto3",
        "boto3-1.0.dist-info/RECORD": "differs",
        "bin/tool": "#!/differs",
        "botocore/data/endpoints.json": "{}",
        "botocore/data/ebs/2019-11-02/service-2.json.gz": "ebs",
        "botocore/data/iot/2015-05-28/service-2.json.gz": "iot",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(dependencies, "installed_packages", lambda *_, **__: folder)
    return folder


def sources(folder: Path) -> Path:
    """A small repository with two functions and the package."""
    for name, text in {
        "functions/plan/handler.py": "def handler(event, context): return event\n",
        "functions/plan/permissions.json": "{}",
        "functions/move/handler.py": "def handler(event, context): return 1\n",
        "functions/move/__pycache__/handler.cpython-311.pyc": "compiled",
        "layers/core/requirements.txt": "six==1.0\n",
        "layers/core/blockferry/__init__.py": "",
        "layers/core/blockferry/prices.json": "{}",
        "layers/core/blockferry/py.typed": "",
        "layers/core/blockferry/notes.txt": "not installed",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def build_in(folder: Path, **options: str) -> Artifacts:
    return build(output=folder / "build", source=folder, **options)


def hashes(artifacts: Artifacts) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (*artifacts.functions.values(), artifacts.layer)
    }


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        return opened.namelist()


@pytest.mark.usefixtures("packages")
def test_two_builds_elsewhere_at_another_time_and_umask_are_identical(tmp_path: Path) -> None:
    first = sources(tmp_path / "first")
    second = sources(tmp_path / "a" / "deeper" / "second")
    for number, path in enumerate(sorted(second.rglob("*.py"), reverse=True)):
        os.utime(path, (10**9 + number, 10**9 + number))
        path.chmod(0o700)
    umask = os.umask(0o077)
    try:
        assert hashes(build_in(first)) == hashes(build_in(second))
    finally:
        os.umask(umask)


@pytest.mark.usefixtures("packages")
def test_the_zips_hold_what_runs_and_nothing_else(tmp_path: Path) -> None:
    artifacts = build_in(sources(tmp_path / "src"))
    assert sorted(artifacts.functions) == ["move", "plan"]
    assert names(artifacts.functions["plan"]) == ["handler.py"]
    assert names(artifacts.functions["move"]) == ["handler.py"]
    assert artifacts.layer.name == "layer-python3.13-arm64.zip"
    assert names(artifacts.layer) == [
        "python/blockferry/__init__.py",
        "python/blockferry/prices.json",
        "python/blockferry/py.typed",
        "python/boto3-1.0.dist-info/METADATA",
        "python/boto3/__init__.py",
        "python/botocore/data/ebs/2019-11-02/service-2.json.gz",
        "python/botocore/data/endpoints.json",
        "python/six.py",
    ]


@pytest.mark.usefixtures("packages")
def test_every_entry_has_the_fixed_time_and_can_be_read_by_all(tmp_path: Path) -> None:
    artifacts = build_in(sources(tmp_path / "src"))
    with zipfile.ZipFile(artifacts.layer) as opened:
        for entry in opened.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert entry.external_attr >> 16 == 0o100644
            assert entry.create_system == 3


@pytest.mark.usefixtures("packages")
def test_a_checksum_file_lies_beside_each_zip(tmp_path: Path) -> None:
    artifacts = build_in(sources(tmp_path / "src"))
    for path in (*artifacts.functions.values(), artifacts.layer):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert checksum_file(path).read_text() == f"{digest}  {path.name}\n"


@pytest.mark.usefixtures("packages")
def test_an_unchanged_artifact_is_left_alone_and_a_changed_one_is_made_again(tmp_path: Path) -> None:
    root = sources(tmp_path / "src")
    first = build_in(root)
    before = {name: path.stat().st_mtime_ns for name, path in first.functions.items()}
    layer_before = first.layer.stat().st_mtime_ns
    (root / "functions" / "plan" / "handler.py").write_text("def handler(event, context): return 2\n")
    second = build_in(root)
    assert second.functions["move"].stat().st_mtime_ns == before["move"]
    assert second.functions["plan"].stat().st_mtime_ns != before["plan"]
    assert second.layer.stat().st_mtime_ns == layer_before


@pytest.mark.usefixtures("packages")
def test_a_damaged_or_missing_artifact_is_made_again(tmp_path: Path) -> None:
    root = sources(tmp_path / "src")
    first = build_in(root)
    expected = hashes(first)
    first.layer.write_bytes(first.layer.read_bytes()[:-1])
    first.functions["plan"].unlink()
    assert hashes(build_in(root)) == expected


@pytest.mark.usefixtures("packages")
def test_a_change_in_the_package_changes_the_layer(tmp_path: Path) -> None:
    root = sources(tmp_path / "src")
    before = hashes(build_in(root))
    (root / "layers" / "core" / "blockferry" / "prices.json").write_text('{"new": 1}')
    after = hashes(build_in(root))
    assert {name for name in before if before[name] != after[name]} == {"layer-python3.13-arm64.zip"}


@pytest.mark.usefixtures("packages")
def test_a_deleted_function_is_no_artifact_any_more(tmp_path: Path) -> None:
    root = sources(tmp_path / "src")
    build_in(root)
    shutil.rmtree(root / "functions" / "move")
    assert sorted(build_in(root).functions) == ["plan"]


@pytest.mark.usefixtures("packages")
def test_a_function_without_handler_fails_by_name(tmp_path: Path) -> None:
    root = sources(tmp_path / "src")
    (root / "functions" / "plan" / "handler.py").unlink()
    with pytest.raises(BuildFailed, match=r"functions/plan has no handler\.py"):
        build_in(root)


def test_a_layer_that_lambda_would_refuse_is_not_built(tmp_path: Path, packages: Path) -> None:
    with (packages / "huge.bin").open("wb") as stream:
        stream.truncate(LARGEST_UNZIPPED_BYTES)  # sparse: takes no room on the disk
    with pytest.raises(BuildFailed, match="would unzip to"):
        build_in(sources(tmp_path / "src"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "python3.9"}, "python3.9"),
        ({"runtime": "nodejs22.x"}, "nodejs"),
        ({"architecture": "mips"}, "mips"),
    ],
)
def test_an_unknown_platform_is_refused_by_name(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_in(sources(tmp_path / "src"), **options)


def test_wheels_are_no_newer_than_the_runtimes_c_library() -> None:
    old = Platform(runtime="python3.11", architecture="x86_64").wheel_tags()
    new = Platform(runtime="python3.13", architecture="arm64").wheel_tags()
    assert "manylinux_2_28_x86_64" not in old
    assert {"manylinux_2_26_x86_64", "manylinux2014_x86_64"} <= set(old)
    assert {"manylinux_2_28_aarch64", "manylinux2014_aarch64"} <= set(new)


def test_a_package_with_another_hash_than_the_locks_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "altered-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("altered.py", "")
        archive.writestr("altered-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: altered\nVersion: 1.0\n")
        archive.writestr("altered-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("altered-1.0.dist-info/RECORD", "")
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"altered @ file://{wheel} --hash=sha256:{'0' * 64}\n")
    cache = tmp_path / "cache"
    platform = Platform(runtime=local_runtime(), architecture=local_architecture())
    with pytest.raises(DependenciesFailed, match=r"(?is)hash"):
        installed_packages(lock, platform, cache=cache)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


def test_an_interrupted_write_leaves_the_earlier_zip(tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    write_zip(target, {"one.py": b"1"})
    before = target.read_bytes()
    with pytest.raises(FileNotFoundError):
        write_zip(target, {"one.py": b"2", "two.py": tmp_path / "gone.py"})
    assert target.read_bytes() == before
    assert is_intact(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "a.zip.sha256"]


def test_only_what_tells_of_the_installation_is_trimmed() -> None:
    kept = [
        "boto3-1.0.dist-info/METADATA",
        "boto3-1.0.dist-info/LICENSE",
        "botocore/data/_retry.json",
        "botocore/data/partitions.json",
        "botocore/data/sdk-default-configuration.json",
        "botocore/data/kms/2014-11-01/service-2.json.gz",
        "lz4/frame/_frame.so",
        "zstandard/backend_c.so",
    ]
    trimmed = [
        "bin/jp.py",
        "boto3-1.0.dist-info/RECORD",
        "botocore/data/iot/2015-05-28/service-2.json.gz",
        "six/__pycache__/six.cpython-311.pyc",
        "lz4/block/_block.so",
        "zstandard/_cffi.so",
    ]
    assert [name for name in kept if not belongs_in_layer(PurePosixPath(name))] == []
    assert [name for name in trimmed if belongs_in_layer(PurePosixPath(name))] == []


def clients_in(folder: Path) -> Iterator[tuple[str, int, str]]:
    """(file, line, service) of each ``something.client("service", ...)`` below a folder."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"client", "resource", "create_client"}
                and node.args
            ):
                service = node.args[0]
                literal = service.value if isinstance(service, ast.Constant) else "not a literal"
                yield f"{path.relative_to(repository_root())}", node.lineno, str(literal)


def test_the_layer_has_the_model_of_every_client_that_is_made() -> None:
    found = [
        client
        for folder in ("layers/core/blockferry", "functions")
        for client in clients_in(repository_root() / folder)
    ]
    assert {service for _, _, service in found} >= {"ebs", "ec2", "s3"}
    assert [client for client in found if client[2] not in BOTOCORE_SERVICES] == []


def test_every_kept_service_is_one_that_botocore_knows() -> None:
    import botocore.session

    assert set(botocore.session.get_session().get_available_services()) >= BOTOCORE_SERVICES


def test_the_real_sources_fit_the_rules_of_the_build() -> None:
    for folder in sorted((repository_root() / "functions").glob("*/")):
        if folder.name != "__pycache__":
            assert "handler.py" in function_entries(folder)
    entries = package_entries(repository_root() / "layers" / "core")
    assert "python/blockferry/py.typed" in entries
    assert not [name for name in entries if name.endswith(".pyc")]


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runtime", "python2.7", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("scripts/build: runtime 'python2.7' is not one of python3.11")
