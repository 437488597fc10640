"""Flower's Fleet requests seen from the server: those of stock SuperNodes, and of clients with the transport `objects`.

A SuperNode pulls a message, then its objects one by one, confirms; works; announces its reply and pushes the objects. Its
downlink runs from the first byte of the first response to the confirmation; its uplink from the announcement to the last
object. It handles one message at a time, so the node is enough to tell what a request belongs to. A client of ours does the
same and later tells its own side.
"""

import contextlib
from dataclasses import dataclass, field, replace

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fltestbed.clock import Clock
from fltestbed.flower.fleet import FleetError, announced_reply, is_stored, pulled_message, pushed_object, wanted_objects
from fltestbed.flower.superlink import Superlink
from fltestbed.server.attendance import Attendance
from fltestbed.server.exchange import Exchange
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import Client, ReplyFacts, Task, WireBytes
from fltestbed.server.transfers import TransferLog

HTTP_OK = 200
MOST_PUSHED = 2
"""How often the largest message may be pushed in answer to one message: a broken push is begun again."""
_WATCHED = ("pull-messages", "pull-object", "confirm-message-received", "push-messages", "push-object")


@dataclass
class _Pass:
    """One request and its response, kept while it passes."""

    first_in_ns: int = 0
    last_in_ns: int = 0
    first_out_ns: int = 0
    last_out_ns: int = 0
    status: int = 0
    announced_bytes: int = -1
    is_noted: bool = False
    request: bytearray = field(default_factory=bytearray)
    response: bytearray = field(default_factory=bytearray)


@dataclass
class _Node:
    """What one SuperNode is at."""

    message_id: str = ""
    downlink_start_ns: int = 0
    downlink_end_ns: int | None = None
    uplink_start_ns: int = 0
    payload_bytes: int = 0
    pushed_bytes: int = 0
    missing: set[str] = field(default_factory=set)
    error: str | None = None


@dataclass(frozen=True)
class _Arrived:
    """A reply of one of our clients that is whole, and whose client has not told its side yet."""

    task: Task
    end_ns: int
    payload_bytes: int
    error: str | None


