"""Requests with a ClientToken: the same one again is answered again, not done again.

Source: EventBridge Scheduler API reference, ClientToken of CreateSchedule, UpdateSchedule, DeleteSchedule and of the
schedule groups ("to ensure the idempotency of the request"). How long a token lives is not documented: here as long
as it is among the last ten thousand.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from localcloud.host import Response

_KEPT = 10_000


class Idempotency:
    """Answers by token. ``conflict`` makes the answer for a token that came with another request before."""

    def __init__(self, conflict: Callable[[str], Response]) -> None:
        self._conflict = conflict
        self._answers: OrderedDict[Hashable, tuple[str, Response]] = OrderedDict()
        self._lock = threading.Lock()

    def answer(
        self, scope: Hashable, token: str | None, request: Mapping[str, Any], do: Callable[[], Response]
    ) -> Response:
        """Do it, or say again what was said; only successes are remembered."""
        if not token:
            return do()
        content = {name: value for name, value in request.items() if name.lower() != "clienttoken"}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        with self._lock:
            known = self._answers.get((scope, token))
            if known is not None:
                if known[0] == digest:
                    return known[1]
                return self._conflict(f"The client token {token} was used for another request")
            response = do()
            if response[0] == 200:
                self._answers[(scope, token)] = (digest, response)
                if len(self._answers) > _KEPT:
                    self._answers.popitem(last=False)
            return response
