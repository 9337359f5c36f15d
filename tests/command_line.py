"""The command line over a rig: ``blockferry`` as it is typed, against the state machines that a rig runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from blockferry.aws.sessions import new_session
from blockferry.cli.main import main
from botocore.awsrequest import AWSPreparedRequest
from deployment import machine_of
from localcloud.states.api import Api
from localcloud.states.errors import ApiError
from localcloud.states.model import Execution
from moto.core.models import botocore_stubber
from rig import ACCOUNT, HOME, Rig

MACHINES = f"arn:aws:states:{HOME}:{ACCOUNT}:stateMachine:blockferry-"

CALLER = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    f"<Arn>arn:aws:iam::{ACCOUNT}:user/operator</Arn><UserId>operator</UserId><Account>{ACCOUNT}</Account>"
    "</GetCallerIdentityResult></GetCallerIdentityResponse>"
)


@dataclass(frozen=True)
class Said:
    """What one command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


class _Machines:
    """The machines of the repository to the API of the local cloud."""

    def resolve(self, arn: str) -> Any:
        return machine_of(arn.removeprefix(MACHINES))

    def owns(self, arn: str) -> bool:
        return f"{HOME}:{ACCOUNT}" in arn


class CommandLine:
    """Commands in the account of the rig. A job is named ``job`` and has ended when its command returns."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._rig, self._capsys = rig, capsys
        self._machines = rig.deployment._machines
        self._api = Api(engine=self._machines.engine, machines=_Machines())
        self._others = botocore_stubber.process_request
        monkeypatch.setattr(botocore_stubber, "process_request", self._answer)
        # A session of its own reads the models of all services anew, for each command.
        models = new_session().get_component("data_loader")
        monkeypatch.setattr("botocore.session.create_loader", lambda _path: models)

    def run(self, *words: str) -> Said:
        """One command; what it starts or resumes is waited for."""
        self._capsys.readouterr()
        try:
            status = main(words)
        except SystemExit as ended:
            status = int(ended.code or 0)
        printed = self._capsys.readouterr()
        for execution in self._executions():
            self._machines.finish(execution)
        return Said(status, printed.out, printed.err)

    @property
    def started(self) -> list[str]:
        """The ARNs of all jobs."""
        return [execution.arn for execution in self._executions()]

    @property
    def console(self) -> tuple[str, str]:
        """Error and cause of the last job, as the console of Step Functions shows them."""
        execution = self._executions()[-1]
        return execution.error or "", execution.cause or ""

    def _executions(self) -> list[Execution]:
        return [each for each in self._machines.engine.registry.all() if each.map_run is None]

    def _answer(self, request: AWSPreparedRequest) -> Any:
        target = request.headers.get("X-Amz-Target", b"")
        target = target.decode() if isinstance(target, bytes) else target
        if target.startswith("AWSStepFunctions."):
            try:
                answer = self._api.handle(target.partition(".")[2], json.loads(request.body or b"{}"))
            except ApiError as error:
                return error.status, {}, json.dumps({"__type": error.code, "message": error.message}).encode()
            return 200, {}, json.dumps(answer).encode()
        if "GetCallerIdentity" in str(request.body):
            return 200, {}, CALLER.encode()
        return self._others(request)
