"""An upload step by step, without a server: what is asked in which order, what is kept, and what is told."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from blockferry.aws.ebs.client import NewSnapshot, StartedSnapshot
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import EXECUTION_TAG, LINEAGE_TAG
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.checksums import Linear, digest_of
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import (
    EncryptionDiffers,
    IncompleteTransfer,
    InvalidRequest,
    RequestRefused,
    RetryLater,
    SourceChanged,
    TargetFailed,
)
from blockferry.core.holes import HoleMeaning, HolePolicy
from blockferry.core.retry import Clock
from blockferry.local import upload
from blockferry.local.tuning import UploadTuning
from blockferry.local.upload import Uploaded, upload_image
from botocore.exceptions import EndpointConnectionError
from fakes import ManualClock, content
from job_records import RECOVERY
from memory_ebs import MemoryEbs, refused
from memory_ec2 import MemoryEc2, described, refusal

PARENT = "snap-0000000a"
NEW = "snap-new"
GIB = 2**30
ZERO = b"\0" * BLOCK_SIZE


class Region(MemoryEbs):
    """EBS and EC2 of one region, whose snapshots are sealed after ``looks`` looks in the state ``ends``."""

    def __init__(self, *, encrypts: bool = False, looks: int = 0, ends: str = "completed") -> None:
        super().__init__({PARENT: {}}, region=RECOVERY)
        self.control = MemoryEc2(encrypts=encrypts)
        self.clock = ManualClock()
        self._begin = self.clock.monotonic()
        self.steps: list[str] = []
        self.new: list[NewSnapshot] = []
        self.started_ago: list[float] = []
        self.completed: list[tuple[int, str | None]] = []
        self.key: str | None = None
        self.shown_encrypted = encrypts
        self.known_at_once = True
        self.has_no_clock = False
        self.at: dict[str, Callable[[], None]] = {}
        self._looks, self._ends = looks, ends
        describe = self.control.paginate

        def looked(**asked: Any) -> Any:
            if self.completed:
                self._looks -= 1
                if self._looks < 0 and NEW in self.control.snapshots:
                    self.control.snapshots[NEW] |= {"State": self._ends, "StateMessage": "so it is"}
            if "look" in self.at:
                self.at["look"]()
            return describe(**asked)

        self.control.paginate = looked  # type: ignore[method-assign]

    # What the upload asks for clients.

    def ec2(self, identity: Identity) -> Any:
        assert identity == Identity(RECOVERY)
        return self.control

    def ebs(self, identity: Identity, *, counts: RequestCounts, clock: Any, connections: int, **_: Any) -> Any:
        assert identity == Identity(RECOVERY)
        assert clock is self.clock or (self.has_no_clock and isinstance(clock, Clock))
        assert connections == UploadTuning().threads
        self.counts = counts
        return self

    # What it asks EBS.

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.at:
            self.at[name]()

    def start_snapshot(self, new: NewSnapshot) -> StartedSnapshot:
        self._step("start")
        self.new.append(new)
        tags = dict(new.tags)
        self.snapshots[NEW] = {}
        shown = described(
            NEW, state="pending", tags=tags, Encrypted=self.shown_encrypted, VolumeSize=new.volume_size_gib
        )
        self._shown = shown
        if self.known_at_once:
            self.control.snapshots[NEW] = shown
        return StartedSnapshot(NEW, self.key)

    def was_started(self, snapshot_id: str, *, seconds_ago: float) -> None:
        self.started_ago.append(seconds_ago)

    def put_block(self, snapshot_id: str, index: int, data: bytes, digest: bytes) -> None:
        assert (snapshot_id, digest) == (NEW, digest_of(data))
        self._step("put")
        self.snapshots[NEW][index] = ZERO if data == ZERO else data

    def complete_snapshot(self, snapshot_id: str, *, changed_blocks: int, linear_checksum: str | None) -> None:
        assert snapshot_id == NEW
        self._step("complete")
        self.completed.append((changed_blocks, linear_checksum))
        self.control.snapshots[NEW] = self._shown

    def waited(self) -> float:
        return self.clock.monotonic() - self._begin

    def tags(self) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self.control.snapshots[NEW]["Tags"]}

    def has_parent(self, blocks: dict[int, bytes] | None = None, **more: Any) -> None:
        self.snapshots[PARENT] = dict(blocks or {})
        known = {"VolumeId": "vol-1", "Encrypted": False, "VolumeSize": 1}
        self.control.snapshots[PARENT] = described(PARENT, **{**known, **more})


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Data in blocks 0 and 2, zeros in 1, and nothing behind."""
    path = tmp_path / "disk.img"
    path.write_bytes(content(1) + ZERO + content(2))
    return path


