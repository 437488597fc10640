"""What a run over real hosts makes of what the hosts answer."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fltestbed.config import Experiment
from fltestbed.config_file import validate
from fltestbed.errors import TestbedError
from fltestbed.lab.inventory import Inventory, LinkPlace, Pi
from fltestbed.lab.remote import Answer, Remote
from fltestbed.lab.run import CURSOR, LabRun

PI = Pi("pi-0", {"5g": LinkPlace(interface="wwan0", server="10.0.0.1", apn="internet")})
FINDING = {"check": "interface wwan0", "status": "error", "said": "down", "advice": "sudo ip link set wwan0 up"}


@dataclass(frozen=True)
class Answering(Remote):
    """Hosts that all give one answer."""

    answer: Answer = field(default_factory=lambda: Answer(""))

    def shell(self, scripts: Mapping[str, str]) -> dict[str, Answer]:
        """The answer, whatever was asked."""
        return dict.fromkeys(scripts, self.answer)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            Answer("non-zero return code", json.dumps({"findings": [FINDING]})),
            "pi-0 is not ready: interface wwan0: down (sudo ip link set wwan0 up)",
        ),
        (Answer("cannot be reached: Connection refused"), "pi-0 is not ready: cannot be reached: Connection refused"),
        (
            Answer("Error: No such option '--timeout'."),
            "pi-0 is not ready: Error: No such option '--timeout'. "
            "(its toolkit is older than this host's: run deploy/ansible/site.yml again)",
        ),
    ],
)
def test_why_a_host_is_not_ready(tmp_path: Path, answer: Answer, says: str) -> None:
    """The errors that its check has found, else what went wrong; a toolkit that does not know the check's options is old."""
    remote = Answering(tmp_path, answer=answer)
    experiment = validate(Experiment, {"name": "e", "clients": 1}, "e")
    run = LabRun(tmp_path, experiment, Inventory(tmp_path, (PI,)), "5g", remote)
    with pytest.raises(TestbedError) as refused:
        run._get_ready([PI], tmp_path)
    assert str(refused.value) == says


@dataclass(frozen=True)
class Interrupted(Remote):
    """Hosts that are asked to start their clients when somebody presses Ctrl-C."""

    asked: list[str] = field(default_factory=list)
    server: subprocess.Popen[bytes] | None = None

    def shell(self, scripts: Mapping[str, str]) -> dict[str, Answer]:
        """All is well, until the clients are to start; they have stopped when the server has ended."""
        (script,) = scripts.values()
        self.asked.append(script)
        if script.startswith("systemctl stop") and self.server is not None:
            self.server.wait(20)
        if script.startswith("systemctl start"):
            raise KeyboardInterrupt
        return dict.fromkeys(scripts, Answer("", f"{{}}\n{CURSOR}c"))


def test_an_interrupt_ends_the_server_and_stops_the_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Both at once, and it says so: a client whose service goes on would wait for the server."""
    code = (
        "import pathlib, signal; pathlib.Path('r').mkdir(); pathlib.Path('r/manifest.json').write_text('{}'); signal.pause()"
    )
    server = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    monkeypatch.setattr("fltestbed.lab.run.start", lambda _: server)
    remote = Interrupted(tmp_path, server=server)
    experiment = validate(Experiment, {"name": "e", "clients": 1}, "e")
    with pytest.raises(KeyboardInterrupt):
        LabRun(tmp_path, experiment, Inventory(tmp_path, (PI,)), "5g", remote).run("r", tmp_path)
    assert server.returncode == -signal.SIGTERM
    assert remote.asked[-1] == "systemctl stop fltestbed-client@wwan0.service"
    assert "r: stopping the clients on pi-0; a second Ctrl-C leaves them" in caplog.text
