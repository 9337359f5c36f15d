"""The state machine of each operation. ``scripts/render`` writes what comes out to statemachines/, where it is read.

``MACHINES`` is all of them, one for each of ``blockferry.operations``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from blockferry.operations import OPERATIONS
from blockferry.operations.operation import Operation

from tools.machine_parts import (
    CHILD_INPUT,
    FOR_GOOD,
    LONG_CALL_SECONDS,
    PROGRESS,
    SHORT_CALL_SECONDS,
    Graph,
    State,
    call_until_done,
    choice,
    machine,
    refuse,
    report,
    task,
    wait,
)

EXECUTION = {
    "job_id": "{% $states.context.Execution.Name %}",
    "execution_arn": "{% $states.context.Execution.Id %}",
    "started_at": "{% $states.context.Execution.StartTime %}",
    "request": "{% $states.context.Execution.Input %}",
}
"""Members that tell a function of the execution itself, and of what the operator started it with."""

RECORD = "{% $states.result.Payload.record %}"

CHILD_NAMES = ("operation", "job_id", "record", "range")
"""Members of the input of each child of the map."""


def the_job(operation: str) -> dict[str, str]:
    """The job that Plan transfer recorded, and the SHA-256 of its record."""
    return {"operation": operation, "job_id": "{% $job.job_id %}", "record": "{% $record %}"}


MOVE = "Move block ranges"


def transfer(operation: str, comment: str, *, unpacks: bool = False) -> State:
    """A machine that moves the blocks of a source to its targets; ``unpacks``: the source may be a compressed image."""
    job = the_job(operation)
    return machine(
        comment,
        {
            **call_until_done(
                "Plan transfer",
                "Refuses what cannot work before anything is started, starts the targets and writes the list of ranges "
                "to S3.",
                function="plan_transfer",
                payload={"operation": operation, **EXECUTION},
                seconds=LONG_CALL_SECONDS,
                assign={"job": "{% $states.result.Payload %}", "record": RECORD},
                refused="The input cannot be used: nothing was started, and the message is for the operator.",
                question="Plan made?",
                why="What a dry run counts of a large source takes longer than one invocation.",
                done="The plan is made, or all is counted that the estimate needs.",
                then="Dry run?",
            ),
            **refuse(),
            "Dry run?": choice(
                "A dry run ends before anything is written.",
                condition="{% $job.dry_run %}",
                because="Only the estimate was asked for.",
                then="Report estimate",
                otherwise="Image compressed?" if unpacks else MOVE,
            ),
            "Report estimate": report(
                "Requests, bytes, time and cost of the job that was not started.", "{% $job.estimate %}"
            ),
            **(_unpacking(job) if unpacks else {}),
            MOVE: _move_ranges(job),
            **call_until_done(
                "Complete transfer",
                "Puts together what was found when the ranges were counted again, and gives EBS the count and the "
                "checksum of every target that holds them all.",
                function="complete_transfer",
                payload=job,
                assign={"record": RECORD, "proof": "{% $states.result.Payload.proof %}"},
                seconds=LONG_CALL_SECONDS,
                repeats=("TargetFailed",),
                refused="A worker found out that the job cannot be done: its pending targets are deleted, and the "
                "message is for the operator.",
                question="Ranges missing?",
                why="Targets that hold everything are completed by now, whatever happens to the others: what those "
                "miss is moved once more, and only there.",
                done="EBS was asked to seal every target.",
                then="Check targets",
                meanwhile=MOVE,
            ),
            **call_until_done(
                "Check targets",
                "EBS seals targets after it has answered; only EC2 knows when they are completed.",
                function="check_targets",
                payload=job,
                seconds=SHORT_CALL_SECONDS,
                question="All targets completed?",
                why="A target that failed ends the job in Check targets, once no other is pending.",
                done="EC2 calls every target completed.",
                then="Write receipt",
                meanwhile="Wait for targets",
            ),
            "Wait for targets": wait(
                "Waits longer each time, up to five minutes, so that a long sealing does not fill the history.",
                then="Check targets",
            ),
            "Write receipt": task(
                "Confirms every target once more and stores what the job proved.",
                function="write_receipt",
                payload={**job, "proof": "{% $proof %}"},
                seconds=SHORT_CALL_SECONDS,
                then=None,
            ),
        },
    )


def _unpacking(job: Mapping[str, str]) -> Graph:
    return {
        "Image compressed?": choice(
            "A compressed image can be read from its beginning only: it is unpacked before its blocks go to many "
            "workers, and its size is known only then.",
            condition="{% $job.unpack %}",
            because="The size of the volumes is not known yet, and nothing is started.",
            then="Unpack image",
            otherwise=MOVE,
        ),
        **call_until_done(
            "Unpack image",
            "Decompresses the image into pieces in the work bucket; stops in time and says where to go on.",
            function="unpack_image",
            payload=job,
            seconds=LONG_CALL_SECONDS,
            refused="The image is damaged, too large, or was replaced: nothing was started, and the message is for the "
            "operator.",
            question="Image unpacked?",
            why="An image that takes longer than one invocation is unpacked in several.",
            done="Its size is known now: plan the transfer with it.",
            then="Plan transfer",
        ),
    }


def _move_ranges(job: Mapping[str, str]) -> State:
    """The map over a list of ranges, whose key and whose round of Complete transfer come with the state's input."""
    child = {name: f"{{% {CHILD_INPUT}.{name} %}}" for name in CHILD_NAMES}
    return {
        **_over_ranges(
            "One child per range of a list: all blocks at first, later what single targets miss. The list is read "
            "from S3, and results go to S3. A range that cannot be moved stops the others, and one target of many "
            "that fails is left out: Complete transfer fails the execution with the cause, and plans after a redrive "
            "what is left. No failure is tolerated of a child that cannot even note its own: a redrive repeats it.",
            label="MoveBlockRanges",
            ranges="{% $states.input.plan_key %}",
            job=job,
            first="Move blocks",
            states={
                **call_until_done(
                    "Move blocks",
                    "Lists the range, moves its blocks, stores their digests and counts the range again; stops in time "
                    "and says where to go on.",
                    function="move_blocks",
                    payload=child,
                    seconds=LONG_CALL_SECONDS,
                    repeats=("ChecksumMismatch",),
                    failed=(
                        "The range cannot be moved at present: the map ends without beginning another one, and "
                        "Complete transfer says why.",
                        "Note failure",
                    ),
                    question="Range done?",
                    why="A range that takes longer than one invocation is moved in several.",
                    done="Nothing of the range is left to this child, which says how it ended.",
                    then="Report outcome",
                ),
                "Note failure": task(
                    "Stores which range could not be moved, and the error that was left; a worker that finds this "
                    "begins no other range. What only had no place to run goes on now that it has one.",
                    function="move_blocks",
                    payload={**child, "failure": "{% $states.input.failure %}", "progress": PROGRESS},
                    seconds=LONG_CALL_SECONDS,
                    then="Range done?",
                ),
                "Report outcome": report(
                    "How the range ended: moved to every target that took it (one that failed is marked, and Complete "
                    "transfer sees what it misses), left because no target takes it or another range has stopped the "
                    "job, not moved because the job was refused, or stopped since it could not be moved. The digests "
                    "are in S3, which keeps this small.",
                    {"range": child["range"], "outcome": "{% $states.input.outcome %}"},
                ),
            },
        ),
        "Output": {"progress": PROGRESS},
        "Next": "Complete transfer",
    }


