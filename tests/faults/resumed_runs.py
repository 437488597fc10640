"""A server and its clients as in the lab, on this machine's loopback, so that each can be killed by itself."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.conftest import free_port, left_over, marked, numpy_app, write_experiment
from tests.waiting import wait_until

PATIENCE_S = 60.0


@dataclass
class Lab:
    """One run's commands; `start` them, and everything is gone at the end of `lab`."""

    folder: Path
    environment: dict[str, str]
    config: Path
    app: Path
    port: int
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    def server(self, *options: object, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        """Start a server; without options that of a new run."""
        given = options or ("--name", "run")
        return self._start("server", self.config, "--app", self.app, "--runs", self.folder, *given, prefix=prefix)

    def clients(self, number: int) -> list["subprocess.Popen[str]"]:
        """Start that many clients, which wait for a server that goes away."""
        return [
            self._start(
                "client", "--server", f"127.0.0.1:{self.port}", "--interface", "lo", "--link", "ethernet",
                "--partition", partition, "--name", f"pi-{partition}", "--state", self.folder / f"state-{partition}",
                "--trust-apps", "--patience", PATIENCE_S,
            )
            for partition in range(number)
        ]  # fmt: skip

    def reached(self, text: str, table: str = "phases.csv") -> Callable[[], bool]:
        """Tell whether a table of the run holds a text."""
        return lambda: (self.run / table).exists() and text in (self.run / table).read_text()

    def _start(self, *arguments: object, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        command = [*prefix, sys.executable, "-m", "fltestbed", *map(str, arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment, process_group=0
        )
        self.started.append(process)
        return process


@contextmanager
def lab(folder: Path, *, clients: int = 2, app: Path | None = None, **config: object) -> Iterator[Lab]:
    """Write an experiment and an app; nothing that was started is left at the end."""
    mark, environment = marked()
    port = free_port()
    server: dict[str, Any] = {"host": "127.0.0.1", "port": port, "join_timeout_s": PATIENCE_S}
    experiment = write_experiment(folder, clients=clients, server=server, probes={"interval_s": 0.2})
    made = Lab(folder, environment, experiment, app or numpy_app(folder, **config), port)
    try:
        yield made
        wait_until(lambda: left_over(mark) == [], f"processes to end: {left_over(mark)}")
    finally:
        for process in made.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for pid in psutil.pids():
            if _is_marked(pid, mark):
                os.kill(pid, signal.SIGKILL)


def _is_marked(pid: int, mark: str) -> bool:
    try:
        return mark in psutil.Process(pid).environ().values()
    except psutil.Error:
        return False


def ended(process: "subprocess.Popen[str]") -> str:
    """Wait for a command's end; returns what it has said."""
    out, _ = process.communicate(timeout=PATIENCE_S)
    return out
