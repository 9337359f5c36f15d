"""Random histories of snapshots against a model of dictionaries: contents, differences, and space."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from localcloud.ebs.clock import ManualClock
from localcloud.ebs.config import EbsConfig
from localcloud.ebs.messages import Response
from localcloud.ebs.service import EbsService
from localcloud.ebs.testing import HOME_ACCOUNT, REGION

from .ebs_clients import ZEROS, block, checksum, linear

INDICES = (0, 1, 2, 4094, 4095, 4096, 6143)
DATA = (ZEROS, block("a"), block("b"), block("c"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[EbsService]:
    made = EbsService(data_dir=tmp_path, config=EbsConfig(quotas_enabled=False, seal_seconds=0), clock=ManualClock())
    yield made
    made.close()


class History:
    """A service and what its snapshots must hold."""

    def __init__(self, service: EbsService, seed: int) -> None:
        self.service = service
        self.random = random.Random(seed)
        self.completed: dict[str, dict[int, bytes]] = {}

    def call(self, method: str, path: str, *, query: dict[str, str] | None = None, **more: object) -> Response:
        headers = {str(name): str(value) for name, value in dict(more.get("headers", {})).items()}  # type: ignore[call-overload]
        body = more.get("body", b"")
        assert isinstance(body, bytes)
        answer = self.service.handle(method, path, query or {}, headers, body, HOME_ACCOUNT, REGION)
        assert answer.status < 300, bytes(answer.body)
        return answer

    def make(self, parent: str | None) -> str:
        wanted: dict[str, object] = {"VolumeSize": 3}
        if parent is not None:
            wanted["ParentSnapshotId"] = parent
        snapshot_id = str(
            json.loads(self.call("POST", "/snapshots", body=json.dumps(wanted).encode()).body)["SnapshotId"]
        )
        written: dict[int, bytes] = {}
        for _put in range(self.random.randrange(6)):
            index, data = self.random.choice(INDICES), self.random.choice(DATA)
            self.call(
                "PUT",
                f"/snapshots/{snapshot_id}/blocks/{index}",
                body=data,
                headers={
                    "x-amz-data-length": len(data),
                    "x-amz-checksum": checksum(data),
                    "x-amz-checksum-algorithm": "SHA256",
                },
            )
            written[index] = data
        sums = {
            "x-amz-checksum": linear(written),
            "x-amz-checksum-algorithm": "SHA256",
            "x-amz-checksum-aggregation-method": "LINEAR",
        }
        self.call(
            "POST",
            f"/snapshots/completion/{snapshot_id}",
            headers={"x-amz-changedblockscount": len(written), **(sums if written else {})},
        )
        self.completed[snapshot_id] = {**self.completed.get(parent or "", {}), **written}
        return snapshot_id

    def read(self, snapshot_id: str) -> dict[int, bytes]:
        listed = json.loads(self.call("GET", f"/snapshots/{snapshot_id}/blocks").body)["Blocks"]
        return {
            entry["BlockIndex"]: bytes(
                self.call(
                    "GET",
                    f"/snapshots/{snapshot_id}/blocks/{entry['BlockIndex']}",
                    query={"blockToken": entry["BlockToken"]},
                ).body
            )
            for entry in listed
        }

    def differences(self, first: str, second: str) -> dict[int, tuple[bool, bool]]:
        answer = self.call("GET", f"/snapshots/{second}/changedblocks", query={"firstSnapshotId": first})
        return {
            entry["BlockIndex"]: ("FirstBlockToken" in entry, "SecondBlockToken" in entry)
            for entry in json.loads(answer.body)["ChangedBlocks"]
        }

    def delete(self, snapshot_id: str) -> None:
        self.call("POST", "/", body=f"Action=DeleteSnapshot&SnapshotId={snapshot_id}".encode())
        del self.completed[snapshot_id]


@pytest.mark.parametrize("seed", range(4))
def test_snapshots_of_a_lineage_hold_what_was_written_and_nothing_leaks(service: EbsService, seed: int) -> None:
    history = History(service, seed)
    history.make(None)
    for _step in range(40):
        known = list(history.completed)
        if len(known) > 4 and history.random.random() < 0.4:
            history.delete(history.random.choice(known))
        else:
            history.make(history.random.choice(known))
        first, second = history.random.choice(list(history.completed)), list(history.completed)[-1]
        one, two = history.completed[first], history.completed[second]
        assert history.read(first) == one
        assert history.differences(first, second) == {
            index: (index in one, index in two) for index in one.keys() | two.keys() if one.get(index) != two.get(index)
        }
        distinct = {data for blocks in history.completed.values() for data in blocks.values()}
        assert len(service.store) == len(distinct)
    for snapshot_id in list(history.completed):
        assert history.read(snapshot_id) == history.completed[snapshot_id]
        history.delete(snapshot_id)
    assert len(service.store) == 0
