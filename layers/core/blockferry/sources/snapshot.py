"""An EBS snapshot as a source of blocks."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from blockferry.aws.ebs.client import EbsDirect, Page
from blockferry.aws.ebs.refusals import StaleToken
from blockferry.core.blocks import BlockRange
from blockferry.core.errors import IncompleteTransfer, RetryLater
from blockferry.core.ports import Block, BlockRef
from blockferry.sources.listing import walk

MAX_RELISTS = 8
"""Lists of one block in a row that each come back with a token which is already stale: give up then."""


class SnapshotSource:
    """The allocated blocks of one completed snapshot.

    Listed just before they are read, because tokens expire and may change when the snapshot is listed again (EBS
    user guide, "elements of the direct APIs"). A refused token is therefore no failure: the index is listed again.
    """

    def __init__(self, ebs: EbsDirect, snapshot_id: str, *, total_blocks: int | None = None) -> None:
        self._ebs = ebs
        self._snapshot_id = snapshot_id
        # A range of a larger volume may lie partly behind this one's end, where nothing may be asked for.
        self._total_blocks = total_blocks
        self._lock = threading.Lock()
        self._fresh: dict[int, str] = {}

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        """The allocated blocks of ``within``, ascending. Raises what ``walk`` raises."""

        def ask(start: int, window: int, page_token: str | None) -> Page:
            return self._ebs.list_blocks(self._snapshot_id, start=start, window=window, page_token=page_token)

        own = within if self._total_blocks is None else within.before(self._total_blocks)
        if own is not None:
            for index, token in walk(own, ask, lambda entry: entry[0], what=self._snapshot_id):
                yield BlockRef(index, token)

    def read(self, ref: BlockRef) -> Block:
        """Read a listed block. Raises what ``EbsDirect.get_block`` raises, but mends stale tokens itself."""
        token = self._fresh.get(ref.index, ref.handle)
        for _ in range(MAX_RELISTS):
            try:
                data, digest = self._ebs.get_block(self._snapshot_id, ref.index, token)
                return Block(ref.index, data, digest)
            except StaleToken:
                token = self._list_again(ref.index, stale=token)
        raise RetryLater(
            f"the token of block {ref.index} of {self._snapshot_id} was refused {MAX_RELISTS} times in a row, each "
            "time right after listing it again"
        )

    def _list_again(self, index: int, *, stale: str) -> str:
        with self._lock:
            # Another thread may have listed this neighbourhood while this one waited.
            known = self._fresh.get(index)
            if known is not None and known != stale:
                return known
            self._ebs.counts.retried("GetSnapshotBlock", "StaleToken")
            # Replaced, not extended: memory stays bounded by one page however often tokens go stale.
            self._fresh = dict(self._first_entries(index))
            token = self._fresh.get(index)
        if token is None:
            raise IncompleteTransfer(
                f"block {index} of {self._snapshot_id} was listed before and is not listed any more; a completed "
                "snapshot does not change, so nothing read from it can be trusted"
            )
        return token

    def _first_entries(self, index: int) -> tuple[tuple[int, str], ...]:
        page = self._ebs.list_blocks(self._snapshot_id, start=index, window=1)
        while not page.entries and page.next_token:
            page = self._ebs.list_blocks(self._snapshot_id, start=index, window=1, page_token=page.next_token)
        return page.entries
