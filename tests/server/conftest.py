"""A server for each test, and a process that forgets afterwards who it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.measure import manifest
from tests.server.lab import Lab, Running
from tests.server.pi import Pi


@pytest.fixture(scope="module", autouse=True)
def _routes_are_checked_elsewhere() -> Iterator[None]:
    """Flower looks for two routes of one name in each SuperLink that it makes; whoever starts a server sees that it does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flwr.superlink.main.validate_unique_route_operation_ids", lambda _: None)
        yield


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """All parts of a server, without HTTP."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(manifest, "git_state", lambda: None)  # two processes of git for each test
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
