"""A client's own part of clock samples and transfers, gathered until the next request takes it to the server."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fltestbed.client.told import ServerStamps
from fltestbed.client.transport import Broken, Reply
from fltestbed.measure.tcp import sender_columns, tcp_settings

T = TypeVar("T")

MOST_READINGS = 256
"""Of a table, in one request; the rest follows with the next."""
MOST_SAMPLES = 200
"""The same of clock samples."""


class LateStamps:
    """Facts that were known too late for the request that they are about."""

    def __init__(self, keep: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.keep = keep
        """Gets whatever is handed out, for the client's own copy."""
        self.is_on = True
        """Off, nothing is gathered: the round is not measured."""
        self._restarts = tcp_settings()["idle_restart"]
        self._replies: list[dict[str, Any]] = []
        self._transfers: list[dict[str, Any]] = []
        self._attempts: dict[str, int] = {}
        self._samples: deque[dict[str, Any]] = deque()
        self._readings: dict[str, deque[dict[str, Any]]] = {"system": deque(), "radio": deque()}
        self._probes: deque[tuple[str, dict[str, Any]]] = deque()
        self._damage = ""

    def take(self) -> dict[str, Any]:
        """Hand out what has gathered, and forget it."""
        late: dict[str, Any] = {"replies": self._replies, "transfers": self._transfers}
        self._replies, self._transfers = [], []
        late["clock_samples"] = _take(self._samples, MOST_SAMPLES)
        for table, rows in self._readings.items():
            late[table] = _take(rows, MOST_READINGS)
        late["probes"] = dict(_take(self._probes, len(self._probes)))
        if self._damage:
            late["damage"], self._damage = self._damage, ""
        if self.keep is not None and any(late.values()):
            self.keep(late)
        return late

    def damage(self, reason: str) -> None:
        """The message that came last cannot be read."""
        self._damage = reason

    def keep_reply(self, facts: dict[str, Any]) -> None:
        """Put what a reply carries itself into the client's own copy, with what its answer said."""
        if not self.is_on:
            return
        if self.keep is not None:
            self.keep({"replies": [facts]})

    def objects(self, message_id: str, direction: str, start_ns: int, end_ns: int) -> None:
        """A message has come, or a reply has gone, as Flower's objects: many exchanges, of which the ends are known."""
        if not self.is_on:
            return
        row: dict[str, Any] = {
            "message_id": message_id, "direction": direction, "new_connection": False,
            "client_start_raw_ns": start_ns, "client_end_raw_ns": end_ns,
        }  # fmt: skip
        if direction == "uplink":
            row["client_response_raw_ns"] = end_ns
        self._transfers.append(row)

    def reply(self, facts: dict[str, Any]) -> None:
        """What the client knows of a reply that could not carry it itself."""
        if not self.is_on:
            return
        self._replies.append(facts)

    def reading(self, table: str, row: dict[str, Any]) -> None:
        """A reading of the probes, for system.csv or radio.csv; may be called from their thread."""
        if not self.is_on:
            return
        self._readings[table].append(row)

    def probe(self, name: str, facts: dict[str, Any]) -> None:
        """What the manifest should say of a probe; may be called from their thread."""
        self._probes.append((name, facts))

    def clock_sample(self, exchange: str, reply: Reply, server: ServerStamps, interface: str | None = None) -> None:
        """The four stamps of an exchange. May be called from another thread.

        `interface` is None for the link.
        """
        if not self.is_on:
            return
        four = (reply.send_ns, server.server_receive_raw_ns, server.server_send_raw_ns, reply.first_ns)
        self._samples.append({"exchange": exchange, "stamps": four, "interface": interface})

    def downlink(self, message_id: str, pulled: Reply) -> None:
        """A message has come."""
        if not self.is_on:
            return
        self._transfers.append(
            _transfer(message_id, "downlink", pulled)
            | {"client_start_raw_ns": pulled.first_ns, "client_end_raw_ns": pulled.end_ns}
        )

    def uplink(self, message_id: str, pushed: Reply, congestion_control: str) -> None:
        """A reply has gone."""
        if not self.is_on:
            return
        row = _transfer(message_id, "uplink", pushed) | {
            "client_start_raw_ns": pushed.send_ns,
            "client_end_raw_ns": pushed.sent_ns,
            "client_response_raw_ns": pushed.first_ns,
        }
        if pushed.before is not None and pushed.after is not None:
            columns = sender_columns(pushed.before, pushed.after, self._restarts)
            row["tcp"] = columns | {"congestion_control": congestion_control}
        row["attempt"] = self._attempts.pop(message_id, 0) + 1
        self._transfers.append(row)

    def broken_uplinks(self, message_id: str, attempts: Sequence[Broken]) -> None:
        """Attempts to send a reply have failed before the one that went."""
        if not self.is_on or not attempts:
            return
        self._attempts[message_id] = len(attempts)
        for number, broken in enumerate(attempts, 1):
            self._transfers.append({
                "message_id": message_id, "direction": "uplink", "attempt": number, "failure": broken.reason[:300],
                "client_start_raw_ns": broken.start_ns, "client_end_raw_ns": broken.end_ns,
                "new_connection": number > 1 and not attempts[number - 2].was_answered,
            })  # fmt: skip


def _transfer(message_id: str, direction: str, reply: Reply) -> dict[str, Any]:
    row: dict[str, Any] = {
        "message_id": message_id,
        "direction": direction,
        "new_connection": reply.connect_ns > 0,
        "connect_s": reply.connect_ns / 1e9 if reply.connect_ns else None,
    }
    if reply.before is not None and reply.after is not None:
        row["wire_up_bytes"] = reply.after.wire_out_bytes - reply.before.wire_out_bytes
        row["wire_down_bytes"] = reply.after.wire_in_bytes - reply.before.wire_in_bytes
    return row


def _take(queue: deque[T], most: int) -> list[T]:
    return [queue.popleft() for _ in range(min(len(queue), most))]
