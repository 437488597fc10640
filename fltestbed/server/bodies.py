"""Bodies of clients' requests: as long as they say, no longer than they may be, and of each reply one at a time."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.requests import Request

from fltestbed.client.transport import START_BYTES
from fltestbed.clock import Clock
from fltestbed.flower.bundle import Bundle, BundleError, Decoder
from fltestbed.server.facts import FactsError
from fltestbed.server.protocol import SCOPE_KEY, Connection

MOST_CONTROL_BYTES = 1 << 20
"""Of a body that is no reply."""


class TooLarge(BundleError):
    """More is announced than may be: to send it again is of no use."""


class Replies:
    """Reads replies while they come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._coming: dict[str, Connection] = {}

    async def receive(self, request: Request, reply_to: str, most_bytes: int) -> tuple[Bundle, int, int, int]:
        """Decode a reply while it comes, which may announce so many bytes; also the client's stamp behind it, when its last
        byte arrived, and by how much that may be too late.

        Raises
        ------
        BundleError
            It is none, is not as long as it says, or is too long.
        ClientDisconnect
        """
        decoder, refusal, tail = Decoder(), None, b""
        left = _announced(request) - START_BYTES
        connection = connection_of(request)
        with self._alone(reply_to, connection):
            async for chunk in _chunks(request, most_bytes):
                part = chunk[: max(left, 0)]
                tail += chunk[len(part) :]
                left -= len(part)
                if refusal is None:
                    try:
                        decoder.feed(part)
                    except BundleError as error:
                        refusal = error  # told when the client listens: it sends to the end first
        end_ns, end_uncertainty_ns = connection.arrived_ns or self._clock.raw_ns(), connection.arrival_uncertainty_ns
        if refusal is not None:
            raise refusal
        return decoder.end(), int.from_bytes(tail, "big"), end_ns, end_uncertainty_ns

    def abandon(self, reply_to: str) -> None:
        """Nobody waits for the reply to this message any more: what comes of it is not read on."""
        connection = self._coming.get(reply_to)
        if connection is not None:
            connection.abandon("the round went on without the reply")

    @contextlib.contextmanager
    def _alone(self, reply_to: str, connection: Connection) -> Iterator[None]:
        """Give up an earlier attempt to send the same reply: a client begins another when that one is dead for it, and one
        that does not would have the same reply in memory as often as it has connections.
        """
        former = self._coming.get(reply_to)
        if former is not None:
            former.abandon("connection replaced: the client sends the same reply over another")
        self._coming[reply_to] = connection
        try:
            yield
        finally:
            if self._coming.get(reply_to) is connection:
                del self._coming[reply_to]


def connection_of(request: Request) -> Connection:
    """The connection that a request came over."""
    connection: Connection = request.scope[SCOPE_KEY]
    return connection


async def json_object(request: Request) -> dict[str, Any]:
    """The JSON object that a request's body is.

    Raises
    ------
    FactsError
        It is none.
    BundleError
        It is not as long as it says, or is too long.
    ClientDisconnect
    """
    body = b"".join([chunk async for chunk in _chunks(request, MOST_CONTROL_BYTES)])
    try:
        facts = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FactsError(f"not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise FactsError("not a JSON object")
    return facts


def _announced(request: Request) -> int:
    """Bytes of a request's body, as its header says."""
    try:
        return int(request.headers["content-length"])
    except (KeyError, ValueError) as error:
        raise BundleError("the request does not say its content-length") from error


async def _chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The request's body as it comes, exactly as much as is announced; `request.state.read_bytes` says how much has."""
    announced = _announced(request)
    if announced > limit:
        raise TooLarge(f"{announced} bytes are announced; at most {limit} are allowed")
    request.state.read_bytes = 0
    async for chunk in request.stream():
        request.state.read_bytes += len(chunk)
        yield chunk
    if request.state.read_bytes != announced:
        raise BundleError(f"{announced} bytes were announced, {request.state.read_bytes} came")
