"""The six operations of the EBS direct APIs, each with one retry budget.

Requests, codes and reasons: botocore's service model ``ebs/2019-11-02`` and the EBS user guide (direct APIs,
error retries). Answers of every operation are checked here, so that nothing behind this module sees a block
whose bytes are not the ones that EBS vouches for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from blockferry.aws.ebs.refusals import (
    MAY_BE_UNKNOWN_SECONDS,
    TAGS_SPREAD_SECONDS,
    StaleToken,
    error_of,
    final,
    may_pass,
)
from blockferry.aws.ebs.transport import Answer, Transport, TransportError
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.checksums import decode, digest_of, encode
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import BlockferryError, ChecksumMismatch, OutOfTime, RequestRefused, RetryLater
from blockferry.core.quotas import MAX_PAGE, MIN_PAGE, START_TIMEOUT_MINUTES
from blockferry.core.retry import Attempts, Clock, Deadline, RetryPolicy
from blockferry.core.words import counted

T = TypeVar("T")


class _Corrupt(BlockferryError):
    """An answer's bytes do not fit its checksum: read again."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: ``(index, token)`` pairs in ascending order, perhaps none, and where to go on."""

    entries: tuple[tuple[int, str], ...]
    next_token: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a list of changed blocks: the token of the block in the first and in the second snapshot.

    Without ``first_token`` the block is only in the second snapshot, without ``second_token`` only in the first.
    """

    index: int
    first_token: str | None
    second_token: str | None


@dataclass(frozen=True, slots=True)
class ChangedPage:
    """One page of a list of changed blocks, ascending, perhaps empty, and where to go on."""

    entries: tuple[Change, ...]
    next_token: str | None


@dataclass(frozen=True)
class NewSnapshot:
    """A snapshot to start, as StartSnapshot takes it. ``timeout_minutes`` counts while no block is written."""

    volume_size_gib: int
    client_token: str
    description: str
    tags: Mapping[str, str]
    encrypted: bool | None = None
    kms_key_arn: str | None = None
    parent_snapshot_id: str | None = None
    timeout_minutes: int = START_TIMEOUT_MINUTES


@dataclass(frozen=True, slots=True)
class StartedSnapshot:
    """What StartSnapshot answers. ``kms_key_arn`` is the key of the new snapshot, ``None`` when EBS names none."""

    snapshot_id: str
    kms_key_arn: str | None


class EbsDirect:
    """The EBS direct APIs of one region under one identity.

    Every method raises ``RequestRefused`` for errors that no repetition mends, ``RetryLater`` when the budget is
    used up on errors that pass, ``OutOfTime`` when the deadline leaves no room for another attempt.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        region: str,
        counts: RequestCounts | None = None,
        policy: RetryPolicy | None = None,
        clock: Clock | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        self._transport = transport
        self._clock = clock or Clock()
        self._policy = policy or RetryPolicy()
        self._deadline = deadline or Deadline(None, clock=self._clock)
        self._tags_spread_until: dict[str, float] = {}
        self.region = region
        self.counts = counts or RequestCounts()

    def was_started(self, snapshot_id: str, *, seconds_ago: float) -> None:
        """Bear with policies that do not see the new snapshot's tags yet: writes that are denied are repeated for as
        long as tags take to spread, counted from the start. Without this, or later, a denial is final at once."""
        self._tags_spread_until[snapshot_id] = self._clock.monotonic() + TAGS_SPREAD_SECONDS - seconds_ago

    def list_blocks(
        self, snapshot_id: str, *, start: int = 0, window: int = MAX_PAGE, page_token: str | None = None
    ) -> Page:
        """One page of allocated blocks from index ``start`` on, or the page that ``page_token`` names.

        Raises ``StaleToken`` when the page token is no longer valid.
        """
        query = _window(start, window, page_token)
        return self._call(
            "ListSnapshotBlocks",
            f"of {snapshot_id} in {self.region} from block {start}",
            lambda: self._send("GET", f"/snapshots/{snapshot_id}/blocks", query=query),
            lambda answer: _page(answer),
        )

    def list_changed_blocks(
        self,
        first_snapshot_id: str,
        second_snapshot_id: str,
        *,
        start: int = 0,
        window: int = MAX_PAGE,
        page_token: str | None = None,
    ) -> ChangedPage:
        """One page of the blocks that differ between two snapshots of one lineage, as ``list_blocks`` gives them.

        The window is over the indices that either snapshot holds, so a page without changes may be followed by more.
        Raises ``RequestRefused`` from an ``EbsError`` with reason ``UNRELATED_SNAPSHOTS`` when they are not of one
        lineage, ``StaleToken`` when the page token is no longer valid.
        """
        query = {"firstSnapshotId": first_snapshot_id, **_window(start, window, page_token)}
        return self._call(
            "ListChangedBlocks",
            f"from {first_snapshot_id} to {second_snapshot_id} in {self.region} from block {start}",
            lambda: self._send("GET", f"/snapshots/{second_snapshot_id}/changedblocks", query=query),
            _changed_page,
        )

    def get_block(self, snapshot_id: str, index: int, token: str) -> tuple[bytes, bytes]:
        """A block's 524,288 bytes and their raw SHA-256, which is the one that EBS sent with them.

        Raises ``StaleToken`` when the block token is no longer valid, ``ChecksumMismatch`` when every read within
        the budget came back altered.
        """
        return self._call(
            "GetSnapshotBlock",
            f"block {index} of {snapshot_id} in {self.region}",
            lambda: self._send("GET", f"/snapshots/{snapshot_id}/blocks/{index}", query={"blockToken": token}),
            _verified_block,
        )

    def put_block(self, snapshot_id: str, index: int, data: bytes, digest: bytes) -> None:
        """Write a block; ``digest`` is its raw SHA-256, against which EBS checks what it received."""
        checksum = encode(digest)

        def check(answer: Answer) -> None:
            echoed = answer.headers.get("x-amz-checksum")
            if echoed != checksum:
                raise _Corrupt(f"EBS answered with checksum {echoed}, sent {checksum}")

        self._call(
            "PutSnapshotBlock",
            f"block {index} of {snapshot_id} in {self.region}",
            lambda: self._send(
                "PUT",
                f"/snapshots/{snapshot_id}/blocks/{index}",
                headers={
                    "x-amz-data-length": str(len(data)),
                    "x-amz-checksum": checksum,
                    "x-amz-checksum-algorithm": "SHA256",
                },
                body=data,
                sign_body=False,  # modelled so, for this operation alone: its checksum is signed instead
            ),
            check,
            new_snapshot=snapshot_id,
        )

    def start_snapshot(self, new: NewSnapshot) -> StartedSnapshot:
        """Start a snapshot. The same ``client_token`` and content give the same one.

        A key never goes without ``Encrypted``: what a key alone does depends on the account's default (EBS user guide,
        encryption outcomes for EBS direct APIs).
        """
        body: dict[str, Any] = {
            "VolumeSize": new.volume_size_gib,
            "ClientToken": new.client_token,
            "Tags": [{"Key": key, "Value": value} for key, value in sorted(new.tags.items())],
            "Timeout": new.timeout_minutes,
        }
        # Absent is not null here: a description has a character at least, a parent forbids Encrypted, and a key ARN is
        # valid only without a parent.
        if new.description:
            body["Description"] = new.description
        if new.encrypted is not None:
            body["Encrypted"] = new.encrypted
        if new.kms_key_arn is not None:
            body |= {"Encrypted": True, "KmsKeyArn": new.kms_key_arn}
        if new.parent_snapshot_id is not None:
            body["ParentSnapshotId"] = new.parent_snapshot_id
        return self._call(
            "StartSnapshot",
            f"in {self.region}",
            lambda: self._send(
                "POST",
                "/snapshots",
                headers={"content-type": "application/json"},
                body=json.dumps(body).encode(),
            ),
            _started,
        )

    def complete_snapshot(self, snapshot_id: str, *, changed_blocks: int, linear_checksum: str | None) -> None:
        """Seal a snapshot. EBS refuses it when the number of blocks or the checksum is not what it received.

        Without any block the checksum is left out: AWS does not document what the checksum over nothing is. Sealing
        goes on after the answer: the snapshot is ``completed`` only when EC2 says so.
        """
        headers = {"x-amz-changedblockscount": str(changed_blocks)}
        if linear_checksum is not None and changed_blocks:
            headers |= {
                "x-amz-checksum": linear_checksum,
                "x-amz-checksum-algorithm": "SHA256",
                "x-amz-checksum-aggregation-method": "LINEAR",
            }
        self._call(
            "CompleteSnapshot",
            f"of {snapshot_id} in {self.region}",
            lambda: self._send("POST", f"/snapshots/completion/{snapshot_id}", headers=headers, body=b""),
            lambda _: None,
            new_snapshot=snapshot_id,
        )

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        sign_body: bool = True,
    ) -> Answer:
        return self._transport.send(
            method, path, query=query or {}, headers=headers or {}, body=body, sign_body=sign_body
        )

    def _call(
        self,
        operation: str,
        resource: str,
        send: Callable[[], Answer],
        read: Callable[[Answer], T],
        *,
        new_snapshot: str = "",
    ) -> T:
        """What ``read`` makes of the answer to a request, which is sent again within the budget.

        ``new_snapshot`` is the id of the snapshot, if StartSnapshot made it.
        """
        request = f"{operation} {resource}"
        attempts = Attempts(self._policy, clock=self._clock, deadline=self._deadline)
        unknown_until = self._clock.monotonic() + (math.inf if new_snapshot else MAY_BE_UNKNOWN_SECONDS)
        signed_again = 0
        while True:
            self.counts.sent(operation, self.region)
            try:
                answer = send()
                if answer.status < 300:
                    return _read(read, answer)
                refusal = error_of(request, answer)
                if not may_pass(
                    refusal,
                    may_be_unknown=self._clock.monotonic() < unknown_until,
                    tags_may_spread=self._clock.monotonic() < self._tags_spread_until.get(new_snapshot, 0.0),
                    signed_again=signed_again,
                ):
                    raise refusal if isinstance(refusal, StaleToken) else RequestRefused(str(refusal)) from refusal
                signed_again += refusal.clock_is_wrong
                error: BlockferryError = refusal
                code = refusal.code
            except TransportError as failure:
                error = RetryLater(f"{request}: {failure}")
                code = "TransportError"
            except _Corrupt as failure:
                error = ChecksumMismatch(f"{request}: {failure}")
                code = "ChecksumMismatch"
            self.counts.retried(operation, code)
            if attempts.pause():
                continue
            if attempts.out_of_time:
                raise OutOfTime(
                    f"{request}: no time left after {counted(attempts.failed, 'attempt')}: {error}"
                ) from error
            raise final(error, attempts=attempts.failed) from error


