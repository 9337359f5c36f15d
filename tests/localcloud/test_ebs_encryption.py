"""Whether StartSnapshot's snapshots are encrypted: the table of the EBS user guide,
"Use encryption with EBS direct APIs", row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from localcloud.ebs.clock import ManualClock
from localcloud.ebs.kms import AnyKey, derived_aws_key_arn
from localcloud.ebs.testing import HOME_ACCOUNT, RunningServer, running_server

from .ebs_clients import ZEROS, client, refused, snapshot_of, start

KEY = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
DEFAULT = "arn:aws:kms:us-east-1:111122223333:key/99999999-2222-3333-4444-555555555555"
AWS_KEY = derived_aws_key_arn(account=HOME_ACCOUNT, region="us-east-1")
REFUSED = "refused"
PLAIN = None


@pytest.fixture
def keys() -> AnyKey:
    return AnyKey()


@pytest.fixture
def server(keys: AnyKey) -> Iterator[RunningServer]:
    with running_server({"quotas_enabled": False}, clock=ManualClock(), keys=keys) as running:
        yield running


def outcome(server: RunningServer, **arguments: Any) -> str | None:
    """The key of a new snapshot, ``None`` if it is unencrypted; ``REFUSED`` for a ValidationException."""
    ebs = client(server, "ebs")
    try:
        answer = ebs.start_snapshot(VolumeSize=1, **arguments)
    except ebs.exceptions.ValidationException:
        return REFUSED
    shown = client(server, "ec2").describe_snapshots(SnapshotIds=[answer["SnapshotId"]])["Snapshots"][0]
    assert shown.get("KmsKeyId") == answer.get("KmsKeyArn")
    assert shown["Encrypted"] is ("KmsKeyArn" in answer)
    return answer.get("KmsKeyArn")


@pytest.mark.parametrize(
    ("encrypted", "key", "off", "on"),
    [
        (True, None, AWS_KEY, AWS_KEY),
        (True, KEY, KEY, KEY),
        (False, None, PLAIN, REFUSED),
        (False, KEY, REFUSED, REFUSED),
        (None, None, PLAIN, AWS_KEY),
        # Where the table has merged cells: the toggle below.
        (None, KEY, REFUSED, KEY),
    ],
)
@pytest.mark.parametrize("by_default", [False, True])
def test_without_a_parent(
    server: RunningServer, encrypted: bool | None, key: str | None, off: str | None, on: str | None, by_default: bool
) -> None:
    if by_default:
        client(server, "ec2").enable_ebs_encryption_by_default()
    arguments: dict[str, Any] = {}
    if encrypted is not None:
        arguments["Encrypted"] = encrypted
    if key is not None:
        arguments["KmsKeyArn"] = key
    assert outcome(server, **arguments) == (on if by_default else off)


@pytest.mark.parametrize(("setting", "expected"), [("refuse", REFUSED), ("encrypt", KEY), ("ignore", PLAIN)])
def test_a_key_without_encrypted_where_the_account_does_not_encrypt(
    server: RunningServer, setting: str, expected: str | None
) -> None:
    server.service.configure({"key_without_encrypted": setting})
    assert outcome(server, KmsKeyArn=KEY) == expected


@pytest.mark.parametrize("by_default", [False, True])
def test_with_an_unencrypted_parent(server: RunningServer, by_default: bool) -> None:
    parent = snapshot_of(server, client(server, "ebs"), {0: ZEROS})
    if by_default:
        client(server, "ec2").enable_ebs_encryption_by_default()
    assert outcome(server, ParentSnapshotId=parent) == (REFUSED if by_default else PLAIN)
    for encrypted in (True, False):
        assert outcome(server, ParentSnapshotId=parent, Encrypted=encrypted) == REFUSED
    # The row that the stored renderings of the table leave open.
    assert outcome(server, ParentSnapshotId=parent, KmsKeyArn=KEY) == REFUSED
    server.service.configure({"kms_with_unencrypted_parent": "ignore"})
    assert outcome(server, ParentSnapshotId=parent, KmsKeyArn=KEY) == PLAIN


@pytest.mark.parametrize("by_default", [False, True])
def test_with_an_encrypted_parent_the_key_is_the_parents(server: RunningServer, by_default: bool) -> None:
    parent = snapshot_of(server, client(server, "ebs"), {0: ZEROS}, Encrypted=True, KmsKeyArn=KEY)
    if by_default:
        client(server, "ec2").enable_ebs_encryption_by_default()
    assert outcome(server, ParentSnapshotId=parent) == KEY
    assert outcome(server, ParentSnapshotId=parent, KmsKeyArn=KEY) == REFUSED
    assert outcome(server, ParentSnapshotId=parent, Encrypted=True) == REFUSED


def test_the_default_key_can_be_changed_and_reset_per_region(server: RunningServer) -> None:
    ec2 = client(server, "ec2")
    assert ec2.get_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"
    assert ec2.modify_ebs_default_kms_key_id(KmsKeyId=DEFAULT)["KmsKeyId"] == DEFAULT
    assert outcome(server, Encrypted=True) == DEFAULT
    assert client(server, "ec2", region="eu-west-1").get_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"
    assert ec2.reset_ebs_default_kms_key_id()["KmsKeyId"] == AWS_KEY
    assert outcome(server, Encrypted=True) == AWS_KEY


def test_encryption_by_default_is_a_setting_of_account_and_region(server: RunningServer) -> None:
    ec2 = client(server, "ec2")
    assert ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
    assert ec2.enable_ebs_encryption_by_default()["EbsEncryptionByDefault"] is True
    assert client(server, "ec2", region="eu-west-1").get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
    assert ec2.disable_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False


@pytest.mark.parametrize("trouble", ["missing", "disabled", "other region"])
def test_a_key_that_cannot_be_used_is_refused(server: RunningServer, keys: AnyKey, trouble: str) -> None:
    key = KEY.replace("us-east-1", "eu-west-1") if trouble == "other region" else KEY
    {"missing": keys.missing, "disabled": keys.disabled, "other region": set()}[trouble].add(key)
    with refused(400, "ValidationException", "INVALID_CUSTOMER_KEY"):
        start(client(server, "ebs"), Encrypted=True, KmsKeyArn=key)


def test_reading_needs_the_key(server: RunningServer, keys: AnyKey) -> None:
    # FAQ: kms:Decrypt on the snapshot's key.
    ebs = client(server, "ebs")
    snapshot_id = snapshot_of(server, ebs, {0: ZEROS}, Encrypted=True, KmsKeyArn=KEY)
    (entry,) = ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"]
    keys.disabled.add(KEY)
    with refused(403, "AccessDeniedException", "DEPENDENCY_ACCESS_DENIED"):
        ebs.list_snapshot_blocks(SnapshotId=snapshot_id)
    with refused(403, "AccessDeniedException", "DEPENDENCY_ACCESS_DENIED"):
        ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=0, BlockToken=entry["BlockToken"])
    server.service.configure({"check_key_on_read": False})
    ebs.list_snapshot_blocks(SnapshotId=snapshot_id)


def test_the_data_key_id_is_equal_exactly_within_a_lineage(server: RunningServer) -> None:
    # DescribeSnapshots reference, DataEncryptionKeyId.
    ebs, ec2 = client(server, "ebs"), client(server, "ec2")
    parent = snapshot_of(server, ebs, {0: ZEROS}, Encrypted=True, KmsKeyArn=KEY)
    child = snapshot_of(server, ebs, {}, ParentSnapshotId=parent)
    stranger = snapshot_of(server, ebs, {0: ZEROS}, Encrypted=True, KmsKeyArn=KEY)
    plain = snapshot_of(server, ebs, {0: ZEROS})
    shown = {
        s["SnapshotId"]: s.get("DataEncryptionKeyId")
        for s in ec2.describe_snapshots(SnapshotIds=[parent, child, stranger, plain])["Snapshots"]
    }
    assert shown[parent] == shown[child] is not None
    assert shown[stranger] not in (None, shown[parent])
    assert shown[plain] is None
