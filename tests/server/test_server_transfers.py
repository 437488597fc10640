"""Attempts of a transfer: each is a row, whoever saw it fail."""

from typing import Any, cast

import pytest

from fltestbed.server.facts import TransferFacts
from fltestbed.server.protocol import Connection
from fltestbed.server.tasks import Client, Symptom, Task
from fltestbed.server.transfers import NEVER_CAME, NEVER_WHOLE, TransferLog
from tests.server.recorded import Rows


class FakeConnection:
    """A connection of which the kernel says nothing."""

    mark = left_ns = None
    congestion_control = "cubic"

    def __init__(self, ended: str | None = None) -> None:
        self.ended = ended

    def snapshot(self) -> None:
        """Nothing."""

    def stamp_sending(self, on: bool) -> None:
        """Nothing to switch."""


class Transfers:
    """The log of one message to one client."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.log = TransferLog(self.rows)
        self.client = Client("pi-0", "5g")
        self.task = Task(3, "train", "m", 1, self.client, 0)

    def arrive(self, attempt: int) -> None:
        """A reply arrives whole, from 300 to 400."""
        self.log.uplink_arrived(self.task, 300, 400, 9000, cast(Connection, FakeConnection()), attempt)

    def tell(self, **facts: Any) -> None:
        """The client tells its part of an uplink."""
        told = {"message_id": "m", "direction": "uplink", "new_connection": True, **facts}
        self.log.client_told(self.client, TransferFacts.model_validate(told))

    def written(self) -> list[tuple[Any, ...]]:
        """Attempt, status, the server's start, the client's start, and why, of each row."""
        names = ("attempt", "status", "server_start_raw_ns", "client_start_raw_ns", "detail")
        return [tuple(row.get(name) for name in names) for row in self.rows["transfers.csv"]]


@pytest.fixture
def transfers() -> Transfers:
    """A message whose reply is on its way."""
    return Transfers()


def test_both_ends_of_an_attempt_that_broke_are_one_row(transfers: Transfers) -> None:
    """The server read a part of the first attempt; the client says why it broke; the second one is whole."""
    transfers.log.uplink_began(transfers.task, 1, 100)
    transfers.log.uplink_broke(transfers.task, 1, 100, 200, 5000, "connection reset by the client")
    transfers.arrive(2)
    transfers.tell(attempt=1, failure="stalled", client_start_raw_ns=90, client_end_raw_ns=250)
    transfers.tell(attempt=2, client_start_raw_ns=290, client_end_raw_ns=390)
    transfers.log.close()
    assert transfers.written() == [(1, "failed", 100, 90, "stalled"), (2, "ok", 300, 290, None)]


@pytest.fixture
def replaced(transfers: Transfers) -> Transfers:
    """The client has begun a second attempt before the connection of the first, which it gave up, is seen to break."""
    transfers.log.uplink_began(transfers.task, 1, 100)
    transfers.log.uplink_began(transfers.task, 2, 300)
    return transfers


def break_off(transfers: Transfers, attempt: int) -> None:
    """An attempt is seen to break at 350."""
    transfers.log.uplink_broke(transfers.task, attempt, 100 if attempt == 1 else 300, 350, 5000, "reset")


def test_an_attempt_that_breaks_late_leaves_the_next_alone(replaced: Transfers) -> None:
    """Which may be whole by then."""
    replaced.arrive(2)
    break_off(replaced, 1)
    replaced.tell(attempt=1, failure="stalled", client_start_raw_ns=90, client_end_raw_ns=250)
    replaced.tell(attempt=2, client_start_raw_ns=290, client_end_raw_ns=390)
    assert replaced.written() == [(1, "failed", 100, 90, "stalled"), (2, "ok", 300, 290, None)]


def test_both_may_break(replaced: Transfers) -> None:
    """And each is a row when the round goes on without the reply."""
    break_off(replaced, 1)
    break_off(replaced, 2)
    replaced.log.lost(replaced.task, Symptom("uplink", "silence", ""))
    read = "reset; 5000 bytes had been read"
    assert replaced.written() == [(1, "failed", 100, None, read), (2, "failed", 300, None, read)]


def test_the_next_may_hang(replaced: Transfers) -> None:
    """It is a row of its own, too, when the round goes on."""
    break_off(replaced, 1)
    replaced.log.lost(replaced.task, Symptom("uplink", "silence", "nothing heard for 4.0 s"))
    assert [row[:2] for row in replaced.written()] == [(1, "failed"), (2, "failed")]


def test_a_reply_that_is_sent_again_has_arrived_all_the_same(transfers: Transfers) -> None:
    """The answer to the first was lost; of the second the client hears that it is not wanted, and tells nothing."""
    transfers.arrive(1)
    transfers.log.uplink_began(transfers.task, 2, 500)
    transfers.log.close()
    assert transfers.written() == [(1, "ok", 300, None, NEVER_CAME)]


def test_an_attempt_that_the_server_never_saw_is_a_row(transfers: Transfers) -> None:
    """With the client's stamps alone."""
    transfers.arrive(2)
    transfers.tell(attempt=1, failure="stalled", client_start_raw_ns=90, client_end_raw_ns=250)
    assert transfers.written() == [(1, "failed", None, 90, "stalled")]


