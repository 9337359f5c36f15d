"""The same small piece of work for many things at a time, where each is a wait for somebody else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def together(work: Callable[[A], B], things: Iterable[A], *, most: int) -> list[B]:
    """What the work answers for each thing, in their order, with ``most`` of them under way at a time.

    Whatever happens, all are tried; then the error of the first one that failed is raised.
    """
    listed = list(things)
    if len(listed) < 2:
        return [work(each) for each in listed]
    with ThreadPoolExecutor(max_workers=min(most, len(listed)), thread_name_prefix="together") as pool:
        begun = [pool.submit(work, each) for each in listed]
    return [each.result() for each in begun]


def ahead(pool: ThreadPoolExecutor, call: Callable[[A], B], items: Iterable[A], *, most: int) -> Iterator[B]:
    """Results of ``call`` in the order of ``items``, at most ``most`` of them under way or waiting."""
    waiting: deque[Future[B]] = deque()
    for item in items:
        waiting.append(pool.submit(call, item))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
