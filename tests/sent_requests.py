"""Whether what boto3 clients send to moto, which takes nearly everything, is what the services' models allow."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import botocore.handlers
import pytest
from botocore.awsrequest import AWSPreparedRequest
from localcloud.operations import Operation
from localcloud.request_model.models import shared_models
from localcloud.request_model.requests import WireRequest
from model_requests import WIRE_NAMES, protocols, service_model

_SERVICES = {"eventbridge": "events", "sfn": "stepfunctions"}
"""Services whose events have another name than their clients."""

_CHECKED_WHERE_THEY_ARRIVE = ("ebs", "ec2")

_FIRST: Any = getattr(botocore.handlers, "REGISTER_FIRST")  # noqa: B009 - not in the type stubs


class SentRequests:
    """``refused`` are the requests that AWS would not have taken."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self._models = shared_models()

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look at every request of every client of a session made from now on."""
        handlers = [*botocore.handlers.BUILTIN_HANDLERS, ("before-send", self.look_at, _FIRST)]
        monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)

    def look_at(self, request: AWSPreparedRequest, event_name: str, **_: Any) -> None:
        """Raises ``AssertionError``, and remembers it for whom the code under test does not let it through."""
        _, called, operation = event_name.split(".")
        service = _SERVICES.get(called, called)
        if service in _CHECKED_WHERE_THEY_ARRIVE:
            return
        address = urlsplit(cast(str, request.url))
        wire = WireRequest(
            path=address.path,
            query=parse_qs(address.query, keep_blank_values=True),
            headers={
                name.lower(): value.decode() if isinstance(value, bytes) else str(value)
                for name, value in request.headers.items()
            },
            body=_bytes(request.body),
        )
        protocol: Any = protocols(service_model(service))[0]
        asked = Operation(name=operation, protocol=WIRE_NAMES.get(protocol, protocol))
        problems = self._models.problems(service, asked, wire)
        if problems:
            self.refused.append(f"{service} {operation}: {'; '.join(str(each) for each in problems)}")
            raise AssertionError(self.refused[-1])


def _bytes(body: Any) -> bytes | None:
    """``None`` for a stream, which is data."""
    if isinstance(body, str):
        return body.encode()
    return bytes(body) if isinstance(body, bytes | bytearray) else b"" if body is None else None
