"""The conformance suite against the EBS part of the local cloud."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from botocore.config import Config
from ebs_conformance import CHANGED, FULL, EbsConformance, Place, block
from localcloud.ebs.testing import running_server

from .ebs_clients import client


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with running_server({"quotas_enabled": False}) as server:

        def pause(seconds: float) -> None:
            server.service.clock.advance(seconds)
            server.service.tick()

        unchecked = client(server, "ebs", config=Config(parameter_validation=False))
        found = Place(client(server, "ebs"), client(server, "ec2"), "local", pause, unchecked)
        yield found
        assert found.sweep() == []


@pytest.fixture(scope="module")
def full(place: Place) -> str:
    return place.snapshot(FULL)


@pytest.fixture(scope="module")
def child(place: Place, full: str) -> str:
    return place.snapshot(CHANGED, ParentSnapshotId=full)


@pytest.fixture(scope="module")
def stranger(place: Place) -> str:
    return place.snapshot({0: block(7)})


class TestLocalCloud(EbsConformance):
    """Every behaviour of the suite."""
