"""The local cloud's server and ``scripts/cloud``: starting, stopping, and leaving nothing behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lambda_probe import HANDLER, is_running, wait_until, zip_of
from localcloud import cli
from localcloud.lifecycle import CloudFailed, checked_regions, down, info, up
from localcloud.state import CloudDirectory, CloudInfo, CloudState, Server
from server_probe import SCRIPTS, RunningServer, running_server, server_command, server_environment


def processes_of(server: RunningServer) -> list[int]:
    """Process ids of the server, of the EBS server, and of a busy and an idle execution environment."""
    client = server.client("lambda")
    client.create_function(
        FunctionName="probe",
        Runtime="python3.11",
        Role="arn:aws:iam::111122223333:role/probe",
        Handler="app.handler",
        Code={"ZipFile": zip_of({"app.py": HANDLER})},
        Timeout=60,
    )
    idle = json.load(client.invoke(FunctionName="probe", Payload=b'{"do": "echo"}')["Payload"])["pid"]
    client.publish_version(FunctionName="probe")
    event = {"do": "wait_for", "started": str(server.folder / "started"), "until": "/nonexistent"}
    client.invoke(FunctionName="probe:1", InvocationType="Event", Payload=json.dumps(event))
    wait_until(lambda: bool(list(server.folder.glob("started-*"))), "the handler runs")
    busy = int(next(server.folder.glob("started-*")).name.partition("-")[2])
    health = server.control("GET", "health")[1]
    return [health["pid"], health["ebs_pid"], idle, busy]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_survives_the_server_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    with running_server(tmp_path) as server:
        pids = processes_of(server)
        assert len(set(pids)) == 4
        assert all(map(is_running, pids))

        server.process.send_signal(number)
        status = server.process.wait(20)

        wait_until(lambda: not any(map(is_running, pids)), "all processes end", 5)
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else 0)


def test_a_handler_that_a_client_waits_for_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, ThreadPoolExecutor(1) as thread:
        processes_of(server)
        event = {"do": "wait_for", "started": str(tmp_path / "second"), "until": "/nonexistent"}
        waiting = thread.submit(server.client("lambda").invoke, FunctionName="probe", Payload=json.dumps(event))
        wait_until(lambda: bool(list(tmp_path.glob("second-*"))), "the handler runs")
        began = time.monotonic()
        server.process.terminate()
        assert server.process.wait(20) == 0
        taken = time.monotonic() - began
        answer = json.load(waiting.result(10)["Payload"])

    assert answer["errorType"] == "Runtime.ExitError"
    assert taken < 5


def test_health_tells_when_the_ebs_server_has_ended(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        health = server.control("GET", "health")[1]
        assert health["status"] == "ok"

        os.kill(health["ebs_pid"], signal.SIGKILL)

        wait_until(lambda: server.control("GET", "health")[1]["status"] == "the EBS server has ended", "health tells")
        assert server.control("GET", "ebs/health")[0] == 502


def test_the_server_ends_on_request_and_removes_its_ready_file(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        assert server.control("POST", "quit") == (200, {})
        assert server.process.wait(20) == 0
    assert not (tmp_path / "ready.json").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "config file"),
        ('{"lamda": {}}', "unknown parts lamda"),
        ('{"lambda": {"faults": [{"function": "f", "kind": "boom", "nth": 1}]}}', "kind must be one of"),
        ('{"lambda": {"idle": 1}}', "unknown keys in 'lambda': idle"),
        ('{"lambda": {"idle_seconds": "1"}}', "'idle_seconds' in 'lambda' must be a number"),
    ],
)
def test_a_wrong_config_file_is_refused_with_the_reason(tmp_path: Path, config: str, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(config)

    done = subprocess.run(
        server_command(tmp_path, "--config", str(file)),
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_refused_with_the_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            server_command(tmp_path, "--port", str(taken.getsockname()[1])),
            env=server_environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert done.returncode == 1
    assert "Address already in use" in done.stderr


def test_the_self_check_names_a_hook_that_the_base_has_not_got(tmp_path: Path) -> None:
    # In a process of its own: the base configures itself and logging while it is imported.
    program = """
import sys
from pathlib import Path
from ministack.services import lambda_svc
del lambda_svc._execute_function_warm
from localcloud.compute import plugin
from localcloud.host import Host, HookMissing
host = Host(endpoint_url="http://127.0.0.1:1", ebs_endpoint_url="http://127.0.0.1:2", data_dir=Path(sys.argv[1]),
            default_account_id="111122223333", config={}, handlers={})
plugin.install(host)
try:
    host.self_check()
except HookMissing as error:
    print(error)
host.shut_down()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "missing: ministack.services.lambda_svc._execute_function_warm." in done.stdout, done.stderr


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[CloudDirectory]:
    made = CloudDirectory(tmp_path / "cloud")
    yield made
    down(made)


def test_up_is_done_once_whoever_asks_and_down_leaves_nothing(directory: CloudDirectory) -> None:
    with ThreadPoolExecutor(3) as threads:
        clouds = list(threads.map(lambda _: up(apply=False, directory=directory), range(3)))
    began = time.monotonic()
    again = up(directory=directory)
    taken = time.monotonic() - began

    assert {cloud.pid for cloud in clouds} == {again.pid}
    assert info(directory) == again
    assert taken < 1
    assert again.regions == ("us-east-1", "eu-west-1")
    assert down(directory) is True
    assert down(directory) is False
    assert not is_running(again.pid)
    assert info(directory) is None
    assert not directory.data.exists()


