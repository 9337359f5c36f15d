"""Keeps web pages out: any page in a browser on this machine can send requests to a port of the loopback.

A browser tells by itself, out of a page's reach, where a request comes from: ``Origin`` with everything but the
simplest requests, ``Sec-Fetch-Site`` with all of them (Fetch standard; W3C Fetch Metadata). A name that a page's owner
points at 127.0.0.1 is in ``Host``. No AWS client sends the first two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

HINT = "The local cloud serves no web pages. Use an AWS client, or curl."
NAMES = ("127.0.0.1", "localhost")
_BELOW_LOCALHOST = re.compile(r"[a-z0-9_.-]+\.localhost")


def refusal(headers: Mapping[str, str], *, port: int) -> str:
    """Why a request with these headers (lower-case names) may come from a web page; empty if it cannot.

    ``port`` is the server's own. Names below ``localhost`` are the machine's, too (RFC 6761): S3's virtual hosts.
    """
    if "origin" in headers:
        return f"The request has an Origin, {headers['origin']}. {HINT}"
    site = headers.get("sec-fetch-site", "none")
    if site != "none":
        return f"The request comes from a web page (Sec-Fetch-Site is {site}). {HINT}"
    host = headers.get("host", "")
    name, _, asked = host.lower().rpartition(":")
    if asked != str(port) or not (name in NAMES or _BELOW_LOCALHOST.fullmatch(name)):
        return f"The Host {host!r} is not this server's, which is 127.0.0.1:{port} or localhost:{port}. {HINT}"
    return ""


def is_cors(header: str) -> bool:
    """Whether an answer's header (lower-case name) would open it to web pages."""
    return header.startswith("access-control-")