def _over_ranges(
    comment: str,
    *,
    label: str,
    ranges: str,
    job: Mapping[str, str],
    first: str,
    states: dict[str, State],
    line: str = "range",
) -> State:
    """A distributed map with a child per line of the list under the key ``ranges``; ``states`` are a child's, which
    begins with the ``first`` and has the ``line`` in its input under that name."""
    return {
        "Type": "Map",
        "Comment": comment,
        "Label": label,
        "MaxConcurrency": "{% $job.max_concurrency %}",
        "ToleratedFailureCount": 0,
        "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "JSONL"},
            "Arguments": {"Bucket": "{% $job.bucket %}", "Key": ranges},
        },
        "ItemSelector": {**job, line: "{% $states.context.Map.Item.Value %}"},
        "ResultWriter": {
            "Resource": "arn:aws:states:::s3:putObject",
            "Arguments": {"Bucket": "{% $job.bucket %}", "Prefix": "{% $job.results_prefix %}"},
        },
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": first,
            "States": states,
        },
    }


def inspection(comment: str) -> State:
    """The machine that only reads and counts."""
    return machine(
        comment,
        {
            "Begin at the first block": {
                "Type": "Pass",
                "Comment": "Nothing is counted yet. The operator's input stays at hand as that of the execution.",
                "Output": {"progress": None},
                "Next": "Count blocks",
            },
            **call_until_done(
                "Count blocks",
                "Refuses what cannot be inspected, then lists windows of blocks as far as the time allows and says "
                "where it stopped; at the end it stores the report.",
                function="inspect_snapshots",
                payload={"operation": "inspect", **EXECUTION},
                seconds=LONG_CALL_SECONDS,
                refused="The input cannot be used: nothing was started, and the message is for the operator.",
                question="All blocks counted?",
                why="A chain of large snapshots takes longer than one invocation.",
                done="Nothing is left, and the report is stored.",
                then="Report findings",
            ),
            **refuse(),
            "Report findings": report("The report, as it is stored in the work bucket.", "{% $states.input.report %}"),
        },
    )


