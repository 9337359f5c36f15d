"""EC2's query protocol: flattened parameters in, XML out.

Wire names: botocore ec2/2016-11-15 service-2.json.
"""

from __future__ import annotations

import fnmatch
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from localcloud.ebs.errors import ApiError, Ec2Error
from localcloud.ebs.messages import Request, Response
from localcloud.ebs.registry import Registry

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


class Params:
    """The parameters under one prefix (``""`` for the request's own)."""

    def __init__(self, values: Mapping[str, str], prefix: str = "") -> None:
        self._values = values
        self._prefix = prefix

    def text(self, name: str) -> str | None:
        return self._values.get(self._prefix + name)

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None or value == "":
            raise Ec2Error("MissingParameter", f"The request must contain the parameter {name}")
        return value

    def flag(self, name: str) -> bool | None:
        value = self.text(name)
        if value is None:
            return None
        if value.lower() not in ("true", "false"):
            raise Ec2Error("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid.")
        return value.lower() == "true"

    def number(self, name: str) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise Ec2Error("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid.")
        return int(value)

    def texts(self, name: str) -> list[str]:
        """The values of ``Name.1``, ``Name.2``, .. in the order of their numbers."""
        wanted = re.compile(re.escape(self._prefix + name) + r"\.([0-9]+)")
        found = [(int(m[1]), value) for key, value in self._values.items() if (m := wanted.fullmatch(key))]
        return [value for _number, value in sorted(found)]

    def structures(self, name: str) -> list[Params]:
        """The members of the list ``Name.1.*``, ``Name.2.*``, .. each as its own parameters."""
        wanted = re.compile(re.escape(self._prefix + name) + r"\.([0-9]+)\..*")
        numbers = sorted({int(m[1]) for key in self._values if (m := wanted.fullmatch(key))})
        return [Params(self._values, f"{self._prefix}{name}.{number}.") for number in numbers]

    def under(self, name: str) -> Params:
        return Params(self._values, f"{self._prefix}{name}.")

    def filters(self, known: frozenset[str]) -> list[Filter]:
        """The filters; a name neither in ``known`` nor (where that has ``tag-key``) of a tag is refused."""
        found = [Filter(f.required("Name"), tuple(f.texts("Value"))) for f in self.structures("Filter")]
        for each in found:
            if each.name not in known and not (each.name.startswith("tag:") and "tag-key" in known):
                raise Ec2Error("InvalidParameterValue", f"The filter '{each.name}' is invalid")
        return found

    def tags_for(self, resource_type: str) -> dict[str, str]:
        """The tags of TagSpecification.N for one kind of resource."""
        tags: dict[str, str] = {}
        for specification in self.structures("TagSpecification"):
            kind = specification.text("ResourceType")
            if kind != resource_type:
                raise Ec2Error(
                    "InvalidParameterValue", f"'{kind}' is not a valid taggable resource type for this operation."
                )
            tags.update(read_tags(specification))
        return tags


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: any of its values, with ``*`` and ``?`` as wildcards."""

    name: str
    values: tuple[str, ...]

    def fits(self, candidates: Iterable[str]) -> bool:
        return any(_wild(value, candidate) for candidate in candidates for value in self.values)


def _wild(pattern: str, text: str) -> bool:
    if not any(sign in pattern for sign in "*?\\"):
        return pattern == text
    escaped = re.sub(r"\\(.)", r"[\1]", pattern.replace("[", "[[]"))
    return fnmatch.fnmatchcase(text, escaped)


def tag_filters_fit(filters: Iterable[Filter], tags: Mapping[str, str]) -> bool:
    """Whether the tags fit the filters ``tag:<key>``, ``tag-key`` and ``tag-value``; others are not looked at."""
    for each in filters:
        if each.name.startswith("tag:"):
            key = each.name[4:]
            if key not in tags or not each.fits([tags[key]]):
                return False
        elif (each.name == "tag-key" and not each.fits(tags)) or (
            each.name == "tag-value" and not each.fits(tags.values())
        ):
            return False
    return True


def read_tags(params: Params) -> dict[str, str]:
    tags: dict[str, str] = {}
    for tag in params.structures("Tag"):
        key, value = tag.text("Key") or "", tag.text("Value") or ""
        if not key or len(key) > 128 or len(value) > 256:
            raise Ec2Error("InvalidParameterValue", f"Tag key or value is too long or empty: '{key}'")
        if key.startswith("aws:"):
            raise Ec2Error(
                "InvalidParameterValue",
                "Tag keys starting with 'aws:' are reserved for internal use",
            )
        tags[key] = value
    return tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One EC2 request as an action sees it."""

    action: str
    params: Params
    account: str
    region: str
    registry: Registry


Answer = dict[str, Any]
Action = Callable[[Call], Answer]
"""The work of an action. Returns the members of ``<Action>Response``: text, numbers, booleans, dicts, lists of
``item``s; ``None`` members are left out."""


def parse(request: Request) -> dict[str, str]:
    """The flattened parameters of a query-protocol request, of its query string and its body."""
    values = dict(request.query)
    if request.method == "POST" and request.body:
        text = bytes(request.body).decode("utf-8", errors="replace")
        values.update(parse_qsl(text, keep_blank_values=True))
    return values


def timestamp(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03d}Z"


def tag_set(tags: Mapping[str, str]) -> list[Answer] | None:
    return [{"key": key, "value": value} for key, value in tags.items()] or None


def _xml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "".join(f"<item>{_xml(item)}</item>" for item in value)
    if isinstance(value, dict):
        return "".join(f"<{name}>{_xml(v)}</{name}>" for name, v in value.items() if v is not None)
    return escape(str(value))


def xml_response(action: str, answer: Answer, request_id: str) -> Response:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="{NAMESPACE}">'
        f"<requestId>{request_id}</requestId>{_xml(answer)}</{action}Response>"
    )
    return Response(200, {"Content-Type": "text/xml;charset=UTF-8"}, body.encode())


def xml_error(error: ApiError, request_id: str | None = None) -> Response:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error>'
        f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
        f"</Error></Errors><RequestID>{request_id or uuid.uuid4()}</RequestID></Response>"
    )
    return Response(error.status, {"Content-Type": "text/xml;charset=UTF-8"}, body.encode(), code=error.code)


def page(call: Call, items: list[Any], *, least: int, most: int) -> tuple[list[Any], str | None]:
    """The part of ``items`` asked for by MaxResults and NextToken, and the next token.

    ``items`` must have a stable order; the token is bound to the account, Region and action.
    """
    size = call.params.number("MaxResults")
    if size is not None and not least <= size:
        raise Ec2Error("InvalidParameterValue", f"MaxResults must be at least {least}, got {size}")
    size = min(size, most) if size is not None else None
    tokens, now = call.registry.tokens, call.registry.clock.now()
    listing = f"{call.action}|{call.account}|{call.region}"
    token, start = call.params.text("NextToken"), 0
    if token:
        found = tokens.page_start(token, listing=listing, now=now)
        if found is None:
            raise Ec2Error("InvalidNextToken", "The token is not valid.")
        start = found
    if size is None or start + size >= len(items):
        return items[start:], None
    following = tokens.page(listing=listing, next_index=start + size, expires=now + 86400)
    return items[start : start + size], following
