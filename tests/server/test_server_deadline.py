"""When a message is given up, and what is on record of it."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from fltestbed.clock import Clock
from fltestbed.config import Deadlines, Experiment
from fltestbed.config_file import validate
from fltestbed.measure.tcp_path import PathState
from fltestbed.server.deadline import DeadlineWatch, LearnedDeadline
from fltestbed.server.exchange import Exchange
from fltestbed.server.presence import Presence
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import Client, Task
from fltestbed.server.transfers import TransferLog
from tests.server.recorded import Rows

S = 1_000_000_000
WELL = PathState(0, 0, 0, 0.1, 0.1, 1000)


class FakeExchange:
    """Remembers what it was told to give up."""

    def __init__(self) -> None:
        self.expired: list[str] = []

    def expire(self, message_id: str, run_id: int) -> None:
        """Give up one."""
        assert run_id == 7
        self.expired.append(message_id)


@dataclass
class FakeLine:
    """A connection to a client."""

    path: PathState = WELL
    ended: str | None = None
    requests: int = 0
    has_delivered: bool = True
    told: list[str] = field(default_factory=list)

    def abandon(self, reason: str) -> None:
        """Be given up."""
        self.told.append(reason)

    def abandon_if_stalled(self) -> None:
        """Be looked at."""


class Watched:
    """A round of two messages, sent at second 10, and the clock at second 10."""

    def __init__(self, **deadlines: Any) -> None:
        self.now_s = 10.0
        clock = Clock(raw_ns=lambda: int(self.now_s * S))
        experiment = validate(Experiment, {"name": "x", "server": {"round-deadline-s": 100.0}, "deadlines": deadlines}, "x")
        self.rows, self.presence, self.exchange = Rows(), Presence(clock), FakeExchange()
        self.log = RoundLog(self.rows, 0, observe=self.presence.observe)
        transfers = TransferLog(self.rows)
        self.watch = DeadlineWatch(
            experiment, self.log, cast(Exchange, self.exchange), transfers, self.presence, 7, clock
        )  # fmt: skip
        self.lines = {1: FakeLine(), 2: FakeLine()}
        for node, line in self.lines.items():
            self.presence.heard(node, line)
        self.send(1)

    def send(self, round_: int, message_type: str = "train") -> None:
        """Send both messages of a round."""
        now = int(self.now_s * S)
        messages = [("a", 1, Client("pi-a", "5g")), ("b", 2, Client("pi-b", "5g"))]
        self.log.sent(round_, message_type, [(f"{name}{round_}", node, client) for name, node, client in messages], now, now)

    def task(self, message_id: str) -> Task:
        """A message that is under way."""
        task = self.log.task_of(message_id)
        assert task is not None
        return task

    def at(self, second: float) -> None:
        """Let it be that second, and look."""
        self.now_s = second
        self.watch.look()

    def answer(self, message_id: str, second: float) -> None:
        """A reply arrives whole, and the ServerApp holds it."""
        self.log.uplink_ended(self.task(message_id), int(second * S))
        self.log.held(message_id, int(second * S), None)


def test_a_message_is_given_up_at_the_rounds_deadline() -> None:
    """Not before, and not one that is answered; the row has the phase and the symptom, and says which limit was over."""
    watched = Watched()
    watched.answer("b1", 20.0)
    watched.at(109.9)
    assert watched.exchange.expired == []
    watched.at(110.0)
    assert watched.exchange.expired == ["a1"]
    (event,) = watched.rows["events.csv"]
    assert (event["client"], event["round"], event["phase"], event["symptom"]) == ("pi-a", 1, "queue", "silence")
    assert event["detail"] == "nothing heard for 0.1 s (server.round-deadline-s = 100)"
    assert (event["duration_s"], event["time_s"]) == (100.0, 110.0)
    (row,) = [row for row in watched.rows.phases("pi-a") if row["status"] == "timeout"]
    assert row["phase"] == "queue"
    watched.at(200.0)
    assert watched.exchange.expired == ["a1"]


def test_a_phase_has_a_limit_of_its_own_from_when_it_began() -> None:
    """Downlink from 11 s on with 5 s; training from 14 s on with 20 s: of that, 34 s is the end."""
    watched = Watched(**{"downlink-s": 5.0, "train-s": 20.0})
    watched.answer("b1", 10.5)
    task = watched.task("a1")
    watched.log.downlink_started("a1", 11 * S, 1000)
    watched.at(11.0)
    assert str(watched.watch.limit_of(task)) == "deadlines.downlink-s = 5"
    watched.log.downlink_sent(task)
    watched.at(14.0)
    watched.at(33.9)
    assert watched.exchange.expired == []
    watched.at(34.0)
    assert watched.exchange.expired == ["a1"]
    assert watched.rows["events.csv"][0]["detail"].endswith("(deadlines.train-s = 20)")


@pytest.mark.parametrize(
    ("phase", "message_type"), [("queue", "train"), ("train", "train"), ("evaluate", "evaluate"), ("uplink", "train")]
)
def test_every_phase_of_a_client_has_its_key(phase: str, message_type: str) -> None:
    """The limit of 3 s is that phase's alone, and runs from the moment at which the server saw it begin, here at 12 s."""
    watched = Watched(**{f"{phase}-s": 3.0})
    watched.log.gathered(10 * S)
    watched.now_s = 12.0
    watched.send(2, message_type)
    if phase != "queue":
        task = watched.task("a2")
        watched.log.downlink_started("a2", 12 * S, 1000)
        watched.log.downlink_sent(task)
        if phase == "uplink":
            watched.log.uplink_started(task)
    watched.answer("b2", 12.0)
    watched.at(12.0)
    watched.at(14.9)
    assert watched.exchange.expired == []
    watched.at(15.0)
    assert watched.exchange.expired == ["a2"]
    assert watched.rows["events.csv"][-1]["detail"].endswith(f"(deadlines.{phase}-s = 3)")


