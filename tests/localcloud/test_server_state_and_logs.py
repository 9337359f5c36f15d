"""The record of a running cloud, its environment variables, and the view of its logs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from localcloud.log_view import UnknownLog, chosen, log_files, overview, show
from localcloud.state import CloudDirectory, CloudInfo, CloudState, Server, start_time, without_proxy

CLOUD = CloudInfo(
    endpoint_url="http://127.0.0.1:4000",
    endpoint_urls={"ebs": "http://127.0.0.1:4001"},
    secret_access_key="secret",
    control_token="token",
    regions=("us-east-1", "eu-west-1"),
    account_id="111122223333",
    state_machines={"us-east-1": {"copy": "arn:aws:states:us-east-1:111122223333:stateMachine:blockferry-copy"}},
    buckets={"us-east-1": {"work": "w", "archive": "a"}},
    pid=1,
)


@pytest.fixture
def directory(tmp_path: Path) -> CloudDirectory:
    made = CloudDirectory(tmp_path)
    (made.data / "logs").mkdir(parents=True)
    made.server_log.write_text("served\n")
    for name in ("ebs", "blockferry-move-blocks.us-east-1", "blockferry-move-blocks.eu-west-1"):
        (made.data / "logs" / f"{name}.log").write_text(f"{name} said\n")
    return made


def test_the_state_is_read_as_it_was_written(directory: CloudDirectory) -> None:
    state = CloudState(server=Server(pid=1, started="2"), config="/c.json", info=CLOUD)

    directory.write(state)

    assert directory.read() == state
    directory.forget()
    assert directory.read() is None


def test_a_torn_state_file_counts_as_none(directory: CloudDirectory) -> None:
    (directory.path / "state.json").write_text('{"server": {"pid"')

    assert directory.read() is None


def test_a_process_is_known_by_its_start(directory: CloudDirectory) -> None:
    me = Server.of(os.getpid())

    assert me is not None
    assert me.is_alive
    assert not Server(pid=me.pid, started=me.started + "0").is_alive
    assert start_time(2**22 + 1) is None


def test_clients_get_every_door_the_account_and_no_leftover_session(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    assert CLOUD.environment("eu-west-1") == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:4000",
        "AWS_ENDPOINT_URL_EBS": "http://127.0.0.1:4001",
        "AWS_ACCESS_KEY_ID": "111122223333",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "BLOCKFERRY_LOCAL_TOKEN": "token",
    }


def test_a_proxy_is_kept_out_of_requests_to_this_machine_only() -> None:
    names = "intranet.example,127.0.0.1,localhost"

    assert without_proxy({"HTTP_PROXY": "http://proxy.example", "NO_PROXY": "intranet.example"}) == {
        "NO_PROXY": names,
        "no_proxy": names,
    }
    assert without_proxy({"NO_PROXY": "intranet.example"}) == {}


def test_logs_are_named_by_part_and_by_function(directory: CloudDirectory) -> None:
    files = log_files(directory)

    assert set(files) == {"server", "ebs", "blockferry-move-blocks.us-east-1", "blockferry-move-blocks.eu-west-1"}
    assert set(chosen(files, "blockferry-move-blocks")) == {
        "blockferry-move-blocks.us-east-1",
        "blockferry-move-blocks.eu-west-1",
    }
    assert set(chosen(files, "blockferry-move-blocks.eu-west-1")) == {"blockferry-move-blocks.eu-west-1"}
    with pytest.raises(UnknownLog, match="no log of 'states'; there are: blockferry-move-blocks"):
        chosen(files, "states")


def test_the_overview_shows_the_end_of_every_log(directory: CloudDirectory) -> None:
    directory.server_log.write_text("".join(f"line {number}\n" for number in range(30)))
    written: list[str] = []

    overview(log_files(directory), written.append)

    text = "".join(written)
    assert "line 29\n" in text
    assert "line 19\n" not in text
    assert "ebs said\n" in text


def test_following_a_log_prints_what_is_added(directory: CloudDirectory) -> None:
    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        if len(written) == 2:
            raise KeyboardInterrupt
        with directory.server_log.open("a") as file:
            file.write("served again\n")

    with pytest.raises(KeyboardInterrupt):
        show({"server": directory.server_log}, write, follow=True)

    assert written == ["served\n", "served again\n"]


def test_a_log_that_begins_anew_is_followed_from_its_beginning(directory: CloudDirectory) -> None:
    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        if len(written) == 2:
            raise KeyboardInterrupt
        directory.server_log.write_text("anew\n")

    with pytest.raises(KeyboardInterrupt):
        show({"server": directory.server_log}, write, follow=True)

    assert written == ["served\n", "anew\n"]
