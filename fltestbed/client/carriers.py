"""How messages come to a client and replies leave it: the two transports.

`BundleCarrier` takes a whole message out of one response and puts a whole reply into one request. `ObjectsCarrier` does
what a stock SuperNode does on the wire, one request for each object, except that it waits for work with the toolkit's long
poll.
"""

import contextlib
import http.client
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

from flwr.app import Message

from fltestbed.client.stamps import LateStamps
from fltestbed.client.told import MessageFacts, ReplyEnd, read_told
from fltestbed.client.trainer import Result
from fltestbed.client.transport import (
    ATTEMPT_HEADER,
    FIRST_SEND_HEADER,
    REPLY_TO_HEADER,
    Broken,
    Reply,
    ServerConnection,
    SessionLost,
    refuse,
    said_no,
)
from fltestbed.clock import Clock
from fltestbed.errors import ServerRefused, ServerUnreachable
from fltestbed.flower.bundle import BundleError, decode, encode_head, read_head
from fltestbed.flower.node import MOST_TRIES, FleetNode, MessageGone

log = logging.getLogger("fltestbed")

RETRY_INTERVAL_S = 0.5
SILENCE_S = 30.0
"""Beyond the time that the server may hold a request: after so long without a byte the connection is given up."""


@dataclass
class Parcel:
    """A message that has come whole.

    Attributes
    ----------
    data : bytes
        The message as a bundle; empty once it has been taken.
    head : Message
        The message without its content.
    about : MessageFacts
        What the server says of it.
    first_ns, end_ns : int
        Client's clock when its first bytes had come, and its last byte.
    pulled : Reply or None
        The exchange that brought it, where it was one; without its body.
    is_checked : bool
        Whether its objects have been checked against their hashes while they came.
    """

    data: bytes | bytearray
    head: Message
    about: MessageFacts
    first_ns: int
    end_ns: int
    pulled: Reply | None = None
    is_checked: bool = False

    def take(self) -> bytes | bytearray:
        """The message as a bundle, of which nothing is held here any more."""
        data, self.data = self.data, b""
        return data


class Carrier(Protocol):
    """A transport, as the client's loop uses it."""

    def receive(self) -> Parcel | None:
        """The next message; None when the run is over."""

    def send(self, parcel: Parcel, result: Result) -> None:
        """Send the reply to a message."""

    def reject(self, reason: str) -> None:
        """The message that was received last cannot be read: have it sent again, where that may help.

        Raises
        ------
        ServerRefused
        """


def _unreadable(reason: str) -> ServerRefused:
    return ServerRefused(f"the server sent a message that cannot be read: {reason}")


def _check_farewell(reply: Reply) -> None:
    """The run is over; one that has failed may go on."""
    if reply.data.get("can_go_on"):
        raise SessionLost("the server says that the run has failed", is_over=True)


@contextlib.contextmanager
def _node_errors() -> Iterator[None]:
    """What breaks one of Flower's requests costs the message, and the client introduces itself again; a message that is gone
    costs no more than itself.
    """
    try:
        yield
    except MessageGone:
        raise
    except (ServerRefused, ServerUnreachable) as error:
        raise SessionLost(str(error)) from error


