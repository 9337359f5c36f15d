"""What is read from the answers of the direct APIs, and what is never taken for an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from blockferry.aws.ebs.client import Change, ChangedPage, EbsDirect, NewSnapshot, Page
from blockferry.aws.ebs.transport import Answer
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.checksums import digest_of, encode
from blockferry.core.errors import ChecksumMismatch
from blockferry.core.retry import RetryPolicy
from fakes import ManualClock, content

DATA = content(7)


class Always:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests = 0

    def send(self, *_: Any, **__: Any) -> Answer:
        self.requests += 1
        return self.answer


def client(answer: Answer) -> EbsDirect:
    return EbsDirect(Always(answer), region="eu-west-1", clock=ManualClock(), policy=RetryPolicy(max_attempts=2))


def listing(**body: Any) -> EbsDirect:
    return client(Answer(200, {}, json.dumps(body).encode()))


def test_a_list_of_changes_tells_which_side_holds_a_block() -> None:
    changed = [
        {"BlockIndex": 1, "FirstBlockToken": "a", "SecondBlockToken": "b"},
        {"BlockIndex": 2, "FirstBlockToken": "c"},
        {"BlockIndex": 3, "SecondBlockToken": "d"},
        {"BlockIndex": 4, "FirstBlockToken": "", "SecondBlockToken": "e"},
        {"BlockIndex": 5, "FirstBlockToken": "f", "SecondBlockToken": ""},
    ]
    assert listing(ChangedBlocks=changed, NextToken="n").list_changed_blocks("snap-1", "snap-2") == ChangedPage(
        (Change(1, "a", "b"), Change(2, "c", None), Change(3, None, "d"), Change(4, None, "e"), Change(5, "f", None)),
        "n",
    )


@pytest.mark.parametrize("token", [None, ""])
def test_a_page_without_entries_and_without_a_token_is_the_end(token: str | None) -> None:
    for entries in (None, []):
        body = {"Blocks": entries, "ChangedBlocks": entries, "NextToken": token}
        assert listing(**body).list_blocks("snap-1") == Page((), None)
        assert listing(**body).list_changed_blocks("snap-1", "snap-2") == ChangedPage((), None)


def test_a_change_that_neither_side_holds_is_no_answer() -> None:
    with pytest.raises(ChecksumMismatch, match="block 6 is listed as changed without any token"):
        listing(ChangedBlocks=[{"BlockIndex": 6}]).list_changed_blocks("snap-1", "snap-2")


def test_a_new_snapshot_without_a_key_has_none() -> None:
    for key in ({}, {"KmsKeyArn": ""}):
        answer = Answer(201, {}, json.dumps({"SnapshotId": "snap-1", **key}).encode())
        assert client(answer).start_snapshot(NewSnapshot(1, "token", "text", {})).kms_key_arn is None


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (DATA[:-1], {"x-amz-checksum": encode(digest_of(DATA[:-1]))}),
        (DATA[:-1], {"x-amz-checksum": encode(digest_of(DATA[:-1])), "x-amz-data-length": str(BLOCK_SIZE)}),
        (DATA, {"x-amz-checksum": encode(digest_of(DATA)), "x-amz-data-length": str(BLOCK_SIZE - 1)}),
        (DATA, {"x-amz-data-length": str(BLOCK_SIZE)}),
        (DATA, {"x-amz-checksum": "not base64!"}),
        (DATA, {"x-amz-checksum": encode(digest_of(content(8)))}),
    ],
    ids=["short", "short but said to be whole", "said to be short", "no checksum", "no digest", "other"],
)
def test_bytes_that_are_not_shown_to_be_the_block_are_read_again_and_never_returned(
    data: bytes, headers: dict[str, str]
) -> None:
    ebs = client(Answer(200, {"x-amz-checksum-algorithm": "SHA256"} | headers, data))
    with pytest.raises(ChecksumMismatch, match="block 7 of snap-1 in eu-west-1"):
        ebs.get_block("snap-1", 7, "token")
    assert ebs.counts.requests == {"GetSnapshotBlock": 2}


def test_a_block_comes_with_its_digest() -> None:
    headers = {"x-amz-checksum": encode(digest_of(DATA)), "x-amz-checksum-algorithm": "SHA256"}
    for more in ({}, {"x-amz-data-length": str(BLOCK_SIZE)}):
        assert client(Answer(200, headers | more, DATA)).get_block("snap-1", 7, "token") == (DATA, digest_of(DATA))
