"""The systemd units, as far as they can be judged without a host."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
PROGRAM = "/opt/fltestbed/bin/fltestbed"
NAMES = ("fltestbed-client@wwan0.service", "fltestbed-server.service")
MODEM = "fltestbed-modem@wwan0.service"


def place(name: str, folder: Path) -> Path:
    """A unit whose program is there."""
    source = UNITS / re.sub("@.*[.]", "@.", name)
    unit = folder / name
    unit.write_text(re.sub(rf"{PROGRAM}|/usr/local/sbin/fltestbed-modem", sys.executable, source.read_text()))
    return unit


@pytest.fixture(params=NAMES)
def unit(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A unit of the toolkit's own commands."""
    return place(str(request.param), tmp_path)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert shutil.which("systemd-analyze"), "systemd-analyze is missing, which `make env` installs: sudo apt install systemd"
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", [*NAMES, MODEM])
def test_systemd_understands_every_line(name: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say."""
    done = analyze("verify", "--man=no", str(place(name, tmp_path)))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_exposure_is_low(unit: Path) -> None:
    """`systemd-analyze security` gives at most 2.5 of 10, which it calls OK."""
    done = analyze("security", "--offline=true", "--threshold=25", str(unit))
    assert done.returncode == 0, done.stdout
    assert re.search(r"Overall exposure level for \S+: \d\.\d OK", done.stdout)


def test_a_client_that_may_pin_its_route_can_do_little_else(tmp_path: Path) -> None:
    """With pin-route.conf beside it the unit is understood, and its exposure is at most 3.0 of 10."""
    unit = place(NAMES[0], tmp_path)
    unit.write_text(unit.read_text() + (UNITS / "pin-route.conf").read_text())
    assert (done := analyze("verify", "--man=no", str(unit))).stderr == "", done.stderr
    assert analyze("security", "--offline=true", "--threshold=30", str(unit)).returncode == 0


def test_a_modems_unit_is_roots_and_can_do_little(tmp_path: Path) -> None:
    """As root it may configure networks and nothing else; its exposure is at most 3.0 of 10. It never gives up."""
    unit = place(MODEM, tmp_path)
    assert {"CapabilityBoundingSet=CAP_NET_ADMIN", "StartLimitIntervalSec=0", "Restart=on-failure"} <= set(
        unit.read_text().splitlines()
    )
    done = analyze("security", "--offline=true", "--threshold=30", str(unit))
    assert done.returncode == 0, done.stdout


def test_services_restart_on_failure_without_root_and_within_the_memory(unit: Path) -> None:
    """What the units promise stands in them, once each."""
    lines = unit.read_text().splitlines()
    for promised in (
        "User=fltestbed",
        "Restart=on-failure",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
    ):
        assert lines.count(promised) == 1, promised
    assert sum(line.startswith("MemoryMax=") for line in lines) == 1
