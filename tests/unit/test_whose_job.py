"""Jobs of one name, and objects that somebody has planted: no job acts by what is not its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from blockferry.aws.call import Call
from blockferry.aws.snapshots import EXECUTION_TAG, PROVED_TAG
from blockferry.core.errors import BlockferryError, IncompleteTransfer, InvalidRequest, TransferFailed
from blockferry.jobs.folder import JOB, RECEIPT, JobFolder
from blockferry.jobs.workspace import Workspace
from blockferry.transfer.job import planned_job, save_job, save_started
from blockferry.transfer.sweep import sweep_jobs
from deployment import EXECUTIONS
from fakes import content
from rig import ACCOUNT, HOME, RECOVERY, THIRD, Rig, hashes, running_rig

BLOCKS = {0: content(1), 5: content(2)}
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


def request(source: str, *regions: str) -> dict[str, Any]:
    return {"snapshot_id": source, "targets": [{"region": region} for region in regions or (RECOVERY,)]}


def pending(rig: Rig) -> set[str]:
    return {s["snapshot_id"] for s in rig.snapshots() if s["state"] == "pending"}


def sweep(rig: Rig, *, inputs: dict[str, Any], workspace: Workspace | None = None, executions: str = EXECUTIONS) -> Any:
    """A sweep long after every execution in ``inputs`` has failed; others do not exist."""

    class Aws(type(rig.aws)):  # type: ignore[misc]
        def step_functions(self, _region: str) -> Any:
            ended = {"status": "FAILED", "stopDate": NOW - timedelta(days=9)}
            return SimpleNamespace(
                describe_execution=lambda executionArn: ended | {"input": json.dumps(inputs[executionArn])}
            )

    call = Call(aws=Aws(base=rig.aws.base))
    where = workspace or rig.workspace
    return sweep_jobs(call, where, executions=executions, resume_window=timedelta(hours=72), now=NOW)


def test_an_inspection_of_the_same_name_leaves_the_receipt_of_a_copy_alone(rig: Rig) -> None:
    source = rig.snapshot(BLOCKS)
    copied = rig.run("copy", request(source), job_id="nightly")
    inspected = rig.run("inspect", {"snapshot_id": source}, job_id="nightly")
    receipts = {op: rig.workspace.folder(op, "nightly").read(RECEIPT) for op in ("copy", "inspect")}
    assert {op: json.loads(body or b"") for op, body in receipts.items()} == {"copy": copied, "inspect": inspected}


def test_a_fanout_of_the_same_name_and_input_has_targets_of_its_own(rig: Rig) -> None:
    wanted = request(rig.snapshot(BLOCKS))
    rig.plan(wanted, operation="copy", job_id="nightly")
    first = rig.job("nightly").targets[0].snapshot_id
    rig.plan(wanted, operation="fanout", job_id="nightly")
    second = rig.job("nightly").targets[0].snapshot_id
    assert first != second
    assert pending(rig) == {first, second}


def test_the_sweeper_of_another_region_never_touches_a_running_job_of_the_same_name(rig: Rig) -> None:
    wanted = request(rig.snapshot(BLOCKS))
    rig.plan(wanted, job_id="nightly")
    running = rig.job("nightly").targets[0].snapshot_id
    # The same name, the same input, in a Region whose execution was stopped long ago.
    bucket = "blockferry-work-111122223333-ap-southeast-2"
    rig.aws.s3(HOME).create_bucket(Bucket=bucket)
    elsewhere = Workspace(bucket, rig.aws.s3(HOME))
    executions = EXECUTIONS.replace(HOME, THIRD)
    job = rig.job("nightly").model_copy(update={"execution_arn": f"{executions}copy:nightly"})
    stopped = job.targets[0].model_copy(update={"started": None})
    folder = elsewhere.folder("copy", "nightly")
    save_job(folder, job.model_copy(update={"targets": (stopped,)}))
    save_started(folder, job.model_copy(update={"targets": (stopped,)}))
    swept = sweep(rig, inputs={f"{executions}copy:nightly": wanted}, workspace=elsewhere, executions=executions)
    assert (swept["swept"], swept["deleted_snapshots"]) == (["nightly"], [])
    assert pending(rig) == {running}


def test_a_sweeper_assumes_no_role_that_only_a_planted_record_names(rig: Rig) -> None:
    theirs = request(rig.snapshot(BLOCKS))
    rig.plan(theirs, job_id="victim")
    victim = rig_target(rig, "victim")
    mine = request(rig.snapshot(BLOCKS))
    rig.plan(mine, job_id="mine")
    job = rig.job("mine")
    before = pending(rig)
    planted = job.targets[0].model_copy(
        update={"role_arn": "arn:aws:iam::123456789012:role/other", "external_id": "secret", "region": THIRD}
    )
    rig.save_job(job.model_copy(update={"targets": (planted,)}))
    inputs = {f"{EXECUTIONS}copy:mine": mine, f"{EXECUTIONS}copy:victim": theirs}
    with pytest.raises(BlockferryError, match=r"copy mine: .*names arn:aws:iam::123456789012:role/other in ap-south"):
        sweep(rig, inputs=inputs)
    # The victim was swept rightly; of the planted record nothing was done.
    assert before - pending(rig) == {victim}
    assert rig.folder("mine").swept() is None


def rig_target(rig: Rig, job_id: str) -> str:
    job = planned_job(rig.folder(job_id))
    assert job is not None
    return job.targets[0].snapshot_id


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"execution_arn": f"{EXECUTIONS}copy:other"}, "is the record of copy mine"),
        ({"execution_arn": f"{EXECUTIONS.replace(HOME, THIRD)}copy:mine"}, "and not of"),
        ({"fingerprint": "0" * 64}, "has another input"),
        ({"operation": "sync"}, "is the record of sync mine"),
        ({"job_id": "other"}, "is the record of copy other"),
    ],
)
def test_a_record_that_is_not_that_of_its_folder_is_not_swept(rig: Rig, change: dict[str, Any], told: str) -> None:
    mine = request(rig.snapshot(BLOCKS))
    rig.plan(mine, job_id="mine")
    made, folder = rig_target(rig, "mine"), rig.folder("mine")
    body = json.loads(folder.read(JOB) or b"")
    folder.write(JOB, json.dumps(body | change).encode())
    with pytest.raises(BlockferryError, match=told):
        sweep(rig, inputs={f"{EXECUTIONS}copy:mine": mine})
    assert pending(rig) == {made}


def test_a_record_of_another_version_is_refused_with_a_clear_word(rig: Rig) -> None:
    rig.plan(request(rig.snapshot(BLOCKS)), job_id="mine")
    folder = rig.folder("mine")
    folder.write(JOB, json.dumps(json.loads(folder.read(JOB) or b"") | {"format": 3}).encode())
    with pytest.raises(IncompleteTransfer, match="was written by another version of Blockferry: start a new job"):
        rig.job("mine")


STEPS = {
    "move_blocks": {"range": {"first": 0, "stop": 2048}, "progress": None},
    "complete_transfer": {"progress": None},
    "check_targets": {"progress": None},
    "write_receipt": {"proof": "0" * 64},
}


@pytest.mark.parametrize("step", STEPS)
def test_no_step_goes_by_a_record_that_was_changed(rig: Rig, step: str) -> None:
    rig.plan(request(rig.snapshot(BLOCKS)), job_id="mine")
    event = rig.event("mine")
    other = rig.snapshot({0: content(9)})
    rig.save_job(rig.job("mine").model_copy(update={"source": rig.job("mine").source.model_copy(
        update={"snapshot_id": other})}))  # fmt: skip
    with pytest.raises(IncompleteTransfer, match="is not the record that this execution has planned"):
        rig.call(step, event | STEPS[step])


def test_a_planted_refusal_never_deletes_a_completed_copy(rig: Rig) -> None:
    receipt = rig.run("copy", request(rig.snapshot(BLOCKS)), job_id="mine")
    made = receipt["targets"][0]["snapshot_id"]
    rig.folder("mine").refuse("planted")
    for name in list_of(rig.folder("mine"), "proved/sealing/"):
        rig.folder("mine").s3.delete_object(Bucket=rig.workspace.bucket, Key=name)
    with pytest.raises(TransferFailed, match=rf"planted. Completed or being sealed before that, and kept: {made}"):
        rig.complete("mine")
    assert rig.state(made) == "completed"
    assert rig.held(made) == hashes(BLOCKS)


def list_of(folder: JobFolder, name: str) -> list[str]:
    return list(folder._keys(name))


def test_what_carries_the_proof_is_not_deleted_whatever_its_state(rig: Rig) -> None:
    wanted = request(rig.snapshot(BLOCKS))
    rig.plan(wanted, job_id="mine")
    made = rig_target(rig, "mine")
    rig.client("ec2", RECOVERY).create_tags(Resources=[made], Tags=[{"Key": PROVED_TAG, "Value": made}])
    swept = sweep(rig, inputs={f"{EXECUTIONS}copy:mine": wanted})
    assert swept["deleted_snapshots"] == []
    assert made in swept["kept_snapshots"][0]
    assert pending(rig) == {made}


def test_what_carries_the_mark_of_another_execution_is_not_deleted(rig: Rig) -> None:
    rig.plan(request(rig.snapshot(BLOCKS)), job_id="mine")
    made = rig_target(rig, "mine")
    rig.client("ec2", RECOVERY).create_tags(Resources=[made], Tags=[{"Key": EXECUTION_TAG, "Value": "0" * 64}])
    rig.folder("mine").refuse("the image was replaced")
    with pytest.raises(TransferFailed, match=rf"kept: {made} in {RECOVERY} \(its tag {EXECUTION_TAG} is not that"):
        rig.complete("mine")
    assert pending(rig) == {made}


def test_a_planted_proof_is_in_no_receipt(rig: Rig) -> None:
    rig.plan(request(rig.snapshot(BLOCKS)), job_id="mine")
    rig.move_all("mine")
    rig.complete("mine")
    proof = rig.proof("mine")
    assert proof is not None
    folder, event = rig.folder("mine"), rig.event("mine")
    other = folder.save_proof(proof.model_copy(update={"zero_blocks": 99, "linear_checksum": "planted"}))
    assert other != rig.proofs["mine"]
    receipt = rig.call("write_receipt", event | {"proof": rig.proofs["mine"]})
    assert (receipt["zero_blocks"], receipt["linear_checksum"]) == (0, proof.linear_checksum)
    # And one that was put under the name of the real one is found out.
    forged = proof.model_copy(update={"zero_blocks": 9}).model_dump_json().encode()
    folder.write(f"proved/proof-{rig.proofs['mine']}.json", forged)
    with pytest.raises(IncompleteTransfer, match="is not what Complete transfer has stored"):
        rig.call("write_receipt", event | {"proof": rig.proofs["mine"]})


def test_a_receipt_that_is_there_already_is_kept_and_not_taken_for_the_jobs(rig: Rig) -> None:
    rig.plan(request(rig.snapshot(BLOCKS)), job_id="mine")
    rig.folder("mine").write(RECEIPT, b'{"status": "SUCCEEDED", "planted": true}')
    rig.move_all("mine")
    with pytest.raises(IncompleteTransfer, match="is there already and says something else"):
        rig.finish("mine")
    assert rig.folder("mine").read(RECEIPT) == b'{"status": "SUCCEEDED", "planted": true}'


def test_a_receipt_that_was_stored_before_its_function_died_is_returned_by_the_next_call(rig: Rig) -> None:
    rig.plan(request(rig.snapshot(BLOCKS)), job_id="mine")
    rig.move_all("mine")
    first = rig.finish("mine")
    rig.complete("mine")
    event = rig.event("mine") | {"proof": rig.proofs["mine"]}
    again = rig.call("write_receipt", event)
    stored = rig.folder("mine").read(RECEIPT)
    assert json.loads(stored or b"") == again
    assert {name: again[name] for name in again.keys() - {"duration_seconds"}} == {
        name: first[name] for name in first.keys() - {"duration_seconds"}
    }
    assert again["duration_seconds"] == first["duration_seconds"]


def test_another_execution_of_the_same_name_and_input_is_refused(rig: Rig) -> None:
    wanted = request(rig.snapshot(BLOCKS))
    rig.plan(wanted, job_id="mine")
    made = rig_target(rig, "mine")
    event = {
        "operation": "copy",
        "job_id": "mine",
        "execution_arn": f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-copy:mine",
        "started_at": "2026-06-01T00:00:00.000Z",
        "request": wanted,
        "progress": None,
    }
    with pytest.raises(InvalidRequest, match=r"a job named mine of arn:aws:states:.* is recorded in s3://"):
        rig.call("plan_transfer", event)
    assert pending(rig) == {made}
