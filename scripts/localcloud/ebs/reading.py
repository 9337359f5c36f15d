"""ListSnapshotBlocks, ListChangedBlocks, GetSnapshotBlock.

Source: EBS user guide, "Read snapshots with EBS direct APIs" and its FAQ; bounds: botocore's model.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from localcloud.ebs import access
from localcloud.ebs.blockmap import BUCKET_BITS, BlockMap
from localcloud.ebs.blockstore import BLOCK_SIZE
from localcloud.ebs.errors import account_throttled, invalid, invalid_parameter, snapshot_throttled
from localcloud.ebs.messages import Request, Response, json_response
from localcloud.ebs.model import Snapshot
from localcloud.ebs.registry import Registry
from localcloud.ebs.writing import block_index


@dataclass(frozen=True, slots=True)
class _Window:
    """What one page looks at: at most ``scan`` allocated positions from ``start`` on."""

    start: int
    scan: int


class Reading:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._pages = itertools.count(1)

    # -- the two lists -----------------------------------------------------------

    def list_blocks(self, request: Request, snapshot_id: str) -> Response:
        registry, config = self._registry, self._registry.config
        self._take_list(request, "ListSnapshotBlocks", config.list_snapshot_blocks_per_account)
        with registry.lock:
            snapshot = access.readable(registry, snapshot_id, account=request.account, region=request.region)
            listing = f"ListSnapshotBlocks|{request.account}|{snapshot_id}"
            window = self._window(request.query, listing)
            self._new_listing(request.query, snapshot)
            expires = registry.clock.now() + config.block_token_seconds
            found = list(itertools.islice(snapshot.blocks.allocated(window.start), window.scan + 1))
            given_in = snapshot.listing
        more = found[window.scan][0] if len(found) > window.scan else None
        blocks: list[dict[str, int | str]] = [
            {"BlockIndex": index, "BlockToken": self._token(snapshot, index, expires, given_in)}
            for index, _slot in found[: window.scan]
        ]
        access.check_key(registry, snapshot)
        return self._page("Blocks", blocks, snapshot, listing=listing, expires=expires, more=more)

    def list_changed(self, request: Request, second_id: str) -> Response:
        registry, config = self._registry, self._registry.config
        self._take_list(request, "ListChangedBlocks", config.list_changed_blocks_per_account)
        first_id = request.query.get("firstSnapshotId", "")
        if not first_id:
            # The model has it optional, the guide says that both must be given.
            raise invalid_parameter("Both FirstSnapshotId and SecondSnapshotId must be given.")
        with registry.lock:
            first = access.readable(registry, first_id, account=request.account, region=request.region)
            second = access.readable(registry, second_id, account=request.account, region=request.region)
            if first.lineage != second.lineage:
                raise invalid("UNRELATED_SNAPSHOTS", f"'{first_id}' and '{second_id}' are not of one lineage.")
            listing = f"ListChangedBlocks|{request.account}|{first_id}|{second_id}"
            window = self._window(request.query, listing)
            self._new_listing(request.query, first, second)
            expires = registry.clock.now() + config.block_token_seconds
            changed, more = _changes(first.blocks, second.blocks, window)
            given_in = first.listing, second.listing
        blocks = []
        for index, in_first, in_second in changed:
            block: dict[str, int | str] = {"BlockIndex": index}
            if in_first:
                block["FirstBlockToken"] = self._token(first, index, expires, given_in[0])
            if in_second:
                block["SecondBlockToken"] = self._token(second, index, expires, given_in[1])
            blocks.append(block)
        access.check_key(registry, first)
        access.check_key(registry, second)
        return self._page("ChangedBlocks", blocks, second, listing=listing, expires=expires, more=more)

    def _take_list(self, request: Request, operation: str, rate: float) -> None:
        registry = self._registry
        if registry.config.quotas_enabled and not registry.limits.take(
            (operation, request.account, request.region), rate
        ):
            raise account_throttled(operation)

    def _window(self, query: Mapping[str, str], listing: str) -> _Window:
        config = self._registry.config
        scan = _number(query, "maxResults", config.default_max_results)
        if not 1 <= scan <= 10000:
            raise invalid_parameter("MaxResults must be 100 to 10000.")
        scan = max(scan, 100)  # fewer are asked for, at least 100 are looked at (ListSnapshotBlocks reference)
        number = next(self._pages)
        if config.empty_page_every and number % config.empty_page_every == 0:
            scan = 0
        elif config.short_page_every and number % config.short_page_every == 0:
            scan //= 2
        token = query.get("pageToken")
        if token is None:
            return _Window(_number(query, "startingBlockIndex", 0), scan)
        start = self._registry.tokens.page_start(token, listing=listing, now=self._registry.clock.now())
        if start is None:
            raise invalid("INVALID_PAGE_TOKEN", "The page token is not valid for this listing or has expired.")
        return _Window(start, scan)

    def _new_listing(self, query: Mapping[str, str], *snapshots: Snapshot) -> None:
        """Count a listing where that makes older block tokens void."""
        rule = self._registry.config.relist_invalidates
        if rule == "every_request" or (rule == "new_listing" and "pageToken" not in query):
            for snapshot in snapshots:
                snapshot.listing += 1

    def _token(self, snapshot: Snapshot, index: int, expires: float, listing: int) -> str:
        return self._registry.tokens.block(
            snapshot_id=snapshot.snapshot_id, index=index, expires=expires, listing=listing
        )

    def _page(
        self,
        name: str,
        blocks: list[dict[str, int | str]],
        snapshot: Snapshot,
        *,
        listing: str,
        expires: float,
        more: int | None,
    ) -> Response:
        config = self._registry.config
        answer: dict[str, object] = {
            name: blocks,
            "ExpiryTime": expires,
            "VolumeSize": snapshot.volume_gib * (2**30 if config.listed_volume_size == "bytes" else 1),
            "BlockSize": BLOCK_SIZE,
        }
        if more is None and config.trailing_empty_page and blocks:
            more = int(blocks[-1]["BlockIndex"]) + 1
        if more is not None:
            until = self._registry.clock.now() + config.page_token_seconds
            answer["NextToken"] = self._registry.tokens.page(listing=listing, next_index=more, expires=until)
        return json_response(200, answer)

    # -- GetSnapshotBlock --------------------------------------------------------

    def get(self, request: Request, snapshot_id: str, index_text: str) -> Response:
        registry, config = self._registry, self._registry.config
        if config.quotas_enabled:
            rate = config.account_rate(config.get_per_account, request.region)
            if not registry.limits.take(("GetSnapshotBlock", request.account, request.region), rate):
                raise account_throttled("GetSnapshotBlock")
            if not registry.limits.take(("GetSnapshotBlock", snapshot_id), config.get_per_snapshot):
                raise snapshot_throttled("GetSnapshotBlock", snapshot_id)
        index = block_index(index_text)
        with registry.lock:
            snapshot = access.readable(registry, snapshot_id, account=request.account, region=request.region)
            good = registry.tokens.block_is_good(
                request.query.get("blockToken", ""),
                snapshot_id=snapshot_id,
                index=index,
                now=registry.clock.now(),
                listing=None if config.relist_invalidates == "never" else snapshot.listing,
            )
            if not good:
                raise invalid("INVALID_BLOCK_TOKEN", f"The token is not valid for block {index} or has expired.")
            slot = snapshot.blocks.get(index)
            if slot is None:
                raise invalid("INVALID_BLOCK", f"Block {index} is not allocated in '{snapshot_id}'.")
            registry.store.retain(slot)  # the snapshot may be deleted while its block is read
        try:
            access.check_key(registry, snapshot)
            data = registry.store.read(slot)
            digest = registry.store.digest(slot)
        finally:
            registry.store.release(slot)
        headers = {
            "Content-Type": "application/octet-stream",
            "x-amz-Data-Length": str(BLOCK_SIZE),
            "x-amz-Checksum": base64.b64encode(digest).decode(),
            "x-amz-Checksum-Algorithm": "SHA256",
        }
        return Response(200, headers, data)


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise invalid_parameter(f"{name} must be a number.")
    return int(text)


def _union(first: BlockMap, second: BlockMap, start: int) -> Iterator[tuple[int, int | None, int | None]]:
    """``(index, slot in first, slot in second)`` of every position allocated in either, ascending."""
    for number in sorted(first.bucket_numbers() | second.bucket_numbers()):
        if (number + 1) << BUCKET_BITS <= start:
            continue
        ours, theirs = first.bucket_items(number), second.bucket_items(number)
        for index in sorted(ours.keys() | theirs.keys()):
            if index >= start:
                yield index, ours.get(index), theirs.get(index)


def _changes(first: BlockMap, second: BlockMap, window: _Window) -> tuple[list[tuple[int, bool, bool]], int | None]:
    """Changed blocks among the window's positions, and where the next page starts (``None``: the end)."""
    changed: list[tuple[int, bool, bool]] = []
    for scanned, (index, in_first, in_second) in enumerate(_union(first, second, window.start)):
        if scanned == window.scan:
            return changed, index
        if in_first != in_second:  # equal slots hold equal data
            changed.append((index, in_first is not None, in_second is not None))
    return changed, None
