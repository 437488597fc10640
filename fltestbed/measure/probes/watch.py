"""Each probe at its own interval, in the probe process."""

import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fltestbed.clock import Clock
from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.probe import Probe, Row
from fltestbed.measure.probes.tools import Toolbox

LONGEST_PAUSE_S = 60.0
"""Between two tries of a probe that fails again and again."""

REASON_LENGTH = 280
"""Characters of a reason; with "at the end: " it is still within what the server takes."""

Say = Callable[[dict[str, Any]], None]


@dataclass
class Upkeep:
    """What one probe has done and cost so far.

    Attributes
    ----------
    longest_s : float
        The longest reading.
    latest_s : float
        The largest delay of a reading: how long it waited for the processor.
    cpu_s : float
        CPU time of all readings, with the programs that were asked.
    """

    tools: Toolbox
    samples: int = 0
    failures: int = 0
    failure: str = ""
    in_a_row: int = 0
    cpu_s: float = 0.0
    longest_s: float = 0.0
    latest_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> dict[str, Any]:
        """For the manifest."""
        told = self.facts | {
            "samples": self.samples, "failures": self.failures, "longest_s": round(self.longest_s, 6),
            "latest_s": round(self.latest_s, 6),
            "cpu_s_per_sample": round(self.cpu_s / self.samples, 6) if self.samples else None,
        }  # fmt: skip
        return told | ({"failure": self.failure} if self.failure else {})


class Watch:
    """Opens probes, reads each at its interval in a thread of its own, and closes them.

    Parameters
    ----------
    probes : mapping of str to callable (Toolbox) -> Probe
        How each probe is made, by its name; what it raises counts as raised by its `open`.
    say : callable (dict) -> None
        Gets ``{"row": table, ...}`` for a row, ``{"probe": name, ...}`` for what the manifest should say, and
        ``{"trouble": name, "reason": ...}`` for the first failure of a probe. Called on several threads, one at a time.
    clock : Clock
    limit_s : float
        For the programs that probes ask.
    """

    def __init__(self, probes: Mapping[str, Callable[[Toolbox], Probe]], say: Say, clock: Clock, limit_s: float) -> None:
        self._say = say
        self._clock = clock
        self._saying = threading.Lock()
        self._joining: Row = {}
        self.is_on = True
        """Off, the probes stay open and nothing is read."""
        self._stop = threading.Event()
        turn = threading.Lock()
        self._upkeep = {name: Upkeep(Toolbox(turn, limit_s)) for name in probes}
        self._threads = [
            threading.Thread(target=self._run, args=(name, make), name=f"{name} probe", daemon=True)
            for name, make in probes.items()
        ]

    def start(self) -> None:
        """Open the probes and begin to read."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Read no more and close the probes; each has told what the manifest should say when this returns."""
        self._stop.set()
        for upkeep in self._upkeep.values():
            upkeep.tools.hurry()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str, make: Callable[[Toolbox], Probe]) -> None:
        upkeep = self._upkeep[name]
        try:
            probe = make(upkeep.tools)
            upkeep.facts = probe.open()
        except TestbedError as error:
            is_over = self._stop.is_set()
            self._tell(
                {"probe": name, "on": False, "reason": "the run was over before it answered" if is_over else _reason(error)}
            )
            if not is_over and not isinstance(error, HostError):
                self._tell({"trouble": name, "reason": _reason(error)})
            return
        upkeep.facts |= {"on": True, "interval_s": probe.interval_s}
        self._tell({"probe": name} | upkeep.facts)
        self._read_at_intervals(probe, upkeep)
        try:
            upkeep.facts |= probe.close()
        except TestbedError as error:
            self._tell({"trouble": name, "reason": f"at the end: {_reason(error)}"})
            upkeep.failure = _reason(error)
        self._tell({"probe": name} | upkeep.summary)

    def _read_at_intervals(self, probe: Probe, upkeep: Upkeep) -> None:
        due = time.monotonic()
        pause_s = 0.0 if probe.joins else probe.interval_s  # what joins a row should be there when the first one comes
        while not self._stop.wait(max(0.0, due + pause_s - time.monotonic())):
            due += pause_s
            if not self.is_on:
                continue
            late_s = time.monotonic() - due
            upkeep.latest_s = max(upkeep.latest_s, late_s)
            if late_s > probe.interval_s:
                due += late_s  # readings that were missed are not made up for
            self._read(probe, upkeep)
            pause_s = min(probe.interval_s * 2**upkeep.in_a_row, max(LONGEST_PAUSE_S, probe.interval_s))

    def _read(self, probe: Probe, upkeep: Upkeep) -> None:
        raw_ns = self._clock.raw_ns()
        began_s, cpu_s = time.monotonic(), time.thread_time() + upkeep.tools.cpu_s
        try:
            rows = probe.read()
        except TestbedError as error:
            if self._stop.is_set():
                return
            upkeep.failures += 1
            upkeep.in_a_row += 1
            upkeep.failure = _reason(error)
            if upkeep.failures == 1:
                self._tell({"trouble": probe.name, "reason": _reason(error)})
            return
        finally:
            upkeep.cpu_s += time.thread_time() + upkeep.tools.cpu_s - cpu_s
            upkeep.longest_s = max(upkeep.longest_s, time.monotonic() - began_s)
        upkeep.samples += 1
        upkeep.in_a_row = 0
        for row in rows:
            self._take(probe, {"raw_ns": raw_ns} | row)

    def _take(self, probe: Probe, row: Row) -> None:
        with self._saying:
            if probe.joins:
                self._joining |= {key: value for key, value in row.items() if key != "raw_ns"}
                return
            if probe.table == "system":
                row, self._joining = row | self._joining, {}
            self._say({"row": probe.table} | row)

    def _tell(self, fact: dict[str, Any]) -> None:
        with self._saying:
            self._say(fact)


def _reason(error: Exception) -> str:
    """What an error says, short enough for the manifest: several programs may have been asked."""
    return textwrap.shorten(str(error), REASON_LENGTH, placeholder=" ...")
