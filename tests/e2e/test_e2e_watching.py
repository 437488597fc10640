"""A run is watched while it goes on: the table on a terminal, and Prometheus' metrics."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.e2e.conftest import free_port, left_over, marked, numpy_app, write_experiment


class Terminal:
    """A terminal 120 columns wide that keeps everything that was ever written to it."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self.text = ""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO when nobody has it open any more
            while data := os.read(self._ours, 1 << 16):
                self.text += data.decode(errors="replace")

    def close(self) -> None:
        """After its last writer has ended."""
        os.close(self.theirs)
        self._thread.join(20)
        os.close(self._ours)


def scrape(port: int) -> str:
    with contextlib.suppress(URLError, OSError), urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return str(answer.read().decode())
    return ""


def test_a_run_is_seen_on_a_terminal_and_by_prometheus(tmp_path: Path) -> None:
    """While the second round trains, both tell of the first one's uplink; lines of rounds that are over stay."""
    port, metrics_port = free_port(), free_port()
    config = write_experiment(tmp_path, clients=2, server={"host": "127.0.0.1", "port": port})
    app = numpy_app(tmp_path, num_server_rounds=3, seconds=1.0)
    mark, environment = marked()
    environment |= {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    command = [sys.executable, "-m", "fltestbed"]
    serving = [
        *command, "server", str(config), "--name", "seen", "--runs", str(tmp_path), "--app", str(app),
        "--metrics-port", str(metrics_port),
    ]  # fmt: skip
    first, second = ([
        *command, "client", "--server", f"127.0.0.1:{port}", "--interface", "lo", "--link", "5g", "--partition", number,
        "--name", f"pi-{number}", "--state", str(tmp_path / number), "--trust-apps",
    ] for number in "01")  # fmt: skip
    terminal = Terminal()
    uplink = re.compile(r'fltestbed_phase_duration_seconds_count\{client="pi-0",link="5g",phase="uplink"\} ([1-9])')
    found = None
    with (
        subprocess.Popen(serving, env=environment, stdout=terminal.theirs, stderr=subprocess.STDOUT) as server,
        subprocess.Popen(first, env=environment, stderr=subprocess.DEVNULL) as pi_0,
        subprocess.Popen(second, env=environment, stderr=subprocess.DEVNULL) as pi_1,
    ):
        deadline = time.monotonic() + 60
        while found is None and server.poll() is None and time.monotonic() < deadline:
            text = scrape(metrics_port)
            found = uplink.search(text)
            time.sleep(0.1)
        try:
            assert [process.wait(60) for process in (server, pi_0, pi_1)] == [0, 0, 0]
        finally:
            for process in (server, pi_0, pi_1):
                process.kill()
    terminal.close()
    assert found is not None
    assert 'fltestbed_run_info{experiment="test",run="seen"' in text
    assert re.search(r"pi-0 +5g +\w+ +[\d.e-]+ s +[\d.e-]+ s +[\d.e-]+ s", terminal.text)
    assert "[seen] round 3/3, 2/2 clients" in terminal.text.replace("\r", "")
    assert left_over(mark) == []
