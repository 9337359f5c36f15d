"""Volumes, snapshots and copies under any sequence of events, held against a dictionary of what they must contain."""

from __future__ import annotations

import urllib.request
from contextlib import ExitStack
from typing import Any

from crash_points import Execution, ExecutionFailed, Proving, proving_ground
from fakes import content
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from rig import ACCOUNT, HOME, RECOVERY, THIRD, hashes
from wire import Call, Death, Spoil

INDICES = st.sampled_from([0, 1, 2, 699, 700, 1399, 1400, 2047])
"""Both sides of every border of ranges, and both ends of the volume."""

REGIONS = st.lists(st.sampled_from([HOME, RECOVERY, THIRD]), min_size=1, max_size=2, unique=True)


class SnapshotsAgainstAModel(RuleBasedStateMachine):
    """``contents`` is the model: what every snapshot that exists must hold, block for block."""

    snapshots: Bundle[str] = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self._open = ExitStack()
        self.ground: Proving = self._open.enter_context(proving_ground({"volume_snapshot_seconds": 0.0}))
        self.contents: dict[str, dict[int, bytes]] = {}
        self.abandoned: list[Execution] = []
        self.volume: dict[int, bytes] = {}
        self.volume_id = "vol-0123456789abcdef0"

    @initialize()
    def a_volume(self) -> None:
        facts = {"volume_id": self.volume_id, "owner": ACCOUNT, "region": HOME, "size": 1}
        self.ground.rig.control("volumes", facts)

    @rule(index=INDICES, seed=st.integers(1, 5))
    def write_block(self, index: int, seed: int) -> None:
        self._write(index, content(seed))

    @rule(index=INDICES)
    def write_zeros(self, index: int) -> None:
        self._write(index, content(0))

    @rule(index=INDICES)
    def deallocate_block(self, index: int) -> None:
        self.ground.rig.control(f"volumes/{self.volume_id}/blocks/{index}", method="DELETE")
        self.volume.pop(index, None)

    @rule(target=snapshots)
    def take_snapshot(self) -> str:
        made = self.ground.rig.client("ec2").create_snapshot(VolumeId=self.volume_id)["SnapshotId"]
        self.ground.seal()
        self.contents[made] = dict(self.volume)
        return str(made)

    @rule(target=snapshots, source=snapshots, regions=REGIONS)
    def copy(self, source: str, regions: list[str]) -> Any:
        return self._run(self._job(source, regions))

    @rule(target=snapshots, source=snapshots, regions=REGIONS, at=st.integers(1, 60), took_effect=st.booleans())
    def copy_with_a_crash(self, source: str, regions: list[str], at: int, took_effect: bool) -> Any:
        job = self._job(source, regions)

        def spoiler(call: Call) -> Spoil | None:
            return Death(took_effect) if call.number == at else None

        self.ground.wire.clear(spoiler)
        return self._run(job)

    @rule(source=snapshots, regions=REGIONS, at=st.integers(12, 30))
    def abandon_a_copy(self, source: str, regions: list[str], at: int) -> None:
        job = self._job(source, regions)
        self.ground.wire.clear(lambda call: Death(False) if call.number >= at else None)
        try:
            made = self._run(job)
        except ExecutionFailed:
            self.abandoned.append(job)
        else:
            raise AssertionError(f"a job that always dies has made {made}")

    @rule(snapshot=consumes(snapshots))
    def delete_snapshot(self, snapshot: str) -> None:
        region = self.ground.rig.facts(snapshot)["region"]
        self.ground.rig.client("ec2", region).delete_snapshot(SnapshotId=snapshot)
        del self.contents[snapshot]

    @rule()
    def sweep(self) -> None:
        self.ground.wire.clear()
        for job in self.abandoned:
            self.ground.sweep(job)
        self.abandoned.clear()

    @invariant()
    def every_snapshot_holds_what_the_model_says(self) -> None:
        rig = self.ground.rig
        for snapshot, blocks in self.contents.items():
            assert rig.state(snapshot) == "completed"
            assert rig.held(snapshot) == hashes(blocks), snapshot

    @invariant()
    def nothing_else_exists_but_the_targets_of_jobs_that_may_be_resumed(self) -> None:
        known = {*self.contents, self.ground.source}
        others = {s["snapshot_id"]: s["state"] for s in self.ground.rig.snapshots() if s["snapshot_id"] not in known}
        resumable = {i for job in self.abandoned for i in self.ground.started(job.job_id)}
        assert others == dict.fromkeys(resumable, "pending")

    def teardown(self) -> None:
        try:
            self.sweep()
            self.nothing_else_exists_but_the_targets_of_jobs_that_may_be_resumed()
        finally:
            self._open.close()

    def _write(self, index: int, data: bytes) -> None:
        url = f"{self.ground.rig.server.url}/_local/volumes/{self.volume_id}/blocks/{index}"
        with urllib.request.urlopen(urllib.request.Request(url, data, method="POST")):
            self.volume[index] = data

    def _job(self, source: str, regions: list[str]) -> Execution:
        job = self.ground.execution()
        region = self.ground.rig.facts(source)["region"]
        job.request = {
            **job.request,
            "snapshot_id": source,
            "source": {"region": region},
            "targets": [{"region": name} for name in regions],
        }
        return job

    def _run(self, job: Execution) -> Any:
        receipt, failure = self.ground.redriven(job)
        self.ground.wire.clear()
        if receipt is None:
            assert failure is not None
            raise failure
        made = [target["snapshot_id"] for target in receipt["targets"]]
        blocks = self.contents[job.request["snapshot_id"]]
        assert receipt["allocated_blocks"] == receipt["changed_blocks"] == len(blocks)
        for snapshot in made:
            self.contents[snapshot] = dict(blocks)
        return multiple(*made)


TestSnapshotsAgainstAModel = SnapshotsAgainstAModel.TestCase
# A failing sequence is printed as it is: shrinking runs whole jobs hundreds of times.
TestSnapshotsAgainstAModel.settings = settings(
    max_examples=15, stateful_step_count=15, phases=(Phase.explicit, Phase.generate)
)
