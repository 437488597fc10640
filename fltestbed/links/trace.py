"""A client's own rate over time: when which entry of a profile's trace applies, and the thread that applies it."""

import heapq
import threading
from collections.abc import Callable, Iterator, Sequence

from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.links.profile import TraceEntry


def schedule(entries: Sequence[TraceEntry]) -> Iterator[tuple[float, TraceEntry]]:
    """Yield each entry with its time in seconds since the start, in order of time; endless when one of them repeats.

    Entries of the same moment come in the order of the file.
    """
    waiting = [(entry.at_s, number) for number, entry in enumerate(entries)]
    heapq.heapify(waiting)
    while waiting:
        at_s, number = heapq.heappop(waiting)
        entry = entries[number]
        yield at_s, entry
        if entry.repeat_s is not None:
            heapq.heappush(waiting, (at_s + entry.repeat_s, number))


class TracePlayer:
    """Applies a trace in a thread of its own, until it ends or `stop` is called.

    Parameters
    ----------
    entries : sequence of TraceEntry
        What to apply.
    apply : callable
        Called with each entry when its time has come, in the player's thread.
    clock : Clock
        Times count from `start` on this clock.
    """

    def __init__(
        self, entries: Sequence[TraceEntry], apply: Callable[[TraceEntry], None], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._entries = entries
        self._apply = apply
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._play, name="link-trace", daemon=True)

    def start(self) -> None:
        """Start at time zero of the trace."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; rates stay as they are."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _play(self) -> None:
        start_ns = self._clock.raw_ns()
        for at_s, entry in schedule(self._entries):
            if self._stopped.wait(max(0.0, at_s - (self._clock.raw_ns() - start_ns) / 1e9)):
                return
            self._apply(entry)
