"""`fltestbed bench accuracy`: is what is stamped what happened?

(i)   Each stamp of a transfer against the packets of its own host: at most 2 ms apart in 95% of transfers.
(ii)  The error of a one-way time is never more than its stated uncertainty plus 2 ms. The truth is between the packets of
      the two hosts, which share this machine's clock; what is judged is phases.csv and timeline.csv, whose clocks were
      mapped.
(iii) and (iv) are in `fltestbed.bench.accuracy_clocks`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.derive import derive
from analysis.load import Run, load_run
from fltestbed.bench.accuracy_clocks import judge_odd_clocks, judge_second_network
from fltestbed.bench.accuracy_report import AccuracyReport, StampErrors
from fltestbed.bench.models import Size
from fltestbed.bench.place import CONGESTION_CONTROL
from fltestbed.bench.report import Bar
from fltestbed.bench.testbed import run
from fltestbed.bench.witness import STAMPS, Transfer, match
from fltestbed.links import EmulatedNetwork, LinkProfile, load_link
from fltestbed.scratch import scratch_folder

PARTS = ("stamps", "clocks", "second-network")
CLIENTS = 2
STAMP_BAR_MS = 2.0
SHARE_BAR = 0.95
TRANSFERS = {"mini": 100, "small": 100, "large": 30}
START_S, ROUND_S = 12.0, 0.3
"""For the estimate of how long it takes: to start server and clients, and a round beside its transfers."""
CLOCKS_S = {"clocks": 110.0, "second-network": 45.0}

ABOUT = (
    f"{CLIENTS} clients, fresh random weights each round, no training; congestion control {CONGESTION_CONTROL}",
    "packets: tcpdump at both ends, first and last packet with payload not seen before; all hosts share one clock",
)

log = logging.getLogger("fltestbed")


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes
    ----------
    links : sequence of str
        Shipped profiles, or paths of profiles.
    sizes : sequence of Size
    transfers : int or None
        In each direction, for each link and size; None for 100, and 30 of 45 MB.
    parts : sequence of str
        Of `PARTS`.
    backend : str
        How links are emulated.
    tls : bool
        Whether the transfers that are held against packets go over TLS.
    """

    links: Sequence[str]
    sizes: Sequence[Size]
    transfers: int | None = None
    parts: Sequence[str] = PARTS
    backend: str = "auto"
    tls: bool = False

    def rounds(self, size: Size) -> int:
        """Rounds that give so many transfers in each direction."""
        return -(-(self.transfers or TRANSFERS.get(size.name, 100)) // CLIENTS)

    def duration_s(self) -> float:
        """About how long it takes: what the links' rates allow, and a little."""
        seconds = sum(CLOCKS_S.get(part, 0.0) for part in self.parts)
        if "stamps" in self.parts:
            for profile in map(load_link, self.links):
                shared = 1 if profile.medium == "dedicated" else CLIENTS
                for size in self.sizes:
                    bits = 8 * 1.06 * size.model_bytes * shared
                    moving = bits / profile.uplink.rate_mbit / 1e6 + bits / profile.downlink.rate_mbit / 1e6
                    seconds += START_S + self.rounds(size) * (moving + ROUND_S)
        return seconds


def measure(plan: Plan) -> AccuracyReport:
    """Run the benchmark; nothing is left running.

    Raises
    ------
    TestbedError
        A run failed, or packets could not be captured.
    """
    log.info("this takes about %.0f minutes", max(1.0, plan.duration_s() / 60))
    stamps: list[StampErrors] = []
    bars: list[Bar] = []
    notes: dict[str, tuple[str, ...]] = {}
    if "stamps" in plan.parts:
        for profile in map(load_link, plan.links):
            for size in plan.sizes:
                found, judged = _measure_transfers(plan, profile, size, notes)
                stamps += found
                bars += judged
    with scratch_folder("bench") as folder:
        if "clocks" in plan.parts:
            bars += judge_odd_clocks(folder, plan.backend)
        if "second-network" in plan.parts:
            bars += judge_second_network(folder, plan.backend)
    about = (*ABOUT, "transfers over TLS") if plan.tls else ABOUT
    return AccuracyReport(about=about, notes=notes, stamps=tuple(stamps), bars=tuple(bars))


def _measure_transfers(
    plan: Plan, profile: LinkProfile, size: Size, notes: dict[str, tuple[str, ...]]
) -> tuple[list[StampErrors], list[Bar]]:
    rounds = plan.rounds(size)
    log.info("%s, %s model: %s transfers each way", profile.name, size.name, rounds * CLIENTS)
    with scratch_folder("bench") as scratch:
        with EmulatedNetwork(profile, CLIENTS, backend=plan.backend, congestion_control=CONGESTION_CONTROL) as network:
            facts = network.describe()
            notes[profile.name] = (profile.summary, f"backend {facts['backend']}", *facts["notes"])
            witnessed = run(network, size, rounds, scratch, tls=plan.tls)
        recorded = derive(load_run(witnessed.folder))
        transfers = match(recorded, witnessed)
    where = f"{profile.name}, {size.name}"
    errors = stamp_errors(profile.name, size.name, transfers)
    bars = [judge_stamp(found) for found in errors]
    bars += [judge_one_way(recorded, table, transfers, where) for table in ("phases", "timeline")]
    bars.append(Bar("packets' own stamps: bound", where, witnessed.bound_ns / 1e6, None, "ms"))
    return errors, [*bars, *show_unstamped(recorded, where), *show_lateness(recorded, where)]


def show_unstamped(recorded: Run, where: str) -> list[Bar]:
    """How many transfers ended with a packet of which the kernel did not say when it came, and what that leaves open."""
    rows = recorded["phases"]
    open_s = rows.loc[rows["phase"].isin(["downlink", "uplink"]), "stamp_uncertainty_s"].fillna(0.0)
    return [
        Bar("transfers that ended behind a gap", where, float((open_s > 0).mean() * 100), None, "%"),
        Bar("what that leaves open at most", where, float(open_s.max() * 1e3), None, "ms"),
    ]


def show_lateness(recorded: Run, where: str) -> list[Bar]:
    """How late the server's event loop came meanwhile: so late may its stamp of a first byte be, where the kernel has joined
    that byte's packet with later ones.
    """
    lag = recorded.manifest.data["hosts"]["server"]["stamp_error"]["loop_lag"]
    return [
        Bar(f"server's event loop late meanwhile ({name})", where, lag[key] * 1e3, None, "ms")
        for name, key in (("99%", "p99_s"), ("most", "max_s"))
        if lag.get(key) is not None
    ]


def stamp_errors(link: str, size: str, transfers: Sequence[Transfer]) -> list[StampErrors]:
    """Each stamp minus its packet."""
    return [
        StampErrors(
            link,
            size,
            direction,
            column,
            which,
            tuple(round(t.error_ms(column, end, which), 6) for t in transfers if t.direction == direction),
        )
        for direction, column, end, which in STAMPS
    ]


def judge_stamp(errors: StampErrors) -> Bar:
    """Bar (i)."""
    what = f"{errors.direction} {errors.stamp.removesuffix('_raw_ns')} within {STAMP_BAR_MS:g} ms of its packet"
    share = errors.share_within(STAMP_BAR_MS) * 100
    return Bar(f"(i) {what}", f"{errors.link}, {errors.size}", share, SHARE_BAR * 100, "%", at_least=True)


def judge_one_way(recorded: Run, table: str, transfers: Sequence[Transfer], where: str) -> Bar:
    """Bar (ii): by how much the worst one-way time is further off than its uncertainty, in ms; negative is inside."""
    rows = recorded[table]
    rows = rows[rows["phase"].isin(["downlink", "uplink"])]
    stated = {
        (message_id, phase): (float(duration_s), float(uncertainty_s))
        for message_id, phase, duration_s, uncertainty_s in rows[
            ["message_id", "phase", "duration_s", "duration_uncertainty_s"]
        ].itertuples(index=False, name=None)
    }
    excess = []
    for transfer in transfers:
        duration_s, uncertainty_s = stated[str(transfer.row["message_id"]), transfer.direction]
        excess.append((abs(duration_s - transfer.one_way_s) - uncertainty_s) * 1e3)
    what = f"{table}.csv: one-way time, worst error minus its uncertainty"
    return Bar(f"(ii) {what}", where, float(np.max(excess)), STAMP_BAR_MS, "ms")
