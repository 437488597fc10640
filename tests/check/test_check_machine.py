"""Each finding about a machine: provoked where it can be, else from what Raspberry Pi OS and chrony document."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fltestbed.check.finding import NotHere
from fltestbed.check.machine import (
    check_clock_source,
    check_disk,
    check_governor,
    check_throttling,
    check_wall_clock,
)
from fltestbed.measure.probes.throttling import ThrottlingProbe
from fltestbed.measure.probes.tools import Toolbox
from tests.check.findings import lines, only
from tests.measure.probes.conftest import Install

SMALL_DISK = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from fltestbed.check.machine import check_disk
print(json.dumps(asdict(check_disk(Path(sys.argv[1]) / "not" / "there"))))
"""
CHRONY = "7F7F0101,127.127.1.1,1,1763861000.0,{offset},0.0,0.0,0.0,0.0,0.1,0.001,0.002,16.0,{leap}"


@pytest.mark.parametrize(("megabytes", "status"), [(100, "error"), (500, "warning"), (2000, "ok")])
def test_a_full_disk_is_found(tmp_path: Path, megabytes: int, status: str) -> None:
    """A real file system of that size; the folder itself need not exist yet."""
    mount = f"mount -t tmpfs -o size={megabytes}m tmpfs {tmp_path} && exec {sys.executable} -c '{SMALL_DISK}' {tmp_path}"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount], capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this host forbids mounts in a user namespace: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    assert (found["status"], bool(found["advice"])) == (status, status != "ok")
    assert found["said"].endswith(f"GB free at {tmp_path}")


def test_room_is_looked_for_where_the_folder_will_be(tmp_path: Path) -> None:
    """Of a folder that does not exist, its nearest parent that does."""
    found = check_disk(tmp_path / "a" / "b")
    assert getattr(found, "said", "").endswith(f" at {tmp_path}")


@pytest.mark.parametrize(
    ("source", "status"),
    [("tsc", "ok"), ("arch_sys_counter", "ok"), ("hpet", "warning"), ("jiffies", "warning"), (None, "not here")],
)
def test_clock_source(source: str | None, status: str) -> None:
    """The processor's own counter is fine."""
    assert lines([check_clock_source(source)]) == [("clock source", status)]


@pytest.mark.parametrize(
    ("governor", "status"),
    [("performance", "ok"), ("ondemand", "warning"), ("performance, powersave", "warning"), (None, "not here")],
)
def test_governor(governor: str | None, status: str) -> None:
    """Any core that follows the load is one too many."""
    assert lines([check_governor(governor)]) == [("governor", status)]


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        ("0", "ok", "none since boot"),
        ("50000", "warning", "since boot: undervoltage, throttled"),
        ("50005", "error", "now: undervoltage, throttled"),
        ("80008", "error", "now: soft temperature limit"),
        ("nonsense", "warning", "'nonsense' is no word of flags"),
    ],
)
def test_throttling(tmp_path: Path, tools: Toolbox, flags: str, status: str, says: str) -> None:
    """The word as Raspberry Pi OS has it in sysfs: what is so now is worse than what was so."""
    file = tmp_path / "soc" / "soc:firmware" / "get_throttled"
    file.parent.mkdir(parents=True)
    file.write_text(flags + "\n")
    found = only(check_throttling(ThrottlingProbe(1.0, tools, tmp_path)))
    assert (found.status, says in found.said, bool(found.advice)) == (status, True, status != "ok")


@pytest.mark.usefixtures("install")
def test_elsewhere_there_is_nothing_to_throttle(tmp_path: Path, tools: Toolbox) -> None:
    """No firmware: no finding."""
    (said,) = check_throttling(ThrottlingProbe(1.0, tools, tmp_path))
    assert isinstance(said, NotHere)


@pytest.mark.parametrize(
    ("offset", "leap", "status", "says"),
    [
        ("0.000123", "Normal", "ok", "synchronised (chrony, +0.123 ms off)"),
        ("172800.0", "Normal", "warning", "chrony says +172800.000 s off"),
        ("0.0", "Not synchronised", "warning", "not synchronised"),
    ],
)
def test_wall_clock(install: Install, tools: Toolbox, offset: str, leap: str, status: str, says: str) -> None:
    """As chrony's tracking has it."""
    install("chronyc", f"echo '{CHRONY.format(offset=offset, leap=leap)}'")
    found = only([check_wall_clock(tools, synchronised=False)])
    assert (found.status, found.said, bool(found.advice)) == (status, says, status != "ok")


@pytest.mark.usefixtures("install")
def test_a_clock_that_the_kernel_calls_synchronised_is_fine(tools: Toolbox) -> None:
    """Without any daemon that says more."""
    assert only([check_wall_clock(tools, synchronised=True)]).said == "synchronised (the kernel)"
