"""The toolkit's own routes on the SuperLink: what clients use.

Clients sign their requests as Flower's nodes do. All stamps are of the server's CLOCK_MONOTONIC_RAW:

``server_receive``
    The request's first byte reached this host, by the kernel's stamp; where there is none, its header was parsed.
``server_start`` of a downlink
    The first byte of the response left this host, by the kernel's stamp; where there is none, it was about to be handed to
    the kernel.
``server_end`` of a downlink
    The last byte of the response left this host, by the kernel's stamp; where there is none, it was handed to the kernel.
``server_end`` of an uplink
    The last byte of the request reached this host, by the kernel's stamp; where there is none, it was read. By how much that
    may be too late goes with it.

What the kernel's stamps are, and how they come to the raw clock, stands in `fltestbed.measure.kernel_stamps`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from fltestbed.client.transport import ATTEMPT_HEADER, CONNECT_HEADER, FIRST_SEND_HEADER, MOST_REASON, REPLY_TO_HEADER
from fltestbed.clock import Clock
from fltestbed.errors import TestbedError
from fltestbed.flower.bundle import Bundle, BundleError, Packing, encode_head
from fltestbed.flower.superlink import Superlink
from fltestbed.server.answers import StampedAnswer
from fltestbed.server.attendance import Attendance
from fltestbed.server.bodies import Replies, TooLarge, connection_of, json_object
from fltestbed.server.exchange import Exchange
from fltestbed.server.facts import FactsError, read_facts
from fltestbed.server.host_log import HostLog
from fltestbed.server.late_facts import read_late_facts
from fltestbed.server.observer import Observer
from fltestbed.server.protocol import SCOPE_KEY
from fltestbed.server.roster import JoinRefused, NotJoined, Roster
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import ROWS_A_SECOND, Client, Task, WireBytes
from fltestbed.server.transfers import TransferLog
from fltestbed.text import printable

PREFIX = "/v1/fltestbed"
MOST_ATTEMPTS = 1000
"""To send one reply, of which the broken ones are remembered."""

Handler = Callable[[Request], Awaitable[Response]]

_STATUS = {NotJoined: 401, TooLarge: 413}
"""Of what is refused; anything else is 400, which a client takes as damage on the way and sends again."""

NOT_WANTED = "the reply was refused: its message is unknown, expired, another node's or answered already"


class Routes:
    """The routes below `/v1/fltestbed`, as one ASGI application."""

    def __init__(
        self,
        superlink: Superlink,
        exchange: Exchange,
        roster: Roster,
        log: RoundLog,
        hosts: HostLog,
        transfers: TransferLog,
        observer: Observer,
        clock: Clock,
        attendance: Attendance,
    ) -> None:
        self._attendance = attendance
        self._superlink = superlink
        self._exchange = exchange
        self._roster = roster
        self._log = log
        self._hosts = hosts
        self._transfers = transfers
        self._observer = observer
        self._clock = clock
        self._packing = Packing()
        self._replies = Replies(clock)
        exchange.watchers.append(self._replies.abandon)
        routes = {
            "client/hello": self._client(self._hello, must_have_joined=False),
            "client/app": self._client(self._app, must_have_joined=False),
            "client/clock": self._client(self._clock_exchange, must_have_joined=False),
            "client/join": self._client(self._join, must_have_joined=False),
            "client/pull": self._client(self._pull),
            "client/wait": self._client(self._wait),
            "client/push": self._client(self._push),
            "client/leave": self._client(self._leave),
        }
        self._router = Router([Route(f"{PREFIX}/{path}", handler, methods=["POST"]) for path, handler in routes.items()])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["fltestbed.receive_ns"] = scope[SCOPE_KEY].first_ns or self._clock.raw_ns()
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:  # of the router: no such route, or not with this method
            await _refusal(error.status_code, error.detail)(scope, receive, send)

    def _client(self, handler: Callable[[Request, int], Awaitable[Response]], must_have_joined: bool = True) -> Handler:
        async def authenticated(request: Request) -> Response:
            node_id = self._superlink.node_of_request(request.scope)
            if node_id is None:
                return _refusal(401, self._unknown_key())
            problem = self._superlink.authenticate(request.scope, node_id)
            if problem is not None:
                return _refusal(401, problem)
            connection_of(request).prove(node_id)
            try:
                if must_have_joined:
                    self._roster.check_joined(node_id)
                    self._attendance.heard(node_id, connection_of(request))
                with connection_of(request).under_way():
                    return await handler(request, node_id)
            except (BundleError, FactsError, JoinRefused) as error:
                return _refusal(_STATUS.get(type(error), 400), str(error))
            except ClientDisconnect:
                return _refusal(400, "the request ended early")
            except TestbedError as error:
                self._roster.fail(error)
                return _refusal(500, str(error))

        return authenticated

    def _unknown_key(self) -> str:
        if self._superlink.takes_listed_keys_alone:
            return "this client's key is not registered; add its public key (node.pub) to server.node-keys, and start again"
        return "this key is not registered here"

    async def _hello(self, request: Request, node_id: int) -> Response:
        hello = await json_object(request)
        return JSONResponse({"node_id": str(node_id), **self._roster.hello(node_id, hello)})

    async def _app(self, request: Request, _node_id: int) -> Response:
        await json_object(request)
        return Response(self._roster.app.fab, media_type="application/octet-stream")

    async def _clock_exchange(self, request: Request, _node_id: int) -> Response:
        await json_object(request)
        return StampedAnswer({}, self._clock)

    async def _join(self, request: Request, node_id: int) -> Response:
        facts = await json_object(request)
        before = self._roster.boot_of(node_id)
        client = self._roster.join(node_id, facts)
        lost_ns = self._attendance.heard(node_id, connection_of(request))
        if client.joins > 1 and client.allowance.take(1, self._clock.raw_ns()):
            detail = "its host was started again" if client.boot != before else "its process was started again"
            self._log.absences.joined_again(client, self._clock.raw_ns(), lost_ns, detail)
        self._take_late(client, facts, request.scope["fltestbed.receive_ns"])
        return JSONResponse({"name": client.name})

    async def _pull(self, request: Request, node_id: int) -> Response:
        self._exchange.confirm(node_id, await self._told(request, node_id))
        bundle = await self._exchange.next_for(node_id, self._roster.hold_s)
        if connection_of(request).ended is not None:  # whoever asks over another has it instead
            return Response(status_code=204)
        if bundle is None:
            if self._exchange.finished.is_set():
                return JSONResponse(self._exchange.farewell)
            return Response(status_code=204)
        return _Downlink(self, request, bundle)

    async def _wait(self, request: Request, node_id: int) -> Response:
        await self._told(request, node_id)
        if await self._exchange.wait_for(node_id, self._roster.hold_s):
            return StampedAnswer({"ready": True, "measured": self._log.is_measuring}, self._clock)
        return JSONResponse(self._exchange.farewell) if self._exchange.finished.is_set() else Response(status_code=204)

    async def _told(self, request: Request, node_id: int) -> str:
        """Take what a request tells beside its purpose, and keep nothing of it while it is held; returns which message the
        client holds.
        """
        facts = await json_object(request)
        self._take_late(self._roster[node_id], facts, request.scope["fltestbed.receive_ns"])
        if "damage" in facts:
            self._take_damage(node_id, printable(str(facts["damage"]), MOST_REASON))
        return str(facts.get("holds", ""))

    async def _push(self, request: Request, node_id: int) -> Response:
        receive_ns = request.scope["fltestbed.receive_ns"]
        client = self._roster[node_id]
        reply_to = request.headers.get(REPLY_TO_HEADER, "")
        task = self._log.task_of(reply_to)
        if task is not None and task.node_id != node_id:
            raise BundleError("the reply is to another node's message")
        if not self._exchange.is_for(reply_to, node_id):
            return _refusal(409, NOT_WANTED)
        attempt = _attempt(request)
        try:
            if task is not None:
                self._log.uplink_started(task)
                if task.is_measured:
                    self._transfers.uplink_began(task, attempt, receive_ns)
            received = await self._replies.receive(request, reply_to, self._roster.largest_message_bytes)
            bundle, send_ns, end_ns, end_uncertainty_ns = received
            _check_reply(bundle, reply_to, node_id)
            self._exchange.confirm(node_id, reply_to)
            accepted = self._exchange.accept(bundle)
        except (BundleError, ClientDisconnect) as problem:
            reason = str(problem) or connection_of(request).ended or "the request ended early"
            if isinstance(problem, BundleError):
                client.warn(f"its reply cannot be read: {reason}", self._clock.raw_ns())
            if task is not None and task.is_measured:
                read_bytes = getattr(request.state, "read_bytes", 0)
                self._transfers.uplink_broke(task, attempt, receive_ns, self._clock.raw_ns(), read_bytes, reason)
            raise
        await asyncio.sleep(0)  # whoever waits for the reply goes first; what follows is for the records
        if accepted and task is not None and task.uplink_end_ns is None:
            task.uplink_end_uncertainty_ns = end_uncertainty_ns
            if task.is_measured:
                wire = self._transfers.uplink_arrived(
                    task, receive_ns, end_ns, bundle.payload_bytes, connection_of(request), attempt
                )
                message = bundle.messages[0][0]
                error = message.error.reason[:300] if message.HasField("error") else None
                stamps = {"send_raw_ns": send_ns, "connect_ns": _number(request, CONNECT_HEADER)}
                stamps |= {"first_send_raw_ns": _number(request, FIRST_SEND_HEADER)}
                self._take_reply(task, bundle.prologue | stamps, error, end_ns, bundle.payload_bytes, wire)
            else:
                self._log.uplink_ended(task, end_ns)
        self._take_late(client, bundle.prologue, receive_ns)
        if not accepted:
            return _refusal(409, NOT_WANTED)
        return StampedAnswer({"server_end_raw_ns": end_ns, "server_end_uncertainty_ns": end_uncertainty_ns}, self._clock)

    async def _leave(self, request: Request, node_id: int) -> Response:
        await self._told(request, node_id)
        self._roster.leave(node_id)
        return JSONResponse({})

    def _take_reply(
        self, task: Task, stamps: dict[str, Any], error: str | None, end_ns: int, payload_bytes: int, wire: WireBytes
    ) -> None:
        """What a client says of its reply; what cannot be read costs those figures, and not the reply."""
        try:
            facts = read_facts(stamps, error)
        except FactsError as problem:
            self._log.disbelieved(task, end_ns, str(problem))
        else:
            self._log.replied(task, facts, end_ns, payload_bytes, wire)

    def _take_damage(self, node_id: int, reason: str) -> None:
        """A client cannot read the message that it was sent last: this attempt has failed, whether or not it asks again."""
        now_ns = self._clock.raw_ns()
        self._roster[node_id].warn(f"the message that it was sent cannot be read there: {reason}", now_ns)
        task = self._log.task_of(self._exchange.unconfirmed(node_id))
        if task is not None:
            self._log.downlink_broke(task, now_ns, reason)
            self._transfers.downlink_broke(task, reason)

    def _take_late(self, client: Client, told: dict[str, Any], told_ns: int) -> None:
        """Take what a request tells beside its purpose; what cannot be true is said once and left out."""
        late = read_late_facts(told)
        for problem in late.problems:
            client.doubt(problem)
        if not client.allowance.take(late.rows, told_ns):
            client.doubt(f"rows: more than {ROWS_A_SECOND:g} a second")
            late = late.without_rows()
        for sample, exchange, interface in late.clock_samples:
            self._hosts.clock_sample(client, sample, exchange, interface, told_ns)
        for message_id, reply in late.replies.items():
            self._observer.told(client, message_id, reply)
        for transfer in late.transfers:
            if (doubt := self._transfers.client_told(client, transfer, told_ns)) is not None:
                client.doubt(doubt)
        for table, rows in (("system", late.system), ("radio", late.radio)):
            for row in rows:
                self._hosts.reading(table, client.name, row.model_dump(), client, told_ns)
        if late.probes:
            self._roster.manifest.add_to_host(client.name, "probes", late.probes)
        if late.stamp_error is not None:
            self._roster.manifest.add_to_host(client.name, "stamp_error", late.stamp_error.model_dump())
        if late.path is not None:
            self._roster.manifest.add_to_host(client.name, "path", late.path.model_dump())
            if late.path.mismatch is not None:
                self._roster.manifest.mark(f"{client.name}: {late.path.mismatch}")


class _Downlink(Response):
    """The response that carries a message, stamped around its first and last byte."""

    def __init__(self, routes: Routes, request: Request, bundle: Bundle) -> None:
        self._routes = routes
        self._request = request
        self._bundle = bundle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        routes, bundle = self._routes, self._bundle
        message_id = bundle.messages[0][0].metadata.message_id
        chunks = routes._packing.chunks(bundle)
        payload_bytes = sum(map(len, chunks))
        known = routes._log.task_of(message_id)
        is_measured = known is None or known.is_measured
        of_the_message: dict[str, Any] = {}
        if known is not None:  # for the client's own copy
            of_the_message = {"round": known.round, "message_type": known.message_type, "measured": known.is_measured}
        connection = connection_of(self._request)
        connection.switch(is_measured)
        connection.begin_message(payload_bytes)
        if is_measured:
            connection.set_mark()
            connection.begin_sending(is_message=True)
        # Where the kernel gives none this stamp counts: nothing that takes time may stand between it and the first write.
        start_ns = routes._clock.raw_ns()
        known_first = {**of_the_message, "server_receive_raw_ns": scope["fltestbed.receive_ns"]}
        head = encode_head(known_first | {"server_send_raw_ns": start_ns}, len(bundle.messages))
        length = str(len(head) + payload_bytes).encode()
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        start_ns = connection.began_ns or start_ns
        exact = encode_head(known_first | {"server_send_raw_ns": start_ns}, len(bundle.messages))
        await send({"type": "http.response.body", "body": exact if len(exact) == len(head) else head, "more_body": True})
        task = routes._log.downlink_started(message_id, start_ns, payload_bytes)
        if task is not None:
            task.downlink_line = connection
            if is_measured:
                routes._transfers.downlink_began(task, start_ns, payload_bytes, connection)
        with connection.under_way():
            for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        end_ns = routes._clock.raw_ns()
        if task is not None and connection.ended is None:  # else uvicorn has thrown away what was given to it since
            routes._transfers.downlink_sent(task, end_ns, connection)
            routes._log.downlink_sent(task)


def _check_reply(bundle: Bundle, reply_to: str, node_id: int) -> None:
    """Check that a bundle is one reply, of that node to that message."""
    if len(bundle.messages) != 1:
        raise BundleError(f"{len(bundle.messages)} messages in a reply; exactly one is allowed")
    metadata = bundle.messages[0][0].metadata
    if metadata.src_node_id != node_id or metadata.reply_to_message_id != reply_to:
        raise BundleError("the reply is not this client's answer to the message that it names")


def _number(request: Request, name: str) -> int | None:
    """What the client says in a header; None if it says no number."""
    try:
        return int(request.headers[name])
    except (KeyError, ValueError):
        return None


def _refusal(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)


def _attempt(request: Request) -> int:
    """Which attempt of its client to send a reply this is, from 1; those past `MOST_ATTEMPTS` count as one."""
    text = request.headers.get(ATTEMPT_HEADER, "1")
    return min(int(text), MOST_ATTEMPTS) if text.isdecimal() and len(text) < len(str(1 << 31)) and int(text) else 1
