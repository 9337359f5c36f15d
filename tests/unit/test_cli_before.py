"""What the command line refuses before it starts a job, and what else it says of wrong input."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.snapshots import CHECKSUM_TAG, JOB_TAG, LINEAGE_TAG, PROVED_TAG, SOURCE_REGION_TAG, SOURCE_TAG
from blockferry.cli import main as cli
from blockferry.cli.before import copies_there, refuse_what_is_not_there
from blockferry.cli.start import job_id_of
from blockferry.core.errors import InvalidRequest
from blockferry.operations import OPERATIONS
from memory_ec2 import MemoryEc2, described, refusal

HOME, RECOVERY = "us-east-1", "eu-west-1"
ONE, TWO, PARENT = "snap-0123456789abcdef1", "snap-0123456789abcdef2", "snap-0123456789abcdef3"
ROLE = "arn:aws:iam::123456789012:role/reader"


class Account:
    """The snapshots of an account, by Region."""

    def __init__(self) -> None:
        self.regions = {HOME: MemoryEc2(described(ONE, state="completed")), RECOVERY: MemoryEc2()}
        self.slept: list[float] = []

    def refuses(self, request: dict[str, Any]) -> list[str]:
        with pytest.raises(InvalidRequest) as refused:
            self.looks(request)
        first, *lines = str(refused.value).splitlines()
        assert first == "nothing was started:"
        return lines

    def looks(self, request: dict[str, Any]) -> None:
        refuse_what_is_not_there(
            request, home=HOME, client=lambda region: cast(Any, self.regions[region]), sleep=self.slept.append
        )


def test_what_is_there_is_asked_about_once() -> None:
    account = Account()
    account.looks({"snapshot_id": ONE, "targets": [{"region": RECOVERY}, {"region": "ap-southeast-2"}]})
    assert account.slept == []
    assert account.regions[HOME].calls["DescribeSnapshots"] == 1
    assert not account.regions[RECOVERY].calls


def test_everything_that_is_wrong_is_told_at_once() -> None:
    account = Account()
    account.regions[HOME].snapshots[TWO] = described(TWO, state="pending")
    lines = account.refuses(
        {
            "snapshot_id": TWO,
            "base_snapshot_id": "snap-0123456789abcdef9",
            "targets": [{"region": "mars-north-9"}, {"region": RECOVERY, "parent_snapshot_id": PARENT}],
        }
    )
    assert [line.split(":")[0] for line in lines] == [
        "- targets[0].region",
        "- snapshot_id",
        "- base_snapshot_id",
        "- targets[1].parent_snapshot_id",
    ]
    assert lines[0] == "- targets[0].region: mars-north-9 is no Region of AWS"
    assert "is pending; start again once it is completed" in lines[1]
    assert "EC2 does not know snap-0123456789abcdef9 in us-east-1" in lines[2]
    assert f"EC2 does not know {PARENT} in {RECOVERY}" in lines[3]


def test_a_snapshot_that_was_made_a_moment_ago_is_looked_for_again() -> None:
    account = Account()

    def shown(seconds: float) -> None:
        account.slept.append(seconds)
        if len(account.slept) == 2:
            account.regions[HOME].snapshots[TWO] = described(TWO, state="completed")

    refuse_what_is_not_there(
        {"snapshot_id": TWO}, home=HOME, client=lambda region: cast(Any, account.regions[region]), sleep=shown
    )
    assert account.slept == [1.0, 2.0]


@pytest.mark.parametrize("chain", [[ONE, TWO]])
def test_each_snapshot_of_a_chain_is_named_by_its_place(chain: list[str]) -> None:
    (line,) = Account().refuses({"chain": chain})
    assert line.startswith(f"- chain[1]: EC2 does not know {TWO}")


@pytest.mark.parametrize(
    "request_",
    [
        {"snapshot_id": TWO, "source": {"role_arn": ROLE}},
        {"snapshot_id": ONE, "targets": [{"region": RECOVERY, "parent_snapshot_id": PARENT, "role_arn": ROLE}]},
        {"image_uri": "s3://images/disk.img", "targets": [{"region": RECOVERY}]},
    ],
)
def test_what_is_in_another_account_or_no_snapshot_is_left_to_the_job(request_: dict[str, Any]) -> None:
    Account().looks(request_)


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "RequestLimitExceeded"])
def test_what_cannot_be_looked_at_is_left_to_the_job(code: str) -> None:
    account = Account()
    account.regions[HOME].errors["DescribeSnapshots"] = refusal(code, "DescribeSnapshots")
    account.looks({"snapshot_id": TWO})


def test_the_region_of_the_source_is_the_one_that_is_asked() -> None:
    (line,) = Account().refuses({"snapshot_id": ONE, "source": {"region": RECOVERY}})
    assert f"EC2 does not know {ONE} in {RECOVERY}" in line


@pytest.mark.parametrize(("typed", "meant"), [("eu-wst-1", "eu-west-1"), ("us-wset-2", "us-west-2")])
def test_a_region_that_is_named_after_no_point_of_the_compass_is_refused(typed: str, meant: str) -> None:
    (line,) = Account().refuses({"snapshot_id": ONE, "targets": [{"region": typed}]})
    assert line.startswith(f"- targets[0].region: {typed} is no Region of AWS; did you mean {meant}")


def test_a_region_that_aws_may_have_opened_since_is_left_to_the_job() -> None:
    Account().looks({"snapshot_id": ONE, "targets": [{"region": "eu-west-9"}, {"region": "mx-northeast-1"}]})


# -- what else is said of wrong input ----------------------------------------------------------------------------------


def test_all_wrong_tags_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    tags = ["--tag", "a", "--tag", "=b", "--tag", "c=1", "--tag", "c=2"]
    assert cli.main(["copy", ONE, "--to", RECOVERY, *tags]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "blockferry: --tag 'a': write KEY=VALUE",
        "--tag '=b': write KEY=VALUE",
        "--tag 'c=2': c is given twice",
    ]


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "upload    make a snapshot of a raw disk image" in capsys.readouterr().out


def test_a_command_that_is_nearly_one_is_asked_about(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["cpoy", ONE])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("did you mean copy?\n")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_help_ends_with_examples_that_are_command_lines(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    _, _, examples = capsys.readouterr().out.partition("examples:\n")
    lines = [line.split() for line in examples.splitlines() if line.strip()]
    assert lines
    for program, *arguments in lines:
        assert program == "blockferry"
        parsed = cli._parser().parse_args(arguments)
        assert arguments[0] == command
        assert parsed.run is not None


def raising(error: Exception) -> Any:
    def of(**_: Any) -> Any:
        raise error

    return of


def test_what_nobody_reads_ends_quietly(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    given: list[int] = []
    monkeypatch.setenv("AWS_REGION", HOME)
    monkeypatch.setattr("os.dup2", lambda _null, out: given.append(out))
    monkeypatch.setattr("blockferry.cli.console.Operator.of", raising(BrokenPipeError()))
    assert cli.main(["status", "job"]) == 141
    assert len(given) == 1
    assert capfd.readouterr().err == ""


def test_what_was_not_foreseen_has_a_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_REGION", HOME)
    monkeypatch.setattr("blockferry.cli.console.Operator.of", raising(KeyError("surprise")))
    assert cli.main(["status", "job"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "blockferry: KeyError, which should not happen" in err


def test_the_prefix_of_the_deployment_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKFERRY_NAME_PREFIX", "my-ferry")
    assert cli._parser().parse_args(["status", "job"]).name_prefix == "my-ferry"
    assert cli._parser().parse_args(["status", "job", "--name-prefix", "other"]).name_prefix == "other"


# -- what is there already ---------------------------------------------------------------------------------------------


def copy_of(snapshot_id: str, own: str) -> Any:
    tags = {JOB_TAG: "job", SOURCE_TAG: snapshot_id, SOURCE_REGION_TAG: HOME, LINEAGE_TAG: "vol-1"}
    return described(own, tags={**tags, CHECKSUM_TAG: "c", PROVED_TAG: own})


class Nights(Account):
    """A snapshot of a volume, with copies in some Regions."""

    def __init__(self, *recovery: Any, volume: str = "vol-1") -> None:
        super().__init__()
        self.regions = {
            HOME: MemoryEc2(described(ONE, VolumeId=volume)),
            RECOVERY: MemoryEc2(*recovery),
            "eu-west-2": MemoryEc2(),
        }

    def there(self, *regions: str, **more: Any) -> list[dict[str, str]] | None:
        request = {"snapshot_id": ONE, "follow": True, "targets": [{"region": name} for name in regions], **more}
        return copies_there(request, home=HOME, client=lambda region: cast(Any, self.regions[region]))


def test_a_snapshot_that_every_target_has_a_copy_of_is_not_synced_again() -> None:
    found = [{"region": RECOVERY, "snapshot_id": "snap-r1"}]
    assert Nights(copy_of(ONE, "snap-r1")).there(RECOVERY) == found
    assert Nights(copy_of(ONE, "snap-r1"), volume="vol-ffffffff").there(RECOVERY, lineage="vol-1") == found
    assert Nights(copy_of(TWO, "snap-r1")).there(RECOVERY) is None


def test_a_copy_that_only_some_targets_have_is_told_before_anything_is_started() -> None:
    with pytest.raises(InvalidRequest, match=r"(?s)leave them out.*eu-west-1: has snap-r1\n.*eu-west-2: has none"):
        Nights(copy_of(ONE, "snap-r1")).there(RECOVERY, "eu-west-2")


@pytest.mark.parametrize(
    "more",
    [
        {"follow": False},
        {"source": {"role_arn": ROLE}},
        {"targets": [{"region": RECOVERY, "role_arn": ROLE}]},
        {"source": {"region": "eu-west-2"}},
    ],
)
def test_what_cannot_be_seen_from_here_is_left_to_the_job(more: dict[str, Any]) -> None:
    assert Nights(copy_of(ONE, "snap-r1")).there(RECOVERY, **more) is None


def test_copies_that_nobody_may_look_at_are_left_to_the_job() -> None:
    account = Nights(copy_of(ONE, "snap-r1"))
    account.regions[RECOVERY].errors["DescribeSnapshots"] = refusal("UnauthorizedOperation", "DescribeSnapshots")
    assert account.there(RECOVERY) is None


def test_the_command_ends_well_and_names_the_copies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account = Nights(copy_of(ONE, "snap-r1"))
    operator = SimpleNamespace(region=HOME, ec2=account.regions.__getitem__)
    monkeypatch.setenv("AWS_REGION", HOME)
    monkeypatch.setattr("blockferry.cli.console.Operator.of", lambda **_: operator)
    command = ["sync", ONE, "--follow", "--to", RECOVERY, "--wait"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == (
        f"nothing to do, and nothing was started: {ONE} has its proved copies: snap-r1 in {RECOVERY}\n"
    )
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "nothing_to_do": True,
        "snapshot_id": ONE,
        "copies": [{"region": RECOVERY, "snapshot_id": "snap-r1"}],
    }


# -- names that are made -----------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ({"snapshot_id": ONE}, f"copy-{ONE}-20260102T030405Z-a1b2c3"),
        ({"image_uri": "s3://images/disk.img"}, "copy-images-disk-img-20260102T030405Z-a1b2c3"),
        ({"image_uri": "s3://images/prod/disk.img"}, "copy-prod-disk-img-20260102T030405Z-a1b2c3"),
        ({"chain": [ONE, TWO]}, f"copy-{TWO}-20260102T030405Z-a1b2c3"),
    ],
)
def test_a_name_tells_what_is_read_and_when(request_: dict[str, Any], name: str) -> None:
    assert job_id_of("copy", request_, NOW, "a1b2c3") == name


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_name_is_no_longer_than_step_functions_takes(operation: str) -> None:
    made = job_id_of(operation, {"image_uri": f"s3://images/{'x' * 1000}.img"}, NOW, "a1b2c3")
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", made)


def test_two_jobs_of_the_same_second_have_different_names(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def start(_operation: str, _request: Any, *, job_id: str) -> str:
        started.append(job_id)
        return f"arn:{job_id}"

    operator = SimpleNamespace(region=HOME, ec2=Account().regions.__getitem__, start=start)
    monkeypatch.setenv("AWS_REGION", HOME)
    monkeypatch.setattr("blockferry.cli.console.Operator.of", lambda **_: operator)
    for _ in range(8):
        assert cli.main(["copy", ONE, "--to", RECOVERY]) == 0
    assert len(set(started)) == 8
