"""`fltestbed bench instrumentation`: what measuring costs, as the ratio of round times with and without it.

One long run goes to and fro between both: `[instrumentation] alternate-rounds` lets the server measure a block of rounds and
not the next, in the order on, off, off, on. So the two halves of a pair are neighbours in time, on the same connections, in
the same processes, and a drift of the machine takes the same from both; to start processes for each half would add more
spread than there is effect. The first round of each block is not counted: rows of the round before are still being written
in it, and the next block's facts are not yet gathered.

A pair gives the logarithm of the ratio of its blocks' mean round times, without the fastest and the slowest fifth of each (a
hiccup of the machine or a lost segment takes one round of a block, and not all; of what is left a mean says more than a
median does). Their mean and its 95% interval (Student's t over the pairs) are what is reported. What measuring costs in less
than a fifth of the rounds alone would be cut off as well: the ratio of the plain means stands beside. Pairs are added, a run
at a time, until half of that interval is at most 0.5%, or there are 60. Looking at the interval after each run makes it a
little too narrow; with ten pairs at least and six looks at most this is small beside the bar.

How long that takes: with rounds that spread by 2% (one standard deviation) about 125 counted rounds of each half, which is
the first run over Ethernet; with 5% about 770, six runs.
"""

import json
import logging
import math
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import t as student_t
from scipy.stats import trim_mean

from fltestbed.bench.models import Size
from fltestbed.bench.noise import CLIENTS, write_app
from fltestbed.bench.place import CONGESTION_CONTROL, LOOPBACK, Place, Processes, place
from fltestbed.bench.report import Bar, Report, show
from fltestbed.bench.toolkit import client_command, start_server
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.links import load_link
from fltestbed.measure.kernel_stamps import StampedSocket
from fltestbed.measure.recorder import Recorder, Value
from fltestbed.measure.tcp import tcp_snapshot

PAIRS_OF_A_RUN = 10
MOST_PAIRS = 60
RESOLVED = 0.005
"""Half of the interval of the ratio, at most."""
MOST_OVERHEAD, MOST_OVERHEAD_S = 0.01, 0.010
"""Of the bar: the larger of the two, for the upper end of the interval."""
BAR_LINK = "ethernet"
BLOCK_S, MOST_ROUNDS_OF_A_BLOCK = 8.0, 15
CUT = 0.2
"""Part of a block's rounds that is left out, at each end."""
ROUND_OVERHEAD_S = 0.2
"""Of a round, beyond its transfers, on two cores; for the forecast alone."""
RUN_ALLOWANCE_S, ROUND_ALLOWANCE_S = 120.0, 60.0
CPU_REPETITIONS = 2000

ABOUT = (
    f"{CLIENTS} clients, fresh random weights each round, no training; congestion control {CONGESTION_CONTROL}",
    "one run alternates between blocks of rounds with and without instrumentation; the first round of each is not counted",
    f"ratio: round time with / without, 95% interval over pairs of blocks; resolved if half of it is at most {RESOLVED:.1%}",
)

