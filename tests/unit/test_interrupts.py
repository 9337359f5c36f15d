"""Signals end a command where that is caught, once, and never what it clears away."""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Iterator

import pytest
from blockferry.local.interrupts import ENDING, Interrupted, Interrupts


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The process gets back what it had."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_raises_at_once_with_its_name(number: signal.Signals) -> None:
    with Interrupts(), pytest.raises(Interrupted, match=f"^{number.name}$"):
        signal.raise_signal(number)


def test_what_is_held_is_not_interrupted_and_whoever_sends_is_told_to_wait() -> None:
    told: list[str] = []
    with Interrupts(tell=told.append) as interrupts, interrupts.held():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
    assert [line.split(":")[1] for line in told] == [" SIGTERM", " SIGHUP"]


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, io.StringIO(), closed()], ids=["none", "no file", "closed"])
def test_a_signal_ends_nothing_that_is_held_where_nobody_can_be_told(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    reached: list[str] = []
    monkeypatch.setattr(sys, "stderr", stream)
    with Interrupts() as interrupts, interrupts.held():
        signal.raise_signal(signal.SIGTERM)
        reached.append("the end")
    assert reached == ["the end"]


def test_a_signal_that_has_waited_raises_where_it_is_let_in() -> None:
    told: list[str] = []
    reached: list[str] = []
    with Interrupts(tell=told.append) as interrupts, interrupts.held():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"), interrupts.let_in():
            reached.append("work")
    assert reached == []


def test_a_signal_raises_once_only() -> None:
    told: list[str] = []
    with Interrupts(tell=told.append) as interrupts, interrupts.held():
        with pytest.raises(Interrupted), interrupts.let_in():
            signal.raise_signal(signal.SIGINT)
        with interrupts.let_in():
            signal.raise_signal(signal.SIGTERM)
    assert len(told) == 1


def test_after_an_error_no_signal_takes_its_place() -> None:
    told: list[str] = []
    with Interrupts(tell=told.append) as interrupts:
        with pytest.raises(ValueError, match="first"), interrupts.held():
            raise ValueError("first")
        signal.raise_signal(signal.SIGTERM)
    assert len(told) == 1


def test_what_somebody_ignores_stays_ignored_and_handlers_are_given_back() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    own = signal.getsignal(signal.SIGINT)
    with Interrupts():
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGINT) != own
    assert (signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGINT)) == (signal.SIG_IGN, own)


def test_a_thread_that_may_not_set_handlers_works_without_them() -> None:
    own = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.held(), interrupts.let_in():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [own]


def test_nobody_has_to_be_there_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def fileno(self) -> int:
            raise OSError("closed")

    monkeypatch.setattr("sys.stderr", Closed())
    with Interrupts() as interrupts, interrupts.held():
        signal.raise_signal(signal.SIGHUP)
