"""Walking a paged list of EBS to the end of a range, whatever its pages look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from blockferry.aws.ebs.refusals import StaleToken
from blockferry.core.blocks import BlockRange
from blockferry.core.errors import IncompleteTransfer

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)


class ListPage(Protocol[E_co]):
    """A page of any list: ascending entries, perhaps none, and the token of the next page."""

    @property
    def entries(self) -> tuple[E_co, ...]: ...

    @property
    def next_token(self) -> str | None: ...


AskPage = Callable[[int, int, str | None], ListPage[E]]
"""Asks for a page: first index, number of indices to look at, page token."""


def walk(within: BlockRange, ask: AskPage[E], index_of: Callable[[E], int], *, what: str) -> Iterator[E]:
    """The entries of ``within``, ascending; a page may be empty, only a missing token ends the list.

    Raises ``IncompleteTransfer`` when a list is not strictly ascending: counting on it would lose blocks.
    """
    start = within.first
    page_token: str | None = None
    while True:
        try:
            page = ask(start, within.stop - start, page_token)
        except StaleToken:
            if page_token is None:
                raise
            # Page tokens live 60 minutes: begin again behind the last block that was seen.
            page_token = None
            continue
        for entry in page.entries:
            index = index_of(entry)
            if index < start:
                raise IncompleteTransfer(
                    f"the list of {what} is not ascending: block {index} came where {start} or later was due"
                )
            start = index + 1
            if index >= within.stop:
                return
            yield entry
        page_token = page.next_token
        if page_token is None or start >= within.stop:
            return
