"""A client meets its server: one that fails, or is started again, before the client has what it needs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fltestbed.client.carriers import RETRY_INTERVAL_S
from fltestbed.client.introduction import Introduction
from fltestbed.client.path import ServerPath
from fltestbed.client.rejoin import meet
from fltestbed.client.transport import SessionLost
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.errors import ConfigError, ServerRefused, ServerUnreachable, TestbedError
from tests.server.lab import Lab, Running, prepare

PATH = cast(ServerPath, SimpleNamespace(interface="lo", sockets=SimpleNamespace(take=lambda _: None)))
TIMEOUT_S = 1.0


class Servers:
    """One server after the other on the same port, and a client's introduction to whichever is there."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._open: ExitStack = ExitStack()
        stack.callback(self.stop)
        self._port = 0
        self.lab: Lab
        self.start()
        self.introduction = Introduction(f"127.0.0.1:{self._port}", "pi-0", folder / "state", PATH, SYSTEM_CLOCK)
        stack.callback(self.introduction.key.release)
        stack.callback(self.introduction.node.leave)
        stack.callback(self.introduction.connection.close)
        self.introduction.reach(TIMEOUT_S)

    def start(self) -> None:
        """End the server that is there, if any, and start another one, which knows nothing of it."""
        self.stop()
        self.lab = Lab(self._folder)
        self.lab.manifest.update(run_id=str(self.lab.app.run_id))
        self._open.callback(self.lab.desk.close)
        self._port = self._open.enter_context(Running(self.lab, port=self._port)).port

    def stop(self) -> None:
        """End the server that is there."""
        self._open.close()
        self._open = ExitStack()

    def meet(self, patience_s: float, check: Callable[[dict[str, Any]], None]) -> tuple[dict[str, Any], Any]:
        """Let the client meet the server."""
        return meet(f"127.0.0.1:{self._port}", self.introduction, TIMEOUT_S, patience_s, check)


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """The first one is there, and the client has reached it."""
    prepare(monkeypatch)
    with ExitStack() as stack:
        yield Servers(tmp_path, stack)


def test_a_server_that_is_started_again_after_its_hello_is_met_anew(servers: Servers) -> None:
    """The second one does not know the key of whom the first one greeted: the client registers there, and gets its app."""
    said: list[str] = []

    def fail_once(hello: dict[str, Any]) -> None:
        said.append(hello["run_id"])
        if len(said) == 1:
            servers.start()

    hello, app = servers.meet(60.0, fail_once)
    second = servers.lab.app
    assert said[0] != said[1] == hello["run_id"] == str(second.run_id)
    assert (app.run_id, bytes(app.fab)) == (second.run_id, second.fab)
    assert servers.introduction.node.node_id == int(hello["node_id"])


def test_a_server_that_says_that_it_has_failed_is_met_anew(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 500 in answer to hello is no refusal: the run may be resumed."""
    failures = [TestbedError("the disk is full")]
    hello_of = servers.lab.roster.hello

    def failing(node_id: int, facts: dict[str, Any]) -> dict[str, Any]:
        if failures:
            raise failures.pop()
        return hello_of(node_id, facts)

    monkeypatch.setattr(servers.lab.roster, "hello", failing)
    hello, _ = servers.meet(60.0, lambda _: None)
    assert (failures, hello["run_id"]) == ([], str(servers.lab.app.run_id))


def test_patience_with_a_server_that_does_not_come_back_has_an_end(servers: Servers) -> None:
    """It is gone after its hello: the client says so, once its requests were made for as long as they may be."""
    with pytest.raises(ServerUnreachable, match="no answer while trying to come online"):
        servers.meet(0.0, lambda _: servers.stop())


def test_what_no_patience_mends_ends_the_client(servers: Servers) -> None:
    """A place that the run has not: at once, and not as something to wait for."""
    asked: list[str] = []

    def refuse(hello: dict[str, Any]) -> None:
        asked.append(hello["run_id"])
        raise ConfigError("--partition 7 is past the end")

    with pytest.raises(ConfigError, match="--partition 7"):
        servers.meet(2 * RETRY_INTERVAL_S, refuse)
    assert len(asked) == 1


def test_a_key_that_is_not_wanted_is_refused(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers 401 after the registration too does not know a list with this key: no session was lost."""
    monkeypatch.setattr(servers.lab.superlink, "node_of_request", lambda _: None)
    with pytest.raises(ServerRefused, match="this key is not registered here") as refused:
        servers.meet(3600.0, lambda _: None)
    assert not isinstance(refused.value, SessionLost)
