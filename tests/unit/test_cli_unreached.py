"""What the command line says when it does not get through to AWS, or not as anybody."""

from __future__ import annotations

from pathlib import Path

import pytest
from blockferry.aws.errors import translated
from blockferry.cli import main as cli
from blockferry.cli.unreached import told
from botocore.exceptions import ClientError, EndpointConnectionError
from memory_ec2 import refusal

SNAPSHOT = "snap-0123456789abcdef1"
LOCAL = 'eval "$(scripts/cloud env)"'
WORKING = "The signature does not match.\n\nThe Canonical String for this request should have been\n'POST\n/'"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials anywhere: not in the environment, not in a file, not of a machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.mark.usefixtures("nobody")
def test_without_credentials_it_is_said_how_to_give_some(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["copy", SNAPSHOT, "--to", "eu-west-1"]) == 1
    assert capsys.readouterr().err.startswith(
        "blockferry: Unable to locate credentials: nothing was sent; give credentials as for the AWS CLI"
    )


@pytest.mark.usefixtures("nobody")
def test_an_upload_without_credentials_leaves_nothing_to_look_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(range(256)))
    assert cli.main(["upload", str(image)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "blockferry: no AWS credentials were found: configure a profile, a role or environment variables"
    )


def signature() -> ClientError:
    error = refusal("SignatureDoesNotMatch", "GetCallerIdentity")
    error.response["Error"]["Message"] = WORKING
    return ClientError(error.response, "GetCallerIdentity")


def test_the_working_of_a_signature_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert told(signature()).endswith(
        "The signature does not match: check the secret key, and the clock of this machine"
    )
    assert str(translated(signature())).endswith("SignatureDoesNotMatch: The signature does not match.")


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "AuthFailure"])
def test_with_an_address_of_its_own_a_local_cloud_is_thought_of(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert LOCAL in told(refusal(code, "GetCallerIdentity"))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert LOCAL not in told(refusal(code, "GetCallerIdentity"))


def test_an_address_that_does_not_answer_is_told_with_who_named_it(monkeypatch: pytest.MonkeyPatch) -> None:
    error = EndpointConnectionError(endpoint_url="https://sts.us-wst-2.amazonaws.com/")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert "check the network, and the spelling of the Region" in told(error)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "which AWS_ENDPOINT_URL names" in told(error)
    assert LOCAL in told(error)


def test_an_option_that_is_nearly_one_is_asked_about_with_the_usage_of_its_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["copy", SNAPSHOT, "--too", "eu-west-1"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: blockferry copy ")
    assert said.endswith("blockferry copy: error: unrecognized arguments: --too eu-west-1; did you mean --to?\n")


def test_a_manifest_whose_name_is_misspelt_is_not_taken_for_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["restore", "s3://disks/x/manifest.jsn", "--to", "eu-west-1"]) == 2
    assert "did you mean s3://disks/x/manifest.json?" in capsys.readouterr().err
