"""The work bucket: what is stored under which name, what is deleted, and what a missing or damaged object means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from blockferry.core.blocks import BlockRange
from blockferry.core.errors import IncompleteTransfer
from blockferry.jobs.digests import Stretch
from blockferry.jobs.record import Sealing
from blockferry.jobs.workspace import Marks, Workspace
from botocore.exceptions import ClientError
from job_records import PROOF, job, source, target
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


def names(workspace: Workspace) -> list[str]:
    return [item["Key"] for item in workspace.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def stretch(first: int, stop: int, *targets: int) -> Stretch:
    return Stretch(first, stop, targets, (), {}, {})


def test_digests_come_in_the_order_of_their_blocks_and_those_of_other_targets_are_kept(workspace: Workspace) -> None:
    for one in (stretch(90, 100, 0), stretch(1_000, 1_100, 0), stretch(90, 100, 1, 12), stretch(100, 1_000, 0)):
        workspace.save_stretch("job", one)
    workspace.save_stretch("job", stretch(90, 100, 0))
    workspace.save_stretch("other", stretch(0, 5, 0))
    keys = list(workspace.stretch_keys("job"))
    assert keys == [
        "jobs/job/digests/0000000090-0000000100-0.bin",
        "jobs/job/digests/0000000090-0000000100-1.12.bin",
        "jobs/job/digests/0000000100-0000001000-0.bin",
        "jobs/job/digests/0000001000-0000001100-0.bin",
    ]
    assert [workspace.stretch(key) for key in keys][:2] == [stretch(90, 100, 0), stretch(90, 100, 1, 12)]


def test_a_damaged_digest_object_is_named(workspace: Workspace) -> None:
    workspace.write("job", "digests/0000000000-0000000005-0.bin", b"x")
    (key,) = workspace.stretch_keys("job")
    with pytest.raises(IncompleteTransfer, match=rf"s3://{BUCKET}/{key} is damaged"):
        workspace.stretch(key)


def test_plans_have_a_range_on_each_line(workspace: Workspace) -> None:
    assert workspace.save_plan("job", [BlockRange(0, 5), BlockRange(5, 7)]) == 2
    workspace.save_missing("job", [(BlockRange(0, 5), (1, 2)), (BlockRange(5, 7), (0,))])
    assert workspace.read("job", "plan.jsonl") == b'{"first": 0, "stop": 5}\n{"first": 5, "stop": 7}\n'
    assert workspace.read("job", "missing.jsonl") == (
        b'{"first": 0, "stop": 5, "targets": [1, 2]}\n{"first": 5, "stop": 7, "targets": [0]}\n'
    )


def test_targets_that_failed_or_were_given_up_are_known_to_all_of_the_job(workspace: Workspace) -> None:
    assert workspace.marks("job") == Marks(frozenset(), frozenset())
    for number in (0, 7, 12):
        workspace.mark_failed("job", number, "no key")
    workspace.give_up("job", 7, "its parent differs")
    workspace.mark_failed("other", 3, "no key")
    assert workspace.marks("job") == Marks(frozenset({0, 12}), frozenset({7}))
    assert (workspace.failure("job", 12), workspace.given_up("job", 12)) == ("no key", None)
    assert workspace.given_up("job", 7) == "its parent differs"
    workspace.forget_failures("job", [12, 7, 5])
    assert workspace.marks("job") == Marks(frozenset({0}), frozenset({7}))
    assert workspace.failure("other", 3) == "no key"
    workspace.forget_failures("job", [])


def test_what_ebs_was_asked_to_seal_is_known_by_the_snapshot_and_the_rounds_by_the_job(workspace: Workspace) -> None:
    assert workspace.sealing("job", "snap-1") is None
    asked = Sealing(state="asked", changed_blocks=3, linear_checksum="sum=")
    workspace.save_sealing("job", "snap-1", asked)
    assert (workspace.sealing("job", "snap-1"), workspace.sealing("job", "snap-2")) == (asked, None)
    assert workspace.rounds("job") == 0
    workspace.save_rounds("job", 2)
    assert workspace.rounds("job") == 2


def test_a_refusal_is_known_with_its_reason(workspace: Workspace) -> None:
    assert workspace.refusal("job") is None
    workspace.refuse("job", "the image was replaced: ü")
    assert workspace.refusal("job") == "the image was replaced: ü"
    assert workspace.refusal("other") is None


def test_an_object_has_one_name_everywhere(workspace: Workspace) -> None:
    assert workspace.key("job", "digests/x") == "jobs/job/digests/x"
    assert workspace.uri("job", "job.json") == "s3://work/jobs/job/job.json"


def test_a_proof_is_kept_as_it_was_saved(workspace: Workspace) -> None:
    workspace.save_proof("job", PROOF)
    assert workspace.proof("job") == PROOF


def test_a_job_is_kept_as_it_was_saved(workspace: Workspace) -> None:
    saved = job(source(), target())
    workspace.save_job(saved)
    assert names(workspace) == ["jobs/job-1/job.json"]
    assert workspace.job("job-1") == saved


def test_every_job_that_left_anything_is_found(workspace: Workspace) -> None:
    for name in ("jobs/a/job.json", "jobs/b-2/digests/x", "other/c/job.json"):
        workspace.s3.put_object(Bucket=BUCKET, Key=name, Body=b"")
    assert list(workspace.job_ids()) == ["a", "b-2"]


def test_deleting_spares_what_is_named_and_every_other_job(workspace: Workspace) -> None:
    for job_id in ("job", "job-2"):
        for name in ("job.json", "plan.jsonl", "image/1", "image/2", "digests/job.json"):
            workspace.write(job_id, name, b"")
    assert workspace.delete_below("job", "image/") == 2
    assert workspace.delete_all_but("job", keep=frozenset({"job.json"})) == 2
    assert workspace.delete_all_but("job", keep=frozenset({"job.json"})) == 0
    assert [name for name in names(workspace) if name.startswith("jobs/job/")] == ["jobs/job/job.json"]
    assert len(names(workspace)) == 6


def test_every_page_of_a_long_list_is_deleted(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        workspace.write("job", f"image/{number}", b"")
    whole = workspace.s3.get_paginator

    class TwoAtATime:
        def paginate(self, **arguments: Any) -> Any:
            return whole("list_objects_v2").paginate(**arguments, PaginationConfig={"PageSize": 2})

    monkeypatch.setattr(workspace.s3, "get_paginator", lambda _: TwoAtATime())
    assert workspace.delete_all_but("job", keep=frozenset()) == 5
    assert names(workspace) == []


def test_an_object_that_cannot_be_deleted_is_named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.write("job", "plan.jsonl", b"")
    answer = {"Errors": [{"Key": "jobs/job/plan.jsonl", "Message": "Access Denied"}]}
    monkeypatch.setattr(workspace.s3, "delete_objects", lambda **_: answer)
    with pytest.raises(RuntimeError, match=r"s3://work/jobs/job/plan\.jsonl: Access Denied"):
        workspace.delete_all_but("job", keep=frozenset())


def test_only_a_missing_object_reads_as_nothing(workspace: Workspace) -> None:
    assert workspace.read("job", "job.json") is None
    assert workspace.job("job") is None
    assert workspace.proof("job") is None
    with pytest.raises(ClientError, match="NoSuchBucket"):
        Workspace("elsewhere", workspace.s3).read("job", "job.json")


@pytest.mark.parametrize("code", ["NoSuchKey", "404"])
def test_a_missing_object_is_told_by_either_code(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def gone(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": ""}}, "GetObject")

    monkeypatch.setattr(workspace.s3, "get_object", gone)
    assert workspace.read("job", "job.json") is None


@pytest.mark.parametrize("name", ["job.json", "proof.json"])
def test_a_damaged_record_is_named(workspace: Workspace, name: str) -> None:
    workspace.write("job", name, b'{"job_id": 1')
    with pytest.raises(IncompleteTransfer, match=rf"s3://work/jobs/job/{name} is damaged"):
        workspace.job("job") if name == "job.json" else workspace.proof("job")


def test_s3_checks_each_object_by_its_sha256_and_knows_its_type(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(workspace.s3, "put_object", lambda **arguments: sent.append(arguments))
    workspace.write("job", "plan.jsonl", b"x")
    workspace.mark_failed("job", 0, "x")
    workspace.refuse("job", "x")
    workspace.give_up("job", 0, "x")
    assert {one["ChecksumAlgorithm"] for one in sent} == {"SHA256"}
    assert [one["ContentType"] for one in sent] == [
        "application/json",
        *["text/plain; charset=utf-8"] * 3,
    ]
