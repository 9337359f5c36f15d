"""What a job is about: source, targets, size, tags and what is done about holes, from the request alone."""

from __future__ import annotations

import gzip
import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import InvalidRequest
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.workspace import Workspace
from blockferry.operations import pairing_of
from blockferry.sources.delta import JobDelta
from blockferry.sources.image import JobImage, Unpacked, volume_size
from blockferry.sources.snapshot import JobSnapshot
from blockferry.sources.unpack import MARKER, UnpackedInfo
from blockferry.targets.full import FullSnapshot
from blockferry.targets.on_parent import SnapshotOnParent
from blockferry.transfer.pairing import Subject
from job_records import HOME, RECOVERY, THIRD, image
from memory_ebs import MemoryEbs, refused
from memory_ec2 import MemoryEc2, described, refusal
from memory_s3 import MemoryS3

SNAPSHOT, BASE, PARENT = "snap-00000000", "snap-0000000b", "snap-0000000a"
OWN = "111122223333"
ROLE = "arn:aws:iam::444455556666:role/writer"
URI = "s3://images/disk.img"
GIB = 2**30


class Cloud:
    """Regions, one reader's direct APIs, and one object in S3; ``asked`` are the identities that EC2 was asked as."""

    own_region = HOME

    def __init__(self, *snapshots: Any, body: bytes = b"\1" * 100, size: int | None = None) -> None:
        self.regions = {region: MemoryEc2() for region in (HOME, RECOVERY, THIRD)}
        self.regions[HOME].snapshots = {shown["SnapshotId"]: shown for shown in snapshots}
        self.direct = MemoryEbs({SNAPSHOT: {}, BASE: {}, PARENT: {}})
        self.defaults: list[Identity] = []
        self.readers: list[Identity] = []
        self.counts = RequestCounts()
        self._body = body
        self._head = {"ContentLength": size or len(body), "ETag": '"e"'}

    def ec2(self, identity: Identity) -> Any:
        client: Any = self.regions[identity.region]
        known = [{"RegionName": name} for name in self.regions]
        asks = type(client).get_ebs_encryption_by_default

        def default() -> Any:
            self.defaults.append(identity)
            return asks(client)

        client.describe_regions = lambda **_: {"Regions": known}
        client.get_ebs_encryption_by_default = default
        return client

    def ebs(self, identity: Identity, *, counts: RequestCounts, **_: Any) -> Any:
        self.readers.append(identity)
        return self.direct

    def image_s3(self, identity: Identity) -> Any:
        self.readers.append(identity)
        return SimpleNamespace(
            head_object=lambda **_: self._head, get_object=lambda **_: {**self._head, "Body": io.BytesIO(self._body)}
        )


def shown(snapshot_id: str = SNAPSHOT, **more: Any) -> Any:
    return described(snapshot_id, **{"VolumeId": "vol-1", "Encrypted": False, "Description": "nightly", **more})


def about(operation: str, data: dict[str, Any], cloud: Cloud, workspace: Workspace | None = None) -> Subject:
    workspace = workspace or Workspace("work", cast(Any, MemoryS3()))
    call = JobCall(aws=cast(Any, cloud), folder=workspace.folder(operation, "job-1"), counts=cloud.counts)
    return pairing_of(operation).subject(data, execution(operation), call)


def execution(operation: str) -> Execution:
    return Execution(f"arn:aws:states:{HOME}:{OWN}:execution:blockferry-{operation}:job-1")


def full(found: Subject) -> list[FullSnapshot]:
    targets = [target for target in found.targets if isinstance(target, FullSnapshot)]
    assert len(targets) == len(found.targets)
    return targets


def to(region: str = RECOVERY, **more: Any) -> dict[str, Any]:
    return {"region": region, **more}


def copy(*targets: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"snapshot_id": SNAPSHOT, "targets": list(targets or (to(),)), **more}


def fanout(*targets: dict[str, Any], uri: str = URI, **more: Any) -> dict[str, Any]:
    return {"image_uri": uri, "targets": list(targets or (to(),)), **more}


