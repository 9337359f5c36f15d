"""``scripts/cloud``: the local cloud from the command line. ``up``, ``down`` and ``info`` are its Python API."""

from __future__ import annotations

import argparse
import http.client
import json
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from localcloud import log_view
from localcloud.lifecycle import CloudFailed, down, info, up
from localcloud.state import DIRECTORY_VARIABLE, CloudDirectory, CloudInfo

__all__ = ["CloudFailed", "CloudInfo", "down", "info", "main", "up"]

EXIT_FAILED = 1
EXIT_DOWN = 3  # as "service status" of Linux: the program is not running


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    # Ctrl-C and kill both take down what is half up, instead of leaving it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (CloudFailed, log_view.UnknownLog) as error:
        print(f"cloud: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone: no complaint about flushing it
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cloud",
        description="The local cloud: a stand-in for AWS on this machine, with Blockferry deployed in it.",
        epilog=f"Its files are in .cloud of this checkout, or in the folder that {DIRECTORY_VARIABLE} names.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    start = commands.add_parser("up", help="build, start the server, apply the Terraform; print where it is")
    start.add_argument("--json", action="store_true", help="print one JSON object with endpoints, ARNs, buckets")
    start.add_argument("--port", type=_port, metavar="N", help="port of the server on 127.0.0.1 (default: a free one)")
    start.add_argument("--regions", metavar="HOME,RECOVERY", help="two regions (default: us-east-1,eu-west-1)")
    start.add_argument("--config", type=Path, metavar="FILE", help="JSON file with faults, delays and quotas")
    start.add_argument("--no-apply", action="store_true", help="start the server only, with nothing in it")
    start.set_defaults(run=_up)

    env = commands.add_parser("env", help='print export lines for a shell: eval "$(scripts/cloud env)"')
    env.add_argument("--region", help="region of the commands that follow (default: the home region)")
    env.set_defaults(run=_env)

    stop = commands.add_parser("down", help="end the server and delete everything in it")
    stop.set_defaults(run=_down)

    status = commands.add_parser("status", help=f"say what is running; exit status {EXIT_DOWN} if nothing is")
    status.add_argument("--json", action="store_true", help="print the JSON object of up, or null")
    status.set_defaults(run=_status)

    logs = commands.add_parser("logs", help="print what the parts and the functions logged")
    logs.add_argument(
        "part", nargs="?", help="server, requests, ebs, terraform, or a function (default: the end of each)"
    )
    logs.add_argument("--follow", "-f", action="store_true", help="go on printing what is added")
    logs.set_defaults(run=_logs)
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text}")
    return int(text)


def _up(options: argparse.Namespace) -> int:
    was_up = info() is not None
    regions = None if options.regions is None else [name.strip() for name in options.regions.split(",")]
    running = up(regions=regions, port=options.port, config=options.config, apply=not options.no_apply)
    if was_up:
        print("cloud: it is up already", file=sys.stderr)
    print(running.to_json() if options.json else summary(running))
    return 0


def _env(options: argparse.Namespace) -> int:
    running = _running()
    if options.region is not None and options.region not in running.regions:
        raise CloudFailed(f"the local cloud has the regions {', '.join(running.regions)}, not {options.region}")
    for name, value in running.environment(options.region).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _down(options: argparse.Namespace) -> int:
    print("the local cloud is down" if down() else "no local cloud is up")
    return 0


def _status(options: argparse.Namespace) -> int:
    running = info()
    if options.json:
        print("null" if running is None else running.to_json())
    elif running is None:
        print("no local cloud is up; start it with: scripts/cloud up")
    else:
        print(summary(running))
        print(f"\n{_health(running)}")
    return EXIT_DOWN if running is None else 0


def _logs(options: argparse.Namespace) -> int:
    files = log_view.log_files(CloudDirectory.default())
    if options.part is None and not options.follow:
        log_view.overview(files, sys.stdout.write)
        return 0

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    chosen = log_view.chosen(files, options.part) if options.part else files
    log_view.show(chosen, write, follow=options.follow)
    return 0


def _running() -> CloudInfo:
    running = info()
    if running is None:
        raise CloudFailed("no local cloud is up; start it with: scripts/cloud up")
    return running


def summary(running: CloudInfo) -> str:
    """The cloud for people: addresses, state machines, buckets."""
    lines = [
        f"The local cloud is up (process {running.pid}, account {running.account_id}).",
        f"  every service   {running.endpoint_url}",
        *(f"  {name:<15} {url}" for name, url in running.endpoint_urls.items()),
    ]
    for region in running.regions:
        lines.append(f"  {region}")
        lines += [f"    {name:<15} {arn}" for name, arn in running.state_machines.get(region, {}).items()]
        lines += [f"    {name + ' bucket':<15} {bucket}" for name, bucket in running.buckets.get(region, {}).items()]
    lines += ["", 'To use it: eval "$(scripts/cloud env)"']
    return "\n".join(lines)


def _health(running: CloudInfo) -> str:
    address = urlsplit(running.endpoint_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
    try:
        connection.request("GET", "/_local/health", headers=running.keys.control_headers())
        health = json.loads(connection.getresponse().read())["status"]
        connection.request("GET", "/_local/lambda/workers", headers=running.keys.control_headers())
        workers = json.loads(connection.getresponse().read())["workers"]
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"health: the server does not answer: {error}"
    finally:
        connection.close()
    busy = sum(worker["busy"] for worker in workers)
    memory = sum(worker["rss_kib"] for worker in workers) // 1024
    return f"health: {health}\nexecution environments: {len(workers)}, {busy} of them busy, {memory} MiB in all"


if __name__ == "__main__":
    sys.exit(main())
