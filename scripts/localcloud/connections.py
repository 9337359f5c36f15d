"""Breaking the connection of a request, which ASGI has no word for.

hypercorn serves every connection in a task of its own; the connection is remembered in that task's context, which the
tasks of its requests inherit. ``remember`` fails if the installed hypercorn has no such place.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import struct
from contextvars import ContextVar
from typing import Any

from localcloud.host import HookMissing

_connection: ContextVar[asyncio.StreamWriter] = ContextVar("connection")


def remember() -> None:
    """Let hypercorn's requests be broken from now on. Raises ``HookMissing``."""
    serving = importlib.import_module("hypercorn.asyncio.run")
    base: Any = getattr(serving, "TCPServer", None)
    if base is None or not hasattr(base, "run"):
        raise HookMissing("this hypercorn does not fit the local cloud, missing: hypercorn.asyncio.run.TCPServer.run")

    class RememberedServer(base):  # type: ignore[misc]  # known at run time only
        async def run(self) -> None:
            _connection.set(self.writer)
            await super().run()

    serving.TCPServer = RememberedServer  # type: ignore[attr-defined]


def reset() -> None:
    """Close the request's connection as a dying server does: the client reads a reset, not a clean end."""
    writer = _connection.get()
    known: socket.socket = writer.get_extra_info("socket")
    known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def end() -> None:
    """Close the request's connection once everything written so far is sent."""
    _connection.get().close()
