"""A server and clients as real processes on an emulated network, to be struck while they run."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psutil

from fltestbed.links import EmulatedNetwork, LinkProfile, load_link
from tests.e2e.conftest import free_port, left_over, marked, numpy_app, write_experiment

PATIENCE_S = 120.0
LINK = """\
name = "slow"
medium = "dedicated"
[uplink]
rate-mbit = {uplink}
queue-kb = 50
[downlink]
rate-mbit = {downlink}
queue-kb = 50
"""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what real processes do."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited too long: {what}"
        time.sleep(0.02)


class FaultNetwork:
    """A context manager: the network is there inside the block, and no process of it after.

    Parameters
    ----------
    folder : Path
    clients : int
    app : mapping
        Configuration of the plain Flower app.
    uplink, downlink : float
        Rates of each client, Mbit/s.
    experiment
        Keys and tables of the experiment.
    """

    def __init__(
        self, folder: Path, clients: int, app: Mapping[str, Any], uplink: float = 20, downlink: float = 20, **experiment: Any
    ) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        profile = folder / "slow.toml"
        profile.write_text(LINK.format(uplink=uplink, downlink=downlink))
        self._profile: LinkProfile = load_link(profile)
        self._app = numpy_app(folder, **app)
        self._port = free_port()
        tables = {"server": {"port": self._port, "tls": False, **experiment.pop("server", {})}}
        self._config = write_experiment(folder, clients=clients, **experiment, **tables)
        self._count = clients
        self._mark, self._environment = marked()
        self._stack = ExitStack()
        self.clients: dict[int, subprocess.Popen[Any]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.network = stack.enter_context(EmulatedNetwork(self._profile, self._count, backend="tbf"))
            self.server = self._start(self.network.server, "server", [
                "server", str(self._config), "--name", "run", "--runs", str(self.runs), "--app", str(self._app),
            ], stack)  # fmt: skip
            for number in range(self._count):
                self.start_client(number, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        assert left_over(self._mark) == []

    def start_client(self, number: int, stack: ExitStack | None = None) -> None:
        """Start a client, or start it again: with the key and the name that it had."""
        host = self.network.clients[number]
        self.clients[number] = self._start(host, host.name, [
            "client", "--server", f"{self.network.server.address}:{self._port}", "--interface", host.interface,
            "--link", "slow", "--partition", str(number), "--name", host.name,
            "--state", str(self.folder / "state" / host.name), "--trust-apps",
        ], stack or self._stack)  # fmt: skip

    def _start(self, host: Any, name: str, arguments: list[str], stack: ExitStack) -> subprocess.Popen[Any]:
        output = stack.enter_context((self.folder / f"{name}.log").open("ab"))
        process: subprocess.Popen[Any] = host.popen(
            [sys.executable, "-m", "fltestbed", *arguments], stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            env=self._environment,
        )  # fmt: skip
        stack.callback(_end, process)
        return process

    def pid(self, number: int) -> int:
        """The network process of a client."""
        parent = psutil.Process(self.clients[number].pid)
        (found,) = [int(each.pid) for each in (parent, *parent.children(recursive=True)) if _is_client(each)]
        return found

    def trainer(self, number: int) -> int:
        """The trainer of a client."""
        (found,) = [
            int(each.pid)
            for each in psutil.Process(self.pid(number)).children()
            if "fltestbed.client.trainer" in each.cmdline()
        ]
        return found

    def log(self, name: str) -> str:
        """What a process has said: `server`, or the name of a client."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def rows(self, table: str, **cells: str) -> list[dict[str, str]]:
        """Whole rows that are on disk now and have these cells."""
        file = self.runs / "run" / f"{table}.csv"
        if not file.exists():
            return []
        text = file.read_text()
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
        return [row for row in rows if all(row[name] == value for name, value in cells.items())]

    def wait_for_row(self, table: str, **cells: str) -> dict[str, str]:
        """Wait until there is such a row."""
        wait_until(lambda: bool(self.rows(table, **cells)) or self.server.poll() is not None, f"{table}: {cells}")
        return self.rows(table, **cells)[0]

    def wait_for_end(self, status: int = 0) -> dict[str, Any]:
        """Wait for the server's end; returns the manifest."""
        self.server.wait(PATIENCE_S)
        assert self.server.returncode == status, self.log("server")
        manifest: dict[str, Any] = json.loads((self.runs / "run" / "manifest.json").read_text())
        return manifest

    def sent_bytes(self, number: int) -> int:
        """What a client's host has sent over its link."""
        return self.network.clients[number].counters().tx_bytes

    def received_bytes(self, number: int) -> int:
        """What a client's host has received over its link."""
        return self.network.clients[number].counters().rx_bytes


def _is_client(process: psutil.Process) -> bool:
    command = process.cmdline()
    return "fltestbed" in command and "client" in command


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
