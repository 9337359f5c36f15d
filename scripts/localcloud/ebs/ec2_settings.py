"""Encryption by default and the default EBS key of an account in a Region (EC2 API reference)."""

from __future__ import annotations

from localcloud.ebs import encryption
from localcloud.ebs.ec2_query import Answer, Call
from localcloud.ebs.errors import Ec2Error


def get_encryption_by_default(call: Call) -> Answer:
    on = call.registry.settings(call.account, call.region).encryption_by_default
    return {"ebsEncryptionByDefault": on, "sseType": "sse-kms" if on else "none"}


def enable_encryption_by_default(call: Call) -> Answer:
    call.registry.settings(call.account, call.region).encryption_by_default = True
    return {"ebsEncryptionByDefault": True}


def disable_encryption_by_default(call: Call) -> Answer:
    call.registry.settings(call.account, call.region).encryption_by_default = False
    return {"ebsEncryptionByDefault": False}


def get_default_key(call: Call) -> Answer:
    """The key as it was set, or ``alias/aws/ebs``."""
    settings = call.registry.settings(call.account, call.region)
    return {"kmsKeyId": settings.default_key or "alias/aws/ebs"}


def modify_default_key(call: Call) -> Answer:
    key_id = call.params.required("KmsKeyId")
    key = call.registry.keys.find(key_id, account=call.account, region=call.region)
    if key is None or not key.enabled:
        raise Ec2Error("InvalidKmsKey.InvalidState", f"The KMS key '{key_id}' cannot be used.")
    call.registry.settings(call.account, call.region).default_key = key.arn
    return {"kmsKeyId": key.arn}


def reset_default_key(call: Call) -> Answer:
    settings = call.registry.settings(call.account, call.region)
    settings.default_key = None
    arn = encryption.default_key(settings, call.registry.keys, account=call.account, region=call.region)
    return {"kmsKeyId": arn}
