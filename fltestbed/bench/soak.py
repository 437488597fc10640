"""`fltestbed bench soak`: whether a run of days would end as it began, judged by a thousand rounds of it.

A real `fltestbed server` on loopback and light clients (`fltestbed.bench.light`) move the tiny model, round after round.
What each process holds is read after round 100, when caches and pools have filled, and after the last: resident memory,
open files and threads. Bars: files and threads are no more, but for a few that come and go; memory has grown by no more
than a few megabytes, of which the SuperLink and the ServerApp get `MOST_BYTES_OF_A_ROUND` for each round, the few numbers
that are kept of it on purpose (Flower's history of metrics, the state of each round for the summary line).
"""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from fltestbed.bench.light import CLIENT_APP, Order
from fltestbed.bench.models import SIZES
from fltestbed.bench.noise import write_app
from fltestbed.bench.place import LOOPBACK, Place, Processes, place
from fltestbed.bench.report import Bar, Report
from fltestbed.bench.toolkit import NO_PROBES, PORT, RUN, START_ALLOWANCE_S, start_server
from fltestbed.errors import TestbedError
from fltestbed.scratch import scratch_folder

FIRST_LOOK = 100
MEGABYTE = 1e6
ROUND_TIMEOUT_S = 20.0
TRAILING_ROUNDS = 20
"""After the last that is looked at: rows are seen up to half a second late, and the end of a run closes files."""
MOST_GROWTH_MB = 8.0
MOST_BYTES_OF_A_ROUND = 2000
MOST_MORE_FILES, MOST_MORE_THREADS = 4, 4
SUPERLINK, SERVER_APP, CLIENTS = "SuperLink", "ServerApp", "clients"

ABOUT = (
    "light clients without torch, all in one process, the tiny model (19 kB), a real server; plain loopback, probes off",
    "resident: VmRSS; files: open descriptors; read when the first row of the round has been written",
)

log = logging.getLogger("fltestbed")


@dataclass(frozen=True)
class Look:
    """What a process held at one moment."""

    resident_bytes: int
    files: int
    threads: int

    @classmethod
    def at(cls, pid: int) -> "Look":
        """Look at a process now."""
        process = psutil.Process(pid)
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads())


@dataclass(frozen=True, kw_only=True)
class SoakReport(Report):
    """What each process held after which round."""

    benchmark = "soak"
    looks: dict[int, dict[str, Look]]
    seconds: float

    def render_findings(self, console: Console) -> None:
        """Print a line for each process and look."""
        table = Table("after round", "process", "resident MB", "files", "threads", title_justify="left")
        for round_, found in self.looks.items():
            for name, look in found.items():
                table.add_row(str(round_), name, f"{look.resident_bytes / MEGABYTE:.1f}", str(look.files), str(look.threads))
        console.print()
        console.print(table)


def measure(rounds: int, clients: int) -> SoakReport:
    """Run the benchmark; nothing is left running.

    Raises
    ------
    TestbedError
        The server or the clients failed.
    """
    with scratch_folder("bench") as folder, place(LOOPBACK, 1) as here:
        start_s = time.monotonic()
        looks = _run(here, folder, rounds, clients)
    return SoakReport(
        about=(f"{clients} clients, {rounds} rounds", *ABOUT), looks=looks, bars=tuple(judge(looks)),
        seconds=time.monotonic() - start_s,
    )  # fmt: skip


def judge(looks: dict[int, dict[str, Look]]) -> list[Bar]:
    """How much more each process held after the last round than after the first that was looked at."""
    first, last = min(looks), max(looks)
    where = f"round {first} to {last}"
    bars = []
    for name, before in looks[first].items():
        after = looks[last][name]
        kept_mb = (last - first) * MOST_BYTES_OF_A_ROUND / MEGABYTE if name != CLIENTS else 0.0
        grown_mb = (after.resident_bytes - before.resident_bytes) / MEGABYTE
        bars += [
            Bar(f"{name}: more resident memory", where, grown_mb, MOST_GROWTH_MB + kept_mb, "MB"),
            Bar(f"{name}: more open files", where, after.files - before.files, MOST_MORE_FILES),
            Bar(f"{name}: more threads", where, after.threads - before.threads, MOST_MORE_THREADS),
        ]
    return bars


def _run(here: Place, folder: Path, rounds: int, clients: int) -> dict[int, dict[str, Look]]:
    settings = {"clients": clients, "server": {"round-deadline-s": ROUND_TIMEOUT_S}, "probes": NO_PROBES}
    app = write_app(
        folder / "app", size=SIZES["tiny"].name, rounds=rounds + TRAILING_ROUNDS, stamps=folder / "stamps.json",
        clients=clients, client_app=CLIENT_APP,
    )  # fmt: skip
    (folder / "logs").mkdir()
    processes = Processes(folder / "logs")
    start_server(processes, here.server, folder, settings, ["--app", str(app)])
    order = Order(f"{here.server.address}:{PORT}", here.server.interface, LOOPBACK, 0, clients, str(folder / "state"))
    processes.start(here.clients[0], CLIENTS, [sys.executable, "-m", "fltestbed.bench.light", order.to_json()])
    app_pids: list[int] = []
    processes.wait_until(lambda: bool(app_pids or _find_app(processes.pid("server"), app_pids)), START_ALLOWANCE_S)
    pids = {SUPERLINK: processes.pid("server"), SERVER_APP: app_pids[0], CLIENTS: processes.pid(CLIENTS)}
    rows = _Rounds(folder / RUN / "phases.csv")
    looks = {}
    reached = 0
    for round_ in _looked_at(rounds):
        processes.wait_until(partial(rows.has_passed, round_), START_ALLOWANCE_S + (round_ - reached) * ROUND_TIMEOUT_S)
        looks[round_] = {name: Look.at(pid) for name, pid in pids.items()}
        reached = round_
        log.info("round %s: %s", round_, looks[round_])
    processes.wait(["server", CLIENTS], START_ALLOWANCE_S)
    if rows.latest() != rounds + TRAILING_ROUNDS:
        raise TestbedError(f"{folder / RUN}: the run ended after round {rows.latest()} of {rounds + TRAILING_ROUNDS}")
    return looks


def _looked_at(rounds: int) -> Sequence[int]:
    """Round 100, each tenth of the run after it, and the last."""
    first = min(FIRST_LOOK, max(1, rounds // 2))
    return sorted({first, rounds, *range(first, rounds, max(1, rounds // 10))})


def _find_app(server_pid: int, found: list[int]) -> bool:
    children = psutil.Process(server_pid).children()
    found.extend(child.pid for child in children if "fltestbed.server.app_process" in child.cmdline())
    return bool(found)


class _Rounds:
    """The latest round in a growing phases.csv, read from where the last look ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._latest = 0

    def has_passed(self, round_: int) -> bool:
        """Whether a row of a later round was written."""
        return self.latest() > round_

    def latest(self) -> int:
        """Number of the latest round of which a row was written; 0 before the first."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return 0
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            word = line.split(b",", 2)[1]
            self._latest = max(self._latest, int(word) if word.isdigit() else 0)
        return self._latest
