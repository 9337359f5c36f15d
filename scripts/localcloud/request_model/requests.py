"""One operation's input: where its members stand in a request, and whether a request fits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

from botocore.model import ListShape, OperationModel, Shape, StructureShape

from localcloud.operations import Protocol
from localcloud.request_model.constraints import Constraints
from localcloud.request_model.documents import (
    Malformed,
    cbor_document,
    from_json,
    from_xml,
    json_document,
    json_members,
    wire_name,
    xml_document,
    xml_members,
)
from localcloud.request_model.forms import from_form
from localcloud.request_model.problems import WRONG, Blob, Place, Problem
from localcloud.request_model.scalars import from_text, mistyped, unknown

_LABEL = re.compile(r"\\{(\w+)(\\\+)?\\}")
_PLACES: Mapping[str, Place] = {"uri": "uri", "header": "header", "headers": "header", "querystring": "query"}
_HEADERS_OF_THE_PROTOCOL = frozenset(
    {
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-decoded-content-length",
        "x-amz-security-token",
        "x-amz-te",
        "x-amz-trailer",
        "x-amz-user-agent",
    }
)
_QUERY_OF_THE_PROTOCOL = ("X-Amz-", "x-id", "AWSAccessKeyId", "Signature", "Expires")
_QUERY_OF_S3 = "x-"
"""Presigned URLs have ``x-amz-`` headers in their query; S3 passes over what else begins so ("Custom access log
information" in its user guide)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRequest:
    """A request as it was sent: ``path`` with its percent signs, ``headers`` with lower-case names.

    ``body`` is ``None`` where it was not waited for: streams of data are not looked at.
    """

    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes | bytearray | None


class Input:
    """The input of an operation. Safe between threads."""

    def __init__(self, operation: OperationModel, constraints: Constraints) -> None:
        self.operation = operation.name
        shape = operation.input_shape
        self._shape: StructureShape | None = shape
        self._check = constraints.of(shape) if shape is not None else None
        self._places: dict[str, Place] = {}
        self._headers: list[tuple[str, str, Shape]] = []
        self._queries: list[tuple[str, str, Shape]] = []
        self._query_map: tuple[str, Shape] | None = None
        self._prefixes: list[tuple[str, str, Shape]] = []
        self._labels: dict[str, tuple[str, Shape]] = {}
        self._body: list[tuple[str, Shape]] = []
        self._payload: tuple[str, Shape] | None = None
        payload = shape.serialization.get("payload") if shape is not None else None
        for name, member in shape.members.items() if shape is not None else ():
            place = member.serialization.get("location")
            self._places[name] = _PLACES.get(place or "", "body")
            wire = wire_name(member, name)
            match place:
                case "header":
                    self._headers.append((wire.lower(), name, member))
                case "headers":
                    self._prefixes.append((wire.lower(), name, member))
                case "querystring" if member.type_name == "map":
                    self._query_map = (name, member)
                case "querystring":
                    self._queries.append((wire, name, member))
                case "uri":
                    self._labels[wire] = (name, member)
                case _ if name == payload:
                    self._payload = (name, member)
                case _:
                    self._body.append((name, member))
        path, _, flags = operation.http.get("requestUri", "/").partition("?")
        self._flags = {flag.partition("=")[0] for flag in flags.split("&")}
        self._known_queries = self._flags | {wire for wire, _, _ in self._queries}
        self._known_headers = _HEADERS_OF_THE_PROTOCOL | {wire for wire, _, _ in self._headers}
        # What the checksum trait adds stands in no shape.
        self._checksums = ("x-amz-checksum-",) if operation.http_checksum else ()
        self._path = re.compile(
            _LABEL.sub(lambda m: f"(?P<{m.group(1)}>.+)" if m.group(2) else f"(?P<{m.group(1)}>[^/]+)", re.escape(path))
        )

    @property
    def streams(self) -> bool:
        """Whether the body is data, of which the model says nothing."""
        return self._payload is not None and self._payload[1].type_name == "blob"

    def place_of(self, problem: Problem) -> Place:
        return self._places.get(problem.path[0], problem.place) if problem.path else problem.place

    def problems(self, request: WireRequest, protocol: Protocol) -> list[Problem]:
        """Everything that is wrong with the request, as the model has it; nothing of an operation without input."""
        if self._shape is None or self._check is None:
            return []
        out: list[Problem] = []
        try:
            value = self._read(self._shape, request, protocol, out)
        except Malformed as error:
            return [Problem(kind="malformed", path=(), constraint=str(error))]
        if value is not WRONG:
            self._check(value, (), out)
        return out

    def _read(self, shape: StructureShape, request: WireRequest, protocol: Protocol, out: list[Problem]) -> Any:
        body = request.body if request.body is not None else b""
        match protocol:
            case "json":
                return from_json(shape, json_document(body), (), out)
            case "rpc-v2-cbor":
                return from_json(shape, cbor_document(body), (), out)
            case "query" | "ec2":
                return from_form(shape, _pairs(request.query, body), out, protocol)
        found: dict[str, Any] = {}
        self._read_path(request.path, found, out)
        headers, query = request.headers, request.query
        if protocol == "rest-xml":
            moved = [name for name in query if name.lower().startswith(_QUERY_OF_S3)]
            headers = {name.lower(): query[name][-1] for name in moved} | dict(headers)
            query = {name: values for name, values in query.items() if name not in moved}
        self._read_headers(headers, found, out)
        self._refuse_unknown_headers(request.headers, out)
        self._read_query(query, found, out)
        if self._payload is not None:
            self._read_payload(*self._payload, request.body, found, out, xml=protocol == "rest-xml")
        elif self._body and body:
            if protocol == "rest-xml":
                found |= xml_members(self._body, xml_document(body), (), out)
            else:
                document = json_document(body)
                if not isinstance(document, dict):
                    return mistyped(shape, document, (), out, "body")
                found |= json_members(self._body, document, (), out)
        return found

    def _read_path(self, path: str, found: dict[str, Any], out: list[Problem]) -> None:
        match = self._path.fullmatch(path) if self._labels else None
        if match is None:
            # Not as the model writes it, such as S3 with the bucket in the host: what is served cannot be told here.
            found |= dict.fromkeys((name for name, _ in self._labels.values()), WRONG)
            return
        for wire, text in match.groupdict().items():
            name, member = self._labels[wire]
            found[name] = from_text(member, unquote(text) if "%" in text else text, (name,), out, "uri")

    def _read_headers(self, headers: Mapping[str, str], found: dict[str, Any], out: list[Problem]) -> None:
        for wire, name, member in self._headers:
            text = headers.get(wire)
            if text is not None:
                found[name] = _header(member, text, (name,), out)
        for prefix, name, _ in self._prefixes:
            kept = {each.removeprefix(prefix): text for each, text in headers.items() if each.startswith(prefix)}
            found[name] = kept or None

    def _refuse_unknown_headers(self, headers: Mapping[str, str], out: list[Problem]) -> None:
        for header in headers:
            if header.startswith("x-amz-") and header not in self._known_headers and not self._is_prefixed(header):
                unknown(header, (), out, "header")

    def _is_prefixed(self, header: str) -> bool:
        return header.startswith((*self._checksums, *(prefix for prefix, _, _ in self._prefixes)))

    def _read_query(self, query: Mapping[str, Sequence[str]], found: dict[str, Any], out: list[Problem]) -> None:
        for wire, name, member in self._queries:
            texts = query.get(wire)
            if not texts:
                continue
            if member.type_name == "list":
                each = cast(ListShape, member).member
                found[name] = [from_text(each, text, (name,), out, "query") for text in texts]
            else:
                found[name] = from_text(member, texts[-1], (name,), out, "query")
        others = [key for key in query if key not in self._known_queries]
        if self._query_map is not None:
            found[self._query_map[0]] = {key: _query_value(self._query_map[1], query[key]) for key in others} or None
            return
        for key in others:
            if not key.startswith(_QUERY_OF_THE_PROTOCOL):
                unknown(key, (), out, "query")

    def _read_payload(
        self,
        name: str,
        member: Shape,
        body: bytes | bytearray | None,
        found: dict[str, Any],
        out: list[Problem],
        *,
        xml: bool,
    ) -> None:
        if member.type_name == "blob":
            found[name] = WRONG if body is None else Blob(len(body))
        elif not body:
            return
        elif member.type_name == "string":
            found[name] = body.decode("utf-8", errors="replace")
        elif xml:
            found[name] = from_xml(member, [xml_document(body)], (name,), out)
        else:
            found[name] = from_json(member, json_document(body), (name,), out)


def _pairs(query: Mapping[str, Sequence[str]], body: bytes | bytearray) -> list[tuple[str, str]]:
    found = [(name, value) for name, values in query.items() for value in values]
    return found + parse_qsl(body.decode("utf-8", errors="replace"), keep_blank_values=True)


def _header(shape: Shape, text: str, path: tuple[str, ...], out: list[Problem]) -> Any:
    if shape.type_name == "list":
        member = cast(ListShape, shape).member
        return [from_text(member, each.strip(), path, out, "header") for each in text.split(",")]
    if shape.serialization.get("jsonvalue"):
        return WRONG  # base64 of a document that has no model
    return from_text(shape, text, path, out, "header")


def _query_value(shape: Any, texts: Sequence[str]) -> Any:
    return list(texts) if shape.value.type_name == "list" else texts[-1]
