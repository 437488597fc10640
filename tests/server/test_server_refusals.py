"""Requests that are refused over real HTTP: unsigned, too early, no JSON, too large; the server lives on."""

import http.client
import json
from base64 import b64encode
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fastapi import Request
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_SIGNATURE_HEADER
from flwr.superlink.routers.fleet.node_auth import authenticate_node

from fltestbed.client.transport import PREFIX
from fltestbed.clock import Clock
from fltestbed.errors import ServerRefused
from fltestbed.flower import superlink
from fltestbed.flower.node_key import NodeKey
from tests.server.lab import Lab, Running
from tests.server.pi import TIMEOUT_S, Pi, assert_alive, header_text, raw_request


@pytest.mark.parametrize("path", ["hello", "app", "clock", "join", "pull", "push", "leave"])
def test_an_unsigned_request_is_refused(running: Running, pi: Pi, path: str) -> None:
    """401 on every route, without a key, with a key that is not registered, and with a key that did not sign."""
    good = pi.key.headers()
    stranger = {name: b64encode(b"nobody").decode() for name in good if "key" in name.lower()}
    unsigned = {name: value for name, value in good.items() if "signature" not in name.lower()}
    for headers in ({}, stranger, unsigned, good | {"flwr-timestamp": "2020-01-01T00:00:00+00:00"}):
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=TIMEOUT_S)
        connection.request("POST", PREFIX + path, body=b"{}", headers=headers)
        response = connection.getresponse()
        assert response.status == 401, (headers, response.read())
        assert set(json.loads(response.read())) == {"error"}
        connection.close()


def test_a_signature_is_looked_at_once(lab: Lab, pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same signed moment again needs no second look while it counts; another signature, or another node's, does."""
    looked: list[str] = []

    def looking(request: Request) -> None:
        looked.append(request.headers[TIMESTAMP_HEADER])
        authenticate_node(request)

    monkeypatch.setattr(superlink, "authenticate_node", looking)

    def problem(headers: dict[str, str], node_id: int) -> str | None:
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        app = lab.superlink.app
        scope = {"type": "http", "method": "POST", "path": "/", "headers": raw, "app": app, "state": {}}
        return lab.superlink.authenticate(scope, node_id)

    lab.superlink._proved.clear()  # of the requests that the client has made already
    signed = pi.key.headers()
    moment = signed[TIMESTAMP_HEADER]
    assert [problem(signed, pi.node_id) for _ in range(3)] == [None] * 3
    assert looked == [moment]
    forged = signed | {FLEET_HTTP_SIGNATURE_HEADER: b64encode(b"forged").decode()}
    assert problem(forged, pi.node_id) is not None
    assert problem(signed, pi.node_id + 1) is not None
    assert looked == [moment] * 3
    old = (datetime.fromisoformat(moment) - timedelta(seconds=310)).isoformat()
    lab.superlink._proved[pi.node_id] = (old, *list(lab.superlink._proved[pi.node_id])[1:])
    assert problem(signed | {TIMESTAMP_HEADER: old}, pi.node_id) is not None  # too old by now, whoever signed it


def test_a_moment_is_signed_once_in_a_while(tmp_path: Path) -> None:
    """For 30 s the same headers; then, or when the server's time is learnt, others."""
    now_ns = [0]
    key = NodeKey(tmp_path / "key", Clock(raw_ns=lambda: now_ns[0], wall_ns=lambda: 10**18 + now_ns[0]))
    first = key.headers()
    now_ns[0] = 29 * 10**9
    assert key.headers() == first
    now_ns[0] = 31 * 10**9
    second = key.headers()
    assert (datetime.fromisoformat(second[TIMESTAMP_HEADER]) - datetime.fromisoformat(first[TIMESTAMP_HEADER])).seconds == 31
    key.learn_time("Mon, 23 Nov 2026 07:00:00 GMT")
    assert key.headers()[TIMESTAMP_HEADER] == "2026-11-23T07:00:00+00:00"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "hello", 405), ("POST", "no-such-route", 404)])
def test_what_is_no_route_is_refused(running: Running, method: str, path: str, status: int) -> None:
    """With a status and a reason, not with a traceback and a broken connection."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=TIMEOUT_S)
    connection.request(method, PREFIX + path)
    response = connection.getresponse()
    assert (response.status, set(json.loads(response.read()))) == (status, {"error"})
    connection.close()


def test_work_is_for_who_has_joined(pi: Pi) -> None:
    """A node that is registered and no more: 400 with the reason."""
    for path in ("pull", "push", "leave"):
        with pytest.raises(ServerRefused, match="this client has not joined the run"):
            pi.connection.post_json(path, {})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
    ],
    ids=repr,
)
def test_garbage_in_place_of_facts_is_refused(pi: Pi, body: bytes) -> None:
    """400 with a reason, on the same connection; the next request is fine."""
    pi.join()
    reply = pi.connection.post("pull", [body], TIMEOUT_S)
    assert reply.status == 400
    assert reply.data["error"]
    assert_alive(pi)


def test_json_nested_without_end_is_refused(pi: Pi) -> None:
    """400, as all that is not facts."""
    pi.join()
    assert pi.connection.post("pull", [b"[" * 100_000], TIMEOUT_S).status == 400


def test_an_oversized_request_is_refused_before_it_is_read(running: Running, pi: Pi) -> None:
    """A control request of more than 1 MiB: the announcement is enough."""
    pi.join()
    status, reason = raw_request(running, header_text(pi, "pull", **{"content-length": str((1 << 20) + 1)}))
    assert (status, b"at most 1048576" in reason) == (413, True)
    assert_alive(pi)


def test_a_request_without_a_length_is_refused(running: Running, pi: Pi) -> None:
    """Chunked: nobody knows how much comes."""
    pi.join()
    text = header_text(pi, "pull", **{"transfer-encoding": "chunked"}) + b"2\r\n{}\r\n0\r\n\r\n"
    status, reason = raw_request(running, text)
    assert (status, b"does not say its content-length" in reason) == (400, True)
    assert_alive(pi)
