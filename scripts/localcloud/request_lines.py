"""Reading the log of requests, which ``localcloud.request_log`` writes."""

from __future__ import annotations

import re
from collections.abc import Iterable

REQUEST_LOG = "requests.log"
_INVOCATION = re.compile(r" invocation=(\S+) attempt=(\d+)")


def repeated(lines: Iterable[str]) -> list[str]:
    """The lines of all requests that were sent more than once, and what became of their connections.

    For whoever looks into a creation that failed because its first attempt had been carried out.
    """
    kept = list(lines)
    found = [(line, _INVOCATION.search(line)) for line in kept]
    again = {match.group(1) for _, match in found if match is not None and match.group(2) != "1"}
    ports = {line.split()[1] for line, match in found if match is not None and match.group(1) in again}
    return [
        line
        for line, match in found
        if (match.group(1) in again if match is not None else len(line.split()) > 1 and line.split()[1] in ports)
    ]
