"""Passes requests of the main server on to the EBS process over kept connections."""

from __future__ import annotations

import http.client
import queue
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from localcloud.host import Response
from localcloud.local_keys import LocalKeys

_OWN = frozenset({"content-length", "connection", "x-amzn-requestid"})
"""Headers that the main server writes itself."""
_HOP_BY_HOP = frozenset({"host", "connection", "content-length", "transfer-encoding", "expect", "keep-alive"})


class Forwarder:
    """Connections to the EBS process. Thread-safe; each serves one request at a time and is kept afterwards."""

    def __init__(self, url: str, keys: LocalKeys, *, timeout_seconds: float = 300.0) -> None:
        self._keys = keys
        address = urlsplit(url)
        self._host, self._port = address.hostname or "127.0.0.1", address.port
        self._timeout = timeout_seconds
        self._idle: queue.SimpleQueue[http.client.HTTPConnection] = queue.SimpleQueue()

    def send(
        self, method: str, path: str, query: Mapping[str, Any], headers: Mapping[str, str], body: bytes
    ) -> Response:
        """The EBS process's answer. ``OSError`` or ``http.client.HTTPException`` when it gives none: the
        request is not sent again, it may have been carried out."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        text = urlencode(query, doseq=True)
        kept = {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
        kept |= self._keys.control_headers() | {"Content-Length": str(len(body))}
        try:
            connection.request(method, quote(path) + (f"?{text}" if text else ""), body, kept)
            answer = connection.getresponse()
            content = answer.read()
        except BaseException:
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        else:
            self._idle.put(connection)
        passed = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN}
        return answer.status, passed, content

    def close(self) -> None:
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return
