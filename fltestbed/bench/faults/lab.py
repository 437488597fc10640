"""A server and clients as real processes on an emulated network, to be struck while they run."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from fltestbed.bench.leftovers import marked
from fltestbed.bench.testbed import Oddity
from fltestbed.links import EmulatedNetwork, Host, LinkProfile
from fltestbed.measure.manifest import FILE_NAME
from fltestbed.measure.schema import RECORDED
from fltestbed.security.folder import CertificateFolder

PORT = 9092
PATIENCE_S = 120.0
POLL_S = 0.02
END_S = 5.0
RUN = "run"
"""Name of the run, unless another is given."""

Process = subprocess.Popen[Any]


class Missed(Exception):
    """What had to hold of a run does not; the text is a reason of the report, and no message that ends a command."""


class WaitedTooLong(Missed):
    """Something that had to happen did not, within its time."""


def wait_until(condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    """Wait for what real processes do.

    Raises
    ------
    WaitedTooLong
    """
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() >= deadline:
            raise WaitedTooLong(f"waited for more than {within_s:g} s: {what}")
        time.sleep(POLL_S)


@dataclass(frozen=True)
class Plan:
    """What a lab runs.

    Attributes
    ----------
    folder : Path
        Gets the logs; the clients' states are below it.
    runs : Path
        Gets the run folders.
    config, app : Path
        The experiment, whose server listens on `PORT`, and the folder of the Flower app.
    profile : LinkProfile
    clients : int
    oddities : mapping of str to Oddity
        What is odd about a client's host, by the client's name.
    environment : mapping of str to str
        Added to that of every process.
    backend : str
        How the link is emulated.
    certificates : CertificateFolder or None
        Of server and clients, who then speak TLS.
    sysctls : mapping of str to str
        Of the hosts, as `EmulatedNetwork` takes them.
    """

    folder: Path
    runs: Path
    config: Path
    app: Path
    profile: LinkProfile
    clients: int
    oddities: Mapping[str, Oddity] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    backend: str = "tbf"
    certificates: CertificateFolder | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)


class FaultLab:
    """A context manager: the network is there inside the block, and no process of it after.

    Attributes
    ----------
    network : EmulatedNetwork
    server : Process
        The SuperLink's, of the session that was started last.
    clients : dict of int to Process
        As they were started last.
    mark : str
        In the environment of every process that was started here, however indirectly.
    """

    network: EmulatedNetwork
    server: Process

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.mark, self._environment = marked()
        self._stack = ExitStack()
        self.clients: dict[int, Process] = {}

    def __enter__(self) -> Self:
        plan = self.plan
        with ExitStack() as stack:
            network = EmulatedNetwork(plan.profile, plan.clients, backend=plan.backend, sysctls=plan.sysctls)
            self.network = stack.enter_context(network)
            if plan.certificates is not None:
                plan.certificates.make((self.network.server.address,), found=())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_all(self) -> None:
        """Start a new run's server, and all clients."""
        self.start_server()
        for number in range(self.plan.clients):
            self.start_client(number)

    def start_server(self, *options: str, app: Path | None = None) -> None:
        """Start a server; without options that of the run `RUN`. `app` is another than the plan's."""
        plan, which = self.plan, options or ("--name", RUN)
        certificates = () if plan.certificates is None else ("--certificates", str(plan.certificates.path))
        self.server = self._start(self.network.server, [
            "server", str(plan.config), "--runs", str(plan.runs), "--app", str(app or plan.app), *certificates, *which,
        ], Oddity())  # fmt: skip

    def resume_server(self) -> None:
        """Let the run go on."""
        self.start_server("--resume", RUN)

    def start_client(self, number: int, *options: str) -> None:
        """Start a client, or start it again: with the key and the name that it had."""
        host, plan = self.network.clients[number], self.plan
        oddity = plan.oddities.get(host.name, Oddity())
        ca = () if plan.certificates is None else ("--ca", str(plan.certificates.ca_certificate))
        self.clients[number] = self._start(host, [
            "client", "--server", f"{self.network.server.address}:{PORT}", "--interface", host.interface,
            "--link", plan.profile.name, "--partition", str(number), "--name", host.name, "--state", str(self.state(number)),
            "--trust-apps", *ca, *oddity.options, *options,
        ], oddity)  # fmt: skip

    def state(self, number: int) -> Path:
        """Folder that keeps what a client has between runs."""
        return self.plan.folder / "state" / self.network.clients[number].name

    def _start(self, host: Host, arguments: list[str], oddity: Oddity) -> Process:
        environment = {**self._environment, **self.plan.environment, **oddity.environment}
        with self._log(host.name).open("ab") as output:
            process: Process = host.popen(
                [*oddity.prefix, sys.executable, "-m", "fltestbed", *arguments],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment,
            )  # fmt: skip
        self._stack.callback(end, process)
        return process

    # Who is who

    def pid(self, number: int) -> int:
        """The network process of a client."""
        return _one(self.clients[number].pid, lambda command: "fltestbed" in command and "client" in command, itself=True)

    def trainer(self, number: int) -> int:
        """The trainer of a client."""
        return _one(self.pid(number), lambda command: "fltestbed.client.trainer" in command)

    def server_app(self) -> int:
        """The ServerApp's process."""
        return _one(self.server.pid, lambda command: "fltestbed.server.app_process" in command)

    # What they have said and written

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.plan.runs / RUN

    def log(self, name: str) -> str:
        """What a process has said: `server`, or the name of a client."""
        return self._log(name).read_text(errors="replace")

    def _log(self, name: str) -> Path:
        return self.plan.folder / f"{name}.log"

    def rows(self, table: str, **cells: str) -> list[dict[str, str]]:
        """Whole rows that are on disk now and have these cells."""
        return read_rows(self.run, table, **cells)

    def wait_for_row(self, table: str, within_s: float = PATIENCE_S, **cells: str) -> dict[str, str]:
        """Wait until there is such a row; the first one.

        Raises
        ------
        WaitedTooLong
            It did not come in time, or the server has ended without it.
        """
        found: list[dict[str, str]] = []

        def look() -> bool:
            has_ended = self.server.poll() is not None  # before the look, since it writes until then
            found.extend(self.rows(table, **cells))
            return bool(found) or has_ended

        wait_until(look, f"a row of {table}.csv with {cells}", within_s)
        if not found:
            raise WaitedTooLong(f"the server ended with status {self.server.returncode}, without a row of {table}: {cells}")
        return found[0]

    def manifest(self, name: str = RUN) -> dict[str, Any]:
        """The manifest of a run."""
        return read_manifest(self.plan.runs / name)

    # The links

    def sent_bytes(self, number: int) -> int:
        """What a client's host has sent over its link."""
        return self.network.clients[number].counters().tx_bytes

    def received_bytes(self, number: int) -> int:
        """What a client's host has received over its link."""
        return self.network.clients[number].counters().rx_bytes


