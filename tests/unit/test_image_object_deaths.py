"""A job that makes an object in S3 dies at a call: resumed, it makes the same one; swept, it leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockferry.core.blocks import BLOCK_SIZE
from crash_points import AFTER, ARCHIVES, Execution, Proving, Scenario, proving_ground
from rig import HOME
from wire import Call, ConnectionLost, Death, Spoil

KEY = "web.img"

WRITES = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")


@pytest.fixture(scope="module")
def proving() -> Iterator[Proving]:
    with proving_ground() as made:
        yield made


@pytest.fixture(scope="module")
def scenario(proving: Proving) -> Scenario:
    archive = proving.execution(proving.archive_increment()).run()
    proving.kept_objects = proving.archives()
    return Scenario(
        "restore",
        {
            "manifest_uri": archive["manifest_uri"],
            "targets": [{"image_uri": f"s3://{ARCHIVES}/{KEY}"}],
            "options": {"blocks_per_range": 2048},
        },
    )


def image(proving: Proving) -> dict[int, bytes] | None:
    """The blocks of the object that are not zeros; ``None`` where there is none."""
    if KEY not in proving.archives():
        return None
    blocks: dict[int, bytes] = {}
    for part in proving.rig.uploads.made[KEY]:
        first = len(blocks)
        blocks |= {first + n: part[n * BLOCK_SIZE :][:BLOCK_SIZE] for n in range(len(part) // BLOCK_SIZE)}
    assert len(blocks) == 2048
    return {index: block for index, block in blocks.items() if block != bytes(BLOCK_SIZE)}


def forget(proving: Proving) -> None:
    proving.wire.clear()
    proving.aws.s3(HOME).delete_object(Bucket=ARCHIVES, Key=KEY)
    proving.wire.clear()


EXPECTED = {index: block for index, block in AFTER.items() if block != bytes(BLOCK_SIZE)}


@pytest.fixture(scope="module")
def points(proving: Proving, scenario: Scenario) -> list[tuple[str, int, Spoil]]:
    """The first call of each step that writes to S3 for the object, before and after it took effect, and the last note
    of each step in the work bucket."""
    execution = proving.execution(scenario)
    execution.run()
    assert image(proving) == EXPECTED
    forget(proving)
    ends: dict[tuple[str, str, str], list[Call]] = {}
    for step, call in execution.trace:
        if (call.service, call.operation) == ("s3", "PutObject") or call.operation in WRITES:
            ends.setdefault((step, call.service, call.operation), []).append(call)
    found: list[tuple[str, int, Spoil]] = []
    for (step, service, operation), calls in ends.items():
        spoils: list[Spoil] = [Death(True)]
        if service != "s3":
            spoils += [Death(False), *([] if operation == "UploadPart" else [ConnectionLost(True)])]
        number = calls[-1 if service == "s3" else 0].number
        found += [(f"{step}: {operation}", number, spoil) for spoil in spoils]
    assert {name.split(": ")[1] for name, _, _ in found} == {"PutObject", *WRITES}
    return found


def spoiled(proving: Proving, scenario: Scenario, number: int, spoil: Spoil) -> Execution:
    execution = proving.execution(scenario)
    proving.wire.clear(lambda call: spoil if call.number == number else None)
    return execution


def test_a_job_that_dies_at_a_write_makes_the_same_object_when_it_goes_on(
    proving: Proving, scenario: Scenario, points: list[tuple[str, int, Spoil]]
) -> None:
    for name, number, spoil in points:
        where = f"{spoil} at call {number} ({name})"
        receipt, failure = proving.redriven(spoiled(proving, scenario, number, spoil))
        assert receipt is not None, f"{where}: {failure}"
        assert image(proving) == EXPECTED, where
        assert receipt["targets"][0]["stored_bytes"] == 2**30, where
        assert proving.rig.uploads.open == {}, where
        forget(proving)


@pytest.mark.parametrize("operation", WRITES)
@pytest.mark.parametrize("took_effect", [False, True])
def test_a_job_that_dies_for_good_leaves_no_upload_behind_a_sweep(
    proving: Proving, scenario: Scenario, operation: str, took_effect: bool
) -> None:
    execution, died = proving.execution(scenario), []

    def spoil(call: Call) -> Spoil | None:
        if call.operation == operation:
            died.append(call)
            return Death(took_effect)
        # An object that is made is found by the next attempt, which would go on.
        return Death(False) if died and operation == "CompleteMultipartUpload" else None

    proving.wire.clear(spoil)
    receipt, _ = proving.redriven(execution, times=0)
    assert receipt is None
    proving.wire.clear()
    made = image(proving)
    assert (made is not None) == (operation == "CompleteMultipartUpload" and took_effect)
    for _ in range(2):
        proving.sweep(execution)
        assert proving.rig.uploads.open == {}
        # What S3 has made an object of is never deleted.
        assert image(proving) == made
    forget(proving)
