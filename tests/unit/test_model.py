"""Volumes, snapshots, copies and syncs under any sequence of events, held against a dictionary of what they contain."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from blockferry.core.blocks import BLOCK_SIZE, BLOCKS_PER_GIB
from crash_points import Execution, Proving, Scenario, proving_ground
from deployment import ExecutionFailed
from fakes import content
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from rig import ACCOUNT, HOME, NOISE, RECOVERY, THIRD, ZEROS, hashes
from wire import Death, Spoiler, untouched

INDICES = st.sampled_from([0, 1, 2, 1023, 1024, 2047, 2048, 3071, 4095])
"""Both sides of every border of ranges, and both ends of the volume, of one GiB and of two."""

Edit = tuple[str, int, int]

EDITS = st.lists(
    st.tuples(st.sampled_from(["write", "write", "zero", "remove"]), INDICES, st.integers(1, 3)), max_size=5
)
"""What happens to the volume before a snapshot is taken: a kind, an index, a seed."""

OPTIONS = {"blocks_per_range": 1024}

ENCRYPTED = st.sampled_from([None, None, True])
"""What a copy asks for."""

REGIONS = st.lists(st.sampled_from([HOME, RECOVERY, THIRD]), min_size=1, max_size=2, unique=True)

CRASHES = st.one_of(st.none(), st.tuples(st.integers(1, 60), st.booleans()))
"""At which call, and whether it took effect; or no crash at all."""


def dies(crash: tuple[int, bool] | None) -> Spoiler:
    if crash is None:
        return untouched
    at, took_effect = crash
    return lambda call: Death(took_effect) if call.number == at else None


class SnapshotsAgainstAModel(RuleBasedStateMachine):
    """``contents`` is the model: what every snapshot that exists must hold, block for block.

    Of those that a sync or an upload had a part in, ``synced``, what a volume made of them would read: there a hole and
    a block of zeros are the same, unless the snapshot is encrypted. There a block of zeros that somebody wrote must not
    be a hole.
    """

    snapshots: Bundle[str] = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self._open = ExitStack()
        self.ground: Proving = self._open.enter_context(proving_ground())
        self.contents: dict[str, dict[int, bytes]] = {}
        self.sizes: dict[str, int] = {}
        self.synced: set[str] = set()
        self.uploaded: list[str] = []
        self.taken: list[str] = []
        self.clones: dict[str, list[str]] = {}
        self.abandoned: list[Execution] = []
        self.volume: dict[int, bytes] = {}
        self.volume_gib = 1
        self.volume_id = "vol-0123456789abcdef0"

    @initialize(target=snapshots, edits=EDITS)
    def a_volume_and_its_first_copies(self, edits: list[Edit]) -> Any:
        facts = {"volume_id": self.volume_id, "owner": ACCOUNT, "region": HOME, "size": 1}
        self.ground.rig.control("volumes", facts)
        first = self._taken(edits)
        receipt = self._run(self._job(first, [RECOVERY, THIRD]), untouched)
        return multiple(first, *self._made(receipt, first, synced=False))

    @precondition(lambda self: self.volume_gib == 1)
    @rule()
    def grow_volume(self) -> None:
        self.volume_gib = 2
        self.ground.rig.server.service.registry.volumes[self.volume_id].size_gib = 2

    @rule(target=snapshots, edits=EDITS)
    def take_snapshot(self, edits: list[Edit]) -> str:
        return self._taken(edits)

    @rule(target=snapshots, source=snapshots, regions=REGIONS, encrypted=ENCRYPTED, crash=CRASHES)
    def copy(self, source: str, regions: list[str], encrypted: bool | None, crash: tuple[int, bool] | None) -> Any:
        return self._copy(self._job(source, regions, encrypted=encrypted), crash)

    # Once: it writes every block of a volume.
    @precondition(lambda self: not self.uploaded)
    @rule(
        seeds=st.lists(st.integers(0, 2), min_size=2, max_size=4),
        default=st.booleans(),
        encrypted=st.booleans(),
        crash=CRASHES,
    )
    def upload_an_image_and_copy_it(
        self, seeds: list[int], default: bool, encrypted: bool, crash: tuple[int, bool] | None
    ) -> None:
        rig = self.ground.rig
        switch = "enable_ebs_encryption_by_default" if default else "disable_ebs_encryption_by_default"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "disk.img")
            with path.open("wb") as handle:
                handle.truncate(len(seeds) * BLOCK_SIZE)
                for index, seed in enumerate(seeds):
                    if seed:
                        handle.seek(index * BLOCK_SIZE)
                        handle.write(content(seed))
            getattr(rig.client("ec2"), switch)()
            made = self.ground.upload(path)
            rig.client("ec2").disable_ebs_encryption_by_default()
        self.uploaded.append(made)
        self.contents[made] = {index: content(seed) for index, seed in enumerate(seeds)}
        self.sizes[made] = 1
        self.synced.add(made)
        receipt = self._run(self._job(made, [RECOVERY], encrypted=encrypted or None), dies(crash))
        filled = encrypted and not default
        assert receipt["holes"] == ("zero_fill" if filled else "preserve")
        assert receipt["targets"][0]["holes_stand_for"] == ("none" if filled else "noise" if default else "zeros")
        self._made(receipt, made, synced=True)

    # Early enough that EBS is not asked to seal anything yet, here and below.
    @rule(source=snapshots, regions=REGIONS, at=st.integers(12, 23))
    def abandon_a_copy(self, source: str, regions: list[str], at: int) -> None:
        self._abandon(self._job(source, regions), at)

    @precondition(lambda self: self._pairs())
    @rule(target=snapshots, data=st.data(), crash=CRASHES)
    def sync(self, data: st.DataObject, crash: tuple[int, bool] | None) -> Any:
        base, snapshot = data.draw(st.sampled_from(self._pairs()))
        parents = data.draw(st.lists(st.sampled_from(self._parents(base)), min_size=1, max_size=2, unique=True))
        return self._sync(self._delta(base, snapshot, parents), base, parents, crash)

    @precondition(lambda self: self._pairs())
    @rule(target=snapshots, data=st.data(), crash=CRASHES)
    def sync_and_compare_the_parent(self, data: st.DataObject, crash: tuple[int, bool] | None) -> Any:
        base, snapshot = data.draw(st.sampled_from(self._pairs()))
        parents = [data.draw(st.sampled_from(self._parents(base)))]
        job = self._delta(base, snapshot, parents, verify_parent=True)
        return self._sync(job, base, parents, crash)

    @precondition(lambda self: self._pairs())
    @rule(data=st.data(), at=st.integers(12, 26))
    def abandon_a_sync(self, data: st.DataObject, at: int) -> None:
        base, snapshot = data.draw(st.sampled_from(self._pairs()))
        self._abandon(self._delta(base, snapshot, [data.draw(st.sampled_from(self._parents(base)))]), at)

    @precondition(lambda self: self.taken)
    @rule(target=snapshots, data=st.data(), regions=REGIONS, crash=CRASHES)
    def sync_and_follow(self, data: st.DataObject, regions: list[str], crash: tuple[int, bool] | None) -> Any:
        snapshot = data.draw(st.sampled_from(self.taken))
        job = self.ground.execution(
            Scenario(
                "sync",
                {
                    "snapshot_id": snapshot,
                    "follow": True,
                    "targets": [{"region": region} for region in regions],
                    "options": OPTIONS,
                },
            )
        )
        earlier = self.taken[: self.taken.index(snapshot)]
        everywhere = [taken for taken in earlier if all(self._copies(taken, region) for region in regions)]
        if everywhere:
            return self._sync(job, everywhere[-1], None, crash)
        _, failure = self.ground.redriven(job)
        assert failure is not None
        assert failure.refused
        assert "nothing can be built upon" in failure.cause
        return multiple()

    @rule(snapshot=consumes(snapshots))
    def delete_snapshot(self, snapshot: str) -> None:
        region = self.ground.rig.facts(snapshot)["region"]
        self.ground.rig.client("ec2", region).delete_snapshot(SnapshotId=snapshot)
        del self.contents[snapshot]
        self.taken = [taken for taken in self.taken if taken != snapshot]
        self.clones = {of: [clone for clone in made if clone != snapshot] for of, made in self.clones.items()}

    @rule()
    def sweep(self) -> None:
        self.ground.wire.clear()
        for job in self.abandoned:
            self.ground.sweep(job)
        self.abandoned.clear()

    @invariant()
    def every_snapshot_holds_what_the_model_says(self) -> None:
        for snapshot, blocks in self.contents.items():
            facts = self._facts(snapshot)
            assert (facts.state, facts.volume_gib) == ("completed", self.sizes[snapshot])
            held, hole = self.ground.held(snapshot), NOISE if facts.encryption.encrypted else ZEROS
            lost = {index for index, digest in hashes(blocks).items() if held.get(index, hole) != digest}
            assert lost == set(), snapshot
            if snapshot in self.synced:
                assert not_zero(self.ground.held(snapshot)) == not_zero(hashes(blocks)), snapshot
            else:
                assert self.ground.held(snapshot) == hashes(blocks), snapshot

    @invariant()
    def nothing_else_exists_but_the_targets_of_jobs_that_may_be_resumed(self) -> None:
        found = self.ground.rig.server.service.registry.snapshots
        others = {i: s.state for i, s in found.items() if i not in self.contents}
        resumable = {i for job in self.abandoned for i in self.ground.started(job.job_id)}
        assert others == dict.fromkeys(resumable, "pending")

    def teardown(self) -> None:
        try:
            self.sweep()
            self.nothing_else_exists_but_the_targets_of_jobs_that_may_be_resumed()
        finally:
            self._open.close()

    def _taken(self, edits: list[Edit]) -> str:
        """A snapshot of the volume after these edits."""
        rig = self.ground.rig
        for kind, index, seed in edits:
            if index >= self.volume_gib * BLOCKS_PER_GIB:
                continue
            where = f"volumes/{self.volume_id}/blocks/{index}"
            if kind == "remove":
                rig.control(where, method="DELETE")
                self.volume.pop(index, None)
            else:
                self.volume[index] = content(seed if kind == "write" else 0)
                rig.post(where, self.volume[index])
        made = str(rig.client("ec2").create_snapshot(VolumeId=self.volume_id)["SnapshotId"])
        self.ground.seal()
        self.contents[made] = dict(self.volume)
        self.sizes[made] = self.volume_gib
        self.taken.append(made)
        return made

    def _facts(self, snapshot: str) -> Any:
        return self.ground.rig.server.service.registry.snapshots[snapshot]

    def _copies(self, snapshot: str, region: str) -> list[str]:
        return [clone for clone in self.clones.get(snapshot, []) if self._facts(clone).region == region]

    def _pairs(self) -> list[tuple[str, str]]:
        """Every snapshot of the volume with every later one."""
        return [(base, later) for n, base in enumerate(self.taken) for later in self.taken[n + 1 :]]

    def _parents(self, base: str) -> list[str]:
        return [base, *self.clones.get(base, [])]

    def _job(self, source: str, regions: list[str], *, encrypted: bool | None = None) -> Execution:
        request = {
            "snapshot_id": source,
            "source": {"region": self._facts(source).region},
            "targets": [{"region": region, "encrypted": encrypted} for region in regions],
            "options": OPTIONS,
        }
        return self.ground.execution(Scenario("copy", request))

    def _delta(self, base: str, snapshot: str, parents: list[str], **options: bool) -> Execution:
        request = {
            "base_snapshot_id": base,
            "snapshot_id": snapshot,
            "targets": [{"region": self._facts(p).region, "parent_snapshot_id": p} for p in parents],
            "options": {**OPTIONS, **options},
        }
        return self.ground.execution(Scenario("sync", request))

    def _abandon(self, job: Execution, at: int) -> None:
        try:
            made = self._run(job, lambda call: Death(False) if call.number >= at else None)
        except ExecutionFailed:
            self.abandoned.append(job)
        else:
            raise AssertionError(f"a job that always dies has made {made}")

    def _run(self, job: Execution, spoiler: Spoiler) -> dict[str, Any]:
        self.ground.wire.clear(spoiler)
        receipt, failure = self.ground.redriven(job)
        self.ground.wire.clear()
        if receipt is None:
            assert failure is not None
            raise failure
        return receipt

    def _copy(self, job: Execution, crash: tuple[int, bool] | None) -> Any:
        receipt = self._run(job, dies(crash))
        source = job.scenario.request["snapshot_id"]
        held = self.ground.held(source)
        assert receipt["allocated_blocks"] == receipt["changed_blocks"] == len(held)
        made = self._made(receipt, source, synced=source in self.synced)
        assert [self.ground.held(snapshot) for snapshot in made] == [held] * len(made)
        return multiple(*made)

    def _sync(self, job: Execution, base: str, parents: list[str] | None, crash: tuple[int, bool] | None) -> Any:
        receipt = self._run(job, dies(crash))
        snapshot = job.scenario.request["snapshot_id"]
        before, after = self.ground.held(base), self.ground.held(snapshot)
        assert receipt["source"]["base_snapshot_id"] == base
        assert receipt["allocated_blocks"] == len(after)
        assert receipt["changed_blocks"] == sum(before.get(index) != digest for index, digest in after.items())
        assert receipt["removed_blocks"] == len(before.keys() - after.keys())
        used = [target["parent_snapshot_id"] for target in receipt["targets"]]
        if parents is None:
            regions = [target["region"] for target in receipt["targets"]]
            assert all(parent in self._copies(base, region) for parent, region in zip(used, regions, strict=True))
        else:
            assert used == parents
        return multiple(*self._made(receipt, snapshot, synced=True))

    def _made(self, receipt: dict[str, Any], source: str, *, synced: bool) -> list[str]:
        made = [str(target["snapshot_id"]) for target in receipt["targets"]]
        for snapshot in made:
            self.contents[snapshot] = dict(self.contents[source])
            self.sizes[snapshot] = self.sizes[source]
        if synced:
            self.synced.update(made)
        self.clones.setdefault(source, []).extend(made)
        return made


def not_zero(digests: dict[int, str]) -> dict[int, str]:
    """What a volume reads, holes and zeros being the same."""
    (zero,) = hashes({0: content(0)}).values()
    return {index: digest for index, digest in digests.items() if digest != zero}


TestSnapshotsAgainstAModel = SnapshotsAgainstAModel.TestCase
# A failing sequence is printed as it is: shrinking runs whole jobs hundreds of times.
TestSnapshotsAgainstAModel.settings = settings(
    max_examples=8, stateful_step_count=20, phases=(Phase.explicit, Phase.generate)
)