# -- regions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (copy(to(), to("xx-moon-1")), r"targets\[1\]\.region"),
        (copy(to(), source={"region": "xx-moon-1"}), r"source\.region"),
    ],
)
def test_every_region_is_looked_at(data: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^{field}: region xx-moon-1 is unknown"):
        about("copy", data, Cloud(shown()))


def test_an_input_that_is_no_request_is_refused_by_its_operation() -> None:
    with pytest.raises(InvalidRequest, match="sync"):
        about("sync", {"snapshot_id": 1}, Cloud())


# -- snapshots ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["copy", "fanout"])
def test_a_copy_has_the_size_tags_and_description_of_its_source(operation: str) -> None:
    cloud = Cloud(shown(VolumeSize=3, Tags=[{"Key": "a", "Value": "1"}]))
    found = about(operation, copy(to(), to(THIRD, tags={"a": "2"}, description="mine"), lineage="db"), cloud)
    assert isinstance(found.source, JobSnapshot)
    assert (found.source.snapshot_id, found.source.lineage_name) == (SNAPSHOT, "db")
    assert (found.total_blocks, found.compared) == (3 * 2_048, False)
    own = {
        "blockferry:job-id": "job-1",
        "blockferry:execution": execution(operation).mark,
        "blockferry:source-snapshot-id": SNAPSHOT,
        "blockferry:source-region": HOME,
        "blockferry:lineage": "db",
        "blockferry:holes": "noise",
    }
    assert [(t.region, t.size_gib, t.description, t.tags) for t in found.targets] == [
        (RECOVERY, 3, "nightly", own | {"a": "1"}),
        (THIRD, 3, "mine", own | {"a": "2"}),
    ]
    assert cloud.readers == [Identity(HOME)]


def test_a_source_is_read_where_and_as_whom_it_is_said() -> None:
    cloud = Cloud()
    cloud.regions[THIRD].snapshots[SNAPSHOT] = shown()
    found = about("copy", copy(source={"region": THIRD, "role_arn": ROLE}), cloud)
    assert cloud.readers == [Identity(THIRD, ROLE)]
    assert isinstance(found.source, JobSnapshot)
    assert found.source.identity == Identity(THIRD, ROLE)


def test_a_snapshot_that_cannot_be_read_is_refused() -> None:
    cloud = Cloud(shown(), shown(BASE))
    cloud.direct.errors["ListSnapshotBlocks"] = refused("AccessDeniedException")
    for operation, data in (("copy", copy()), ("sync", sync())):
        with pytest.raises(InvalidRequest, match=rf"{SNAPSHOT} in us-east-1 cannot be read"):
            about(operation, data, cloud)


def test_the_default_of_each_place_is_asked_for_once() -> None:
    cloud = Cloud(shown())
    cloud.regions[THIRD].encrypts = True
    key = f"arn:aws:kms:{RECOVERY}:111122223333:key/11111111-2222-3333-4444-555555555555"
    targets = [to(), to(THIRD), to(role_arn=ROLE), to(encrypted=True), to(encrypted=False), to(kms_key_arn=key)]
    found = about("fanout", fanout(*targets), cloud)
    assert [target.encrypted for target in full(found)] == [False, True, False, True, False, None]
    assert cloud.defaults == [Identity(RECOVERY), Identity(THIRD), Identity(RECOVERY, ROLE)]


def test_the_copy_of_an_encrypted_snapshot_is_encrypted() -> None:
    found = about("copy", copy(), Cloud(shown(Encrypted=True)))
    assert [target.encrypted for target in full(found)] == [True]


SKIP = {"options": {"holes": "skip_zero"}}


def test_zeros_are_left_out_where_no_target_is_encrypted() -> None:
    for operation, data in (("copy", copy(**SKIP)), ("fanout", fanout(**SKIP))):
        found = about(operation, data, Cloud(shown()))
        assert str(found.holes.policy) == "skip_zero"
        assert found.targets[0].tags["blockferry:holes"] == "zeros"


def test_leaving_zeros_out_of_an_encrypted_snapshot_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=rf"skip_zero is not safe: {SNAPSHOT} is encrypted"):
        about("copy", copy(to(encrypted=False), **SKIP), Cloud(shown(Encrypted=True)))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("operation", ["copy", "fanout"])
