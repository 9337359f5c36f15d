"""Signals that end a command: what it leaves behind is cleared away first, and no further signal ends that.

A signal raises between any two steps of a program, in its clean-up too. So it may raise only where that is caught: what
is ``held`` it waits for, except in what is ``let_in`` there. It raises once; whoever sends more is told to wait.

What works with threads that are waited for then must not be ``let_in``: a signal that raises while something is being
locked leaves it locked, for good. It looks itself whether a signal is ``pending``, and lets it raise where it holds
nothing (``minding``, ``check``).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Self

from blockferry.core.errors import OutOfTime

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C; what service managers and ``kill`` send; a terminal that is closed."""


class Interrupted(KeyboardInterrupt):
    """A signal has ended the work; its name is the text."""


class Interrupts:
    """The signals of a process, as long as it is entered; not entered, it changes nothing.

    ``tell`` gets a line for each signal that does not end anything; it is called in the middle of something else.
    """

    def __init__(self, *, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell or _to_standard_error
        self._before: dict[int, object] = {}
        self._first: str | None = None
        self._raised = False
        self._let_in = True

    def __enter__(self) -> Self:
        # Python lets no other thread set handlers, and calls them in the main one.
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                before = signal.getsignal(number)
                # What somebody ignores stays ignored (nohup, jobs in the background).
                if before is not None and before != signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._strike)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        self._before.clear()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let signals wait, and behind this, too: there is only to tell then what was done, or what went wrong, in
        whose place no signal may be told."""
        self._let_in = False
        yield

    @contextmanager
    def let_in(self) -> Iterator[None]:
        """Within what is held: let a signal raise ``Interrupted``, also one that has waited."""
        try:
            self._let_in = True
            self._raise_first()
            yield
        finally:
            self._let_in = False

    @property
    def pending(self) -> bool:
        """Whether a signal waits to be raised. Locks nothing, and may be asked by any thread."""
        return self._first is not None and not self._raised

    def check(self) -> None:
        """Raise ``Interrupted`` for a signal that has waited."""
        self._raise_first()

    @contextmanager
    def minding(self) -> Iterator[None]:
        """Let a signal raise before and behind this, and where this has ended for lack of time, as it does when one is
        ``pending``."""
        self.check()
        try:
            yield
        except OutOfTime:
            self.check()
            raise
        self.check()

    def _strike(self, number: int, _frame: FrameType | None) -> None:
        if self._first is None:
            self._first = signal.Signals(number).name
        if self._let_in:
            self._raise_first()
        self._tell(
            f"blockferry: {signal.Signals(number).name}: clearing away what was started, which takes a moment; whoever "
            "kills it now leaves what is not finished"
        )

    def _raise_first(self) -> None:
        if self._first is not None and not self._raised:
            self._raised = True
            raise Interrupted(self._first)


def _to_standard_error(line: str) -> None:
    # Not through a buffer, in which the program may be writing just now; and nobody may listen any more, or ever have:
    # Python has no such stream where it was closed, or one without a file.
    with suppress(AttributeError, OSError, ValueError):
        os.write(sys.stderr.fileno(), f"{line}\n".encode())
