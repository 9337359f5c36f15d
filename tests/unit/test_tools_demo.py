"""How the demo ends when somebody ends it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from tools import demo


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("found", "told"), [(None, "is down"), ("a cloud", "is up, end it with scripts/cloud down")], ids=["down", "up"]
)
def test_an_interrupted_demo_says_whether_the_local_cloud_is_still_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: str | None, told: str
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.demo.cloud.up", interrupted)
    monkeypatch.setattr("tools.demo.cloud.info", lambda: found)
    assert demo.main([]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"scripts/demo: interrupted; the local cloud {told}"
