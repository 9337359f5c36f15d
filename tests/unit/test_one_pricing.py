"""The price of one job, as its dry run, its receipt, an inspection and uploads tell it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from blockferry.core.blocks import BLOCK_SIZE, BLOCKS_PER_GIB
from blockferry.local.estimate import estimate_upload
from fakes import content
from rig import HOME, RECOVERY, THIRD, Rig, running_rig

SOURCE, NEAR, FAR = THIRD, HOME, RECOVERY
"""Regions that data leaves at 9.8 cents a GiB, and that it reaches from home for nothing and at 2 cents."""

BLOCKS = {index: content(index + 1) for index in range(40)}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


def request(rig: Rig) -> dict[str, Any]:
    return {
        "source": {"region": SOURCE},
        "snapshot_id": rig.snapshot(BLOCKS, region=SOURCE),
        "targets": [{"region": NEAR}, {"region": FAR}],
    }


def dollars(cost: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: cost[name] for name in names}


def test_a_job_costs_the_same_before_after_and_in_the_report_of_an_inspection(rig: Rig) -> None:
    asked = request(rig)
    dry_run = rig.plan({**asked, "options": {"dry_run": True}})["estimate"]
    inspected = rig.run("inspect", asked)
    receipt = rig.copy(asked)
    direct = next(choice for choice in inspected["choices"] if choice["name"] == "direct")

    moved = {
        "GetSnapshotBlock": round(40 * 0.000003, 6),
        "PutSnapshotBlock": round(2 * 40 * 0.000006, 6),
        "DataTransfer": round(40 / BLOCKS_PER_GIB * (0.098 + 0.02), 6),
    }
    assert dollars(dry_run["cost_usd"], *moved) == moved
    assert dollars(receipt["cost_usd"], *moved) == moved
    assert dry_run["cost_usd"] == direct["cost_usd"]
    assert dry_run["requests"] == inspected["requests"] == direct["requests"]
    assert dry_run["seconds_at_quota"] == inspected["seconds_at_quota"] == direct["seconds"]
    # What an inspection weighs against CopySnapshot has the state machine in it: one range of four transitions.
    machine = 4 * 0.000025 + 0.0000002
    assert direct["one_time_usd"] == pytest.approx(dry_run["cost_usd"]["total"] + machine, abs=2e-6)

    # The plan's first look at the list is no part of a receipt, which counts the workers' and the proof's.
    assert receipt["requests"]["ListSnapshotBlocks"] == dry_run["requests"]["ListSnapshotBlocks"] - 1
    elsewhere = f"(those of {HOME} stand in for unknown ones of {SOURCE}, {FAR})"
    for cost in (dry_run["cost_usd"], receipt["cost_usd"], direct["cost_usd"]):
        assert elsewhere in cost["basis"]


def test_an_upload_to_a_region_is_priced_as_a_jobs_writes_to_it(rig: Rig, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"".join(BLOCKS[index] for index in range(40)))
    uploads = [
        estimate_upload(image, region=region, aws=rig.aws, volume_size_gib=1)["holes_choices"][0]
        for region in (NEAR, FAR)
    ]
    dry_run = rig.plan({**request(rig), "options": {"dry_run": True}})["estimate"]
    (preserve,) = (choice for choice in dry_run["holes_choices"] if choice["holes"] == "preserve")
    assert sum(upload["blocks_written"] for upload in uploads) * BLOCK_SIZE == dry_run["bytes_written"]
    assert sum(upload["usd_once"] for upload in uploads) == pytest.approx(dry_run["cost_usd"]["PutSnapshotBlock"])
    assert sum(upload["usd_a_month"] for upload in uploads) == pytest.approx(preserve["usd_a_month"], abs=2e-6)
    assert preserve["usd_once"] == dry_run["cost_usd"]["total"]
