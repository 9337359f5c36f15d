"""Distributed Map: readers, batches, thresholds, results, Map Runs.

Expectations: developer guide, "Using Map state in Distributed mode", "ItemReader (Map)", "ItemBatcher
(Map)", "ResultWriter (Map)", "Viewing a Distributed Map Run execution", "How Step Functions parses CSV".
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from typing import Any

import pytest
import zstandard
from localcloud.states.clock import SystemClock
from localcloud.states.model import Execution
from localcloud.states.testing import MachineRun, run_machine

PASS = {"StartAt": "T", "States": {"T": {"Type": "Pass", "End": True}}}
CALL = {
    "StartAt": "T",
    "States": {
        "T": {
            "Type": "Task",
            "Resource": "arn:aws:states:::lambda:invoke",
            "Arguments": {"FunctionName": "f", "Payload": "{% $states.input %}"},
            "Output": "{% $states.result.Payload %}",
            "End": True,
        }
    },
}


def machine(processor: dict[str, Any] = PASS, *, kind: str = "STANDARD", **more: Any) -> dict[str, Any]:
    config = {"Mode": "DISTRIBUTED", "ExecutionType": kind}
    state = {"Type": "Map", "ItemProcessor": {**processor, "ProcessorConfig": config}, "End": True, **more}
    return {"QueryLanguage": "JSONata", "StartAt": "M", "States": {"M": state}}


def reader(key: str, **config: Any) -> dict[str, Any]:
    return {
        "Resource": "arn:aws:states:::s3:getObject",
        "ReaderConfig": config,
        "Arguments": {"Bucket": "data", "Key": key},
    }


WRITER = {"Resource": "arn:aws:states:::s3:putObject", "Arguments": {"Bucket": "data", "Prefix": "results"}}


def output(execution: Execution) -> Any:
    assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
    return json.loads(execution.output or "null")


def read(key: str, body: bytes, **config: Any) -> Any:
    execution = run_machine(machine(ItemReader=reader(key, **config)), s3={"data": {key: body}})
    return output(execution)


LINES = b'{"verdict": "true"}\n{"verdict": "false"}\n\n{"verdict": "half"}\n'
VERDICTS = [{"verdict": "true"}, {"verdict": "false"}, {"verdict": "half"}]


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("a.jsonl.zstd", zstandard.compress(LINES)),
    ],
)
def test_json_lines_are_read_compressed_or_not(key: str, body: bytes) -> None:
    assert read(key, body, InputType="JSONL") == VERDICTS


def test_a_json_array_is_read_and_a_pointer_selects_a_nested_one() -> None:
    assert read("a.json", json.dumps(VERDICTS).encode(), InputType="JSON") == VERDICTS
    nested = json.dumps({"inventory": {"products": {"featured": [1, 2]}}}).encode()
    assert read("b.json", nested, InputType="JSON", ItemsPointer="/inventory/products/featured") == [1, 2]


def test_a_json_object_is_read_as_keys_and_values() -> None:
    assert read("a.json", b'{"k": 1}', InputType="JSON") == [{"Key": "k", "Value": 1}]


def test_csv_fields_are_strings_short_rows_are_padded_and_long_ones_cut() -> None:
    body = b'userId,movieId,rating\r\n1,307,3.5\r\n1,481\r\n1,1091,"1,5",extra\r\n'
    assert read("a.csv", body, InputType="CSV", CSVHeaderLocation="FIRST_ROW") == [
        {"userId": "1", "movieId": "307", "rating": "3.5"},
        {"userId": "1", "movieId": "481", "rating": ""},
        {"userId": "1", "movieId": "1091", "rating": "1,5"},
    ]


def test_csv_headers_can_be_given_with_another_delimiter_and_a_limit() -> None:
    config = {
        "InputType": "CSV",
        "CSVHeaderLocation": "GIVEN",
        "CSVHeaders": ["path", "size"],
        "CSVDelimiter": "PIPE",
        "MaxItems": 2,
    }
    assert read("a.csv", b"C:\\\\Files\\\\App.exe|1\nb|2\nc|3\n", **config) == [
        {"path": "C:\\Files\\App.exe", "size": "1"},
        {"path": "b", "size": "2"},
    ]


def test_an_inventory_manifest_gives_the_objects_of_all_its_files() -> None:
    rows = b'"source","csvDataset/titles.csv","3399671"\n"source","imageDataset/","0"\n'
    manifest = {
        "sourceBucket": "source",
        "destinationBucket": "arn:aws:s3:::inventory",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size",
        "files": [{"key": "data/1.csv.gz"}, {"key": "data/2.csv.gz"}],
    }
    s3 = {
        "data": {"manifest.json": json.dumps(manifest).encode()},
        "inventory": {
            "data/1.csv.gz": gzip.compress(rows, mtime=0),
            "data/2.csv.gz": gzip.compress(rows.splitlines(keepends=True)[0], mtime=0),
        },
    }
    execution = run_machine(machine(ItemReader=reader("manifest.json", InputType="MANIFEST")), s3=s3)
    titles = {"Bucket": "source", "Key": "csvDataset/titles.csv", "Size": "3399671"}
    folder = {"Bucket": "source", "Key": "imageDataset/", "Size": "0"}
    assert output(execution) == [titles, folder, titles]


def test_a_listing_gives_the_metadata_of_objects_below_the_prefix_or_their_contents() -> None:
    s3 = {"data": {"in/a.json": b"[1, 2]", "in/b.json": b"[3]", "other": b""}}
    listing: dict[str, Any] = {
        "Resource": "arn:aws:states:::s3:listObjectsV2",
        "Arguments": {"Bucket": "data", "Prefix": "in/"},
    }
    items = output(run_machine(machine(ItemReader=listing), s3=s3))
    assert [(item["Key"], item["Size"]) for item in items] == [("in/a.json", 6), ("in/b.json", 3)]
    assert items[0].keys() == {"Etag", "Key", "LastModified", "Size", "StorageClass"}
    listing["ReaderConfig"] = {"InputType": "JSON", "Transformation": "LOAD_AND_FLATTEN"}
    assert output(run_machine(machine(ItemReader=listing), s3=s3)) == [1, 2, 3]


def test_the_item_selector_sees_index_value_and_source_of_the_item() -> None:
    selector = {"i": "{% $states.context.Map.Item.Index %}", "s": "{% $states.context.Map.Item.Source %}"}
    definition = machine(ItemReader=reader("a.jsonl", InputType="JSONL"), ItemSelector=selector)
    execution = run_machine(definition, s3={"data": {"a.jsonl": b"1\n2\n"}})
    assert output(execution) == [{"i": 0, "s": "S3://data/a.jsonl"}, {"i": 1, "s": "S3://data/a.jsonl"}]


def test_batches_hold_so_many_items_and_the_batch_input() -> None:
    batcher = {"MaxItemsPerBatch": 2, "BatchInput": {"factCheck": "December 2022"}}
    execution = run_machine(machine(Items=[1, 2, 3], ItemBatcher=batcher))
    shared = {"factCheck": "December 2022"}
    assert output(execution) == [{"BatchInput": shared, "Items": [1, 2]}, {"BatchInput": shared, "Items": [3]}]


def test_batches_stay_below_the_bytes_they_may_have() -> None:
    items = [{"id": number} for number in range(10)]
    outputs = output(run_machine(machine(Items=items, ItemBatcher={"MaxInputBytesPerBatch": 40})))
    assert [item for batch in outputs for item in batch["Items"]] == items
    sizes = [len(json.dumps(batch, separators=(",", ":"))) for batch in outputs]
    assert max(sizes) <= 40
    assert len(outputs) < len(items)


def test_a_missing_dataset_is_an_item_reader_failure_that_can_be_caught() -> None:
    definition = machine(
        ItemReader=reader("gone", InputType="JSON"),
        Catch=[{"ErrorEquals": ["States.ItemReaderFailed"], "Output": "caught", "Next": "Z"}],
    )
    definition["States"]["Z"] = {"Type": "Succeed"}
    execution = run_machine(definition, s3={"data": {}})
    assert output(execution) == "caught"
    assert "MapRunFailed" in [event["type"] for event in execution.history.events()]


def test_the_writer_exports_in_the_documented_files() -> None:
    s3: dict[str, dict[str, bytes]] = {"data": {}}
    with MachineRun(machine(Items=["alpha", "bravo"], ResultWriter=WRITER, Label="Map"), s3=s3) as run:
        execution = run.finish(run.start())
        result = output(execution)
        (map_run,) = run.engine.registry.map_runs_of(execution.arn)
        assert map_run.describe()["itemCounts"]["resultsWritten"] == 2
    uuid = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    assert re.fullmatch(rf"arn:aws:states:us-east-1:111122223333:mapRun:test/Map:{uuid}", result["MapRunArn"])
    identifier = result["MapRunArn"].rsplit(":", 1)[-1]
    folder = f"results/{identifier}"
    assert result["ResultWriterDetails"] == {"Bucket": "data", "Key": f"{folder}/manifest.json"}
    body = s3["data"][f"{folder}/SUCCEEDED_0.json"]
    assert json.loads(s3["data"][f"{folder}/manifest.json"]) == {
        "DestinationBucket": "data",
        "MapRunArn": result["MapRunArn"],
        "ResultFiles": {
            "FAILED": [],
            "PENDING": [],
            "SUCCEEDED": [{"Key": f"{folder}/SUCCEEDED_0.json", "Size": len(body)}],
        },
    }
    first = json.loads(body)[0]
    assert re.fullmatch(rf"arn:aws:states:us-east-1:111122223333:execution:test/Map:{uuid}", first["ExecutionArn"])
    assert first["StateMachineArn"] == "arn:aws:states:us-east-1:111122223333:stateMachine:test/Map"
    assert (first["Input"], first["Output"], first["Status"]) == ('"alpha"', '"alpha"', "SUCCEEDED")
    assert first["InputDetails"] == first["OutputDetails"] == {"Included": True}
    assert (first["RedriveCount"], first["RedriveStatus"]) == (0, "NOT_REDRIVABLE")
    assert first["RedriveStatusReason"] == "Execution is SUCCEEDED and cannot be redriven"


@pytest.mark.parametrize(
    ("config", "name", "body"),
    [
        ({"Transformation": "COMPACT"}, "SUCCEEDED_0.json", b"[[1,2],[3]]"),
        ({"Transformation": "FLATTEN"}, "SUCCEEDED_0.json", b"[1,2,3]"),
        ({"Transformation": "FLATTEN", "OutputType": "JSONL"}, "SUCCEEDED_0.jsonl", b"1\n2\n3\n"),
    ],
)
def test_the_writer_transforms_results(config: dict[str, str], name: str, body: bytes) -> None:
    s3: dict[str, dict[str, bytes]] = {"data": {}}
    run_machine(machine(Items=[[1, 2], [3]], ResultWriter={**WRITER, "WriterConfig": config}), s3=s3)
    assert [value for key, value in s3["data"].items() if key.endswith(name)] == [body]


def test_without_an_export_the_state_gives_its_results_flattened_if_asked() -> None:
    assert output(run_machine(machine(Items=[[1, 2], [3]]))) == [[1, 2], [3]]
    flattened = machine(Items=[[1, 2], [3]], ResultWriter={"WriterConfig": {"Transformation": "FLATTEN"}})
    assert output(run_machine(flattened)) == [1, 2, 3]


def test_results_over_256_kib_without_an_export_exceed_the_data_limit() -> None:
    execution = run_machine(machine(CALL, Items=[1, 2, 3]), tasks={"f": lambda _: "x" * 100_000})
    assert (execution.status, execution.error) == ("FAILED", "States.DataLimitExceeded")


def fail_odd(event: Any) -> Any:
    if event % 2:
        raise ValueError("odd")
    return event


def test_by_default_one_failed_item_fails_the_map_and_what_did_not_run_is_pending() -> None:
    s3: dict[str, dict[str, bytes]] = {"data": {}}
    definition = machine(CALL, Items=[0, 1, 2, 3], MaxConcurrency=1, ResultWriter=WRITER)
    with MachineRun(definition, s3=s3, tasks={"f": fail_odd}) as run:
        execution = run.finish(run.start())
        (map_run,) = run.engine.registry.map_runs_of(execution.arn)
        counts = map_run.describe()["itemCounts"]
    assert (execution.status, execution.error) == ("FAILED", "States.ExceedToleratedFailureThreshold")
    assert (counts["succeeded"], counts["failed"], counts["pending"], counts["total"]) == (1, 1, 2, 4)
    files = {key.rsplit("/", 1)[-1]: json.loads(body) for key, body in s3["data"].items()}
    assert [row["Output"] for row in files["SUCCEEDED_0.json"]] == ["0"]
    assert [(row["Input"], row["Status"], row["Error"]) for row in files["FAILED_0.json"]] == [
        ("1", "FAILED", "ValueError")
    ]
    assert [(row["Input"], row["Status"]) for row in files["PENDING_0.json"]] == [("2", "PENDING"), ("3", "PENDING")]


@pytest.mark.parametrize(
    ("tolerated", "status"),
    [
        ({"ToleratedFailureCount": 2}, "SUCCEEDED"),
        ({"ToleratedFailureCount": 1}, "FAILED"),
        ({"ToleratedFailureCount": 0}, "FAILED"),
        ({"ToleratedFailurePercentage": 50}, "SUCCEEDED"),
        ({"ToleratedFailurePercentage": 49.9}, "FAILED"),
        ({"ToleratedFailurePercentage": 0}, "FAILED"),
        ({"ToleratedFailurePercentage": 100, "ToleratedFailureCount": 1}, "FAILED"),
        ({"ToleratedFailurePercentage": "{% 50 %}"}, "SUCCEEDED"),
    ],
)
def test_thresholds_count_failed_items(tolerated: dict[str, Any], status: str) -> None:
    execution = run_machine(machine(CALL, Items=[0, 1, 2, 3], **tolerated), tasks={"f": fail_odd})
    assert execution.status == status


def test_all_items_of_a_failed_batch_count_as_failed() -> None:
    definition = machine(CALL, Items=[1, 2, 3, 4], ItemBatcher={"MaxItemsPerBatch": 2}, ToleratedFailureCount=2)

    def fail_first(event: Any) -> Any:
        if 1 in event["Items"]:
            raise ValueError
        return "ok"

    with MachineRun(definition, tasks={"f": fail_first}) as run:
        execution = run.finish(run.start())
        (map_run,) = run.engine.registry.map_runs_of(execution.arn)
        described = map_run.describe()
    assert execution.status == "SUCCEEDED"
    assert described["itemCounts"]["failed"] == 2
    assert described["executionCounts"]["failed"] == 1


def test_a_retry_of_the_map_state_is_a_new_map_run_over_all_items() -> None:
    seen: list[int] = []
    lock = threading.Lock()

    def fail_once(event: int) -> int:
        with lock:
            seen.append(event)
            if seen.count(event) == 1 and event == 2:
                raise ValueError
        return event

    definition = machine(CALL, Items=[1, 2], MaxConcurrency=1, Retry=[{"ErrorEquals": ["States.ALL"]}])
    with MachineRun(definition, tasks={"f": fail_once}) as run:
        execution = run.finish(run.start())
        statuses = sorted(map_run.status for map_run in run.engine.registry.map_runs_of(execution.arn))
    assert output(execution) == [1, 2]
    assert seen == [1, 2, 1, 2]
    assert statuses == ["FAILED", "SUCCEEDED"]


class Gauge:
    """Counts how many calls run at the same time; each waits until it is let go."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.running = 0
        self.let_go = 0

    def __call__(self, event: Any) -> Any:
        with self.changed:
            self.running += 1
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.let_go > 0, 10)
            self.let_go -= 1
            self.running -= 1
            self.changed.notify_all()
        return event

    def wait_for(self, running: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.running == running, 10), self.running

    def release(self, count: int) -> None:
        with self.changed:
            self.let_go += count
            self.changed.notify_all()


