"""Clients of the local cloud's own APIs, as one account, region and role."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import botocore.session
from botocore.config import Config

from localcloud.states.services import Caller

_READ_TIMEOUT_SECONDS: Final = 120
_CONNECTIONS: Final = 64


@dataclass(frozen=True, kw_only=True)
class Credentials:
    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


CredentialsFor = Callable[[Caller, str], Credentials]
"""``credentials_for(caller, role_arn)``: what calls under a role are signed with."""


def account_credentials(secret: str) -> CredentialsFor:
    """Credentials of the role's account: in the local cloud a 12-digit access key is the account's root."""

    def of(caller: Caller, role_arn: str) -> Credentials:
        parts = role_arn.split(":")
        owner = parts[4] if len(parts) > 5 and parts[4] else caller.account
        return Credentials(access_key_id=owner, secret_access_key=secret)

    return of


class AwsClients:
    """botocore clients by service, credentials and region. They never retry: that is the machine's part."""

    def __init__(self, *, endpoint_url: str, root_secret: str, credentials_for: CredentialsFor | None = None) -> None:
        """Make no client yet. Without ``credentials_for`` calls are signed as the role's account."""
        self.endpoint_url = endpoint_url
        self._of_account = account_credentials(root_secret)
        self._credentials_for = credentials_for or self._of_account
        self._lock = threading.Lock()
        self._session = botocore.session.Session()
        self._clients: dict[tuple[str, Credentials, str], Any] = {}

    def credentials(self, caller: Caller, role_arn: str | None = None) -> Credentials:
        return self._credentials_for(caller, role_arn or caller.role_arn)

    def get(self, service: str, caller: Caller, role_arn: str | None = None) -> Any:
        return self._client(service, self.credentials(caller, role_arn), caller.region)

    def of_account(self, service: str, caller: Caller) -> Any:
        """A client for what Step Functions finds out by itself, with no permission of the role."""
        return self._client(service, self._of_account(caller, ""), caller.region)

    def _client(self, service: str, credentials: Credentials, region: str) -> Any:
        key = (service, credentials, region)
        # Creating a client is not safe in threads, using one is.
        with self._lock:
            client = self._clients.get(key)
            if client is None:
                client = self._clients[key] = self._session.create_client(
                    service,
                    region_name=region,
                    endpoint_url=self.endpoint_url,
                    aws_access_key_id=credentials.access_key_id,
                    aws_secret_access_key=credentials.secret_access_key,
                    aws_session_token=credentials.session_token,
                    config=Config(
                        retries={"total_max_attempts": 1, "mode": "standard"},
                        read_timeout=_READ_TIMEOUT_SECONDS,
                        max_pool_connections=_CONNECTIONS,
                        s3={"addressing_style": "path"},
                    ),
                )
            return client
