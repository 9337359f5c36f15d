"""Whether a new snapshot is encrypted, and with which key.

Source: EBS user guide, "Use encryption with EBS direct APIs" (the table of outcomes) and the StartSnapshot
reference. Two rows have results that the table does not show for certain, since cells are merged there: KmsKeyArn
with an unencrypted parent is the toggle ``kms_with_unencrypted_parent``, KmsKeyArn without Encrypted where the account
does not encrypt by default is ``key_without_encrypted``.
"""

from __future__ import annotations

from localcloud.ebs.config import EbsConfig
from localcloud.ebs.errors import invalid, invalid_parameter
from localcloud.ebs.kms import KEY_ARN, KeyResolver
from localcloud.ebs.model import UNENCRYPTED, AccountSettings, Encryption


def default_key(settings: AccountSettings, keys: KeyResolver, *, account: str, region: str) -> str:
    """The ARN of the account's default EBS key."""
    if settings.default_key is None:
        return keys.aws_managed(account=account, region=region).arn
    found = keys.find(settings.default_key, account=account, region=region)
    return found.arn if found else settings.default_key


def for_new_snapshot(
    *,
    encrypted: bool | None,
    kms_key_arn: str | None,
    parent: Encryption | None,
    settings: AccountSettings,
    keys: KeyResolver,
    config: EbsConfig,
    account: str,
    region: str,
) -> Encryption:
    """StartSnapshot's outcome; ``parent`` is ``None`` without ParentSnapshotId."""
    if parent is not None:
        return _with_parent(
            encrypted=encrypted,
            kms_key_arn=kms_key_arn,
            parent=parent,
            by_default=settings.encryption_by_default,
            config=config,
        )
    if encrypted is False:
        if kms_key_arn is not None:
            raise invalid_parameter("KmsKeyArn cannot be given with Encrypted=false.")
        if settings.encryption_by_default:
            raise invalid_parameter("Encryption by default is on: an unencrypted snapshot cannot be created.")
        return UNENCRYPTED
    if kms_key_arn is not None:
        if encrypted is None and not settings.encryption_by_default:
            if config.key_without_encrypted == "refuse":
                raise invalid_parameter("KmsKeyArn cannot be given without Encrypted=true.")
            if config.key_without_encrypted == "ignore":
                return UNENCRYPTED
        return Encryption(kms_key_arn=usable_key(kms_key_arn, keys, account=account, region=region))
    if encrypted or settings.encryption_by_default:
        arn = default_key(settings, keys, account=account, region=region)
        return Encryption(kms_key_arn=usable_key(arn, keys, account=account, region=region))
    return UNENCRYPTED


def _with_parent(
    *,
    encrypted: bool | None,
    kms_key_arn: str | None,
    parent: Encryption,
    by_default: bool,
    config: EbsConfig,
) -> Encryption:
    if encrypted is not None:
        raise invalid_parameter("Encrypted cannot be given with ParentSnapshotId.")
    if parent.encrypted:
        if kms_key_arn is not None:
            raise invalid_parameter("KmsKeyArn cannot be given with an encrypted parent snapshot.")
        return parent
    if kms_key_arn is not None:
        if config.kms_with_unencrypted_parent == "refuse":
            raise invalid_parameter("KmsKeyArn cannot be given with an unencrypted parent snapshot.")
        return UNENCRYPTED
    if by_default:
        raise invalid_parameter(
            "Encryption by default is on and the parent snapshot is unencrypted: make an encrypted copy first."
        )
    return UNENCRYPTED


def usable_key(kms_key_arn: str, keys: KeyResolver, *, account: str, region: str) -> str:
    """The ARN itself; ValidationException INVALID_CUSTOMER_KEY for anything but an enabled key's ARN."""
    if not KEY_ARN.fullmatch(kms_key_arn):
        raise invalid("INVALID_CUSTOMER_KEY", f"'{kms_key_arn}' is not the ARN of a KMS key.")
    key = keys.find(kms_key_arn, account=account, region=region)
    if key is None:
        raise invalid("INVALID_CUSTOMER_KEY", f"The KMS key '{kms_key_arn}' does not exist in {region}.")
    if not key.enabled:
        raise invalid("INVALID_CUSTOMER_KEY", f"The KMS key '{kms_key_arn}' is not enabled.")
    return key.arn
