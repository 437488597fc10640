"""Who may ask for what: everything on loopback, three things from elsewhere."""

import asyncio
from typing import Any, cast

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fltestbed.server.gate import Gate, is_loopback
from fltestbed.server.observer import Observer

OUTSIDE, INSIDE = ("10.0.0.7", 40000), ("127.0.0.1", 40000)
FORBIDDEN = [
    "/", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/metrics",
    "/v1/control/start-run", "/v1/control/list-runs", "/v1/runtime/pull-task-input", "/v1/serverappio/push-object",
    "/v1/fltestbed/grid/push", "/v1/fltestbed/grid/marks", "/v1/fltestbed", "/v1/fleet", "/v1/fltestbed/client",
    "/health/x", "/healthz", "//v1/fleet/pull-messages", "/V1/FLEET/pull-messages", "",
]  # fmt: skip
ALLOWED = {
    "/health": "flower", "/v1/fleet/pull-messages": "observer", "/v1/fltestbed/client/pull": "routes",
}  # fmt: skip


def named(name: str, seen: list[str]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(name)

    return app


def pass_gate(scope: dict[str, Any]) -> tuple[list[str], list[Message]]:
    """Send one scope through a gate; who was called, and what the gate answered itself."""
    seen: list[str] = []
    sent: list[Message] = []

    async def observer(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        seen.append("observer")

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    gate = Gate(named("flower", seen), named("routes", seen), cast(Observer, observer))
    asyncio.run(gate(scope, receive, send))
    return seen, sent


def http(path: str, client: tuple[str, int] | None) -> dict[str, Any]:
    return {"type": "http", "path": path, "method": "POST", "headers": [], "client": client}


@pytest.mark.parametrize("path", FORBIDDEN)
def test_from_outside_the_rest_is_forbidden(path: str) -> None:
    """403, and neither Flower nor the toolkit's routes have heard of it."""
    seen, sent = pass_gate(http(path, OUTSIDE))
    assert seen == []
    assert sent[0]["status"] == 403


@pytest.mark.parametrize("path", ALLOWED)
@pytest.mark.parametrize("client", [OUTSIDE, INSIDE])
def test_from_anywhere_the_three_are_open(path: str, client: tuple[str, int]) -> None:
    """Health goes to Flower, the Fleet API past the observer, the toolkit's own to its routes."""
    assert pass_gate(http(path, client)) == ([ALLOWED[path]], [])


@pytest.mark.parametrize("path", FORBIDDEN)
def test_on_loopback_everything_is_let_in(path: str) -> None:
    """Whatever it is: somebody answers it."""
    seen, sent = pass_gate(http(path, INSIDE))
    assert len(seen) == 1
    assert sent == []


def test_the_routes_get_their_own_paths_and_no_others() -> None:
    """The grid's routes on loopback are the toolkit's."""
    assert pass_gate(http("/v1/fltestbed/grid/push", INSIDE))[0] == ["routes"]
    assert pass_gate(http("/v1/control/start-run", INSIDE))[0] == ["flower"]


@pytest.mark.parametrize("path", ["/", "/v1/control/stream", "/docs"])
def test_a_websocket_from_outside_is_refused(path: str) -> None:
    """403 before the handshake; nothing behind the gate hears of it."""
    scope = {
        "type": "websocket",
        "path": path,
        "headers": [],
        "client": OUTSIDE,
        "extensions": {"websocket.http.response": {}},
    }
    seen, sent = pass_gate(scope)
    assert seen == []
    assert sent[0]["type"] == "websocket.http.response.start"
    assert sent[0]["status"] == 403


def test_lifespan_passes() -> None:
    """Flower's start and end are not a request."""
    assert pass_gate({"type": "lifespan"}) == (["flower"], [])


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.7", False),
        ("10.0.0.7", False),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("2001:db8::1", False),
        ("localhost", False),
        ("127.0.0.1.evil.org", False),
        ("", False),
        ("testclient", False),
    ],
)
def test_loopback_is_read_from_the_address(host: str, loopback: bool) -> None:
    """By number, also mapped into IPv6; a name is never believed."""
    assert is_loopback((host, 1)) is loopback


def test_a_peer_without_an_address_is_a_stranger() -> None:
    """A UNIX socket, or nothing at all."""
    assert not is_loopback(None)
    assert pass_gate(http("/docs", None))[1][0]["status"] == 403