def test_no_more_children_than_allowed_run_at_once_and_an_update_takes_effect_at_once() -> None:
    gauge = Gauge()
    with MachineRun(machine(CALL, Items=list(range(12)), MaxConcurrency=2), tasks={"f": gauge}) as run:
        execution = run.start()
        gauge.wait_for(2)
        (map_run,) = run.engine.registry.map_runs_of(execution.arn)
        assert map_run.describe()["executionCounts"]["running"] == 2
        map_run.update(max_concurrency=5)
        gauge.wait_for(5)
        assert map_run.describe()["maxConcurrency"] == 5
        gauge.release(12)
        run.finish(execution)
        assert output(execution) == list(range(12))


def test_children_have_executions_and_histories_of_their_own() -> None:
    with MachineRun(machine(Items=[7], Label="L")) as run:
        execution = run.finish(run.start())
        (map_run,) = run.engine.registry.map_runs_of(execution.arn)
        (child,) = map_run.children.values()
        assert run.engine.registry.execution(child.arn) is child
    assert [event["type"] for event in child.history.events()] == [
        "ExecutionStarted",
        "PassStateEntered",
        "PassStateExited",
        "ExecutionSucceeded",
    ]
    assert [event["type"] for event in execution.history.events()] == [
        "ExecutionStarted",
        "MapStateEntered",
        "MapStateStarted",
        "MapRunStarted",
        "MapRunSucceeded",
        "MapStateSucceeded",
        "MapStateExited",
        "ExecutionSucceeded",
    ]


