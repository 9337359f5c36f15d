"""The two secrets of a running local cloud, new at every start: what root keys sign with, and the control token.

``scripts/cloud env`` gives both out. Who has them may do everything in the local cloud, and so run code as the user
who started it; they are kept in files that only that user can read.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SECRET_VARIABLE = "BLOCKFERRY_LOCAL_SECRET"  # noqa: S105 - a name
TOKEN_VARIABLE = "BLOCKFERRY_LOCAL_TOKEN"  # noqa: S105 - a name
TOKEN_HEADER = "x-local-token"  # noqa: S105 - a name
_BYTES = 30


class KeysMissing(ValueError):
    """A process that serves a part of the local cloud was started without the secrets."""


@dataclass(frozen=True, kw_only=True)
class LocalKeys:
    """The secrets. ``secret`` is the access key's of every account's root, whose access key is the account's 12 digits.

    ``token`` opens ``/_local``.
    """

    secret: str
    token: str

    @classmethod
    def new(cls) -> LocalKeys:
        return cls(secret=secrets.token_urlsafe(_BYTES), token=secrets.token_urlsafe(_BYTES))

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> LocalKeys:
        """The secrets that ``variables`` put into an environment. Raises ``KeysMissing`` when they are not there."""
        secret, token = environment.get(SECRET_VARIABLE, ""), environment.get(TOKEN_VARIABLE, "")
        if not secret or not token:
            raise KeysMissing(f"the environment needs {SECRET_VARIABLE} and {TOKEN_VARIABLE}")
        return cls(secret=secret, token=token)

    def variables(self) -> dict[str, str]:
        """The environment of a process that serves a part of this cloud; opposite of ``of``."""
        return {SECRET_VARIABLE: self.secret, TOKEN_VARIABLE: self.token}

    def control_headers(self) -> dict[str, str]:
        """What a control request has to carry."""
        return {TOKEN_HEADER: self.token}

    def opens(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers (lower-case names) carries the control token."""
        return secrets.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self.token.encode())


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, in place of what was there and at once for whoever reads it."""
    partial = path.with_name(f"{path.name}.new")
    partial.unlink(missing_ok=True)  # its mode would stay
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)