def test_leaving_zeros_out_is_refused_for_a_target_that_may_be_encrypted(operation: str, known: bool) -> None:
    cloud = Cloud(shown())
    cloud.regions[THIRD].encrypts = True
    if not known:
        cloud.regions[THIRD].errors["GetEbsEncryptionByDefault"] = refusal("UnauthorizedOperation", "x")
    data = (copy if operation == "copy" else fanout)(to(), to(THIRD), **SKIP)
    with pytest.raises(InvalidRequest, match=rf"skip_zero is not safe for targets\[1\]: .* in {THIRD}"):
        about(operation, data, cloud)


@pytest.mark.parametrize(("encrypted", "policy"), [(False, "preserve"), (True, "zero_fill")])
def test_zeros_that_a_source_lacks_are_written_if_any_target_is_encrypted(encrypted: bool, policy: str) -> None:
    lacking = shown(VolumeId="vol-ffffffff", Tags=[{"Key": "blockferry:holes", "Value": "zeros"}])
    found = about("copy", copy(to(encrypted=False), to(THIRD, encrypted=encrypted)), Cloud(lacking))
    assert str(found.holes.policy) == policy
    assert {target.tags["blockferry:holes"] for target in found.targets} == {"none" if encrypted else "zeros"}


# -- deltas ------------------------------------------------------------------------------------------------------------


def sync(**options: Any) -> dict[str, Any]:
    parents = [to(parent_snapshot_id=PARENT), to(THIRD, parent_snapshot_id=PARENT)]
    return {"snapshot_id": SNAPSHOT, "base_snapshot_id": BASE, "targets": parents, "options": options, "lineage": "db"}


@pytest.mark.parametrize("verify", [True, False])
def test_a_sync_is_as_long_as_its_largest_parent_and_knows_its_base(verify: bool) -> None:
    cloud = Cloud(shown(VolumeSize=2), shown(BASE))
    marks = {"source-snapshot-id": BASE, "source-region": HOME, "proved-snapshot-id": PARENT, "lineage": "db"}
    tags = {f"blockferry:{key}": value for key, value in marks.items()}
    tags |= {"blockferry:job-id": "j", "blockferry:linear-checksum": "c", "blockferry:holes": "noise"}
    for region, size in ((RECOVERY, 5), (THIRD, 2)):
        parent = described(PARENT, tags=tags, VolumeId="vol-ffffffff", VolumeSize=size, Encrypted=False, Description="")
        cloud.regions[region].snapshots[PARENT] = parent
    found = about("sync", sync(verify_parent=verify), cloud)
    assert isinstance(found.source, JobDelta)
    assert (found.source.base.snapshot_id, found.source.lineage_name) == (BASE, "db")
    targets = [target for target in found.targets if isinstance(target, SnapshotOnParent)]
    assert [(target.size_gib, target.parent_size_gib) for target in targets] == [(5, 5), (2, 2)]
    assert (found.total_blocks, found.compared) == (5 * 2_048, verify)
    assert {target.tags["blockferry:job-id"] for target in found.targets} == {"job-1"}
    assert [target.parent_snapshot_id for target in targets] == [PARENT, PARENT]


# -- images ------------------------------------------------------------------------------------------------------------


def test_a_raw_image_is_read_as_it_is() -> None:
    cloud = Cloud(size=GIB + 1)
    found = about("fanout", fanout(to(tags={"a": "1"})), cloud)
    assert found.source == image(uri=URI, etag='"e"', raw_bytes=GIB + 1)
    assert found.total_blocks == 2 * 2_048
    (target,) = found.targets
    assert (target.size_gib, target.description) == (2, URI)
    assert target.tags == {
        "a": "1",
        "blockferry:job-id": "job-1",
        "blockferry:execution": execution("fanout").mark,
        "blockferry:source-image": URI,
        "blockferry:holes": "zeros",
    }
    assert cloud.readers == [Identity(HOME)]


def test_a_long_address_is_cut_for_tag_and_description() -> None:
    uri = "s3://images/" + "x" * 300
    (target,) = about("fanout", fanout(uri=uri), Cloud()).targets
    assert target.tags["blockferry:source-image"] == target.description == uri[:255]


