"""Does a target have the encryption that was asked for? All that may be asked, against all that may come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws import snapshots
from blockferry.aws.call import Call
from blockferry.aws.ebs.client import StartedSnapshot
from blockferry.core.errors import EncryptionDiffers
from blockferry.targets.on_parent import SnapshotOnParent
from blockferry.targets.snapshot import SnapshotTarget
from fakes import ManualClock
from job_records import EXECUTION, RECOVERY, on_parent, target
from memory_ec2 import MemoryEc2, described

KEY = f"arn:aws:kms:{RECOVERY}:111122223333:key/11111111-2222-3333-4444-555555555555"
KEY_ID = KEY.rsplit("/", 1)[-1]
OTHER = f"arn:aws:kms:{RECOVERY}:444455556666:key/{KEY_ID}"


def on(*, encrypted: bool, kms_key_arn: str | None = None) -> SnapshotOnParent:
    """A target on top of a parent that is encrypted so."""
    return on_parent("snap-2", parent_encrypted=encrypted, parent_kms_key_arn=kms_key_arn)


@pytest.mark.parametrize(
    ("asked", "encrypted", "key"),
    [
        (target(), False, None),
        (target(), True, KEY),  # the account's default
        (target(encrypted=False), False, None),
        (target(encrypted=True), True, OTHER),
        (target(encrypted=True), True, None),
        (target(kms_key_arn=KEY), True, KEY),
        (target(kms_key_arn=KEY), True, KEY_ID),
        (target(encrypted=True, kms_key_arn=KEY), True, KEY),
        (on(encrypted=True, kms_key_arn=KEY), True, KEY),
        (on(encrypted=True), True, OTHER),
        (on(encrypted=False), False, None),
        (on(encrypted=False, kms_key_arn=KEY), False, None),
    ],
)
def test_what_was_asked_for_is_taken(asked: SnapshotTarget, encrypted: bool, key: str | None) -> None:
    asked.wanted.refuse_other(encrypted=encrypted, key=key, name=asked.name)


@pytest.mark.parametrize(
    ("asked", "encrypted", "key", "told"),
    [
        (target(encrypted=True), False, None, "encryption was"),
        (target(encrypted=False), True, KEY, "no encryption was"),
        (target(kms_key_arn=KEY), False, None, f"the key {KEY} was"),
        (target(kms_key_arn=KEY), False, KEY, f"the key {KEY} was"),
        (target(kms_key_arn=KEY), True, OTHER, f"the key {KEY} was"),
        (target(kms_key_arn=KEY), True, None, f"the key {KEY} was"),
        (target(kms_key_arn=KEY), True, "66666666", f"the key {KEY} was"),
        (on(encrypted=True, kms_key_arn=KEY), True, OTHER, f"the key {KEY} of its parent was"),
        (on(encrypted=True, kms_key_arn=KEY), False, None, f"the key {KEY} of its parent was"),
        (on(encrypted=True), False, None, "encryption, as its parent has it was"),
        (on(encrypted=False), True, KEY, "no encryption was"),
    ],
)
def test_anything_else_is_refused(asked: SnapshotTarget, encrypted: bool, key: str | None, told: str) -> None:
    with pytest.raises(EncryptionDiffers) as caught:
        asked.wanted.refuse_other(encrypted=encrypted, key=key, name=asked.name)
    assert f"target snap-1 in {RECOVERY}: {told}" in str(caught.value)
    came = f"it came out encrypted with {key or 'an unknown key'}" if encrypted else "it came out unencrypted"
    assert came in str(caught.value)


def at_start(asked: SnapshotTarget, key: str | None, *shown: Any) -> MemoryEc2:
    """EC2 after the target was started, with what it was asked."""
    ec2 = MemoryEc2(*shown)
    ebs = SimpleNamespace(start_snapshot=lambda _new: StartedSnapshot("snap-1", key))
    aws = cast(Any, SimpleNamespace(ec2=lambda _identity: ec2, ebs=lambda _identity, **_: ebs))
    bare = asked.model_copy(update={"started": None})
    assert bare.start(Call(aws=aws), token="t", mark=EXECUTION.mark).snapshot_id == "snap-1"
    return ec2


def test_an_answer_with_another_key_is_refused_at_once_and_the_snapshot_is_deleted() -> None:
    ec2 = MemoryEc2(described("snap-1", state="pending"))
    ebs = SimpleNamespace(start_snapshot=lambda _new: StartedSnapshot("snap-1", OTHER))
    aws = cast(Any, SimpleNamespace(ec2=lambda _identity: ec2, ebs=lambda _identity, **_: ebs))
    with pytest.raises(EncryptionDiffers, match=rf"snap-1 in {RECOVERY}.*encrypted with {OTHER}"):
        target(kms_key_arn=KEY, snapshot_id="").start(
            Call(aws=aws, clock=ManualClock()), token="t", mark=EXECUTION.mark
        )
    assert ec2.snapshots == {}
    with pytest.raises(EncryptionDiffers, match="no encryption"):
        at_start(target(encrypted=False), KEY)
    assert at_start(target(kms_key_arn=KEY), KEY).calls == {}


@pytest.mark.parametrize("asked", [target(encrypted=True), target(kms_key_arn=KEY), on(encrypted=True)])
def test_where_the_answer_names_no_key_ec2_decides_if_it_knows_the_snapshot(asked: SnapshotTarget) -> None:
    assert at_start(asked, None).calls == {"DescribeSnapshots": 1}
    at_start(asked, None, described("snap-1", state="pending", Encrypted=True, KmsKeyId=KEY))
    with pytest.raises(EncryptionDiffers, match="came out unencrypted"):
        at_start(asked, None, described("snap-1", state="pending"))


@pytest.mark.parametrize("asked", [target(), target(encrypted=False), on(encrypted=False)])
def test_ec2_is_not_asked_where_no_key_is_expected(asked: SnapshotTarget) -> None:
    assert at_start(asked, None).calls == {}


def test_what_ec2_describes_is_held_against_what_was_asked() -> None:
    ec2 = cast(Any, MemoryEc2(described("snap-1", Encrypted=True, KmsKeyId=KEY)))
    facts = snapshots.describe(ec2, "snap-1", region=RECOVERY)
    target(kms_key_arn=KEY).refuse_other_encryption(facts)
    with pytest.raises(EncryptionDiffers, match=f"snap-1.*encrypted with {KEY}"):
        target(kms_key_arn=OTHER).refuse_other_encryption(facts)
    with pytest.raises(EncryptionDiffers):
        target(encrypted=False).refuse_other_encryption(facts)
