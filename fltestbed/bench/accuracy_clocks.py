"""Parts (iii) and (iv) of `fltestbed bench accuracy`: clock mappings against a truth that is known.

(iii) Clients whose clocks are shifted, drift, or step take part in a run over Ethernet and over a strongly asymmetric link.
      At every estimate that was recorded, and at a thousand moments of the mapping over all samples, the true offset is
      inside the half-width, and the half-width is at most half the smallest round trip net of processing, plus the drift
      bound times the distance from that exchange, plus 1 ms. No phase is further from its true length than its uncertainty
      (and 2 us, to which the truth of a drifting clock is known).
(iv)  With a second, quiet network the mapping is at least ten times tighter than over the emulated 5G link, and the
      difference of both, the link's asymmetry, is that of the packets within the quiet mapping's uncertainty: the median
      over exchanges of what lies between both.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.asymmetry import asymmetry_of
from analysis.derive import derive
from analysis.load import Run, load_run
from analysis.mapping import STAMPS, fit
from fltestbed.bench.models import SIZES
from fltestbed.bench.odd_clocks import OddClock, build_library
from fltestbed.bench.place import CONGESTION_CONTROL
from fltestbed.bench.report import Bar
from fltestbed.bench.testbed import Oddity, Witnessed, run
from fltestbed.bench.toolkit import PORT
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.config_file import validate
from fltestbed.links import EmulatedNetwork, LinkProfile, load_link
from fltestbed.links.topology import QUIET_INTERFACE
from fltestbed.measure.mapping import DRIFT_BOUND_PPM, ClockSample

ROUNDS = 8
PAUSE_S = 2.0
TRUTH_NS = 2_000
STAMP_BAR_NS = 2_000_000
"""A packet that is further from a stamp is not the one that it stands for."""
ALLOWANCE_MS = 1.0
TIGHTER_BAR = 10.0

ASYMMETRIC = {
    "name": "asymmetric",
    "medium": "dedicated",
    "uplink": {"rate-mbit": 5, "delay-ms": 40, "queue-kb": 100},
    "downlink": {"rate-mbit": 100, "delay-ms": 10, "queue-kb": 250},
}

_Ints = NDArray[np.integer]

log = logging.getLogger("fltestbed")


def judge_odd_clocks(folder: Path, backend: str) -> list[Bar]:
    """Bar (iii): run the odd clocks over two links."""
    library = build_library(folder)
    bars = []
    for profile in (load_link("ethernet"), validate(LinkProfile, ASYMMETRIC, "asymmetric")):
        now_ns = SYSTEM_CLOCK.raw_ns()
        scratch = folder / profile.name
        scratch.mkdir()
        midway = folder / f"{profile.name}.midway"
        clocks = (
            OddClock("+37 s", shift_s=37),
            OddClock("+2 days", shift_s=2 * 86400),
            OddClock("+100 ppm", drift_ppm=100, since_ns=now_ns),
            OddClock("-100 ppm", drift_ppm=-99, since_ns=now_ns),
            OddClock("wall clock +1 h in mid run", step_s=3600, step_file=midway),
        )
        log.info("%s: %s clients with odd clocks", profile.name, len(clocks))
        with EmulatedNetwork(profile, len(clocks), backend=backend, congestion_control=CONGESTION_CONTROL) as network:
            odd = {host.name: clock for host, clock in zip(network.clients, clocks, strict=True)}
            oddities = {name: clock.oddity(library) for name, clock in odd.items()}
            witnessed = run(
                network, SIZES["mini"], ROUNDS, scratch, pause_s=PAUSE_S, oddities=oddities, captured=False, midway=midway
            )
        bars += judge_mappings(derive(load_run(witnessed.folder)), odd, profile.name)
    return bars


def judge_mappings(recorded: Run, odd: Mapping[str, OddClock], link: str) -> list[Bar]:
    """Bars of (iii) for one run whose clients' clocks are known."""
    bars = []
    for client, clock in odd.items():
        where = f"{link}, {clock.name}"
        samples, estimates = (rows[rows["client"] == client] for rows in (recorded["clock_samples"], recorded["clock"]))
        mapping = fit(samples)
        if mapping is None or estimates.empty:
            bars.append(Bar("(iii) clock samples", where, 0, 1, "", at_least=True))
            continue
        at = np.linspace(samples["client_send_raw_ns"].min(), samples["client_receive_raw_ns"].max(), 1000).astype(np.int64)
        offset, half_width = mapping.offset(at)
        stamps = estimates["client_raw_ns"].to_numpy(dtype=np.int64)
        then = np.abs(stamps + estimates["offset_ns"].to_numpy(dtype=np.int64) - clock.truth_ns(stamps))
        then_width = estimates["half_width_ns"].to_numpy(dtype=np.int64)
        outside_ns = np.concatenate([np.abs(at + offset - clock.truth_ns(at)) - half_width, then - then_width])
        excess_ms = (
            np.concatenate([half_width, then_width])
            - np.concatenate([_allowed_ns(samples, at), _allowed_ns(samples, stamps, known=True)])
        ) / 1e6
        figures: list[tuple[str, float, float | None, str]] = [
            ("moments at which the truth is outside", float((outside_ns > TRUTH_NS).sum()), 0, ""),
            ("largest half-width beyond half a round trip and drift", float(excess_ms.max()), ALLOWANCE_MS, "ms"),
            ("median half-width over all samples", float(np.median(half_width)) / 1e6, None, "ms"),
        ]
        bars += [Bar(f"(iii) {what}", where, figure, limit, unit) for what, figure, limit, unit in figures]
        if clock.step_file is not None:
            after = samples["client_send_raw_ns"] > int(clock.step_file.read_text())
            least = float(min(after.sum(), (~after).sum()))
            bars.append(Bar("(iii) exchanges before and after the step, the fewer", where, least, 2, "", at_least=True))
        for table in ("phases", "timeline"):
            bars.append(
                Bar(
                    f"(iii) {table}.csv: phases off by more than their uncertainty",
                    where,
                    _wrong(recorded[table], client, clock),
                    0,
                    "",
                )
            )
    return bars