def test_a_long_map_needs_no_thread_per_item() -> None:
    lines = b"".join(b"%d\n" % number for number in range(2_000))
    threads: set[int] = set()

    def note(_: Any) -> Any:
        threads.add(threading.active_count())

    definition = machine(CALL, ItemReader=reader("a.jsonl", InputType="JSONL"), MaxConcurrency=8, ResultWriter=WRITER)
    with MachineRun(definition, s3={"data": {"a.jsonl": lines}}, tasks={"f": note}) as run:
        before = threading.active_count()
        execution = run.finish(run.start(), seconds=60)
        (map_run,) = run.engine.registry.map_runs_of(execution.arn)
    assert execution.status == "SUCCEEDED"
    assert map_run.describe()["itemCounts"]["succeeded"] == 2_000
    # Eight children with a task each, the reader, and the execution itself.
    assert max(threads) <= before + 2 * 8 + 4


def test_express_children_cannot_be_stopped_but_the_map_waits_for_them() -> None:
    gauge = Gauge()
    with MachineRun(machine(CALL, kind="EXPRESS", Items=[1]), tasks={"f": gauge}, clock=SystemClock()) as run:
        execution = run.start()
        gauge.wait_for(1)
        run.engine.stop(execution.arn, error=None, cause=None)
        assert execution.status == "ABORTED"
        gauge.release(1)
        run.finish(execution)
        (map_run,) = run.engine.registry.map_runs_of(execution.arn)
        assert map_run.describe()["executionCounts"]["succeeded"] == 1