@pytest.mark.parametrize(
    ("size", "asked", "encrypted", "left"),
    [
        (GIB, None, True, "none"),
        (GIB - 1, None, True, "none"),
        (GIB - BLOCK_SIZE, None, True, "noise"),
        (GIB, 2, True, "noise"),
        (GIB, None, False, "zeros"),
    ],
)
def test_what_holes_stand_for_behind_the_end_of_an_image(
    size: int, asked: int | None, encrypted: bool, left: str
) -> None:
    data = fanout(to(encrypted=encrypted), volume_size_gib=asked)
    (target,) = about("fanout", data, Cloud(size=size)).targets
    assert target.tags["blockferry:holes"] == left


def test_a_volume_holds_its_image() -> None:
    assert [volume_size(image(raw_bytes=size), None) for size in (1, GIB, GIB + 1)] == [1, 1, 2]
    assert volume_size(image(raw_bytes=GIB + 1), 2) == 2
    assert volume_size(image(raw_bytes=1), 7) == 7
    with pytest.raises(InvalidRequest, match=r"volume_size_gib: 1 GiB is too small for image .*; 2 GiB are needed"):
        volume_size(image(raw_bytes=GIB + 1), 1)
    assert volume_size(image(raw_bytes=65_536 * GIB), None) == 65_536
    with pytest.raises(InvalidRequest, match="more than the largest volume"):
        volume_size(image(raw_bytes=65_536 * GIB + 1), None)


PACKED = "s3://images/disk.img.gz"


def packed() -> Cloud:
    return Cloud(body=gzip.compress(b"\1" * 600))


def unpacked(**more: Any) -> Workspace:
    workspace = Workspace("work", cast(Any, MemoryS3()))
    known: dict[str, Any] = {"raw_bytes": GIB + 5, "chunks": 1, "etag": '"e"', "codec": "gzip"}
    info = UnpackedInfo(**{**known, "requests": {"GetObject": 3}, "gb_seconds": 2.5, **more})
    workspace.folder("fanout", "job-1").write(MARKER, info.model_dump_json().encode())
    return workspace


def test_a_compressed_image_has_no_size_before_it_is_unpacked() -> None:
    found = about("fanout", fanout(uri=PACKED, volume_size_gib=3), packed())
    assert isinstance(found.source, JobImage)
    assert (found.source.codec, found.source.prepared, found.source.unpacked) == ("gzip", False, None)
    assert (found.total_blocks, found.targets[0].size_gib) == (None, None)
    (target,) = about("fanout", fanout(to(encrypted=True), uri=PACKED), packed()).targets
    assert target.tags["blockferry:holes"] == "noise"


def test_one_that_is_unpacked_has_the_size_of_what_came_out() -> None:
    found = about("fanout", fanout(uri=PACKED), packed(), unpacked())
    assert isinstance(found.source, JobImage)
    assert (found.source.raw_bytes, found.total_blocks, found.targets[0].size_gib) == (GIB + 5, 2 * 2_048, 2)
    assert found.source.unpacked == Unpacked(raw_bytes=GIB + 5, requests={"GetObject": 3}, gb_seconds=2.5)


def test_one_that_was_replaced_after_it_was_unpacked_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=rf"image {PACKED} was replaced after it was unpacked"):
        about("fanout", fanout(uri=PACKED), packed(), unpacked(etag='"f"'))


@pytest.mark.parametrize(
    ("more", "codec", "believed"),
    [({"image_codec": "raw"}, "raw", True), ({"image_format": "raw"}, "gzip", True), ({}, "gzip", False)],
)
def test_what_the_operator_says_of_an_image_is_on_record(more: dict[str, Any], codec: str, believed: bool) -> None:
    found = about("fanout", fanout(uri=PACKED, **more), packed())
    assert isinstance(found.source, JobImage)
    assert (found.source.codec, found.source.believed_raw) == (codec, believed)


def test_an_image_is_read_where_and_as_whom_it_is_said() -> None:
    cloud = Cloud()
    found = about("fanout", fanout(source={"region": THIRD, "role_arn": ROLE, "external_id": "id"}), cloud)
    assert cloud.readers == [Identity(THIRD, ROLE, "id")]
    assert isinstance(found.source, JobImage)
    assert found.source.identity == Identity(THIRD, ROLE, "id")