def _started(answer: Answer) -> StartedSnapshot:
    body = json.loads(answer.body)
    return StartedSnapshot(str(body["SnapshotId"]), body.get("KmsKeyArn") or None)


def _read(read: Callable[[Answer], T], answer: Answer) -> T:
    try:
        return read(answer)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Corrupt(f"the answer cannot be read: {type(error).__name__}: {error}") from error


def _window(start: int, window: int, page_token: str | None) -> dict[str, str]:
    query = {"maxResults": str(max(MIN_PAGE, min(window, MAX_PAGE)))}
    return query | ({"pageToken": page_token} if page_token else {"startingBlockIndex": str(start)})


def _listing(answer: Answer) -> Any:
    body = json.loads(answer.body)
    size = body.get("BlockSize")
    if size not in (None, BLOCK_SIZE):
        raise RequestRefused(f"EBS reports blocks of {size} bytes; this software knows {BLOCK_SIZE} only")
    return body


def _page(answer: Answer) -> Page:
    body = _listing(answer)
    entries = tuple((int(block["BlockIndex"]), str(block["BlockToken"])) for block in body.get("Blocks") or ())
    return Page(entries, body.get("NextToken") or None)


def _changed_page(answer: Answer) -> ChangedPage:
    body = _listing(answer)
    entries = []
    for block in body.get("ChangedBlocks") or ():
        first, second = block.get("FirstBlockToken"), block.get("SecondBlockToken")
        if not first and not second:
            raise _Corrupt(f"block {block['BlockIndex']} is listed as changed without any token")
        entries.append(Change(int(block["BlockIndex"]), first or None, second or None))
    return ChangedPage(tuple(entries), body.get("NextToken") or None)


def _verified_block(answer: Answer) -> tuple[bytes, bytes]:
    length = answer.headers.get("x-amz-data-length")
    if len(answer.body) != BLOCK_SIZE or length not in (None, str(BLOCK_SIZE)):
        raise _Corrupt(f"{len(answer.body)} bytes came, {length} were announced, a block has {BLOCK_SIZE}")
    if answer.headers.get("x-amz-checksum-algorithm") != "SHA256":
        raise RequestRefused(
            f"EBS sent a block with checksum algorithm {answer.headers.get('x-amz-checksum-algorithm')!r}; "
            "only SHA256 can be verified"
        )
    digest = digest_of(answer.body)
    sent = decode(answer.headers["x-amz-checksum"])
    if digest != sent:
        raise _Corrupt(f"the bytes have SHA-256 {encode(digest)}, EBS sent {encode(sent)}")
    return answer.body, digest