def test_a_folder_with_files_of_others_is_refused_and_one_that_is_just_being_made_is_not(tmp_path: Path) -> None:
    others, fresh, ours = (CloudDirectory(tmp_path / name) for name in ("others", "fresh", "ours"))
    others.path.mkdir()
    (others.path / "thesis.tex").touch()
    ours.make()
    (ours.path / "server.log").touch()
    assert [each.foreign_files() for each in (others, fresh, ours)] == [["thesis.tex"], [], []]
    with pytest.raises(CloudFailed, match=r"holds thesis\.tex"):
        down(others)
    assert [file.name for file in others.path.iterdir()] == ["thesis.tex"]


def test_up_refuses_to_pass_off_another_cloud_as_the_one_asked_for(directory: CloudDirectory) -> None:
    up(apply=False, directory=directory)

    with pytest.raises(CloudFailed, match="regions us-east-1,eu-west-1; run scripts/cloud down first"):
        up(regions=("us-west-2", "eu-west-1"), directory=directory)


def test_a_crashed_server_is_noticed_and_replaced(directory: CloudDirectory) -> None:
    crashed = up(apply=False, directory=directory)
    os.kill(crashed.pid, signal.SIGKILL)
    wait_until(lambda: info(directory) is None, "the crash is noticed")

    assert up(apply=False, directory=directory).pid != crashed.pid


def test_a_process_id_in_use_again_is_not_taken_for_the_server(directory: CloudDirectory) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        server = Server(pid=stranger.pid, started="another time")
        cloud = CloudInfo(
            endpoint_url="http://127.0.0.1:1",
            endpoint_urls={},
            secret_access_key="secret",
            control_token="token",
            regions=("us-east-1", "eu-west-1"),
            account_id="111122223333",
            state_machines={},
            buckets={},
            pid=stranger.pid,
        )
        directory.write(CloudState(server=server, config=None, info=cloud))

        assert info(directory) is None
        assert down(directory) is False
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_that_does_not_start_is_reported_and_cleaned_up(directory: CloudDirectory, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"nothing": {}}')

    with pytest.raises(CloudFailed, match="unknown parts nothing"):
        up(apply=False, config=config, directory=directory)

    assert directory.read() is None


@pytest.mark.parametrize("regions", [["us-east-1"], ["us-east-1", "us-east-1"], ["a", "b"], ["us-east-1"] * 3])
def test_anything_but_two_different_regions_is_refused(regions: list[str]) -> None:
    with pytest.raises(CloudFailed, match="two"):
        checked_regions(regions)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """It would be closed to everybody else, and parts of it would be deleted."""
    (tmp_path / "data").mkdir(mode=0o755)
    (tmp_path / "letter.txt").write_text("not ours")
    tmp_path.chmod(0o755)
    for attempt in (
        lambda: up(apply=False, directory=CloudDirectory(tmp_path)),
        lambda: down(CloudDirectory(tmp_path)),
    ):
        with pytest.raises(CloudFailed, match=r"letter\.txt"):
            attempt()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data", "letter.txt"]


def test_the_commands_print_what_other_programs_read(
    directory: CloudDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BLOCKFERRY_CLOUD_DIR", str(directory.path))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert cli.main(["status"]) == 3
        assert cli.main(["env"]) == 1
        assert "scripts/cloud up" in capsys.readouterr().err
        assert cli.main(["up", "--json", "--no-apply", "--regions", "us-east-2,eu-central-1"]) == 0
        cloud = json.loads(capsys.readouterr().out)
        assert cli.main(["env"]) == 0
        exports = capsys.readouterr().out.splitlines()
        secrets = (directory.path, directory.ready_file, directory.path / "state.json")
        assert [file.stat().st_mode & 0o777 for file in secrets] == [0o700, 0o600, 0o600]
        assert cli.main(["status"]) == 0
        assert cli.main(["logs"]) == 0
        assert cli.main(["logs", "nobody"]) == 1
        assert cli.main(["down"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)

    assert cloud["regions"] == ["us-east-2", "eu-central-1"]
    assert set(cloud) == {
        *("endpoint_url", "endpoint_urls", "regions", "account_id", "state_machines", "buckets", "pid"),
        *("secret_access_key", "control_token"),
    }
    assert f"export AWS_ENDPOINT_URL={cloud['endpoint_url']}" in exports
    assert f"export AWS_ENDPOINT_URL_EBS={cloud['endpoint_urls']['ebs']}" in exports
    assert "export AWS_ACCESS_KEY_ID=111122223333" in exports
    assert "export AWS_REGION=us-east-2" in exports
    assert f"export AWS_SECRET_ACCESS_KEY={shlex.quote(cloud['secret_access_key'])}" in exports
    assert f"export BLOCKFERRY_LOCAL_TOKEN={shlex.quote(cloud['control_token'])}" in exports
    assert all(line.startswith("export ") for line in exports)


@pytest.mark.parametrize("command", [[], ["up"], ["env"], ["down"], ["status"], ["logs"]])
def test_every_command_has_help(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "cloud"), *command, "--help"], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0
    assert "usage: cloud" in done.stdout
