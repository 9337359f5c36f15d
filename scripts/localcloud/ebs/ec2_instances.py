"""DescribeInstances as EC2 pages and filters it.

The base gives all in one page, and takes filters that it does not know for none. Source: EC2 API reference,
DescribeInstances; user guide, "Filter resources".
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping

from localcloud.ebs.ec2_query import NAMESPACE

_BASES = frozenset({"image-id", "instance-state-name", "instance-type", "tag-key"})
"""Filters that the base applies, beside ``tag:<key>``."""

_OURS = "instance-id"

_LEAST, _MOST = 5, 1_000
"""Results that may be asked for at a time."""

_VALUES = 200
"""Values of one filter that EC2 takes."""

_FILTER = re.compile(r"Filter\.(?P<number>[0-9]+)\.(?P<part>Name|Value\.[0-9]+)")


def refusal(params: Mapping[str, str]) -> tuple[str, str] | None:
    """Code and message with which a request is refused, if it is."""
    for name, values in _filters(params).items():
        if name not in {*_BASES, _OURS} and not name.startswith("tag:"):
            return "InvalidParameterValue", f"The filter '{name}' is not served by the local cloud."
        if len(values) > _VALUES:
            return "FilterLimitExceeded", f"The maximum number of filter values is {_VALUES}."
    most = params.get("MaxResults")
    if most is not None and not (most.isdecimal() and _LEAST <= int(most) <= _MOST):
        return (
            "InvalidParameterValue",
            f"Value ( {most} ) for parameter maxResults is invalid. Expecting {_LEAST} to {_MOST}.",
        )
    if most is not None and any(name.startswith("InstanceId.") for name in params):
        return "InvalidParameterCombination", "The parameter instancesSet cannot be used with the parameter maxResults"
    if (token := params.get("NextToken")) and not re.fullmatch(r"i-[0-9a-f]+", token):
        return "InvalidNextToken", "The token is not valid."
    return None


def page(params: Mapping[str, str], answer: bytes) -> bytes:
    """The part of the base's answer that was asked for. The token of a page is the last instance before it."""
    root = ElementTree.fromstring(answer)  # noqa: S314 - our own server's answer
    found = root.find(_tag("reservationSet"))
    if found is None:
        return answer
    wanted = _filters(params).get(_OURS)
    kept = sorted((item for item in found if wanted is None or _id(item) in wanted), key=_id)
    kept = [item for item in kept if _id(item) > params.get("NextToken", "")]
    most = int(params.get("MaxResults", _MOST))
    found[:] = kept[:most]
    if len(kept) > most:
        ElementTree.SubElement(root, _tag("nextToken")).text = _id(kept[most - 1])
    ElementTree.register_namespace("", NAMESPACE)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _id(reservation: ElementTree.Element) -> str:
    return reservation.findtext(f"{_tag('instancesSet')}/{_tag('item')}/{_tag('instanceId')}") or ""


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _filters(params: Mapping[str, str]) -> dict[str, set[str]]:
    names: dict[str, str] = {}
    values: dict[str, set[str]] = {}
    for key, value in params.items():
        found = _FILTER.fullmatch(key)
        if found is None:
            continue
        if found["part"] == "Name":
            names[found["number"]] = value
        else:
            values.setdefault(found["number"], set()).add(value)
    return {name: values.get(number, set()) for number, name in names.items()}
