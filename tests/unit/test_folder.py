"""The work bucket: what is stored under which name, what is deleted, and what a missing or damaged object means."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from blockferry.core.blocks import BlockRange
from blockferry.core.errors import BlockferryError, IncompleteTransfer, OutOfTime, RequestRefused, RetryLater
from blockferry.core.quotas import DELETED_OBJECTS
from blockferry.jobs.digests import Stretch
from blockferry.jobs.folder import (
    JOB,
    MISSING,
    RANGE_PAGE,
    RANGES,
    RECEIPT,
    REPORT,
    SEALING,
    STARTED,
    SWEPT,
    JobFolder,
    Marks,
)
from blockferry.jobs.record import Sealing, Swept
from blockferry.jobs.workspace import Workspace
from blockferry.transfer.job import planned_job, save_job, save_started
from botocore.exceptions import ClientError
from job_records import PROOF, job, source, target
from memory_ec2 import refusal
from memory_s3 import PAGE, MemoryS3
from moto import mock_aws
from rig import session

BUCKET = "work"


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        s3 = session().client("s3")
        s3.create_bucket(Bucket=BUCKET)
        yield Workspace(BUCKET, s3)


@pytest.fixture
def folder(workspace: Workspace) -> JobFolder:
    return workspace.folder("copy", "job")


@pytest.fixture
def other(workspace: Workspace) -> JobFolder:
    """That of another job of the same operation."""
    return workspace.folder("copy", "other")


def names(workspace: Workspace) -> list[str]:
    return [item["Key"] for item in workspace.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def stretch(first: int, stop: int, *targets: int) -> Stretch:
    return Stretch(first, stop, targets, (), {}, {})


def test_digests_come_in_the_order_of_their_blocks_and_those_of_other_targets_are_kept(
    folder: JobFolder, other: JobFolder
) -> None:
    for one in (stretch(90, 100, 0), stretch(1_000, 1_100, 0), stretch(90, 100, 1, 12), stretch(100, 1_000, 0)):
        folder.save_stretch(one)
    folder.save_stretch(stretch(90, 100, 0))
    other.save_stretch(stretch(0, 5, 0))
    keys = list(folder.stretch_keys())
    assert keys == [
        "jobs/copy/job/moved/digests/0000000090-0000000100-0.bin",
        "jobs/copy/job/moved/digests/0000000090-0000000100-1.12.bin",
        "jobs/copy/job/moved/digests/0000000100-0000001000-0.bin",
        "jobs/copy/job/moved/digests/0000001000-0000001100-0.bin",
    ]
    assert [folder.stretch(key) for key in keys][:2] == [stretch(90, 100, 0), stretch(90, 100, 1, 12)]


def test_the_keys_of_one_range_are_asked_for_a_few_at_a_time_and_those_of_all_in_whole_pages() -> None:
    pages: list[Any] = []

    class Noting(MemoryS3):
        def paginate(self, *, PaginationConfig: Any = None, **asked: Any) -> Iterator[Any]:
            pages.append(PaginationConfig)
            return super().paginate(**asked)

    folder = Workspace(BUCKET, cast(Any, Noting())).folder("copy", "job")
    for one in (stretch(0, 5, 0), stretch(5, 9, 0), stretch(9, 12, 0)):
        folder.save_stretch(one)
    assert [folder.stretch(key).first for key in folder.stretch_keys()] == [0, 5, 9]
    assert folder.stretches(BlockRange(5, 9)) == [stretch(5, 9, 0)]
    assert pages == [None, {"PageSize": RANGE_PAGE}]


def test_a_damaged_digest_object_is_named(folder: JobFolder) -> None:
    folder.write("moved/digests/0000000000-0000000005-0.bin", b"x")
    (key,) = folder.stretch_keys()
    with pytest.raises(IncompleteTransfer, match=rf"s3://{BUCKET}/{key} is damaged"):
        folder.stretch(key)


def test_plans_have_a_range_on_each_line(folder: JobFolder) -> None:
    assert folder.save_ranges([BlockRange(0, 5), BlockRange(5, 7)]) == 2
    folder.save_missing([(BlockRange(0, 5), (1, 2)), (BlockRange(5, 7), (0,))])
    assert folder.read(RANGES) == b'{"first": 0, "stop": 5}\n{"first": 5, "stop": 7}\n'
    assert folder.read(MISSING) == (
        b'{"first": 0, "stop": 5, "targets": [1, 2]}\n{"first": 5, "stop": 7, "targets": [0]}\n'
    )


def test_targets_that_failed_or_were_given_up_are_known_to_all_of_the_job(folder: JobFolder, other: JobFolder) -> None:
    assert folder.marks() == Marks(frozenset(), frozenset())
    for number in (0, 7, 12):
        folder.mark_failed(number, "no key")
    folder.give_up(7, "its parent differs")
    other.mark_failed(3, "no key")
    assert folder.marks() == Marks(frozenset({0, 12}), frozenset({7}))
    assert (folder.failure(12), folder.given_up(12)) == ("no key", None)
    assert folder.given_up(7) == "its parent differs"
    folder.forget_failures([12, 7, 5])
    assert folder.marks() == Marks(frozenset({0}), frozenset({7}))
    assert other.failure(3) == "no key"
    folder.forget_failures([])


def test_what_ebs_was_asked_to_seal_is_known_by_the_snapshot_and_the_rounds_by_the_job(folder: JobFolder) -> None:
    assert folder.sealing("snap-1") is None
    asked = Sealing(state="asked", changed_blocks=3, linear_checksum="sum=")
    folder.save_sealing("snap-1", asked)
    assert (folder.sealing("snap-1"), folder.sealing("snap-2")) == (asked, None)
    assert folder.rounds() == 0
    folder.save_rounds(2)
    assert folder.rounds() == 2


def test_a_refusal_is_known_with_its_reason(folder: JobFolder, other: JobFolder) -> None:
    assert folder.refusal() is None
    folder.refuse("the image was replaced: ü")
    assert folder.refusal() == "the image was replaced: ü"
    assert other.refusal() is None


def test_an_object_has_one_name_everywhere(folder: JobFolder) -> None:
    assert folder.key("moved/digests/x") == "jobs/copy/job/moved/digests/x"
    assert folder.uri(JOB) == "s3://work/jobs/copy/job/plan/job.json"


def test_a_proof_is_kept_under_what_it_says_and_another_one_is_not_taken_for_it(folder: JobFolder) -> None:
    digest = folder.save_proof(PROOF)
    assert folder.proof(digest) == PROOF
    assert folder.save_proof(PROOF) == digest
    changed = folder.save_proof(PROOF.model_copy(update={"zero_blocks": 99}))
    assert changed != digest
    assert folder.proof(digest) == PROOF
    body = folder.read(f"proved/proof-{changed}.json")
    folder.write(f"proved/proof-{digest}.json", body or b"")
    with pytest.raises(IncompleteTransfer, match=rf"proof-{digest}\.json is not what Complete transfer has stored"):
        folder.proof(digest)
    assert folder.proof(changed).zero_blocks == 99
    with pytest.raises(IncompleteTransfer, match=r"proof-0\.json is gone; redrive from Complete transfer"):
        folder.proof("0")


def test_a_proof_that_is_what_was_stored_but_no_proof_is_named(folder: JobFolder) -> None:
    digest = hashlib.sha256(b"{}").hexdigest()
    folder.write(f"proved/proof-{digest}.json", b"{}")
    with pytest.raises(IncompleteTransfer, match=rf"s3://work/jobs/copy/job/proved/proof-{digest}\.json is damaged"):
        folder.proof(digest)


def test_a_job_is_kept_as_it_was_saved(workspace: Workspace) -> None:
    saved, folder = job(source(), target(), target(snapshot_id="")), workspace.folder("copy", "job-1")
    save_job(folder, saved)
    assert names(workspace) == ["jobs/copy/job-1/plan/job.json"]
    bare = planned_job(folder)
    assert bare is not None
    assert [each.started for each in bare.targets] == [None, None]
    first = save_started(folder, saved)
    assert planned_job(folder) == saved
    assert save_started(folder, saved) == first
    again = saved.model_copy(update={"targets": (saved.targets[0], target(snapshot_id="snap-2"))})
    late = save_started(folder, again, late=True)
    assert late != first
    # What was started late is not the plan's.
    assert planned_job(folder) == saved
    plan = [f"jobs/copy/job-1/plan/{name}.json" for name in ("job", "started")]
    assert names(workspace) == [*plan, f"jobs/copy/job-1/proved/started/{late}.json"]


def test_every_job_that_left_anything_is_found_with_its_operation(workspace: Workspace) -> None:
    for name in ("copy/a/plan/job.json", "copy/b-2/moved/digests/x", "sync/a/receipt.json"):
        workspace.s3.put_object(Bucket=BUCKET, Key=f"jobs/{name}", Body=b"")
    workspace.s3.put_object(Bucket=BUCKET, Key="other/c/plan/job.json", Body=b"")
    found = [(folder.operation, folder.job_id) for folder in workspace.folders()]
    assert found == [("copy", "a"), ("copy", "b-2"), ("sync", "a")]
    assert workspace.earlier_versions() == []


def test_jobs_are_found_on_every_page_of_the_list() -> None:
    s3 = MemoryS3()
    operations, job_ids = [f"operation-{number}" for number in range(2 * PAGE + 1)], [str(n) for n in range(PAGE + 1)]
    for operation in operations:
        for job_id in job_ids:
            s3.objects[f"jobs/{operation}/{job_id}/plan/job.json"] = b""
    for number in range(PAGE + 1):
        s3.objects[f"jobs/zz-{number}/job.json"] = b""
    workspace = Workspace(BUCKET, cast(Any, s3))
    found = [(each.operation, each.job_id) for each in workspace.folders() if not each.operation.startswith("zz")]
    assert found == [(operation, job_id) for operation in operations for job_id in job_ids]
    assert workspace.earlier_versions() == [f"zz-{number}" for number in range(PAGE + 1)]


def test_jobs_of_earlier_versions_are_told_apart(workspace: Workspace) -> None:
    for name in ("nightly/job.json", "nightly/digests/x", "copy/a/plan/job.json", "b/job.json.bak", "c/plan.jsonl"):
        workspace.s3.put_object(Bucket=BUCKET, Key=f"jobs/{name}", Body=b"")
    assert workspace.earlier_versions() == ["nightly"]


RECEIPT_OF = {"status": "SUCCEEDED", "blocks": 3, "duration_seconds": 1.5}


def test_a_receipt_is_written_once_and_told_again(folder: JobFolder) -> None:
    def page(receipt: dict[str, Any]) -> str:
        return f"took {receipt['duration_seconds']}"

    assert folder.save_receipt(RECEIPT_OF, page) == RECEIPT_OF
    assert folder.save_receipt({**RECEIPT_OF, "duration_seconds": 9.0}, page) == RECEIPT_OF
    assert json.loads(folder.read(RECEIPT) or b"") == RECEIPT_OF
    assert folder.read(REPORT) == b"took 1.5"


def test_what_an_inspection_took_is_not_what_makes_two_receipts_differ(folder: JobFolder) -> None:
    first = {**RECEIPT_OF, "inspection": {"requests": {"ListSnapshotBlocks": 3}}}
    folder.save_receipt(first, lambda _receipt: "")
    assert folder.save_receipt({**first, "inspection": {"requests": {}}}, lambda _receipt: "") == first


def test_a_receipt_that_s3_does_not_take_is_not_taken_for_stored() -> None:
    class Contended(MemoryS3):
        def put_object(self, *, IfNoneMatch: str = "", **asked: Any) -> None:
            if IfNoneMatch:
                raise refusal("ConditionalRequestConflict", "PutObject", status=409)
            super().put_object(**asked)

    s3 = Contended()
    folder = Workspace(BUCKET, cast(Any, s3)).folder("copy", "job")
    with pytest.raises(ClientError, match="ConditionalRequestConflict"):
        folder.save_receipt(RECEIPT_OF, lambda _receipt: "")
    assert s3.objects == {}


@pytest.mark.parametrize("changed", [{**RECEIPT_OF, "blocks": 4}, {**RECEIPT_OF, "more": 1}, {"status": "SUCCEEDED"}])
def test_another_receipt_is_neither_replaced_nor_taken_for_the_jobs(folder: JobFolder, changed: dict[str, Any]) -> None:
    folder.save_receipt(changed, lambda _receipt: "")
    with pytest.raises(IncompleteTransfer, match=r"receipt\.json is there already and says something else"):
        folder.save_receipt(RECEIPT_OF, lambda _receipt: "other")
    assert json.loads(folder.read(RECEIPT) or b"") == changed
    assert folder.read(REPORT) == b""


def test_the_mark_of_the_sweeper_is_an_object_of_its_own(
    workspace: Workspace, folder: JobFolder, other: JobFolder
) -> None:
    assert folder.swept() is None
    mark = Swept(at="2026-01-01T00:00:00+00:00", kept=True)
    folder.save_swept(mark)
    assert folder.swept() == mark
    assert names(workspace) == ["jobs/copy/job/swept.json"]
    later = mark.model_copy(update={"kept": False})
    folder.save_swept(later)
    assert (folder.swept(), other.swept()) == (later, None)


def test_deleting_spares_what_is_named_and_every_other_job(workspace: Workspace, folder: JobFolder) -> None:
    for job_id in ("job", "job-2"):
        for name in ("job.json", "plan.jsonl", "image/1", "image/2", "digests/job.json"):
            workspace.folder("copy", job_id).write(name, b"")
    assert folder.delete_below("image/") == 2
    assert folder.delete_all_but(keep=frozenset({"job.json"})) == 2
    assert folder.delete_all_but(keep=frozenset({"job.json"})) == 0
    assert [name for name in names(workspace) if name.startswith("jobs/copy/job/")] == ["jobs/copy/job/job.json"]
    assert len(names(workspace)) == 6


def test_every_page_of_a_long_list_is_deleted(
    workspace: Workspace, folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        folder.write(f"image/{number}", b"")
    whole = workspace.s3.get_paginator

    class TwoAtATime:
        def paginate(self, **arguments: Any) -> Any:
            return whole("list_objects_v2").paginate(**arguments, PaginationConfig={"PageSize": 2})

    monkeypatch.setattr(workspace.s3, "get_paginator", lambda _: TwoAtATime())
    assert folder.delete_all_but(keep=frozenset()) == 5
    assert names(workspace) == []


def test_deleting_stops_when_it_is_late_and_the_next_call_goes_on() -> None:
    s3 = MemoryS3()
    folder = JobFolder("work", cast(Any, s3), "fanout", "job")
    for number in range(2 * DELETED_OBJECTS + 500):
        folder.write(f"image/{number:08}", b"")
    looks = iter([False, True])
    with pytest.raises(OutOfTime, match="2000 objects are deleted, and there are more"):
        folder.delete_below("image/", late=lambda: next(looks))
    assert len(s3.objects) == 500
    # Whatever the time, some go each time: else a job with much would never come to its end.
    assert folder.delete_below("image/", late=lambda: True) == 500
    assert s3.objects == {}


@pytest.mark.parametrize(
    ("code", "kind"),
    [("AccessDenied", RequestRefused), ("InternalError", RetryLater), ("SlowDown", RetryLater)],
)
def test_an_object_that_cannot_be_deleted_is_named_and_asked_for_again_if_that_may_pass(
    workspace: Workspace, folder: JobFolder, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[BlockferryError]
) -> None:
    folder.write(RANGES, b"")
    answer = {"Errors": [{"Key": "jobs/copy/job/plan/ranges.jsonl", "Code": code, "Message": "no"}]}
    monkeypatch.setattr(workspace.s3, "delete_objects", lambda **_: answer)
    told = rf"DeleteObjects of s3://work/jobs/copy/job/plan/ranges\.jsonl: {code}: no"
    with pytest.raises(kind, match=told):
        folder.delete_all_but(keep=frozenset())


def test_only_a_missing_object_reads_as_nothing(workspace: Workspace, folder: JobFolder) -> None:
    assert folder.read(JOB) is None
    assert planned_job(folder) is None
    with pytest.raises(ClientError, match="NoSuchBucket"):
        Workspace("elsewhere", workspace.s3).folder("copy", "job").read(JOB)


@pytest.mark.parametrize("code", ["NoSuchKey", "404"])
def test_a_missing_object_is_told_by_either_code(
    workspace: Workspace, folder: JobFolder, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def gone(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": ""}}, "GetObject")

    monkeypatch.setattr(workspace.s3, "get_object", gone)
    assert folder.read(JOB) is None


@pytest.mark.parametrize("name", [JOB, STARTED])
def test_a_damaged_record_is_named(folder: JobFolder, name: str) -> None:
    save_job(folder, job(source(), target(), job_id="job"))
    folder.write(name, b'{"format": 2')
    with pytest.raises(IncompleteTransfer, match=r"s3://work/jobs/copy/job/plan/job\.json or what .* is damaged"):
        planned_job(folder)
    folder.write(f"{SEALING}snap-1.json", b"{}")
    with pytest.raises(IncompleteTransfer, match=r"s3://work/jobs/copy/job/proved/sealing/snap-1\.json is damaged"):
        folder.sealing("snap-1")
    folder.write(SWEPT, b"{")
    with pytest.raises(IncompleteTransfer, match=r"s3://work/jobs/copy/job/swept\.json is damaged"):
        folder.swept()


def test_s3_checks_each_object_by_its_sha256_and_knows_its_type(
    workspace: Workspace, folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(workspace.s3, "put_object", lambda **arguments: sent.append(arguments))
    folder.write(RANGES, b"x")
    folder.mark_failed(0, "x")
    folder.refuse("x")
    folder.give_up(0, "x")
    folder.save_receipt({}, lambda _receipt: "")
    assert [one.get("IfNoneMatch") for one in sent] == [None] * 4 + ["*", None]
    assert {one["ChecksumAlgorithm"] for one in sent} == {"SHA256"}
    assert [one["ContentType"] for one in sent] == [
        "application/json",
        *["text/plain; charset=utf-8"] * 3,
        "application/json",
        "text/markdown; charset=utf-8",
    ]
