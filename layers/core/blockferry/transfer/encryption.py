"""Is a target encrypted as it was asked for? EBS answers what it took; nobody may find out from the receipt alone."""

from __future__ import annotations

from blockferry.aws import snapshots
from blockferry.aws.ebs.client import StartedSnapshot
from blockferry.aws.sessions import Aws
from blockferry.core.errors import EncryptionDiffers
from blockferry.core.holes import HolePolicy
from blockferry.jobs.record import Job, JobSnapshot, JobTarget


def refuse_at_start(job: Job, target: JobTarget, started: StartedSnapshot, *, aws: Aws) -> None:
    """Hold the answer of StartSnapshot against what was asked for. Raises ``EncryptionDiffers``.

    The answer names a key and nothing else. Where it names none although it should, EC2 decides, if it knows the
    snapshot already; else ``refuse_as_described`` does before the target is completed.
    """
    key = started.kms_key_arn
    if key is not None:
        refuse_other(job, target, encrypted=True, key=key, snapshot_id=started.snapshot_id)
    elif _must_be_encrypted(job, target):
        for facts in snapshots.existing(aws.ec2(target.identity), [started.snapshot_id]):
            refuse_as_described(job, target, facts)


def refuse_as_described(job: Job, target: JobTarget, facts: snapshots.SnapshotFacts) -> None:
    """Hold what EC2 says of a target against what was asked for. Raises ``EncryptionDiffers``."""
    refuse_other(job, target, encrypted=facts.encrypted, key=facts.kms_key_id, snapshot_id=facts.snapshot_id)


def refuse_other(job: Job, target: JobTarget, *, encrypted: bool, key: str | None, snapshot_id: str) -> None:
    """Raise ``EncryptionDiffers``, with what was asked for and what came, unless it is the same."""
    wanted = _wanted_key(target)
    asked = None
    if wanted is not None and not (encrypted and _same_key(wanted, key)):
        asked = f"the key {wanted}" + (" of its parent" if target.parent_snapshot_id else "")
    elif _must_be_encrypted(job, target) and not encrypted:
        asked = "encryption, as its source or its parent has it" if target.encrypted is None else "encryption"
    elif encrypted and _must_not_be_encrypted(target):
        asked = "no encryption"
    elif encrypted and job.holes is HolePolicy.SKIP_ZERO:
        asked = "no encryption, so that blocks of zeros may be left out (holes that do not read as zeros)"
    if asked is not None:
        came = f"encrypted with {key or 'an unknown key'}" if encrypted else "unencrypted"
        raise EncryptionDiffers(
            f"target {snapshot_id} in {target.region}: {asked} was asked for, and it came out {came}. Look at the "
            "account's EBS settings there (encryption by default and its key), and start a new job"
        )


def _wanted_key(target: JobTarget) -> str | None:
    if target.parent_snapshot_id is not None:
        return target.parent_kms_key_arn if target.parent_encrypted else None
    return target.kms_key_arn


def _must_be_encrypted(job: Job, target: JobTarget) -> bool:
    if target.parent_snapshot_id is not None:
        return target.parent_encrypted
    if target.encrypted is not None or target.kms_key_arn is not None:
        return target.encrypted is not False
    return isinstance(job.source, JobSnapshot) and job.source.encrypted


def _must_not_be_encrypted(target: JobTarget) -> bool:
    if target.parent_snapshot_id is not None:
        return not target.parent_encrypted
    return target.encrypted is False


def _same_key(wanted: str, key: str | None) -> bool:
    # EC2 answers with an ARN; an id alone names the same key in the same region and account.
    return key in (wanted, wanted.rpartition("/")[2])
