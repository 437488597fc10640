"""What the figures draw: tables with hand-computed values."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.draw import draw
from analysis.figures import FIGURES
from analysis.load import Run
from analysis.rounds import CLIENT_PHASES
from analysis.series import hosts, learning, rounds, transfers
from analysis.series.names import milliseconds, natural
from analysis.style import palettes


def with_tables(run: Run, **tables: pd.DataFrame) -> Run:
    """Return the run with other tables."""
    return replace(run, tables=run.tables | {f"{name}.csv": table for name, table in tables.items()})


def renamed(run: Run, name: str) -> Run:
    """Return the run under another name."""
    return replace(run, manifest=replace(run.manifest, run=name))


def test_bars_add_up_to_the_mean_round(runs: list[Run]) -> None:
    """Both bars of a link are its mean round; pieces under one per cent in every bar are one, and named."""
    table = rounds.anatomy(runs)
    for run in runs:
        for client in ("mean", "last"):
            bar = table[(table["link"] == run.manifest.link) & (table["client"] == client)]
            assert bar["mean_s"].sum() == pytest.approx(run["rounds"].query("round > 1")["duration_s"].mean())
            assert bar["share"].sum() == pytest.approx(1)
    assert list(dict.fromkeys(table["link"])) == ["5g", "wifi", "ethernet"]
    assert "queue" in table.attrs["other"]
    assert not set(table["part"]) & {"configure", "queue", "connect"}


def test_the_last_client_does_not_wait(runs: list[Run]) -> None:
    """The client that ends a round waits for nobody, and on the 5g link it is the one with the slow uplink."""
    table = rounds.anatomy(runs[:1]).set_index(["client", "part"])["mean_s"]
    assert ("last", "wait") not in table.index
    assert table["mean", "wait"] > 1
    last = runs[0]["clients"].query("margin_s == 0 and round > 1")
    assert table["last", "uplink"] == pytest.approx(last["uplink_s"].mean())


def test_transfers_are_every_accepted_one(runs: list[Run]) -> None:
    """Both directions of every client and round after the warm-up, in seconds."""
    table = transfers.transfers(runs)
    assert table.groupby(["link", "direction"]).size().tolist() == [28] * 6
    assert table.attrs["half_widths"].startswith("13 ms (5g), ")


def test_goodput_of_all_clients_counts_the_time_in_which_one_was_sending(runs: list[Run]) -> None:
    """Uplinks from 0 to 4 s, 1 to 2 s and 9 to 10 s, a million bytes each: 24 Mbit in 5 s."""
    run = runs[0]
    spans = pd.DataFrame({"start_ns": [9, 0, 1], "end_ns": [10, 4, 2]}) * 10**9
    rows = spans.assign(round=2, phase="uplink", status="ok", payload_bytes=1_000_000, client=["a", "b", "c"])
    timeline = pd.concat([run["timeline"].head(0), rows.astype({"round": "Int64", "start_ns": "Int64", "end_ns": "Int64"})])
    table = transfers.goodput([with_tables(run, timeline=timeline)])
    together = table[(table["kind"] == "all clients together") & (table["place"] == "5g\nuplink")]
    assert together["mbit"].tolist() == [pytest.approx(24 / 5)]


def test_goodput_stands_beside_the_configured_rate(campaign: list[Run]) -> None:
    """Every link and direction has its rate; one transfer of a shared link stays below it, all together as well."""
    table = transfers.goodput(campaign).set_index(["place", "kind"])["mbit"]
    assert table["5g\nuplink", "capacity"] == 20
    assert table["5g\ndownlink", "capacity"] == 90
    assert 0 < table["5g\nuplink", "one transfer"] < table["5g\nuplink", "all clients together"] < 20
    assert transfers.goodput(campaign).attrs["per_client"] == " (of each client: ethernet)"


def test_a_link_without_a_known_rate_is_named(runs: list[Run]) -> None:
    """Real links have goodput and no configured rate; the caption says so."""
    table = transfers.goodput(runs[:1])
    assert set(table["kind"]) == {"one transfer", "all clients together"}
    assert table.attrs["without"] == "No capacity is known of 5g uplink, 5g downlink."


def test_learning_starts_with_the_model_before_training(runs: list[Run]) -> None:
    """Round 0 stands at second 0; the others follow in time, later on the slower link."""
    table = learning.learning(runs)
    accuracy = table[table["metric"] == "accuracy"]
    assert accuracy.loc[accuracy["round"] == 0, ["value", "time_s"]].to_numpy().tolist() == [[0.10, 0.0]] * 3
    ends = accuracy.loc[accuracy["round"] == 8, "time_s"]
    assert ends.is_monotonic_decreasing
    assert ends.min() > 30
    for _, run in accuracy.groupby("run"):
        assert run["time_s"].is_monotonic_increasing
    assert not table["faint"].any()


def test_target_is_the_highest_that_every_link_reaches(runs: list[Run]) -> None:
    """With 0.88 on one link and 0.76 on the other it is 0.75, first reached in round 5 of both."""
    metrics = runs[1]["metrics"]
    short = with_tables(runs[1], metrics=metrics[metrics["round"] <= 5])
    table = learning.learning([runs[0], short])
    assert table.attrs["target"] == pytest.approx(0.75)
    reached = table[table["reached"]]
    assert reached[["link", "round", "metric"]].to_numpy().tolist() == [["5g", 5, "accuracy"], ["wifi", 5, "accuracy"]]
    assert f"on average after {milliseconds(reached['time_s'].iloc[0])} (5g), " in table.attrs["reached"]


def test_several_runs_of_a_link_have_a_mean_in_front_of_them(runs: list[Run]) -> None:
    """Two runs, the second 0.04 better: the line in front lies 0.02 above the first, both runs are faint."""
    metrics = runs[0]["metrics"]
    better = metrics.assign(value=metrics["value"] + 0.04)
    table = learning.learning([runs[0], renamed(with_tables(runs[0], metrics=better), "other")])
    accuracy = table[table["metric"] == "accuracy"]
    means = accuracy[accuracy["run"] == ""].set_index("round")["value"]
    single = accuracy[accuracy["run"] == "demo-5g"].set_index("round")["value"]
    assert (means - single).to_numpy() == pytest.approx(np.full(9, 0.02))
    assert accuracy.groupby("run")["faint"].first().to_dict() == {"": False, "demo-5g": True, "other": True}


def test_no_target_where_nothing_was_learnt(runs: list[Run]) -> None:
    """An accuracy that never reaches 0.05 has no target, and loss alone is drawn."""
    metrics = runs[0]["metrics"]
    table = learning.learning([with_tables(runs[0], metrics=metrics[metrics["metric"] == "loss"])])
    assert table.attrs["target"] is None
    assert set(table["metric"]) == {"loss"}
    assert not table["reached"].any()


def test_timeline_is_the_median_round_of_each_link(runs: list[Run]) -> None:
    """One panel a link, the server's lane first, then clients in natural order, every phase of them."""
    table = rounds.timeline([*runs, runs[0]])
    assert table["panel"].nunique() == 3
    first = table[table["panel"] == table["panel"].iloc[0]]
    assert list(dict.fromkeys(first["lane"])) == ["server", "client-0", "client-1", "client-2", "client-3"]
    assert set(first["phase"]) >= set(CLIENT_PHASES) - {"connect"}
    durations = runs[0]["rounds"]["duration_s"].dropna().sort_values()
    shown_s = (first["start_s"] + first["seconds"])[first["phase"] == "aggregate"].max()
    assert shown_s == pytest.approx(durations.iloc[3])
    assert natural("client-2") < natural("client-10")


