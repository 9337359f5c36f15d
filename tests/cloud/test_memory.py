"""A worker's memory is bounded by its range, not by the volume."""

from __future__ import annotations

from typing import Any

from cloud_rig import PALETTE, CloudRig

WORKER = "blockferry-move-blocks"


def peak_of_workers(cloud: CloudRig, blocks: dict[int, bytes], size_gib: int) -> float:
    """Highest peak RSS (MiB) of fresh workers that copied these blocks."""
    source = cloud.snapshot(blocks, size_gib=size_gib)
    cloud.control("lambda/kill", {"function": WORKER})
    targets: list[dict[str, Any]] = [{"region": cloud.recovery}]
    receipt = cloud.copy({"snapshot_id": source, "targets": targets, "options": {"max_concurrency": 1}})
    assert receipt["changed_blocks"] == len(blocks)
    workers = [w for w in cloud.control("lambda/workers")["workers"] if w["function"] == WORKER]
    assert workers
    return max(w["peak_rss_kib"] / 1024 for w in workers)


def test_a_worker_needs_no_more_memory_for_64_gib_than_for_1_gib(cloud: CloudRig) -> None:
    small = peak_of_workers(cloud, {index: PALETTE[index % 97] for index in range(0, 2048, 4)}, 1)
    large = peak_of_workers(cloud, {index: PALETTE[index % 97] for index in range(0, 64 * 2048, 256)}, 64)
    print(f"peak RSS of the workers: 1 GiB {small:.1f} MiB, 64 GiB {large:.1f} MiB")
    assert large <= small * 1.10
