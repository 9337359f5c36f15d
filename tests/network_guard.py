"""Keeps the network away from tests: a process under this guard connects to nothing but the loopback.

A client that a test forgot to replace would otherwise ask AWS, and code that passes over a failed look (a warning, a
retry) would hide it. So what was tried is refused and remembered.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

_CONNECTING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_LOOKING_UP = frozenset({"socket.getaddrinfo", "socket.gethostbyname"})


class NetworkRefused(RuntimeError):
    """A test tried to reach something beyond this machine."""


class NetworkGuard:
    """Audit hooks stay for the life of the process, so there is one guard for all tests of it."""

    def __init__(self) -> None:
        self._tried: list[str] = []

    def start(self) -> None:
        sys.addaudithook(self._hook)

    def tried(self) -> list[str]:
        """What was tried since the last call."""
        found = list(self._tried)
        del self._tried[: len(found)]
        return found

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CONNECTING:
            address = arguments[1]
            # Other families than IP have other addresses: paths of sockets, numbers of kernel interfaces.
            host = address[0] if isinstance(address, tuple) and address else None
        elif event in _LOOKING_UP:
            host = arguments[0]
        else:
            return
        if isinstance(host, bytes | bytearray):
            host = host.decode("ascii", errors="replace")
        if isinstance(host, str) and not _is_here(host):
            self._tried.append(f"{event} {host}")
            raise NetworkRefused(f"tests reach nothing but the loopback, not {host}: give the code a client of the rig")


def _is_here(host: str) -> bool:
    if host == "" or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
