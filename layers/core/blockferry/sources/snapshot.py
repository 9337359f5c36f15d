"""An EBS snapshot as a source: what a job records of it, and its blocks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import snapshots
from blockferry.aws.call import Call
from blockferry.aws.ebs.client import EbsDirect, Page
from blockferry.aws.ebs.refusals import StaleToken
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.blocks import BLOCK_SIZE, BlockRange, blocks_of_volume
from blockferry.core.errors import IncompleteTransfer, InvalidRequest, RetryLater
from blockferry.core.holes import HoleDecision, HolePolicy
from blockferry.core.ports import Block, BlockRef, BlockSource
from blockferry.jobs.call import JobCall
from blockferry.sources.kind import NOTHING_LISTED, Examined, Extent, JobSource, Listed, Tally, counted, range_of
from blockferry.sources.listing import walk
from blockferry.sources.meaning import for_snapshot
from blockferry.sources.readable import readable_snapshot, refuse_no_access
from blockferry.sources.reading import Reading, reading_snapshot

MAX_RELISTS = 8
"""Lists of one block in a row that each come back with a token which is already stale: give up then."""


class SnapshotOrigin(JobSource):
    """The snapshot whose blocks are moved; ``start_time`` is ISO 8601."""

    snapshot_id: str
    owner_id: str
    volume_id: str
    size_gib: int
    start_time: str
    encrypted: bool
    full_size_bytes: int | None
    lineage_name: str

    @property
    def name(self) -> str:
        return self.snapshot_id

    @property
    def base_snapshot_id(self) -> str | None:
        """The earlier snapshot since which the changes are moved."""
        return None

    @property
    def read_snapshots(self) -> tuple[str, ...]:
        """Ids of the snapshots without which it cannot be read."""
        return (self.snapshot_id,)

    def gone(self, call: JobCall, *, home: str) -> str | None:
        if self.owner_id != self.quota(home).split("/")[0]:
            # Somebody else's may only be shared no more, and be shared again.
            return None
        missing = list(self.read_snapshots)
        for look in range(call.waits.looks):
            if look:
                call.clock.sleep(call.waits.look_seconds)
            try:
                known = {facts.snapshot_id for facts in snapshots.existing(call.ec2(self.identity), missing)}
            except (ClientError, BotoCoreError):
                return None
            missing = [name for name in missing if name not in known]
            if not missing:
                return None
        return (
            f"{' and '.join(missing)} in {self.region} {'is' if len(missing) == 1 else 'are'} there no more: EC2 does "
            "not know it, and what was not moved of it yet cannot be"
        )

    def contradiction(self, allocated: int, linear_checksum: str, holes: HolePolicy) -> str | None:
        if allocated == 0 and self.full_size_bytes:
            return (
                f"{self.snapshot_id} lists no block, but EC2 says that it holds {self.full_size_bytes} bytes; an empty "
                "copy is refused"
            )
        return None

    def allocated(self, call: Call, within: BlockRange) -> frozenset[int]:
        """The blocks that the snapshot itself lists in ``within``."""
        own = SnapshotSource(call.ebs(self.identity), self.snapshot_id, total_blocks=blocks_of_volume(self.size_gib))
        return frozenset(ref.index for ref in own.blocks(within))

    def facts(self) -> dict[str, Any]:
        return {
            "snapshot_id": self.snapshot_id,
            "base_snapshot_id": self.base_snapshot_id,
            "region": self.region,
            "owner_id": self.owner_id,
            "volume_id": self.volume_id,
            "volume_size_gib": self.size_gib,
            "start_time": self.start_time,
            "encrypted": self.encrypted,
        }

    def lineage(self, targets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "name": self.lineage_name,
            "base_snapshot_id": self.base_snapshot_id,
            "snapshot_id": self.snapshot_id,
            "targets": list(targets),
        }


class JobSnapshot(SnapshotOrigin):
    """A snapshot that is read whole."""

    kind: Literal["snapshot"] = "snapshot"

    def open(self, call: JobCall) -> BlockSource:
        return SnapshotSource(call.ebs(self.identity), self.snapshot_id)

    def relist(self, call: JobCall, first: int, stop: int) -> Listed:
        within = range_of(first, stop)
        if within is None:
            return NOTHING_LISTED
        allocated = self.allocated(call, within)
        return Listed(allocated, frozenset(), len(allocated))

    def reading(self, call: JobCall, extent: Extent, tally: Tally) -> Reading | None:
        if self.full_size_bytes is not None:
            allocated, basis = -(-self.full_size_bytes // BLOCK_SIZE), "FullSnapshotSizeInBytes"
        elif counted(self, call, extent.total_blocks, tally):
            allocated, basis = tally.allocated, "ListSnapshotBlocks"
        else:
            return None
        requests = reading_snapshot(
            self.region,
            read=allocated,
            total_blocks=extent.total_blocks,
            blocks_per_range=extent.blocks_per_range,
            changes=False,
        )
        return Reading(allocated=allocated, read=allocated, basis=basis, requests=requests)


@dataclass(frozen=True, kw_only=True)
class ExaminedSnapshot(Examined[JobSnapshot]):
    """A snapshot that was looked at for a full copy of it."""

    snapshot: SnapshotFacts

    def decide(self, asked: HolePolicy | None, *, may_be_encrypted: bool) -> HoleDecision:
        if asked is HolePolicy.SKIP_ZERO and self.encrypted:
            raise InvalidRequest(
                f"options.holes: skip_zero is not safe: {self.source.name} is encrypted, and so are its copies; use "
                "preserve"
            )
        return for_snapshot(asked, self.snapshot, may_be_encrypted=may_be_encrypted)


def examine_snapshot(snapshot_id: str, lineage: str | None, identity: Identity, call: Call) -> ExaminedSnapshot:
    """Look at a snapshot that is to be copied whole. Raises ``InvalidRequest`` when it cannot be read."""
    facts = readable_snapshot(call, identity, snapshot_id)
    refuse_no_access(call.ebs(identity), snapshot_id)
    # Of one that goes on no chain a new one begins, by the name that no other has.
    name = lineage or snapshots.lineage_of(facts) or facts.snapshot_id
    source = JobSnapshot(**snapshot_members(facts, identity, name))
    return ExaminedSnapshot(
        source=source,
        size_gib=facts.size_gib,
        description=facts.description,
        tags=facts.tags,
        own_tags=copy_tags(source),
        encrypted=facts.encrypted,
        snapshot=facts,
    )


def snapshot_members(facts: SnapshotFacts, identity: Identity, lineage: str) -> dict[str, Any]:
    """The members of a record of a snapshot that is read, as one of this ``lineage``."""
    return {
        "region": identity.region,
        "role_arn": identity.role_arn,
        "external_id": identity.external_id,
        "snapshot_id": facts.snapshot_id,
        "owner_id": facts.owner_id,
        "volume_id": facts.volume_id,
        "size_gib": facts.size_gib,
        "start_time": facts.start_time.isoformat(),
        "encrypted": facts.encrypted,
        "full_size_bytes": facts.full_size_bytes,
        "lineage_name": lineage,
    }


def copy_tags(source: SnapshotOrigin) -> dict[str, str]:
    """The tags by which a copy of a snapshot is found again."""
    return {
        snapshots.SOURCE_TAG: source.snapshot_id,
        snapshots.SOURCE_REGION_TAG: source.region,
        snapshots.LINEAGE_TAG: source.lineage_name,
    }


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
