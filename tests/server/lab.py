"""A server in this process: Flower's SuperLink with the toolkit's parts around it, a few nodes, and the ServerApp's side."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from flwr.common.constant import NOOP_FLWR_AID
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.config import Experiment
from fltestbed.config_file import validate
from fltestbed.flower.apps import pack_installed_app
from fltestbed.flower.bundle import Bundle, decode
from fltestbed.flower.superlink import Superlink
from fltestbed.measure.manifest import Manifest
from fltestbed.security.node_keys import RegisteredKey
from fltestbed.server.attendance import Attendance
from fltestbed.server.deadline import DeadlineWatch
from fltestbed.server.desk import Desk
from fltestbed.server.exchange import Exchange
from fltestbed.server.fleet_guard import FleetGuard
from fltestbed.server.gate import Gate
from fltestbed.server.host_log import HostLog
from fltestbed.server.listening import http_server, listen
from fltestbed.server.observer import Observer
from fltestbed.server.presence import Presence
from fltestbed.server.roster import Roster
from fltestbed.server.rounds import RoundLog
from fltestbed.server.routes import Routes
from fltestbed.server.transfers import TransferLog
from fltestbed.server.waiting import Waiting
from tests.flower.flower_messages import answer, instruction
from tests.server.recorded import Rows

SUPERLINK_NODE = 1
_FAB = pack_installed_app("{}")


def prepare(patch: pytest.MonkeyPatch) -> None:
    """For one test, let this process be run 1, node 1 and task 1 to Flower, and spare each server what takes its time.

    Flower looks for two routes of one name in each SuperLink that it makes; whoever starts a server sees that it does.
    """
    for name in ("_task_id", "_run_id", "_node_id"):
        patch.setattr(TaskIdentity, name, 1)
    patch.setattr("fltestbed.measure.manifest.git_state", lambda: None)  # two processes of git
    patch.setattr("flwr.superlink.main.validate_unique_route_operation_ids", lambda _: None)


class Lab:
    """All parts of a server, with one run under way."""

    def __init__(
        self, folder: Path, *, clients: int = 2, hold_s: float = 0.2, registered: Sequence[RegisteredKey] | None = None,
        **server: Any,
    ) -> None:  # fmt: skip
        settings = {"hold-s": hold_s, **{key.replace("_", "-"): value for key, value in server.items()}}
        self.experiment = validate(Experiment, {"name": "lab", "clients": clients, "server": settings}, "lab")
        self.rows = Rows()
        self.superlink = Superlink("127.0.0.1", 9092, registered)
        self.app = self.superlink.create_run(_FAB)
        self.token = self.superlink.claim(self.app.run_id).token
        self.manifest = Manifest(folder, "lab", SYSTEM_CLOCK)
        self.exchange = Exchange(self.superlink)
        self.roster = Roster(self.experiment, self.superlink, self.app, self.manifest, link="unknown")
        self.presence = Presence(SYSTEM_CLOCK)
        self.log = RoundLog(self.rows, self.manifest.zero_raw_ns, observe=self.presence.observe)
        self.hosts = HostLog(self.rows, self.manifest.zero_raw_ns)
        self.transfers = TransferLog(self.rows)
        self.attendance = Attendance(self.presence, self.superlink, self.roster, self.log, SYSTEM_CLOCK)
        self.observer = Observer(self.superlink, self.exchange, self.log, self.transfers, SYSTEM_CLOCK, self.attendance)
        self.watch = DeadlineWatch(
            self.experiment, self.log, self.exchange, self.transfers, self.presence, self.app.run_id, SYSTEM_CLOCK
        )
        self.waiting = Waiting(self.log, self.roster, self.presence, self.watch, 60.0, SYSTEM_CLOCK)
        self.routes = Routes(
            self.superlink, self.exchange, self.roster, self.log, self.hosts, self.transfers, self.observer, SYSTEM_CLOCK,
            self.attendance,
        )  # fmt: skip
        self.desk = Desk(
            self.superlink, self.exchange, self.roster, self.log, SYSTEM_CLOCK, self.presence, self.waiting
        )  # fmt: skip
        TaskIdentity.task_id, TaskIdentity.run_id = 1, self.app.run_id

    @property
    def state(self) -> Any:
        """Flower's own record of nodes, messages and objects."""
        return self.superlink.app.state.linkstate_factory.state()

    def node(self, key: bytes) -> int:
        """Make a node that is online; returns its identifier."""
        node_id: int = self.state.create_node(NOOP_FLWR_AID, "", key, 30.0)
        assert self.state.activate_node(node_id, 30.0)
        return node_id

    def instruct(self, *nodes: int) -> Bundle:
        """Make the ServerApp's messages, one for each node."""
        TaskIdentity.node_id = SUPERLINK_NODE
        return Bundle.of([instruction(node) for node in nodes])

    def reply(self, message: Message, node: int, loss: float = 0.5) -> Bundle:
        """Make the node's reply."""
        TaskIdentity.node_id = node
        return Bundle.of([answer(message, loss)])

    def received(self, bundle: Bundle | None) -> Message:
        """Read the message as the node does."""
        assert bundle is not None
        (message,) = decode(b"".join(bundle.encode())).inflate()
        return message


def stored(lab: Lab) -> tuple[int, int, int]:
    """How many messages, replies and objects Flower holds."""
    state = lab.state
    return len(state.message_ins_store), len(state.message_res_store), len(state.object_store)


class Running:
    """The lab's server on a port of loopback, a free one if none is given, in a thread."""

    def __init__(self, lab: Lab, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.lab = lab
        self._tls = tls
        self.guard = FleetGuard(lab.observer, lab.superlink, lab.experiment)
        lab.superlink.app.add_middleware(Gate, routes=lab.routes, observer=self.guard)
        self._listener = listen("127.0.0.1", port)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="server")
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> "Running":
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self.call(self.lab.exchange.finish)
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the server's event loop."""

        async def called() -> Any:
            return function(*arguments)

        return self.run(called())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the server's event loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with http_server(self.lab.superlink, self.lab.experiment, self._listener, self._tls):
            self._ready.set()
            await self._over.wait()
