"""Transfers that go wrong over real HTTP: nothing half is left in Flower's stores, and the next attempt succeeds."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fltestbed.client.transport import REPLY_TO_HEADER, START_BYTES
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.config import Experiment
from fltestbed.config_file import validate
from fltestbed.flower.bundle import Bundle, encode_head
from tests.server.lab import Lab, Running, stored
from tests.server.pi import Pi, assert_alive, collect, connected, header_text, instruct, message_in, raw_request


def upload(pi: Pi, message_id: str) -> tuple[bytes, bytes]:
    """Pull a message and make the reply to it; its header and its body."""
    pulled = pi.pull()
    parts = [encode_head(pi.facts(pulled), 1), *pi.answer(message_in(pulled)).encode()[1:]]
    body = b"".join([*parts, SYSTEM_CLOCK.raw_ns().to_bytes(START_BYTES, "big")])
    return push_header(pi, message_id, len(body)), body


def push_header(pi: Pi, message_id: str, length: int) -> bytes:
    fields = {"content-length": str(length), REPLY_TO_HEADER: message_id}
    return header_text(pi, "push", **fields)


def test_a_truncated_upload_leaves_nothing_behind(running: Running, lab: Lab, pi: Pi) -> None:
    """The connection breaks at every eighth of the body: what Flower holds stays the same, and the whole one is accepted."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    header, body = upload(pi, message_id)
    before = stored(lab)
    for eighth in range(8):
        raw_request(running, header + body[: len(body) * eighth // 8], cut=True)
        assert_alive(pi)
        assert stored(lab) == before
    status, _ = raw_request(running, header + body)
    assert status == 200
    assert collect(running, lab, message_id).has_content()


def test_an_upload_whose_bytes_end_early_is_refused(running: Running, lab: Lab, pi: Pi) -> None:
    """As many bytes as announced, of a bundle that says of itself that it is longer: 400, and nothing is stored."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    _, body = upload(pi, message_id)
    before = stored(lab)
    status, reason = raw_request(running, push_header(pi, message_id, len(body) - 7) + body[:-7])
    assert (status, b"truncated" in reason) == (400, True)
    assert stored(lab) == before


@pytest.mark.parametrize("more", [1, 1000, 500_000])
def test_an_upload_with_bytes_behind_its_last_object_is_refused(running: Running, lab: Lab, pi: Pi, more: int) -> None:
    """As many bytes as announced, more than the bundle says of itself: 400 and the reason, nothing is stored, and the whole
    one is accepted.
    """
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    header, body = upload(pi, message_id)
    longer = body[:-START_BYTES] + bytes(more) + body[-START_BYTES:]
    before = stored(lab)
    status, reason = raw_request(running, push_header(pi, message_id, len(longer)) + longer)
    assert (status, b"bytes follow the last object" in reason) == (400, True)
    assert stored(lab) == before
    status, _ = raw_request(running, header + body)
    assert status == 200
    assert collect(running, lab, message_id).has_content()


def test_a_wrong_hash_leaves_nothing_behind(running: Running, lab: Lab, pi: Pi) -> None:
    """One bit of the last object: 400, and not even the objects before it are kept."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    before = stored(lab)
    pulled = pi.pull()
    bundle = pi.answer(message_in(pulled))
    last = list(bundle.objects)[-1]
    objects = {**bundle.objects, last: bytes(bundle.objects[last])[:-1] + bytes([bytes(bundle.objects[last])[-1] ^ 1])}
    reply = pi.push(message_id, pi.facts(pulled), Bundle({}, bundle.messages, objects))
    assert (reply.status, "does not have the hash" in reply.data["error"]) == (400, True)
    assert stored(lab) == before
    assert pi.push(message_id, pi.facts(pulled), bundle).status == 200
    assert stored(lab)[:2] == (1, 1)


def test_the_same_reply_twice_at_once_counts_once(running: Running, lab: Lab, pi: Pi) -> None:
    """Two connections bring the same bytes, as after an answer that was lost: one uplink is written, one reply is collected,
    and when the ServerApp holds it Flower holds nothing more of it.
    """
    pi.join()
    empty = stored(lab)
    (message_id,) = instruct(running, lab, pi.node_id)
    header, body = upload(pi, message_id)
    with ThreadPoolExecutor(2) as pool:
        statuses = [done.result()[0] for done in [pool.submit(raw_request, running, header + body) for _ in range(2)]]
    assert 200 in statuses
    assert set(statuses) <= {200, 409}
    assert [row["phase"] for row in lab.rows.phases()].count("uplink") == 1
    bundle = running.run(lab.exchange.collect({message_id}, lab.app.run_id, 0.0))
    assert len(bundle.messages) == 1
    running.call(lab.exchange.forget, bundle)
    assert stored(lab) == empty
    assert raw_request(running, header + body)[0] == 409
    assert stored(lab) == empty


def test_a_reply_after_it_was_given_up_is_refused_and_freed(running: Running, lab: Lab, pi: Pi) -> None:
    """The round's deadline passed while the client trained: 409, and Flower holds nothing of message or reply."""
    pi.join()
    empty = stored(lab)
    (message_id,) = instruct(running, lab, pi.node_id)
    header, body = upload(pi, message_id)
    running.call(lab.exchange.give_up, [message_id], lab.app.run_id)
    assert raw_request(running, header + body)[0] == 409
    assert stored(lab) == empty
    assert pi.pull().status == 204  # nor does the message come again


def test_a_reply_that_came_just_before_it_was_given_up_is_freed(running: Running, lab: Lab, pi: Pi) -> None:
    """It waited to be collected; nobody will."""
    pi.join()
    empty = stored(lab)
    (message_id,) = instruct(running, lab, pi.node_id)
    header, body = upload(pi, message_id)
    assert raw_request(running, header + body)[0] == 200
    running.call(lab.exchange.give_up, [message_id], lab.app.run_id)
    assert stored(lab) == empty


def test_an_upload_that_stops_holds_nobody_up(running: Running, lab: Lab, pi: Pi, other: Pi) -> None:
    """Half a body and then silence: another client's upload is answered meanwhile, and the round's log has the first one in
    its uplink, which is what its row says at the deadline. Then it is closed.
    """
    pi.join()
    other.join()
    first, second = instruct(running, lab, pi.node_id, other.node_id)
    header, body = upload(pi, first)
    with connected(running) as stopped:
        stopped.sendall(header + body[: len(body) // 2])
        assert raw_request(running, b"".join(upload(other, second)))[0] == 200
        running.call(lab.log.held, second, 10**18, None)
        running.call(lab.log.gathered, 2 * 10**18)
        running.call(lab.exchange.expire, first, lab.app.run_id)
        assert stopped.recv(1) == b""
    (row,) = [row for row in lab.rows.phases("pi-0") if row["status"] == "timeout"]
    assert (row["phase"], row["status"]) == ("uplink", "timeout")
    assert row["detail"].startswith("no reply before the deadline; nothing heard for")


def test_an_upload_larger_than_the_server_takes_is_refused_unread(
    tmp_path: Path, running: Running, lab: Lab, pi: Pi
) -> None:
    """`server.largest-message-mb` bounds what a reply may announce; the announcement is enough."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    too_much = lab.experiment.server.largest_message_bytes + 1
    status, reason = raw_request(running, push_header(pi, message_id, too_much))
    assert (status, b"at most 1000000 are allowed" in reason) == (413, True)
    assert_alive(pi)


@pytest.fixture(autouse=True)
def small_messages(lab: Lab) -> None:
    """A server that takes replies of 1 MB at most."""
    server = {"hold-s": 0.2, "largest-message-mb": 1.0}
    lab.experiment = validate(Experiment, {"name": "lab", "clients": 2, "server": server}, "lab")
    lab.roster._experiment = lab.experiment
