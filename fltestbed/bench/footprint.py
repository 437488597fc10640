"""Memory of processes while they run, read from /proc in a thread.

``VmHWM`` is the kernel's own high-water mark of a process's resident memory: no peak between two readings is missed. It
counts pages that are shared with other processes (libraries) in full. The proportional set size (PSS) divides them by the
processes that share them, but by all of this machine, and the kernel keeps no mark of it. What a process would have on a
host of its own is the mark less its discount, which is read from ``smaps``: of the shared pages of each mapped file, all but
one part in as many as there are watched processes that map it.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fltestbed.clock import Clock

INTERVAL_S = 0.05
READINGS_PER_LOOK = 10


@dataclass
class Footprint:
    """What was read of one process.

    Attributes
    ----------
    peak_bytes : int
        Largest reading of VmHWM, and never less than one of the resident memory.
    discount_bytes : int
        What sharing among the watched processes saves, when the process was seen largest; 0 when it was not asked for.
    resident : list of (int, int)
        Raw ns and resident bytes of each reading.
    cpu_s : list of (int, float)
        Raw ns and the process's own CPU time since its start, of each reading.
    """

    peak_bytes: int = 0
    discount_bytes: int = 0
    resident: list[tuple[int, int]] = field(default_factory=list)
    cpu_s: list[tuple[int, float]] = field(default_factory=list)
    _largest: int = 0

    @property
    def peak_pss_bytes(self) -> int:
        """Peak of the PSS on a host where the watched processes are alone."""
        return self.peak_bytes - self.discount_bytes

    def cpu_between(self, start_ns: int, end_ns: int) -> float:
        """CPU seconds from the reading before `start_ns` to the one before `end_ns`."""
        first, last = (
            next((seconds for at, seconds in reversed(self.cpu_s) if at <= raw_ns), 0.0) for raw_ns in (start_ns, end_ns)
        )
        return last - first

    def read(self, raw_ns: int, pid: int) -> None:
        """Take a reading."""
        times = psutil.Process(pid).cpu_times()
        self.cpu_s.append((raw_ns, times.user + times.system))
        status = kilobytes(Path(f"/proc/{pid}/status").read_text())
        self.resident.append((raw_ns, status["VmRSS"] * 1024))
        # The kernel counts pages on each CPU by itself, so that its mark may be a few pages below what was read before.
        self.peak_bytes = max(self.peak_bytes, status["VmHWM"] * 1024, status["VmRSS"] * 1024)

    def share(self, discount_bytes: int) -> None:
        """Take note of a discount, if the process was never larger than at the last reading."""
        if self.resident and self.resident[-1][1] >= self._largest:
            self._largest, self.discount_bytes = self.resident[-1][1], discount_bytes

    def resident_at(self, raw_ns: int) -> int:
        """Resident bytes at the last reading until then; 0 before the first."""
        return next((size for at, size in reversed(self.resident) if at <= raw_ns), 0)


class Watch:
    """Readings of several processes, by name.

    Parameters
    ----------
    clock : Clock
    with_sharing : bool
        Look at what they share too, every `READINGS_PER_LOOK` readings: that takes some milliseconds.
    """

    def __init__(self, clock: Clock, *, with_sharing: bool) -> None:
        self._clock = clock
        self._with_sharing = with_sharing
        self._readings = 0
        self._pids: dict[str, int] = {}
        self.footprints: dict[str, Footprint] = {}

    def add(self, name: str, pid: int) -> None:
        """Read this process too, from now on."""
        self.footprints[name] = Footprint()
        self._pids[name] = pid

    def add_child(self, name: str, parent: int, module: str) -> bool:
        """Read the child of `parent` that runs ``python -m module``; False when there is none yet."""
        with suppress(psutil.Error):
            for child in psutil.Process(parent).children():
                with suppress(psutil.Error):
                    if module in child.cmdline():
                        self.add(name, child.pid)
                        return True
        return False

    def read(self) -> None:
        """Take one reading of all that are there."""
        for name, pid in list(self._pids.items()):
            with suppress(OSError, KeyError, psutil.Error):
                self.footprints[name].read(self._clock.raw_ns(), pid)
        if self._with_sharing and self._readings % READINGS_PER_LOOK == 0:
            shared: dict[str, dict[str, int]] = {}
            for name, pid in list(self._pids.items()):
                with suppress(OSError):
                    shared[name] = shared_bytes(Path(f"/proc/{pid}/smaps").read_text())
            if all(shared.values()):  # one that is ending maps nothing: what others share with it would seem their own
                for name, discount in discounts(shared).items():
                    self.footprints[name].share(discount)
        self._readings += 1


def discounts(shared: dict[str, dict[str, int]]) -> dict[str, int]:
    """What each process saves by sharing files with the others of these alone.

    Parameters
    ----------
    shared : dict of dict
        Bytes of shared pages, by process and file.
    """
    sharers = Counter(file for files in shared.values() for file in files)
    return {name: sum(size - size // sharers[file] for file, size in files.items()) for name, files in shared.items()}


def shared_bytes(smaps: str) -> dict[str, int]:
    """Bytes of pages that a process shares with any other, by file, from the text of its ``smaps``."""
    shared: dict[str, int] = {}
    file = ""
    for line in smaps.splitlines():
        words = line.split(maxsplit=5)
        if not words[0].endswith(":"):  # the line that begins a mapping: addresses, rights, offset, device, inode, path
            file = words[5] if len(words) == 6 else ""
        elif words[0] in {"Shared_Clean:", "Shared_Dirty:"} and file:
            shared[file] = shared.get(file, 0) + int(words[1]) * 1024
    return shared


def kilobytes(text: str) -> dict[str, int]:
    """The values of a file of /proc that are given in kB, by name."""
    words = (line.split() for line in text.splitlines())
    return {word[0].rstrip(":"): int(word[1]) for word in words if len(word) == 3 and word[2] == "kB"}


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Take readings within the block, every `INTERVAL_S`."""
    over = threading.Event()

    def read() -> None:
        while not over.wait(INTERVAL_S):
            watch.read()

    thread = threading.Thread(target=read, name="memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
