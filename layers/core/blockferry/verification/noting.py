"""What a call of a verification notes, and how a snapshot is held against an archive of any kind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock

from blockferry.core.blocks import BlockRange, blocks_of_volume
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import move
from blockferry.core.pacing import Pace
from blockferry.core.ports import Block, BlockRef
from blockferry.core.retry import Deadline
from blockferry.jobs.call import JobCall
from blockferry.sources.snapshot import SnapshotSource
from blockferry.verification.record import MOST_FINDINGS, Code, Finding, Verification

GROUP = 64
"""Blocks of which a sample takes all or none, when an archive is compared with a snapshot: those of a segment."""


@dataclass
class Notes:
    """What is found, by several threads."""

    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self.counts[name] = self.counts.get(name, 0) + number

    def add(self, code: Code, object: str, first: int, stop: int, message: str) -> None:
        with self._lock:
            if len(self.findings) < MOST_FINDINGS:
                self.findings.append(Finding(code=code, object=object, first=first, stop=stop, message=message))
            else:
                self.more += 1

    def take(self, others: Notes) -> None:
        """Add those of a part of the work, which is over."""
        for name, number in others.counts.items():
            self.count(name, number)
        for each in others.findings:
            self.add(each.code, each.object, each.first, each.stop, each.message)
        self.more += others.more


def is_chosen(plan: Verification, name: str) -> bool:
    """Whether a sample has this object or group: the same seed chooses the same ones."""
    if plan.sample_percent >= 100:
        return True
    drawn = hashlib.sha256(f"{plan.seed}/{name}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") < plan.sample_percent / 100 * 2**64


def difference(ours: bytes | None, theirs: bytes | None, other: str) -> str:
    if theirs is None:
        return f"the archive holds it, and {other} does not"
    if ours is None:
        return f"{other} holds it, and the archive does not"
    return f"{other} holds something else"


def compared(
    plan: Verification,
    held: Mapping[int, bytes | None],
    rest: BlockRange,
    notes: Notes,
    call: JobCall,
    *,
    size_gib: int,
    deadline: Deadline,
) -> int:
    """Hold the blocks of the snapshot against those that the archive holds, by their digests; ``None`` stands for one
    that cannot be read, which is told elsewhere. Returns where to go on."""
    name = plan.snapshot_id or ""
    ebs = call.ebs(plan.place.identity)
    comparing = _Comparing(plan, SnapshotSource(ebs, name, total_blocks=blocks_of_volume(size_gib)), held, notes)
    moved = move(
        rest,
        comparing,
        [],
        holes=HolePolicy.PRESERVE,
        threads=call.throughput.min_threads,
        deadline=deadline,
        pace=Pace(plan.blocks_per_second, clock=call.clock),
    )
    # What lies behind is looked at again by the next call.
    notes.count("compared", sum(block < moved.next_index for block in comparing.compared))
    for block in sorted(held.keys() - comparing.listed):
        if block < moved.next_index and held[block] is not None:
            notes.add("content", name, block, block + 1, f"the archive holds it, and {name} does not")
    return moved.next_index


class _Comparing:
    """The blocks of a snapshot; reading one holds it against the archive, and nothing is kept of it."""

    def __init__(
        self, plan: Verification, snapshot: SnapshotSource, held: Mapping[int, bytes | None], notes: Notes
    ) -> None:
        self._plan = plan
        self._snapshot = snapshot
        self._held = held
        self._notes = notes
        self.listed: set[int] = set()
        self.compared: set[int] = set()

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        for ref in self._snapshot.blocks(within):
            self.listed.add(ref.index)
            if is_chosen(self._plan, f"blocks/{ref.index // GROUP}"):
                yield ref

    def read(self, ref: BlockRef) -> Block:
        block = self._snapshot.read(ref)
        name = self._plan.snapshot_id or ""
        ours = self._held.get(ref.index)
        if ours is None and ref.index in self._held:
            return Block(ref.index, block.data, block.digest, unchanged=True)
        if ours != block.digest:
            self._notes.add("content", name, ref.index, ref.index + 1, difference(ours, block.digest, name))
        self.compared.add(ref.index)
        return Block(ref.index, block.data, block.digest, unchanged=True)