class PatientConnection:
    """A connection that tries again when it breaks.

    Parameters
    ----------
    server : str
        host:port.
    connection : ServerConnection
    timeout_s : float
        For how long, where the server's host answers that there is no server.
    patience_s : float
        For how long where nobody answers, as when the link is down.
    """

    def __init__(self, server: str, connection: ServerConnection, timeout_s: float, patience_s: float = 0.0) -> None:
        self._server = server
        self._connection = connection
        self._timeout_s = timeout_s
        self._patience_s = max(timeout_s, patience_s)
        self.broken: list[Broken] = []
        """Attempts of the latest request that failed after they had begun to be sent, before the one that was answered."""

    def post(
        self,
        path: str,
        body: Sequence[bytes | memoryview],
        silence_s: float,
        headers: dict[str, str] | None = None,
        *,
        tells_start: bool = False,
        tries: int = 1,
    ) -> Reply:
        """Send a request and read its answer; its parameters are those of `ServerConnection.post`.

        Its headers say which attempt it is, and when the first one began. What the server cannot read (400) may have come
        damaged: it is sent up to `tries` times.

        Raises
        ------
        ServerUnreachable
            The server was gone for too long.
        """
        start = time.monotonic()
        self.broken, failures, refused = [], 0, 0
        while True:
            try:
                fields = {**(headers or {}), **self._attempt()}
                reply = self._connection.post(path, body, silence_s, fields, tells_start=tells_start)
            except (OSError, http.client.HTTPException) as error:
                broken = self._connection.broken
                if broken is not None and broken.start_ns is not None:
                    self.broken.append(broken)
                patience_s = self._timeout_s if isinstance(error, ConnectionRefusedError) else self._patience_s
                reason = broken.reason if broken is not None else str(error) or type(error).__name__
                if time.monotonic() >= start + patience_s:
                    raise ServerUnreachable(
                        f"{self._server}: the server has been gone for {patience_s:g} s (during {path}: {reason}); "
                        "is it still running? fltestbed server CONFIG --resume RUN continues a run that was interrupted"
                    ) from error
                failures += 1
                if failures == 1:
                    log.warning("%s: %s failed: %s; trying again for %g s", self._server, path, reason, patience_s)
                time.sleep(RETRY_INTERVAL_S)
            else:
                refused += reply.status == http.client.BAD_REQUEST
                if reply.status == http.client.BAD_REQUEST and refused < tries:
                    self.broken.append(Broken(reply.send_ns, reply.end_ns, said_no(reply), was_answered=True))
                    log.warning("%s: %s was refused: %s; sending it again", self._server, path, self.broken[-1].reason)
                    continue
                if failures:
                    log.warning("%s: %s went through after %.1f s", self._server, path, time.monotonic() - start)
                return reply

    def _attempt(self) -> dict[str, str]:
        if not self.broken:
            return {}
        return {ATTEMPT_HEADER: str(len(self.broken) + 1), FIRST_SEND_HEADER: str(self.broken[0].start_ns)}

    def post_json(self, path: str, facts: dict[str, Any]) -> Reply:
        """Send a JSON object; an answer that is not 2xx is raised.

        Raises
        ------
        ServerUnreachable, SessionLost, ServerRefused
        """
        reply = self.post(path, [json.dumps(facts).encode()], SILENCE_S)
        refuse(reply)
        return reply

    @property
    def send_ns(self) -> int:
        """Client's clock when the latest request began to leave, whether it was answered or not."""
        return self._connection.send_ns

    @property
    def congestion_control(self) -> str:
        """What the open connection uses; empty without one."""
        return self._connection.congestion_control_in_use


