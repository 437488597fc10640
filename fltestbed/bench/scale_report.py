"""What `fltestbed bench scale` found, what it means for more clients than fit here, and how both look on a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.table import Table

from fltestbed.bench.report import Report, show
from fltestbed.bench.results import Spread

PROJECTED = (1_000, 10_000)


@dataclass(frozen=True)
class Load:
    """One number of clients with one model. Bytes of memory are resident ones.

    Attributes
    ----------
    round : Spread
        Seconds of a round, over all starts.
    phases_s : dict of str to float
        Where it goes: the median of each phase, as a mean over clients.
    cpu_ms : dict of str to float
        CPU time of SuperLink, ServerApp and clients for one client in one round, median of the starts.
    message_bytes : int
        Payload of one reply.
    waiting_bytes : int
        Most bytes of messages that were in the SuperLink at once.
    superlink_idle_bytes, app_idle_bytes : int
        When the first round began.
    superlink_peak_bytes, app_peak_bytes : int
        At most, from start to end.
    """

    size: str
    model_bytes: int
    clients: int
    round: Spread
    phases_s: dict[str, float]
    cpu_ms: dict[str, float]
    message_bytes: int
    waiting_bytes: int
    superlink_idle_bytes: int
    superlink_peak_bytes: int
    app_idle_bytes: int
    app_peak_bytes: int


@dataclass(frozen=True)
class Growth:
    """Seconds of a round with so many of the run's clients; its `repetitions_s` are medians of equal parts of the run."""

    clients: int
    round: Spread


def steps(growth: Sequence[Growth]) -> list[tuple[Growth, Growth]]:
    """From each number of clients to the next, and from the fewest to the most."""
    return [*pairwise(growth), *([(growth[0], growth[-1])] if len(growth) > 2 else [])]


@dataclass(frozen=True)
class Costs:
    """``round = fixed_s + clients * (client_s + client_byte_s * model_bytes)``, least squares over all loads.

    Attributes
    ----------
    fixed_s : float
        What a round costs without a client.
    client_s : float
        For each client, whatever the model.
    client_byte_s : float
        For each byte of the model and client: down, up, and everything that is done with it on both sides.
    worst_residual : float
        Largest error of the fit, as a part of the measured round.
    """

    fixed_s: float
    client_s: float
    client_byte_s: float
    worst_residual: float

    @classmethod
    def fit(cls, loads: Sequence[Load]) -> "Costs | None":
        """Fit the three costs, errors weighted by the inverse of the measured round; None for fewer than three loads."""
        if len(loads) < 3:
            return None
        measured = np.array([load.round.median_s for load in loads])
        terms = np.array([[1.0, load.clients, load.clients * load.model_bytes] for load in loads])
        scale = np.array([1.0, 1.0, 1e-6])  # megabytes: columns of one magnitude
        weighted = terms * scale / measured[:, None]
        solution = np.linalg.lstsq(weighted, np.ones(len(loads)), rcond=None)[0]
        residual = float(np.abs(weighted @ solution - 1.0).max())
        fixed_s, client_s, client_byte_s = (solution * scale).tolist()
        return cls(fixed_s, client_s, client_byte_s, residual)

    def round_s(self, clients: int, model_bytes: int) -> float:
        """Seconds of a round on this machine."""
        return self.fixed_s + clients * (self.client_s + self.client_byte_s * model_bytes)


@dataclass(frozen=True, kw_only=True)
class ScaleReport(Report):
    """What `fltestbed bench scale` measured."""

    benchmark = "scale"
    loads: tuple[Load, ...]
    """By number of clients, ascending; the last one is that of the tiny model."""
    growth: tuple[Growth, ...]
    """In the run with all clients; by their number, ascending."""
    costs: Costs | None

    def render_findings(self, console: Console) -> None:
        """Print rounds and memory by number of clients, and what more clients would need."""
        table = Table(
            "model", "clients", "round s", "waiting MB", "SuperLink MB", "ServerApp MB",
            title="loopback; memory: idle to peak", title_justify="left",
        )  # fmt: skip
        for load in self.loads:
            spread = load.round
            table.add_row(
                load.size, str(load.clients),
                f"{spread.median_s:.3f} ({spread.least_s:.3f} to {spread.most_s:.3f}, n={spread.count})",
                f"{load.waiting_bytes / 1e6:.0f}",
                f"{load.superlink_idle_bytes / 1e6:.0f} to {load.superlink_peak_bytes / 1e6:.0f}",
                f"{load.app_idle_bytes / 1e6:.0f} to {load.app_peak_bytes / 1e6:.0f}",
            )  # fmt: skip
        console.print()
        console.print(table)
        for load in self.loads:
            cpu = ", ".join(f"{name} {spent:.1f}" for name, spent in load.cpu_ms.items())
            show(console, f"  {load.size}, {load.clients} clients, CPU ms a client and round: {cpu}", style="dim")
            phases = ", ".join(f"{phase} {seconds * 1e3:.0f}" for phase, seconds in load.phases_s.items() if seconds > 5e-4)
            show(console, f"  {load.size}, {load.clients} clients, mean phases in ms: {phases}", style="dim")
        rounds = ", ".join(f"{those.clients} clients {those.round.median_s:.3f}" for those in self.growth)
        show(console, f"  growth: seconds of a round, in turn: {rounds}", style="dim")
        for fewer, more in steps(self.growth):
            parts = zip(fewer.round.repetitions_s, more.round.repetitions_s, strict=True)
            ratios = ", ".join(f"{long_s / short_s:.2f}" for short_s, long_s in parts)
            show(console, f"  growth: {more.clients} / {fewer.clients} clients, in parts of the run: {ratios}", style="dim")
        if self.costs is not None:
            _render_costs(self.costs, self.loads[-2].model_bytes, console)


def _render_costs(costs: Costs, model_bytes: int, console: Console) -> None:
    lines = [
        f"round = {costs.fixed_s * 1e3:.0f} ms + clients x ({costs.client_s * 1e3:.1f} ms + {costs.client_byte_s * 1e9:.2f} "
        f"ns a byte of the model); off by at most {costs.worst_residual:.0%} of what was measured"
    ]
    for clients in PROJECTED:
        seconds = costs.round_s(clients, model_bytes)
        lines.append(f"  so {clients} clients at {model_bytes / 1e6:.2g} MB on this machine: {seconds:.0f} s")
    console.print()
    for line in lines:
        show(console, line)
