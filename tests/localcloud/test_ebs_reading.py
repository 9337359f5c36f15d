"""ListSnapshotBlocks, ListChangedBlocks, GetSnapshotBlock as boto3 sees them.

Expectations: EBS user guide, "Read snapshots with EBS direct APIs", "EBS direct APIs concepts" and FAQ; the
bounds and statuses of botocore's ebs/2019-11-02 model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from localcloud.ebs.blockstore import BLOCK_SIZE
from localcloud.ebs.clock import ManualClock
from localcloud.ebs.model import Snapshot
from localcloud.ebs.testing import HOME_ACCOUNT, OTHER_ACCOUNT, RunningServer, running_server

from .ebs_clients import ZEROS, block, client, contents, pages, refused, snapshot_of, start

DAY = 86400.0


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server({"quotas_enabled": False}, clock=ManualClock()) as running:
        yield running


@pytest.fixture
def ebs(server: RunningServer) -> Any:
    return client(server, "ebs")


def indices(page: dict[str, Any]) -> list[int]:
    return [entry["BlockIndex"] for entry in page.get("Blocks", page.get("ChangedBlocks"))]


def token_of(ebs: Any, snapshot_id: str, index: int) -> str:
    (page,) = pages(ebs, "list_snapshot_blocks", SnapshotId=snapshot_id)
    return str(next(entry["BlockToken"] for entry in page["Blocks"] if entry["BlockIndex"] == index))


def with_allocated(server: RunningServer, numbers: range, *, changed: dict[int, bytes] | None = None) -> str:
    """A completed snapshot with many (equal) blocks, made without the API: 1,000 puts would take seconds."""
    registry = server.service.registry
    blocks = registry.new_map()
    zero = registry.store.put(ZEROS, hashlib.sha256(ZEROS).digest())
    for number in numbers:
        registry.store.retain(zero)
        blocks.assign(number, zero)
    for number, data in (changed or {}).items():
        blocks.assign(number, registry.store.put(data, hashlib.sha256(data).digest()))
    template = next(iter(registry.snapshots.values()))
    made = Snapshot(
        snapshot_id=registry.new_id("snap"),
        owner=HOME_ACCOUNT,
        region="us-east-1",
        origin="direct",
        volume_id="vol-ffffffff",
        volume_gib=2,
        start_time=registry.clock.now(),
        encryption=template.encryption,
        lineage=template.lineage,
        blocks=blocks,
    )
    registry.add(made)
    registry.complete(made)
    return made.snapshot_id


@pytest.fixture
def seeded(server: RunningServer, ebs: Any) -> RunningServer:
    snapshot_of(server, ebs, {})
    return server


def test_only_allocated_blocks_are_listed_zero_blocks_too_in_order(server: RunningServer, ebs: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {2000: block("z"), 3: ZEROS, 100: block("m")})
    (page,) = pages(ebs, "list_snapshot_blocks", SnapshotId=snapshot_id)
    assert indices(page) == [3, 100, 2000]
    assert (page["VolumeSize"], page["BlockSize"]) == (1, BLOCK_SIZE)
    assert page["ExpiryTime"].timestamp() == server.service.clock.now() + 7 * DAY
    assert page["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_an_empty_snapshot_has_an_empty_listing(server: RunningServer, ebs: Any) -> None:
    (page,) = pages(ebs, "list_snapshot_blocks", SnapshotId=snapshot_of(server, ebs, {}))
    assert page["Blocks"] == []


def test_listing_begins_at_the_starting_block_index(server: RunningServer, ebs: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {3: ZEROS, 100: ZEROS, 101: ZEROS})
    for first, expected in ((0, [3, 100, 101]), (4, [100, 101]), (101, [101]), (2000, [])):
        (page,) = pages(ebs, "list_snapshot_blocks", SnapshotId=snapshot_id, StartingBlockIndex=first)
        assert indices(page) == expected


def test_fewer_than_100_results_cannot_be_had(seeded: RunningServer, ebs: Any) -> None:
    # "If MaxResults is less than 100, the service returns at least 100" (read page, API reference).
    snapshot_id = with_allocated(seeded, range(250))
    body = seeded.service.handle(
        "GET", f"/snapshots/{snapshot_id}/blocks", {"maxResults": "5"}, {}, b"", HOME_ACCOUNT, "us-east-1"
    )
    assert len(json.loads(body.body)["Blocks"]) == 100
    found = pages(ebs, "list_snapshot_blocks", SnapshotId=snapshot_id, MaxResults=100)
    assert [len(page["Blocks"]) for page in found] == [100, 100, 50]
    assert [index for page in found for index in indices(page)] == list(range(250))


def test_the_default_page_has_10000_blocks(seeded: RunningServer, ebs: Any) -> None:
    snapshot_id = with_allocated(seeded, range(0, 12_000))
    assert [len(p["Blocks"]) for p in pages(ebs, "list_snapshot_blocks", SnapshotId=snapshot_id)] == [10000, 2000]


def test_more_than_10000_results_are_refused(server: RunningServer, ebs: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {})
    with refused(400, "ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.list_snapshot_blocks(SnapshotId=snapshot_id, MaxResults=10001)


def test_one_change_among_1000_blocks_comes_in_the_tenth_page_of_100(seeded: RunningServer, ebs: Any) -> None:
    # The guide's own example of nine empty pages.
    first = with_allocated(seeded, range(1000))
    second = with_allocated(seeded, range(1000), changed={999: block("new")})
    found = pages(ebs, "list_changed_blocks", FirstSnapshotId=first, SecondSnapshotId=second, MaxResults=100)
    assert [indices(page) for page in found] == [[]] * 9 + [[999]]


def test_ranges_that_nobody_wrote_are_not_scanned(seeded: RunningServer, ebs: Any) -> None:
    # The guide's example of blocks 2000 to 2999: the first page begins with 2000.
    first = with_allocated(seeded, range(0))
    second = with_allocated(seeded, range(2000, 3000))
    page = ebs.list_changed_blocks(FirstSnapshotId=first, SecondSnapshotId=second, MaxResults=100)
    assert indices(page) == list(range(2000, 2100))


def test_which_tokens_a_changed_block_has_says_what_happened(server: RunningServer, ebs: Any) -> None:
    first = snapshot_of(server, ebs, {0: block("same"), 1: block("old"), 2: block("gone")})
    second = snapshot_of(server, ebs, {1: block("new"), 3: block("added")}, ParentSnapshotId=first)
    registry = server.service.registry
    registry.snapshots[second].blocks.discard(2)  # as a trimmed block of a volume
    (page,) = pages(ebs, "list_changed_blocks", FirstSnapshotId=first, SecondSnapshotId=second)
    shown = {e["BlockIndex"]: ("FirstBlockToken" in e, "SecondBlockToken" in e) for e in page["ChangedBlocks"]}
    assert shown == {1: (True, True), 2: (True, False), 3: (False, True)}
    changed = next(e for e in page["ChangedBlocks"] if e["BlockIndex"] == 1)
    for snapshot_id, token, data in (
        (first, changed["FirstBlockToken"], block("old")),
        (second, changed["SecondBlockToken"], block("new")),
    ):
        answer = ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=1, BlockToken=token)
        assert answer["BlockData"].read() == data


def test_the_change_list_reports_the_second_snapshots_volume_size(server: RunningServer, ebs: Any) -> None:
    first = snapshot_of(server, ebs, {0: ZEROS})
    second = snapshot_of(server, ebs, {}, size=5, ParentSnapshotId=first)
    (page,) = pages(ebs, "list_changed_blocks", FirstSnapshotId=first, SecondSnapshotId=second)
    assert (page["VolumeSize"], page["ChangedBlocks"]) == (5, [])


def test_the_volume_size_of_lists_can_be_in_bytes(server: RunningServer, ebs: Any) -> None:
    # The guide's CLI example shows 32212254720, its HTTP examples show 3.
    server.service.configure({"listed_volume_size": "bytes"})
    (page,) = pages(ebs, "list_snapshot_blocks", SnapshotId=snapshot_of(server, ebs, {}, size=30))
    assert page["VolumeSize"] == 32212254720


def test_snapshots_of_different_lineage_are_not_compared(server: RunningServer, ebs: Any) -> None:
    first, second = snapshot_of(server, ebs, {0: ZEROS}), snapshot_of(server, ebs, {0: ZEROS})
    with refused(400, "ValidationException", "UNRELATED_SNAPSHOTS"):
        ebs.list_changed_blocks(FirstSnapshotId=first, SecondSnapshotId=second)


def test_both_snapshots_must_be_given(server: RunningServer, ebs: Any) -> None:
    with refused(400, "ValidationException", "INVALID_PARAMETER_VALUE"):
        ebs.list_changed_blocks(SecondSnapshotId=snapshot_of(server, ebs, {}))


def test_a_page_token_lives_an_hour_and_belongs_to_its_listing(seeded: RunningServer, ebs: Any) -> None:
    one, other = with_allocated(seeded, range(300)), with_allocated(seeded, range(300))
    token = ebs.list_snapshot_blocks(SnapshotId=one, MaxResults=100)["NextToken"]
    assert len(token) <= 256
    with refused(400, "ValidationException", "INVALID_PAGE_TOKEN"):
        ebs.list_snapshot_blocks(SnapshotId=other, NextToken=token)
    page = ebs.list_snapshot_blocks(SnapshotId=one, NextToken=token, StartingBlockIndex=7)
    assert indices(page)[0] == 100  # StartingBlockIndex is ignored when there is a token
    seeded.service.clock.advance(3599)
    ebs.list_snapshot_blocks(SnapshotId=one, NextToken=token)
    seeded.service.clock.advance(1)
    with refused(400, "ValidationException", "INVALID_PAGE_TOKEN"):
        ebs.list_snapshot_blocks(SnapshotId=one, NextToken=token)
    with refused(400, "ValidationException", "INVALID_PAGE_TOKEN"):
        ebs.list_snapshot_blocks(SnapshotId=one, NextToken="abc")


def test_a_block_token_lives_seven_days_and_opens_one_block(server: RunningServer, ebs: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {0: block("a"), 1: block("a")})
    twin = snapshot_of(server, ebs, {}, ParentSnapshotId=snapshot_id)
    token = token_of(ebs, snapshot_id, 0)
    for arguments in (
        {"SnapshotId": snapshot_id, "BlockIndex": 1, "BlockToken": token},
        {"SnapshotId": twin, "BlockIndex": 0, "BlockToken": token},
        {"SnapshotId": snapshot_id, "BlockIndex": 0, "BlockToken": token[:-4] + "AAAA"},
        {"SnapshotId": snapshot_id, "BlockIndex": 0, "BlockToken": "AAAA"},
    ):
        with refused(400, "ValidationException", "INVALID_BLOCK_TOKEN"):
            ebs.get_snapshot_block(**arguments)
    server.service.clock.advance(7 * DAY - 1)
    ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=0, BlockToken=token)
    server.service.clock.advance(1)
    with refused(400, "ValidationException", "INVALID_BLOCK_TOKEN"):
        ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=0, BlockToken=token)


@pytest.mark.parametrize(
    ("rule", "after_listing_again", "after_next_page"),
    [("never", True, True), ("new_listing", False, True), ("every_request", False, False)],
)
def test_listing_again_can_void_older_tokens(
    seeded: RunningServer, ebs: Any, rule: str, after_listing_again: bool, after_next_page: bool
) -> None:
    # "They change .. if you run another ListSnapshotBlocks or ListChangedBlocks request" (concepts page).
    seeded.service.configure({"relist_invalidates": rule})
    snapshot_id = with_allocated(seeded, range(200))

    def works(token: str) -> bool:
        answer = seeded.service.handle(
            "GET", f"/snapshots/{snapshot_id}/blocks/0", {"blockToken": token}, {}, b"", HOME_ACCOUNT, "us-east-1"
        )
        return answer.status == 200

    page = ebs.list_snapshot_blocks(SnapshotId=snapshot_id, MaxResults=100)
    token = page["Blocks"][0]["BlockToken"]
    assert works(token)
    ebs.list_snapshot_blocks(SnapshotId=snapshot_id, MaxResults=100, NextToken=page["NextToken"])
    assert works(token) is after_next_page
    token = ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"][0]["BlockToken"]
    ebs.list_snapshot_blocks(SnapshotId=snapshot_id)
    assert works(token) is after_listing_again


@pytest.mark.parametrize(
    "settings", [{"empty_page_every": 2}, {"short_page_every": 3}, {"trailing_empty_page": True}], ids=str
)
def test_uneven_pages_still_name_every_block_once(seeded: RunningServer, ebs: Any, settings: dict[str, Any]) -> None:
    seeded.service.configure(settings)
    first, second = with_allocated(seeded, range(1, 501)), with_allocated(seeded, range(400, 650))
    found = pages(ebs, "list_snapshot_blocks", SnapshotId=first, MaxResults=100)
    assert [index for page in found for index in indices(page)] == list(range(1, 501))
    assert len(found) > 5
    changed = pages(ebs, "list_changed_blocks", FirstSnapshotId=first, SecondSnapshotId=second, MaxResults=100)
    assert [index for page in changed for index in indices(page)] == [*range(1, 400), *range(501, 650)]
    if "empty_page_every" in settings:
        assert any(not indices(page) for page in found)


def test_a_block_that_is_not_allocated_cannot_be_read(server: RunningServer, ebs: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {0: ZEROS})
    with refused(400, "ValidationException", "INVALID_BLOCK_TOKEN"):
        ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=9, BlockToken=token_of(ebs, snapshot_id, 0))


def test_pending_unknown_and_foreign_snapshots_are_not_read(server: RunningServer, ebs: Any) -> None:
    # "It must be completed" (FAQ).
    pending = start(ebs)
    with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.list_snapshot_blocks(SnapshotId=pending)
    with refused(404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"):
        ebs.list_snapshot_blocks(SnapshotId="snap-0123456789abcdef0")
    with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.list_snapshot_blocks(SnapshotId="snapshot-1")
    mine = snapshot_of(server, ebs, {0: ZEROS})
    with refused(403, "AccessDeniedException", "UNAUTHORIZED_ACCOUNT"):
        client(server, "ebs", account=OTHER_ACCOUNT).list_snapshot_blocks(SnapshotId=mine)
    with refused(404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"):
        client(server, "ebs", region="eu-west-1").list_snapshot_blocks(SnapshotId=mine)


def test_privately_shared_snapshots_are_read_public_ones_are_not(server: RunningServer, ebs: Any) -> None:
    # Concepts page: public snapshots are not supported; CloudTrail page: shared ones are.
    ec2, other = client(server, "ec2"), client(server, "ebs", account=OTHER_ACCOUNT)
    snapshot_id = snapshot_of(server, ebs, {0: block("shared")})
    ec2.modify_snapshot_attribute(
        SnapshotId=snapshot_id, Attribute="createVolumePermission", OperationType="add", GroupNames=["all"]
    )
    with refused(403, "AccessDeniedException", "UNAUTHORIZED_ACCOUNT"):
        other.list_snapshot_blocks(SnapshotId=snapshot_id)
    ec2.modify_snapshot_attribute(
        SnapshotId=snapshot_id,
        Attribute="createVolumePermission",
        OperationType="add",
        UserIds=[OTHER_ACCOUNT],
    )
    assert contents(other, snapshot_id) == {0: block("shared")}


def test_outposts_snapshots_are_refused(server: RunningServer, ebs: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {})
    server.service.registry.snapshots[snapshot_id].outpost_arn = "arn:aws:outposts:us-east-1:111122223333:outpost/op-1"
    with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.list_snapshot_blocks(SnapshotId=snapshot_id)
