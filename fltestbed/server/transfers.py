"""transfers.csv: what both ends know of an exchange, joined.

The server's part is known when the exchange ends; the client's comes with its reply (downlink) or with the request after it
(uplink). A row is written when both are there, or when the round is over and the client's part never came.

An attempt that failed is a row of its own. Of a downlink it is written by the server, which sent, when the client cannot
read the message or asks again, or the round goes on without it; of an uplink when the client tells of it, or else by what
the server saw.
"""

from dataclasses import dataclass

from fltestbed.measure.recorder import Recorder, Value
from fltestbed.measure.tcp import TcpSnapshot, sender_columns, tcp_settings
from fltestbed.server.facts import TransferFacts
from fltestbed.server.plausibility import can_be
from fltestbed.server.protocol import Connection
from fltestbed.server.tasks import SERVER, Client, Symptom, Task, WireBytes

NEVER_CAME = "the client's stamps never came"
"""Detail of a row that the server had to write alone."""
NEVER_WHOLE = "the run ended before it was whole"
"""Detail of a row of an attempt that was under way at the end."""


@dataclass
class _Open:
    """The server's part of an exchange, without an end as long as it is under way; of a downlink also its connection, whose
    TCP_INFO is read when it is over.
    """

    row: dict[str, Value]
    since_ns: int
    """Server's clock before which nothing of it can have happened."""
    connection: Connection | None = None
    before: TcpSnapshot | None = None


