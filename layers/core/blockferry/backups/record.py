"""What the steps of a run leave for each other in the work bucket: the plan, its batches, and what became of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from blockferry.core.errors import IncompleteTransfer, InvalidRequest
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import RANGES, JobFolder
from blockferry.jobs.record import Record
from blockferry.lifecycle.items import Action, Item, Outcome
from blockferry.lifecycle.tags import Problem

PLAN = "plan/run.json"
LOOKED = "plan/looked.jsonl"
BATCHES = "plan/batches/"

BATCH = 100
"""Things that one call of a worker acts on, each with a request or two."""


class Run(Record):
    """A run as it was planned at ``planned_at``. ``now`` is the instant that it goes by, ``batches`` the numbers of the
    first and behind the last thing of each, with the function that acts on them."""

    format: Literal[1] = 1
    operation: str
    job_id: str
    execution_arn: str
    planned_at: str
    now: str
    dry_run: bool
    fingerprint: str
    batches: tuple[tuple[str, int, int], ...] = ()
    problems: tuple[tuple[str, str, str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """What stands for the run in tags."""
        return Execution(self.execution_arn).mark[:32]


def fingerprint_of(request: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of an input."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def planned(folder: JobFolder, execution: Execution, request: Mapping[str, Any]) -> tuple[Run, str] | None:
    """The plan that is stored and its SHA-256, if there is one.

    Raises ``InvalidRequest`` when it is that of another execution, or of another input.
    """
    body = folder.read(PLAN)
    if body is None:
        return None
    run = Run.model_validate_json(body)
    if (run.execution_arn, run.fingerprint) != (execution.arn, fingerprint_of(request)):
        raise InvalidRequest(
            f"a run named {folder.job_id} of {run.execution_arn} is recorded in {folder.uri()}; start the execution "
            "under another name"
        )
    return run, hashlib.sha256(body).hexdigest()


def save(
    folder: JobFolder,
    run: Run,
    looked: Iterable[Item],
    to_do: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    batch: int = BATCH,
) -> tuple[Run, str]:
    """Store a plan: what was ``looked`` at and needs nothing, and what is ``to_do`` by which function, a ``batch`` at a
    time.

    The record is written last. Returns the run with its batches, and the SHA-256 of its record.
    """
    folder.write(LOOKED, _lines(_line(item) for item in looked))
    batches: list[tuple[str, int, int]] = []
    for function, things in to_do.items():
        for first in range(0, len(things), batch):
            some = things[first : first + batch]
            folder.write(_batch_name(function, first), _lines(some))
            batches.append((function, first, first + len(some)))
    folder.write(RANGES, _lines({"act": function, "first": first, "stop": stop} for function, first, stop in batches))
    whole = run.model_copy(update={"batches": tuple(batches)})
    body = whole.model_dump_json(indent=1).encode()
    folder.write(PLAN, body)
    return whole, hashlib.sha256(body).hexdigest()


def recorded(folder: JobFolder, record: str) -> Run:
    """The plan with this SHA-256. Raises ``IncompleteTransfer`` when it is gone or another one."""
    body = folder.read(PLAN)
    if body is None or hashlib.sha256(body).hexdigest() != record:
        raise IncompleteTransfer(
            f"{folder.uri(PLAN)} is gone or is not what this execution has planned: start a new run"
        )
    return Run.model_validate_json(body)


def things(folder: JobFolder, function: str, first: int) -> list[dict[str, Any]]:
    """What a batch holds. Raises ``IncompleteTransfer`` when it is gone."""
    return list(_read_lines(folder, _batch_name(function, first)))


def looked(folder: JobFolder) -> Iterator[Item]:
    """What was looked at by the plan and needs nothing."""
    return (_item(line) for line in _read_lines(folder, LOOKED))


def save_outcome(folder: JobFolder, function: str, first: int, items: Iterable[Item]) -> None:
    """Store what became of a batch, in place of what an earlier call of it has stored."""
    folder.write(_outcome_name(function, first), _lines(_line(item) for item in items))


def outcome(folder: JobFolder, function: str, first: int) -> list[Item]:
    """What became of a batch. Raises ``IncompleteTransfer`` when nothing is known of it."""
    return [_item(line) for line in _read_lines(folder, _outcome_name(function, first))]


def refuse_other_number(folder: JobFolder, items: Sequence[Item], number: int) -> None:
    """Raise ``IncompleteTransfer`` when not every thing of a batch has become something."""
    if len(items) != number:
        raise IncompleteTransfer(
            f"{folder.uri()}: of {number} things of a batch it is known what became of {len(items)}. Start a new run"
        )


def problem_line(problem: Problem) -> tuple[str, str, str, str]:
    """A problem as a record has it."""
    return problem.resource, problem.tag, problem.value, problem.told


def _batch_name(function: str, first: int) -> str:
    return f"{BATCHES}{function}-{first:010d}.jsonl"


def _outcome_name(function: str, first: int) -> str:
    return f"{function}/{first:010d}.jsonl"


def _lines(items: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(item)}\n" for item in items).encode()


def _read_lines(folder: JobFolder, name: str) -> Iterator[dict[str, Any]]:
    body = folder.read(name)
    if body is None:
        raise IncompleteTransfer(f"{folder.uri(name)} is not there: nobody knows what became of it. Start a new run")
    return (json.loads(line) for line in body.splitlines())


def _line(item: Item) -> dict[str, str]:
    return {
        "resource": item.resource,
        "action": item.action.value,
        "outcome": item.outcome.value,
        "reason": item.reason,
    }


def _item(line: Mapping[str, str]) -> Item:
    return Item(line["resource"], Action(line["action"]), Outcome(line["outcome"]), line["reason"])
