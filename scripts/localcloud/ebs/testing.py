"""An EBS server inside a test process, with direct access to what it holds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.ebs.callers import Callers
from localcloud.ebs.clock import Clock
from localcloud.ebs.config import EbsConfig
from localcloud.ebs.events import EventSink
from localcloud.ebs.httpserver import HttpServer
from localcloud.ebs.kms import KeyResolver
from localcloud.ebs.server import serve_with
from localcloud.ebs.service import EbsService

HOME_ACCOUNT = "111122223333"
OTHER_ACCOUNT = "123456789012"
REGION = "us-east-1"


@dataclass(frozen=True)
class RunningServer:
    """``url`` serves the EBS direct APIs, the EC2 snapshot actions and ``/_local/``."""

    url: str
    service: EbsService

    def client_settings(self, *, account: str = HOME_ACCOUNT, region: str = REGION) -> dict[str, str]:
        """Keyword arguments for ``boto3.client("ebs" | "ec2", ...)``: the access key is the account."""
        return {
            "endpoint_url": self.url,
            "region_name": region,
            "aws_access_key_id": account,
            "aws_secret_access_key": "local",
        }


@contextmanager
def running_server(
    config: EbsConfig | Mapping[str, Any] | None = None,
    *,
    data_dir: Path | None = None,
    clock: Clock | None = None,
    keys: KeyResolver | None = None,
    event_sink: EventSink | None = None,
    default_account: str = HOME_ACCOUNT,
) -> Iterator[RunningServer]:
    """A server on a free port of 127.0.0.1, gone with its data at the end of the block.

    ``config`` is an ``EbsConfig`` or the settings that differ from its defaults.
    """
    if not isinstance(config, EbsConfig):
        config = EbsConfig().merged(config or {})
    with tempfile.TemporaryDirectory(prefix="ebs-blocks-") as folder:
        service = EbsService(
            data_dir=data_dir or Path(folder), config=config, clock=clock, keys=keys, event_sink=event_sink
        )
        callers = Callers(default_account=default_account, default_region=REGION, main_url=None)
        server = HttpServer(
            lambda request: serve_with(service, callers, request),
            body_timeout=lambda: service.config.body_timeout_seconds,
        )
        server.start()
        try:
            yield RunningServer(server.url, service)
        finally:
            server.stop()
            service.close()
