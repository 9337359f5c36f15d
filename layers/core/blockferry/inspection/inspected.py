"""The subject of an inspection: its request, and the facts of each snapshot that it names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blockferry.aws.call import Call
from blockferry.aws.regions import refuse_unknown_regions
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.blocks import blocks_of_volume
from blockferry.core.errors import InvalidRequest
from blockferry.cost.prices import partition_of
from blockferry.inspection import access, chain
from blockferry.inspection.count import Lists, Pair
from blockferry.inspection.tuning import Tuning
from blockferry.requests.inspect import InspectRequest
from blockferry.requests.parts import parse
from blockferry.sources.readable import source_identity


@dataclass(frozen=True)
class Inspected:
    """The snapshots of an inspection, all of them readable.

    ``facts`` is by snapshot id; ``chain`` is from the oldest to the newest, empty where none was asked for;
    ``home_account`` is the account of the state machine.
    """

    request: InspectRequest
    identity: Identity
    home_account: str
    facts: Mapping[str, SnapshotFacts]
    source: SnapshotFacts
    base: SnapshotFacts | None
    chain: tuple[SnapshotFacts, ...]

    @property
    def region(self) -> str:
        """The region of the snapshots."""
        return self.identity.region

    @property
    def total_blocks(self) -> int:
        """Block indices of the source's volume."""
        return blocks_of_volume(self.source.size_gib)

    @property
    def delta_of(self) -> Pair | None:
        """The base and the source, where a base was named."""
        return None if self.base is None else (self.base.snapshot_id, self.source.snapshot_id)

    def lists(self, tuning: Tuning) -> Lists:
        """Every list that the report needs, each once."""
        members = tuple(facts.snapshot_id for facts in self.chain)
        pairs = list(itertools.pairwise(members))
        if self.delta_of is not None:
            pairs.append(self.delta_of)
        return Lists(
            snapshots=tuple(dict.fromkeys((*members, self.source.snapshot_id))),
            pairs=tuple(dict.fromkeys(pairs)),
            chain=members,
            blocks={name: blocks_of_volume(facts.size_gib) for name, facts in self.facts.items()},
            tuning=tuning,
        )


def look_at(request: Mapping[str, Any], execution_arn: str, call: Call) -> Inspected:
    """Parse the request and look at every snapshot that it names. Raises ``InvalidRequest``."""
    parsed = parse(InspectRequest, request, what="inspect")
    aws = call.aws
    identity = source_identity(parsed.source, aws)
    own = partition_of(aws.own_region)
    # A target may be in another partition, of which this one knows nothing: how to get there is what is asked.
    within = [(f"targets[{n}].region", t.region) for n, t in enumerate(parsed.targets) if partition_of(t.region) == own]
    refuse_unknown_regions(aws, [("source.region", identity.region), *within])
    named = [(f"chain[{number}]", snapshot_id) for number, snapshot_id in enumerate(parsed.chain or ())]
    if parsed.base_snapshot_id is not None:
        named.insert(0, ("base_snapshot_id", parsed.base_snapshot_id))
    if parsed.snapshot_id is not None:
        named.insert(0, ("snapshot_id", parsed.snapshot_id))
    facts = access.described(call, identity, named)
    members = tuple(facts[name] for name in chain.in_order([facts[name] for name in parsed.chain or ()]))
    source = facts[parsed.snapshot_id] if parsed.snapshot_id is not None else members[-1]
    if parsed.base_snapshot_id == source.snapshot_id:
        raise InvalidRequest(
            f"base_snapshot_id: {source.snapshot_id} is the newest of the chain; nothing changes between a snapshot "
            "and itself: name an earlier one"
        )
    return Inspected(
        request=parsed,
        identity=identity,
        home_account=execution_arn.split(":")[4],
        facts=facts,
        source=source,
        base=None if parsed.base_snapshot_id is None else facts[parsed.base_snapshot_id],
        chain=members,
    )
