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

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture(params=NAMES)
def unit(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A unit whose program is there."""
    source = UNITS / re.sub("@.*[.]", "@.", request.param)
    unit = tmp_path / str(request.param)
    unit.write_text(source.read_text().replace(PROGRAM, sys.executable))
    return unit


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_understands_every_line(unit: Path) -> None:
    """`systemd-analyze verify` has nothing to say."""
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_exposure_is_low(unit: Path) -> None:
    """`systemd-analyze security` gives at most 2.5 of 10, which it calls OK."""
    done = analyze("security", "--offline=true", "--threshold=25", str(unit))
    assert done.returncode == 0, done.stdout
    assert re.search(r"Overall exposure level for \S+: \d\.\d OK", done.stdout)


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
