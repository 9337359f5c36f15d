"""What a Distributed Map gives: its state's result, and the files of its ResultWriter.

Source: developer guide, "ResultWriter (Map)".
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final

from localcloud.states.clock import iso
from localcloud.states.errors import EvaluationError, StateError
from localcloud.states.limits import MAX_PAYLOAD_BYTES, MAX_RESULT_FILE_BYTES, compact, size_of
from localcloud.states.map_run import MapRun
from localcloud.states.model import SUCCEEDED, Execution
from localcloud.states.services import Caller, ObjectStore
from localcloud.states.visit import Visit

Row = Mapping[str, Any]
_END: Final = object()


class ResultWriter:
    """Writes results to the bucket and prefix, and in the format, of one Map state."""

    def __init__(self, visit: Visit, *, objects: ObjectStore, caller: Caller, spool_dir: str | None) -> None:
        writer = visit.state.get("ResultWriter", {})
        config = writer.get("WriterConfig", {})
        self.exports = "Resource" in writer
        self._transformation: str = config.get("Transformation", "NONE" if self.exports else "COMPACT")
        self._lines = config.get("OutputType", "JSON") == "JSONL"
        self._objects = objects
        self._caller = caller
        self._spool_dir = spool_dir
        self._state_name = visit.name
        self._bucket = self._prefix = ""
        if self.exports:
            where = visit.value(writer["Arguments"], "ResultWriter/Arguments")
            self._bucket, self._prefix = where.get("Bucket"), where.get("Prefix", "")
            if not isinstance(self._bucket, str) or not isinstance(self._prefix, str):
                raise EvaluationError(
                    "The ResultWriter needs a Bucket and a Prefix string.", location="ResultWriter/Arguments"
                )

    def result(self, map_run: MapRun) -> Any:
        """The state's result without an export. Raises ``States.DataLimitExceeded`` before it gets too big."""
        values: list[Any] = []
        size = 2
        for value in self._values(_ended(map_run)):
            size += size_of(compact(value)) + 1
            if size - 1 > MAX_PAYLOAD_BYTES:
                raise StateError(
                    "States.DataLimitExceeded",
                    f"The state/task '{self._state_name}' returned a result with a size exceeding the maximum "
                    "number of bytes service limit.",
                )
            values.append(value)
        return values

    def export(self, map_run: MapRun) -> dict[str, Any]:
        """Write the files; returns the state's result. Raises ``States.ResultWriterFailed``."""
        ended = _ended(map_run)
        good = [child for child in ended if child.status == SUCCEEDED]
        bad = [child for child in ended if child.status != SUCCEEDED]
        try:
            files = {
                "FAILED": self._write(map_run, "FAILED", (_row(child) for child in bad)),
                "PENDING": self._write(map_run, "PENDING", _pending(map_run)),
                "SUCCEEDED": self._write(map_run, "SUCCEEDED", self._values(good)),
            }
            manifest = {
                "DestinationBucket": self._bucket,
                "MapRunArn": map_run.arn,
                "ResultFiles": files,
            }
            key = self._key(map_run, "manifest.json")
            with tempfile.TemporaryFile(dir=self._spool_dir) as body:
                body.write(compact(manifest).encode())
                self._put(key, body)
        except OSError as error:
            raise StateError("States.ResultWriterFailed", str(error) or type(error).__name__) from error
        with map_run.changed:
            map_run.results_written = len(ended)
            map_run.items_written = sum(child.item_count for child in ended)
        return {"MapRunArn": map_run.arn, "ResultWriterDetails": {"Bucket": self._bucket, "Key": key}}

    def _values(self, children: list[Execution]) -> Iterator[Any]:
        for child in children:
            if self._transformation == "NONE" or child.status != SUCCEEDED:
                # "If a child workflow execution fails, Step Functions returns its execution result unchanged."
                yield _row(child)
                continue
            value = json.loads(child.output or "null")
            if self._transformation == "FLATTEN" and isinstance(value, list):
                yield from value
            else:
                yield value

    def _write(self, map_run: MapRun, status: str, values: Iterator[Any]) -> list[dict[str, Any]]:
        files: list[dict[str, Any]] = []
        suffix = "jsonl" if self._lines else "json"
        opening, between, closing = ("", "\n", "\n") if self._lines else ("[", ",", "]")
        value = next(values, _END)
        while value is not _END:
            with tempfile.TemporaryFile(dir=self._spool_dir) as body:
                body.write((opening + compact(value)).encode("utf-8", "surrogatepass"))
                while (value := next(values, _END)) is not _END:
                    text = (between + compact(value)).encode("utf-8", "surrogatepass")
                    if body.tell() + len(text) + 1 > MAX_RESULT_FILE_BYTES:
                        break
                    body.write(text)
                body.write(closing.encode())
                size = body.tell()
                key = self._key(map_run, f"{status}_{len(files)}.{suffix}")
                self._put(key, body)
            files.append({"Key": key, "Size": size})
        return files

    def _put(self, key: str, body: IO[bytes]) -> None:
        body.seek(0)
        self._objects.put(self._caller, bucket=self._bucket, key=key, body=body)

    def _key(self, map_run: MapRun, name: str) -> str:
        prefix = self._prefix.removesuffix("/")
        return f"{prefix}/{map_run.identifier}/{name}" if prefix else f"{map_run.identifier}/{name}"


def _ended(map_run: MapRun) -> list[Execution]:
    return [child for _, child in sorted(map_run.children.items())]


def _row(child: Execution) -> Row:
    """One child in a result file; redrive facts as DescribeExecution shows them for a child."""
    row: dict[str, Any] = {
        "ExecutionArn": child.arn,
        "Input": child.input,
        "InputDetails": {"Included": True},
        "Name": child.name,
    }
    if child.output is not None:
        row |= {"Output": child.output, "OutputDetails": {"Included": True}}
    if child.status != SUCCEEDED:
        row |= {name: text for name, text in (("Error", child.error), ("Cause", child.cause)) if text is not None}
    redrivable = child.status != SUCCEEDED
    row |= {
        "RedriveCount": child.redrive_count,
        "RedriveStatus": "REDRIVABLE_BY_MAP_RUN" if redrivable else "NOT_REDRIVABLE",
        "RedriveStatusReason": f"Execution is {child.status} and "
        + ("can be redriven by its Map Run" if redrivable else "cannot be redriven"),
        "StartDate": iso(child.start_date),
        "StateMachineArn": child.state_machine_arn,
        "Status": child.status,
    }
    if child.stop_date is not None:
        row["StopDate"] = iso(child.stop_date)
    return row


def _pending(map_run: MapRun) -> Iterator[Row]:
    for index in range(map_run.next_child, len(map_run.spool)):
        name = child_name(map_run, index)
        yield {
            "ExecutionArn": f"{map_run.child_prefix}:{name}",
            "Input": map_run.spool.input(index),
            "InputDetails": {"Included": True},
            "Name": name,
            "StateMachineArn": map_run.state_machine_arn,
            "Status": "PENDING",
        }


def child_name(map_run: MapRun, index: int) -> str:
    """The same child has the same name in every attempt of its Map Run: a UUID of version 3, as real ones."""
    return str(uuid.uuid3(uuid.UUID(map_run.identifier), str(index)))
