"""Vectors: facts computed from the EBS user guide's rule and coldsnap's practice (raw digests)."""

from __future__ import annotations

import pytest
from blockferry.core.checksums import ZERO_BLOCK, ZERO_DIGEST, Linear, decode, digest_of, encode

ZERO_BASE64 = "B4VNL+8pega6gWheZgwzLeNtXRjVRpJ9MNqtbX/aFUE="
TWO_ZERO_BLOCKS_LINEAR = "nXImO+I7J/Eb7uV+SQqV/renEAlPuF0+9WVrhRS/gHY="


def test_the_digest_of_a_zero_block_is_the_known_constant() -> None:
    assert encode(digest_of(ZERO_BLOCK)) == ZERO_BASE64
    assert decode(ZERO_BASE64) == ZERO_DIGEST


def test_linear_hashes_raw_digests_in_index_order() -> None:
    linear = Linear()
    linear.add(3, ZERO_DIGEST)
    linear.add(9, ZERO_DIGEST)
    assert linear.value() == TWO_ZERO_BLOCKS_LINEAR
    assert linear.blocks == 2


def test_linear_of_no_block_is_the_hash_of_nothing() -> None:
    assert Linear().value() == encode(digest_of(b""))


@pytest.mark.parametrize("index", [4, 5])
def test_linear_refuses_an_index_that_does_not_ascend(index: int) -> None:
    linear = Linear()
    linear.add(5, ZERO_DIGEST)
    with pytest.raises(ValueError, match="ascending"):
        linear.add(index, ZERO_DIGEST)


def test_linear_begins_with_any_block() -> None:
    linear = Linear()
    linear.add(0, ZERO_DIGEST)
    linear.add(1, ZERO_DIGEST)
    assert (linear.value(), linear.blocks) == (TWO_ZERO_BLOCKS_LINEAR, 2)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", f"{ZERO_BASE64[:9]}!{ZERO_BASE64[9:]}"])
def test_a_checksum_that_is_not_a_sha256_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - binascii and our own message, both are ValueErrors
        decode(text)


def test_many_digests_at_once_give_what_one_after_the_other_gives() -> None:
    linear = Linear()
    linear.add(3, ZERO_DIGEST)
    linear.extend(9, memoryview(ZERO_DIGEST))
    assert (linear.value(), linear.blocks) == (TWO_ZERO_BLOCKS_LINEAR, 2)
    linear.extend(20, b"")
    assert (linear.value(), linear.blocks) == (TWO_ZERO_BLOCKS_LINEAR, 2)


@pytest.mark.parametrize(("last", "digests"), [(4, ZERO_DIGEST * 2), (3, ZERO_DIGEST), (9, ZERO_DIGEST[1:])])
def test_digests_that_cannot_come_next_are_refused(last: int, digests: bytes) -> None:
    linear = Linear()
    linear.add(3, ZERO_DIGEST)
    with pytest.raises(ValueError, match=f"{len(digests)} bytes of digests up to block {last} after block 3"):
        linear.extend(last, digests)
