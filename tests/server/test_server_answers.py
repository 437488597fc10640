"""When an answer was sent, and when the message before it was."""

from fltestbed.clock import SYSTEM_CLOCK, Clock
from tests.server.lab import Lab, Running
from tests.server.pi import Pi, instruct, message_in

LATE_NS = 1_000_000_000


def test_an_answer_says_when_its_first_byte_left(running: Running, lab: Lab, pi: Pi) -> None:
    """By the kernel: the process's own clock, which is a second late here, does not count."""
    lab.routes._clock = Clock(raw_ns=lambda: SYSTEM_CLOCK.raw_ns() - LATE_NS)
    for _ in range(3):
        reply = pi.connection.post_json("clock", {})
        stamps = reply.data
        assert reply.send_ns < stamps["server_receive_raw_ns"] < stamps["server_send_raw_ns"] < reply.first_ns


def test_what_is_answered_meanwhile_moves_no_end_of_a_message(running: Running, lab: Lab, pi: Pi) -> None:
    """Exchanges that keep a link warm while a client works go over the connection that the message came by."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    warm = [pi.connection.post_json("clock", {}).data for _ in range(3)]
    assert pi.push(message_id, pi.facts(pulled), pi.answer(message_in(pulled))).status == 200
    running.call(lab.transfers.close)
    (row,) = [row for row in lab.rows["transfers.csv"] if row["direction"] == "downlink"]
    assert row["server_start_raw_ns"] < row["server_end_raw_ns"] < pulled.end_ns < warm[0]["server_receive_raw_ns"]
