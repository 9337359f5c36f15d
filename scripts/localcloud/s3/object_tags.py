"""Object tags: at most ten, of characters and lengths that S3 takes, and of the version that they were put on.

Source: S3 user guide, "Categorizing your objects using tags"; API reference, PutObject and PutObjectTagging.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element, ParseError

from localcloud.host import Response
from localcloud.s3.base import Query, S3Base, text_of
from localcloud.s3.bodies import Body

MOST = 10
_OTHER = frozenset("+-=._:/@")
Tag = tuple[str, str]


class Tags:
    def __init__(self, base: S3Base) -> None:
        self._base = base
        self._fromstring: Callable[[bytes], Element] = base.lookup("fromstring")

    def set(self, bucket_name: str, key: str, version_id: str | None, tags: Mapping[str, str]) -> None:
        """A new object has the tags that it came with, whatever was on the one that it replaces."""
        if tags:
            self._base.tags[(bucket_name, key, version_id)] = dict(tags)
        else:
            self._base.tags.pop((bucket_name, key, version_id), None)

    def of_header(self, headers: Mapping[str, str]) -> tuple[dict[str, str], Response | None]:
        tags = parse_qsl(headers.get("x-amz-tagging", ""), keep_blank_values=True)
        if len({name for name, _ in tags}) < len(tags):
            text = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without "
            return {}, self._base.error("InvalidArgument", f"{text}tag name duplicates.", 400)
        return dict(tags), self._refused(tags)

    def of_document(self, body: bytes) -> Response | None:
        """Why a ``Tagging`` document cannot be put; of one that is no XML the base says so."""
        try:
            root = self._fromstring(body)
        except ParseError:
            return None
        tags = []
        for element in root.iter():
            if element.tag.rpartition("}")[2] == "Tag":
                told = {child.tag.rpartition("}")[2]: child.text or "" for child in element}
                tags.append((told.get("Key", ""), told.get("Value", "")))
        if len({name for name, _ in tags}) < len(tags):
            return self._base.error("InvalidTag", "Cannot provide multiple Tags with the same key", 400)
        return self._refused(tags)

    def _refused(self, tags: list[Tag]) -> Response | None:
        if len(tags) > MOST:
            return self._base.error("BadRequest", f"Object tags cannot be greater than {MOST}", 400)
        for name, value in tags:
            if name.lower().startswith("aws:"):
                return self._base.error("InvalidTag", "System tags cannot be added/updated by requester", 400)
            if not 1 <= len(name) <= 128 or not _are_allowed(name):
                return self._base.error("InvalidTag", "The TagKey you have provided is invalid", 400)
            if len(value) > 256 or not _are_allowed(value):
                return self._base.error("InvalidTag", "The TagValue you have provided is invalid", 400)
        return None


def install(base: S3Base) -> Tags:
    tags = Tags(base)
    put: Callable[..., Response] = base.lookup("_put_object")
    copy: Callable[..., Response] = base.lookup("_copy_object")
    put_tagging: Callable[..., Response] = base.lookup("_put_object_tagging")

    def put_object(bucket_name: str, key: str, body: Body, headers: dict[str, str]) -> Response:
        given, refused = tags.of_header(headers)
        if refused is not None:
            return refused
        answer = put(bucket_name, key, body, headers)
        record = base.current(bucket_name, key)
        if answer[0] == 200 and record is not None:
            tags.set(bucket_name, key, record.get("version_id"), given)
        return answer

    def copy_object(bucket_name: str, key: str, headers: dict[str, str]) -> Response:
        _, refused = tags.of_header(headers)
        return copy(bucket_name, key, headers) if refused is None else refused

    def put_object_tagging(bucket_name: str, key: str, body: bytes, query: Query | None = None) -> Response:
        refused = tags.of_document(body)
        return put_tagging(bucket_name, key, body, query) if refused is None else refused

    base.replace("_put_object", put_object)
    base.replace("_copy_object", copy_object)
    base.replace("_put_object_tagging", put_object_tagging)
    for name in ("_get_object_tagging", "_put_object_tagging", "_delete_object_tagging"):
        base.replace(name, _of_hidden_versions(base, base.lookup(name)))
    return tags


def _of_hidden_versions(base: S3Base, call: Callable[..., Response]) -> Callable[..., Response]:
    """The base does not find a version's tags where a delete marker hides the object."""

    def tagging(bucket_name: str, key: str, *arguments: Any) -> Response:
        query = arguments[-1] if arguments and isinstance(arguments[-1], Mapping) else {}
        bucket = base.bucket(bucket_name)
        version = base.found(bucket_name, key, text_of(query, "versionId"))
        if bucket is None or version is None or key in bucket["objects"]:
            return call(bucket_name, key, *arguments)
        bucket["objects"][key] = version
        try:
            return call(bucket_name, key, *arguments)
        finally:
            del bucket["objects"][key]

    return tagging


def _are_allowed(text: str) -> bool:
    """Letters, digits and spaces of any script, and a few signs."""
    return all(sign in _OTHER or unicodedata.category(sign)[0] in "LNZ" for sign in text)
