"""One local cloud with the Terraform root applied, for every test here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cloud_rig import CloudRig
from localcloud.lifecycle import down, terraform_of, terraform_variables, up
from localcloud.lifecycle import info as cloud_info
from localcloud.state import CloudDirectory
from tools.build import build, local_architecture, local_runtime


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.cloud)


WAIT_SCALE = 0.05

REUSE = "BLOCKFERRY_TESTS_USE_CLOUD"
"""Set to 1 to test against the checkout's own cloud (``scripts/cloud up``) and leave it up: quicker."""


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> CloudDirectory:
    """Beside the checkout's own cloud, which a developer may be using."""
    if os.environ.get(REUSE) == "1":
        return CloudDirectory.default()
    return CloudDirectory(tmp_path_factory.mktemp("cloud"))


@pytest.fixture(scope="session")
def cloud(directory: CloudDirectory) -> Iterator[CloudRig]:
    was_up = cloud_info(directory) is not None
    info = up(directory=directory)
    patch = pytest.MonkeyPatch()
    try:
        for name, value in info.environment().items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        rig = CloudRig(info)
        # Waits of state machines and pauses before their retries pass quicker; nothing else does.
        rig.control("states", {"wait_scale": WAIT_SCALE})
        yield rig
        rig.control("states", {"wait_scale": 1.0})
    finally:
        try:
            if not was_up:
                assert_destroyed(CloudRig(info), directory)
        finally:
            patch.undo()
            if not was_up:
                down(directory=directory)


def assert_destroyed(rig: CloudRig, directory: CloudDirectory) -> None:
    """Terraform can take away what it made, however much the tests have used it."""
    artifacts = build(runtime=local_runtime(), architecture=local_architecture())
    terraform_of(directory, rig.info).destroy(terraform_variables(rig.info, artifacts))
    for region in rig.info.regions:
        assert rig.client("lambda", region).list_functions()["Functions"] == []
        assert rig.client("stepfunctions", region).list_state_machines()["stateMachines"] == []
        assert rig.client("scheduler", region).list_schedules()["Schedules"] == []
    assert rig.client("s3").list_buckets()["Buckets"] == []


@pytest.fixture(autouse=True)
def no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "cloud" in request.fixturenames:
        rig: CloudRig = request.getfixturevalue("cloud")
        rig.clear_faults()
