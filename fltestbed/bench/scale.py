"""`fltestbed bench scale`: how a round and the server's memory grow with the number of clients.

A real `fltestbed server` on loopback, and light clients (`fltestbed.bench.light`), in two processes whatever their number.
Memory, processor time and phases are those of a server that is started for each number. How a round's time grows is
measured in one run with all clients, whose rounds take each number of them in turn, there and back: what makes the machine
slower for some seconds then meets all numbers alike, and clients that a round does not take only wait.

Bars: from one number of clients to the next the round's time grows at most as the number does; a round of 100 clients at
2.9 MB takes at most 6 s; the ServerApp's peak memory at the most clients is within 20% of that at the fewest; the
SuperLink's memory grows by no more than `MOST_OF_WAITING` bytes for each further byte that waits in it.
"""

import logging
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from statistics import median

from fltestbed.bench.contenders import UNCOUNTED_ROUNDS, periods_s
from fltestbed.bench.footprint import Footprint, Watch, watching
from fltestbed.bench.light import CLIENT_APP, Order
from fltestbed.bench.models import SIZES, Size
from fltestbed.bench.noise import write_app
from fltestbed.bench.place import LOOPBACK, Place, Processes, place
from fltestbed.bench.report import Bar
from fltestbed.bench.results import Spread
from fltestbed.bench.scale_report import Costs, Growth, Load, ScaleReport, steps
from fltestbed.bench.toolkit import NO_PROBES, PORT, RUN, START_ALLOWANCE_S, start_server
from fltestbed.bench.waiting import Waiting, read_waiting
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.config_file import read_json
from fltestbed.errors import TestbedError
from fltestbed.scratch import scratch_folder

CLIENT_PROCESSES = 2
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""For glibc in those processes: what fifty threads free in arenas of their own goes back to the system and is taken anew, at
100 clients with some 1,200 page faults for each client and round in place of 200."""
SERVER, SERVER_APP = "superlink", "serverapp"
ROUND_TIMEOUT_S = 60.0

MOST_ROUND_S = {("small", 100): 6.0}
MOST_OF_APP = 1.2
MOST_OF_WAITING = 1.0
"""A reply is decoded while it comes, so it is held once, as Flower's objects; what waits to be read is the kernel's."""

ABOUT = (
    f"light clients without torch: the update is the model plus noise; they share {CLIENT_PROCESSES} processes "
    "(interpreter, imports, one arena of glibc), in each one at a time makes its update; each has its own node, key, "
    "connection, heartbeat, thread and buffers",
    "server: the real command, SuperLink and ServerApp in two processes; all on this machine, plain loopback",
    "round: from the start of configuring it to that of the next; the first and the last are not counted",
    "growth: one run, whose rounds take each number of clients in turn, there and back; the first turn is not counted",
    "peak memory: VmHWM; idle: resident as the first round begins; waiting: most bytes of messages at once in the SuperLink",
)

log = logging.getLogger("fltestbed")


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes
    ----------
    clients : sequence of int
        Numbers of clients, ascending.
    size : Size
        The model whose growth is judged.
    repetitions : int
        How often each number is started.
    rounds : int
        Counted rounds of a start, and for each number of clients and repetition of the run with all of them in turn.
    """

    clients: Sequence[int]
    size: Size
    repetitions: int
    rounds: int


@dataclass(frozen=True)
class _Start:
    """What one start gave: seconds of its rounds, what waited, CPU milliseconds of a client and round, and memory."""

    periods_s: list[float]
    waiting: Waiting
    cpu_ms: dict[str, float]
    superlink: Footprint
    serverapp: Footprint
    first_ns: int


def measure(plan: Plan) -> ScaleReport:
    """Run the benchmark; nothing is left running.

    The largest number of clients also moves the tiny model, which separates the cost of a client from that of its bytes.

    Raises
    ------
    TestbedError
        The server or a client failed.
    """
    starts: list[tuple[Size, int, list[_Start]]] = [(plan.size, clients, []) for clients in plan.clients]
    starts.append((SIZES["tiny"], plan.clients[-1], []))
    for repetition in range(plan.repetitions):
        for size, clients, those in starts if repetition % 2 == 0 else reversed(starts):
            log.info("%s clients, %s model, repetition %s of %s", clients, size.name, repetition + 1, plan.repetitions)
            those.append(_start(size, clients, plan.rounds))
    loads = [_load(size, clients, those) for size, clients, those in starts]
    growth = _grow(plan)
    bars = judge(loads[:-1], growth)
    return ScaleReport(about=ABOUT, loads=tuple(loads), growth=tuple(growth), costs=Costs.fit(loads), bars=tuple(bars))


def judge(loads: Sequence[Load], growth: Sequence[Growth]) -> list[Bar]:
    """The bars of one model, by number of clients ascending."""
    size = loads[-1].size
    where = f"{LOOPBACK}, {size}"
    bars = [
        Bar(f"round, {load.clients} clients, s", where, load.round.median_s, MOST_ROUND_S.get((size, load.clients)))
        for load in loads
    ]
    for fewer, more in steps(growth):
        name = f"round: {more.clients} / {fewer.clients} clients"
        bars.append(Bar(name, where, more.round.median_s / fewer.round.median_s, more.clients / fewer.clients))
    first, last = loads[0], loads[-1]
    if first is not last:
        name = f"{last.clients} / {first.clients} clients"
        bars.append(Bar(f"ServerApp peak: {name}", where, last.app_peak_bytes / first.app_peak_bytes, MOST_OF_APP))
        grown, waits = (
            getattr(last, figure) - getattr(first, figure) for figure in ("superlink_peak_bytes", "waiting_bytes")
        )
        bars.append(Bar(f"SuperLink peak / waiting, more of: {name}", where, grown / waits, MOST_OF_WAITING))
    return bars


