"""How many workers a job gets, and what its operator hears of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from blockferry.cli.render import receipt_table
from blockferry.jobs.folder import REPORT
from blockferry.requests.parts import TransferOptions
from fakes import content
from rig import RECOVERY, Rig, running_rig

MOST = 14
"""Workers whose networks carry a thousand blocks a second, read and written once: 600 Mbit/s each."""

REFUSED: tuple[int, dict[str, Any]] = (403, {"__type": "AccessDeniedException", "message": "not authorized"})


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


def account(limit: int, unreserved: int | None = None) -> tuple[int, dict[str, Any]]:
    left = limit if unreserved is None else unreserved
    return 200, {"AccountLimit": {"ConcurrentExecutions": limit, "UnreservedConcurrentExecutions": left}}


def planned(rig: Rig, settings: tuple[int, dict[str, Any]], **options: Any) -> dict[str, Any]:
    """The estimate of a copy of a volume of 2,048 blocks, in ranges of 10 blocks if not said otherwise."""
    rig.aws.account_settings = settings
    snapshot = rig.snapshot({1: content(1)})
    wanted = {"blocks_per_range": 10, **options, "dry_run": True}
    pointer = rig.plan({"snapshot_id": snapshot, "targets": [{"region": RECOVERY}], "options": wanted})
    estimate: dict[str, Any] = pointer["estimate"]
    assert pointer["max_concurrency"] == estimate["workers"]
    return estimate


@pytest.mark.parametrize(
    ("unreserved", "workers"),
    [(1000, 14), (50, 14), (36, 14), (34, 13), (25, 10), (24, 9), (10, 4), (5, 2), (2, 1), (1, 1), (0, 1)],
)
def test_a_job_leaves_room_for_another_one_and_for_other_functions(rig: Rig, unreserved: int, workers: int) -> None:
    found = planned(rig, account(1000, unreserved))

    assert found["workers"] == workers
    assert 2 * workers < unreserved or workers == 1
    assert [warning["code"] for warning in found["warnings"]] == ["account_concurrency"] * (workers < MOST)


def test_what_is_reserved_for_other_functions_is_not_planned_with(rig: Rig) -> None:
    found = planned(rig, account(1000, 10))

    [warning] = found["warnings"]
    assert found["workers"] == 4
    assert found["workers_because"] == "the account's Lambda concurrency in us-east-1"
    assert "planned with 4 workers instead of 14" in warning["message"]
    assert "runs 10 functions at a time in this account in us-east-1 (limit 1000" in warning["message"]
    assert "L-B99A9384" in warning["message"]


def test_a_given_number_may_take_all_that_the_account_has(rig: Rig) -> None:
    found = planned(rig, account(10), max_concurrency=10)

    assert (found["workers"], found["workers_because"], found["warnings"]) == (10, "options.max_concurrency", [])


def test_a_given_number_above_the_accounts_is_lowered_and_said_so(rig: Rig) -> None:
    found = planned(rig, account(10), max_concurrency=50)

    assert found["workers"] == 10
    assert [warning["code"] for warning in found["warnings"]] == ["account_concurrency"]
    assert "10 workers instead of 50" in found["warnings"][0]["message"]


def test_a_given_number_above_what_saturates_a_snapshot_is_taken(rig: Rig) -> None:
    assert planned(rig, account(1000), max_concurrency=50)["workers"] == 50


def test_there_is_no_worker_without_a_range(rig: Rig) -> None:
    found = planned(rig, account(10), blocks_per_range=1024)

    assert (found["workers"], found["workers_because"], found["warnings"]) == (2, "one for each of 2 ranges", [])


@pytest.mark.parametrize("asked", [None, 3])
def test_an_account_that_cannot_be_looked_at_is_a_warning(rig: Rig, asked: int | None) -> None:
    found = planned(rig, REFUSED, max_concurrency=asked)

    [warning] = found["warnings"]
    assert found["workers"] == (asked or MOST)
    assert warning["code"] == "account_concurrency_unknown"
    assert "AccessDeniedException: not authorized" in warning["message"]
    assert warning["message"].endswith("Allow lambda:GetAccountSettings")


def test_the_share_of_a_worker_is_that_of_those_that_run(rig: Rig) -> None:
    rig.aws.account_settings = account(10)
    snapshot = rig.snapshot({1: content(1)})
    pointer = rig.plan(
        {
            "snapshot_id": snapshot,
            "targets": [{"region": RECOVERY}],
            "options": {"blocks_per_range": 10, "max_concurrency": 40},
        }
    )
    job = rig.job(pointer["job_id"])
    assert job is not None
    assert (job.max_concurrency, job.blocks_per_second) == (10, 100.0)


def test_receipt_report_and_terminal_name_workers_and_warnings(rig: Rig) -> None:
    rig.aws.account_settings = account(10)
    snapshot = rig.snapshot({1: content(1), 2000: content(2)})
    receipt = rig.copy(
        {"snapshot_id": snapshot, "targets": [{"region": RECOVERY}], "options": {"blocks_per_range": 100}}
    )
    report = rig.folder(receipt["job_id"]).read(REPORT)

    assert receipt["workers"] == 4
    assert [warning["code"] for warning in receipt["warnings"]] == ["account_concurrency"]
    assert report is not None
    assert "Warning: planned with 4 workers instead of 14" in report.decode()
    table = receipt_table(receipt)
    assert "4 (the account's Lambda concurrency in us-east-1)" in table
    assert "planned with 4 workers instead of 14" in table


def test_a_job_that_is_planned_again_keeps_its_workers(rig: Rig) -> None:
    request = {
        "snapshot_id": rig.snapshot({1: content(1)}),
        "targets": [{"region": RECOVERY}],
        "options": {"blocks_per_range": 10},
    }
    rig.aws.account_settings = account(10)
    first = rig.plan(request, job_id="again")
    rig.aws.account_settings = account(1000)

    assert rig.plan(request, job_id="again") == first


def test_the_default_is_to_plan() -> None:
    assert TransferOptions().max_concurrency is None