def test_a_map_over_nothing_succeeds_with_nothing() -> None:
    assert output(run_machine(machine(Items=[]))) == []
    s3: dict[str, dict[str, bytes]] = {"data": {"a.jsonl": b""}}
    definition = machine(ItemReader=reader("a.jsonl", InputType="JSONL"), ResultWriter=WRITER)
    result = output(run_machine(definition, s3=s3))
    manifest = json.loads(s3["data"][result["ResultWriterDetails"]["Key"]])
    assert manifest["ResultFiles"] == {"FAILED": [], "PENDING": [], "SUCCEEDED": []}


def test_a_dataset_that_breaks_off_fails_the_map_instead_of_ending_it() -> None:
    for key, body, config in (
        ("a.jsonl", b'{"n": 1}\n{"n": ', {"InputType": "JSONL"}),
        ("a.jsonl.gz", gzip.compress(b"1\n2\n", mtime=0)[:-4], {"InputType": "JSONL"}),
        ("a.csv", b'n\n1\n"2', {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"}),
    ):
        execution = run_machine(machine(ItemReader=reader(key, **config)), s3={"data": {key: body}})
        assert (execution.status, execution.error) == ("FAILED", "States.ItemReaderFailed"), key


def test_an_expression_that_fails_for_an_item_fails_the_map() -> None:
    definition = machine(Items=[{"a": 1}, {}], ItemSelector="{% $states.context.Map.Item.Value.a %}")
    execution = run_machine(definition)
    assert (execution.status, execution.error) == ("FAILED", "States.QueryEvaluationError")
