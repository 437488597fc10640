"""Long runs that go to and fro between blocks of rounds with and without something, on one link, until the ratio is known.

Pairs of blocks (`fltestbed.bench.pairs`) are added, a run at a time, until half of the ratio's interval is at most 0.5%, or
there are as many as the plan allows. Looking at the interval after each run makes it a little too narrow; with ten pairs at
least and six looks at most this is small beside a bar of 1%.

How long that takes: with rounds that spread by 2% (one standard deviation) about 125 counted rounds of each half, which is
the first run over Ethernet; with 5% about 770, six runs.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fltestbed.bench.models import Size
from fltestbed.bench.noise import CLIENTS, write_app
from fltestbed.bench.pairs import Estimate, Pair, estimate, pair_up
from fltestbed.bench.place import LOOPBACK, Place, Processes, place
from fltestbed.bench.toolkit import client_command, start_server
from fltestbed.links import load_link
from fltestbed.scratch import scratch_folder

PAIRS_OF_A_RUN = 10
MOST_PAIRS = 60
BLOCK_S, MOST_ROUNDS_OF_A_BLOCK = 8.0, 15
ROUND_OVERHEAD_S = 0.2
"""Of a round, beyond its transfers, on two cores; for the forecast alone."""
RUN_ALLOWANCE_S, ROUND_ALLOWANCE_S = 120.0, 60.0

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
class Task:
    """One run of so many pairs.

    Attributes
    ----------
    block : int
        Counted rounds of a block; one before them is not.
    folder : Path
        Empty, and its own.
    """

    here: Place
    size: Size
    block: int
    pairs: int
    folder: Path

    def starts_ns(
        self,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        switch: Path | None = None,
    ) -> list[int]:
        """Run it; returns the starts of its rounds and of one more, raw ns.

        Parameters
        ----------
        settings : mapping
            Added to the experiment.
        environment : mapping
            Of the server, the clients and what they start; None leaves it as it is.
        switch : Path or None
            The file that says whether the round is on; see `write_app`.
        """
        rounds, stamps = 2 * self.pairs * (self.block + 1) + 1, self.folder / "stamps.json"
        app = write_app(
            self.folder / "app", size=self.size.name, rounds=rounds, stamps=stamps, switch=switch,
            alternate_rounds=self.block + 1,
        )  # fmt: skip
        timeout_s = RUN_ALLOWANCE_S + rounds * ROUND_ALLOWANCE_S
        clients, server = self.here.clients, self.here.server
        experiment = {"rounds": rounds, "clients": len(clients), "server": {"round-deadline-s": timeout_s}}
        (self.folder / "logs").mkdir()
        processes = Processes(self.folder / "logs")
        start_server(processes, server, self.folder, experiment | dict(settings or {}), ["--app", str(app)], environment)
        for number, host in enumerate(clients):
            command = [*client_command(host, server, self.here.link, number, self.folder), "--trust-apps"]
            processes.start(host, host.name, command, environment)
        self.here.start_trace()
        processes.wait(["server", *(host.name for host in clients)], timeout_s)
        starts: list[int] = json.loads(stamps.read_text())
        return starts


@dataclass(frozen=True)
class Measured:
    """What one link gave; `counted_rounds` are those of a block."""

    link: str
    notes: tuple[str, ...]
    counted_rounds: int
    estimate: Estimate


def measure_link(plan: Plan, link: str, run: Callable[[Task], list[int]]) -> Measured:
    """Add pairs until the ratio is resolved, or there are enough; `run` returns what `Task.starts_ns` does.

    Raises
    ------
    TestbedError
        A process failed; the message says what it said last.
    """
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
        with scratch_folder("bench") as folder, place(link, CLIENTS, plan.backend) as here:
            pairs += pair_up(run(Task(here, plan.size, block, number, folder.resolve())), block)
        found = estimate(pairs)
        log.info(
            "%s: %s pairs, ratio %.4f (%.4f to %.4f)%s",
            here.link, len(pairs), found.ratio, found.low, found.high, ", resolved" if found.resolved else "",
        )  # fmt: skip
        if found.resolved or len(pairs) >= plan.most_pairs:
            return Measured(here.link, here.notes, block, found)


def expected_round_s(link: str, size: Size) -> float:
    """Seconds of a round on a link by its rates: both ways, of all clients where they share it, and what a round costs."""
    if link == LOOPBACK:
        return ROUND_OVERHEAD_S
    profile = load_link(link)
    sharing = 1 if profile.medium == "dedicated" else CLIENTS
    return ROUND_OVERHEAD_S + sum(
        size.model_bytes * sharing * 8 / (way.rate_mbit * 1e6) for way in (profile.downlink, profile.uplink)
    )
