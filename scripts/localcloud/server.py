"""The main server of the local cloud: ministack with our parts in the places of its own.

``python -m localcloud.server --port N --data-dir D [--config FILE] --ready-file F`` serves every AWS API on
127.0.0.1 until SIGTERM or SIGINT, and ``/_local/...`` for control:

- ``GET health``: pid, addresses, regions
- ``GET caller?access_key=..``: account, ARN and secret that an access key stands for
- ``POST quit``: end the server
- ``GET, POST clock``: the clock of schedules and of the EBS server (see ``localcloud.events.plugin``)
- ``POST authorize``: whether a key's principal may do something (see ``localcloud.iam.plugin``)
- ``faults``: faults of every service (see ``localcloud.service_faults``)
- ``iam/...``, ``lambda/...``, ``states/...``, ``events/...``: what those parts register (see their modules)
- ``ebs/...``: passed on to the EBS server

The ready file is written when requests are served: one JSON object with ``pid``, ``account_id``,
``endpoint_url``, ``ebs_endpoint_url``, and the secrets of ``localcloud.local_keys``; nobody else may read it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from localcloud.asgi import Application
from localcloud.base_environment import base_environment
from localcloud.control import ControlLayer, proxy_to
from localcloud.door import Door, KnownSecrets
from localcloud.ebs.config import configured
from localcloud.ebs_process import EbsProcess, EbsProcessFailed
from localcloud.host import ControlError, ControlRequest, HookMissing, Host
from localcloud.iam.plugin import enforced
from localcloud.local_keys import LocalKeys, write_private

DEFAULT_ACCOUNT_ID = "111122223333"

PARTS = (
    "localcloud.whole_answers",
    "localcloud.base_fixes",
    "localcloud.conditional_writes",
    "localcloud.s3.plugin",
    "localcloud.iam.plugin",  # before the parts that act under roles
    "localcloud.compute.plugin",
    "localcloud.states.plugin",
    "localcloud.ebs.plugin",
    "localcloud.events.plugin",
    "localcloud.request_model.layer",  # faults in front of it: a spoiled request is checked as it arrives
    "localcloud.service_faults",
    "localcloud.invocations",  # around the faults: an answer that a fault loses is not kept
    "localcloud.request_log",  # its layer is outside of the door
)
CONFIG_PARTS = ("account_id", "ebs", "events", "faults", "iam", "lambda", "s3", "states")
SHUTDOWN_SECONDS = 2.0
"""Seconds for requests that are being answered when the server ends."""


class ConfigError(ValueError):
    """The config file cannot be used."""


def main(arguments: list[str] | None = None, *, parts: Sequence[str] = PARTS) -> int:
    """The server with these parts plugged in; ``arguments`` instead of those of the command line."""
    parser = argparse.ArgumentParser(prog="python -m localcloud.server", description="The local cloud's server.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, takes a free one")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder for block data, packages and logs")
    parser.add_argument("--config", type=Path, help="JSON file with faults, delays and quotas of the parts")
    parser.add_argument("--home-region", default="us-east-1", help="region of requests that name none")
    parser.add_argument("--ready-file", type=Path, required=True, help="written when requests are served")
    options = parser.parse_args(arguments)
    os.umask(0o077)  # packages, blocks and logs, of the EBS server too, are for the user's eyes only
    try:
        return _run(options, parts)
    except (OSError, ConfigError, EbsProcessFailed, HookMissing) as error:
        print(f"local cloud: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, parts: Sequence[str]) -> int:
    config = read_config(options.config)
    listener = socket.create_server(("127.0.0.1", options.port), backlog=512)
    data_dir = options.data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    port = listener.getsockname()[1]
    keys = LocalKeys.new()
    os.environ.update(
        _server_environment(config, port=port, data_dir=data_dir, home_region=options.home_region, keys=keys)
    )
    _raise_descriptor_limit()
    ebs = EbsProcess.start(
        data_dir=data_dir,
        config=config.get("ebs", {}),
        main_url=f"http://127.0.0.1:{port}",
        keys=keys,
    )
    try:
        host = _plugged_host(config, parts, port=port, ebs=ebs, data_dir=data_dir, keys=keys)
        try:
            door = functools.partial(Door, host=host, secrets=KnownSecrets(host), anonymous_reads=enforced(config))
            asyncio.run(_serve(host, listener, door=door, ready_file=options.ready_file))
        finally:
            host.shut_down()
    finally:
        ebs.stop()
        options.ready_file.unlink(missing_ok=True)
        listener.close()
    # The base's own threads would keep the process from ending.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def read_config(path: Path | None) -> Mapping[str, Any]:
    """The config file, one object per part; raises ``ConfigError`` naming what is wrong."""
    if path is None:
        return {}
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"config file {path}: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"config file {path}: must hold one JSON object")
    if unknown := sorted(set(config) - set(CONFIG_PARTS)):
        raise ConfigError(f"config file {path}: unknown parts {', '.join(unknown)}; known: {', '.join(CONFIG_PARTS)}")
    try:
        enforced(config)
    except ValueError as error:
        raise ConfigError(f"config file {path}: {error}") from error
    try:
        configured(config.get("ebs", {}))
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"config file {path}: ebs: {error}") from error
    return config


def _server_environment(
    config: Mapping[str, Any], *, port: int, data_dir: Path, home_region: str, keys: LocalKeys
) -> dict[str, str]:
    """Clears the process's environment and returns what belongs into it, before the base is imported."""
    environment = base_environment(
        os.environ,
        port=port,
        account_id=str(config.get("account_id", DEFAULT_ACCOUNT_ID)),
        home_region=home_region,
        data_dir=data_dir,
        enforced=enforced(config),
        root_secret=keys.secret,
    )
    os.environ.clear()
    return environment


