"""Execution environments without a server: what Lambda promises of the process that runs a handler."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from lambda_probe import Runner, is_running, is_written, payload_of, running_pool, wait_until, zip_of
from localcloud.compute.environment import Answer
from localcloud.compute.faults import Faults
from localcloud.compute.packages import BadPackage, PackageStore
from localcloud.compute.runtime_api import Invocation
from localcloud.host import ControlError


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with running_pool(tmp_path) as running:
        yield running


def test_a_handler_gets_its_event_and_context_in_a_process_of_its_own(runner: Runner) -> None:
    answer = payload_of(runner.ask(runner.function(), {"do": "echo", "n": 1}))

    assert answer["event"] == {"do": "echo", "n": 1}
    assert answer["request_id"] == "request-1"
    assert answer["arn"] == "arn:aws:lambda:us-east-1:111122223333:function:probe"
    assert 15_000 < answer["left_ms"] <= 20_000
    assert answer["pid"] != os.getpid()


def test_the_next_invocation_uses_the_warm_process_even_after_an_exception(runner: Runner) -> None:
    function = runner.function()

    first = payload_of(runner.ask(function, {"do": "echo"}))["pid"]
    failed = runner.ask(function, {"do": "raise"})
    second = payload_of(runner.ask(function, {"do": "echo"}))["pid"]

    assert failed.outcome.error_type == "SnapshotBusy"
    assert first == second


def test_an_exception_arrives_as_the_runtime_client_reported_it(runner: Runner) -> None:
    answer = runner.ask(runner.function(), {"do": "raise"})

    error = payload_of(answer)
    assert error["errorType"] == "SnapshotBusy"
    assert error["errorMessage"] == "snap-1 is busy"
    assert error["requestId"] == "request-1"
    assert "in do_raise" in error["stackTrace"][-1]
    assert "[ERROR] SnapshotBusy: snap-1 is busy\nTraceback (most recent call last):" in answer.log_tail
    assert "Status: error\tError Type: SnapshotBusy" in answer.log_tail


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"do": "exit", "code": 3}, "Runtime exited with error: exit status 3"),
        ({"do": "exit", "code": 0}, "Runtime exited without providing a reason"),
        ({"do": "sys_exit", "code": 4}, "Runtime exited with error: exit status 4"),
    ],
)
def test_a_process_that_exits_is_a_runtime_exit_error_and_is_replaced(
    runner: Runner, event: dict[str, object], reason: str
) -> None:
    function = runner.function()

    assert payload_of(runner.ask(function, event)) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: request-1 Error: {reason}",
    }
    assert payload_of(runner.ask(function, {"do": "echo"}))["event"] == {"do": "echo"}


def test_a_timeout_ends_the_process_and_everything_it_started(runner: Runner, tmp_path: Path) -> None:
    file = tmp_path / "child"

    answer = runner.ask(runner.function(timeout_seconds=1), {"do": "leave_child", "file": str(file)})

    assert payload_of(answer) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": "RequestId: request-1 Error: Task timed out after 1.00 seconds",
    }
    assert "request-1 Task timed out after 1.00 seconds" in answer.log_tail
    assert "Status: timeout" in answer.log_tail
    wait_until(lambda: not is_running(int(file.read_text())), "the child of the handler ends")
    wait_until(lambda: runner.pool.workers() == [], "the environment ends")


def test_a_function_that_outgrows_its_memory_is_killed(runner: Runner) -> None:
    answer = runner.ask(runner.function(), {"do": "hog"})

    assert payload_of(answer) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": "RequestId: request-1 Error: Runtime exited with error: signal: killed",
    }
    assert "Max Memory Used: 128 MB" in answer.log_tail


def test_memory_within_the_limit_is_reported_as_it_was_used(runner: Runner) -> None:
    answer = runner.ask(runner.function(memory_mb=256), {"do": "use", "mib": 100})

    assert payload_of(answer) == 100 * 1024 * 1024
    used = int(answer.log_tail.split("Max Memory Used: ")[1].split(" MB")[0])
    assert 100 < used < 160


def test_a_response_above_six_megabytes_is_refused(runner: Runner) -> None:
    function = runner.function()

    refused = runner.ask(function, {"do": "big", "size": 6_291_556 - 1})
    accepted = runner.ask(function, {"do": "big", "size": 6_291_556 - 2})

    assert payload_of(refused) == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    }
    assert len(payload_of(accepted)) == 6_291_554


@pytest.mark.parametrize(
    ("code", "error_type"),
    [
        ("import no_such_module", "Runtime.ImportModuleError"),
        ("def handler(:", "Runtime.UserCodeSyntaxError"),
        ("x = 1", "Runtime.HandlerNotFound"),
        ("raise KeyError('x')", "KeyError"),
        ("import os; os._exit(7)", "Runtime.ExitError"),
    ],
)
def test_code_that_cannot_be_initialised_says_why(runner: Runner, code: str, error_type: str) -> None:
    assert payload_of(runner.ask(runner.function(code), {}))["errorType"] == error_type


def test_an_environment_has_lambdas_variables_and_none_of_the_servers(runner: Runner) -> None:
    function = runner.function(variables=(("AWS_REGION", "mars"), ("MINE", "yes")))

    with mock.patch.dict(os.environ, {"SECRET_OF_THE_OPERATOR": "x", "AWS_PROFILE": "x"}):
        answer = payload_of(runner.ask(function, {"do": "environment"}))

    variables = answer["variables"]
    assert variables["MINE"] == "yes"
    assert variables["AWS_REGION"] == variables["AWS_DEFAULT_REGION"] == "us-east-1"
    assert variables["AWS_ACCESS_KEY_ID"] == "111122223333"
    assert variables["AWS_LAMBDA_FUNCTION_NAME"] == "probe"
    assert variables["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "128"
    assert variables["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9"
    assert variables["LAMBDA_TASK_ROOT"] == answer["cwd"] == str(function.code)
    assert Path(variables["TMPDIR"]).is_dir()
    assert not {"SECRET_OF_THE_OPERATOR", "AWS_PROFILE", "PYTHONPATH", "VIRTUAL_ENV"} & set(variables)
    assert not [path for path in answer["path"] if "/.venv/" in path]


def test_imports_find_the_layer_before_the_runtime_and_nothing_of_this_checkout(runner: Runner) -> None:
    layer = zip_of({"python/boto3/__init__.py": "", "python/carried/__init__.py": ""})
    function = runner.function(layers=[layer])

    assert "/opt-" in payload_of(runner.ask(function, {"do": "import", "module": "boto3"}))
    assert "/opt-" in payload_of(runner.ask(function, {"do": "import", "module": "carried"}))
    assert "/runtime/" in payload_of(runner.ask(function, {"do": "import", "module": "botocore"}))
    assert payload_of(runner.ask(function, {"do": "import", "module": "pytest"}))["errorType"] == "ModuleNotFoundError"
    assert payload_of(runner.ask(function, {"do": "import", "module": "localcloud"}))["errorType"] == (
        "ModuleNotFoundError"
    )


def test_concurrent_invocations_run_in_different_processes(runner: Runner, tmp_path: Path) -> None:
    function, started, until = runner.function(), tmp_path / "started", tmp_path / "until"
    event = {"do": "wait_for", "started": str(started), "until": str(until)}

    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(runner.ask, function, event) for _ in range(4)]
        wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 4, "four handlers run at once")
        until.touch()

    assert len({payload_of(answer.result()) for answer in answers}) == 4


def test_changed_configuration_ends_the_warm_process_of_the_old_one(runner: Runner) -> None:
    old = payload_of(runner.ask(runner.function(), {"do": "echo"}))["pid"]
    new = payload_of(runner.ask(runner.function(variables=(("A", "1"),)), {"do": "echo"}))["pid"]

    assert old != new
    wait_until(lambda: not is_running(old), "the old process ends")


def test_idle_environments_end_after_their_time(tmp_path: Path) -> None:
    with running_pool(tmp_path, idle_seconds=0.05, idle_check_seconds=0.02) as runner:
        pid = payload_of(runner.ask(runner.function(), {"do": "echo"}))["pid"]
        wait_until(lambda: not is_running(pid), "the idle process ends")


def test_idle_environments_make_room_for_other_functions(tmp_path: Path) -> None:
    with running_pool(tmp_path, max_environments=2) as runner:
        pids = [payload_of(runner.ask(runner.function(name=name), {"do": "echo"}))["pid"] for name in ("a", "b", "c")]
        wait_until(lambda: not is_running(pids[0]), "the one that is idle longest ends")
        assert all(map(is_running, pids[1:]))


def test_closing_the_pool_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    with running_pool(tmp_path) as runner:
        pid = payload_of(runner.ask(runner.function(), {"do": "echo"}))["pid"]

    assert not is_running(pid)
    assert not (tmp_path / "environments").exists()


def test_a_process_killed_between_invocations_is_replaced_unnoticed(runner: Runner) -> None:
    function = runner.function()
    pid = payload_of(runner.ask(function, {"do": "echo"}))["pid"]

    assert runner.pool.kill("probe") == [pid]
    answer = runner.ask(function, {"do": "echo"})

    assert answer.outcome.status == "success"
    assert payload_of(answer)["pid"] != pid


def test_a_busy_process_that_is_killed_fails_its_invocation(runner: Runner, tmp_path: Path) -> None:
    event = {"do": "wait_for", "started": str(tmp_path / "started"), "until": "/nonexistent"}

    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(runner.ask, runner.function(), event)
        wait_until(lambda: bool(list(tmp_path.glob("started-*"))), "the handler runs")
        runner.pool.kill("*", only_busy=True)
        error = payload_of(answer.result(10))

    assert error["errorMessage"].endswith("Runtime exited with error: signal: killed")


def test_a_fault_after_the_handler_loses_its_answer_and_not_its_deeds(runner: Runner, tmp_path: Path) -> None:
    function, file = runner.function(), tmp_path / "deeds"
    runner.faults.add({"function": "probe", "kind": "crash", "nth": 2, "when": "after"})
    event = {"do": "mark", "file": str(file)}

    answers = [runner.ask(function, event).outcome for _ in range(3)]

    assert [answer.error_type for answer in answers] == [None, "Runtime.ExitError", None]
    assert file.read_text() == "handled\n" * 3


@pytest.mark.parametrize(
    ("kind", "error_type"),
    [("crash", "Runtime.ExitError"), ("oom", "Runtime.ExitError"), ("timeout", "Sandbox.Timedout")],
)
def test_a_fault_before_the_handler_runs_nothing(runner: Runner, tmp_path: Path, kind: str, error_type: str) -> None:
    file = tmp_path / "deeds"
    runner.faults.add({"function": "*", "kind": kind, "nth": 1, "when": "before"})

    answer = runner.ask(runner.function(timeout_seconds=900), {"do": "mark", "file": str(file)})

    assert payload_of(answer)["errorType"] == error_type
    assert not file.exists()


def test_a_fault_during_the_handler_interrupts_it(runner: Runner, tmp_path: Path) -> None:
    runner.faults.add({"function": "probe", "kind": "crash", "nth": 1, "when": "during", "after_ms": 20})
    event = {"do": "wait_for", "started": str(tmp_path / "started"), "until": "/nonexistent"}

    assert payload_of(runner.ask(runner.function(), event))["errorType"] == "Runtime.ExitError"


def test_a_duplicate_runs_the_handler_twice_at_a_time_and_the_caller_has_one_answer(
    runner: Runner, tmp_path: Path
) -> None:
    runner.faults.add({"function": "probe", "kind": "duplicate", "nth": 1})
    function, go = runner.function(), tmp_path / "go"
    event = {"do": "wait_for", "started": str(tmp_path / "started"), "until": str(go)}

    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(runner.ask, function, event)
        wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 2, "two handlers run")
        go.touch()
        answered_by = payload_of(answer.result(10))

    handlers = {int(file.name.removeprefix("started-")) for file in tmp_path.glob("started-*")}
    assert answered_by in handlers
    assert {worker["pid"] for worker in runner.pool.workers()} == handlers
    assert payload_of(runner.ask(function, event)) in handlers
    assert len(list(tmp_path.glob("started-*"))) == 2


def test_both_deliveries_of_a_duplicate_are_reported_and_carry_one_request_id(runner: Runner, tmp_path: Path) -> None:
    runner.faults.add({"function": "*", "kind": "duplicate"})
    finished: list[Answer] = []
    invocation = Invocation(request_id="request-7", payload=b'{"do": "echo"}', function_arn="", trace_id=None)

    runner.pool.run(runner.function(), invocation, lambda function, answer: finished.append(answer))

    wait_until(lambda: len(finished) == 2, "both deliveries ended")
    answers = [payload_of(answer) for answer in finished]
    assert {answer["request_id"] for answer in answers} == {"request-7"}
    assert len({answer["pid"] for answer in answers}) == 2


def test_a_crash_strikes_one_delivery_of_a_duplicate_only(runner: Runner, tmp_path: Path) -> None:
    file = tmp_path / "deeds"
    runner.faults.add({"function": "probe", "kind": "duplicate", "nth": 1})
    runner.faults.add({"function": "probe", "kind": "crash", "nth": 1, "when": "before"})

    runner.ask(runner.function(), {"do": "mark", "file": str(file)})

    wait_until(lambda: not any(worker["busy"] for worker in runner.pool.workers()), "both deliveries ended")
    wait_until(lambda: is_written(file), "the other delivery ran")
    assert file.read_text() == "handled\n"


def test_a_slow_start_delays_cold_starts_only_and_no_time_limit_counts_it(runner: Runner) -> None:
    runner.faults.add({"function": "probe", "kind": "slow_start", "delay_ms": 120})
    function = runner.function()

    begun = time.monotonic()
    cold = runner.ask(function, {"do": "echo"})
    seconds = time.monotonic() - begun
    warm = runner.ask(function, {"do": "echo"})

    assert seconds >= 0.12
    assert payload_of(cold)["pid"] == payload_of(warm)["pid"]
    assert payload_of(cold)["left_ms"] > 19_000
    (shown,) = runner.faults.listing()
    assert (shown["seen"], shown["acted"]) == (1, 1)


def test_faults_by_probability_strike_the_same_invocations_with_the_same_seed() -> None:
    def struck() -> list[bool]:
        faults = Faults()
        faults.add({"function": "f", "kind": "crash", "probability": 0.3, "seed": 5})
        return [faults.strike("f", ("crash",)) is not None for _ in range(50)]

    assert struck() == struck()
    assert 5 < sum(struck()) < 25


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"function": "f", "kind": "crash", "nth": 1, "probability": 0.5}, "nth, every and probability exclude"),
        ({"function": "f", "kind": "boom", "nth": 1}, "kind must be one of"),
        ({"function": "f", "kind": "crash", "nth": 0}, "nth must be a whole number of at least 1"),
        ({"function": "f", "kind": "crash", "nth": 1, "wen": "after"}, "unknown members of a fault: wen"),
        ({"kind": "crash", "nth": 1}, "function must be the name"),
    ],
)
def test_a_wrong_fault_is_refused_with_the_reason(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ControlError, match=message):
        Faults().add(raw)


def test_a_package_with_a_path_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    store = PackageStore(tmp_path)

    with pytest.raises(BadPackage, match="outside"):
        store.code(zip_of({"../evil.py": ""}))
    with pytest.raises(BadPackage, match="not a zip"):
        store.code(b"nothing")


def test_a_package_is_unpacked_once_even_by_several_at_a_time(tmp_path: Path) -> None:
    store, archive = PackageStore(tmp_path), zip_of({"a.py": "1", "b/c.py": "2"})
    barrier = threading.Barrier(4)

    def unpack(_: int) -> Path:
        barrier.wait()
        return store.code(archive)

    with ThreadPoolExecutor(4) as threads:
        folders = set(threads.map(unpack, range(4)))

    assert len(folders) == 1
    assert (folders.pop() / "b/c.py").read_text() == "2"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_json_logs_are_json_from_the_platform_too(runner: Runner) -> None:
    runner.ask(runner.function(log_format="JSON", log_level="INFO"), {"do": "echo"})

    assert '"type": "platform.start"' in runner.logged[0]
    assert runner.logged[1] == "asked to echo"
    assert '"status": "success"' in runner.logged[2]