def test_a_client_that_never_tells_leaves_what_the_server_saw(transfers: Transfers) -> None:
    """When the round goes on without it; and at the end for what has arrived and was never told of."""
    transfers.log.uplink_began(transfers.task, 1, 100)
    transfers.log.uplink_broke(transfers.task, 1, 100, 200, 5000, "connection reset by the client")
    transfers.log.lost(transfers.task, Symptom("uplink", "connection reset by the client", ""))
    assert transfers.written() == [(1, "failed", 100, None, "connection reset by the client; 5000 bytes had been read")]
    transfers.arrive(2)
    transfers.log.close()
    assert transfers.written()[1:] == [(2, "ok", 300, None, NEVER_CAME)]


def test_an_answer_that_was_lost_failed_for_the_client_alone(transfers: Transfers) -> None:
    """The reply is there, so its row is one that went well; why the client tried again stands beside it."""
    transfers.arrive(1)
    transfers.tell(attempt=1, failure="connection reset", client_start_raw_ns=290, client_end_raw_ns=500)
    assert transfers.written() == [(1, "ok", 300, 290, "connection reset")]


@pytest.mark.parametrize(("ended", "why"), [(None, "the client asked again"), ("connection stalled", "connection stalled")])
def test_a_message_that_is_sent_again_has_a_row_for_each_attempt(transfers: Transfers, ended: str | None, why: str) -> None:
    """The first is written as failed when the second goes out, with how its connection ended."""
    transfers.task.attempt = 1
    transfers.log.downlink_began(transfers.task, 10, 9000, cast(Connection, FakeConnection(ended)))
    transfers.task.attempt = 2
    transfers.log.downlink_began(transfers.task, 30, 9000, cast(Connection, FakeConnection()))
    assert transfers.written() == [(1, "failed", 10, None, why)]
    transfers.log.lost(transfers.task, Symptom("downlink", "silence", "nothing heard for 9.0 s"))
    assert transfers.written()[1:] == [(2, "failed", 30, None, "nothing heard for 9.0 s")]


def test_a_downlink_that_hangs_until_its_round_goes_on_has_failed(transfers: Transfers) -> None:
    """A stopped client has taken a part: when it goes on and the rest has left, that does not make it one that went well."""
    connection = cast(Connection, FakeConnection())
    transfers.log.downlink_began(transfers.task, 10, 9000, connection)
    transfers.log.lost(transfers.task, Symptom("downlink", "silence", "nothing heard for 4.0 s"))
    transfers.log.downlink_sent(transfers.task, 90, connection)
    transfers.log.close()
    assert transfers.written() == [(1, "failed", 10, None, "nothing heard for 4.0 s")]


def test_what_is_under_way_at_the_end_of_the_run_has_failed(transfers: Transfers) -> None:
    """The server was told to end: a message that had left and one that had not; of the first the client never told."""
    connection = cast(Connection, FakeConnection())
    transfers.log.downlink_began(transfers.task, 10, 9000, connection)
    transfers.log.downlink_sent(transfers.task, 20, connection)
    other = Task(3, "train", "n", 1, transfers.client, 0)
    transfers.log.downlink_began(other, 30, 9000, cast(Connection, FakeConnection()))
    transfers.log.close()
    assert transfers.written() == [(1, "ok", 10, None, NEVER_CAME), (1, "failed", 30, None, NEVER_WHOLE)]


@pytest.mark.parametrize("direction", ["downlink", "uplink"])
def test_objects_that_do_not_all_come_are_a_row(transfers: Transfers, direction: str) -> None:
    """As of a bundle: when the round goes on without the client."""
    transfers.log.objects_began(transfers.task, direction, 10)
    transfers.log.lost(transfers.task, Symptom(direction, "silence", "nothing heard for 4.0 s"))
    (row,) = transfers.rows["transfers.csv"]
    assert (row["transport"], row["direction"]) == ("objects", direction)
    assert transfers.written() == [(1, "failed", 10, None, "nothing heard for 4.0 s")]


def test_an_uplink_that_hangs_until_its_round_goes_on_is_one_row(transfers: Transfers) -> None:
    """Its connection may break, or its end come, when nobody waits for it any more."""
    transfers.log.uplink_began(transfers.task, 1, 100)
    transfers.log.lost(transfers.task, Symptom("uplink", "silence", "nothing heard for 4.0 s"))
    transfers.log.uplink_broke(transfers.task, 1, 100, 900, 5000, "connection closed by the client")
    transfers.log.close()
    assert transfers.written() == [(1, "failed", 100, None, "nothing heard for 4.0 s")]
