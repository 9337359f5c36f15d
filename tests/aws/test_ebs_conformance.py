"""The conformance suite against a real account: README.md of this folder."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config
from ebs_conformance import CHANGED, FULL, EbsConformance, Place, block

from .conftest import REGION


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    session = boto3.Session(region_name=os.environ[REGION])
    patient = Config(retries={"mode": "standard", "total_max_attempts": 8})
    found = Place(
        session.client("ebs", config=patient),
        session.client("ec2", config=patient),
        f"run-{uuid.uuid4().hex[:12]}",
        time.sleep,
        session.client("ebs", config=patient.merge(Config(parameter_validation=False))),
    )
    try:
        yield found
    finally:
        left = found.sweep()
        assert not left, f"delete these snapshots of {found.run_id} by hand: {', '.join(left)}"


@pytest.fixture(scope="session")
def full(place: Place) -> str:
    return place.snapshot(FULL)


@pytest.fixture(scope="session")
def child(place: Place, full: str) -> str:
    return place.snapshot(CHANGED, ParentSnapshotId=full)


@pytest.fixture(scope="session")
def stranger(place: Place) -> str:
    return place.snapshot({0: block(7)})


class TestAws(EbsConformance):
    """Every behaviour of the suite."""