def put(image: Path, region: Region, **more: Any) -> Uploaded:
    return upload_image(image, region=RECOVERY, aws=cast(Any, region), clock=region.clock, **more)


def checksum(blocks: dict[int, bytes]) -> str:
    linear = Linear()
    for index, data in sorted(blocks.items()):
        linear.add(index, digest_of(data))
    return linear.value()


def notes(caught: pytest.ExceptionInfo[BaseException]) -> str:
    return "\n".join(caught.value.__notes__)


DELETED = f"the unfinished snapshot {NEW} in {RECOVERY} is deleted"

DELETE = f"aws ec2 delete-snapshot --region {RECOVERY} --snapshot-id {NEW}"

# -- what becomes of an image ------------------------------------------------------------------------------------------


def mark_of(new: NewSnapshot) -> str:
    """By what an upload knows its own snapshot: told by the token, which nobody else has."""
    return hashlib.sha256(new.client_token.encode()).hexdigest()


def own_tags(new: NewSnapshot) -> dict[str, str]:
    """Those of an upload without a parent, which begins a chain of copies of its own."""
    mark = mark_of(new)
    return {"blockferry:holes": "zeros", EXECUTION_TAG: mark, LINEAGE_TAG: f"upload-{mark[:16]}"}


def test_an_image_is_put_sealed_marked_and_waited_for(disk: Path) -> None:
    region = Region(looks=3)
    found = put(disk, region, description="of the night", tags={"a": "1"})
    blocks = {0: content(1), 2: content(2)}
    assert region.snapshots[NEW] == blocks
    assert region.completed == [(2, checksum(blocks))]
    assert found == Uploaded(
        NEW,
        RECOVERY,
        1,
        2,
        checksum(blocks),
        None,
        HolePolicy.SKIP_ZERO,
        HoleMeaning.ZEROS,
        "default",
        found.holes_reason,
        HoleMeaning.ZEROS,
    )
    assert found.holes_reason
    (new,) = region.new
    assert (new.volume_size_gib, new.description, new.encrypted, new.parent_snapshot_id) == (
        1,
        "of the night",
        False,
        None,
    )
    assert new.tags == {"a": "1", **own_tags(new)}
    assert region.tags() == new.tags | {
        "blockferry:linear-checksum": checksum(blocks),
        "blockferry:proved-snapshot-id": NEW,
    }
    assert region.started_ago == [pytest.approx(0, abs=30)] * 2
    assert region.steps == ["start", "put", "put", "complete"]
    assert region.waited() == pytest.approx(0.2 + 0.22 + 0.242)


def test_nothing_but_image_and_region_has_to_be_named(disk: Path) -> None:
    region = Region()
    region.has_no_clock = True
    assert upload_image(disk, region=RECOVERY, aws=cast(Any, region)).blocks == 2
    assert (region.new[0].description, region.new[0].tags) == ("", own_tags(region.new[0]))


def test_every_upload_is_a_snapshot_of_its_own(disk: Path) -> None:
    regions = [Region(), Region()]
    for region in regions:
        put(disk, region)
    tokens = {region.new[0].client_token for region in regions}
    assert len(tokens) == 2
    assert all(token.isascii() and 32 <= len(token) <= 64 for token in tokens)


