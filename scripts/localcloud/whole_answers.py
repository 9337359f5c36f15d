"""An answer's head is written together with what follows it.

hypercorn writes the head first and the body then. A client can close the connection in between, and AWS's SDK for Go
does (smithy-go before its WriteTo of a closed body returned no error): when it has the head it closes the request's
body, which net/http may still be reading to its end, although all of it was sent; that read fails, and net/http closes
the connection. Only what was received together with the head can be read then. It needs a machine that is busy enough
to hold up the writing thread for longer than the answer takes. The SDK sends the request once more, and is told that
what it creates exists.

Answers of up to 4 KiB, the client's buffer, so arrive as a whole or not at all.
"""

from __future__ import annotations

import importlib
from typing import Any

import h11

from localcloud.host import HookMissing, Host

_PLACE = "hypercorn.protocol.h11"
_HOOKS = ("_send_h11_event", "stream_send")


def install(_: Host | None = None) -> None:
    """Let every answer of hypercorn be written so from now on. Raises ``HookMissing``."""
    protocol: Any = getattr(importlib.import_module(_PLACE), "H11Protocol", None)
    missing = [f"{_PLACE}.H11Protocol.{name}" for name in _HOOKS if not hasattr(protocol, name)]
    if missing:
        raise HookMissing(f"this hypercorn does not fit the local cloud, missing: {', '.join(missing)}")
    raw_data: Any = importlib.import_module("hypercorn.events").RawData

    async def send_together(self: Any, event: Any) -> None:
        """In the place of ``H11Protocol._send_h11_event``: an event of h11 in bytes, to the connection."""
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self.unwritten_head = data
            return
        head = self.__dict__.pop("unwritten_head", b"")
        await self.send(raw_data(data=head + data))

    protocol._send_h11_event = send_together
