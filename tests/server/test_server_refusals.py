"""Requests that are refused over real HTTP: unsigned, too early, no JSON, too large; the server lives on."""

import http.client
import json
from base64 import b64encode

import pytest

from fltestbed.client.transport import PREFIX
from fltestbed.errors import ServerRefused
from tests.server.lab import Running
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
    assert (status, b"at most 1048576" in reason) == (400, True)
    assert_alive(pi)


def test_a_request_without_a_length_is_refused(running: Running, pi: Pi) -> None:
    """Chunked: nobody knows how much comes."""
    pi.join()
    text = header_text(pi, "pull", **{"transfer-encoding": "chunked"}) + b"2\r\n{}\r\n0\r\n\r\n"
    status, reason = raw_request(running, text)
    assert (status, b"does not say its content-length" in reason) == (400, True)
    assert_alive(pi)
