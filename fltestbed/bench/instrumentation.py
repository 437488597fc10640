"""`fltestbed bench instrumentation`: what measuring costs, as the ratio of round times with and without it.

`[instrumentation] alternate-rounds` lets the server measure a block of rounds and not the next. How a ratio comes of that
stands in `fltestbed.bench.pairs`, how many blocks in `fltestbed.bench.blocks`.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from fltestbed.bench.blocks import Plan, Task, measure_link
from fltestbed.bench.noise import CLIENTS
from fltestbed.bench.pairs import RESOLVED, Pair, estimate
from fltestbed.bench.place import CONGESTION_CONTROL
from fltestbed.bench.ratio_report import LinkFinding, show_notes, show_ratios
from fltestbed.bench.report import Bar, Report, show
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.measure.kernel_stamps import StampedSocket
from fltestbed.measure.recorder import Recorder, Value
from fltestbed.measure.tcp import tcp_snapshot
from fltestbed.scratch import scratch_folder

MOST_OVERHEAD, MOST_OVERHEAD_S = 0.01, 0.010
"""Of the bar: the larger of the two, for the upper end of the interval."""
BAR_LINK = "ethernet"
CPU_REPETITIONS = 2000

ABOUT = (
    f"{CLIENTS} clients, fresh random weights each round, no training; congestion control {CONGESTION_CONTROL}",
    "one run alternates between blocks of rounds with and without instrumentation; the first round of each is not counted",
    f"ratio: round time with / without, 95% interval over pairs of blocks; resolved if half of it is at most {RESOLVED:.1%}",
)


@dataclass(frozen=True, kw_only=True)
class InstrumentationReport(Report):
    """What `fltestbed bench instrumentation` measured; `cpu_us` is the CPU time of single stamps in microseconds."""

    benchmark = "instrumentation"
    findings: tuple[LinkFinding, ...]
    cpu_us: dict[str, float]

    def render_findings(self, console: Console) -> None:
        """Print each ratio with its interval, and the CPU time of stamps."""
        show_ratios(console, "what measuring costs", "without", self.findings)
        show_notes(console, self.findings)
        cpu = ", ".join(f"{name} {value:.2f}" for name, value in self.cpu_us.items())
        show(console, f"CPU time of one stamp, us: {cpu}")


def measure(plan: Plan) -> InstrumentationReport:
    """Run the benchmark; nothing is left running.

    Raises
    ------
    TestbedError
        A process failed; the message says what it said last.
    """
    found = [measure_link(plan, link, _run) for link in plan.links]
    findings = tuple(find(each.link, each.notes, each.estimate.pairs, each.counted_rounds) for each in found)
    bars = tuple(finding.bar for finding in findings)
    return InstrumentationReport(about=ABOUT, findings=findings, cpu_us=cpu_times_us(), bars=bars)


def find(link: str, notes: tuple[str, ...], pairs: Sequence[Pair], counted_rounds: int) -> LinkFinding:
    """The ratio of `pairs`, two at least, with its interval, beside its bar."""
    found = estimate(pairs)
    most = 1 + max(MOST_OVERHEAD, MOST_OVERHEAD_S / found.off_s) if link == BAR_LINK else None
    bar = Bar("round with / without, upper end of the interval", link, found.high, most)
    return LinkFinding(**vars(found), link=link, notes=notes, counted_rounds=counted_rounds, bar=bar)


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
    with scratch_folder("bench") as folder:
        start_ns = time.process_time_ns()
        with Recorder(folder, "bench") as recorder:
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


def _run(task: Task) -> list[int]:
    return task.starts_ns({"instrumentation": {"alternate-rounds": task.block + 1}})
