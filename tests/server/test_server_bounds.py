"""A server over real HTTP under requests that never end, never begin, or come in floods; an honest client is served."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.errors import ServerRefused
from fltestbed.flower.bundle import Bundle
from fltestbed.flower.fleet import announcement, check_announcement
from fltestbed.server.bounds import MOST_HEAD_BYTES, BoundedProtocol
from fltestbed.server.guests import Guest, Guests
from tests.flower.flower_messages import error_answer
from tests.server.lab import Lab, Running
from tests.server.pi import (
    TIMEOUT_S,
    Pi,
    assert_alive,
    collect,
    connected,
    header_text,
    instruct,
    is_open,
    message_in,
    raw_request,
)

PROTOBUF = {"content-type": "application/protobuf"}


def answer_to(running: Running, text: bytes) -> bytes:
    """Whatever comes back until the server closes; empty if it only resets."""
    with connected(running) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(text)
        said = b""
        with contextlib.suppress(OSError):
            while piece := sock.recv(65536):
                said += piece
        return said


def fleet(running: Running, pi: Pi, path: str, body: bytes, **changes: str) -> tuple[int, str]:
    """One request to Flower's own API, signed by a client; its status and what it says."""
    fields = {**pi.key.headers(), **PROTOBUF, "content-length": str(len(body)), **changes}
    head = f"POST /v1/fleet/{path} HTTP/1.1\r\nhost: x\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in fields.items()
    )
    status, said = raw_request(running, head.encode() + b"\r\n" + body)
    return status, said.decode(errors="replace")


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nx: " + b"a" * (4 << 20),
        b"POST / HTTP/1.1\r\n" + b"x: y\r\n" * 200_000,
        b"GET /" + b"a" * (4 << 20),
    ],
    ids=["value", "lines", "address"],
)
def test_a_header_without_end_is_cut(running: Running, pi: Pi, head: bytes) -> None:
    """400 after 64 KiB, and the connection is closed before the rest is read."""
    said = answer_to(running, head)
    assert said == b"" or f"more than {MOST_HEAD_BYTES} bytes".encode() in said or b"Invalid HTTP request" in said
    assert_alive(pi)


@pytest.mark.parametrize(
    "text",
    [
        b"POST / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\ncontent-length: +4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http://[:: HTTP/1.1\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n\x00\x01",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\x00" * 1000,
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
    ],
    ids=repr,
)
def test_what_is_no_http_is_refused_and_closed(running: Running, pi: Pi, text: bytes) -> None:
    """Two lengths, smuggled requests, TLS where none is spoken: 400 or nothing, and nobody else notices."""
    said = answer_to(running, text)
    assert said == b"" or said.startswith(b"HTTP/1.1 400 Bad Request\r\n"), said
    assert said.count(b"HTTP/1.1") <= 1
    assert_alive(pi)


