"""Spreads, rounds and bars, against figures computed by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fltestbed.bench.contenders import Sample, Traffic, periods_s
from fltestbed.bench.models import SIZES
from fltestbed.bench.report import Bar
from fltestbed.bench.results import RoundReport, Setting, Spread
from fltestbed.bench.round import judge, summarise
from fltestbed.errors import ConfigError


def setting(link: str, bundle_s: float, other_s: float) -> Setting:
    """One where bundle takes `bundle_s` for everything and the others `other_s`."""
    samples = {
        "bundle": [Sample([bundle_s], [bundle_s], [bundle_s])],
        "grpc": [Sample([other_s])],
        "raw": [Sample([], [other_s], [other_s])],
    }
    return summarise(link, (), SIZES["tiny"], samples)


def test_spread_is_over_all_values_of_all_repetitions() -> None:
    """The median of 1, 2, 3, 4, 10 is 3; of the repetitions 2 and 7."""
    assert Spread.of([[3.0, 1.0, 2.0], [10.0, 4.0]]) == Spread(3.0, 1.0, 10.0, 5, (2.0, 7.0))


def test_spread_of_nothing_is_none() -> None:
    """What a contender does not say has no spread."""
    assert Spread.of([[], []]) is None


def test_first_and_last_round_are_not_counted() -> None:
    """Starts at 0, 5, 7, 8.5 and 20 s are four periods; the first of them and the unfinished fifth round are left out."""
    starts_ns = [int(second * 1e9) for second in (0, 5, 7, 8.5, 20)]
    assert periods_s(starts_ns) == [2.0, 1.5, 11.5]


def test_a_round_on_loopback_is_judged_against_grpc() -> None:
    """0.2 s against 0.1 s is a ratio of 2 and misses its bar of 1; transfers on loopback are shown and not judged."""
    bars = judge(setting("loopback", 0.2, 0.1))
    assert [(bar.what, bar.figure, bar.limit, bar.holds) for bar in bars] == [
        ("round: bundle / grpc", 2.0, 1.0, False),
        ("downlink: bundle / raw", 2.0, None, True),
        ("uplink: bundle / raw", 2.0, None, True),
    ]


@pytest.mark.parametrize(("bundle_s", "holds"), [(1.05, True), (1.06, False)])
def test_transfers_on_a_shaped_link_are_judged_against_raw(bundle_s: float, holds: bool) -> None:
    """1.05 times the time of bare sockets is within the bar, 1.06 times is not; the round has none there."""
    bars = {bar.what: bar for bar in judge(setting("5g", bundle_s, 1.0))}
    assert bars["downlink: bundle / raw"].holds is holds
    assert bars["uplink: bundle / raw"].holds is holds
    assert bars["round: bundle / grpc"].limit is None


def test_what_was_not_measured_is_not_judged() -> None:
    """Without other contenders there is no ratio."""
    assert judge(summarise("loopback", (), SIZES["tiny"], {"bundle": [Sample([1.0], [1.0], [1.0])]})) == []


def test_pauses_and_phases_are_medians() -> None:
    """Pauses are medians of the repetitions, phases of all rounds; a phase without a value is left out."""
    samples = [
        Sample(phase_s={"queue": [1.0, 2.0], "connect": []}, traffic=Traffic(10, 20, turnaround_s=1.0, gap_s=4.0)),
        Sample(phase_s={"queue": [9.0]}, traffic=Traffic(10, 20, turnaround_s=3.0, gap_s=5.0)),
    ]
    found = summarise("loopback", (), SIZES["tiny"], {"bundle": samples})
    assert (found.turnaround_s, found.gap_s, found.phases_s) == (2.0, 4.5, {"queue": 2.0})
    assert (found.down_bytes, found.up_bytes) == (10, 20)


def report(*bars: Bar) -> RoundReport:
    return RoundReport(settings=(), bars=bars)


def test_a_report_holds_when_all_its_bars_do() -> None:
    """One bar that is missed is enough."""
    met = Bar("round: bundle / grpc", "loopback, small", 0.9, 1.0)
    assert report(met, replace(met, limit=None, figure=5.0)).holds
    assert not report(met, replace(met, figure=1.1)).holds


def test_a_figure_may_have_to_be_at_least_its_limit() -> None:
    """95 of 100 is enough for a bar of 95, 94.9 is not; a limit of None judges nothing."""
    share = Bar("within 2 ms", "5g, small", 95.0, 95.0, "%", at_least=True)
    assert (share.holds, share.verdict) == (True, "holds")
    assert replace(share, figure=94.9).verdict == "missed"
    assert replace(share, figure=0.0, limit=None).verdict == ""


def test_a_report_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    """The error says which file, and where it can be written it is JSON."""
    report().write(tmp_path / "round.json")
    assert json.loads((tmp_path / "round.json").read_text())["holds"] is True
    with pytest.raises(ConfigError, match=r"missing/round\.json: cannot be written"):
        report().write(tmp_path / "missing" / "round.json")
