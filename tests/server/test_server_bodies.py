"""Requests that hide how long they are, or come twice at once: what the server holds of them is bounded."""

import contextlib
import socket
from pathlib import Path

import psutil
import pytest

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.measure.manifest import read_manifest
from fltestbed.server.bounds import MOST_DIGITS
from fltestbed.server.routes import MOST_ATTEMPTS
from fltestbed.server.tasks import ROWS_AT_ONCE, Allowance
from tests.server.lab import Lab, Running
from tests.server.pi import Pi, assert_alive, collect, connected, header_text, instruct, is_open, message_in
from tests.waiting import wait_until

FLOOD_BYTES = 100 << 20
MOST_GROWTH_BYTES = 40 << 20
CHUNKED = {"transfer-encoding": "chunked"}


def growth_under(running: Running, head: bytes, piece: bytes) -> int:
    """How much this process grows, in bytes, while a stranger sends one piece after the other for as long as he may."""
    process = psutil.Process()
    before, peak = process.memory_info().rss, 0
    with connected(running) as sock, contextlib.suppress(OSError):
        sock.sendall(head)
        for _ in range(FLOOD_BYTES // len(piece)):
            sock.sendall(piece)
            peak = max(peak, process.memory_info().rss - before)
    return peak


@pytest.mark.parametrize("path", ["hello", "push"])
def test_lines_behind_a_chunked_body_take_no_memory(running: Running, pi: Pi, path: str) -> None:
    """100 MB of trailers, in long lines: the connection ends with the answer, and nothing of them is kept."""
    head = header_text(pi, path, **CHUNKED) + b"0\r\n"
    assert growth_under(running, head, b"a: " + b"b" * 65_000 + b"\r\n") < MOST_GROWTH_BYTES
    assert_alive(pi)


def test_a_line_without_end_behind_a_chunked_body_takes_no_memory(running: Running, pi: Pi) -> None:
    """The same in one line, to a route of Flower's own."""
    head = b"POST /health HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: "
    assert growth_under(running, head, b"b" * 65_536) < MOST_GROWTH_BYTES
    assert_alive(pi)


@pytest.mark.parametrize("zeros", [MOST_DIGITS, 5000])
@pytest.mark.parametrize(
    "path", ["/v1/fleet/pull-messages", "/v1/fleet/register-node", "/v1/fltestbed/client/hello", "/health"]
)
def test_zeros_do_not_hide_a_length(running: Running, pi: Pi, path: str, zeros: int) -> None:
    """A gigabyte announced as 000...01000000000, by a node that is known: 400, and not a byte of it is read."""
    fields = {**pi.key.headers(), "content-type": "application/protobuf", "content-length": "0" * zeros + "1000000000"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with connected(running) as sock:
        sock.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\n{lines}\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert_alive(pi)


def test_of_one_reply_the_latest_attempt_alone_is_held(running: Running, lab: Lab, pi: Pi) -> None:
    """Four connections that each send half of the same reply: three of them are ended; the reply comes over a fifth."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    fields = {"content-length": "3000000", "x-fltestbed-reply-to": message_id}
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connected(running)) for _ in range(4)]
        for number, sock in enumerate(socks):
            sock.sendall(header_text(pi, "push", **fields, **{"x-fltestbed-attempt": str(10**8 + number)}) + b"FLB1")
            wait_until(lambda: len(ended(socks)) == number)  # noqa: B023
        assert ended(socks) == socks[:3]
        assert pi.push(message_id, pi.facts(pulled), pi.answer(message_in(pulled), 0.25)).status == 200
        wait_until(lambda: ended(socks) == socks)
    assert collect(running, lab, message_id).content["metrics"]["loss"] == 0.25
    running.call(lab.transfers.close)
    uplinks = [row for row in lab.rows["transfers.csv"] if row["direction"] == "uplink"]
    assert [(row["attempt"], row["status"]) for row in uplinks] == [(MOST_ATTEMPTS, "failed"), (1, "ok")]


def ended(socks: list[socket.socket]) -> list[socket.socket]:
    """Those that the server has closed."""
    return [sock for sock in socks if not is_open(sock)]


def test_a_host_that_says_nonsense_of_its_path_is_told_its_own(running: Running, lab: Lab, pi: Pi, tmp_path: Path) -> None:
    """Where a client's description has no table, what it tells later makes one: no request fails because of it."""
    pi.join(host={"path": 5, "model": "Pi"})
    counted = {"sent_bytes": 1, "received_bytes": 2, "interfaces": {}, "mismatch": None}
    assert pi.pull(path=counted).status == 204
    assert read_manifest(tmp_path)["hosts"]["pi-0"]["path"] == counted


def test_a_client_brings_so_many_rows_and_no_more(
    running: Running, lab: Lab, pi: Pi, caplog: pytest.LogCaptureFixture
) -> None:
    """More readings than a run's files should hold are left out, and that is told once; its replies count as before."""
    pi.join()
    client = lab.roster[pi.node_id]
    client.allowance.left = 300
    now = SYSTEM_CLOCK.raw_ns()
    reading = {
        "raw_ns": now, "cpu_percent": 1, "process_cpu_percent": 1, "memory_used_bytes": 1, "process_memory_bytes": 1,
        "interface": "lo",
    }  # fmt: skip
    for _ in range(8):
        client.allowance.counted_ns = SYSTEM_CLOCK.raw_ns() + 10**9  # no time has passed
        assert pi.pull(system=[reading] * 100).status == 204
    assert len(lab.rows["system.csv"]) == 300
    assert caplog.text.count("rows: more than 200 a second; such facts are left out") == 1
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    assert pi.push(message_id, pi.facts(pulled), pi.answer(message_in(pulled))).status == 200


def test_rows_are_allowed_again_as_time_goes_by() -> None:
    """200 a second, and never more than 50,000 at once, however long a client was away."""
    allowance = Allowance()
    assert allowance.take(ROWS_AT_ONCE, 0)
    assert not allowance.take(201, 10**9)
    assert allowance.take(200, 10**9)
    assert not allowance.take(1, 10**9)
    assert not allowance.take(ROWS_AT_ONCE + 1, 10**18)
    assert allowance.take(ROWS_AT_ONCE, 10**18)
