"""Programs that stand in for those of a host with a radio."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fltestbed.measure.probes.tools import Toolbox

Install = Callable[[str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a shell script under a name; of the machine's own programs only those of the base system are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    system = tmp_path / "system"
    system.mkdir()
    for name in ("sh", "cat", "sleep", "yes", "head"):
        (system / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{system}")

    def write(name: str, script: str) -> Path:
        file = folder / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    return write


@pytest.fixture
def tools() -> Toolbox:
    """A toolbox whose programs have half a second."""
    return Toolbox(threading.Lock(), 0.5)
