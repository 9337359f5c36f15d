"""Heads of block requests, signed and written by hand, for clients that shall cost as little as possible."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from blockferry.aws.ebs.signing import UNSIGNED_PAYLOAD, Credentials, Signer, query_string
from blockferry.core.blocks import BLOCK_SIZE


class Heads:
    """Request heads for the EBS server at ``url``. ``environment`` has the credentials."""

    def __init__(self, url: str, environment: Mapping[str, str], *, region: str) -> None:
        self._signer = Signer(service="ebs", region=region, host=urlsplit(url).netloc)
        self._credentials = Credentials(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])

    def get(self, snapshot_id: str, index: int, token: str) -> bytes:
        return self._head("GET", snapshot_id, index, query=query_string({"blockToken": token}))

    def put(self, snapshot_id: str, index: int, checksum: str) -> bytes:
        """The head of a PutSnapshotBlock; ``checksum`` is the body's SHA-256 in base64."""
        headers = {
            "x-amz-checksum": checksum,
            "x-amz-checksum-algorithm": "SHA256",
            "x-amz-data-length": str(BLOCK_SIZE),
        }
        return self._head("PUT", snapshot_id, index, headers=headers, length=BLOCK_SIZE)

    def _head(
        self,
        method: str,
        snapshot_id: str,
        index: int,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        length: int = 0,
    ) -> bytes:
        path = f"/snapshots/{snapshot_id}/blocks/{index}"
        signed = self._signer.headers(
            method=method,
            path=path,
            query=query,
            headers=headers or {},
            payload_sha256=UNSIGNED_PAYLOAD if length else None,
            credentials=self._credentials,
            timestamp=datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
        )
        lines = [f"{method} {path}{f'?{query}' if query else ''} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in signed.items()]
        lines += [f"content-length: {length}"] if length else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode()