def verification(comment: str) -> State:
    """The machine that checks an archive, range by range."""
    job = the_job("verify")
    child = {name: f"{{% {CHILD_INPUT}.{name} %}}" for name in CHILD_NAMES}
    return machine(
        comment,
        {
            "Plan verification": task(
                "Opens the archive and those that it is built upon, refuses what cannot be verified, and writes the "
                "list of ranges to S3.",
                function="plan_verification",
                payload={"operation": "verify", **EXECUTION},
                seconds=SHORT_CALL_SECONDS,
                assign={"job": "{% $states.result.Payload %}", "record": RECORD},
                refused="The input cannot be used: nothing was begun, and the message is for the operator.",
                then="Manifest readable?",
            ),
            **refuse(),
            "Manifest readable?": choice(
                "Where a manifest is damaged nobody knows what should be there: that is all there is to say.",
                condition="{% $job.readable %}",
                because="The archive says what every object must be.",
                then=VERIFY,
                otherwise=CONCLUDE,
            ),
            VERIFY: {
                **_over_ranges(
                    "One child per range. The list is read from S3, and results go to S3. Damage is a finding, and "
                    "the rest is looked at all the same; a child that fails could not look, and a redrive repeats it.",
                    label="VerifyBlockRanges",
                    ranges="{% $job.plan_key %}",
                    job=job,
                    first="Verify blocks",
                    states={
                        **call_until_done(
                            "Verify blocks",
                            "Checks indexes and segments of the range, then compares it with the snapshot, if one is "
                            "named; stops in time and says where to go on.",
                            function="verify_blocks",
                            payload=child,
                            seconds=LONG_CALL_SECONDS,
                            repeats=("ChecksumMismatch",),
                            question="Range verified?",
                            why="A range that takes longer than one invocation is verified in several.",
                            done="What was found is in S3.",
                            then="Report range",
                        ),
                        "Report range": report(
                            "What was found is in S3, which keeps this small.", {"range": child["range"]}
                        ),
                    },
                ),
                "Next": CONCLUDE,
            },
            CONCLUDE: task(
                "Puts together what was found, stores the receipt and marks the manifest; fails when anything was "
                "found.",
                function="conclude_verification",
                payload=job,
                seconds=LONG_CALL_SECONDS,
                refused="The archive is damaged: the message names what, and the receipt is stored all the same.",
                then=None,
            ),
        },
    )


VERIFY, CONCLUDE = "Verify block ranges", "Conclude verification"


@dataclass(frozen=True)
class LookingAfter:
    """What the machines differ in that look after backups: the names of states, and what readers are told of them.

    ``acts`` are the functions that act on a batch, each with its state's name and comment; the last one acts on
    whatever the others do not.
    """

    plan: tuple[str, str, str]
    question: tuple[str, str, str]
    map: tuple[str, str, str]
    acts: tuple[tuple[str, str, str], ...]
    choice: tuple[str, str, str] | None = None


EXPIRE = LookingAfter(
    plan=(
        "Plan expiry",
        "plan_expiry",
        "Looks at every backup of the Region, decides about each, and writes what is to be done to S3.",
    ),
    question=("Anything due?", "On most days most backups stay.", "Some are due, or have a mark that goes."),
    map=(
        "Mark and delete backups",
        "ExpireBackups",
        "One child per hundred backups. The list is read from S3, and results go to S3. What cannot be done is in the "
        "report, and the rest is tried all the same; a child that fails did not look, and a redrive repeats it.",
    ),
    choice=(
        "Delete them?",
        "Marking and deleting are done by two functions, whose roles may do no more.",
        "An earlier run has marked them, or the deployment wants no marks.",
    ),
    acts=(
        (
            "Delete backups",
            "delete_expired",
            "Looks at each once more and deletes it, unless anything stands against that now.",
        ),
        (
            "Mark backups",
            "mark_expired",
            "Marks each for the next run to delete, or takes away the mark of what may stay.",
        ),
    ),
)

