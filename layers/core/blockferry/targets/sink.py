"""A pending EBS snapshot as a sink of blocks."""

from __future__ import annotations

import math

from blockferry.aws.ebs.client import EbsDirect
from blockferry.core.ports import Block


class SnapshotSink:
    """Writes blocks to one snapshot that StartSnapshot began. Writing a block again replaces it.

    ``started_seconds_ago``: see ``EbsDirect.was_started``.
    """

    def __init__(self, ebs: EbsDirect, snapshot_id: str, *, started_seconds_ago: float = math.inf) -> None:
        ebs.was_started(snapshot_id, seconds_ago=started_seconds_ago)
        self._ebs = ebs
        self._snapshot_id = snapshot_id

    def write(self, block: Block) -> None:
        """Put the block under its digest. Raises what ``EbsDirect.put_block`` raises."""
        self._ebs.put_block(self._snapshot_id, block.index, block.data, block.digest)

    def reached(self, index: int) -> None:
        """Nothing waits for the blocks before it."""

    def finish(self, next_index: int) -> int:
        """Nothing is left to do: each block is stored when it is written."""
        return next_index
