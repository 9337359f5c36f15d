"""Is a target encrypted as it was asked for? EBS answers what it took; nobody may find out from the receipt alone."""

from __future__ import annotations

from dataclasses import dataclass

from blockferry.core.errors import EncryptionDiffers


@dataclass(frozen=True)
class WantedEncryption:
    """The encryption that a target has to have. ``key`` is the ARN or id of a KMS key; ``because`` stands behind "was
    asked for" and says whose key or encryption it is. Neither ``must`` nor ``must_not``: either is as good."""

    key: str | None
    must: bool
    must_not: bool
    key_because: str = ""
    must_because: str = ""

    def refuse_other(self, *, encrypted: bool, key: str | None, name: str) -> None:
        """Raise ``EncryptionDiffers``, with what was asked for and what came, unless it is the same."""
        asked = None
        if self.key is not None and not (encrypted and _same_key(self.key, key)):
            asked = f"the key {self.key}{self.key_because}"
        elif self.must and not encrypted:
            asked = f"encryption{self.must_because}"
        elif self.must_not and encrypted:
            asked = "no encryption"
        if asked is not None:
            came = f"encrypted with {key or 'an unknown key'}" if encrypted else "unencrypted"
            raise EncryptionDiffers(
                f"target {name}: {asked} was asked for, and it came out {came}. Look at the account's EBS settings "
                "there (encryption by default and its key), and start again"
            )


def _same_key(wanted: str, key: str | None) -> bool:
    # EC2 answers with an ARN; an id alone names the same key in the same region and account.
    return key in (wanted, wanted.rpartition("/")[2])
