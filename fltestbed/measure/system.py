"""What a host is busy with while a run goes on: CPU, memory, temperature, throttling, bytes per interface.

One thread at low priority reads them at an interval. Its rows lack what only the server knows (the place on the run's time
line), so a client's rows travel with its next request.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from fltestbed.clock import Clock

NICENESS = 10
ALL_INTERFACES = "all"
THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
"""Where the kernel of Raspberry Pi OS shows the firmware's throttling and undervoltage flags."""

Row = dict[str, Any]


class SystemProbe:
    """Reads the host at an interval and hands each row to `take`, until `stop`.

    Parameters
    ----------
    interface : str
        Whose bytes are counted; `ALL_INTERFACES` for the sum of all but the loopback.
    interval_s : float
    processes : callable () -> iterable of int
        Identifiers of the toolkit's processes on this host, asked at every reading.
    take : callable (dict) -> None
        Gets the columns of system.csv but `run`, `host` and `time_s`. Called on the probe's thread.
    clock : Clock
    """

    def __init__(
        self,
        interface: str,
        interval_s: float,
        processes: Callable[[], Iterable[int]],
        take: Callable[[Row], None],
        clock: Clock,
    ) -> None:
        self._interface = interface
        self._interval_s = interval_s
        self._processes = processes
        self._take = take
        self._clock = clock
        self._known: dict[int, psutil.Process] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system probe", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more. May be called before `start`, and twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def read(self) -> Row:
        """One row, now. CPU percentages count from the row before."""
        row: Row = {
            "raw_ns": self._clock.raw_ns(),
            "cpu_percent": psutil.cpu_percent() * (os.cpu_count() or 1),
            "memory_used_bytes": psutil.virtual_memory().used,
            "temperature_c": temperature_c(),
            "throttled_flags": throttled_flags(),
            "interface": self._interface,
        }
        return row | self._of_processes() | self._of_interface()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        self.read()  # starts the interval that CPU percentages count over
        while not self._stop.wait(self._interval_s):
            self._take(self.read())

    def _of_processes(self) -> Row:
        wanted = set(self._processes())
        self._known = {pid: process for pid, process in self._known.items() if pid in wanted}
        cpu_percent, memory_bytes = 0.0, 0
        for pid in wanted:
            with contextlib.suppress(psutil.Error):
                process = self._known.setdefault(pid, psutil.Process(pid))
                cpu_percent += process.cpu_percent()
                memory_bytes += process.memory_info().rss
        return {"process_cpu_percent": cpu_percent, "process_memory_bytes": memory_bytes}

    def _of_interface(self) -> Row:
        counters = psutil.net_io_counters(pernic=True)
        if self._interface == ALL_INTERFACES:
            chosen = [counter for name, counter in counters.items() if name != "lo"]
        else:
            chosen = [counters[self._interface]] if self._interface in counters else []
        if not chosen:
            return {}
        return {"rx_bytes": sum(c.bytes_recv for c in chosen), "tx_bytes": sum(c.bytes_sent for c in chosen)}


def temperature_c() -> float | None:
    """Temperature of the processor in degrees Celsius: the hottest sensor of the host; None without one."""
    readings = [sensor.current for sensors in psutil.sensors_temperatures().values() for sensor in sensors]
    return max(readings) if readings else None


def throttled_flags() -> str | None:
    """The firmware's flags of a Raspberry Pi (bit 0 undervoltage, 2 throttled, 16 and 18 since boot); None elsewhere."""
    try:
        return THROTTLED.read_text().strip()
    except OSError:
        return None