def test_stragglers_are_one_cell_a_round(runs: list[Run]) -> None:
    """Eight rounds of two runs stand in columns 1 to 16; in each one client is coloured, the slow one in its uplink."""
    table = rounds.stragglers([runs[0], renamed(runs[0], "again")])
    coloured = table[table["phase"].notna()]
    assert sorted(coloured["column"]) == list(range(1, 17))
    assert coloured.loc[coloured["column"] > 8, "run"].unique().tolist() == ["again"]
    assert set(coloured["client"]) == {"client-2"}
    assert set(coloured["phase"]) == {"uplink"}
    assert len(table) == 64
    assert table.attrs["persistence"] == "5g: client-2 ended 16 of 16 rounds"
    assert set(table["mark"]) == {""}


def test_a_reply_that_never_came_is_marked(runs: list[Run]) -> None:
    """A cross stands where a client's reply was not accepted."""
    clients = runs[0]["clients"].copy()
    clients.loc[(clients["client"] == "client-3") & (clients["round"] == 2), "status"] = "timeout"
    table = rounds.stragglers([with_tables(runs[0], clients=clients)])
    assert table.loc[table["mark"] == "x", ["client", "column"]].to_numpy().tolist() == [["client-3", 2.0]]


def test_numbers_of_clients_are_compared_within_a_link(campaign: list[Run], stored: dict[str, Run]) -> None:
    """Means of runs with 2 and with 3 clients; a link with one number of clients is not shown."""
    table = rounds.clients([*campaign, stored["stored-5g-two"]])
    assert set(table["link"]) == {"5g"}
    assert sorted(set(table["clients"])) == [2, 3]
    uplink = table[(table["phase"] == "uplink") & (table["clients"] == 3)].iloc[0]
    means = [run["clients"].query("round > 1")["uplink_s"].mean() for run in campaign[:3]]
    assert [uplink["mean_s"], uplink["low_s"], uplink["high_s"]] == pytest.approx([np.mean(means), min(means), max(means)])
    assert rounds.clients(campaign).empty


def radio(**columns: Any) -> pd.DataFrame:
    """Rows of radio.csv as the recorder has them."""
    return pd.DataFrame({"run": "demo-wifi", "interface": "wlan0", "rsrp_dbm": np.nan, "rssi_dbm": np.nan} | columns)


