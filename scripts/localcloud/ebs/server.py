"""The EBS process: ``python -m localcloud.ebs.server --data-dir D --main-url URL --port-file F``.

The environment has the secrets of ``localcloud.local_keys``. Ends on SIGTERM, SIGINT and when its parent is gone.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import MappingProxyType
from typing import Any

from localcloud.ebs.callers import Callers
from localcloud.ebs.config import EbsConfig, configured
from localcloud.ebs.decisions import Everything, MainServerDecisions
from localcloud.ebs.door import EbsDoor
from localcloud.ebs.events import EventSink, KeptEvents
from localcloud.ebs.faults import Rule
from localcloud.ebs.httpserver import HttpServer
from localcloud.ebs.kms import AnyKey, MainServerKeys
from localcloud.ebs.service import EbsService
from localcloud.local_keys import LocalKeys

_TICK_SECONDS = 0.05
_PARTS = frozenset({"account_id", "ebs", "events", "lambda", "states"})
_EVENT_SETTINGS = MappingProxyType(
    {
        "enabled": "events_enabled",
        "arn": "event_arn",
        "delay_seconds": "event_delay_seconds",
        "duplicate_probability": "event_duplicate_probability",
        "loss_probability": "event_loss_probability",
        "direct_completion": "direct_completion_event",
    }
)
"""Members of the config file's ``events`` part, as settings of this process."""


class PostedEvents:
    """Posts events to the main server's ``/_local/events``, one after the other, off the request's way."""

    def __init__(self, main_url: str, keys: LocalKeys) -> None:
        self._keys = keys
        self._url = f"{main_url}/_local/events"
        self._queue: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._post_all, name="ebs-events", daemon=True).start()

    def send(self, event: dict[str, Any]) -> None:
        self._queue.put(event)

    def _post_all(self) -> None:
        while True:
            event = self._queue.get()
            request = urllib.request.Request(  # noqa: S310 - the main server's own address
                self._url, data=json.dumps(event).encode(), headers=self._keys.control_headers()
            )
            try:
                urllib.request.urlopen(request, timeout=30).close()  # noqa: S310
            except (urllib.error.URLError, OSError) as error:
                print(f"event {event['id']} was not taken by {self._url}: {error}", file=sys.stderr, flush=True)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="localcloud.ebs.server", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder for block data; emptied of it")
    parser.add_argument("--config", default=None, help="JSON file of settings, - for standard input")
    parser.add_argument("--main-url", default=None, help="the main server: KMS, callers, events")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--port-file", type=Path, default=None, help="the port is written here when it is open")
    return parser.parse_args(arguments)


def http_server(service: EbsService, keys: LocalKeys, *, main_url: str | None, port: int = 0) -> HttpServer:
    """The service behind its door, on 127.0.0.1."""
    door = EbsDoor(service, Callers(keys, main_url=main_url), keys, port=lambda: server.port)
    server = HttpServer(door.serve, port=port, body_timeout=lambda: service.config.body_timeout_seconds, now=door.now)
    return server


def _read_config(name: str | None) -> tuple[EbsConfig, list[Rule]]:
    if name is None:
        return EbsConfig(), []
    text = sys.stdin.read() if name == "-" else Path(name).read_text()
    given = json.loads(text or "{}")
    # The local cloud's own config file has one object per part; a file with settings only will do, too.
    if not _PARTS & set(given):
        return configured(given)
    events = {_EVENT_SETTINGS.get(name, name): value for name, value in given.get("events", {}).items()}
    return configured({**given.get("ebs", {}), **events})


def _write_port(port_file: Path, port: int) -> None:
    """Write the file with the port atomically: who waits for it never reads half a number."""
    unfinished = port_file.with_name(f"{port_file.name}.{os.getpid()}")
    unfinished.write_text(f"{port}\n")
    unfinished.replace(port_file)


def main(arguments: list[str] | None = None) -> int:
    parent = os.getppid()
    options = _arguments(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    main_url = options.main_url.rstrip("/") if options.main_url else None
    keys = LocalKeys.of(os.environ)
    sink: EventSink = PostedEvents(main_url, keys) if main_url else KeptEvents()
    config, rules = _read_config(options.config)
    service = EbsService(
        data_dir=options.data_dir,
        config=config,
        keys=MainServerKeys(main_url, keys) if main_url else AnyKey(),
        event_sink=sink,
        decisions=MainServerDecisions(main_url, keys) if main_url else Everything(),
    )
    for rule in rules:
        service.faults.add(service.faults.checked(rule))
    server = http_server(service, keys, main_url=main_url, port=options.port)
    server.start()
    if options.port_file is not None:
        _write_port(options.port_file, server.port)
    print(f"ebs: {server.url}", flush=True)
    while not stop.wait(_TICK_SECONDS):
        service.tick()
        if os.getppid() != parent:
            break
    server.stop()
    service.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
