"""Transfers of a contender that stamps nothing, from packets that were made by hand."""

import pytest

from fltestbed.bench.bulk import BULK_BYTES, Bulk, bursts
from fltestbed.bench.capture import HttpMessage

SERVER, CLIENT, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def message(first: int, last: int, *, up: bool, size: int = BULK_BYTES, client: str = CLIENT, port: int = 1) -> HttpMessage:
    ends = ((client, port), (SERVER, 9092))
    sender, receiver = ends if up else ends[::-1]
    return HttpMessage(sender, receiver, first, last, size, 3)


def captured(delay: int, rounds: int) -> list[HttpMessage]:
    """Two objects on two connections down from 0 to 40 of each hundred, a poll, one object up from 70 to 90."""
    found = []
    for start in range(0, rounds * 100, 100):
        found += [
            message(start + delay, start + 30 + delay, up=False),
            message(start + 5 + delay, start + 40 + delay, up=False, port=2),
            message(start + 60, start + 61, up=True, size=300),
            message(start + 70 - delay, start + 90 - delay, up=True),
            message(start + 50, start + 95, up=True, client=OTHER),
        ]  # fmt: skip
    return found


def test_large_messages_in_a_row_are_one_transfer() -> None:
    """Over all connections of one client; what is small, or another's, is none."""
    assert bursts(captured(0, 1), CLIENT) == {False: [(0, 40)], True: [(70, 90)]}


def test_names_of_objects_are_no_transfer_and_do_not_part_one() -> None:
    """A list of 5 kB before the objects, and one that comes back in the middle of them, beside objects of 100 kB."""
    found = [
        message(0, 9, up=False, size=100_000), message(20, 21, up=True, size=5_000), message(22, 23, up=False, size=5_000),
        message(30, 40, up=True, size=50_000), message(41, 42, up=False, size=5_000), message(43, 50, up=True, size=50_000),
    ]  # fmt: skip
    assert bursts(found, CLIENT) == {False: [(0, 9)], True: [(30, 50)]}


def test_a_transfer_lasts_from_the_senders_first_to_the_receivers_last_packet() -> None:
    """With 7 ns on the way: 47 ns down, and 27 ns up, from 63 to 90; the middle one of three rounds counts."""
    bulk = Bulk()
    bulk.add(captured(0, 3), captured(7, 3), CLIENT, rounds=3)
    assert bulk.downlink_s == [pytest.approx(47e-9)]
    assert bulk.uplink_s == [pytest.approx(27e-9)]


def test_packets_that_do_not_fit_the_rounds_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Three transfers where four rounds were made is said, and judged as nothing."""
    bulk = Bulk()
    bulk.add(captured(0, 3), captured(7, 3), CLIENT, rounds=4)
    assert (bulk.downlink_s, bulk.uplink_s) == ([], [])
    assert "packets show [3] transfers each way, not 4" in caplog.text