def test_conditions_show_the_run_with_a_radio(runs: list[Run]) -> None:
    """A run with rows of radio.csv goes before the slowest link; throttling is what a Pi's flags say of now."""
    signal = radio(host=["client-0", "client-1"], time_s=[1.0, 2.0], rssi_dbm=[-60.0, -71.0], technology="wifi")
    system = runs[1]["system"].head(0)
    system = pd.concat(
        [
            system,
            pd.DataFrame(
                {
                    "host": "client-0",
                    "time_s": [1.0, 2.0, 3.0],
                    "throttled_flags": ["0x0", "0x50005", "0x50000"],
                    "cpu_percent": [10.0, 20.0, 30.0],
                }
            ),
        ]
    )
    table = hosts.conditions([runs[0], with_tables(runs[1], radio=signal, system=system)])
    by_measure = {str(name): rows for name, rows in table.groupby("measure")}
    assert table.attrs["run"] == "demo-wifi"
    assert by_measure["signal"][["client", "value"]].to_numpy().tolist() == [["client-0", -60.0], ["client-1", -71.0]]
    assert by_measure["throttled"]["value"].tolist() == [0.0, 1.0, 0.0]
    assert by_measure["cpu"]["value"].tolist() == [10.0, 20.0, 30.0]
    assert len(by_measure["uplink"]) == len(by_measure["retransmissions"]) == 32
    assert set(by_measure["retransmissions"]["value"]) == {2.0}
    assert table.attrs["absent"] == "Signal: RSSI."
    figure = next(figure for figure in FIGURES if figure.name == "conditions")
    picture = draw(figure, table, palettes([], [f"client-{k}" for k in range(4)]))
    assert len(picture.subfigs[0].axes) == 5


def test_a_modem_on_two_networks_shows_5g(runs: list[Run]) -> None:
    """Non-standalone 5G has rows of 5g and of lte; the signal is that of 5g, RSRP before RSSI."""
    signal = radio(host="client-0", time_s=[1.0, 1.0], rsrp_dbm=[-95.0, -88.0], rssi_dbm=-60.0, technology=["lte", "5g"])
    table = hosts.conditions([with_tables(runs[0], radio=signal)])
    assert table.loc[table["measure"] == "signal", "value"].tolist() == [-88.0]
    assert "Signal: RSRP." in table.attrs["absent"]


def test_conditions_show_what_the_gnb_logged(runs: list[Run]) -> None:
    """Mean over the modems of a report, in the link's colour; a modem's power at the gNB is no client's signal."""
    rows = radio(
        host=["server", "server", "server", "client-0"], time_s=[1.0, 1.0, 2.0, 2.0], technology="5g",
        rnti=["4601", "4602", "4601", None], ul_bler=[0.1, 0.3, 0.5, np.nan], rsrp_dbm=[-70.0, -71.0, -72.0, -90.0],
    )  # fmt: skip
    table = hosts.conditions([with_tables(runs[0], radio=rows)])
    link = table.attrs["link"]
    told = table.loc[table["measure"] == "block errors", ["time_s", "client", "value"]]
    assert told.to_numpy().tolist() == [[1.0, link, pytest.approx(0.2)], [2.0, link, 0.5]]
    assert table.loc[table["measure"] == "signal", "value"].tolist() == [-90.0]
    assert "Block errors: uplink blocks that failed" in table.attrs["absent"]
    figure = next(figure for figure in FIGURES if figure.name == "conditions")
    picture = draw(figure, table, palettes([link], [f"client-{k}" for k in range(4)]))
    assert "block errors" in [axes.get_ylabel() for axes in picture.subfigs[0].axes]


def test_without_a_radio_conditions_are_those_of_the_slowest_link(campaign: list[Run]) -> None:
    """Of emulated links the one with the longest uplink tells most."""
    table = hosts.conditions([campaign[8], campaign[0], campaign[3]])
    assert table.attrs["link"] == "5g"
    assert set(table["measure"]) == {"uplink", "cpu", "retransmissions"}


def test_clocks_stay_within_their_band(campaign: list[Run]) -> None:
    """All clients of these runs share the server's clock: the true offset is 0, and every band contains it."""
    for run in campaign[::3]:
        table = hosts.clocks([run])
        assert table["client"].nunique() == 3
        for client, rows in table.groupby("client"):
            samples = run["clock_samples"]
            assert len(rows) >= len(samples[samples["client"] == client])
            assert (rows["half_width_ms"] > 0).all()
            assert rows["offset_ms"].median() == pytest.approx(0, abs=1e-3)
            assert (rows["offset_ms"].max() - rows["offset_ms"].min()) < 2 * rows["half_width_ms"].max()


def test_runs_without_clock_samples_have_no_clocks(runs: list[Run]) -> None:
    """Nothing to draw is an empty table."""
    assert hosts.clocks([with_tables(runs[0], clock_samples=runs[0]["clock_samples"].head(0))]).empty
