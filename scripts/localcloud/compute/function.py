"""A deployed function as an execution environment needs it, and the environment variables Lambda gives it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

RESERVED_VARIABLES = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
"""Variables that a function cannot set (Lambda developer guide, "Defined runtime environment variables")."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


@dataclass(frozen=True, kw_only=True)
class Function:
    """One version of a function. ``code`` and ``layers`` are folders; ``memory_mb`` is in MiB as in Lambda."""

    account_id: str
    region: str
    name: str
    version: str
    handler: str
    runtime: str
    role_arn: str
    memory_mb: int
    timeout_seconds: int
    variables: tuple[tuple[str, str], ...]
    code: Path
    layers: Path | None
    log_group: str
    log_format: str
    log_level: str | None

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What stays the same when code or configuration of this version change."""
        return (self.account_id, self.region, self.name, self.version)

    @cached_property
    def key(self) -> str:
        """Two functions with the same key may share environments."""
        content = {name: str(value) for name, value in vars(self).items()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def import_paths(self, runtime: Path) -> list[Path]:
        """Where imports look before the standard library, in Lambda's order."""
        layer_paths = []
        if self.layers is not None:
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            layer_paths = [self.layers / "python/lib" / version / "site-packages", self.layers / "python"]
        return [self.code, *layer_paths, runtime]


def environment_variables(
    function: Function,
    *,
    credentials: Credentials,
    runtime_api: str,
    runtime_dir: Path,
    log_stream: str,
    home: Path,
    server: Mapping[str, str],
) -> dict[str, str]:
    """All variables of an execution environment.

    ``server`` holds the addresses of the local cloud and the search path for programs; the function's own
    variables win over those, the reserved ones win over the function's.
    """
    variables = dict(server)
    variables.update(
        {
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            # A home without ~/.aws: the operator's profiles must not reach the function.
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "AWS_LAMBDA_LOG_FORMAT": function.log_format,
            "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        }
    )
    if function.log_level:
        variables["AWS_LAMBDA_LOG_LEVEL"] = function.log_level
    variables.update((name, value) for name, value in function.variables if name not in RESERVED_VARIABLES)
    variables.update(
        {
            "_HANDLER": function.handler,
            "AWS_ACCESS_KEY_ID": credentials.access_key_id,
            "AWS_DEFAULT_REGION": function.region,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": function.version,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
            "AWS_LAMBDA_RUNTIME_API": runtime_api,
            "AWS_REGION": function.region,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
            "LAMBDA_RUNTIME_DIR": str(runtime_dir),
            "LAMBDA_TASK_ROOT": str(function.code),
        }
    )
    if credentials.session_token is not None:
        variables["AWS_SESSION_TOKEN"] = credentials.session_token
    return variables
