"""What a volume reads where its snapshot holds nothing.

A volume of an unencrypted snapshot reads zeros there. One that is encrypted decrypts nothing, and reads noise
(coldsnap, issues 395 and 470; bottlerocket, pull request 2169).
"""

from __future__ import annotations

import hashlib

from localcloud.ebs.blockstore import BLOCK_SIZE
from localcloud.ebs.model import Encryption


def hole(encryption: Encryption, index: int) -> bytes:
    """The content of a hole at this index; the noise of a key is the same every time."""
    if not encryption.encrypted:
        return bytes(BLOCK_SIZE)
    return hashlib.shake_128(f"{encryption.kms_key_arn} {index}".encode()).digest(BLOCK_SIZE)
