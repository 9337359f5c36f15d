"""The deployed hourly schedule, by the local cloud's clock."""

from __future__ import annotations

from typing import Any

from cloud_rig import CloudRig


def test_the_schedule_runs_the_sweeper_every_hour(cloud: CloudRig) -> None:
    logs = cloud.client("logs")
    name = "blockferry-sweep-jobs"

    def finished() -> int:
        pages: list[Any] = logs.get_paginator("filter_log_events").paginate(
            logGroupName=f"/aws/lambda/{name}", filterPattern="REPORT"
        )
        return sum(len(page["events"]) for page in pages)

    schedules = cloud.client("scheduler").list_schedules(NamePrefix=name)["Schedules"]
    assert [schedule["GroupName"] for schedule in schedules] == ["blockferry"]
    cloud.until(lambda: finished() >= 1)  # the first run: a rate without a start date begins at once
    before = finished()

    for hour in range(1, 3):
        cloud.control("clock", {"advance": 3600})
        cloud.until(lambda hour=hour: finished() == before + hour)  # type: ignore[misc]

    deliveries = [
        each for each in cloud.control("events/deliveries")["deliveries"] if each["origin"] == schedules[0]["Arn"]
    ]
    assert {each["outcome"] for each in deliveries} == {"delivered"}