def test_where_the_account_encrypts_all_is_written_and_asked_for_encrypted(disk: Path) -> None:
    region = Region(encrypts=True)
    region.key = "arn:aws:kms:eu-west-1:111122223333:key/1"
    found = put(disk, region)
    assert sorted(region.snapshots[NEW]) == [0, 1, 2]
    assert (region.new[0].encrypted, found.holes, found.holes_stand_for) == (True, HolePolicy.PRESERVE, "noise")
    assert region.new[0].tags == own_tags(region.new[0]) | {"blockferry:holes": "noise"}


def test_a_default_that_is_not_known_is_not_held_against_what_came(disk: Path) -> None:
    for shown in (True, False):
        region = Region()
        region.control.errors["GetEbsEncryptionByDefault"] = refusal("UnauthorizedOperation", "x")
        region.shown_encrypted = shown
        region.key = "arn:aws:kms:eu-west-1:111122223333:key/1" if shown else None
        assert put(disk, region).blocks == 3
        assert region.new[0].encrypted is None


def test_the_choice_about_holes_is_the_operators(disk: Path) -> None:
    region = Region()
    found = put(disk, region, holes=HolePolicy.PRESERVE)
    assert (found.holes_decided_by, found.holes, sorted(region.snapshots[NEW])) == (
        "request",
        HolePolicy.PRESERVE,
        [0, 1, 2],
    )


def test_a_huge_volume_is_moved_in_stretches(tmp_path: Path) -> None:
    blocks = {0: content(1), 599: content(2), 600: content(3), 2_000: content(4)}
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        for index, data in blocks.items():
            file.seek(index * BLOCK_SIZE)
            file.write(data)
    region = Region()
    assert put(image, region, tuning=UploadTuning(stretch=600)).blocks == 4
    assert region.snapshots[NEW] == blocks
    assert region.completed == [(4, checksum(blocks))]