def read_rows(run: Path, table: str, **cells: str) -> list[dict[str, str]]:
    """Whole rows of a table that are on disk now and have these cells."""
    try:
        text = (run / f"{table}.csv").read_text()
    except FileNotFoundError:
        return []
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines(keepends=True))
    return [row for row in rows if all(row[name] == value for name, value in cells.items())]


def read_manifest(run: Path) -> dict[str, Any]:
    """The manifest of a run folder."""
    manifest: dict[str, Any] = json.loads((run / FILE_NAME).read_text())
    return manifest


def torn_rows(run: Path) -> list[str]:
    """Lines of a run's recorded tables that are not whole: more or fewer cells than the header has, or no end."""
    found = []
    for table in RECORDED:
        name, path = table.name, run / table.name
        if not path.exists():
            continue
        text = path.read_text()
        lines = list(csv.reader(text.splitlines(keepends=True)))
        found += [f"{name}: line {number}" for number, line in enumerate(lines, 1) if len(line) != len(table.header)]
        if text and not text.endswith("\n"):
            found.append(f"{name}: the last line has no end")
    return found


def end(process: Process, within_s: float = END_S) -> None:
    """End a process as Ctrl-C would, or make it end; a stopped one too."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _one(parent: int, is_meant: Callable[[list[str]], bool], *, itself: bool = False) -> int:
    process = psutil.Process(parent)
    found: list[int] = []
    for each in (*([process] if itself else []), *process.children(recursive=itself)):
        with contextlib.suppress(psutil.Error):  # one that has died since, and may not be reaped yet
            found.extend([int(each.pid)] if is_meant(each.cmdline()) else [])
    if len(found) != 1:
        raise Missed(f"process {parent}: {len(found)} of its family are what is looked for, not one")
    return found[0]