def test_a_thousand_requests_at_once_are_not_queued(running: Running, pi: Pi) -> None:
    """Pipelined further than any client does: the connection ends after a few."""
    said = answer_to(running, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" * 1000)
    assert said.count(b"HTTP/1.1 200") < 20
    assert_alive(pi)


@pytest.mark.parametrize("text", [b"", b"POST /v1", b"POST / HTTP/1.1\r\nx: y\r\n"], ids=repr)
def test_a_request_that_does_not_go_on_ends(running: Running, pi: Pi, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Nothing, half a line, half a header: the connection is closed when its time is over, not kept for hours."""
    monkeypatch.setattr(BoundedProtocol, "head_s", 0.05)
    with connected(running) as sock:
        sock.sendall(text)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    assert_alive(pi)


def test_a_body_that_does_not_go_on_ends(running: Running, pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten bytes announced and one sent: closed after the time of a small body; a whole one has all the time it needs."""
    monkeypatch.setattr("fltestbed.server.bounds.SMALL_S", 0.05)
    pi.join()
    with connected(running) as sock:
        sock.sendall(header_text(pi, "pull", **{"content-length": "10"}) + b"{")
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(65536):
                said += piece
    assert b"200 OK" not in said
    assert pi.pull().status == 204  # held for 0.2 s


@pytest.mark.parametrize("announced", ["2000000", "100000"])
def test_an_upload_has_the_rounds_time(
    running: Running, lab: Lab, pi: Pi, monkeypatch: pytest.MonkeyPatch, announced: str
) -> None:
    """Bytes that never come: closed after the longest time of a transfer, which the row says, and not after that of a small
    body; the message can still be answered.
    """
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    with connected(running) as sock:
        fields = {"content-length": announced, "x-fltestbed-reply-to": message_id}
        monkeypatch.setattr(BoundedProtocol, "transfer_s", 0.05)
        for kind in BoundedProtocol.__subclasses__():
            monkeypatch.setattr(kind, "transfer_s", 0.05)
        sock.sendall(header_text(pi, "push", **fields) + b"FLB1")
        with contextlib.suppress(ConnectionResetError):
            assert b"200 OK" not in sock.recv(65536)
    monkeypatch.undo()
    assert pi.push(message_id, pi.facts(pulled), pi.answer(message_in(pulled))).status == 200
    running.call(lab.transfers.close)
    (failed,) = [row for row in lab.rows["transfers.csv"] if row["status"] == "failed"]
    assert failed["detail"].startswith("the server's limit of time for a request was over; ")


def sockets(count: int) -> list[tuple[Guest, socket.socket]]:
    pairs = [socket.socketpair() for _ in range(count)]
    return [(Guest(fileno=ours.detach()), theirs) for ours, theirs in pairs]


def test_the_oldest_stranger_makes_room() -> None:
    """Three may be there: the fourth ends the first. One that has proved whose it is counts for its node instead."""
    guests = Guests(most_strangers=3, most_of_a_node=2)
    pairs = sockets(8)
    for guest, _ in pairs[:4]:
        guests.arrived(guest)
    assert [is_open(theirs) for _, theirs in pairs[:4]] == [False, True, True, True]
    pairs[1][0].prove(7)
    pairs[1][0].prove(7)
    for guest, _ in pairs[4:]:
        guests.arrived(guest)
    assert [is_open(theirs) for _, theirs in pairs] == [False, True, False, False, False, True, True, True]
    for guest, _ in pairs[5:7]:
        guest.prove(7)
    assert not is_open(pairs[1][1])  # a node's own third connection ends its first
    assert is_open(pairs[7][1])
    for guest, theirs in pairs:
        guest.close()
        theirs.close()


def test_of_all_nodes_the_one_with_most_connections_makes_room() -> None:
    """Three of a greedy node and one of each other, five together: another's first ends the greedy node's oldest."""
    guests = Guests(most_strangers=9, most_of_a_node=3, most_of_all_nodes=5)
    pairs = sockets(6)
    for guest, _ in pairs:
        guests.arrived(guest)
    for (guest, _), node in zip(pairs, (7, 7, 7, 8, 9, 10), strict=True):
        guest.prove(node)
    assert [is_open(theirs) for _, theirs in pairs] == [False, True, True, True, True, True]
    pairs[1][0].close()
    (late, theirs), *_ = sockets(1)
    guests.arrived(late)
    late.prove(11)
    assert [is_open(other) for _, other in pairs[2:]] == [True] * 4  # the one that was closed is not counted any more
    assert is_open(theirs)
    for guest, other in [*pairs, (late, theirs)]:
        guest.close()
        other.close()


def test_a_host_with_few_descriptors_gets_more() -> None:
    """In a process of its own, from 200 to 300 of the 400 that it may have at most, and no further than those."""
    program = (
        "import resource; from fltestbed.server.guests import allow_descriptors as allow;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 400)); print(allow(300), allow(250), allow(9000))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["300", "300", "400"]


def test_a_flood_of_connections_keeps_nobody_out(running: Running, pi: Pi) -> None:
    """400 connections that say nothing: the first are closed, the client's own is not, and another client gets in."""
    pi.join()
    with contextlib.ExitStack() as stack:
        flood = [stack.enter_context(connected(running)) for _ in range(400)]
        assert_alive(pi)
        assert raw_request(running, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")[0] == 200
        ended = sum(not is_open(sock) for sock in flood)
        assert ended >= 400 - 256
    assert_alive(pi)


def test_keys_are_taken_in_up_to_a_number(running: Running, pi: Pi, tmp_path: Path) -> None:
    """When no place is left a new key is refused with what to do; a client that is known comes back all the same."""
    left = running.guard._keys_left
    assert left == 64 + 4 * 2 - 1
    pi.node.register()
    assert running.guard._keys_left == left  # it has its place already
    running.guard._keys_left = 0
    with pytest.raises(ServerRefused, match="HTTP 429"):
        Pi(running, tmp_path, 9)
    body = RegisterNodeFleetRequest(public_key=b"k").SerializeToString()
    status, said = fleet(running, pi, "register-node", body)
    assert (status, "list those of your clients in server.node-keys" in said) == (429, True)
    assert_alive(pi)


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [
        ("register-node", 5000, 413),
        ("pull-messages", 70_000, 413),
        ("push-object", 1 << 40, 413),
        ("push-messages", 17 << 20, 413),
    ],
)
def test_flowers_requests_are_small_for_what_they_ask(running: Running, pi: Pi, path: str, length: int, status: int) -> None:
    """The announcement is enough; nothing is read."""
    assert fleet(running, pi, path, b"", **{"content-length": str(length)})[0] == status
    assert_alive(pi)


def test_flowers_requests_say_how_long_they_are(running: Running, pi: Pi) -> None:
    """Chunked, a body could have any length: 411."""
    head = "POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    assert raw_request(running, head.encode() + b"0\r\n\r\n")[0] == 411


def test_a_large_request_of_a_stranger_is_not_read(running: Running, pi: Pi) -> None:
    """200 kB of an object, with a key that is known and a signature that is not its own: 401 from the header alone."""
    forged = {"flwr-timestamp": "2020-01-01T00:00:00+00:00", "content-length": "200000"}
    assert fleet(running, pi, "push-object", b"", **forged)[0] == 401
    assert fleet(running, pi, "push-messages", b"", **forged | {"content-length": "10"})[0] == 401


def announced(bundle: Bundle, node_id: int) -> PushMessagesRequest:
    ((proto, tree),) = bundle.messages
    return announcement(node_id, proto, tree)


def test_nobody_answers_for_another(running: Running, lab: Lab, pi: Pi, other: Pi) -> None:
    """A node that signs for itself and names another as the sender: refused, and the other's phases are its own."""
    pi.join()
    other.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    message = message_in(pulled)
    stolen = announced(pi.answer(message), other.node_id)
    assert fleet(running, other, "push-messages", stolen.SerializeToString()) == (
        400, '{"error":"the reply is another node\'s"}',
    )  # fmt: skip
    stolen.messages_list[0].metadata.src_node_id = other.node_id
    fleet(running, other, "push-messages", stolen.SerializeToString())
    assert "uplink" not in {row["phase"] for row in lab.rows.phases()}
    assert pi.push(message_id, pi.facts(pulled), pi.answer(message, 0.25)).status == 200
    assert collect(running, lab, message_id).content["metrics"]["loss"] == 0.25


def test_an_announced_tree_is_checked_before_flower_keeps_it(running: Running, lab: Lab, pi: Pi) -> None:
    """No tree, another message's tree, names that are no hashes: 400, and the store holds nothing of it."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    bundle = pi.answer(message_in(pi.pull()))
    assert bundle.messages[0][0].metadata.reply_to_message_id == message_id
    bare, foreign, named = (announced(bundle, pi.node_id) for _ in range(3))
    del bare.message_object_trees[:]
    foreign.message_object_trees[0].object_id = "0" * 64
    named.message_object_trees[0].children[0].object_id = "../../x"
    before = len(lab.state.object_store)
    for request in (bare, foreign, named):
        assert fleet(running, pi, "push-messages", request.SerializeToString())[0] == 400
    assert fleet(running, pi, "push-messages", b"\xff" * 50)[0] == 400
    assert len(lab.state.object_store) == before


def test_the_reason_of_an_error_reply_is_short(running: Running, lab: Lab, pi: Pi) -> None:
    """Two megabytes of reason, which the ServerApp would not read and so end the run: 400; a short one is handed on."""
    pi.join()
    instruct(running, lab, pi.node_id)
    message = message_in(pi.pull())
    TaskIdentity.node_id = pi.node_id
    with pytest.raises(ServerRefused, match="HTTP 400"):
        pi.node.push_reply(lab.app.run_id, Bundle.of([error_answer(message, "x" * (2 << 20))]))
    short = announced(Bundle.of([error_answer(message, "it broke")]), pi.node_id)
    check_announcement(short.SerializeToString(), pi.node_id)


def test_objects_that_nobody_asked_for_are_not_read(running: Running, pi: Pi) -> None:
    """A node that was given no message has no reply to push."""
    pi.join()
    body = PushObjectRequest(
        node=Node(node_id=pi.node_id), object_id="0" * 64, object_content=b"x" * 1000
    ).SerializeToString()
    status, said = fleet(running, pi, "push-object", body)
    assert (status, json.loads(said)["error"]) == (413, "more was pushed than one reply may have")


def test_a_reply_to_no_message_is_refused_before_its_body_is_read(running: Running, pi: Pi) -> None:
    """Half a gigabyte announced for a message that nobody sent: 409 while the first bytes are still under way."""
    pi.join()
    fields = {"content-length": str(500 << 20), "x-fltestbed-reply-to": "0" * 64}
    status, said = raw_request(running, header_text(pi, "push", **fields) + b"FLB1")
    assert (status, b"its message is unknown" in said) == (409, True)


def test_many_who_mean_ill_do_not_stop_a_round(running: Running, lab: Lab, pi: Pi) -> None:
    """Eight threads send garbage for as long as a client works: its round is whole, with the numbers that it sent."""
    texts = [
        b"\xff" * 3000,
        b"POST / HTTP/1.1\r\n" * 50,
        b"GET /docs HTTP/1.1\r\n\r\n",
        header_text(pi, "push") + b"x" * 100,
    ]
    over = threading.Event()

    def disturb(number: int) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), connected(running) as sock:
                sock.sendall(texts[number % len(texts)])
                sock.recv(100)

    threads = [threading.Thread(target=disturb, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        pi.join()
        for loss in (0.5, 0.25, 0.125):
            (message_id,) = instruct(running, lab, pi.node_id)
            pulled = pi.pull()
            assert pi.push(message_id, pi.facts(pulled), pi.answer(message_in(pulled), loss)).status == 200
            assert collect(running, lab, message_id).content["metrics"]["loss"] == loss
    finally:
        over.set()
        for thread in threads:
            thread.join(TIMEOUT_S)
    assert {row["status"] for row in lab.rows.phases("pi-0")} == {"ok"}
