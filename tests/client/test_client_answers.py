"""What a client takes from a server, or from who answers in its place: bounded, or refused in one line."""

import contextlib
import http.client
import io
import json
import tracemalloc
from typing import Any, cast

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fltestbed.bench.fuzz_targets import told
from fltestbed.client.hello import read_hello
from fltestbed.client.response import AnswerError, read_body
from fltestbed.client.transport import Reply, refuse
from fltestbed.errors import ServerRefused
from fltestbed.flower.fleet_transport import FleetTransport

bounded = settings(max_examples=200, deadline=None, derandomize=True, database=None)
HELLO: dict[str, Any] = json.loads(told()[4])


class Wire:
    """A socket from which an answer is read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        """Like a socket's."""
        return io.BytesIO(self._data)


def read(answer: bytes, most_bytes: int = 1000) -> bytes:
    response = http.client.HTTPResponse(cast(Any, Wire(answer)), method="POST")
    response.begin()
    return bytes(read_body(response, most_bytes, 60.0))


def head(*lines: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *lines, "", "")).encode()


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_an_answer_is_what_was_announced(size: int) -> None:
    """Up to the bound, whatever the size; what follows is not read."""
    assert read(head(f"content-length: {size}") + b"x" * size + b"more") == b"x" * size


def test_a_large_answer_comes_whole() -> None:
    """3 MB, more than the first piece of the buffer."""
    body = bytes(range(256)) * 12_000
    assert read(head(f"content-length: {len(body)}") + body, 4 << 20) == body


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("content-length: 1001",), "announces 1001 bytes; at most 1000 are taken"),
        (("content-length: " + "9" * 5000,), "announces 99999999999999999999 bytes"),
        (("content-length: -1",), "does not say its length"),
        (("content-length: 0x10",), "does not say its length"),
        (("content-length: \u0661",), "does not say its length"),
        ((), "does not say its length"),
        (("transfer-encoding: chunked",), "does not say its length"),
        (("transfer-encoding: chunked", "content-length: 4"), "does not say its length"),
    ],
    ids=repr,
)
def test_an_answer_without_an_end_is_refused(lines: tuple[str, ...], says: str) -> None:
    """Before a byte of it is read, and with an error that the client's patience knows."""
    with pytest.raises(AnswerError, match=says):
        read(head(*lines) + b"body")
    assert issubclass(AnswerError, http.client.HTTPException)


def test_an_announcement_takes_no_memory() -> None:
    """A gigabyte announced and ten bytes sent: the buffer is a megabyte."""
    tracemalloc.start()
    with pytest.raises(http.client.IncompleteRead):
        read(head(f"content-length: {1 << 30}") + b"x" * 10, 1 << 31)
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()


def test_an_answer_that_drips_ends() -> None:
    """A byte at a time is a connection that works, but not one that is waited for."""

    class Drip(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:1])

    response = http.client.HTTPResponse(cast(Any, Wire(head("content-length: 500") + b"x" * 500)))
    response.begin()
    response.fp = cast(Any, Drip(b"x" * 500))
    with pytest.raises(AnswerError, match="1 of 500 bytes came within 0 s"):
        read_body(response, 1000, 0.0)


@bounded
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_an_answer_or_an_error_that_is_declared(data: bytes, begins_well: bool) -> None:
    """OSError or HTTPException, which close the connection; nothing else."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        read(b"HTTP/1.1 200 OK\r\n" * begins_well + data)


def reply(body: bytes, status: int = 200) -> Reply:
    return Reply(status, bytearray(body), 1, 2, 3, 4, 0, None, None)


@pytest.mark.parametrize("body", [b"", b"7", b"[1]", b"null", b"\xff", b"[" * 100_000, b"<html>"], ids=lambda b: repr(b[:9]))
def test_an_answer_that_is_no_object_is_refused_readably(body: bytes) -> None:
    """With its first bytes, as somebody else's page would show them."""
    with pytest.raises(ServerRefused, match=r"the server's answer is not JSON but .*; does it run fltestbed"):
        _ = reply(body).data


def test_a_servers_reason_is_one_printable_line() -> None:
    """It is shown on the terminal of who started the client."""
    body = json.dumps({"error": "no\x1b[2J\nfltestbed: all is well" + "!" * 5000}).encode()
    with pytest.raises(ServerRefused) as told_:
        refuse(reply(body, 400))
    assert str(told_.value).isprintable()
    assert len(str(told_.value)) < 600


def test_a_good_hello_is_taken_as_it_is() -> None:
    """Every value in its place, and what this client does not know yet."""
    assert read_hello(HELLO | {"more": 1}).items() >= (HELLO | {"more": 1}).items()


@pytest.mark.parametrize(
    "change",
    [
        {"run": "../../x"}, {"run": "a/b"}, {"run": ""}, {"run": "x" * 201}, {"run": None}, {"run": ".."}, {"run": "a\n"},
        {"run_id": "1/../2"}, {"node_id": -1}, {"clients": 0}, {"clients": "many"}, {"transport": "pigeon"},
        {"hold_s": float("nan")}, {"deadline_s": float("inf")}, {"clock_interval_s": 0.0}, {"congestion_control": "../x"},
        {"probes": {"wifi": "rm"}}, {"probes": {str(number): True for number in range(65)}},
        {"compression": {"name": "zip"}},
        {"compression": {"name": "none", "zstd_level": 99}}, {"largest_message_bytes": 1 << 60}, {"fab_hash": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_hello_that_cannot_be_is_refused_by_name(change: dict[str, Any]) -> None:
    """The run's name becomes a file's, the rest times, sizes and settings: one line that names the value."""
    with pytest.raises(ServerRefused, match=f"the server's answer cannot be: {next(iter(change))}") as told_:
        read_hello(HELLO | change)
    assert str(told_.value).isprintable()


@bounded
@given(
    st.dictionaries(
        st.sampled_from(sorted(HELLO)), st.none() | st.integers() | st.text(max_size=9) | st.floats(), max_size=4
    )
)
def test_any_hello_is_taken_or_refused(change: dict[str, Any]) -> None:
    """And nothing else happens."""
    with contextlib.suppress(ServerRefused):
        read_hello(HELLO | change)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-encoding": "gzip", "content-length": "20"},
        {"content-length": str(5 << 30)},
        {"transfer-encoding": "chunked"},
    ],
    ids=str,
)
def test_flowers_client_inflates_nothing_and_takes_no_flood(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed though nobody asked, too long, or of any length: a transport error, as when the connection breaks."""
    asked: list[httpx.Request] = []

    def answer(_: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(b""))

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    with (
        httpx.Client(transport=FleetTransport(True, 1.0)) as client,
        pytest.raises(httpx.TransportError, match="were expected"),
    ):
        client.post("http://server/v1/fleet/pull-messages", content=b"")
    assert asked[0].headers["accept-encoding"] == "identity"
