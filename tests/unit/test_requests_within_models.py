"""What jobs send stays within the services' models, whatever inputs, sources and names there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blockferry.aws.ebs.client import EbsDirect, NewSnapshot
from blockferry.aws.ebs.transport import Answer
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.errors import InvalidRequest
from blockferry.local.upload import upload_image
from blockferry.requests.copy import CopyRequest
from blockferry.requests.parts import parse
from fakes import ManualClock, content
from localcloud.request_model.patterns import compiled
from model_requests import service_model
from rig import HOME, RECOVERY, Rig, hashes, running_rig, session
from sent_requests import SentRequests

LONGEST_TAG = ("k" * 128, "v" * 256)
"""As EC2 keeps them; StartSnapshot takes one character less of each."""


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


def copy_of(snapshot_id: str, **target: Any) -> dict[str, Any]:
    return {"snapshot_id": snapshot_id, "targets": [{"region": RECOVERY, **target}]}


class Kept:
    """A transport that keeps the bodies."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    def send(self, method: str, path: str, *, body: bytes | None, **_: Any) -> Answer:
        self.bodies.append(json.loads(body or b"{}"))
        return Answer(201, {}, b'{"SnapshotId": "snap-0123"}')


@pytest.mark.parametrize(("description", "sent"), [("", {}), ("a", {"Description": "a"})])
def test_a_description_is_sent_only_if_there_is_one(description: str, sent: dict[str, str]) -> None:
    transport = Kept()
    ebs = EbsDirect(transport, region=HOME, clock=ManualClock())
    ebs.start_snapshot(NewSnapshot(1, "token", description, {}))
    assert {name: value for name, value in transport.bodies[0].items() if name == "Description"} == sent


@pytest.mark.parametrize("target", [{}, {"description": ""}])
def test_a_source_without_a_description_is_copied(rig: Rig, target: dict[str, str]) -> None:
    blocks = {0: content(1), 70: content(2)}
    receipt = rig.copy(copy_of(rig.snapshot(blocks), **target))
    copy = receipt["targets"][0]["snapshot_id"]
    assert rig.held(copy) == hashes(blocks)
    assert rig.facts(copy)["description"] == ""


def test_an_upload_without_a_description_makes_a_snapshot(rig: Rig, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(content(1))
    made = upload_image(image, region=HOME, aws=rig.aws)
    assert rig.held(made.snapshot_id) == hashes({0: content(1)})


def test_tags_longer_than_startsnapshot_takes_reach_the_copy_all_the_same(rig: Rig) -> None:
    source = rig.snapshot({0: content(1)}, Tags=[{"Key": "Name", "Value": "disk"}])
    key, value = LONGEST_TAG
    rig.client("ec2").create_tags(Resources=[source], Tags=[{"Key": key, "Value": value}])
    receipt = rig.copy(copy_of(source))
    tags = rig.facts(receipt["targets"][0]["snapshot_id"])["tags"]
    assert (tags["Name"], tags[key]) == ("disk", value)


def test_an_upload_with_too_long_a_description_is_refused_before_anything_is_started(rig: Rig, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(content(1))
    with pytest.raises(InvalidRequest, match="description: 256 characters, EBS takes 255"):
        upload_image(image, region=HOME, aws=rig.aws, description="x" * 256)
    assert rig.snapshots() == []


@pytest.mark.parametrize("external_id", ["a", "with space", "ümlaut", "x" * 1225])
def test_an_external_id_that_sts_refuses_is_refused_with_the_field(external_id: str) -> None:
    role = "arn:aws:iam::123456789012:role/far-side"
    wanted = copy_of("snap-0123456789abcdef0", role_arn=role, external_id=external_id)
    with pytest.raises(InvalidRequest, match=r"targets\[0\].external_id"):
        parse(CopyRequest, wanted, what="copy")


@pytest.mark.parametrize("job_id", ["nightly", "kopie-größe-1", "日本", "x" * 80])
def test_every_name_of_an_execution_gives_a_session_name_that_sts_takes(rig: Rig, job_id: str) -> None:
    aws = Aws(job_id=job_id, base=session())
    role = "arn:aws:iam::123456789012:role/far-side"
    named: list[str] = []

    def note(params: dict[str, str], **_: Any) -> None:
        named.append(params["RoleSessionName"])

    aws.base.events.register("before-parameter-build.sts.AssumeRole", note)
    aws.image_s3(Identity(HOME, role)).list_buckets()
    shape = service_model("sts").shape_for("roleSessionNameType")
    pattern = compiled(shape.metadata["pattern"])
    assert pattern is not None
    assert all(pattern.fullmatch(name) and 2 <= len(name) <= 64 for name in named)
    assert len(set(named)) == 1


def test_a_request_that_moto_takes_and_s3_does_not_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = SentRequests()
    sent.watch(monkeypatch)
    s3 = session().client("s3", aws_access_key_id="111122223333", aws_secret_access_key="local")
    with pytest.raises(AssertionError, match=r"s3 PutObject: Value 'WARM' at 'storageClass'"):
        s3.put_object(Bucket="bucket", Key="k", Body=b"x", StorageClass="WARM")
    assert len(sent.refused) == 1