def _allowed_ns(samples: pd.DataFrame, at: _Ints, *, known: bool = False) -> _Ints:
    """Half the smallest round trip net of processing, and the drift bound times the distance from its exchange.

    With `known` it is the smallest of the exchanges that were over at each moment.
    """
    send, receive, answer, back = (samples[column].to_numpy(dtype=np.int64) for column in STAMPS)
    half = ((back - send) - (answer - receive)) / 2
    allowed = []
    for moment in at:
        candidates = np.flatnonzero(back <= moment) if known else np.arange(len(half))
        best = candidates[np.argmin(half[candidates])]
        distance = max(abs(int(moment) - int(send[best])), abs(int(moment) - int(back[best])))
        allowed.append(half[best] + distance * DRIFT_BOUND_PPM / 1e6)
    return np.array(allowed).astype(np.int64)


def _wrong(rows: pd.DataFrame, client: str, clock: OddClock) -> float:
    """Phases of a client whose true length is further from the recorded one than its uncertainty."""
    rows = rows[(rows["client"] == client) & rows["duration_s"].notna()]
    true = {}
    for end in ("start", "end"):
        raw = rows[f"{end}_raw_ns"].astype("int64")
        true[end] = raw.where(rows[f"{end}_host"] == "server", clock.truth_ns(raw))
    error_s = (rows["duration_s"] - (true["end"] - true["start"]) / 1e9).abs()
    # A phase on one host lasts as long as that host's clock says: a clock that drifts is wrong by the drift.
    own_s = (rows["start_host"] == rows["end_host"]).astype(float) * rows["duration_s"].abs() * DRIFT_BOUND_PPM / 1e6
    return float((error_s > rows["duration_uncertainty_s"] + own_s + TRUTH_NS / 1e9).sum())


