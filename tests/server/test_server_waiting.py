"""The line that says for whom a run waits, and until when."""

import time

import pytest

from fltestbed.clock import Clock
from fltestbed.errors import TestbedError
from fltestbed.server.waiting import Waiting
from tests.server.lab import Lab
from tests.server.test_server_roster import facts


class Moment:
    """A clock that stands still until it is moved; midnight of the wall clock is its second 0."""

    def __init__(self) -> None:
        self.second = 0.0
        midnight_s = time.mktime((2026, 1, 5, 0, 0, 0, 0, 0, -1))
        self.clock = Clock(lambda: int(self.second * 1e9), lambda: int((midnight_s + self.second) * 1e9))


@pytest.fixture
def moment(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Moment:
    """The same clock for all that look at one."""
    moment = Moment()
    for part in (lab.presence, lab.watch):
        monkeypatch.setattr(part, "_clock", moment.clock)
    lab.waiting = Waiting(lab.log, lab.roster, lab.presence, lab.watch, 60.0, moment.clock)
    for node, name in ((1, "pi-1"), (2, "pi-2")):
        lab.roster.join(node, facts(name=name, partition=node - 1))
        lab.presence.heard(node, None)
    return moment


def send(lab: Lab, moment: Moment) -> None:
    now = int(moment.second * 1e9)
    lab.log.sent(3, "train", [(f"m{node}", node, lab.roster.client(node)) for node in (1, 2)], now, now)


def test_the_last_one_is_named_with_what_is_seen_of_it(lab: Lab, moment: Moment) -> None:
    """Not as long as the others took, half as long again; then who, in which phase, and the limit with its hour."""
    moment.second = 100.0
    send(lab, moment)
    task = lab.log.task_of("m2")
    assert task is not None
    lab.log.uplink_ended(task, 120 * 10**9)
    moment.second = 129.0
    assert str(lab.waiting) == ""
    moment.second = 131.0
    assert str(lab.waiting) == (
        "round 3 waits for pi-1 (queue: nothing heard for 131.0 s); until 00:11:40 (569 s more), "
        "server.round-deadline-s = 600"
    )


def test_all_are_awaited_in_silence_until_half_of_the_limit_is_over(lab: Lab, moment: Moment) -> None:
    """A long training is no news."""
    send(lab, moment)
    moment.second = 299.0
    assert str(lab.waiting) == ""
    moment.second = 301.0
    assert str(lab.waiting).startswith("round 3 waits for pi-1 (queue: nothing heard for 301.0 s), pi-2 (queue")


def test_an_app_that_waits_for_clients_is_told_and_ended(lab: Lab, moment: Moment) -> None:
    """Who is away and until when; at `deadlines.return-s` the run fails, unless the app has sent its messages meanwhile."""
    lab.presence.lose(2)
    lab.waiting.asked(1)
    moment.second = 6.0
    lab.waiting.asked(1)
    assert str(lab.waiting) == (
        "round 1 waits for more clients, 1 client is there; away: pi-1, pi-2; until 00:01:00 (54 s more)"
    )
    moment.second = 60.1
    with pytest.raises(
        TestbedError, match=r"waited for more than 1 clients for 60 s \(deadlines.return-s\); away: pi-1, pi-2"
    ):
        lab.waiting.asked(1)
    lab.waiting.sent()
    lab.waiting.asked(1)
