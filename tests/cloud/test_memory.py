"""A worker's memory is bounded by its range, not by the volume."""

from __future__ import annotations

from typing import Any

from cloud_rig import PALETTE, CloudRig

WORKER = "blockferry-move-blocks"


RANGES, BLOCKS = 32, 16


def peak_of_workers(cloud: CloudRig, *, size_gib: int) -> float:
    """Highest peak RSS (MiB) of fresh workers that copied 32 ranges of 16 blocks each, spread over the volume."""
    length = size_gib * 2048 // RANGES
    step = length // BLOCKS
    source = cloud.snapshot({i: PALETTE[i % 97] for i in range(0, size_gib * 2048, step)}, size_gib=size_gib)
    cloud.control("lambda/kill", {"function": WORKER})
    targets: list[dict[str, Any]] = [{"region": cloud.recovery}]
    options = {"max_concurrency": 1, "blocks_per_range": length}
    receipt = cloud.copy({"snapshot_id": source, "targets": targets, "options": options})
    assert receipt["changed_blocks"] == RANGES * BLOCKS
    workers = [w for w in cloud.control("lambda/workers")["workers"] if w["function"] == WORKER]
    assert workers
    return max(w["peak_rss_kib"] / 1024 for w in workers)


def test_a_worker_needs_no_more_memory_for_64_gib_than_for_1_gib(cloud: CloudRig) -> None:
    small, large = (peak_of_workers(cloud, size_gib=size) for size in (1, 64))
    print(f"peak RSS of the workers: 1 GiB {small:.1f} MiB, 64 GiB {large:.1f} MiB")
    assert abs(large - small) <= 0.10 * small
