"""The trace of a client's own rate: order in time and the thread that plays it."""

import itertools
import threading
from typing import Any

from fltestbed.links.profile import TraceEntry
from fltestbed.links.trace import TracePlayer, schedule


def entry(at_s: float, **keys: Any) -> TraceEntry:
    return TraceEntry.model_validate({"client": 0, "at-s": at_s, "uplink-mbit": 1.0} | keys)


def test_entries_come_in_order_of_time() -> None:
    """Entries are played by their time; those of one moment in the order of the file."""
    late, first, second = entry(9), entry(2, client=1), entry(2, client=2)
    assert list(schedule([late, first, second])) == [(2, first), (2, second), (9, late)]


def test_repeated_entries_return() -> None:
    """An entry with repeat-s comes again at each multiple of it, between the others."""
    fade, recovery = entry(10, **{"repeat-s": 10.0}), entry(15, **{"repeat-s": 10.0})
    times = [at_s for at_s, _ in itertools.islice(schedule([fade, recovery]), 5)]
    assert times == [10, 15, 20, 25, 30]


def test_player_applies_what_is_due_and_stops_when_told() -> None:
    """An entry at time zero is applied at once; one that is due in an hour does not keep `stop` waiting."""
    applied: list[TraceEntry] = []
    done = threading.Event()

    def apply(item: TraceEntry) -> None:
        applied.append(item)
        done.set()

    now, later = entry(0), entry(3600)
    player = TracePlayer([now, later], apply)
    player.start()
    assert done.wait(10)
    player.stop()
    assert applied == [now]


def test_player_that_never_started_can_be_stopped() -> None:
    """A network whose trace was not started closes all the same."""
    TracePlayer([entry(0)], lambda _: None).stop()
