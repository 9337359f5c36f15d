"""Any history of a volume, synced along any chain, ends as what the volume held, and costs only what has changed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from blockferry.core.blocks import BLOCK_SIZE, BLOCKS_PER_GIB
from blockferry.core.checksums import ZERO_DIGEST
from fakes import content
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from hypothesis.strategies import composite
from rig import ACCOUNT, HOME, RECOVERY, THIRD, Rig, hashes, running_rig

MOST_GIB = 3

RANGE = 1024
"""Two ranges a GiB."""

BORDERS = [
    index
    for border in range(0, MOST_GIB * BLOCKS_PER_GIB + 1, RANGE)
    for index in (border - 1, border)
    if 0 <= index < MOST_GIB * BLOCKS_PER_GIB
]
"""Both sides of every border of ranges and of every size that the volume may have, and both ends of it."""

Edit = tuple[Literal["write", "zero", "remove"], int, int]


@dataclass(frozen=True)
class Night:
    """What happens before a snapshot is taken, and how it is synced.

    ``edits`` are a kind, an index and a seed; ``regions`` the chains that get the snapshot, none when the night is
    skipped; ``base`` picks one of the earlier nights that all of them have, ``None`` lets the job find it.
    """

    grow: bool
    edits: tuple[Edit, ...]
    regions: tuple[str, ...]
    base: int | None


@composite
def nights(draw: st.DrawFn) -> tuple[Night, ...]:
    edit = st.tuples(st.sampled_from(["write", "write", "zero", "remove"]), st.sampled_from(BORDERS), st.integers(1, 3))
    regions = st.sampled_from([(RECOVERY,), (THIRD,), (RECOVERY, THIRD), (THIRD, RECOVERY), ()])
    first = Night(False, tuple(draw(st.lists(edit, max_size=8))), (RECOVERY, THIRD), None)
    later = st.builds(
        Night,
        grow=st.sampled_from([False, False, True]),
        edits=st.lists(edit, max_size=6).map(tuple),
        regions=regions,
        base=st.one_of(st.none(), st.integers(0, 9)),
    )
    return (first, *draw(st.lists(later, min_size=1, max_size=5)))


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with pytest.MonkeyPatch.context() as patch, running_rig(patch, {"volume_snapshot_seconds": 0.0}) as made:
        yield made


class History:
    """A volume, its snapshots night by night, and the chains of copies in two regions."""

    _volumes = 0

    def __init__(self, rig: Rig) -> None:
        History._volumes += 1
        self.rig = rig
        self.volume_id = f"vol-{History._volumes:017x}"
        self.gib = 1
        self.now: dict[int, bytes] = {}
        self.taken: list[str] = []
        self.chains: dict[str, dict[int, str]] = {RECOVERY: {}, THIRD: {}}
        facts = {"volume_id": self.volume_id, "owner": ACCOUNT, "region": HOME, "size": 1}
        rig.control("volumes", facts)

    def passes(self, night: Night) -> None:
        """The night's edits, and its snapshot."""
        if night.grow and self.gib < MOST_GIB:
            self.gib += 1
            self.rig.server.service.registry.volumes[self.volume_id].size_gib = self.gib
        for kind, index, seed in night.edits:
            if index >= self.gib * BLOCKS_PER_GIB:
                continue
            where = f"volumes/{self.volume_id}/blocks/{index}"
            if kind == "remove":
                self.rig.control(where, method="DELETE")
                self.now.pop(index, None)
            else:
                self.now[index] = content(seed if kind == "write" else 0)
                self.rig.post(where, self.now[index])
        made = str(self.rig.client("ec2").create_snapshot(VolumeId=self.volume_id)["SnapshotId"])
        # A second between two snapshots: EC2's times have no finer grain.
        self.rig.control("clock", {"advance": 1})
        assert self.rig.held(made) == hashes(self.now)
        self.taken.append(made)

    def copied(self) -> None:
        """The beginning of both chains."""
        regions = list(self.chains)
        request = {"snapshot_id": self.taken[0], "targets": [{"region": region} for region in regions]}
        receipt = self.rig.copy({**request, "options": {"blocks_per_range": RANGE}})
        for region, target in zip(regions, receipt["targets"], strict=True):
            self.chains[region][0] = target["snapshot_id"]

    def synced(self, regions: Sequence[str], pick: int | None) -> None:
        """The latest snapshot on top of an earlier one, counted and compared."""
        rig, latest = self.rig, len(self.taken) - 1
        common = sorted(set.intersection(*(set(self.chains[region]) for region in regions)))
        base = common[-1] if pick is None else common[pick % len(common)]
        parents = [self.chains[region][base] for region in regions]
        targets: list[dict[str, Any]] = [{"region": region} for region in regions]
        request: dict[str, Any] = {"snapshot_id": self.taken[latest], "options": {"blocks_per_range": RANGE}}
        if pick is None:
            request |= {"follow": True, "targets": targets}
        else:
            named = [{**t, "parent_snapshot_id": parent} for t, parent in zip(targets, parents, strict=True)]
            request |= {"base_snapshot_id": self.taken[base], "targets": named}
        note(f"night {latest} on top of night {base} in {', '.join(regions)}")
        rig.control("stats/reset", {})
        receipt = rig.run("sync", request)
        calls = rig.calls()

        before, after = rig.held(self.taken[base]), rig.held(self.taken[latest])
        changed = {index: digest for index, digest in after.items() if before.get(index) != digest}
        removed = before.keys() - after.keys()
        delta = {**changed, **dict.fromkeys(removed, ZERO_DIGEST.hex())}
        assert calls.get("GetSnapshotBlock", 0) == len(changed)
        assert calls.get("PutSnapshotBlock", 0) == len(regions) * len(delta)
        assert (receipt["changed_blocks"], receipt["removed_blocks"]) == (len(changed), len(removed))
        assert receipt["allocated_blocks"] == len(after)
        assert receipt["bytes_read"] == len(changed) * BLOCK_SIZE
        assert receipt["bytes_written"] == len(regions) * len(delta) * BLOCK_SIZE
        assert receipt["linear_checksum"] == linear(delta)
        assert receipt["source"]["base_snapshot_id"] == self.taken[base]
        for region, parent, target in zip(regions, parents, receipt["targets"], strict=True):
            made = target["snapshot_id"]
            assert target["parent_snapshot_id"] == parent
            assert rig.image_of(made, size_gib=self.gib) == hashes(
                {index: data for index, data in self.now.items() if data != content(0)}
            )
            assert rig.held(made) == {**rig.held(parent), **delta}
            self.chains[region][latest] = made


def linear(digests: dict[int, str]) -> str:
    """SHA-256 over the raw digests in the order of their blocks, in base64."""
    raw = b"".join(bytes.fromhex(digest) for _, digest in sorted(digests.items()))
    return base64.b64encode(hashlib.sha256(raw).digest()).decode()


# A failing history is printed as it is: shrinking runs whole jobs hundreds of times.
@settings(max_examples=14, phases=(Phase.explicit, Phase.generate))
@given(story=nights())
def test_any_history_synced_along_any_chain_equals_the_volume(rig: Rig, story: tuple[Night, ...]) -> None:
    history = History(rig)
    for number, night in enumerate(story):
        history.passes(night)
        if number == 0:
            history.copied()
        elif night.regions:
            history.synced(night.regions, night.base)