class TransferLog:
    """Joins and writes the rows of transfers.csv."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._restarts = tcp_settings()["idle_restart"]
        self._open: dict[tuple[str, str], _Open] = {}
        self._broken: dict[tuple[str, int], dict[str, Value]] = {}
        """Uplinks that broke, by message and attempt, until their client tells of them."""

    def downlink_began(self, task: Task, start_ns: int, payload_bytes: int, connection: Connection) -> None:
        """The first byte of a message leaves; an attempt before, of which no reply has come, has failed."""
        self._close(task, "downlink")
        row = self._row(task, "downlink", start_ns, None, payload_bytes)
        self._open[task.message_id, "downlink"] = _Open(row, task.ready_ns, connection, connection.mark)

    def downlink_sent(self, task: Task, end_ns: int, connection: Connection) -> None:
        """All of the message was handed to the kernel, unless its attempt has been given up since it began."""
        open_ = self._open.get((task.message_id, "downlink"))
        if open_ is not None and open_.connection is connection:
            open_.row["server_end_raw_ns"] = end_ns

    def downlink_broke(self, task: Task, reason: str) -> None:
        """The client cannot read the message that it was sent."""
        self._close(task, "downlink", reason)

    def uplink_began(self, task: Task, attempt: int, start_ns: int) -> None:
        """A reply begins to arrive, unless it is there already and its answer alone was lost."""
        there = self._open.get((task.message_id, "uplink"))
        if there is None or there.row["server_end_raw_ns"] is None:
            row = self._row(task, "uplink", start_ns, None, None, attempt)
            self._open[task.message_id, "uplink"] = _Open(row, task.ready_ns)

    def uplink_broke(self, task: Task, attempt: int, start_ns: int, end_ns: int, read_bytes: int, reason: str) -> None:
        """A reply was read in part, or cannot be read; the attempt after it may have begun already."""
        open_ = self._open.get((task.message_id, "uplink"))
        if open_ is None:
            return  # the round went on without it
        if open_.row["attempt"] == attempt:
            del self._open[task.message_id, "uplink"]
        row = self._row(task, "uplink", start_ns, end_ns, None, attempt)
        self._broken[task.message_id, attempt] = row | {
            "status": "failed", "detail": f"{reason}; {read_bytes} bytes had been read",
        }  # fmt: skip

    def lost(self, task: Task, symptom: Symptom) -> None:
        """A round goes on without a reply: what is open of its transfers has failed, if its client was lost in it."""
        for key in [key for key in self._broken if key[0] == task.message_id]:
            self._recorder.write("transfers.csv", self._broken.pop(key))
        self._close(task, symptom.phase, symptom.detail)

    def _close(self, task: Task, direction: str, reason: str = "the client asked again") -> None:
        """Write a transfer of a message that has not arrived as failed, if there is one in this direction."""
        open_ = self._open.pop((task.message_id, direction), None)
        if open_ is not None:
            self._write_failed(open_, reason)

    def _write_failed(self, open_: _Open, reason: str) -> None:
        if (connection := open_.connection) is not None:
            after = connection.snapshot()
            if open_.before is not None and after is not None:
                open_.row |= sender_columns(open_.before, after, self._restarts) | {"sender_host": SERVER}
            reason = connection.ended or reason
        self._recorder.write("transfers.csv", open_.row | {"status": "failed", "detail": reason})

    def uplink_arrived(
        self, task: Task, start_ns: int, end_ns: int, payload_bytes: int, connection: Connection, attempt: int = 1
    ) -> WireBytes:
        """A reply was read to its last byte: the TCP_INFO of its connection now tells of both directions."""
        downlink = self._open.get((task.message_id, "downlink"))
        sent = None
        if downlink is not None and downlink.connection is not None:
            downlink.row["server_end_raw_ns"] = downlink.connection.left_ns or downlink.row["server_end_raw_ns"]
            downlink.connection.end_sending()
            after = downlink.connection.snapshot()
            if downlink.before is not None and after is not None:
                sent = after.data_out_bytes - downlink.before.data_out_bytes
                downlink.row |= sender_columns(downlink.before, after, self._restarts) | {
                    "sender_host": SERVER, "congestion_control": downlink.connection.congestion_control,
                }  # fmt: skip
        self._open[task.message_id, "uplink"] = _Open(
            self._row(task, "uplink", start_ns, end_ns, payload_bytes, attempt), task.ready_ns
        )
        after, before = connection.snapshot(), connection.mark
        received = after.data_in_bytes - before.data_in_bytes if after is not None and before is not None else None
        return WireBytes(sent, received)

    def objects_began(self, task: Task, direction: str, start_ns: int) -> None:
        """A message or a reply begins to cross as Flower's objects."""
        if task.is_measured:
            row = self._row(task, direction, start_ns, None, None) | {"transport": "objects"}
            self._open[task.message_id, direction] = _Open(row, task.ready_ns)

    def objects_arrived(self, task: Task, direction: str, start_ns: int, end_ns: int, payload_bytes: int) -> None:
        """A message or a reply has crossed as Flower's objects; there is no one connection to ask."""
        if not task.is_measured:
            return
        row = self._row(task, direction, start_ns, end_ns, payload_bytes) | {"transport": "objects"}
        self._open[task.message_id, direction] = _Open(row, task.ready_ns)

    def expected(self, task: Task, direction: str, start_ns: int | None, transport: str, attempt: int) -> None:
        """An exchange of which the server has kept no more than when it began, if that."""
        row = self._row(task, direction, start_ns, None, None, attempt) | {"transport": transport}
        self._open[task.message_id, direction] = _Open(row, task.ready_ns)

    def client_told(self, client: Client, facts: TransferFacts, told_ns: int | None = None) -> str | None:
        """The client's part of an exchange has come, at `told_ns` of the server's clock.

        Returns
        -------
        str or None
            Why it cannot be true: then it is left out.
        """
        open_ = self._open.get((facts.message_id, facts.direction))
        if open_ is None or open_.row["client"] != client.name:
            return None
        stamps = (facts.client_start_raw_ns, facts.client_end_raw_ns)
        if not can_be(client.mapping, stamps, open_.since_ns, told_ns):
            return f"the stamps of a transfer ({facts.direction}) are not of the time in which it was made"
        row = open_.row
        if facts.failure and facts.attempt != row["attempt"]:  # one before the attempt that arrived
            seen = self._broken.pop((facts.message_id, facts.attempt), None)
            row = seen or row | {"server_start_raw_ns": None, "server_end_raw_ns": None, "payload_bytes": None}
            row |= {"status": "failed", "attempt": facts.attempt}
        else:
            del self._open[facts.message_id, facts.direction]
        row |= facts.model_dump(exclude={"message_id", "direction", "tcp", "attempt", "failure"})
        if facts.failure:
            row["detail"] = facts.failure
            if row["server_end_raw_ns"] is None:
                row["status"] = "failed"
        if facts.tcp is not None and facts.direction == "uplink":
            row |= facts.tcp.model_dump() | {"sender_host": client.name}
        self._recorder.write("transfers.csv", row)
        return None

    def close(self) -> None:
        """Write what is known of exchanges whose client never told its part."""
        for row in self._broken.values():
            self._recorder.write("transfers.csv", row)
        for open_ in self._open.values():
            if open_.row["server_end_raw_ns"] is None:
                self._write_failed(open_, NEVER_WHOLE)
            else:
                self._recorder.write("transfers.csv", open_.row | {"detail": NEVER_CAME})
        self._broken.clear()
        self._open.clear()

    @staticmethod
    def _row(
        task: Task, direction: str, start_ns: int | None, end_ns: int | None, payload_bytes: int | None,
        attempt: int | None = None,
    ) -> dict[str, Value]:  # fmt: skip
        return {
            "round": task.round, "client": task.client.name, "link": task.client.link, "direction": direction,
            "message_id": task.message_id, "attempt": attempt or max(1, task.attempt), "transport": "bundle",
            "server_start_raw_ns": start_ns, "server_end_raw_ns": end_ns, "payload_bytes": payload_bytes, "status": "ok",
        }  # fmt: skip