def test_a_warning_about_holes_is_handed_on(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockferry.local.holes.tells_extents", lambda _: False)
    found = put(disk, Region(), holes=HolePolicy.PRESERVE)
    assert [warning["code"] for warning in found.warnings] == ["unwritten_extents_unknown"]


@pytest.mark.parametrize(
    "error", [refusal("UnauthorizedOperation", "CreateTags"), EndpointConnectionError(endpoint_url="x")]
)
def test_tags_that_cannot_be_completed_are_a_warning(disk: Path, error: Exception) -> None:
    region = Region()

    def fail() -> None:
        region.control.create_tags = lambda **_: (_ for _ in ()).throw(error)  # type: ignore[method-assign]

    region.at["complete"] = fail
    (warning,) = put(disk, region).warnings
    assert warning["code"] == "not_marked_as_proved"
    assert warning["message"].startswith(f"{NEW} is good")


# -- what is refused before anything is started ------------------------------------------------------------------------


def refuses(image: Path, words: str, region: Region | None = None, **more: Any) -> None:
    region = region or Region()
    with pytest.raises(InvalidRequest, match=words):
        put(image, region, **more)
    assert region.steps == []


def test_a_description_or_tags_that_ebs_does_not_take_are_refused(disk: Path) -> None:
    refuses(disk, "description: 256 characters, EBS takes 255", description="x" * 256)
    refuses(disk, "reserved prefix", tags={"aws:x": ""})
    refuses(disk, "tags: 46 and 5 of the upload, EC2 keeps at most 50", tags={f"k{n}": "" for n in range(46)})
    most = {f"k{number}": "" for number in range(45)}
    assert put(disk, Region(), description="x" * 255, tags=most).blocks == 2


def test_a_volume_that_cannot_hold_the_image_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    for size, gib in ((1, 1), (GIB, 1), (GIB + 1, 2)):
        with image.open("wb") as file:
            file.truncate(size)
        assert put(image, Region()).volume_size_gib == gib
    assert put(image, Region(), volume_size_gib=3).volume_size_gib == 3
    refuses(image, rf"has {GIB + 1} bytes, more than a volume of 1 GiB holds", volume_size_gib=1)
    refuses(image, r"image .*disk\.img: a volume has 1 to 65536 GiB, not 0", volume_size_gib=0)


def test_an_image_in_another_format_is_refused_unless_it_is_said_to_be_raw(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    image.write_bytes(b"QFI\xfb\0\0\0\3" + b"\1" * 1_000)
    refuses(image, r"(?s)qcow2.*--format raw")
    packed = tmp_path / "disk.gz"
    packed.write_bytes(b"\x1f\x8b\x08" + b"\1" * 1_000)
    refuses(packed, "put it into S3, where `blockferry fanout` unpacks it")
    assert put(image, Region(), image_format="raw").blocks == 1


# -- parents -----------------------------------------------------------------------------------------------------------


def on_parent(disk: Path, region: Region, **more: Any) -> Uploaded:
    return put(disk, region, parent_snapshot_id=PARENT, **more)


def test_on_a_parent_only_what_differs_is_put_and_encryption_is_its_own(disk: Path) -> None:
    region = Region(encrypts=False)
    region.has_parent({0: content(1), 1: content(9), 5: content(7)}, VolumeSize=2)
    found = on_parent(disk, region)
    assert region.snapshots[NEW] == {1: ZERO, 2: content(2), 5: ZERO}
    assert (found.parent_snapshot_id, found.volume_size_gib, found.blocks) == (PARENT, 2, 3)
    assert (region.new[0].parent_snapshot_id, region.new[0].encrypted, region.new[0].volume_size_gib) == (
        PARENT,
        None,
        2,
    )
    region = Region()
    region.has_parent()
    assert on_parent(disk, region, volume_size_gib=3).volume_size_gib == 3


@pytest.mark.parametrize(
    ("volume", "tags", "name"),
    [
        ("vol-1", {}, "vol-1"),
        ("vol-ffffffff", {LINEAGE_TAG: "upload-1"}, "upload-1"),
        ("vol-ffffffff", {}, PARENT),
        ("vol-ffffffff", {LINEAGE_TAG: "vol-ffffffff"}, PARENT),
    ],
)
def test_an_upload_on_a_parent_goes_on_its_chain(disk: Path, volume: str, tags: dict[str, str], name: str) -> None:
    region = Region()
    region.has_parent(VolumeId=volume, Tags=[{"Key": key, "Value": value} for key, value in tags.items()])
    put(disk, region, parent_snapshot_id=PARENT)
    assert region.new[0].tags[LINEAGE_TAG] == name


def test_a_parent_is_not_asked_for_blocks_behind_its_end(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(2 * GIB)
        file.seek(2_048 * BLOCK_SIZE)
        file.write(content(1))
    region = Region()
    region.has_parent({3: content(2)})
    on_parent(image, region, tuning=UploadTuning(stretch=2_048))
    assert region.snapshots[NEW] == {3: ZERO, 2_048: content(1)}
    assert all(start < 2_048 for operation, _, start, _ in region.asked if operation == "ListSnapshotBlocks")


def test_zeros_fill_every_hole_of_a_parent_if_asked_for(disk: Path) -> None:
    region = Region()
    region.has_parent({0: content(1), 7: content(7), 9: ZERO})
    found = on_parent(disk, region, holes=HolePolicy.ZERO_FILL)
    assert found.holes_stand_for is HoleMeaning.NONE
    assert sorted(region.snapshots[NEW]) == [index for index in range(2_048) if index not in (0, 9)]
    assert region.snapshots[NEW][7] == ZERO


def test_a_snapshot_on_an_encrypted_parent_is_encrypted_as_it_is(disk: Path) -> None:
    for default in (False, True):
        region = Region(encrypts=default)
        region.shown_encrypted = True
        region.key = "arn:aws:kms:eu-west-1:111122223333:key/1"
        region.has_parent(Encrypted=True)
        assert sorted(region.snapshots.get(NEW, {})) == []
        on_parent(disk, region)
        assert sorted(region.snapshots[NEW]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("more", "asked", "words"),
    [
        ({"OwnerId": "444455556666"}, {}, f"parent {PARENT} in {RECOVERY} belongs to account 444455556666"),
        ({"State": "error"}, {}, f"{PARENT} in {RECOVERY} is in state error"),
        ({"VolumeSize": 3}, {"volume_size_gib": 2}, "has 3 GiB, more than the 2 GiB that were asked for"),
    ],
)
def test_a_parent_that_cannot_be_built_upon_is_refused(
    disk: Path, more: dict[str, Any], asked: dict[str, Any], words: str
) -> None:
    region = Region()
    region.has_parent(**more)
    refuses(disk, words, region, parent_snapshot_id=PARENT, **asked)


def test_a_parent_of_the_size_that_is_asked_for_is_taken(disk: Path) -> None:
    region = Region()
    region.has_parent(VolumeSize=2)
    assert on_parent(disk, region, volume_size_gib=2).volume_size_gib == 2


def test_an_unknown_or_unreadable_parent_and_an_unencrypted_one_where_all_is_encrypted_are_refused(disk: Path) -> None:
    refuses(disk, rf"parent {PARENT} in {RECOVERY}: EC2 does not know it", parent_snapshot_id=PARENT)
    region = Region(encrypts=True)
    region.has_parent()
    refuses(
        disk, rf"is not encrypted, and the account encrypts by default in {RECOVERY}", region, parent_snapshot_id=PARENT
    )
    region = Region()
    region.has_parent()
    region.errors["ListSnapshotBlocks"] = refused("AccessDeniedException")
    refuses(disk, f"{PARENT} in {RECOVERY} cannot be read", region, parent_snapshot_id=PARENT)


# -- what fails, and what is left then ---------------------------------------------------------------------------------


def fails(image: Path, region: Region, kind: type[BaseException], words: str = "^") -> str:
    with pytest.raises(kind, match=words) as caught:
        put(image, region)
    return notes(caught)


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_a_file_that_changed_before_the_start_starts_nothing(disk: Path) -> None:
    region = Region()
    asks = region.control.get_ebs_encryption_by_default

    def touched() -> Any:
        os.utime(disk, ns=(0, 0))
        return asks()

    region.control.get_ebs_encryption_by_default = touched  # type: ignore[method-assign]
    with pytest.raises(SourceChanged):
        put(disk, region)
    assert region.steps == []


def test_a_file_that_changed_while_it_was_put_is_not_sealed(disk: Path) -> None:
    region = Region()
    region.at["put"] = lambda: os.utime(disk, ns=(0, 0))
    assert fails(disk, region, SourceChanged) == DELETED
    assert "complete" not in region.steps
    assert NEW not in region.control.snapshots


@pytest.mark.parametrize("error", [RequestRefused("no"), RetryLater("later"), KeyboardInterrupt()])
def test_a_block_that_cannot_be_put_leaves_nothing(disk: Path, error: BaseException) -> None:
    region = Region()
    region.at["put"] = raising(error)
    assert fails(disk, region, type(error)) == DELETED
    assert NEW not in region.control.snapshots


def test_blocks_that_are_not_all_put_are_not_sealed(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moves = upload.move

    class Less:
        def __init__(self, moved: Any) -> None:
            self.blocks_written, self.digests = moved.blocks_written - 1, moved.digests
            self.done, self.next_index = moved.done, moved.next_index

    monkeypatch.setattr(upload, "move", lambda *given, **more: Less(moves(*given, **more)))
    assert (
        fails(disk, Region(), IncompleteTransfer, "EBS was given 1 block of 2 up to block 2048 of 2048: upload again")
        == DELETED
    )


def test_a_stretch_that_was_not_moved_to_its_end_is_not_sealed(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moves = upload.move

    class Short:
        def __init__(self, moved: Any) -> None:
            self.blocks_written, self.digests, self.done, self.next_index = 2, moved.digests, False, 7

    monkeypatch.setattr(upload, "move", lambda *given, **more: Short(moves(*given, **more)))
    assert (
        fails(disk, Region(), IncompleteTransfer, "EBS was given 2 blocks of 2 up to block 7 of 2048: upload again")
        == DELETED
    )


def test_a_snapshot_that_comes_out_with_a_key_is_not_left_without_its_zeros(disk: Path) -> None:
    region = Region()
    region.key = "arn:aws:kms:eu-west-1:111122223333:key/1"
    words = rf"target {NEW} in {RECOVERY}: no encryption was asked for, and it came out encrypted with {region.key}"
    with pytest.raises(EncryptionDiffers, match=rf"{words}.*It is empty and deleted"):
        put(disk, region)
    assert NEW not in region.control.snapshots
    assert region.steps == ["start"]


@pytest.mark.parametrize("encrypts", [True, False])
def test_encryption_that_only_ec2_shows_is_found_before_sealing(disk: Path, encrypts: bool) -> None:
    region = Region(encrypts=encrypts)
    region.shown_encrypted = not encrypts
    word = "encryption was" if encrypts else "no encryption was"
    # Without a key in the answer EC2 is asked at once where encryption is due, and else before the end.
    with pytest.raises(EncryptionDiffers, match=rf"{NEW} in {RECOVERY}: {word} asked for") as caught:
        put(disk, region)
    assert "It is empty and deleted" in str(caught.value) if encrypts else notes(caught) == DELETED
    assert NEW not in region.control.snapshots
    assert "complete" not in region.steps


def test_encryption_that_ec2_shows_at_the_end_only_is_told_and_the_snapshot_kept(disk: Path) -> None:
    region = Region()
    region.shown_encrypted, region.known_at_once = True, False
    told = fails(disk, region, EncryptionDiffers, "no encryption was asked for")
    assert told == f"{NEW} in {RECOVERY} is completed and kept: delete it with: {DELETE}"
    assert NEW in region.control.snapshots


def test_a_completion_that_was_surely_not_taken_leaves_nothing(disk: Path) -> None:
    for error in (RequestRefused("no"), RetryLater("later")):
        region = Region()
        region.at["complete"] = raising(error)
        kind = RetryLater if isinstance(error, RetryLater) else TargetFailed
        assert fails(disk, region, kind) == DELETED
        assert NEW not in region.control.snapshots


def test_a_completion_that_may_have_been_taken_keeps_the_snapshot(disk: Path) -> None:
    for error in (KeyboardInterrupt(), RetryLater("later")):
        region = Region()

        def fail(region: Region = region, error: BaseException = error) -> None:
            region.counts.retried("CompleteSnapshot", "InternalServerException")
            raise error

        region.at["complete"] = fail
        told = fails(disk, region, type(error))
        assert told.startswith(f"{NEW} in {RECOVERY} is kept: EBS was asked to seal it")
        assert NEW in region.control.snapshots


@pytest.mark.parametrize(
    "error", [refusal("UnauthorizedOperation", "DeleteSnapshot"), EndpointConnectionError(endpoint_url="x")]
)
def test_a_snapshot_that_cannot_be_deleted_is_named(disk: Path, error: Exception) -> None:
    region = Region()
    region.at["put"] = raising(RequestRefused("no"))
    region.control.errors["DeleteSnapshot"] = error
    told = fails(disk, region, RequestRefused)
    assert told.startswith(f"the unfinished snapshot {NEW} in {RECOVERY} could not be deleted: ")


def test_a_snapshot_that_ebs_finds_fault_with_after_it_was_proved_is_kept_and_named(disk: Path) -> None:
    region = Region(looks=2, ends="error")
    words = rf"{NEW} in {RECOVERY} is in state error, not completed: so it is"
    assert fails(disk, region, TargetFailed, words).startswith(f"{NEW} in {RECOVERY} is kept: EBS took its checksum")
    assert region.waited() == pytest.approx(0.2 + 0.22)
    assert NEW in region.control.snapshots


def test_one_that_is_sealed_for_too_long_is_kept(disk: Path) -> None:
    region = Region(looks=10_000)
    told = fails(disk, region, TargetFailed, f"{NEW} in {RECOVERY} is not completed 3600 s after .*still pending")
    assert "is kept: EBS was asked to seal it" in told
    assert (
        UploadTuning().seal_seconds <= region.waited() <= UploadTuning().seal_seconds + 2 * UploadTuning().poll_seconds
    )


# -- what was just made ------------------------------------------------------------------------------------------------


def until(region: Region, seconds: float, then: Callable[[], None]) -> Callable[[], None]:
    """A look that does this for so long after the completion."""

    def look() -> None:
        if region.completed and region.waited() < seconds:
            then()

    return look


def test_a_parent_that_was_uploaded_a_moment_ago_is_waited_for(disk: Path) -> None:
    region = Region()
    region.has_parent()
    shown = region.control.snapshots.pop(PARENT)

    def show_after_a_while() -> None:
        if region.waited() >= 3:
            region.control.snapshots[PARENT] = shown

    region.at["look"] = show_after_a_while
    assert put(disk, region, parent_snapshot_id=PARENT).parent_snapshot_id == PARENT


def test_ec2_may_not_know_a_completed_upload_for_a_while(disk: Path) -> None:
    region = Region()
    shown: list[Any] = []

    def hide() -> None:
        shown.extend(found for found in [region.control.snapshots.pop(NEW, None)] if found)

    def show_after_a_while() -> None:
        if region.completed and region.waited() < 20:
            hide()
        elif region.completed and NEW not in region.control.snapshots:
            region.control.snapshots[NEW] = {**shown[-1], "State": "completed"}

    region.at["look"] = show_after_a_while
    assert put(disk, region).snapshot_id == NEW
    assert 20 <= region.waited() < 30


@pytest.mark.parametrize(
    "error", [refusal("RequestLimitExceeded", "DescribeSnapshots"), EndpointConnectionError(endpoint_url="x")]
)
def test_looks_that_fail_after_the_completion_are_waited_out(disk: Path, error: Exception) -> None:
    region = Region()
    region.at["look"] = until(region, 60, raising(error))
    assert put(disk, region).snapshot_id == NEW
    assert 60 <= region.waited() < 65


def test_looks_that_fail_before_the_completion_cost_no_upload(disk: Path) -> None:
    region = Region()
    throttled = [refusal("RequestLimitExceeded", "DescribeSnapshots")] * 3

    def look() -> None:
        if throttled:
            raise throttled.pop()

    region.at["look"] = look
    assert put(disk, region).blocks == 2
    assert region.steps == ["start", "put", "put", "complete"]


def test_an_upload_of_which_nobody_may_know_the_end_is_named(disk: Path) -> None:
    region = Region()
    region.at["look"] = until(region, 10, raising(refusal("UnauthorizedOperation", "DescribeSnapshots")))
    told = fails(disk, region, RequestRefused, "DescribeSnapshots: UnauthorizedOperation")
    assert told.startswith(f"{NEW} in {RECOVERY} is kept: EBS has taken all of it and seals it. It holds the whole")
    assert NEW in region.control.snapshots


def test_an_upload_that_cannot_be_looked_at_for_an_hour_is_named_with_the_reason(disk: Path) -> None:
    region = Region()
    throttled = refusal("RequestLimitExceeded", "DescribeSnapshots", message="slower")
    region.at["look"] = until(region, 1e9, raising(throttled))
    told = fails(
        disk,
        region,
        TargetFailed,
        f"{NEW} in {RECOVERY} is not completed 3600 s after EBS took all of it: DescribeSnapshots: "
        "RequestLimitExceeded: slower",
    )
    assert NEW in told
    assert NEW in region.control.snapshots


def test_an_upload_that_somebody_deletes_after_its_completion_is_not_waited_for_an_hour(disk: Path) -> None:
    region = Region(looks=10_000)
    region.at["look"] = until(region, 1e9, lambda: region.control.snapshots.clear())
    fails(disk, region, TargetFailed, f"{NEW} in {RECOVERY}: EC2 has not known it for 300 s: somebody deleted it")
    assert 300 <= region.waited() < 400


def test_tags_that_ec2_could_not_take_before_it_knew_the_snapshot_are_set_when_it_does(disk: Path) -> None:
    region = Region(looks=2)
    region.control.errors["CreateTags"] = refusal("InvalidSnapshot.NotFound", "CreateTags")
    region.at["look"] = until(region, 1e9, lambda: region.control.errors.clear())
    assert put(disk, region).warnings == ()
    assert region.tags()["blockferry:proved-snapshot-id"] == NEW


def test_an_interruption_while_ebs_seals_keeps_the_snapshot_and_says_what_it_is_worth(disk: Path) -> None:
    region = Region(looks=3)
    region.at["look"] = until(region, 1e9, raising(KeyboardInterrupt()))
    told = fails(disk, region, KeyboardInterrupt)
    assert told.startswith(f"{NEW} in {RECOVERY} is kept: EBS has taken all of it and seals it")
    assert NEW in region.control.snapshots


# -- a start of which nobody heard -------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RetryLater("no answer")])
def test_a_snapshot_whose_start_was_not_answered_is_found_by_its_mark_and_deleted(
    disk: Path, error: BaseException
) -> None:
    region = Region()
    start = region.start_snapshot

    def unanswered(new: NewSnapshot) -> StartedSnapshot:
        start(new)
        raise error

    region.start_snapshot = unanswered  # type: ignore[method-assign]
    assert fails(disk, region, type(error)) == DELETED
    assert region.control.snapshots == {}


def test_a_start_that_was_not_answered_and_cannot_be_found_says_how_to_look_for_it(disk: Path) -> None:
    region = Region()
    region.at["start"] = raising(RetryLater("no answer"))
    told = fails(disk, region, RetryLater)
    assert told.startswith("EC2 shows no snapshot of it; if one was started after all, it is found with: aws ec2 ")
    assert f"--filters Name=tag:{EXECUTION_TAG},Values=" in told
    assert region.waited() == 18


def test_a_start_that_was_refused_leaves_nothing_to_look_for(disk: Path) -> None:
    region = Region()
    region.at["start"] = raising(RequestRefused("StartSnapshot: no"))
    with pytest.raises(RequestRefused) as caught:
        put(disk, region)
    assert not hasattr(caught.value, "__notes__")


# -- clean-up ----------------------------------------------------------------------------------------------------------


def test_a_deletion_that_is_throttled_is_tried_again(disk: Path) -> None:
    region = Region()
    region.at["put"] = raising(RequestRefused("no"))
    delete, throttled = region.control.delete_snapshot, [refusal("RequestLimitExceeded", "DeleteSnapshot")] * 2

    def deleted(*, SnapshotId: str) -> None:
        if throttled:
            raise throttled.pop()
        delete(SnapshotId=SnapshotId)

    region.control.delete_snapshot = deleted  # type: ignore[method-assign]
    assert fails(disk, region, RequestRefused) == DELETED
    assert region.control.snapshots == {}


def test_a_snapshot_that_ec2_does_not_know_yet_is_not_called_deleted(disk: Path) -> None:
    region = Region()
    region.known_at_once = False
    region.at["put"] = raising(RequestRefused("no"))
    told = fails(disk, region, RequestRefused)
    assert told == (
        f"the unfinished snapshot {NEW} in {RECOVERY} could not be deleted: EC2 does not know {NEW} in {RECOVERY}, "
        f"which was started a moment ago; delete it with: {DELETE}"
    )


def test_whatever_goes_wrong_in_the_clean_up_does_not_take_the_place_of_the_error(disk: Path) -> None:
    region = Region()
    region.at["put"] = raising(RequestRefused("first"))
    region.at["look"] = raising(ValueError("planted"))
    told = fails(disk, region, RequestRefused, "first")
    assert told.startswith(f"the unfinished snapshot {NEW} in {RECOVERY} could not be deleted: planted")
