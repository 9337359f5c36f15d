"""Settings of every test."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from network_guard import NetworkGuard
from remembered import remember

# The same examples on every run and machine; a failing one is printed with the call that reproduces it. More
# examples, found at random, with: HYPOTHESIS_PROFILE=search scripts/test --only unit
settings.register_profile("fixed", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=1_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

remember()

# Whoever starts the tests in the background, or under nohup, has these ignored, and so would every process of a test.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Leave what is there for the whole run, which is much, out of every collection of garbage."""
    gc.collect()
    gc.freeze()


_guard = NetworkGuard()
_real_account = os.environ.get("BLOCKFERRY_AWS_TESTS") == "1"  # that of tests/aws
# Python 3.11 calls audit hooks while it sets a trace function. If the hook is written in Python, another thread may
# have its turn there, and if that one sets its own, sys.settrace raises and the thread ends before it has begun.
_traced = os.environ.get("BLOCKFERRY_MUTATION") == "measure"
if not _real_account and not _traced:
    _guard.start()


@pytest.fixture
def guard() -> NetworkGuard:
    return _guard


@pytest.fixture(autouse=True)
def _nothing_beyond_this_machine() -> Iterator[None]:
    """Fails a test whose code asked the network, even if that code passed over the refusal."""
    _guard.tried()
    yield
    tried = _guard.tried()
    assert not tried, f"the network was asked: {', '.join(sorted(set(tried)))}"
