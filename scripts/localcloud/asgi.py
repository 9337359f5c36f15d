"""Pieces of the main server's layers: reading a whole request, passing it on, answering."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from localcloud.host import Response

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


async def whole_body(receive: Receive) -> bytes | None:
    """The whole body; ``None`` when the client has gone."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """``receive`` of a request whose body has been read already."""
    first = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay


async def answer_with(send: Send, answer: Response, *, headless: bool = False) -> None:
    """Send the answer to a client. ``headless``: the request was HEAD, whose answer tells the length of a body that it
    does not have."""
    status, headers, body = answer
    raw = [(name.lower().encode(), value.encode("latin-1", errors="replace")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if headless else body})


class KeptAnswer:
    """Takes an answer instead of the client. ``is_whole`` once its last part has come."""

    def __init__(self) -> None:
        self.start: Message = {"type": "http.response.start", "status": 500, "headers": []}
        self.body = b""
        self.is_whole = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            self.is_whole = not message.get("more_body", False)

    def start_with_length(self, length: int) -> Message:
        framing = (b"content-length", b"transfer-encoding")
        others = [(name, value) for name, value in self.start["headers"] if name.lower() not in framing]
        return {**self.start, "headers": [*others, (b"content-length", str(length).encode())]}