def _plugged_host(
    config: Mapping[str, Any], parts: Sequence[str], *, port: int, ebs: EbsProcess, data_dir: Path, keys: LocalKeys
) -> Host:
    base = importlib.import_module("ministack.app")
    host = Host(
        endpoint_url=f"http://127.0.0.1:{port}",
        ebs_endpoint_url=ebs.url,
        data_dir=data_dir,
        default_account_id=str(config.get("account_id", DEFAULT_ACCOUNT_ID)),
        config=config,
        handlers=base.SERVICE_HANDLERS,
        keys=keys,
    )
    try:
        for part in parts:
            try:
                importlib.import_module(part).install(host)
            except (ValueError, ControlError) as error:
                raise ConfigError(f"{part}: {error}") from error
        host.control |= {
            "caller": _caller(host),
            "ebs": proxy_to(ebs.url, keys),
            "health": lambda _: {
                "status": "ok" if ebs.is_alive else "the EBS server has ended",
                "pid": os.getpid(),
                "ebs_pid": ebs.pid,
                "endpoint_url": host.endpoint_url,
                "ebs_endpoint_url": host.ebs_endpoint_url,
                "account_id": host.default_account_id,
            },
            "quit": _quit,
        }
        host.self_check()
    except BaseException:
        host.shut_down()
        raise
    return host


def _quit(request: ControlRequest) -> dict[str, Any]:
    if request.method != "POST":
        raise ControlError("POST ends the server", status=405)
    os.kill(os.getpid(), signal.SIGTERM)
    return {}


def _caller(host: Host) -> Any:
    """Who an access key stands for, by the base's own rules: account, session of a role, user's key."""
    account_of_session = host.lookup("core.responses", "_account_from_sts_session")
    account_of_user = host.lookup("core.iam_evaluator", "find_iam_access_key_account")
    identity_of = host.lookup("core.iam_evaluator", "resolve_caller_identity")
    request_scope = host.lookup("core.responses", "request_scope")
    secret_of = KnownSecrets(host)

    def caller(request: ControlRequest) -> dict[str, Any]:
        key = request.query.get("access_key", "")
        if not key:
            raise ControlError("access_key is missing")
        if len(key) == 12 and key.isdigit():
            account = key
        else:
            account = account_of_session(key) or account_of_user(key) or host.default_account_id
        with request_scope(account, ""):
            identity = identity_of(key)
        secret = secret_of(key)
        return {
            "account": account,
            "arn": identity["userArn"] if identity else f"arn:aws:iam::{account}:root",
            "secret": asdict(secret) if secret else None,
        }

    return caller


async def _serve(
    host: Host, listener: socket.socket, *, door: Callable[[ControlLayer], Door], ready_file: Path
) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def stopped() -> None:
        await stop.wait()
        # First the parts: handlers and executions that clients wait for end, and with them the waiting.
        await asyncio.to_thread(host.shut_down)

    def announce() -> None:
        ready = {
            "pid": os.getpid(),
            "endpoint_url": host.endpoint_url,
            "ebs_endpoint_url": host.ebs_endpoint_url,
            "account_id": host.default_account_id,
            "secret_access_key": host.keys.secret,
            "control_token": host.keys.token,
        }
        write_private(ready_file, json.dumps(ready))

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    # Longer than clients keep idle connections (Go's AWS SDK: 90 seconds). Otherwise the server closes first, and a
    # request that arrives meanwhile is carried out without an answer: the client repeats it and hears of a conflict.
    config.keep_alive_timeout = 120
    # The default closes a connection after its thousandth request, which races with the next one in the same way.
    config.keep_alive_max_requests = 1_000_000
    config.graceful_timeout = SHUTDOWN_SECONDS
    config.shutdown_timeout = SHUTDOWN_SECONDS
    config.loglevel = "WARNING"
    base = importlib.import_module("ministack.app").app
    for layer in host.layers:
        base = layer(base)
    control = ControlLayer(base, host.control, on_ready=announce)
    application: Application = door(control)
    for layer in host.outer_layers:
        application = layer(application)
    # hypercorn's types spell out every message; ours, like ASGI itself, leave them open.
    await serve(application, config, shutdown_trigger=stopped)  # type: ignore[arg-type]


def _raise_descriptor_limit() -> None:
    """Every environment needs some descriptors, every client connection one; the usual 1024 are few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
