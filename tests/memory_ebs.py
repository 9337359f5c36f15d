"""The EBS direct APIs of a region, in memory, as ``EbsDirect`` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from blockferry.aws.ebs.client import Change, ChangedPage, Page
from blockferry.aws.ebs.refusals import EbsError
from blockferry.core.checksums import digest_of
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import RequestRefused

Blocks = Mapping[int, bytes]

PAGE = 64
"""Entries of a page at most."""


_digest = lru_cache(maxsize=64)(digest_of)
"""Many blocks of a test are one and the same."""


def refused(code: str, reason: str = "") -> RequestRefused:
    """What ``EbsDirect`` raises when EBS answers so."""
    error = RequestRefused(f"{code} {reason}")
    error.__cause__ = EbsError(request="x", status=400, code=code, reason=reason or None, message="no")
    return error


class MemoryEbs:
    """Snapshots by id; lists come in short pages. Snapshots of different ``volumes`` are unrelated. ``errors``
    are raised by the operation of that name, ``listed`` by the list of a snapshot instead of its blocks."""

    def __init__(self, snapshots: Mapping[str, Blocks], *, region: str = "us-east-1", **volumes: str) -> None:
        self.snapshots = {name: dict(blocks) for name, blocks in snapshots.items()}
        self.region = region
        self.counts = RequestCounts()
        self.volumes = volumes
        self.errors: dict[str, Exception] = {}
        self.asked: list[tuple[str, str, int, int]] = []

    def _called(self, operation: str, what: str, start: int, window: int) -> None:
        self.asked.append((operation, what, start, window))
        if operation in self.errors:
            raise self.errors[operation]

    def list_blocks(
        self, snapshot_id: str, *, start: int = 0, window: int = 10_000, page_token: str | None = None
    ) -> Page:
        self._called("ListSnapshotBlocks", snapshot_id, start, window)
        entries, after = _page(sorted(self.snapshots[snapshot_id]), start, page_token)
        return Page(tuple((index, f"{snapshot_id} {index}") for index in entries), after)

    def list_changed_blocks(
        self, first: str, second: str, *, start: int = 0, window: int = 10_000, page_token: str | None = None
    ) -> ChangedPage:
        self._called("ListChangedBlocks", f"{first} {second}", start, window)
        if self.volumes.get(first) != self.volumes.get(second):
            raise refused("ValidationException", "UNRELATED_SNAPSHOTS")
        before, after = self.snapshots[first], self.snapshots[second]
        changed = sorted(index for index in before.keys() | after.keys() if before.get(index) != after.get(index))
        entries, more = _page(changed, start, page_token)
        return ChangedPage(tuple(self._change(index, first, second) for index in entries), more)

    def _change(self, index: int, first: str, second: str) -> Change:
        def token(name: str) -> str | None:
            return f"{name} {index}" if index in self.snapshots[name] else None

        return Change(index, token(first), token(second))

    def get_block(self, snapshot_id: str, index: int, token: str) -> tuple[bytes, bytes]:
        self._called("GetSnapshotBlock", snapshot_id, index, 1)
        assert token == f"{snapshot_id} {index}"
        data = self.snapshots[snapshot_id][index]
        return data, _digest(data)


def _page(indices: list[int], start: int, page_token: str | None) -> tuple[list[int], Any]:
    at = start if page_token is None else int(page_token)
    due = [index for index in indices if index >= at]
    return due[:PAGE], str(due[PAGE]) if len(due) > PAGE else None
