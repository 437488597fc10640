"""The log of the gNB on this host, followed while it grows."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fltestbed.clock import Clock
from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.gnb_report import GnbReports, Source, Stamp
from fltestbed.measure.probes.probe import Row

LONGEST_LINE_BYTES = 1 << 13
"""A report's lines have some hundred bytes; a longer one is left out to its end."""

MOST_BYTES = 1 << 22
"""Read at once. A log that grows faster than that is not at a level that can be followed: what is skipped is counted."""

BEGINNING_BYTES = 1 << 20
"""Of the log as it is found: a gNB says its TDD pattern when it starts."""

OLDEST_NS = 60_000_000_000
NEWEST_NS = 100_000_000
"""A line that was read now cannot have been written later, or longer before the reading before: else its stamp is of another
clock."""

PAIR_TRIES = 8
"""A process of the lowest priority may be held up between two clocks: the pair that was read the fastest counts."""

MonotonicNs = Callable[[], int]


class LogTail:
    """Whole lines that are added to a file, also when it is cut short, or moved away and begun anew.

    Attributes
    ----------
    skipped_bytes : int
        Of lines that were too long, and of what was too much at once.
    """

    def __init__(self, path: Path) -> None:
        self.skipped_bytes = 0
        self._path = path
        self._file = path.open("rb")
        self._rest = b""
        self._is_skipping = False

    def beginning(self) -> Iterator[str]:
        """Lines from the file's beginning, some; what comes later begins at its present end."""
        head = self._file.read(BEGINNING_BYTES)
        end = self._file.seek(0, os.SEEK_END)
        self._is_skipping = end > 0 and not self._ends_with_a_line(end)
        for line in head.split(b"\n")[:-1]:
            yield line[:LONGEST_LINE_BYTES].decode(errors="replace")

    def lines(self) -> Iterator[str]:
        """Whole lines since the last time.

        Raises
        ------
        OSError
            It cannot be read; the file was moved away, all of it has been read, and there is no other in its place.
        """
        is_moving = False
        for line in self._added():
            is_moving = True
            yield line
        try:
            named = self._path.stat()
        except FileNotFoundError:
            if is_moving:
                return
            raise
        own = os.fstat(self._file.fileno())
        if (named.st_dev, named.st_ino) != (own.st_dev, own.st_ino):
            yield from self._added()  # what was written until it was moved away
            self._begin_anew()
            yield from self._added()
        elif own.st_size < self._file.tell():
            self._begin_anew()
            yield from self._added()

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def _begin_anew(self) -> None:
        self._file.close()
        self._file = self._path.open("rb")
        self._rest, self._is_skipping = b"", False

    def _ends_with_a_line(self, end: int) -> bool:
        self._file.seek(end - 1)
        return self._file.read(1) == b"\n"

    def _added(self) -> Iterator[str]:
        left = os.fstat(self._file.fileno()).st_size - self._file.tell()
        if left > MOST_BYTES:
            self.skipped_bytes += left - MOST_BYTES + len(self._rest)
            self._file.seek(left - MOST_BYTES, os.SEEK_CUR)
            self._rest, self._is_skipping = b"", True
        *lines, rest = (self._rest + self._file.read(MOST_BYTES)).split(b"\n")
        for line in lines:
            if self._is_skipping or len(line) > LONGEST_LINE_BYTES:
                self.skipped_bytes += len(line) + 1
                self._is_skipping = False
            else:
                yield line.decode(errors="replace")
        if len(rest) > LONGEST_LINE_BYTES or (self._is_skipping and rest):
            self.skipped_bytes += len(rest)
            rest, self._is_skipping = b"", True
        self._rest = rest