def judge_second_network(folder: Path, backend: str) -> list[Bar]:
    """Bar (iv): the 5G link with a quiet network beside it."""
    profile = load_link("5g")
    log.info("%s: 2 clients with a second, quiet network", profile.name)
    scratch = folder / "second"
    scratch.mkdir()
    with EmulatedNetwork(profile, 2, backend=backend, congestion_control=CONGESTION_CONTROL, second_network=True) as network:
        options = ("--clock-interface", QUIET_INTERFACE, "--clock-server", f"{network.quiet_server}:{PORT}")
        oddities = {host.name: Oddity(options=options) for host in network.clients}
        witnessed = run(network, SIZES["mini"], ROUNDS, scratch, pause_s=PAUSE_S, oddities=oddities)
    recorded = derive(load_run(witnessed.folder))
    bars = []
    configured_ms = profile.uplink.delay_ms - profile.downlink.delay_ms
    for host in network.clients:
        bars += judge_asymmetry(recorded, witnessed, host.name, f"{profile.name}, {host.name}", configured_ms)
    return bars


def judge_asymmetry(recorded: Run, witnessed: Witnessed, client: str, where: str, configured_ms: float) -> list[Bar]:
    """Bars of (iv) for one client."""
    samples = recorded["clock_samples"]
    samples = samples[samples["client"] == client]
    quiet = fit(samples[samples["interface"] == QUIET_INTERFACE])
    over_link = samples[samples["interface"] != QUIET_INTERFACE]
    link = fit(over_link)
    if quiet is None or link is None:
        return [Bar("(iv) clock samples over both networks", where, 0, 1, "", at_least=True)]
    at = np.linspace(samples["client_send_raw_ns"].min(), samples["client_receive_raw_ns"].max(), 1000).astype(np.int64)
    widths = [float(np.median(mapping.offset(at)[1])) / 1e6 for mapping in (link, quiet)]
    measured, uncertainty, seen = [], [], []
    for stamps, *found in zip(over_link[STAMPS].to_numpy(dtype=np.int64), *asymmetry_of(over_link, quiet), strict=True):
        packets = _one_way_ns(witnessed, client, ClockSample(*map(int, stamps)))
        if packets is not None:
            measured.append(int(found[0]) / 1e6)
            uncertainty.append(int(found[1]) / 1e6)
            seen.append((packets[0] - packets[1]) / 1e6)
    if not measured:
        return [Bar("(iv) exchanges over the link of which packets were found", where, 0, 1, "", at_least=True)]
    by_clocks, by_packets = float(np.median(measured)), float(np.median(seen))
    apart = abs(float(np.median(np.subtract(measured, seen))))
    figures: list[tuple[str, float, float | None, str]] = [
        ("half-width over the quiet network", widths[1], None, "ms"),
        (f"asymmetry by the clocks, median of {len(measured)} exchanges", by_clocks, None, "ms"),
        (f"asymmetry by the packets ({configured_ms:g} ms configured, and frames)", by_packets, None, "ms"),
        ("their difference", apart, float(np.median(uncertainty)), "ms"),
    ]
    ratio = widths[0] / widths[1]
    tighter = Bar("(iv) half-width: the link's / the quiet network's", where, ratio, TIGHTER_BAR, "", at_least=True)
    return [tighter, *(Bar(f"(iv) {what}", where, figure, limit, unit) for what, figure, limit, unit in figures)]


def _one_way_ns(witnessed: Witnessed, client: str, sample: ClockSample) -> tuple[int, int] | None:
    """How long the first packets of an exchange's request and response were under way; None if they are not found."""
    address = witnessed.addresses[client]
    ways = []
    for moment, from_client in ((sample.client_send_raw_ns, True), (sample.server_send_raw_ns, False)):
        near, far = (
            [message for message in messages if (message.sender if from_client else message.receiver)[0] == address]
            for messages in (witnessed.at_client[client], witnessed.at_server)[:: 1 if from_client else -1]
        )
        left = min(near, key=lambda message: abs(message.first_ns - moment), default=None)
        ends = None if left is None else (left.sender, left.receiver)
        arrived = [m for m in far if left is not None and (m.sender, m.receiver) == ends and m.first_ns >= left.first_ns]
        if left is None or not arrived or abs(left.first_ns - moment) > STAMP_BAR_NS:
            return None
        ways.append(arrived[0].first_ns - left.first_ns)
    return ways[0], ways[1]