def test_a_reply_that_has_arrived_is_not_given_up() -> None:
    """What the ServerApp takes long to collect is no fault of the client's."""
    watched = Watched()
    watched.log.uplink_ended(watched.task("a1"), 20 * S)
    watched.at(500.0)
    assert watched.exchange.expired == ["b1"]


def test_bytes_that_are_not_acknowledged_are_still_in_the_downlink() -> None:
    """All was handed to the kernel, so the server's last stamp is of its training; the other host has not got all of it."""
    watched = Watched()
    task = watched.task("a1")
    watched.log.downlink_started("a1", 11 * S, 1000)
    task.downlink_line = watched.lines[1]
    watched.lines[1].has_delivered = False
    watched.log.downlink_sent(task)
    watched.lines[1].path = PathState(3, 0, 2, 4.5, 9.0, 500)
    seen = watched.presence.observe(task)
    assert (seen.phase, seen.kind, seen.detail) == ("downlink", "silence", "nothing acknowledged for 4.5 s")
    watched.lines[1].ended = "connection stalled: nothing acknowledged for 4.5 s"
    assert watched.presence.observe(task).kind == "connection stalled"


def test_the_limit_of_a_downlink_holds_until_it_is_acknowledged(watched_downlink: Watched) -> None:
    """All was handed to the kernel at 12 s and is acknowledged at 15 s: until then the downlink's limit of 5 s runs, from
    11 s on, and training's of 20 s from then.
    """
    watched = watched_downlink
    task = watched.task("a1")
    watched.at(15.9)
    assert str(watched.watch.limit_of(task)) == "deadlines.downlink-s = 5"
    assert watched.exchange.expired == []
    watched.lines[1].has_delivered = True
    watched.at(15.95)
    assert str(watched.watch.limit_of(task)) == "deadlines.train-s = 20"
    watched.at(35.9)
    assert watched.exchange.expired == []
    watched.at(36.0)
    assert watched.exchange.expired == ["a1"]


def test_a_downlink_that_is_never_acknowledged_ends_at_its_own_limit(watched_downlink: Watched) -> None:
    """A stopped client whose buffers are full: it is missed in the downlink, at the downlink's limit."""
    watched = watched_downlink
    watched.at(16.0)
    assert watched.exchange.expired == ["a1"]
    (event,) = watched.rows["events.csv"]
    assert (event["phase"], event["detail"]) == ("downlink", "nothing heard for 0.1 s (deadlines.downlink-s = 5)")