class GnbLogProbe:
    """Reads the reports of OpenAirInterface's or srsRAN's gNB.

    A row's time is the report's own where the log has stamps of this host's clocks, brought to the raw clock by a reading of
    both when the lines were read, at most `interval_s` later. Without stamps it is the time of that reading, and a report is
    that much older.

    Parameters
    ----------
    path : Path
    interval_s : float
    clock : Clock
    monotonic_ns : callable () -> int, optional
        CLOCK_MONOTONIC.
    """

    name = "gnb_log"
    table = "radio"
    joins = False

    def __init__(self, path: Path, interval_s: float, clock: Clock, monotonic_ns: MonotonicNs = time.monotonic_ns) -> None:
        self.interval_s = interval_s
        self._path = path
        self._clock = clock
        self._monotonic_ns = monotonic_ns
        self._tail: LogTail | None = None
        self._reports = GnbReports()
        self._sources: dict[str, int] = {}
        self._pairs: dict[Source, tuple[int, int]] = {}
        self._before_ns = 0

    def open(self) -> dict[str, Any]:
        """Find the log, and what its beginning says of the TDD pattern; reports count from now on."""
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise HostError(f"{self._path}: not a file; give the file that the gNB writes its log to")
            self._tail = LogTail(self._path)
        except FileNotFoundError:
            raise HostError(f"{self._path}: there is no such file; start the gNB before the server") from None
        except OSError as error:
            raise TestbedError(f"{self._path}: cannot be read: {error.strerror}; let the server's user read it") from error
        for line in self._tail.beginning():
            for _ in self._reports.take(line):
                pass
        self._reports = GnbReports(self._reports.tdd_pattern)  # and counters count from the first report on
        self._before_ns = self._clock.raw_ns()
        return {"reads": str(self._path)} | self._said()

    def read(self) -> list[Row]:
        """One row for each modem in each report since the last reading."""
        assert self._tail is not None  # it is open
        self._pairs.clear()
        since_ns = self._clock.raw_ns() - self._before_ns
        rows = []
        try:
            for line in self._tail.lines():
                rows += [self._placed(stamp, row, since_ns) for stamp, row in self._reports.take(line)]
        except OSError as error:
            raise TestbedError(f"{self._path}: cannot be read any more: {error.strerror}") from error
        self._before_ns += since_ns
        return rows

    def close(self) -> dict[str, Any]:
        """Where the times of the rows came from, and what was left out."""
        assert self._tail is not None  # it is open
        self._tail.close()
        skipped = {"skipped_bytes": self._tail.skipped_bytes} if self._tail.skipped_bytes else {}
        return {"stamped_by": dict(sorted(self._sources.items()))} | skipped | self._said()

    def _said(self) -> dict[str, Any]:
        return {"tdd_pattern": self._reports.tdd_pattern} if self._reports.tdd_pattern else {}

    def _placed(self, stamp: Stamp | None, row: Row, since_ns: int) -> Row:
        """A row with the raw clock's time of its report, which came since so long ago."""
        raw_ns, now_ns = self._pair("wall" if stamp is None else stamp.source)
        told = "reading"
        if stamp is not None:
            age_ns = now_ns - stamp.ns
            if -NEWEST_NS <= age_ns <= OLDEST_NS + since_ns:
                raw_ns, told = raw_ns - age_ns, stamp.source
            else:
                told = f"reading, {stamp.source} stamp not of this host's clock"
        self._sources[told] = self._sources.get(told, 0) + 1
        return {"raw_ns": raw_ns} | row

    def _pair(self, source: Source) -> tuple[int, int]:
        """The raw clock and another one at the same moment of this reading."""
        if source not in self._pairs:
            other = self._clock.wall_ns if source == "wall" else self._monotonic_ns
            tries = []
            for _ in range(PAIR_TRIES):
                before_ns, now_ns, after_ns = self._clock.raw_ns(), other(), self._clock.raw_ns()
                tries.append((after_ns - before_ns, (before_ns + after_ns) // 2, now_ns))
            _, raw_ns, now_ns = min(tries)
            self._pairs[source] = raw_ns, now_ns
        return self._pairs[source]