log = logging.getLogger("fltestbed")


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes
    ----------
    links : sequence of str
        Shipped profiles, paths of profiles, or "loopback".
    size : Size
        The model.
    block : int or None
        Counted rounds of a block; None for what takes about `BLOCK_S` on the link.
    most_pairs : int
        Where to give up.
    backend : str
        How links are emulated.
    """

    links: Sequence[str]
    size: Size
    block: int | None = None
    most_pairs: int = MOST_PAIRS
    backend: str = "auto"


@dataclass(frozen=True)
class Pair:
    """Seconds of a round in two neighbouring blocks: the mean without the fastest and the slowest fifth, and of all."""

    on_s: float
    off_s: float
    on_mean_s: float
    off_mean_s: float


@dataclass(frozen=True)
class Finding:
    """What was found on one link.

    Attributes
    ----------
    off_s : float
        Seconds of a round without instrumentation.
    ratio, low, high : float
        Round time with / without, and its 95% interval.
    plain_ratio : float
        Of the means of all counted rounds.
    resolved : bool
        Whether half of the interval is at most `RESOLVED`.
    bar : Bar
        Beside `high`, the interval's upper end.
    """

    link: str
    notes: tuple[str, ...]
    pairs: tuple[Pair, ...]
    counted_rounds: int
    off_s: float
    ratio: float
    low: float
    high: float
    plain_ratio: float
    resolved: bool
    bar: Bar


@dataclass(frozen=True, kw_only=True)
class InstrumentationReport(Report):
    """What `fltestbed bench instrumentation` measured; `cpu_us` is the CPU time of single stamps in microseconds."""

    benchmark = "instrumentation"
    findings: tuple[Finding, ...]
    cpu_us: dict[str, float]

    def render_findings(self, console: Console) -> None:
        """Print each ratio with its interval, and the CPU time of stamps."""
        columns = ("link", "pairs", "rounds of a half", "round without, s", "ratio", "95% interval", "", "of plain means")
        table = Table(*columns, title="what measuring costs", title_justify="left")
        for found in self.findings:
            table.add_row(
                found.link, str(len(found.pairs)), str(found.counted_rounds), f"{found.off_s:.4f}", f"{found.ratio:.4f}",
                f"{found.low:.4f} to {found.high:.4f}", "resolved" if found.resolved else "not resolved",
                f"{found.plain_ratio:.4f}",
            )  # fmt: skip
        console.print(table)
        for found in self.findings:
            for note in found.notes:
                show(console, f"  {found.link}: {note}", style="dim")
        cpu = ", ".join(f"{name} {value:.2f}" for name, value in self.cpu_us.items())
        show(console, f"CPU time of one stamp, us: {cpu}")


def measure(plan: Plan) -> InstrumentationReport:
    """Run the benchmark; nothing is left running.

    Raises
    ------
    TestbedError
        A process failed; the message says what it said last.
    """
    findings = tuple(_measure_link(plan, link) for link in plan.links)
    bars = tuple(found.bar for found in findings)
    return InstrumentationReport(about=ABOUT, findings=findings, cpu_us=cpu_times_us(), bars=bars)


def find(link: str, notes: tuple[str, ...], pairs: Sequence[Pair], counted_rounds: int) -> Finding:
    """The ratio of `pairs`, two at least, with its interval, beside its bar."""
    logs = [math.log(pair.on_s / pair.off_s) for pair in pairs]
    half = float(student_t.ppf(0.975, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
    low, high = math.exp(fmean(logs) - half), math.exp(fmean(logs) + half)
    off_s = fmean(pair.off_s for pair in pairs)
    most = 1 + max(MOST_OVERHEAD, MOST_OVERHEAD_S / off_s) if link == BAR_LINK else None
    resolved = (high - low) / 2 <= RESOLVED
    bar = Bar("round with / without, upper end of the interval", link, high, most)
    plain = fmean(pair.on_mean_s for pair in pairs) / fmean(pair.off_mean_s for pair in pairs)
    return Finding(link, notes, tuple(pairs), counted_rounds, off_s, math.exp(fmean(logs)), low, high, plain, resolved, bar)


def pair_up(starts_ns: Sequence[int], block: int) -> list[Pair]:
    """Pairs of blocks from the starts of all rounds of a run and of one more.

    Parameters
    ----------
    starts_ns : sequence of int
        Of rounds in blocks of one that is not counted and `block` that are: on, off, off, on, and so on.
    """
    periods = [(after - before) / 1e9 for before, after in pairwise(starts_ns)]
    blocks = [periods[first + 1 : first + 1 + block] for first in range(0, len(periods) - block, block + 1)]
    halves = [(float(trim_mean(rounds, CUT)), fmean(rounds)) for rounds in blocks]
    neighbours = zip(halves[::2], halves[1::2], strict=False)
    return [
        Pair(on[0], off[0], on[1], off[1])
        for number, half in enumerate(neighbours)
        for on, off in [half if number % 2 == 0 else half[::-1]]
    ]


def cpu_times_us() -> dict[str, float]:
    """CPU time of one stamp of each kind in this process, in microseconds: reading the clock, TCP_INFO, a row on disk."""
    row: dict[str, Value] = {
        "round": 1,
        "client": "client-0",
        "phase": "uplink",
        "start_raw_ns": 1,
        "end_raw_ns": 2,
        "duration_s": 0.1,
    }
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        found = {
            "clock read": _cpu_us(SYSTEM_CLOCK.raw_ns),
            "TCP_INFO read": _cpu_us(lambda: tcp_snapshot(sock)),
        }
    found["message stamped by the kernel"] = _cpu_of_kernel_stamps_us()
    with tempfile.TemporaryDirectory(prefix="fltestbed-bench-") as folder:
        start_ns = time.process_time_ns()
        with Recorder(Path(folder), "bench") as recorder:
            for _ in range(CPU_REPETITIONS):
                recorder.write("phases.csv", row)
        found["row written"] = (time.process_time_ns() - start_ns) / 1e3 / CPU_REPETITIONS
    return found


def _cpu_of_kernel_stamps_us() -> float:
    """What sending and receiving a short message takes longer with the stamps of its departure and of its arrival."""
    with StampedSocket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with StampedSocket(socket.AF_INET, socket.SOCK_STREAM) as near:
            near.connect(listener.getsockname())
            far, _ = listener.accept()
            with far:
                buffer = bytearray(1)

                def stamped() -> None:
                    near.begin_sending()
                    near.sendall(b"x")
                    far.expect()
                    far.recv_into(buffer)
                    near.began_ns()
                    near.stamp_sending(False)

                def plain() -> None:
                    near.sendall(b"x")
                    far.recv_into(buffer)

                with_stamps_us = _cpu_us(stamped)
                near.switch(False)
                far.switch(False)
                return with_stamps_us - _cpu_us(plain)


def _cpu_us(stamp: Any) -> float:
    start_ns = time.process_time_ns()
    for _ in range(CPU_REPETITIONS):
        stamp()
    return (time.process_time_ns() - start_ns) / 1e3 / CPU_REPETITIONS


def expected_round_s(link: str, size: Size) -> float:
    """Seconds of a round on a link by its rates: both ways, of all clients where they share it, and what a round costs."""
    if link == LOOPBACK:
        return ROUND_OVERHEAD_S
    profile = load_link(link)
    sharing = 1 if profile.medium == "dedicated" else CLIENTS
    return ROUND_OVERHEAD_S + sum(
        size.model_bytes * sharing * 8 / (way.rate_mbit * 1e6) for way in (profile.downlink, profile.uplink)
    )


def _measure_link(plan: Plan, link: str) -> Finding:
    expected_s = expected_round_s(link, plan.size)
    block = plan.block or min(MOST_ROUNDS_OF_A_BLOCK, max(1, round(BLOCK_S / expected_s)))
    pair_s = 2 * (block + 1) * expected_s
    log.info(
        "%s: pairs of %s counted rounds each way, about %.0f s a pair: %.0f s for the first %s, %.0f s for the last of %s",
        link, block, pair_s, pair_s * PAIRS_OF_A_RUN, PAIRS_OF_A_RUN, pair_s * plan.most_pairs, plan.most_pairs,
    )  # fmt: skip
    pairs: list[Pair] = []
    while True:
        number = min(PAIRS_OF_A_RUN, plan.most_pairs - len(pairs))
        with tempfile.TemporaryDirectory(prefix="fltestbed-bench-") as folder, place(link, CLIENTS, plan.backend) as here:
            pairs += pair_up(_run(here, plan.size, block, number, Path(folder)), block)
        found = find(here.link, here.notes, pairs, block)
        log.info(
            "%s: %s pairs, ratio %.4f (%.4f to %.4f)%s",
            here.link, len(pairs), found.ratio, found.low, found.high, ", resolved" if found.resolved else "",
        )  # fmt: skip
        if found.resolved or len(pairs) >= plan.most_pairs:
            return found


def _run(here: Place, size: Size, block: int, pairs: int, folder: Path) -> list[int]:
    """One run of so many pairs; returns the starts of its rounds and of one more, raw ns."""
    rounds, stamps = 2 * pairs * (block + 1) + 1, folder / "stamps.json"
    app = write_app(folder / "app", size=size.name, rounds=rounds, stamps=stamps)
    timeout_s = RUN_ALLOWANCE_S + rounds * ROUND_ALLOWANCE_S
    settings = {
        "rounds": rounds, "clients": len(here.clients), "server": {"round-deadline-s": timeout_s},
        "instrumentation": {"alternate-rounds": block + 1},
    }  # fmt: skip
    (folder / "logs").mkdir()
    processes = Processes(folder / "logs")
    start_server(processes, here.server, folder, settings, ["--app", str(app)])
    for number, host in enumerate(here.clients):
        processes.start(host, host.name, [*client_command(host, here.server, here.link, number, folder), "--trust-apps"])
    here.start_trace()
    processes.wait(["server", *(host.name for host in here.clients)], timeout_s)
    starts_ns: list[int] = json.loads(stamps.read_text())
    return starts_ns
