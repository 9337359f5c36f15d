"""Executions act as their machine's role, and tasks with ``Credentials`` as the role they name.

Source: Step Functions developer guide, "Creating an IAM role for your state machine" and "Accessing
resources in other AWS accounts in Step Functions".
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import botocore.exceptions
import botocore.session

from localcloud.host import RoleRefused, ServiceRoles, SessionKeys
from localcloud.states.aws_clients import Credentials
from localcloud.states.errors import StateError
from localcloud.states.services import Caller

_SERVICE: Final = "states.amazonaws.com"
_CHAINED_SECONDS: Final = 3000.0
"""Seconds for which a session of a named role is used; it lasts an hour."""


class RoleActing:
    def __init__(self, roles: ServiceRoles, *, endpoint_url: str) -> None:
        self._roles = roles
        self._endpoint_url = endpoint_url
        self._session = botocore.session.Session()
        self._lock = threading.Lock()
        self._chained: dict[tuple[str, str], tuple[float, Credentials]] = {}

    def credentials(self, caller: Caller, role_arn: str) -> Credentials:
        """Credentials of the machine's role, or of the role that a task names.

        Raises ``RoleRefused`` where the machine's role cannot be assumed, or may not assume the other one.
        """
        own = self._own(caller)
        if role_arn == caller.role_arn:
            return _plain(own)
        with self._lock:
            until, kept = self._chained.get((own.access_key_id, role_arn), (0.0, None))
            if kept is None or time.monotonic() > until:
                kept = self._assume(own, role_arn, caller)
                self._chained[(own.access_key_id, role_arn)] = (time.monotonic() + _CHAINED_SECONDS, kept)
            return kept

    def permit(self, caller: Caller, action: str, resource: str) -> None:
        try:
            verdict = self._roles.may(self._own(caller), action, resource, region=caller.region)
        except RoleRefused as refused:
            raise StateError("States.Permissions", str(refused)) from refused
        if not verdict.allowed:
            raise StateError("States.Permissions", verdict.reason)

    def _own(self, caller: Caller) -> SessionKeys:
        return self._roles.kept_credentials(
            role_arn=caller.role_arn,
            service=_SERVICE,
            source_arn=caller.state_machine_arn,
            session_name=caller.state_machine_arn.rsplit(":", 1)[-1].replace("/", "-"),
        )

    def _assume(self, own: SessionKeys, role_arn: str, caller: Caller) -> Credentials:
        client: Any = self._session.create_client(
            "sts",
            region_name=caller.region,
            endpoint_url=self._endpoint_url,
            aws_access_key_id=own.access_key_id,
            aws_secret_access_key=own.secret_access_key,
            aws_session_token=own.session_token,
        )
        try:
            answer = client.assume_role(RoleArn=role_arn, RoleSessionName="StepFunctions")["Credentials"]
        except botocore.exceptions.ClientError as error:
            raise RoleRefused(str(error)) from error
        return Credentials(
            access_key_id=answer["AccessKeyId"],
            secret_access_key=answer["SecretAccessKey"],
            session_token=answer["SessionToken"],
        )


def _plain(keys: SessionKeys) -> Credentials:
    return Credentials(
        access_key_id=keys.access_key_id, secret_access_key=keys.secret_access_key, session_token=keys.session_token
    )
