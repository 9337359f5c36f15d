"""Does a target have the encryption that was asked for? All that may be asked, against all that may come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws import snapshots
from blockferry.aws.ebs.client import StartedSnapshot
from blockferry.core.errors import EncryptionDiffers
from blockferry.core.holes import HolePolicy
from blockferry.jobs.record import Job
from blockferry.transfer.encryption import refuse_as_described, refuse_at_start, refuse_other
from job_records import RECOVERY, image, job, source, target
from memory_ec2 import MemoryEc2, described

KEY = f"arn:aws:kms:{RECOVERY}:111122223333:key/11111111-2222-3333-4444-555555555555"
KEY_ID = KEY.rsplit("/", 1)[-1]
OTHER = f"arn:aws:kms:{RECOVERY}:444455556666:key/{KEY_ID}"

PLAIN, SECRET = job(source(encrypted=False)), job(source(encrypted=True))


def on(**parent: Any) -> dict[str, Any]:
    """What is asked of a target on top of a parent."""
    return {"parent_snapshot_id": "snap-2", **{f"parent_{name}": value for name, value in parent.items()}}


@pytest.mark.parametrize(
    ("of", "asked", "encrypted", "key"),
    [
        (PLAIN, {}, False, None),
        (PLAIN, {}, True, KEY),  # the account's default
        (SECRET, {}, True, OTHER),
        (SECRET, {"encrypted": False}, False, None),
        (PLAIN, {"encrypted": False}, False, None),
        (PLAIN, {"encrypted": True}, True, OTHER),
        (PLAIN, {"encrypted": True}, True, None),
        (PLAIN, {"kms_key_arn": KEY}, True, KEY),
        (PLAIN, {"kms_key_arn": KEY}, True, KEY_ID),
        (PLAIN, {"encrypted": True, "kms_key_arn": KEY}, True, KEY),
        (job(image()), {}, False, None),
        (PLAIN, on(encrypted=True, kms_key_arn=KEY), True, KEY),
        (PLAIN, on(encrypted=True), True, OTHER),
        (SECRET, on(encrypted=False), False, None),
        (SECRET, on(encrypted=False, kms_key_arn=KEY), False, None),
        (job(source(encrypted=False), holes=HolePolicy.SKIP_ZERO), {}, False, None),
    ],
)
def test_what_was_asked_for_is_taken(of: Job, asked: dict[str, Any], encrypted: bool, key: str | None) -> None:
    refuse_other(of, target(**asked), encrypted=encrypted, key=key, snapshot_id="snap-1")


BY_SOURCE = "encryption, as its source or its parent has it was"


@pytest.mark.parametrize(
    ("of", "asked", "encrypted", "key", "told"),
    [
        (SECRET, {}, False, None, BY_SOURCE),
        (PLAIN, {"encrypted": True}, False, None, "encryption was"),
        (PLAIN, {"encrypted": False}, True, KEY, "no encryption was"),
        (SECRET, {"encrypted": False}, True, KEY, "no encryption was"),
        (PLAIN, {"kms_key_arn": KEY}, False, None, f"the key {KEY} was"),
        (PLAIN, {"kms_key_arn": KEY}, False, KEY, f"the key {KEY} was"),
        (PLAIN, {"kms_key_arn": KEY}, True, OTHER, f"the key {KEY} was"),
        (PLAIN, {"kms_key_arn": KEY}, True, None, f"the key {KEY} was"),
        (PLAIN, {"kms_key_arn": KEY}, True, "66666666", f"the key {KEY} was"),
        (PLAIN, on(encrypted=True, kms_key_arn=KEY), True, OTHER, f"the key {KEY} of its parent was"),
        (PLAIN, on(encrypted=True, kms_key_arn=KEY), False, None, f"the key {KEY} of its parent was"),
        (PLAIN, on(encrypted=True), False, None, BY_SOURCE),
        (SECRET, on(encrypted=False), True, KEY, "no encryption was"),
        (job(source(encrypted=False), holes=HolePolicy.SKIP_ZERO), {}, True, KEY, "no encryption, so that blocks"),
    ],
)
def test_anything_else_is_refused(of: Job, asked: dict[str, Any], encrypted: bool, key: str | None, told: str) -> None:
    with pytest.raises(EncryptionDiffers) as caught:
        refuse_other(of, target(**asked), encrypted=encrypted, key=key, snapshot_id="snap-1")
    assert f"target snap-1 in {RECOVERY}: {told}" in str(caught.value)
    came = f"it came out encrypted with {key or 'an unknown key'}" if encrypted else "it came out unencrypted"
    assert came in str(caught.value)


def test_a_key_asked_for_with_encryption_left_open_asks_for_encryption() -> None:
    # An image has no encryption of its own that a target could take over.
    with pytest.raises(EncryptionDiffers, match="the key"):
        refuse_other(job(image()), target(kms_key_arn=KEY), encrypted=False, key=None, snapshot_id="snap-1")


def at_start(of: Job, asked: dict[str, Any], key: str | None, *shown: Any) -> MemoryEc2:
    ec2 = MemoryEc2(*shown)
    aws = cast(Any, SimpleNamespace(ec2=lambda _identity: ec2))
    refuse_at_start(of, target(**asked, snapshot_id=""), StartedSnapshot("snap-1", key), aws=aws)
    return ec2


def test_an_answer_with_another_key_is_refused_at_once() -> None:
    with pytest.raises(EncryptionDiffers, match=rf"snap-1 in {RECOVERY}.*encrypted with {OTHER}"):
        at_start(PLAIN, {"kms_key_arn": KEY}, OTHER)
    with pytest.raises(EncryptionDiffers, match="no encryption"):
        at_start(PLAIN, {"encrypted": False}, KEY)
    assert at_start(PLAIN, {"kms_key_arn": KEY}, KEY).calls == {}


@pytest.mark.parametrize(
    ("of", "asked"),
    [
        (PLAIN, {"encrypted": True}),
        (PLAIN, {"kms_key_arn": KEY}),
        (SECRET, {}),
        (job(image()), {"kms_key_arn": KEY}),
        (PLAIN, on(encrypted=True)),
    ],
)
def test_where_the_answer_names_no_key_ec2_decides_if_it_knows_the_snapshot(of: Job, asked: dict[str, Any]) -> None:
    assert at_start(of, asked, None).calls == {"DescribeSnapshots": 1}
    at_start(of, asked, None, described("snap-1", state="pending", Encrypted=True, KmsKeyId=KEY))
    with pytest.raises(EncryptionDiffers, match="came out unencrypted"):
        at_start(of, asked, None, described("snap-1", state="pending"))


@pytest.mark.parametrize(
    ("of", "asked"), [(PLAIN, {}), (SECRET, {"encrypted": False}), (SECRET, on(encrypted=False)), (job(image()), {})]
)
def test_ec2_is_not_asked_where_no_key_is_expected(of: Job, asked: dict[str, Any]) -> None:
    assert at_start(of, asked, None).calls == {}


def test_what_ec2_describes_is_held_against_what_was_asked() -> None:
    ec2 = cast(Any, MemoryEc2(described("snap-1", Encrypted=True, KmsKeyId=KEY)))
    facts = snapshots.describe(ec2, "snap-1", region=RECOVERY)
    refuse_as_described(PLAIN, target(kms_key_arn=KEY), facts)
    with pytest.raises(EncryptionDiffers, match=f"snap-1.*encrypted with {KEY}"):
        refuse_as_described(PLAIN, target(kms_key_arn=OTHER), facts)
    with pytest.raises(EncryptionDiffers):
        refuse_as_described(PLAIN, target(encrypted=False), facts)
