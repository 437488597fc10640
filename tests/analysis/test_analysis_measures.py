"""Means, percentiles, shares and ratios, each against numbers computed by hand."""

import pandas as pd
import pytest

from analysis.load import Run, conform
from analysis.measures import client_rounds, link_of, links, phase_statistics, round_parts
from fltestbed.measure.schema import CLIENTS_TABLE


def rows(*cells: tuple[str, float, float, float]) -> pd.DataFrame:
    """Client-rounds (link, uplink in s, its half-width in s, train in s) of rounds that take 10 s, 1 s of it aggregation."""
    frame = pd.DataFrame(cells, columns=["link", "uplink_s", "uplink_uncertainty_s", "train_s"])
    return conform(frame.assign(run="r"), CLIENTS_TABLE).assign(duration_s=10.0, aggregate_s=1.0, full=True)


def test_statistics_of_five_values() -> None:
    """Of 1, 2, 3, 4, 10: mean 4, median 3, p95 at place 3.8 of the order, thus 4 + 0.8 * 6, maximum 10."""
    values = (3.0, 1.0, 10.0, 2.0, 4.0)
    table = phase_statistics(rows(*(("5g", value, value / 10, 1.0) for value in values))).set_index("phase")
    uplink = table.loc["uplink"]
    assert [uplink[name] for name in ("count", "mean_s", "median_s", "max_s")] == [5, 4.0, 3.0, 10.0]
    assert uplink["p95_s"] == pytest.approx(8.8)
    assert uplink["clock_half_width_s"] == pytest.approx(0.4)
    assert table.loc["train", "clock_half_width_s"] == 0
    assert "evaluate" not in table.index


def test_parts_add_up_to_the_round() -> None:
    """Uplink 2 and 4, train 3 and nothing known, aggregation 1 of 10: 5.5 s of the mean round stay unexplained."""
    table = round_parts(rows(("5g", 2.0, 0.1, 3.0), ("5g", 4.0, 0.1, float("nan")))).set_index("part")
    assert table["mean_s"][["uplink", "train", "aggregate", "unexplained"]].tolist() == [3.0, 1.5, 1.0, 4.5]
    assert table["share"]["uplink"] == pytest.approx(0.3)
    assert table["mean_s"].sum() == pytest.approx(10.0)


def test_client_rounds_are_of_accepted_replies_from_round_one(runs: list[Run]) -> None:
    """Every client and round once, with its round's duration."""
    table = client_rounds(runs, warm_up=0)
    assert len(table) == 3 * 4 * 8
    assert table["round"].min() == 1
    assert table["duration_s"].notna().all()
    assert (table["duration_s"] > table["total_s"]).all()


def test_run_of_several_links_is_named_by_all(runs: list[Run]) -> None:
    """A run whose clients use several links belongs to neither alone."""
    mixed = runs[0]
    clients = mixed["clients"].copy()
    clients.loc[clients["client"] == "client-0", "link"] = "wifi"
    run = Run(mixed.path, mixed.manifest, {**mixed.tables, "clients.csv": clients})
    assert link_of(run) == "5g+wifi"
    assert set(links([run])) == {"5g", "wifi", "5g+wifi"}
