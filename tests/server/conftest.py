"""A server for each test, and a process that forgets afterwards who it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.lab import Lab, Running, prepare
from tests.server.pi import Pi


@pytest.fixture(autouse=True)
def _prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """All parts of a server, without HTTP."""
    lab = Lab(tmp_path)
    yield lab
    lab.desk.close()


@pytest.fixture
def running(lab: Lab) -> Iterator[Running]:
    """The same on a free port."""
    with Running(lab) as running:
        yield running


@pytest.fixture
def pi(running: Running, tmp_path: Path) -> Iterator[Pi]:
    """A client that is online and has not joined."""
    pi = Pi(running, tmp_path, 0)
    yield pi
    pi.leave()


@pytest.fixture
def other(running: Running, tmp_path: Path) -> Iterator[Pi]:
    """A second one."""
    other = Pi(running, tmp_path, 1)
    yield other
    other.leave()
