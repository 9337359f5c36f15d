"""The environment variables of the base, which it reads while it is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_FOREIGN = (
    "AWS_",
    "BLOCKFERRY_LOCAL_",
    "DOCKER_",
    "LAMBDA_",
    "LOCALSTACK_",
    "MINISTACK_",
    "SFN_",
    "S3_",
    "IOT_",
    "SFTP_",
)
"""Settings of the operator's own shell that would change what the local cloud does."""


def base_environment(
    inherited: Mapping[str, str],
    *,
    port: int,
    account_id: str,
    home_region: str,
    data_dir: Path,
    enforced: bool,
    root_secret: str,
) -> dict[str, str]:
    """Complete environment of the server: everything that would reach the base from outside is dropped."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_FOREIGN)}
    kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
    for name in ("AUTH", "SERVICES", "PERSIST_STATE", "USE_SSL", "EDGE_PORT", "STATE_DIR"):
        kept.pop(name, None)
    return kept | {
        "AUTH": "true" if enforced else "false",
        "AWS_SECRET_ACCESS_KEY": root_secret,  # the base verifies URLs that an account's root has presigned
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_ACCOUNT_ID": account_id,
        "MINISTACK_REGION": home_region,
        "MINISTACK_WORKER_THREADS": "96",
        "PERSIST_STATE": "0",
        "STATE_DIR": str(data_dir / "base"),
        # localcloud.s3 has files of its own: the base's way keeps parts in memory, reads the whole object for a range,
        # and has an empty object where it could not write.
        "S3_PERSIST": "0",
        "S3_DATA_DIR": str(data_dir / "base" / "s3"),
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        "LAMBDA_EXECUTOR": "local",
        "LAMBDA_STRICT": "0",
        "LAMBDA_ACCOUNT_CONCURRENCY": "0",  # counted in localcloud.compute.concurrency
    }
