"""The machine: its clocks, its disk, its processor."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fltestbed.check.finding import NotHere, Said, error, ok, warning
from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.throttling import ThrottlingProbe
from fltestbed.measure.probes.time_sync import TimeSyncProbe
from fltestbed.measure.probes.tools import Toolbox
from fltestbed.security.trust import clock_is_synchronised

GOOD_CLOCK_SOURCES = ("tsc", "arch_sys_counter", "kvm-clock")
LEAST_FREE_BYTES = 200 * 10**6
"""A day of rounds takes about 100 MB in a client's own copy and more in a run folder."""
ENOUGH_FREE_BYTES = 10**9
LARGE_OFFSET_S = 1.0


def check_clock_source(source: str | None) -> Said:
    """What the kernel reads time from: others than the processor's own counter take microseconds to read."""
    if source is None:
        return NotHere("clock source", "the kernel does not say what it reads time from")
    if source in GOOD_CLOCK_SOURCES:
        return ok("clock source", source)
    return warning(
        "clock source", f"{source}, which is slow to read or coarse",
        "echo tsc >/sys/devices/system/clocksource/clocksource0/current_clocksource (arch_sys_counter on a Pi)",
    )  # fmt: skip


def check_wall_clock(tools: Toolbox, synchronised: bool | None = None) -> Said:
    """Whether something keeps the wall clock right, and how right. No figure depends on it."""
    try:
        record: dict[str, Any] = TimeSyncProbe(1.0, tools).open()["start"][0]
    except TestbedError:
        record = {}
    is_synchronised = clock_is_synchronised() if synchronised is None else synchronised
    offset_s, daemon = record.get("offset_s"), record.get("daemon", "the kernel")
    if offset_s is not None and abs(offset_s) > LARGE_OFFSET_S:
        return warning(
            "wall clock", f"{daemon} says {offset_s:+.3f} s off", "wait until it is synchronised: chronyc waitsync"
        )
    if is_synchronised or record.get("synchronised"):
        precisely = "" if offset_s is None else f", {offset_s * 1e3:+.3f} ms off"
        return ok("wall clock", f"synchronised ({daemon}{precisely})")
    return warning(
        "wall clock", "not synchronised",
        "run chrony against the radio host; without it the server's clock judges certificates, and logs bear wrong dates",
    )  # fmt: skip


def check_disk(folder: Path) -> Said:
    """Room where this host writes; `folder` need not exist yet."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError as problem:
        return error("disk", f"{place}: {problem.strerror}", "give a place that can be read, with --runs or --state")
    said = f"{free / 1e9:.1f} GB free at {place}"
    if free < LEAST_FREE_BYTES:
        return error("disk", said, f"make room: {LEAST_FREE_BYTES / 1e9:g} GB at least")
    if free < ENOUGH_FREE_BYTES:
        return warning("disk", said, f"make room: below {ENOUGH_FREE_BYTES / 1e9:g} GB a long campaign may fill it")
    return ok("disk", said)


def check_governor(governor: str | None) -> Said:
    """Whether the processor keeps its frequency: one that follows the load makes training times follow it too."""
    if governor is None:
        return NotHere("governor", "the kernel does not set this processor's frequency")
    if governor == "performance":
        return ok("governor", governor)
    return warning(
        "governor", f"{governor}: the frequency follows the load, and training times with it",
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )  # fmt: skip


def check_throttling(probe: ThrottlingProbe) -> Iterator[Said]:
    """A Raspberry Pi's flags: what is so now slows training; what has been so since boot may come back."""
    cures = "use the official power supply and a good cable; cool the processor"
    try:
        since_boot = probe.open()["since_boot"]
        probe.read()
        now = probe.close()["seen"]
    except HostError as problem:
        yield NotHere("throttling", str(problem))
        return
    except TestbedError as problem:
        yield warning("throttling", str(problem), "update the firmware, or read it by hand: vcgencmd get_throttled")
        return
    if now:
        yield error("throttling", f"now: {', '.join(now)}", cures)
    elif since_boot:
        yield warning("throttling", f"since boot: {', '.join(since_boot)}", f"{cures}; reboot to clear the flags")
    else:
        yield ok("throttling", "none since boot")


def check_machine(host: dict[str, Any], folder: Path, tools: Toolbox) -> Iterator[Said]:
    """All of these; `host` as `fltestbed.measure.host.describe_host` describes it."""
    yield check_clock_source(host["clock_source"])
    yield check_wall_clock(tools)
    yield check_disk(folder)
    yield check_governor(host["governor"])
    yield from check_throttling(ThrottlingProbe(1.0, tools))
