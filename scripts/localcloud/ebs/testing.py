"""An EBS server inside a test process, with direct access to what it holds."""

from __future__ import annotations

import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.ebs.clock import Clock
from localcloud.ebs.config import EbsConfig
from localcloud.ebs.decisions import Decisions
from localcloud.ebs.events import EventSink
from localcloud.ebs.kms import KeyResolver
from localcloud.ebs.server import http_server
from localcloud.ebs.service import EbsService
from localcloud.local_keys import LocalKeys

HOME_ACCOUNT = "111122223333"
OTHER_ACCOUNT = "123456789012"
REGION = "us-east-1"


@dataclass(frozen=True)
class RunningServer:
    """``url`` serves the EBS direct APIs, the EC2 snapshot actions and ``/_local/``."""

    url: str
    service: EbsService
    keys: LocalKeys

    def control(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The answer to a control request; ``urllib.error.HTTPError`` if it is refused."""
        request = urllib.request.Request(  # noqa: S310 - our own server's address
            f"{self.url}/_local/{path}", body, method=method, headers=self.keys.control_headers()
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            content: bytes = answer.read()
        return content

    def client_settings(self, *, account: str = HOME_ACCOUNT, region: str = REGION) -> dict[str, str]:
        """Keyword arguments for ``boto3.client("ebs" | "ec2", ...)``: the access key is the account."""
        return {
            "endpoint_url": self.url,
            "region_name": region,
            "aws_access_key_id": account,
            "aws_secret_access_key": self.keys.secret,
        }


@contextmanager
def running_server(
    config: EbsConfig | Mapping[str, Any] | None = None,
    *,
    data_dir: Path | None = None,
    clock: Clock | None = None,
    keys: KeyResolver | None = None,
    event_sink: EventSink | None = None,
    decisions: Decisions | None = None,
) -> Iterator[RunningServer]:
    """A server on a free port of 127.0.0.1, gone with its data at the end of the block.

    ``config`` is an ``EbsConfig`` or the settings that differ from its defaults.
    """
    if not isinstance(config, EbsConfig):
        config = EbsConfig().merged(config or {})
    with tempfile.TemporaryDirectory(prefix="ebs-blocks-") as folder:
        service = EbsService(
            data_dir=data_dir or Path(folder),
            config=config,
            clock=clock,
            keys=keys,
            event_sink=event_sink,
            decisions=decisions,
        )
        local_keys = LocalKeys.new()
        server = http_server(service, local_keys, main_url=None)
        server.start()
        try:
            yield RunningServer(server.url, service, local_keys)
        finally:
            server.stop()
            service.close()
