"""How late a process stamps what it stamps, measured while it runs.

A stamp is taken when a process is told of an event, not when the event happens. Two things lie between, and both are the
machine's load, not the link:

loop lag
    An event loop that serves several clients is busy with one while the bytes of another wait. A kernel timer becomes
    readable at a known moment, as a socket does when its bytes come; how much later the loop handles it is what a byte that
    had come at that moment would have waited. (`loop.call_at` would measure itself: asyncio rounds its timeouts up to whole
    milliseconds.) Every expiry counts, also those that one long delay has swallowed.
scheduling delay
    Time in which the stamping thread could have run and had no CPU: the second field of the thread's schedstat
    (Documentation/scheduler/sched-stats.rst of Linux). Divided by its time slices it is what one wake-up waited on average.

Loop lag includes the scheduling delay of its own wake-ups.
"""

import asyncio
import ctypes
import os
import threading
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any

LAG_INTERVAL_S = 0.02
"""50 readings a second cost less than 0.2% of a core and find a delay of 20 ms or more always."""

_LEAST_S, _GROWTH, _BUCKETS = 10e-6, 1.25, 70
_BOUNDS_S = tuple(_LEAST_S * _GROWTH**step for step in range(_BUCKETS))
"""Upper ends of the histogram's buckets, 10 us to 49 s; a quantile is right to a quarter of itself, and never too small."""

_TFD_NONBLOCK, _TFD_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC  # the same values, by linux/timerfd.h
_TFD_TIMER_ABSTIME = 1


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: interval and first expiry, seconds and nanoseconds each."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "first_s", "first_ns"))


class Histogram:
    """Durations in seconds, counted in buckets that grow by a quarter each."""

    def __init__(self) -> None:
        self._counts = [0] * (_BUCKETS + 1)
        self.count = 0
        self.max_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self.count += 1
        self.max_s = max(self.max_s, seconds)

    def quantile_s(self, part: float) -> float | None:
        """The least bound below which this part of all lies, by the upper end of its bucket; None of nothing."""
        at_least, seen = part * self.count, 0
        for bound, count in zip((*_BOUNDS_S, self.max_s), self._counts, strict=True):
            seen += count
            if count and seen >= at_least:
                return min(bound, self.max_s)
        return None


class LoopLag:
    """Watches the event loop that it is started in.

    Attributes
    ----------
    histogram : Histogram
        Of all readings so far.
    """

    def __init__(self, interval_s: float = LAG_INTERVAL_S) -> None:
        self._interval_ns = round(interval_s * 1e9)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = -1
        self._next_ns = 0
        self._latest_max_s: float | None = None
        self.histogram = Histogram()

    def start(self) -> None:
        """Watch the running loop, until `stop`; again after a `stop`, too. May be called twice."""
        if self._timer >= 0:
            return
        self._timer = self._libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._next_ns = time.monotonic_ns() + self._interval_ns
        spec = _TimerSpec(*divmod(self._interval_ns, 10**9), *divmod(self._next_ns, 10**9))
        self._libc.timerfd_settime(self._timer, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)
        asyncio.get_running_loop().add_reader(self._timer, self._expired)

    def stop(self) -> None:
        """Watch no more. May be called twice."""
        if self._timer >= 0:
            asyncio.get_running_loop().remove_reader(self._timer)
            os.close(self._timer)
            self._timer = -1

    def take_max_s(self) -> float | None:
        """The largest lag since the last call; None without a reading. May be called from another thread."""
        latest, self._latest_max_s = self._latest_max_s, None
        return latest

    def _expired(self) -> None:
        now_ns = time.monotonic_ns()
        expiries = int.from_bytes(os.read(self._timer, 8), "little")
        self._latest_max_s = max(self._latest_max_s or 0.0, (now_ns - self._next_ns) / 1e9)
        for _ in range(expiries):
            self.histogram.add(max(0.0, (now_ns - self._next_ns) / 1e9))
            self._next_ns += self._interval_ns


class SchedulingDelay:
    """How long one thread of this process has waited for a CPU since it was first asked.

    Parameters
    ----------
    thread : int
        Its native identifier.
    """

    def __init__(self, thread: int) -> None:
        self._path = Path(f"/proc/self/task/{thread}/schedstat")
        self._first = self._latest = self._read()

    def take_s(self) -> float | None:
        """Seconds since the last call; None where the kernel does not count them."""
        before, self._latest = self._latest, self._read()
        return None if before is None or self._latest is None else (self._latest[1] - before[1]) / 1e9

    def describe(self) -> dict[str, float | int] | None:
        """All that has gathered: `cpu_s`, `delay_s` and `time_slices`; None where the kernel does not count them."""
        now = self._read()
        if now is None or self._first is None:
            return None
        cpu_ns, delay_ns, slices = (late - early for late, early in zip(now, self._first, strict=True))
        return {"cpu_s": cpu_ns / 1e9, "delay_s": delay_ns / 1e9, "time_slices": slices}

    def _read(self) -> tuple[int, int, int] | None:
        try:
            cpu_ns, delay_ns, slices = self._path.read_text().split()
        except (OSError, ValueError):  # a kernel without CONFIG_SCHED_INFO; a thread that has ended
            return None
        return int(cpu_ns), int(delay_ns), int(slices)


class StampError:
    """What is measured of the thread that makes it, and of its event loop where it has one.

    Parameters
    ----------
    lag : LoopLag or None
        None in a process without an event loop.
    """

    def __init__(self, lag: LoopLag | None = None) -> None:
        self._lag = lag
        self._delay = SchedulingDelay(threading.get_native_id())

    def columns(self) -> dict[str, float | None]:
        """Its columns of system.csv, since the last call; from any thread."""
        lag = {"loop_lag_max_s": self._lag.take_max_s()} if self._lag is not None else {}
        return {"sched_delay_s": self._delay.take_s(), **lag}

    def describe(self) -> dict[str, Any]:
        """For the manifest: `scheduling` as `SchedulingDelay.describe`, `loop_lag` with its count, quantiles and maximum."""
        facts: dict[str, Any] = {"scheduling": self._delay.describe()}
        if self._lag is not None:
            histogram = self._lag.histogram
            quantiles = {f"p{round(part * 100)}_s": histogram.quantile_s(part) for part in (0.5, 0.95, 0.99)}
            facts["loop_lag"] = {
                "interval_s": self._lag._interval_ns / 1e9, "count": histogram.count, **quantiles, "max_s": histogram.max_s,
            }  # fmt: skip
        return facts
