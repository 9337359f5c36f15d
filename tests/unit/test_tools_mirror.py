"""The search for a copy of the AWS provider on this machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tools import mirror
from tools.mirror import MIRROR_VARIABLE, MirrorUnusable, holds_provider, platform_name, user_configuration

find_mirror = partial(mirror.find_mirror, roots=())
"""Not one of this machine, unless a test says where."""


def unpacked(folder: Path, version: str = "5.100.0", target: str | None = None) -> Path:
    provider = folder / mirror.PROVIDER / version / (target or platform_name())
    provider.mkdir(parents=True)
    (provider / f"terraform-provider-aws_v{version}_x5").touch()
    return folder


def packed(folder: Path, version: str = "5.100.0") -> Path:
    (folder / mirror.PROVIDER).mkdir(parents=True)
    (folder / mirror.PROVIDER / f"terraform-provider-aws_{version}_{platform_name()}.zip").touch()
    return folder


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home")}


@pytest.mark.parametrize("version", ["5.100.0", "5.101.3", "6.0.0", "10.1.0"])
@pytest.mark.parametrize("lay", [unpacked, packed])
def test_a_new_enough_provider_will_do(tmp_path: Path, lay: object, version: str) -> None:
    assert callable(lay)
    assert holds_provider(lay(tmp_path, version))


@pytest.mark.parametrize("version", ["5.99.1", "4.67.0", "6.0.0-beta1"])
@pytest.mark.parametrize("lay", [unpacked, packed])
def test_an_old_or_unfinished_provider_will_not_do(tmp_path: Path, lay: object, version: str) -> None:
    assert callable(lay)
    assert not holds_provider(lay(tmp_path, version))


def test_a_provider_for_another_machine_will_not_do(tmp_path: Path) -> None:
    assert not holds_provider(unpacked(tmp_path, target="plan9_mips"))


def test_an_empty_version_folder_will_not_do(tmp_path: Path) -> None:
    (tmp_path / mirror.PROVIDER / "5.100.0" / platform_name()).mkdir(parents=True)
    assert not holds_provider(tmp_path)


def test_nothing_found_means_none(home: dict[str, str]) -> None:
    assert find_mirror(home) is None


def test_the_variable_comes_before_everything(tmp_path: Path, home: dict[str, str]) -> None:
    unpacked(Path(home["HOME"]) / ".terraform.d" / "plugins")
    named = unpacked(tmp_path / "named")
    assert find_mirror({**home, MIRROR_VARIABLE: str(named)}) == named


def test_a_variable_that_names_nothing_usable_is_an_error_not_a_search(tmp_path: Path, home: dict[str, str]) -> None:
    unpacked(Path(home["HOME"]) / ".terraform.d" / "plugins")
    with pytest.raises(MirrorUnusable, match=MIRROR_VARIABLE):
        find_mirror({**home, MIRROR_VARIABLE: str(tmp_path / "nowhere")})


def test_the_users_configuration_names_the_mirror(tmp_path: Path, home: dict[str, str]) -> None:
    folder = unpacked(tmp_path / "from configuration")
    file = tmp_path / "terraformrc"
    file.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{folder}"\n  }}\n}}\n')
    assert find_mirror({**home, "TF_CLI_CONFIG_FILE": str(file)}) == folder


def test_a_configuration_that_does_not_exist_is_ignored(tmp_path: Path, home: dict[str, str]) -> None:
    folder = unpacked(Path(home["HOME"]) / ".terraform.d" / "plugins")
    gone = {**home, "TF_CLI_CONFIG_FILE": str(tmp_path / "gone")}
    assert user_configuration(gone) is None
    assert find_mirror(gone) == folder


def test_the_plugin_cache_is_a_mirror(tmp_path: Path, home: dict[str, str]) -> None:
    cache = unpacked(tmp_path / "cache")
    assert find_mirror({**home, "TF_PLUGIN_CACHE_DIR": str(cache)}) == cache


def test_a_mirror_near_the_top_of_a_likely_root_is_found(tmp_path: Path, home: dict[str, str]) -> None:
    folder = unpacked(tmp_path / "opt" / "some" / "mirror")
    unpacked(tmp_path / "opt" / "an" / "old" / "one", version="4.0.0")
    assert find_mirror(home, roots=[str(tmp_path / "opt")]) == folder


def test_the_search_gives_up_below_its_depth_and_after_its_limit(tmp_path: Path, home: dict[str, str]) -> None:
    roots = [str(tmp_path / "opt")]
    unpacked(tmp_path / "opt" / "a" / "b" / "c" / "d")
    assert find_mirror(home, roots=roots) is None
    unpacked(tmp_path / "opt" / "z")
    assert find_mirror(home, roots=roots) == tmp_path / "opt" / "z"
    assert find_mirror(home, roots=roots, most_folders=1) is None
