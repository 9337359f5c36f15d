"""Signals end a command where that is caught, once, and never what it clears away."""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Iterator

import pytest
from blockferry.core.errors import OutOfTime
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


def test_when_all_is_done_no_signal_takes_the_place_of_that() -> None:
    told: list[str] = []
    with Interrupts(tell=told.append) as interrupts:
        with interrupts.held():
            pass
        signal.raise_signal(signal.SIGTERM)
    assert len(told) == 1


def test_a_signal_is_pending_until_it_has_raised_where_it_is_looked_for() -> None:
    with Interrupts(tell=lambda _line: None) as interrupts, interrupts.held():
        interrupts.check()
        assert not interrupts.pending
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.pending
        with pytest.raises(Interrupted, match="SIGTERM"):
            interrupts.check()
        assert not interrupts.pending
        interrupts.check()


@pytest.mark.parametrize("when", ["before", "meanwhile", "out of time"])
def test_what_minds_signals_ends_with_one_that_came(when: str) -> None:
    reached: list[str] = []

    def work() -> None:
        reached.append("begin")
        if when != "before":
            signal.raise_signal(signal.SIGTERM)
        if when == "out of time":
            raise OutOfTime("because of it")
        reached.append("end")

    with Interrupts(tell=lambda _line: None) as interrupts, interrupts.held():
        if when == "before":
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"), interrupts.minding():
            work()
    assert reached == {"before": [], "meanwhile": ["begin", "end"], "out of time": ["begin"]}[when]


@pytest.mark.parametrize("error", [ValueError, OutOfTime])
def test_what_minds_signals_raises_what_is_no_signal(error: type[Exception]) -> None:
    with Interrupts() as interrupts, interrupts.held(), pytest.raises(error), interrupts.minding():
        raise error


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
