"""The connections of the main server, which ASGI has no word for: breaking one, ending it, watching them come and go.

hypercorn serves every connection in a task of its own; the connection is remembered in that task's context, which the
tasks of its requests inherit. ``remember`` fails if the installed hypercorn has no such place.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import struct
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from localcloud.host import HookMissing

Watcher = Callable[[int, str], None]
"""``watcher(port, what)``: what became of the connection from this port of a client."""
_HOOKS = ("run", "_read_data", "protocol_send")


@dataclass(frozen=True, kw_only=True)
class Connection:
    """One client's connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


_connection: ContextVar[Connection] = ContextVar("connection")
_watchers: list[Watcher] = []


def watch(watcher: Watcher) -> None:
    """Tell ``watcher`` of every connection that is opened or closed, and by whom it was closed."""
    _watchers.append(watcher)


def remember() -> None:
    """Let hypercorn's requests be broken, and its connections watched, from now on. Raises ``HookMissing``."""
    serving = importlib.import_module("hypercorn.asyncio.run")
    base: Any = getattr(serving, "TCPServer", None)
    missing = [name for name in _HOOKS if not hasattr(base, name)]
    if missing:
        names = ", ".join(f"hypercorn.asyncio.run.TCPServer.{name}" for name in missing)
        raise HookMissing(f"this hypercorn does not fit the local cloud, missing: {names}")

    updated: Any = importlib.import_module("hypercorn.events").Updated

    class RememberedServer(base):  # type: ignore[misc]  # known at run time only
        async def run(self) -> None:
            _connection.set(Connection(reader=self.reader, writer=self.writer))
            self._tell("opened")
            try:
                await super().run()
            finally:
                self._tell("closed")

        async def _read_data(self) -> None:
            await super()._read_data()
            self._tell("ended by the client" if self.reader.at_eof() else "no longer read")
            # Nobody asks any more. hypercorn would keep the connection, its descriptor and its port until it had been
            # idle for long enough.
            await self.idle_task.stop()

        async def protocol_send(self, event: Any) -> None:
            if not (isinstance(event, updated) and self.reader.at_eof()):
                await super().protocol_send(event)

        def _tell(self, what: str) -> None:
            peer = self.writer.get_extra_info("peername")
            for watcher in _watchers:
                watcher(int(peer[1]) if isinstance(peer, tuple) else 0, what)

    serving.TCPServer = RememberedServer  # type: ignore[attr-defined]


def is_ended() -> bool:
    """Whether the request's client has ended its side of the connection, or the server has closed it."""
    known = _connection.get(None)
    return known is not None and (known.reader.at_eof() or known.writer.transport.is_closing())


def reset() -> None:
    """Close the request's connection as a dying server does: the client reads a reset, not a clean end."""
    writer = _connection.get().writer
    known: socket.socket = writer.get_extra_info("socket")
    known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def end() -> None:
    """Close the request's connection once everything written so far is sent."""
    _connection.get().writer.close()
