"""Published figures stand beside measured ones, and only beside runs that may be compared with them."""

import io
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from analysis.load import Manifest, Run, conform
from analysis.published import compare, publications, render, unknown_publications
from analysis.rounds import CLIENT_PHASES
from fltestbed.measure.derived import CLIENTS_TABLE, ROUNDS_TABLE


def run(name: str, link: str, uplink_s: float = 1.0, **change: Any) -> Run:
    """A run of a campaign: round 1 is for warming up; in round 2, of ten seconds, two uplinks 10% below and above the mean.

    Clocks are good to 0.1 s.
    """
    facts: dict[str, Any] = {"status": "complete", "key": "hayek-2025", "clients": 4} | change
    levels = {"link": link, "clients": facts["clients"]}
    data = {"campaign": None if facts["key"] is None else {"published": facts["key"], "levels": levels}}
    clients = [
        {"round": number, "client": client, "link": link, "status": "ok", "uplink_s": mean, "uplink_uncertainty_s": 0.1}
        for number, means in ((1, (100.0, 100.0)), (2, (0.9 * uplink_s, 1.1 * uplink_s)))
        for client, mean in zip(("a", "b"), means, strict=True)
    ]
    rounds = [{"round": number, "duration_s": 10.0, "clients_replied": 2} for number in (1, 2)]
    manifest = Manifest(name, facts["status"], "", 0, link, "tbf", (), True, None, None, {}, data)
    tables = {table.name: conform(pd.DataFrame(found), table) for table, found in (
        (CLIENTS_TABLE, clients), (ROUNDS_TABLE, rounds),
    )}  # fmt: skip
    return Run(Path(name), manifest, tables)


RUNS = [run("a", "5g", 2.0), run("b", "5g", 8.0), run("c", "ethernet", 0.5), run("d", "ethernet", 2.0)]


def test_ratios_and_shares_are_over_runs() -> None:
    """Geometric means over runs: 4 s over 1 s are 4 times; shares 0.2 and 0.8 of a round are 0.4."""
    over_ethernet, over_wifi, share = compare(RUNS)
    assert over_ethernet.measured is not None
    assert over_ethernet.measured.value == pytest.approx(4.0)
    assert over_ethernet.measured.runs == (2, 2)
    assert over_ethernet.deviation == pytest.approx(4 / 33.3 - 1)
    assert over_ethernet.measured.systematic_high == pytest.approx(math.sqrt(2.1 * 8.1) / math.sqrt(0.4 * 1.9))
    assert (over_wifi.measured, over_wifi.reason) == (None, "no complete run over wifi")
    assert share.measured is not None
    assert share.measured.value == pytest.approx(0.4)
    assert share.deviation == pytest.approx(0.17)
    assert share.to_dict()["measured"]["runs"] == [2]


def test_one_run_has_no_interval() -> None:
    """And the table says so."""
    comparisons = compare([RUNS[0], RUNS[2]])
    text = io.StringIO()
    render(comparisons, Console(width=100, file=text), emulated=True)
    assert "one run: none" in text.getvalue()
    assert "it reproduces nothing" in " ".join(text.getvalue().split())


def test_only_runs_that_ask_and_are_complete_count() -> None:
    """A run on its own asks for nothing; a failed one would put in a part of its rounds."""
    assert compare([run("a", "5g", key=None)]) == []
    counted = compare([*RUNS[1:], run("a", "5g", status="failed")])[0].measured
    assert counted is not None
    assert counted.value == pytest.approx(8.0)
    assert counted.runs == (1, 2)


def test_runs_of_different_levels_are_not_pooled() -> None:
    """The figure would be of no condition at all; the reason names the factor."""
    mixed = compare([*RUNS, run("e", "5g", clients=2)])
    assert {comparison.measured for comparison in mixed} == {None}
    assert {comparison.reason for comparison in mixed} == {"the runs differ in clients too: give those of one level"}


def test_an_unknown_key_is_a_warning() -> None:
    """With what there is."""
    asking = [run("a", "5g", key="hayek-2024")]
    assert compare(asking) == []
    assert unknown_publications(asking) == ["published figures 'hayek-2024': unknown here; published.toml has hayek-2025"]
    assert unknown_publications(RUNS) == []


def test_the_papers_figures() -> None:
    """33.3 and 17.8 times, 23%; each is of a phase, and a ratio is of two links."""
    figures = publications()["hayek-2025"].figures
    assert [(figure.kind, figure.value) for figure in figures] == [("ratio", 33.3), ("ratio", 17.8), ("share", 0.23)]
    assert {figure.phase for figure in figures} <= set(CLIENT_PHASES)
    assert [figure.of is not None for figure in figures] == [True, True, False]
