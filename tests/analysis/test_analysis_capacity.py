"""Goodput against capacity, by hand."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from analysis.capacity import capacity_bps, carried, shared_bps
from analysis.load import Run, conform
from fltestbed.measure.derived import TIMELINE_TABLE

S = 1_000_000_000


def with_link(run: Run, backend: str = "tbf", **profile: Any) -> Run:
    """Return the run as if over an emulated link of that profile, or a real one."""
    link = {"name": "x", "profile": profile} if profile else {"name": "x"}
    data = run.manifest.data | {"link": link}
    return replace(run, manifest=replace(run.manifest, backend=backend, data=data))


def transfers(*rows: tuple[int, float, float, int]) -> pd.DataFrame:
    """Rows (round, start in s, end in s, payload bytes)."""
    frame = pd.DataFrame(rows, columns=["round", "start_ns", "end_ns", "payload_bytes"])
    frame[["start_ns", "end_ns"]] = (frame[["start_ns", "end_ns"]] * S).astype("int64")
    return conform(frame, TIMELINE_TABLE)


def test_shared_medium_counts_the_time_in_which_anybody_sends() -> None:
    """0 to 4, 1 to 2 and 3 to 6 s, 10 MB each: 240 Mbit in 6 s; 8 to 9 s apart: 320 Mbit in 7 s, 45.7 Mbit/s."""
    overlapping = ((1, 0, 4, 10**7), (1, 1, 2, 10**7), (1, 3, 6, 10**7))
    assert shared_bps(transfers(*overlapping)) == pytest.approx(40e6)
    assert shared_bps(transfers(*overlapping, (1, 8, 9, 10**7))) == pytest.approx(320e6 / 7)


def test_rounds_count_alike() -> None:
    """A round at 8 Mbit/s and one at 16 are 12 in the mean, however long they were."""
    assert shared_bps(transfers((1, 0, 8, 8 * 10**6), (2, 9, 10, 2 * 10**6))) == pytest.approx(12e6)


def test_dedicated_link_is_each_transfer_over_its_rate(runs: list[Run]) -> None:
    """A switch port each: the mean goodput over the port's rate."""
    run = with_link(runs[0], medium="dedicated", uplink={"rate-mbit": 20.0}, downlink={"rate-mbit": 100.0})
    down, up = carried(run)
    mean_bps = run["clients"].query("round >= 2")["uplink_goodput_bps"].mean()
    assert (down.direction, down.capacity_bps, down.source) == ("downlink", 100e6, "profile")
    assert up.utilisation == pytest.approx(mean_bps / 20e6)


def with_baselines(run: Run, *rates_bps: float) -> Run:
    """Return the run as if over a real link, of which each client has measured what it carries up."""
    names = sorted(run["clients"]["client"].unique())
    hosts = {
        name: {"baseline": {"uplink": {"rate_bps": rate_bps}}} for name, rate_bps in zip(names, rates_bps, strict=False)
    }
    real = with_link(run, "")
    return replace(real, manifest=replace(real.manifest, data=real.manifest.data | {"hosts": hosts}))


def test_capacity_of_a_real_link_is_what_its_clients_measured(runs: list[Run]) -> None:
    """The median over clients; each client's goodput is held against its own. Nothing is known of the other direction."""
    run = with_baselines(runs[0], 20e6, 40e6)
    assert capacity_bps(run, "uplink") == (30e6, "baseline")
    assert capacity_bps(run, "downlink") == (None, "")
    rows = run["clients"].query("round >= 2 and status == 'ok'")
    names = sorted(rows["client"].unique())
    own = rows["client"].map({names[0]: 20e6, names[1]: 40e6})
    up = carried(run)[1]
    assert up.utilisation == pytest.approx(float((rows["uplink_goodput_bps"] / own).mean()))


def test_a_baseline_that_is_none_is_no_capacity(runs: list[Run]) -> None:
    """A host that measured nothing, or says something else."""
    assert capacity_bps(with_baselines(runs[0], -1.0), "uplink") == (None, "")
    data = runs[0].manifest.data | {"hosts": {"pi-0": {"baseline": None}, "pi-1": {}}, "link": {}}
    assert capacity_bps(replace(runs[0], manifest=replace(runs[0].manifest, backend="", data=data)), "uplink") == (None, "")


def test_without_a_baseline_no_capacity_of_a_real_link_is_known(runs: list[Run]) -> None:
    """Nor under a trace, which changes the rate during the run."""
    assert capacity_bps(with_link(runs[0], ""), "uplink") == (None, "")
    traced = with_link(runs[0], uplink={"rate-mbit": 20.0}, trace=[{"client": 0, "at-s": 1, "uplink-mbit": 2}])
    assert capacity_bps(traced, "uplink") == (None, "")
    assert [each.utilisation for each in carried(traced)] == [None, None]


def test_goodput_says_what_the_clocks_leave_open(runs: list[Run]) -> None:
    """8 Mbit in 4 s that may be wrong by 1 s: 2 Mbit/s, and at most 8/3; by 4 s: no bound."""
    clients = runs[0]["clients"].copy()
    clients["uplink_goodput_bps"], clients["uplink_s"] = 2e6, 4.0
    for uncertainty_s, expected in ((1.0, pytest.approx(8e6 / 3 - 2e6)), (4.0, None)):
        clients["uplink_uncertainty_s"] = uncertainty_s
        _, up = carried(replace(runs[0], tables={**runs[0].tables, "clients.csv": clients}))
        assert up.goodput_bps == 2e6
        assert up.goodput_clock_bps == expected


def test_run_without_transfers_carries_nothing(runs: list[Run]) -> None:
    """Nothing is said of a direction in which no transfer ended well."""
    tables = {**runs[0].tables, "clients.csv": runs[0]["clients"].iloc[:0]}
    assert carried(replace(runs[0], tables=tables)) == []
