"""Answers that say when they were sent: the body tells of the header, which has left by then."""

import json
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fltestbed.clock import Clock
from fltestbed.server.protocol import SCOPE_KEY, Connection


class StampedAnswer(Response):
    """A JSON object with the server's two stamps of its exchange.

    ``server_receive_raw_ns`` is when the request's first byte reached this host. ``server_send_raw_ns`` is when the answer's
    left it, by the kernel's stamp; where there is none, it was about to be handed to the kernel.
    """

    def __init__(self, facts: dict[str, Any], clock: Clock) -> None:
        self._facts = facts
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Send it."""
        connection: Connection = scope[SCOPE_KEY]
        connection.begin_sending(is_message=False)
        sent_ns = self._clock.raw_ns()
        body = self._encode(scope, sent_ns)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        exact = self._encode(scope, connection.began_ns or sent_ns)
        connection.end_sending()
        await send({"type": "http.response.body", "body": exact if len(exact) == len(body) else body})

    def _encode(self, scope: Scope, sent_ns: int) -> bytes:
        stamps = {"server_receive_raw_ns": scope["fltestbed.receive_ns"], "server_send_raw_ns": sent_ns}
        return json.dumps(self._facts | stamps).encode()
