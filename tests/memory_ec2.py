"""The snapshots of one region as EC2 tells of them, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from blockferry.aws.snapshots import EXECUTION_TAG
from botocore.exceptions import ClientError
from job_records import EXECUTION

MOST_VALUES = 200
"""Values of one filter; EC2 refuses more."""


def refusal(code: str, operation: str, *, message: str = "refused", status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


def described(snapshot_id: str, *, state: str = "completed", tags: Mapping[str, str] | None = None, **more: Any) -> Any:
    """A snapshot as DescribeSnapshots shows it; without ``tags`` it has that of the job's execution."""
    tags = {EXECUTION_TAG: EXECUTION.mark} if tags is None else tags
    return {
        "SnapshotId": snapshot_id,
        "State": state,
        "VolumeSize": 1,
        "StartTime": datetime(2026, 1, 1, tzinfo=UTC),
        "OwnerId": "111122223333",
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        **more,
    }


class MemoryEc2:
    """DescribeSnapshots (pages of one snapshot), CreateTags, DeleteSnapshot and the default of encryption.

    ``errors`` are raised by the operation of that name. Everything belongs to ``self`` unless its OwnerId says another.
    """

    def __init__(self, *snapshots: Any, encrypts: bool = False) -> None:
        self.snapshots = {snapshot["SnapshotId"]: snapshot for snapshot in snapshots}
        self.encrypts = encrypts
        self.errors: dict[str, Exception] = {}
        self.calls: Counter[str] = Counter()

    def _called(self, operation: str) -> None:
        self.calls[operation] += 1
        if operation in self.errors:
            raise self.errors[operation]

    def _found(self, snapshot_ids: list[str], filters: list[Any], owners: list[str]) -> list[Any]:
        found = [s for i, s in sorted(self.snapshots.items()) if not snapshot_ids or i in snapshot_ids]
        if "self" in owners:
            found = [snapshot for snapshot in found if snapshot.get("OwnerId") == "111122223333"]
        for one in filters:
            if len(one["Values"]) > MOST_VALUES:
                raise refusal("FilterLimitExceeded", "DescribeSnapshots")
            found = [snapshot for snapshot in found if _value(snapshot, one["Name"]) in one["Values"]]
        return found

    def describe_snapshots(self, *, SnapshotIds: list[str]) -> Any:
        self._called("DescribeSnapshots")
        return {"Snapshots": self._found(SnapshotIds, [], [])}

    def get_paginator(self, operation: str) -> MemoryEc2:
        assert operation == "describe_snapshots"
        return self

    def paginate(self, *, Filters: list[Any], OwnerIds: list[str] | None = None) -> Iterator[Any]:
        self._called("DescribeSnapshots")
        for snapshot in self._found([], Filters, OwnerIds or []):
            yield {"Snapshots": [snapshot]}

    def create_tags(self, *, Resources: list[str], Tags: list[dict[str, str]]) -> None:
        self._called("CreateTags")
        for resource in Resources:
            held = {tag["Key"]: tag["Value"] for tag in self.snapshots[resource]["Tags"]}
            held |= {tag["Key"]: tag["Value"] for tag in Tags}
            self.snapshots[resource]["Tags"] = [{"Key": key, "Value": value} for key, value in held.items()]

    def delete_snapshot(self, *, SnapshotId: str) -> None:
        self._called("DeleteSnapshot")
        if SnapshotId not in self.snapshots:
            raise refusal("InvalidSnapshot.NotFound", "DeleteSnapshot")
        del self.snapshots[SnapshotId]

    def get_ebs_encryption_by_default(self) -> Any:
        self._called("GetEbsEncryptionByDefault")
        return {"EbsEncryptionByDefault": self.encrypts}


def _value(snapshot: Any, name: str) -> str | None:
    if name.startswith("tag:"):
        found = [tag["Value"] for tag in snapshot["Tags"] if tag["Key"] == name.removeprefix("tag:")]
        return found[0] if found else None
    return str(snapshot[{"snapshot-id": "SnapshotId", "status": "State"}[name]])
