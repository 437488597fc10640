"""The process that reads a host: ``python -m fltestbed.measure.probes``.

Its first line of input is JSON: ``interface`` (whose bytes are counted), ``radio`` (whether that interface's radio is read),
``probes`` (the section of the experiment), ``processes`` and ``on`` (whether to read or to pause). Each later line replaces
one of the last two. When the input ends, however the process at its other end has gone, it closes its probes and ends. Each
line of output is what `Watch` says.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.errors import HostError
from fltestbed.measure.probes.gnb_log import GnbLogProbe
from fltestbed.measure.probes.modem import ModemProbe
from fltestbed.measure.probes.probe import Probe
from fltestbed.measure.probes.qmi import QmiProbe
from fltestbed.measure.probes.system import SystemProbe
from fltestbed.measure.probes.throttling import ThrottlingProbe
from fltestbed.measure.probes.time_sync import TimeSyncProbe
from fltestbed.measure.probes.tools import LIMIT_S, Toolbox
from fltestbed.measure.probes.watch import Watch

LOWEST_PRIORITY = 19
WIRELESS_DEVICES = Path("/sys/class/ieee80211")


def main() -> None:
    """Read until the input ends."""
    lower_priority()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    settings = json.loads(sys.stdin.readline() or "{}")
    if not settings:
        return
    processes: list[int] = settings["processes"]
    watch = Watch(choose_probes(settings, lambda: (*processes, os.getpid())), say, SYSTEM_CLOCK, LIMIT_S)
    watch.is_on = settings["on"]
    watch.start()
    for line in sys.stdin:
        told = json.loads(line)
        processes[:] = told.get("processes", processes)
        watch.is_on = told.get("on", watch.is_on)
    watch.stop()


def lower_priority() -> None:
    """Give way to everything else on this host."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, LOWEST_PRIORITY)


def say(fact: dict[str, Any]) -> None:
    """One line to the process that started this one, which may be gone."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(fact) + "\n")
        sys.stdout.flush()


def choose_probes(
    settings: dict[str, Any], processes: Callable[[], tuple[int, ...]]
) -> dict[str, Callable[[Toolbox], Probe]]:
    """How each probe that is switched on is made."""
    switches, interface = settings["probes"], settings["interface"]
    interval_s, modem_interval_s = switches["interval_s"], switches["modem_interval_s"]
    known: dict[str, Callable[[Toolbox], Probe]] = {
        "system": lambda _: SystemProbe(interface, interval_s, processes, cpu_s),
        "throttling": partial(ThrottlingProbe, interval_s),
        "time_sync": partial(TimeSyncProbe, switches["time_sync_interval_s"]),
    }
    if not settings["radio"] and switches.get("gnb_log"):
        known["gnb_log"] = lambda _: GnbLogProbe(Path(switches["gnb_log"]), interval_s, SYSTEM_CLOCK)
    if settings["radio"]:
        modem = ModemProbe if shutil.which("mmcli") else QmiProbe
        known["wifi"] = lambda _: _wifi(interface, interval_s)
        known["modem"] = lambda tools: modem(interface, modem_interval_s, tools)
    return {name: make for name, make in known.items() if switches[name]}


def _wifi(interface: str, interval_s: float) -> Probe:
    if not WIRELESS_DEVICES.is_dir() or not any(WIRELESS_DEVICES.iterdir()):
        raise HostError("this host has no wireless device")
    from fltestbed.measure.probes.wifi import WifiProbe  # noqa: PLC0415  # pyroute2 costs 0.2 s of CPU time

    return WifiProbe(interface, interval_s)


def cpu_s() -> float:
    """CPU time of this process, and of the programs that it has asked, in seconds."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
