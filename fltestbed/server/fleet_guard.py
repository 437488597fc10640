"""What Flower's Fleet API is shielded from: bodies without end, keys without end, and strangers' large requests.

Flower reads a whole body into memory before it looks at who sent it, takes in every key that is offered, and stores whatever
tree of objects a reply announces. So before Flower sees a request its size is known and small for what it asks; one that is
large, or that announces a reply, has shown its signature; and a run takes in so many keys.
"""

from typing import Protocol

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fltestbed.config import Experiment
from fltestbed.flower.fleet import FleetError, check_announcement
from fltestbed.flower.superlink import Superlink
from fltestbed.server.protocol import SCOPE_KEY, Connection

HTTP_OK = 200
_KEY_BYTES = 4 << 10
_REQUEST_BYTES = 64 << 10
_TREE_BYTES = 16 << 20
_ENVELOPE_BYTES = 4 << 10
"""Of a request that carries an object, around the object."""
KEYS_BESIDE_CLIENTS = 64
KEYS_OF_A_CLIENT = 4
"""How often a client's place may be taken by one with another key: a stock SuperNode makes a new key at each start."""


class FleetApp(Protocol):
    """Middleware that is told which application it stands before."""

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let `app` do it."""


class FleetGuard:
    """Middleware in front of the observer.

    Parameters
    ----------
    inner : FleetApp
        Sees what is let in.
    superlink : Superlink
    experiment : Experiment
        Says how many clients there are and how large a message may be.
    """

    def __init__(self, inner: FleetApp, superlink: Superlink, experiment: Experiment) -> None:
        self._inner = inner
        self._superlink = superlink
        self._most_object_bytes = experiment.server.largest_message_bytes + _ENVELOPE_BYTES
        self._keys_left = KEYS_BESIDE_CLIENTS + KEYS_OF_A_CLIENT * experiment.clients

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        kind = scope["path"].rpartition("/")[2]
        refusal = self._refusal(kind, scope)
        if refusal is None and kind == "push-messages":
            receive, refusal = await _checked_announcement(receive, self._superlink.node_of_request(scope) or 0)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        taken = int(kind == "register-node")
        self._keys_left -= taken

        async def sending(message: Message) -> None:
            nonlocal taken
            if message["type"] == "http.response.start":
                if message["status"] == HTTP_OK:
                    self._prove(scope)
                else:  # a key that is known already, for one, takes no place
                    self._keys_left += taken
                taken = 0
            await send(message)

        try:
            await self._inner(app, scope, receive, sending)
        finally:
            self._keys_left += taken  # nothing was answered

    def _refusal(self, kind: str, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0" if scope["method"] != "POST" else "")
        if "transfer-encoding" in headers or not announced.isdigit():
            return _refuse(411, "the request does not say its content-length")
        most = {
            "register-node": _KEY_BYTES, "activate-node": _KEY_BYTES, "push-messages": _TREE_BYTES,
            "push-object": self._most_object_bytes,
        }.get(kind, _REQUEST_BYTES)  # fmt: skip
        if int(announced) > most:
            return _refuse(413, f"{announced} bytes are announced; at most {most} are allowed")
        if kind == "register-node" and self._keys_left <= 0:
            return _refuse(
                429, "this run has taken in as many keys as it will; list those of your clients in server.node-keys"
            )
        if kind == "push-messages" or int(announced) > _REQUEST_BYTES:
            node_id = self._superlink.node_of_request(scope)
            problem = "this key is not registered here" if node_id is None else self._superlink.authenticate(scope, node_id)
            if problem is not None:
                return _refuse(401, problem)
        return None

    def _prove(self, scope: Scope) -> None:
        """Flower has answered: the request was signed by whom it names."""
        connection: Connection = scope[SCOPE_KEY]
        node_id = self._superlink.node_of_request(scope)
        if node_id is not None:
            connection.prove(node_id)


async def _checked_announcement(receive: Receive, node_id: int) -> tuple[Receive, JSONResponse | None]:
    """Read the announcement of a reply; what Flower is to receive in its place, and why it should not."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return _replayed(message, receive), None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    whole: Message = {"type": "http.request", "body": bytes(body), "more_body": False}
    try:
        check_announcement(body, node_id)
    except FleetError as error:
        return receive, _refuse(400, str(error))
    return _replayed(whole, receive), None


def _replayed(message: Message, receive: Receive) -> Receive:
    """Give a message that was received once more, then what follows it."""
    waiting = [message]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _refuse(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status_code=status, headers={"connection": "close"})
