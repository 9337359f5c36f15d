"""Which KMS keys exist: asked of the main server, or of a table in tests."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from localcloud.local_keys import LocalKeys
from localcloud.signatures import Incoming, signed_headers

KEY_ARN = re.compile(r"arn:aws[a-z\-]*:kms:([a-z0-9-]*):([0-9]{12}):key/.+")
"""The form of KmsKeyArn (botocore ebs model), with its Region and account as groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    arn: str
    enabled: bool


class KeyResolver(Protocol):
    def find(self, key_id: str, *, account: str, region: str) -> Key | None:
        """The key that ``key_id`` (id, ARN, alias name or alias ARN) means to ``account``, if it may
        use one of that name."""

    def aws_managed(self, *, account: str, region: str) -> Key:
        """The account's ``aws/ebs`` key."""


def partition_of(region: str) -> str:
    for prefix, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"), ("eusc-", "aws-eusc")):
        if region.startswith(prefix):
            return partition
    return "aws"


def derived_aws_key_arn(*, account: str, region: str, alias: str = "aws/ebs") -> str:
    """A stable ARN for a key of an account that AWS manages, where KMS itself does not hold one."""
    digest = hashlib.sha256(f"{alias}|{account}|{region}".encode()).digest()
    return f"arn:{partition_of(region)}:kms:{region}:{account}:key/{uuid.UUID(bytes=digest[:16], version=4)}"


class AnyKey:
    """Accepts every well-formed key of the Region but those named in ``disabled`` and ``missing``."""

    def __init__(self, *, disabled: frozenset[str] = frozenset(), missing: frozenset[str] = frozenset()) -> None:
        self.disabled = set(disabled)
        self.missing = set(missing)

    def find(self, key_id: str, *, account: str, region: str) -> Key | None:
        if key_id in ("alias/aws/ebs", "aws/ebs"):
            return self.aws_managed(account=account, region=region)
        arn = KEY_ARN.fullmatch(key_id)
        if arn is None:
            if not re.fullmatch(r"(mrk-)?[0-9a-f-]{32,36}", key_id):
                return None
            key_id = f"arn:{partition_of(region)}:kms:{region}:{account}:key/{key_id}"
        elif arn.group(1) != region:
            return None
        return None if key_id in self.missing else Key(arn=key_id, enabled=key_id not in self.disabled)

    def aws_managed(self, *, account: str, region: str) -> Key:
        return Key(arn=derived_aws_key_arn(account=account, region=region), enabled=True)


class MainServerKeys:
    """DescribeKey of the main server, as the caller's account, remembered for ``seconds``."""

    def __init__(self, main_url: str, keys: LocalKeys, *, seconds: float = 1.0) -> None:
        self._url = main_url
        self._keys = keys
        self._seconds = seconds
        self._known: dict[tuple[str, str, str], tuple[float, Key | None]] = {}
        self._lock = threading.Lock()

    def find(self, key_id: str, *, account: str, region: str) -> Key | None:
        arn = KEY_ARN.fullmatch(key_id)
        if arn is not None and arn.group(1) != region:
            return None
        asked = (key_id, account, region)
        with self._lock:
            known = self._known.get(asked)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        # A key of another account is looked up there: the base does not look across accounts.
        key = self._describe(key_id, account=arn.group(2) if arn else account, region=region)
        with self._lock:
            self._known[asked] = (time.monotonic() + self._seconds, key)
        return key

    def aws_managed(self, *, account: str, region: str) -> Key:
        found = self.find("alias/aws/ebs", account=account, region=region)
        return found or Key(arn=derived_aws_key_arn(account=account, region=region), enabled=True)

    def _describe(self, key_id: str, *, account: str, region: str) -> Key | None:
        if key_id == derived_aws_key_arn(account=account, region=region):
            return Key(arn=key_id, enabled=True)
        body = json.dumps({"KeyId": key_id}).encode()
        unsigned = {
            "content-type": "application/x-amz-json-1.1",
            "host": urlsplit(self._url).netloc,
            "x-amz-target": "TrentService.DescribeKey",
        }
        signed = signed_headers(
            Incoming(method="POST", path="/", query="", headers=unsigned),
            body=body,
            access_key=account,
            secret=self._keys.secret,
            region=region,
            service="kms",
            now=time.time(),
        )
        request = urllib.request.Request(f"{self._url}/", data=body, headers=signed)  # noqa: S310 - the main server's own
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                metadata = json.load(answer)["KeyMetadata"]
        except urllib.error.HTTPError as refusal:
            if refusal.code in (400, 404):
                return None
            raise
        return Key(arn=metadata["Arn"], enabled=metadata.get("KeyState", "Enabled") == "Enabled")
