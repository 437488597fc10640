"""A client of the lab's server, in this process, and what it takes to watch and to misuse it."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.client.transport import CONNECT_HEADER, PREFIX, REPLY_TO_HEADER, Reply, ServerConnection
from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.errors import ServerRefused
from fltestbed.flower.bundle import Bundle, decode, encode_head
from fltestbed.flower.node import FleetNode
from fltestbed.flower.node_key import NodeKey
from fltestbed.measure.host import toolkit_versions
from fltestbed.security.trust import ServerTrust
from tests.flower.flower_messages import answer
from tests.server.lab import Lab, Running

TIMEOUT_S = 10.0


class Pi:
    """A client of the server: its key, its node, its connection."""

    def __init__(
        self, running: Running, folder: Path, number: int, clock: Clock = SYSTEM_CLOCK, ca: Path | None = None
    ) -> None:
        self.name, self.number = f"pi-{number}", number
        self.key = NodeKey(folder / self.name / "node.key", clock)
        trust = ServerTrust(ca, folder / self.name, clock, lambda: False) if ca is not None else None
        tls = trust.context if trust is not None else None
        self.connection = ServerConnection(running.address, "lo", self.key, clock, tls)
        self.key.learn_time(self.connection.date(TIMEOUT_S))
        if trust is not None:
            trust.learn_time(self.key.wall_offset_s)
        self.node = FleetNode(running.address, self.key, tls, "lo")
        try:
            self.node.register()
            self.hello = self.connection.post_json("hello", {"versions": toolkit_versions(), "name": self.name}).data
            self.node.come_online(int(self.hello["node_id"]))
        except ServerRefused:
            self.leave()
            raise

    @property
    def node_id(self) -> int:
        """Flower's identifier."""
        return self.node.node_id

    def join(self, **late: Any) -> None:
        """Say that it is ready."""
        facts = {
            "name": self.name,
            "link": "5g",
            "interface": "lo",
            "partition": self.number,
            "host": {},
            "wall_offset_s": 0.0,
        }
        self.connection.post_json("join", facts | late)

    def pull(self, *, holds: str = "", **late: Any) -> Reply:
        """Ask for work."""
        return self.connection.post("pull", [json.dumps({"holds": holds, **late}).encode()], TIMEOUT_S)

    def answer(self, message: Message, loss: float = 0.5) -> Bundle:
        """Make a reply of this node."""
        TaskIdentity.node_id = self.node_id
        return Bundle.of([answer(message, loss)])

    def facts(self, pulled: Reply) -> dict[str, Any]:
        """Stamps of an app that began at once and ends now."""
        now = SYSTEM_CLOCK.raw_ns()
        spans = [{"phase": "train", "start_raw_ns": pulled.end_ns, "end_raw_ns": now}]
        stamps = dict.fromkeys(("downlink_end_raw_ns", "called_raw_ns"), pulled.end_ns)
        return stamps | {"returned_raw_ns": now, "spans": spans}

    def push(self, message_id: str, facts: dict[str, Any], bundle: Bundle) -> Reply:
        """Send a reply."""
        body = [encode_head(facts, len(bundle.messages)), *bundle.encode()[1:]]
        return self.connection.post("push", body, TIMEOUT_S, {REPLY_TO_HEADER: message_id}, tells_start=True)

    def leave(self) -> None:
        """Go offline."""
        self.connection.close()
        self.node.leave()


def message_in(pulled: Reply) -> Message:
    assert pulled.status == 200
    (message,) = decode(pulled.body).inflate()
    return message


def instruct(running: Running, lab: Lab, *nodes: int) -> list[str]:
    """Let the ServerApp send a message to each node; returns their identifiers."""
    bundle = lab.instruct(*nodes)
    stored: list[str] = running.call(lab.exchange.send, bundle)
    now = SYSTEM_CLOCK.raw_ns()
    messages = [(name, node, lab.roster.client(node)) for name, node in zip(stored, nodes, strict=True)]
    running.call(lab.log.sent, 1, "train", messages, now, now)
    return stored


def collect(running: Running, lab: Lab, message_id: str) -> Message:
    replies = running.run(lab.exchange.collect({message_id}, lab.app.run_id, 0.0))
    return lab.received(replies)


def connected(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), TIMEOUT_S)


def is_open(sock: socket.socket) -> bool:
    """Whether the server has not closed this connection, as far as it is known here; reads a byte of what has come."""
    sock.setblocking(False)
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def raw_request(running: Running, text: bytes, *, cut: bool = False) -> tuple[int, bytes]:
    """Send bytes as they are; returns status and body of the first answer. With `cut` the sender goes away at once."""
    with connected(running) as sock:
        sock.sendall(text)
        if cut:
            return 0, b""
        response = http.client.HTTPResponse(sock)
        response.begin()
        return response.status, response.read()


def header_text(pi: Pi, path: str, **fields: str) -> bytes:
    lines = {"host": "x", **pi.key.headers(), CONNECT_HEADER: "0", **fields}
    return f"POST {PREFIX}{path} HTTP/1.1\r\n".encode() + b"".join(
        f"{name}: {value}\r\n".encode() for name, value in lines.items()
    ) + b"\r\n"  # fmt: skip


def assert_alive(pi: Pi) -> None:
    """The server answers, and its stamps go forward."""
    stamps = pi.connection.post_json("clock", {}).data
    assert stamps["server_receive_raw_ns"] <= stamps["server_send_raw_ns"]