BACKUP = LookingAfter(
    plan=(
        "Plan backup",
        "plan_backup",
        "Looks at what asks for backups by its tags, and writes what the slot lacks to S3.",
    ),
    question=(
        "Anything to back up?",
        "A second run in a slot finds what the first one has made.",
        "Volumes have no backup in this slot yet, or some of an earlier slot lack tags.",
    ),
    map=(
        "Make backups",
        "MakeBackups",
        "One child per twenty sets of volumes. The list is read from S3, and results go to S3. What cannot be made is "
        "in the report, and the rest is tried all the same; a child that dies is repeated, and finds what it made.",
    ),
    acts=(
        (
            "Take backups",
            "take_backups",
            "Claims each set for this run, asks EC2 for its snapshots once, and gives each the tags of its volume.",
        ),
    ),
)


REPLICATE = LookingAfter(
    plan=(
        "Plan replication",
        "plan_replication",
        "Looks at the backups that want copies and at the copies that there are, and writes what is to be done to S3. "
        "An event as the input only wakes it; while another run of the Region is at work there is nothing to do.",
    ),
    question=(
        "Anything to copy?",
        "Most runs find that every backup has its copies.",
        "Copies are to be begun, or what is complete is to be noted.",
    ),
    map=(
        "Copy backups",
        "CopyBackups",
        "One child per twenty steps. The list is read from S3, and results go to S3. What cannot be done is in the "
        "report, and the rest is tried all the same; a child that dies is repeated, and finds what it began.",
    ),
    acts=(
        (
            "Begin copies",
            "copy_backups",
            "Begins copies, each once, until EC2 has no place for more; notes complete ones on their originals.",
        ),
    ),
)


def looking_after(operation: str, comment: str, parts: LookingAfter) -> State:
    """A machine that looks after backups: a plan of everything, a map over what is to be done, a report."""
    job = the_job(operation)
    child = {name: f"{{% {CHILD_INPUT}.{name} %}}" for name in ("operation", "job_id", "record", "batch")}
    plan, planning, looks = parts.plan
    question, why, because = parts.question
    acting, label, over = parts.map
    tasks = {
        name: task(told, function=function, payload=child, seconds=LONG_CALL_SECONDS, then="Report batch")
        for name, function, told in parts.acts
    }
    first = next(iter(tasks))
    asked: Graph = {}
    if parts.choice is not None:
        first, reason, meaning = parts.choice
        (name, function, _), (other, _, _) = parts.acts
        condition = f"{{% {CHILD_INPUT}.batch.act = '{function}' %}}"
        asked = {first: choice(reason, condition=condition, because=meaning, then=name, otherwise=other)}
    return machine(
        comment,
        {
            plan: task(
                looks,
                function=planning,
                payload={"operation": operation, **EXECUTION},
                seconds=LONG_CALL_SECONDS,
                assign={"job": "{% $states.result.Payload %}", "record": RECORD},
                refused="The input cannot be used: nothing was begun, and the message is for the operator.",
                then=question,
            ),
            **refuse(),
            question: choice(why, condition="{% $job.to_do %}", because=because, then=acting, otherwise=REPORT),
            acting: {
                **_over_ranges(
                    over,
                    label=label,
                    ranges="{% $job.plan_key %}",
                    job=job,
                    line="batch",
                    first=first,
                    states={
                        **asked,
                        **tasks,
                        "Report batch": report(
                            "What became of each is in S3, which keeps this small.", {"batch": child["batch"]}
                        ),
                    },
                ),
                "Next": REPORT,
            },
            REPORT: task(
                "Puts together what became of everything and stores the report; fails when anything failed.",
                function="write_report",
                payload=job,
                seconds=SHORT_CALL_SECONDS,
                refused="Something could not be done: the message names what, and the report is stored all the same.",
                for_good=(*FOR_GOOD, "ItemsFailed"),
                then=None,
            ),
        },
    )


REPORT = "Write report"

LOOKING_AFTER = MappingProxyType({"backup": BACKUP, "expire": EXPIRE, "replicate": REPLICATE})
"""By their operations."""


def _machine(operation: Operation) -> State:
    if operation.name == "verify":
        return verification(operation.description)
    if operation.name in LOOKING_AFTER:
        return looking_after(operation.name, operation.description, LOOKING_AFTER[operation.name])
    if operation.pairing is None:
        return inspection(operation.description)
    return transfer(operation.name, operation.description, unpacks="unpack_image" in operation.functions)


MACHINES: Mapping[str, State] = MappingProxyType({name: _machine(operation) for name, operation in OPERATIONS.items()})


def rendered(definition: State) -> str:
    """The text of a definition, as it lies in statemachines/."""
    return json.dumps(definition, indent=2) + "\n"
