"""Goodput beside what the link could carry.

*Goodput* is payload bits over the seconds of a transfer. *Utilisation* is goodput over capacity: for a `dedicated` link that
of each transfer, for a shared one that of the medium::

    dedicated            mean over transfers of  goodput / rate
    shared_tdd           payload bits of all clients in a round / (rate * seconds in which any transfer of the direction ran)
    half_duplex          as shared_tdd, each direction alone: they seldom run at once in a round
    a real link          mean over transfers of  goodput / what the same client's baseline measured

A baseline (`fltestbed check --baseline`) is of one client that sends alone: clients that share a medium and send at once
cannot all reach it.

Rates of emulated links count Ethernet frames, of which TCP payload is at most 1,448 of 1,514 bytes: 0.956 is all that can be
reached.
"""

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from analysis.load import Run
from analysis.measures import CROSS_HOST, WARM_UP


@dataclass(frozen=True)
class Carried:
    """One direction of the link of a run.

    Attributes
    ----------
    direction : {"downlink", "uplink"}
    goodput_bps : float
        Median over client-rounds.
    goodput_clock_bps : float or None
        By how much the clocks alone may have put a goodput wrong, median over client-rounds: payload bits over the seconds
        of the transfer less their uncertainty, minus the goodput. None if that is without a bound.
    capacity_bps : float or None
        Rate of the emulated link, or what was measured before the run on a real one: the median over clients of
        `hosts.<client>.baseline.<direction>.rate_bps` in the manifest. None if neither is known, or if a trace changes the
        rate during the run.
    utilisation : float or None
        Mean over rounds (shared medium) or transfers.
    source : str
        Where the capacity is from: "profile", "baseline" or "".
    """

    direction: str
    goodput_bps: float
    goodput_clock_bps: float | None
    capacity_bps: float | None
    utilisation: float | None
    source: str


def capacity_bps(run: Run, direction: str) -> tuple[float | None, str]:
    """Capacity of a direction and where it is from: the emulated link's profile, else the baseline that was measured."""
    link: dict[str, Any] = run.manifest.data.get("link") or {}
    profile = link.get("profile") or {}
    rate = (profile.get(direction) or {}).get("rate-mbit")
    if rate is not None and run.manifest.backend:
        return (None, "") if profile.get("trace") else (float(rate) * 1e6, "profile")
    measured = baselines_bps(run, direction)
    return (median(measured.values()), "baseline") if measured else (None, "")


def baselines_bps(run: Run, direction: str) -> dict[str, float]:
    """What iperf3 measured of each client's link before the run, by client, in bits of payload a second."""
    found = {}
    for client, facts in (run.manifest.data.get("hosts") or {}).items():
        rate = ((facts.get("baseline") or {}).get(direction) or {}).get("rate_bps")
        if isinstance(rate, int | float) and rate > 0:
            found[str(client)] = float(rate)
    return found


def carried(run: Run, warm_up: int = WARM_UP) -> list[Carried]:
    """Goodput and utilisation of each direction, without the first rounds; a direction without transfers is left out."""
    found = []
    clients, timeline = run["clients"], run["timeline"]
    medium = ((run.manifest.data.get("link") or {}).get("profile") or {}).get("medium")
    for direction in CROSS_HOST:
        counted = clients[(clients["round"] > warm_up) & (clients["status"] == "ok")].dropna(
            subset=[f"{direction}_goodput_bps"]
        )
        goodput = counted[f"{direction}_goodput_bps"]
        if goodput.empty:
            continue
        uncertainty_s = counted[f"{direction}_uncertainty_s"]
        least_s = counted[f"{direction}_s"] - uncertainty_s
        clock_bps = float((goodput * uncertainty_s / least_s).where(least_s > 0, math.inf).median())
        capacity, source = capacity_bps(run, direction)
        utilisation = None
        if capacity is not None and medium in {"shared_tdd", "half_duplex"}:
            rows = timeline[(timeline["phase"] == direction) & (timeline["round"] > warm_up)]
            utilisation = shared_bps(rows[rows["status"] == "ok"]) / capacity
        elif source == "baseline":
            own_bps = clients.loc[goodput.index, "client"].map(baselines_bps(run, direction))
            utilisation = float((goodput / own_bps).mean())
        elif capacity is not None:
            utilisation = float(goodput.mean()) / capacity
        bounded_bps = clock_bps if math.isfinite(clock_bps) else None
        found.append(Carried(direction, float(goodput.median()), bounded_bps, capacity, utilisation, source))
    return found


def shared_bps(transfers: pd.DataFrame) -> float:
    """Mean over rounds of payload bits over the seconds in which at least one transfer ran.

    Parameters
    ----------
    transfers : DataFrame
        Rows of timeline.csv of one direction.
    """
    names = ["round", "start_ns", "end_ns", "payload_bytes"]
    known = transfers[names].dropna().astype("int64").sort_values(["round", "start_ns"], kind="stable")
    # what is not covered by an earlier transfer
    covered = known.groupby("round")["end_ns"].cummax().groupby(known["round"]).shift()
    busy_ns = (known["end_ns"] - known["start_ns"].where(covered.isna() | (known["start_ns"] > covered), covered)).clip(
        lower=0
    )
    sums = pd.DataFrame({"busy_ns": busy_ns, "bits": 8 * known["payload_bytes"]}).groupby(known["round"]).sum()
    return float((1e9 * sums["bits"] / sums["busy_ns"]).where(sums["busy_ns"] > 0).mean())
