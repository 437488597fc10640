"""Means, percentiles, shares and ratios, each against numbers computed by hand."""

import pandas as pd
import pytest

from analysis.load import Run, conform
from analysis.measures import (
    client_rounds,
    common_accuracy,
    link_of,
    links,
    only_warm_up,
    phase_statistics,
    round_parts,
    run_values,
    sample,
    time_to_accuracy,
)
from fltestbed.measure.derived import CLIENTS_TABLE


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


def test_first_rounds_are_left_out(runs: list[Run]) -> None:
    """One round of warm-up is the default; a run that has no others keeps its rounds, and that can be asked."""
    assert client_rounds(runs)["round"].min() == 2
    assert client_rounds(runs, warm_up=3)["round"].min() == 4
    assert not only_warm_up(runs[0], 7)
    assert only_warm_up(runs[0], 8)
    assert len(client_rounds([runs[0]], warm_up=8)) == 4 * 8


def test_shares_are_of_rounds_at_full_participation() -> None:
    """A round in which somebody's reply is missing does not count for the parts of a round."""
    table = rows(("5g", 2.0, 0.1, 3.0), ("5g", 8.0, 0.1, 3.0)).assign(full=[True, False])
    assert round_parts(table).set_index("part")["share"]["uplink"] == pytest.approx(0.2)


def test_one_value_a_run() -> None:
    """Uplinks of 2 and 4 s in one run, 6 s in another; the half-widths go with them, also into the share of 10 s."""
    table = rows(("5g", 2.0, 0.1, 3.0), ("5g", 4.0, 0.3, 3.0), ("5g", 6.0, 0.5, 3.0)).assign(
        run=["a", "a", "b"], round=[1, 2, 1], margin_s=[0.0, 1.0, 2.0], wait_s=[0.0, 1.0, 2.0]
    )
    values = run_values(table)
    assert sample(values, "uplink_s", ["a", "b", "c"]).values == (3.0, 6.0)
    assert sample(values, "uplink_s", ["a", "b"]).half_widths == pytest.approx((0.2, 0.5))
    assert sample(values, "uplink_share", ["a", "b"]).values == pytest.approx((0.3, 0.6))
    assert sample(values, "uplink_share", ["a", "b"]).half_widths == pytest.approx((0.02, 0.05))
    assert sample(values, "idle_s", ["a", "b"]).values == (1.0, 2.0)  # the last of a round does not idle
    assert sample(values, "round_s", ["a"]).half_widths == (0.0,)


def test_time_to_accuracy_counts_from_the_first_round(runs: list[Run]) -> None:
    """Round 1 starts at 0.9 s; accuracy reaches 0.61 in round 2; 0.99 is never reached."""
    metrics = runs[0]["metrics"].query("source == 'server' and metric == 'accuracy' and round == 2")
    assert time_to_accuracy(runs[0], 0.6) == pytest.approx(metrics["time_s"].iloc[0] - 0.9)
    assert time_to_accuracy(runs[0], 0.99) is None


def test_common_accuracy_is_what_all_reached(runs: list[Run]) -> None:
    """All runs end at 0.88, so 0.85; runs without any accuracy have none in common."""
    assert common_accuracy(runs) == 0.85
    blank = Run(runs[0].path, runs[0].manifest, {**runs[0].tables, "metrics.csv": runs[0]["metrics"].iloc[:0]})
    assert common_accuracy([blank]) is None