def _grow(plan: Plan) -> list[Growth]:
    """Rounds of each number of clients, in turn; those of the first turn are not counted."""
    turns = [*plan.clients, *reversed(plan.clients)]
    counted = plan.repetitions * max(1, plan.rounds // 2)
    log.info("%s clients in turn, %s model", ", ".join(map(str, plan.clients)), plan.size.name)
    start = _start(plan.size, plan.clients[-1], (1 + counted) * len(turns), turns)
    return grown(plan.size.name, turns, start.periods_s, plan.repetitions)


def grown(size: str, turns: Sequence[int], seconds: Sequence[float], repetitions: int) -> list[Growth]:
    """Sort the rounds of a run by their clients.

    Parameters
    ----------
    size : str
        The model.
    turns : sequence of int
        Clients of each round, over and over.
    seconds : sequence of float
        Of the rounds, without the first.
    repetitions : int
        Parts of equal length, in whose medians the run is given, too; the first turn belongs to none.
    """
    ordered = list(zip(cycle(turns), [math.nan, *seconds]))[len(turns) :]
    length = len(ordered) // len(turns) // repetitions * len(turns)
    parts = [ordered[length * number : length * (number + 1)] for number in range(repetitions)]
    return [
        Growth(clients, _spread(size, clients, [[second for those, second in part if those == clients] for part in parts]))
        for clients in sorted(set(turns))
    ]


def _spread(size: str, clients: int, repetitions: list[list[float]]) -> Spread:
    spread = Spread.of(repetitions)
    if spread is None:
        raise TestbedError(f"{clients} clients, {size} model: the run ended without a counted round")
    return spread


def _load(size: Size, clients: int, starts: Sequence[_Start]) -> Load:
    """Medians over all starts; of memory the peaks."""
    seconds = _spread(size.name, clients, [start.periods_s for start in starts])
    return Load(
        size=size.name, model_bytes=size.model_bytes, clients=clients, round=seconds,
        phases_s={
            phase: median(value for start in starts for value in start.waiting.phase_s[phase])
            for phase, values in starts[0].waiting.phase_s.items() if values
        },
        cpu_ms={process: median(start.cpu_ms[process] for start in starts) for process in starts[0].cpu_ms},
        message_bytes=starts[0].waiting.message_bytes, waiting_bytes=max(start.waiting.most_bytes for start in starts),
        superlink_idle_bytes=max(start.superlink.resident_at(start.first_ns) for start in starts),
        superlink_peak_bytes=max(start.superlink.peak_bytes for start in starts),
        app_idle_bytes=max(start.serverapp.resident_at(start.first_ns) for start in starts),
        app_peak_bytes=max(start.serverapp.peak_bytes for start in starts),
    )  # fmt: skip


def _start(size: Size, clients: int, rounds: int, turns: Sequence[int] = ()) -> _Start:
    with scratch_folder("bench") as folder, place(LOOPBACK, 1) as here:
        return _run(here, folder, size, clients, rounds, turns)


def _run(here: Place, folder: Path, size: Size, clients: int, rounds: int, turns: Sequence[int]) -> _Start:
    all_rounds, stamps = rounds + UNCOUNTED_ROUNDS, folder / "stamps.json"
    timeout_s = START_ALLOWANCE_S + all_rounds * ROUND_TIMEOUT_S
    settings = {"clients": clients, "server": {"round-deadline-s": timeout_s}, "probes": NO_PROBES}
    app = write_app(
        folder / "app", size=size.name, rounds=all_rounds, stamps=stamps, clients=clients, turns=turns, client_app=CLIENT_APP
    )
    (folder / "logs").mkdir()
    processes = Processes(folder / "logs")
    start_server(processes, here.server, folder, settings, ["--app", str(app)])
    names = ["server"]
    processes_needed = min(CLIENT_PROCESSES, clients)
    bounds = [clients * number // processes_needed for number in range(processes_needed + 1)]
    for first, end in pairwise(bounds):
        order = Order(
            f"{here.server.address}:{PORT}", here.server.interface, LOOPBACK, first, end - first, str(folder / "state")
        )
        names.append(f"clients-{first}")
        program = [sys.executable, "-m", "fltestbed.bench.light", order.to_json()]
        processes.start(here.clients[0], names[-1], program, os.environ | ONE_ARENA)
    watch = Watch(SYSTEM_CLOCK, with_sharing=False)
    watch.add(SERVER, processes.pid("server"))
    processes.wait_until(
        lambda: watch.add_child(SERVER_APP, processes.pid("server"), "fltestbed.server.app_process"), START_ALLOWANCE_S
    )
    for name in names[1:]:
        watch.add(name, processes.pid(name))
    with watching(watch):
        processes.wait(names, timeout_s)
    starts_ns = read_json(stamps)
    counted = rounds * clients
    return _Start(
        periods_s=periods_s(starts_ns),
        waiting=read_waiting(folder / RUN, all_rounds),
        cpu_ms={
            what: 1e3 * sum(watch.footprints[name].cpu_between(starts_ns[1], starts_ns[-1]) for name in those) / counted
            for what, those in {SERVER: [SERVER], SERVER_APP: [SERVER_APP], "client": names[1:]}.items()
        },
        superlink=watch.footprints[SERVER], serverapp=watch.footprints[SERVER_APP], first_ns=starts_ns[0],
    )  # fmt: skip
