"""What a host is busy with: CPU, memory, temperature, bytes per interface."""

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any

import psutil

from fltestbed.measure.probes.probe import Row

ALL_INTERFACES = "all"


class SystemProbe:
    """Reads the host by psutil, from /proc and /sys alone.

    Parameters
    ----------
    interface : str
        Whose bytes are counted; `ALL_INTERFACES` for the sum of all but the loopback.
    interval_s : float
    processes : callable () -> iterable of int
        Identifiers of the toolkit's processes on this host, asked at every reading.
    probes_cpu_s : callable () -> float
        CPU time that all probes have taken so far, in seconds.
    """

    name = "system"
    table = "system"
    joins = False

    def __init__(
        self,
        interface: str,
        interval_s: float,
        processes: Callable[[], Iterable[int]],
        probes_cpu_s: Callable[[], float],
    ) -> None:
        self.interval_s = interval_s
        self._interface = interface
        self._processes = processes
        self._probes_cpu_s = probes_cpu_s
        self._probes_cpu_before_s = 0.0
        self._known: dict[int, psutil.Process] = {}

    def open(self) -> dict[str, Any]:
        """Begin the interval that CPU figures count over."""
        self.read()
        lacks = {"temperature_c": "no sensor"} if temperature_c() is None else {}
        return {"reads": "psutil"} | ({"lacks": lacks} if lacks else {})

    def read(self) -> list[Row]:
        """One row. CPU figures count from the row before."""
        probes_cpu_s = self._probes_cpu_s()
        row: Row = {
            "cpu_percent": psutil.cpu_percent() * (os.cpu_count() or 1),
            "memory_used_bytes": psutil.virtual_memory().used,
            "temperature_c": temperature_c(),
            "probes_cpu_s": probes_cpu_s - self._probes_cpu_before_s,
            "interface": self._interface,
        }
        self._probes_cpu_before_s = probes_cpu_s
        return [row | self._of_processes() | self._of_interface()]

    def close(self) -> dict[str, Any]:
        """Nothing was changed."""
        return {}

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