class Observer:
    """Turns Fleet requests into phases."""

    def __init__(
        self,
        superlink: Superlink,
        exchange: Exchange,
        log: RoundLog,
        transfers: TransferLog,
        clock: Clock,
        attendance: Attendance,
        largest_message_bytes: int = 1 << 30,
    ) -> None:
        self._attendance = attendance
        self._most_pushed_bytes = MOST_PUSHED * largest_message_bytes
        self._superlink = superlink
        self._exchange = exchange
        self._log = log
        self._clock = clock
        self._transfers = transfers
        self._nodes: dict[int, _Node] = {}
        self._arrived: dict[str, _Arrived] = {}

    def told(self, client: Client, message_id: str, facts: ReplyFacts) -> None:
        """A client tells its side of a reply that has arrived as objects."""
        arrived = self._arrived.get(message_id)
        if arrived is None or arrived.task.client is not client:
            return
        del self._arrived[message_id]
        facts = replace(facts, error=arrived.error)
        self._log.replied(arrived.task, facts, arrived.end_ns, arrived.payload_bytes, WireBytes(None, None))

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass to `app` and take note of it."""
        kind = scope["path"].rpartition("/")[2]
        node_id = self._superlink.node_of_request(scope) if kind in _WATCHED else None
        if node_id is None:
            await app(scope, receive, send)
            return
        if kind == "push-object" and not self._may_push(node_id, int(Headers(scope=scope).get("content-length", 0))):
            refusal = JSONResponse({"error": "more was pushed than one reply may have"}, status_code=413)
            await refusal(scope, receive, send)
            return
        passing = _Pass()

        async def receiving() -> Message:
            message = await receive()
            passing.last_in_ns = self._clock.raw_ns()
            passing.first_in_ns = passing.first_in_ns or passing.last_in_ns
            passing.request += message.get("body", b"")
            if kind == "push-messages" and not message.get("more_body"):
                self._announce(passing, node_id)
            return message

        async def sending(message: Message) -> None:
            passing.last_out_ns = self._clock.raw_ns()
            passing.first_out_ns = passing.first_out_ns or passing.last_out_ns
            if message["type"] == "http.response.start":
                passing.status = message["status"]
                if passing.status == HTTP_OK:  # so it was signed by the node that it names
                    self._attendance.heard(node_id)
                passing.announced_bytes = int(Headers(raw=message["headers"]).get("content-length", -1))
            else:
                passing.response += message.get("body", b"")
                # Before the last byte goes out, after which the node's next request may be here at once. Flower's
                # middlewares send an empty piece after it, so its end has to be told by its length.
                is_whole = len(passing.response) == passing.announced_bytes or not message.get("more_body")
                if is_whole and passing.status == HTTP_OK and not passing.is_noted:
                    passing.is_noted = True
                    # What Flower answers 200 to and its own classes cannot read is no transfer.
                    with contextlib.suppress(FleetError):
                        self._note(kind, node_id, self._nodes.setdefault(node_id, _Node()), passing)
            await send(message)

        await app(scope, receiving, sending)

    def _may_push(self, node_id: int, announced_bytes: int) -> bool:
        """Whether this many more bytes may belong to the reply to the node's message."""
        node = self._nodes.get(node_id)
        if node is None or node.pushed_bytes + announced_bytes > self._most_pushed_bytes:
            return False
        node.pushed_bytes += announced_bytes
        return True

    def _announce(self, passing: _Pass, node_id: int) -> None:
        """Before Flower stores a reply that is not whole yet, the exchange has to know, or it would hand it out."""
        try:
            announced = announced_reply(passing.request)
        except FleetError:
            return
        if announced is not None:
            self._exchange.reply_begun(announced.message_id, node_id)

    def _note(self, kind: str, node_id: int, node: _Node, passing: _Pass) -> None:
        if kind == "pull-messages":
            message_id = pulled_message(passing.response)
            if message_id is not None:
                self._nodes[node_id] = _Node(message_id, passing.first_out_ns, payload_bytes=len(passing.response))
                self._exchange.handed_out(node_id, message_id)
                task = self._log.downlink_started(message_id, passing.first_out_ns, len(passing.response))
                if task is not None:
                    self._transfers.objects_began(task, "downlink", passing.first_out_ns)
        elif kind == "pull-object":
            node.payload_bytes += len(passing.response)
            node.downlink_end_ns = passing.last_out_ns
        elif kind == "confirm-message-received":
            node.downlink_end_ns = passing.first_in_ns
            task = self._log.task_of(node.message_id)
            if task is not None:
                task.downlink_payload_bytes = node.payload_bytes
                self._log.downlink_sent(task)
                self._transfers.objects_arrived(
                    task, "downlink", node.downlink_start_ns, node.downlink_end_ns, node.payload_bytes
                )
        elif kind == "push-messages":
            announced = announced_reply(passing.request)
            if announced is not None and self._exchange.is_for(announced.message_id, node_id):
                message_id = node.message_id = announced.message_id
                node.error, node.uplink_start_ns = announced.error, passing.first_in_ns
                node.payload_bytes = len(passing.request)
                node.missing = wanted_objects(passing.response)
                task = self._log.task_of(message_id)
                if task is not None:
                    self._log.uplink_started(task)
                    self._transfers.objects_began(task, "uplink", node.uplink_start_ns)
                self._complete_if_whole(node, passing)
        elif kind == "push-object":
            node.payload_bytes += len(passing.request)
            if is_stored(passing.response):
                node.missing.discard(pushed_object(passing.request))
                self._complete_if_whole(node, passing)
            elif self._exchange.is_for(node.message_id, node_id):
                self._refused(node)

    def _refused(self, node: _Node) -> None:
        task = self._log.task_of(node.message_id)
        if task is not None:
            reason = "Flower refused an object of its reply, which does not have its hash or was not asked for"
            task.client.warn(reason, self._clock.raw_ns())

    def _complete_if_whole(self, node: _Node, passing: _Pass) -> None:
        if node.missing or not node.message_id:
            return
        task = self._log.task_of(node.message_id)
        if task is not None and task.uplink_end_ns is None:
            end_ns = passing.last_in_ns
            self._transfers.objects_arrived(task, "uplink", node.uplink_start_ns, end_ns, node.payload_bytes)
            if task.client.is_ours:
                self._log.uplink_ended(task, end_ns)
                if task.is_measured:  # else its client never tells its side
                    self._arrived[node.message_id] = _Arrived(task, end_ns, node.payload_bytes, node.error)
            else:
                self._log.replied_unseen(task, node.uplink_start_ns, end_ns, node.downlink_end_ns, node.payload_bytes)
        self._exchange.reply_complete(node.message_id)
        node.message_id = ""
