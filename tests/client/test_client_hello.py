"""The first words with a server that has no time for them."""

import http.client
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fltestbed.bench.fuzz_targets import told
from fltestbed.client import carriers
from fltestbed.client.introduction import Introduction
from fltestbed.client.path import ServerPath
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.errors import ServerUnreachable

HELLO: dict[str, Any] = json.loads(told()[4])
PATH = cast(ServerPath, SimpleNamespace(interface="lo", sockets=SimpleNamespace(take=lambda _: None)))


class Busy:
    """A connection over which the first so many requests get no answer."""

    broken = None

    def __init__(self, silent: int) -> None:
        self.silent = silent
        self.asked: list[str] = []

    def post(self, path: str, _body: Sequence[bytes], _silence_s: float, _headers: Any, **_: Any) -> Any:
        """As `ServerConnection.post`."""
        self.asked.append(path)
        if len(self.asked) <= self.silent:
            raise TimeoutError
        return SimpleNamespace(status=http.client.OK, data=HELLO)


@pytest.fixture
def introduction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Introduction:
    monkeypatch.setattr(carriers, "RETRY_INTERVAL_S", 0.0)
    return Introduction("10.0.0.1:9092", "a", tmp_path, PATH, SYSTEM_CLOCK)


def test_a_busy_server_is_greeted_again(introduction: Introduction, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hello that got no answer is said again within the time that a client has to reach its server."""
    busy = Busy(silent=2)
    monkeypatch.setattr(introduction, "connection", busy)
    assert introduction.hello(60.0).items() >= HELLO.items()
    assert busy.asked == ["hello", "hello", "hello"]


def test_a_server_that_stays_silent_is_told_in_one_line(
    introduction: Introduction, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Never a bare TimeoutError, which has no text: who, for how long, during what, and how it showed."""
    monkeypatch.setattr(introduction, "connection", Busy(silent=9))
    with pytest.raises(ServerUnreachable, match=r"10.0.0.1:9092: .* gone for 0 s \(during hello: TimeoutError\)"):
        introduction.hello()
