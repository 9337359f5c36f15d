"""Jobs in a new account, which runs ten functions at a time in a Region: its own, and everybody else's."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from cloud_rig import CloudRig, filled
from rig import hashes

NEW_ACCOUNT = 10
SLOW_LIST_MS = 400
"""Keeps a range busy for as long, so that ranges of several jobs overlap."""


def request(snapshot_id: str, region: str, **options: Any) -> dict[str, Any]:
    return {
        "snapshot_id": snapshot_id,
        "targets": [{"region": region}],
        "options": {"blocks_per_range": 100, **options},
    }


@contextmanager
def slow_ranges(cloud: CloudRig) -> Iterator[None]:
    cloud.control("ebs/faults", {"operation": "ListSnapshotBlocks", "action": "latency", "latency_ms": SLOW_LIST_MS})
    yield
    cloud.control("ebs/faults", method="DELETE")


def throttled(cloud: CloudRig, arn: str) -> int:
    """Invocations of a job that Lambda refused, those of its child executions too."""
    client = cloud.client("stepfunctions")
    executions = [arn]
    for found in client.list_map_runs(executionArn=arn)["mapRuns"]:
        children = client.get_paginator("list_executions").paginate(mapRunArn=found["mapRunArn"])
        executions += [child["executionArn"] for page in children for child in page["executions"]]
    count = 0
    for each in executions:
        for page in client.get_paginator("get_execution_history").paginate(executionArn=each):
            failures = (event.get("taskFailedEventDetails", {}) for event in page["events"])
            count += sum(1 for failure in failures if failure.get("error") == "Lambda.TooManyRequestsException")
    return count


def test_two_default_jobs_at_once_leave_each_other_room_in_a_new_account(cloud: CloudRig) -> None:
    limits = cloud.client("lambda").get_account_settings()["AccountLimit"]
    assert limits["ConcurrentExecutions"] == limits["UnreservedConcurrentExecutions"] == NEW_ACCOUNT
    blocks = filled(30)
    source = cloud.snapshot(blocks)

    with slow_ranges(cloud), ThreadPoolExecutor(2) as pool:
        arns = list(pool.map(lambda _: cloud.start(request(source, cloud.recovery)), range(2)))
        ended = list(pool.map(cloud.ended, arns))

    assert [state.status for state in ended] == ["SUCCEEDED"] * 2, [(state.error, state.cause) for state in ended]
    assert [throttled(cloud, arn) for arn in arns] == [0, 0]
    for state in ended:
        assert cloud.held(state.output["targets"][0]["snapshot_id"]) == hashes(blocks)


def test_jobs_that_ask_for_more_than_there_is_starve_each_other_and_finish_all_the_same(cloud: CloudRig) -> None:
    blocks = filled(30)
    source = cloud.snapshot(blocks)

    with slow_ranges(cloud), ThreadPoolExecutor(3) as pool:
        wanted = request(source, cloud.recovery, max_concurrency=NEW_ACCOUNT)
        arns = list(pool.map(lambda _: cloud.start(wanted), range(3)))
        ended = list(pool.map(cloud.ended, arns))

    assert [state.status for state in ended] == ["SUCCEEDED"] * 3, [(state.error, state.cause) for state in ended]
    assert sum(throttled(cloud, arn) for arn in arns) > 0
    for state in ended:
        assert cloud.held(state.output["targets"][0]["snapshot_id"]) == hashes(blocks)
