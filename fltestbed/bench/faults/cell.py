"""One cell: a run that is struck, what has to hold of it, and a later run in the same place.

As a program it takes the cell's name, a folder and the fields of a `Channel` as JSON, runs the cell, and prints what came
out as JSON, on one line.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from fltestbed.bench.faults import checks
from fltestbed.bench.faults.app import write_app
from fltestbed.bench.faults.disk import make_room, small_disk
from fltestbed.bench.faults.injector import FAST_MBIT, GRACE_S, PARAMETERS, START_S, Injector, Tools, hold_s
from fltestbed.bench.faults.lab import PORT, FaultLab, Missed, Plan, wait_until
from fltestbed.bench.faults.matrix import CLIENTS, ROUNDS, STRUCK, VICTIM, Cell, Channel, choose_cells
from fltestbed.bench.faults.witness import RowWitness
from fltestbed.bench.leftovers import held_namespaces, left_over, mounts, routes
from fltestbed.bench.odd_clocks import OddClock, build_library
from fltestbed.bench.testbed import Oddity
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.config_file import validate
from fltestbed.errors import TestbedError
from fltestbed.interrupts import STATUS as INTERRUPTED_STATUS
from fltestbed.interrupts import Interrupts
from fltestbed.links import LinkProfile
from fltestbed.security.folder import CertificateFolder

CLIENT_DISK, SERVER_DISK = "512k", "16m"
STEP_S = 3600
RESUME_BAR_S = 5.0
"""After an outage, until a transfer goes on or has begun again."""
PATIENCE_S = 5.0
"""Of clients whose server is not started again."""
END_BAR_S = 5.0
NAMESPACE_S = 2.0
"""A thread that has ended for Python is in its namespace until the kernel has put it away."""
LATER = "later"
QUEUE_KB = 100
BUFFERS = {"net/ipv4/tcp_rmem": "4096 65536 65536", "net/ipv4/tcp_wmem": "4096 16384 65536"}
"""Of every connection of the hosts. Linux lets them grow to megabytes, so that the host of a process that stands still takes
or sends a whole message without it: what was struck in a transfer would then not be seen in it."""


@dataclass(frozen=True)
class Outcome:
    """What came out of one cell.

    Attributes
    ----------
    cell : str
    reasons : tuple of str
        What does not hold; empty if all does.
    seconds : float
        What the cell took.
    longest_round_s : float
        The longest round of the struck run.
    resumed_s : float or None
        After an outage of the link, until it carried a transfer again.
    rows : int
        Whole rows that the witness saw.
    """

    cell: str
    reasons: tuple[str, ...]
    seconds: float = 0.0
    longest_round_s: float = 0.0
    resumed_s: float | None = None
    rows: int = 0


def run_cell(cell: Cell, folder: Path, channel: Channel) -> Outcome:
    """Run a cell in an empty folder; nothing is left running or mounted."""
    start = time.monotonic()
    mounted = mounts()
    trial = _Trial(cell, folder, channel)
    reasons = trial.reasons
    try:
        with ExitStack() as stack:
            trial.run(stack)
    except (Missed, TestbedError, OSError, psutil.Error, subprocess.SubprocessError) as error:
        reasons.append(f"{error}{trial.last_words}")
    if mounts() != mounted:
        reasons.append(f"left mounted: {'; '.join(set(mounts()) - set(mounted))}")
    try:
        wait_until(lambda: not held_namespaces(), "network namespaces to be let go", NAMESPACE_S)
    except Missed as error:
        reasons.append(f"{error}: {', '.join(held_namespaces())}")
    seconds = time.monotonic() - start
    return Outcome(cell.name, tuple(reasons), seconds, trial.longest_round_s, trial.resumed_s, trial.rows)


class _Trial:
    def __init__(self, cell: Cell, folder: Path, channel: Channel) -> None:
        self._cell = cell
        self._channel = channel
        self._folder = folder
        self._shared = folder / "shared"
        self._runs = folder / "runs"
        self._temporary = folder / "tmp"
        self._lab: FaultLab | None = None
        self.reasons: list[str] = []
        self.resumed_s: float | None = None
        self.longest_round_s = 0.0
        self.rows = 0

    @property
    def last_words(self) -> str:
        """What the server and the struck client said last."""
        if self._lab is None:
            return ""
        said = ""
        for name in ("server", checks.victim_name()):
            lines = self._lab.log(name).strip().splitlines() if (self._folder / f"{name}.log").exists() else []
            said += f"; {name}: {lines[-1].strip()}" if lines else ""
        return said

    def run(self, stack: ExitStack) -> None:
        cell, fault = self._cell, self._cell.fault
        for made in (self._shared, self._runs, self._temporary):
            made.mkdir()
        disks = self._disks(stack)
        tools = Tools(self._shared, self._folder / "step", **disks)
        with FaultLab(self._plan(tools)) as lab:
            self._lab = lab
            hosts = (lab.network.server, *lab.network.clients)
            before = [host.namespace.call(routes) for host in hosts]
            injector = Injector(lab, cell, tools)
            with RowWitness(lab.run) as witness:
                lab.start_server()
                patience_s = START_S if self._is_resumed else PATIENCE_S
                for number in range(CLIENTS):
                    lab.start_client(number, "--patience", str(patience_s))
                injector.run()
                self.resumed_s = injector.resumed_s
                limit_s = START_S + (ROUNDS - STRUCK + 1) * (fault.round_deadline_s + GRACE_S)
                wait_until(lambda: lab.server.poll() is not None, "the server to end", limit_s)
                self.reasons += self._check_ends(lab)
            self.rows = witness.rows
            self.longest_round_s = max(checks.round_seconds(lab.run).values(), default=0.0)
            self.reasons += self._check_run(lab.run, witness)
            for disk in disks.values():
                make_room(disk)
            lab.network.set_link(VICTIM, up=True)
            self.reasons += self._run_later(lab)
            after = [host.namespace.call(routes) for host in hosts]
            self.reasons += [
                f"{host.name}: its routes are not what they were"
                for host, old, new in zip(hosts, before, after, strict=True)
                if old != new
            ]
            if processes := left_over(lab.mark):
                self.reasons.append(f"left running: {'; '.join(processes)}")
        for temporary in (self._temporary, *self._folder.glob("state/*/tmp")):
            if left := sorted(path.name for path in temporary.iterdir()):
                self.reasons.append(f"left in the temporary folder: {', '.join(left)}")

    @property
    def _is_resumed(self) -> bool:
        return self._cell.fault.name != "superlink-killed"

    def _disks(self, stack: ExitStack) -> dict[str, Path]:
        if self._cell.fault.name == "disk-full-client":
            disk = stack.enter_context(small_disk(self._folder / "state" / checks.victim_name(), CLIENT_DISK))
            (disk / "tmp").mkdir()
            return {"client_disk": disk}
        if self._cell.fault.name == "disk-full-server":
            return {"server_disk": stack.enter_context(small_disk(self._runs, SERVER_DISK))}
        return {}

    def _plan(self, tools: Tools) -> Plan:
        fault, channel = self._cell.fault, self._channel
        rate = {"rate-mbit": FAST_MBIT, "queue-kb": QUEUE_KB}
        profile = validate(
            LinkProfile, {"name": "faults", "medium": "dedicated", "uplink": rate, "downlink": rate}, "the link of the cell"
        )
        config = self._folder / "experiment.toml"
        limits = "".join(f"{phase}-s = {fault.limit_s}\n" for phase in ("queue", "downlink", "train", "uplink"))
        config.write_text(
            f'name = "faults"\nclients = {CLIENTS}\ntransport = "{channel.transport}"\n'
            f"[server]\nport = {PORT}\ntls = {str(channel.has_tls).lower()}\nhold-s = {hold_s(self._cell)}\n"
            f"round-deadline-s = {fault.round_deadline_s}\n[deadlines]\n{limits}return-s = 30\n"
            "[probes]\ninterval-s = 0.5\nthrottling = false\ntime-sync = false\nwifi = false\nmodem = false\n"
        )
        app = write_app(self._folder / "app", self._shared, rounds=ROUNDS, parameters=PARAMETERS)
        oddity = Oddity()
        if fault.name == "clock-stepped":
            clock = OddClock("stepped", step_s=STEP_S, step_file=tools.step_file)
            oddity = clock.oddity(build_library(self._folder))
        if tools.client_disk is not None:
            oddity = Oddity(environment={"TMPDIR": str(tools.client_disk / "tmp")})
        return Plan(
            self._folder, self._runs, config, app, profile, CLIENTS, {checks.victim_name(): oddity},
            environment={"TMPDIR": str(self._temporary)},
            certificates=CertificateFolder(self._folder / "certs", SYSTEM_CLOCK) if channel.has_tls else None,
            sysctls=BUFFERS,
        )  # fmt: skip

    def _check_ends(self, lab: FaultLab) -> Iterator[str]:
        """Server and clients end by themselves, soon, and as they should."""
        if self._is_resumed and lab.server.returncode != 0:
            yield f"the server ended with status {lab.server.returncode}{self.last_words}"
        expected = 0 if self._is_resumed else 1
        for number, process in lab.clients.items():
            is_cut_off = self._cell.fault.name == "link-down" and number == VICTIM
            right, within_s = (INTERRUPTED_STATUS, END_BAR_S) if is_cut_off else (expected, GRACE_S + PATIENCE_S)
            if is_cut_off:  # it waits for the link, until somebody ends it
                process.send_signal(signal.SIGTERM)
            wait_until(lambda: process.poll() is not None, f"client-{number} to end", within_s)  # noqa: B023
            if process.returncode != right:
                said = lab.log(f"client-{number}")[-300:]
                yield f"client-{number} ended with status {process.returncode}, not {right}: {said}"

    def _check_run(self, run: Path, witness: RowWitness) -> Iterator[str]:
        cell = self._cell
        yield from witness.lost()
        yield from checks.check_rows(run)
        yield from checks.check_named(run)
        yield from checks.check_absence(run, cell, checks.victim_name(), self._channel)
        yield from checks.check_attempts(run)
        yield from checks.check_status(run, cell)
        yield from checks.check_rounds(run, cell.fault.round_deadline_s + GRACE_S)
        if self.resumed_s is not None and self.resumed_s > RESUME_BAR_S:
            yield f"after the outage the link carried nothing for {self.resumed_s:.1f} s, more than {RESUME_BAR_S:g} s"

    def _run_later(self, lab: FaultLab) -> Iterator[str]:
        """A short run in the same folders, by the same clients over the same links."""
        app = write_app(self._folder / "later-app", self._folder / "later-shared", rounds=1, parameters=PARAMETERS)
        lab.start_server("--name", LATER, app=app)
        for number in range(CLIENTS):
            lab.start_client(number)
        processes = (lab.server, *lab.clients.values())
        wait_until(lambda: all(process.poll() is not None for process in processes), "a later run to end")
        statuses = [process.returncode for process in processes]
        if any(statuses):
            yield f"a later run: server and clients ended with {statuses}{self.last_words}"
        yield from checks.check_later(self._runs / LATER, CLIENTS)


def main(name: str, folder: str, channel: str) -> None:
    """Run one cell and print what came out."""
    (cell,) = choose_cells([name])
    with Interrupts():
        print(json.dumps(asdict(run_cell(cell, Path(folder), Channel(**json.loads(channel))))))  # noqa: T201  # what this program does


if __name__ == "__main__":
    main(*sys.argv[1:])
