"""Clients that fail in the middle of a transfer, over a shaped link."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from analysis.derive import derive
from analysis.load import load_run
from tests.e2e.conftest import left_over, marked, numpy_app, write_experiment
from tests.waiting import wait_until

PATIENCE_S = 60.0
LINK = """\
name = "slow"
medium = "dedicated"
[uplink]
rate-mbit = 2
queue-kb = 50
[downlink]
rate-mbit = 100
queue-kb = 500
"""
PARAMETERS = 100_000
"""0.4 MB, so 1.7 s of uplink."""


def find_client(parent: int, name: str) -> list[int]:
    """The network process of a client of the run that `parent` plays."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        command = process.cmdline()
        if "client" in command and name in command:
            found.append(process.pid)
    return found


def sent_bytes(pid: int) -> int:
    """What a process's network namespace has sent over its interfaces but the loopback."""
    lines = [line.split() for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]]
    return sum(int(words[9]) for words in lines if words[0] != "lo:")


def test_a_client_that_stops_in_mid_upload_is_closed_by_the_deadline(tmp_path: Path) -> None:
    """SIGSTOP when a third of its reply has gone: the round ends at the deadline with the other's reply alone, the row says
    timeout in its uplink. When it goes on, what it sends late is refused, and it takes part in what comes next.
    """
    (tmp_path / "slow.toml").write_text(LINK)
    config = write_experiment(tmp_path, clients=2, server={"round_deadline_s": 4.0})
    app = numpy_app(tmp_path, num_server_rounds=1, parameters=PARAMETERS)
    command = [
        sys.executable, "-m", "fltestbed", "run", str(config), "--link", str(tmp_path / "slow.toml"), "--backend", "tbf",
        "--app", str(app), "--runs", str(tmp_path), "--name", "stopped",
    ]  # fmt: skip
    mark, environment = marked()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as run:
        try:
            wait_until(lambda: bool(find_client(run.pid, "client-0")), "the client's process")
            (pid,) = find_client(run.pid, "client-0")
            phases = tmp_path / "stopped" / "phases.csv"
            wait_until(lambda: phases.exists() and "queue" in phases.read_text(), "the first message")
            idle = sent_bytes(pid)
            wait_until(lambda: sent_bytes(pid) > idle + 4 * PARAMETERS // 3, "a third of the reply")
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: "timeout" in phases.read_text(), "the deadline")
            os.kill(pid, signal.SIGCONT)
            _, err = run.communicate(timeout=PATIENCE_S)
        finally:
            run.kill()
    assert run.returncode == 0, err
    assert left_over(mark) == []
    tables = derive(load_run(tmp_path / "stopped"))
    rows = tables["phases"]
    (lost,) = rows[rows["status"] == "timeout"].to_dict("records")
    assert (lost["client"], lost["message_type"], lost["phase"]) == ("client-0", "train", "uplink")
    assert lost["detail"].startswith("no reply before the deadline; nothing heard for")
    assert lost["detail"].endswith("server.round-deadline-s = 4")
    (training,) = tables["rounds"].to_dict("records")
    assert (training["clients_selected"], training["clients_replied"]) == (2, 1)
    evaluated = rows[(rows["message_type"] == "evaluate") & (rows["phase"] == "collect")]
    assert set(evaluated["client"]) == {"client-0", "client-1"}
    assert set(evaluated["status"]) == {"ok"}
