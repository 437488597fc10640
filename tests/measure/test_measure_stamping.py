"""The stamping process's own error is measured, and is not invented where there is none."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from fltestbed.measure.stamping import Histogram, LoopLag, SchedulingDelay, StampError

BUSY_S = 0.15


def burn(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_quantiles_of_a_histogram_are_at_most_a_quarter_too_large() -> None:
    """Of 1 to 100 ms: the median is 50 ms, 95% lie below 95 ms; the largest is exact, and nothing is above it."""
    histogram = Histogram()
    for milliseconds in range(1, 101):
        histogram.add(milliseconds / 1e3)
    for part, exact_s in ((0.5, 0.050), (0.95, 0.095), (0.01, 0.001)):
        found = histogram.quantile_s(part)
        assert found is not None
        assert exact_s <= found <= min(0.1, 1.25 * exact_s)
    assert (histogram.count, histogram.max_s, histogram.quantile_s(1.0)) == (100, 0.1, 0.1)


def test_a_histogram_of_nothing_has_no_quantile() -> None:
    """None, and not zero; what is beyond the last bucket is still counted, at the largest value."""
    histogram = Histogram()
    assert histogram.quantile_s(0.5) is None
    histogram.add(1e4)
    assert histogram.quantile_s(0.5) == 1e4


def test_a_blocked_loop_is_late_by_what_blocked_it() -> None:
    """One that computes for 150 ms makes every expiry in it late: the largest by nearly all of it, each by 20 ms less."""
    lag = LoopLag(0.02)

    async def blocked() -> None:
        lag.start()
        await asyncio.sleep(0.05)
        burn(BUSY_S)
        await asyncio.sleep(0.05)
        lag.stop()
        lag.stop()

    asyncio.run(blocked())
    late = lag.take_max_s()
    assert late is not None
    assert BUSY_S - 0.02 <= late == lag.histogram.max_s
    assert lag.histogram.count >= (0.1 + BUSY_S) / 0.02 - 2  # the seven that the delay has swallowed, too
    assert lag.take_max_s() is None  # nothing since


def test_a_watch_can_be_taken_up_again() -> None:
    """What lies between stop and start is no lag."""
    lag = LoopLag(0.01)

    async def paused() -> None:
        for _ in range(2):
            lag.start()
            while lag.take_max_s() is None:
                await asyncio.sleep(0.005)
            lag.stop()
            burn(0.5)

    before = set(Path("/proc/self/fd").iterdir())
    asyncio.run(paused())
    assert lag.histogram.max_s < 0.48
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_thread_that_shares_a_cpu_waits_for_it() -> None:
    """Two threads of two processes on one CPU, both busy: the one that is watched waits for about half of the time."""
    cpus = os.sched_getaffinity(0)
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    psutil.Process(child.pid).cpu_affinity([min(cpus)])
    found: list[float | None] = []

    def watched() -> None:
        os.sched_setaffinity(0, {min(cpus)})
        delay = SchedulingDelay(threading.get_native_id())
        burn(0.4)
        found.append(delay.take_s())
        facts = delay.describe()
        assert facts is not None
        assert facts["delay_s"] >= (found[0] or 0.0)
        assert facts["cpu_s"] + facts["delay_s"] == pytest.approx(0.4, abs=0.2)

    thread = threading.Thread(target=watched)
    thread.start()
    thread.join()
    child.kill()
    child.wait()
    (delay_s,) = found
    assert delay_s is not None
    assert delay_s > 0.05


def test_what_the_kernel_does_not_count_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without schedstat there is no figure, in rows and manifest alike; without a loop no lag either."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    error = StampError()
    assert error.columns() == {"sched_delay_s": None}
    assert error.describe() == {"scheduling": None}