class BundleCarrier:
    """One streamed response down, one streamed request up.

    Parameters
    ----------
    connection : PatientConnection
    late : LateStamps
        Gets what is known too late for its own request.
    hold_s : float
        How long the server may hold a request for work.
    deadline_s : float
        How long a round may take, and so a transfer.
    switch : callable (bool) -> None
        Told of each message whether its round is measured.
    """

    def __init__(
        self,
        connection: PatientConnection,
        late: LateStamps,
        hold_s: float,
        deadline_s: float,
        switch: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._switch = switch
        self._connection = connection
        self._late = late
        self._hold_s = hold_s
        self._deadline_s = deadline_s
        self._holds = ""
        self._rejected = 0

    def receive(self) -> Parcel | None:
        """Pull the next message; None when the run is over."""
        while True:
            facts = {"holds": self._holds, **self._late.take()}
            reply = self._connection.post("pull", [json.dumps(facts).encode()], self._hold_s + SILENCE_S)
            refuse(reply)
            if reply.status == http.client.NO_CONTENT:
                continue
            if reply.body[:1] == b"{":
                _check_farewell(reply)
                return None
            try:
                prologue, head = read_head(reply.body)
                about = read_told(MessageFacts, prologue)
            except (BundleError, ServerRefused) as error:
                self.reject(str(error))
                continue
            self._switch(about.measured)
            return Parcel(reply.body, head, about, reply.first_ns, reply.end_ns, replace(reply, body=bytearray()))

    def send(self, parcel: Parcel, result: Result) -> None:
        """Push the reply, with everything that is known of the message's way so far in its prologue."""
        self._holds, self._rejected = result.message_id, 0
        about = parcel.about
        if parcel.pulled is not None:
            self._late.clock_sample("pull", parcel.pulled, about)
            self._late.downlink(result.message_id, parcel.pulled)
        known = {**result.facts, "downlink_end_raw_ns": parcel.end_ns}
        if parcel.pulled is not None:
            known["downlink_end_uncertainty_ns"] = parcel.pulled.end_uncertainty_ns
        facts = (known if self._late.is_on else {}) | self._late.take()
        body = [encode_head(facts, messages=1), result.reply]
        kept = known | {"message_id": result.message_id}
        kept |= {"payload_bytes": len(result.reply), "downlink_start_raw_ns": about.server_send_raw_ns}
        kept |= {"round": about.round, "message_type": about.message_type}
        try:
            fields = {REPLY_TO_HEADER: result.message_id}
            pushed = self._connection.post("push", body, self._deadline_s, fields, tells_start=True, tries=MOST_TRIES)
        except BaseException:  # also when this process is told to end: the server may never hear of it
            self._late.keep_reply(kept | {"send_raw_ns": self._connection.send_ns})
            raise
        sent: dict[str, int | None] = {"send_raw_ns": pushed.send_ns, "connect_ns": pushed.connect_ns}
        if self._connection.broken:
            sent["first_send_raw_ns"] = self._connection.broken[0].start_ns
        if pushed.status >= http.client.BAD_REQUEST:
            self._late.keep_reply(kept | sent)
        if pushed.status == http.client.CONFLICT:
            log.warning("%s", said_no(pushed))
            return
        refuse(pushed)
        end = read_told(ReplyEnd, pushed.data)
        ended = {"server_end_raw_ns": end.server_end_raw_ns, "server_end_uncertainty_ns": end.server_end_uncertainty_ns}
        self._late.keep_reply(kept | sent | ended)
        self._late.clock_sample("push", pushed, end)
        self._late.broken_uplinks(result.message_id, self._connection.broken)
        self._late.uplink(result.message_id, pushed, self._connection.congestion_control)

    def reject(self, reason: str) -> None:
        """Ask for the message again, which the server holds until it is told that it has arrived; not for ever."""
        self._late.damage(reason)
        self._rejected += 1
        if self._rejected >= MOST_TRIES:
            raise _unreadable(reason)
        log.warning("a message came damaged: %s; asking the server for it again", reason)


class ObjectsCarrier:
    """Flower's own requests, one for each object.

    Parameters are those of `BundleCarrier`, and the node and the clock that its exchanges are stamped with.
    """

    def __init__(
        self,
        connection: PatientConnection,
        late: LateStamps,
        hold_s: float,
        node: FleetNode,
        run_id: int,
        clock: Clock,
        switch: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._switch = switch
        self._connection = connection
        self._late = late
        self._hold_s = hold_s
        self._node = node
        self._run_id = run_id
        self._clock = clock

    def receive(self) -> Parcel | None:
        """Wait until there is a message, then pull it as a SuperNode does; None when the run is over."""
        while True:
            reply = self._connection.post("wait", [json.dumps(self._late.take()).encode()], self._hold_s + SILENCE_S)
            refuse(reply)
            if reply.status == http.client.NO_CONTENT:
                continue
            if reply.data.get("finished"):
                _check_farewell(reply)
                return None
            about = read_told(MessageFacts, reply.data)
            self._switch(about.measured)
            self._late.clock_sample("pull", reply, about)
            try:
                with _node_errors():
                    message = self._node.pull_message()
                    first_ns = self._clock.raw_ns()
                    if message is None:
                        continue
                    bundle = self._node.pull_objects(self._run_id, message)
            except MessageGone as gone:
                log.warning("%s", gone)
                continue
            data = b"".join(bundle.encode())
            try:
                _, head = read_head(data)
            except BundleError as error:
                self.reject(str(error))
            return Parcel(data, head, about, first_ns, self._clock.raw_ns(), is_checked=True)

    def send(self, parcel: Parcel, result: Result) -> None:
        """Push the reply's objects; what the client knows of its way follows with the next request."""
        bundle = decode(b"".join([encode_head({}, messages=1), result.reply]), verify=False)  # its trainer has made it
        send_ns, end_ns = self._clock.raw_ns(), None
        try:
            with _node_errors():
                self._node.push_reply(self._run_id, bundle)
            end_ns = self._clock.raw_ns()
        except MessageGone as gone:
            log.warning("%s", gone)
        stamps = {"downlink_end_raw_ns": parcel.end_ns, "send_raw_ns": send_ns}
        self._late.reply({**result.facts, **stamps, "message_id": result.message_id})
        self._late.objects(result.message_id, "downlink", parcel.first_ns, parcel.end_ns)
        if end_ns is not None:
            self._late.objects(result.message_id, "uplink", send_ns, end_ns)

    def reject(self, reason: str) -> NoReturn:
        """Each object has come as the server has it, so to pull them again is of no use."""
        self._late.damage(reason)
        raise _unreadable(reason)