def test_what_was_acknowledged_once_is_no_downlink_again(watched_downlink: Watched) -> None:
    """Later bytes on the same connection, as the answer to a clock exchange while the client trains, may get stuck."""
    watched = watched_downlink
    watched.lines[1].has_delivered = True
    watched.at(13.0)
    watched.lines[1].has_delivered = False
    watched.at(14.0)
    assert watched.presence.observe(watched.task("a1")).phase == "train"


@pytest.fixture
def watched_downlink() -> Watched:
    """The first message went into the kernel from 11 s to 12 s, and its client's host has not got all of it."""
    watched = Watched(**{"downlink-s": 5.0, "train-s": 20.0})
    watched.answer("b1", 10.5)
    watched.log.downlink_started("a1", 11 * S, 1000)
    task = watched.task("a1")
    task.downlink_line = watched.lines[1]
    watched.lines[1].has_delivered = False
    watched.at(11.0)
    watched.log.downlink_sent(task)
    watched.at(12.0)
    return watched


def test_a_client_is_away_until_it_is_heard_again() -> None:
    """From the moment at which a round went on without it; the next sign of life says when that was."""
    watched = Watched()
    watched.at(110.0)
    assert watched.presence.away() == {1, 2}
    watched.now_s = 117.0
    assert watched.presence.heard(1, watched.lines[1]) == 110 * S
    assert watched.presence.heard(1, watched.lines[1]) is None
    assert watched.presence.away() == {2}


def test_a_connection_that_its_client_has_replaced_is_given_up() -> None:
    """If a request is under way there on which nothing comes; one that is merely kept, or busy, is left alone."""
    watched = Watched()
    idle, stuck, busy = FakeLine(), FakeLine(PathState(0, 0, 0, 9.0, 4.0, 1000), requests=1), FakeLine(requests=1)
    for line in (idle, stuck, busy, FakeLine()):
        watched.presence.heard(1, line)
    assert (idle.told, busy.told) == ([], [])
    assert stuck.told == ["connection replaced: the client has opened another"]


def test_a_learned_deadline_is_a_multiple_of_a_quantile() -> None:
    """Of 1, 2, 3 and 4 s the median is 2.5 s, three times that 7.5 s; with 10 s of a second round it is 3 s, so 9 s."""
    learned = LearnedDeadline(validate(Deadlines, {"learned": True, "quantile": 0.5, "least-s": 1.0, "rounds": 2}, "x"))
    assert learned.limit_s == float("inf")
    learned.learn(1, [1.0, 2.0, 3.0])
    learned.learn(1, [4.0])
    assert learned.limit_s == 7.5
    learned.learn(2, [10.0])
    assert learned.limit_s == 9.0
    learned.learn(3, [0.1, 0.1, 0.1])  # the first round is forgotten: the median of 10 and three times 0.1
    assert learned.limit_s == 1.0


def test_nothing_is_learned_unasked() -> None:
    """The default is the configured deadline alone."""
    learned = LearnedDeadline(Deadlines())
    learned.learn(1, [1.0])
    assert learned.limit_s == float("inf")


def test_a_miss_makes_the_next_learned_deadline_longer() -> None:
    """Both answer in 2 s: 6 s at three times the maximum. One misses that, so the next is 18 s."""
    watched = Watched(learned=True, quantile=1.0, **{"least-s": 1.0})
    watched.answer("a1", 12.0)
    watched.answer("b1", 12.0)
    watched.log.gathered(12 * S)
    watched.now_s = 20.0
    watched.send(2)
    assert watched.watch.limit_of(watched.task("a2")).seconds == pytest.approx(6.0)
    watched.answer("b2", 21.0)
    watched.at(26.0)
    assert watched.rows["events.csv"][0]["detail"].endswith("(learned deadline = 6)")
    watched.log.gathered(26 * S)
    watched.now_s = 30.0
    watched.send(3)
    assert watched.watch.limit_of(watched.task("a3")).seconds == pytest.approx(18.0)
