"""timeline.csv, clients.csv and rounds.csv: against the truth of a synthetic run, and by hand."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.derive import derive, derive_folders, write
from analysis.load import Run, conform, load_run, read_table
from analysis.rounds import clients, global_metric, rounds
from fltestbed.errors import RunFolderError
from fltestbed.measure.derived import DERIVED
from fltestbed.measure.schema import METRICS_TABLE, PHASES_TABLE, TRANSFERS_TABLE
from tests.analysis.synthetic_runs import STRAGGLER, Synthetic

Edit = Callable[[str, Callable[[str], str]], None]
S = 1_000_000_000


def phases(*rows: tuple[str, str, int, int], **common: Any) -> pd.DataFrame:
    """Rows (client, phase, start in s, end in s) of a timeline, on the server's clock."""
    frame = pd.DataFrame(rows, columns=["client", "phase", "start_s", "end_s"])
    frame["client"] = frame["client"].mask(frame["client"] == "")
    start, end = frame.pop("start_s"), frame.pop("end_s")
    frame = frame.assign(run="r", round=1, link="5g", message_type="train", attempt=1, status="ok", **common)
    frame = frame.assign(start_ns=start * S, end_ns=end * S, duration_s=end - start, duration_uncertainty_s=0.0)
    return conform(frame, PHASES_TABLE)


NO_TRANSFERS = conform(pd.DataFrame(), TRANSFERS_TABLE)
NO_METRICS = conform(pd.DataFrame(), METRICS_TABLE)

# a waits for b, whose uplink takes 5 s more; 1 s of a's round and 2 s of b's are not explained
TWO_CLIENTS = phases(
    ("a", "configure", 10, 11),
    ("a", "downlink", 11, 13),
    ("a", "train", 13, 17),
    ("a", "uplink", 18, 20),
    ("a", "collect", 20, 21),
    ("a", "wait", 21, 27),
    ("b", "configure", 10, 12),
    ("b", "downlink", 12, 14),
    ("b", "train", 15, 18),
    ("b", "uplink", 19, 26),
    ("b", "collect", 26, 27),
    ("b", "wait", 27, 27),
    ("", "aggregate", 27, 30),
    ("", "server_evaluate", 30, 34),
)


class TestTimeline:
    """Every phase on the server's clock, with a bound."""

    def test_true_times_are_within_the_placement_uncertainty(self, recorded: list[Synthetic], runs: list[Run]) -> None:
        """Clients whose clocks are hours off and drift are placed where their phases truly were, within the bound."""
        for synthetic, run in zip(recorded, runs, strict=True):
            table = run["timeline"]
            truth = np.array(synthetic.truth)
            placed = table[["start_ns", "end_ns"]].to_numpy(dtype=np.int64)
            bound_ns = table["placement_uncertainty_s"].to_numpy() * 1e9 + 2
            assert (np.abs(placed - truth) <= bound_ns[:, np.newaxis]).all()
            assert (table["placement_uncertainty_s"] < 0.03).all()

    def test_true_durations_are_within_their_uncertainty(self, recorded: list[Synthetic], runs: list[Run]) -> None:
        """A duration across hosts is right within its half-width, one within a host but for the drift of its clock."""
        for synthetic, run in zip(recorded, runs, strict=True):
            table = run["timeline"]
            truth_s = np.diff(np.array(synthetic.truth), axis=1)[:, 0] / 1e9
            drift_s = truth_s * 30e-6
            error_s = np.abs(table["duration_s"].to_numpy() - truth_s)
            assert (error_s <= table["duration_uncertainty_s"].to_numpy() + drift_s + 2e-9).all()

    def test_only_durations_between_hosts_are_uncertain(self, runs: list[Run]) -> None:
        """The clock mapping is in downlink and uplink alone; server phases have no doubt at all."""
        table = runs[0]["timeline"]
        across = table["phase"].isin(["downlink", "uplink"])
        assert (table.loc[across, "duration_uncertainty_s"] > 0).all()
        assert (table.loc[~across, "duration_uncertainty_s"] == 0).all()
        assert (table.loc[table["client"].isna(), "placement_uncertainty_s"] == 0).all()

    def test_what_a_stamp_leaves_open_is_added(self, folder: Path) -> None:
        """60 ms of each uplink's end: in its row and in what follows, in clients.csv, and in what marks it uncertain."""
        phases = pd.read_csv(folder / "phases.csv", dtype="str", keep_default_na=False)
        late = phases["phase"].isin(["uplink", "collect"])
        phases["stamp_uncertainty_s"] = phases["stamp_uncertainty_s"].mask(late, "0.06")
        without = derive(load_run(folder))
        phases.to_csv(folder / "phases.csv", index=False)
        run = derive(load_run(folder))
        before, after = (each["timeline"]["duration_uncertainty_s"] for each in (without, run))
        assert after[late].to_numpy() == pytest.approx(before[late].to_numpy() + 0.06)
        assert (after[~late] == before[~late]).all()
        collects = run["timeline"][run["timeline"]["phase"] == "collect"]
        assert (collects["uncertain"] == (collects["duration_s"] < 0.06)).all()
        for column, more_s in (("uplink_uncertainty_s", 0.06), ("downlink_uncertainty_s", 0.0)):
            was, now = without["clients"][column].dropna(), run["clients"][column].dropna()
            assert now.to_numpy() == pytest.approx(was.to_numpy() + more_s)

    def test_a_folder_from_before_the_stamps_uncertainty_has_none(self, folder: Path) -> None:
        """The column is named as missing, and everything else is as with nothing in it; so are rows where it is empty."""
        whole = derive(load_run(folder))
        recorded = pd.read_csv(folder / "phases.csv", dtype="str", keep_default_na=False)
        for phases in (recorded.drop(columns="stamp_uncertainty_s"), recorded.assign(stamp_uncertainty_s="")):
            phases.to_csv(folder / "phases.csv", index=False)
            old = derive(load_run(folder))
            pd.testing.assert_frame_equal(
                old["timeline"].drop(columns="stamp_uncertainty_s"), whole["timeline"].drop(columns="stamp_uncertainty_s")
            )
            pd.testing.assert_frame_equal(old["clients"], whole["clients"])
            named = "phases.csv: no column stamp_uncertainty_s; taken as empty" in old.warnings
            assert named == ("stamp_uncertainty_s" not in phases)

    def test_missing_stamps_stay_missing(self, folder: Path, edit: Edit) -> None:
        """Phases of a stock SuperNode have no stamps: no duration is invented for them, and nothing is lost."""
        rows = list(csv.DictReader((folder / "phases.csv").read_text().splitlines()))
        for row in rows:
            if row["client"] == "client-1" and row["phase"] in {"deserialize", "train", "evaluate", "serialize"}:
                stamps = [name for name in row if name.startswith(("start_", "end_", "duration_", "placement_"))]
                row.update(dict.fromkeys([*stamps, "uncertain"], ""), status="missing")
        with (folder / "phases.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, PHASES_TABLE.header)
            writer.writeheader()
            writer.writerows(rows)
        run = derive(load_run(folder))
        assert run["timeline"].loc[run["timeline"]["status"] == "missing", "duration_s"].isna().all()
        stock = run["clients"].query("client == 'client-1'")
        assert (stock["status"] == "ok").all()
        assert stock[["deserialize_s", "train_s", "evaluate_s", "serialize_s"]].isna().all(axis=None)
        assert (stock["unexplained_s"] > 2).all()  # what it did is known as a whole
        assert (run["rounds"].query("round >= 1")["clients_replied"] == 4).all()

    def test_client_without_samples_keeps_what_was_recorded(self, folder: Path) -> None:
        """Where no sample allows a better mapping, the recorded one stays, and a warning says so."""
        file = folder / "clock_samples.csv"
        file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if ",client-3," not in line))
        run = derive(load_run(folder))
        assert [line for line in run.warnings if "client-3: no clock samples" in line]
        was, now = (table.query("client == 'client-3'").reset_index(drop=True) for table in (run["phases"], run["timeline"]))
        pd.testing.assert_frame_equal(was, now)

    def test_contradicting_samples_are_a_warning(self, folder: Path) -> None:
        """A client with a stamp that is off by a second is named; the others decide."""
        samples = pd.read_csv(folder / "clock_samples.csv")
        last = samples.index[samples["client"] == "client-0"][-1]
        samples.loc[last, ["client_send_raw_ns", "client_receive_raw_ns"]] += S
        samples.to_csv(folder / "clock_samples.csv", index=False)
        warnings = [line for line in derive(load_run(folder)).warnings if line.startswith("client-0: ")]
        total = int((samples["client"] == "client-0").sum())
        assert warnings == [f"client-0: 1 of {total} clock samples contradict the others and were left out"]


class TestClients:
    """One row a client and round."""

    def test_by_hand(self) -> None:
        """Phases, total, what is left unexplained and the margin of two clients, computed by hand."""
        table = clients(TWO_CLIENTS, NO_TRANSFERS).set_index("client")
        assert table["uplink_s"].to_dict() == {"a": 2.0, "b": 7.0}
        assert table["total_s"].to_dict() == {"a": 11.0, "b": 17.0}
        assert table["unexplained_s"].to_dict() == {"a": 1.0, "b": 2.0}
        assert table["margin_s"].to_dict() == {"a": 6.0, "b": 0.0}
        assert table["connect_s"].to_dict() == {"a": 0.0, "b": 0.0}  # connections were kept
        assert table["evaluate_s"].isna().all()  # nobody evaluated
        assert table["status"].tolist() == ["ok", "ok"]

    def test_second_message_of_a_round_adds_up(self) -> None:
        """In an app that sends a message to train and one to evaluate, both count, and so does the server between them."""
        first = TWO_CLIENTS[TWO_CLIENTS["client"].ne("b")]
        second = phases(
            ("a", "configure", 30, 31),
            ("a", "downlink", 31, 33),
            ("a", "evaluate", 33, 38),
            ("a", "uplink", 38, 39),
            ("a", "collect", 39, 40),
            ("", "aggregate", 40, 41),
        ).assign(message_type="evaluate")
        timeline = pd.concat([first[first["phase"] != "server_evaluate"], second], ignore_index=True)
        row = clients(timeline, NO_TRANSFERS).iloc[0]
        assert (row["downlink_s"], row["evaluate_s"], row["uplink_s"]) == (4.0, 5.0, 3.0)
        assert (row["total_s"], row["unexplained_s"]) == (30.0, 1.0)
        assert rounds(clients(timeline, NO_TRANSFERS), timeline, NO_METRICS)["duration_s"].tolist() == [31.0]

    def test_goodput_is_payload_bits_over_seconds(self) -> None:
        """8 * 7,000,000 bytes in 7 s are 8 Mbit/s; a transfer that failed does not count."""
        timeline = TWO_CLIENTS.assign(payload_bytes=pd.array([7_000_000] * len(TWO_CLIENTS), dtype="Int64"))
        broken = phases(("b", "uplink", 18, 19), payload_bytes=900, detail="reset by peer").assign(status="failed")
        row = clients(pd.concat([timeline, broken]), NO_TRANSFERS).set_index("client").loc["b"]
        assert row["uplink_goodput_bps"] == 8e6
        assert row["uplink_s"] == 8.0
        assert row["status"] == "ok"

    def test_views_of_the_client_are_of_its_clock_alone(self, recorded: list[Synthetic], runs: list[Run]) -> None:
        """Pulling and pushing as the client saw them: last minus first byte read, answer minus first byte written."""
        table = runs[0]["clients"].query("round == 3 and client == @STRAGGLER").iloc[0]
        raw = {
            row["direction"]: row
            for row in recorded[0].rows["transfers.csv"]
            if (row["round"], row["client"]) == (3, STRAGGLER)
        }
        down, up = raw["downlink"], raw["uplink"]
        assert table["downlink_client_view_s"] == (down["client_end_raw_ns"] - down["client_start_raw_ns"]) / 1e9
        assert table["uplink_client_view_s"] == (up["client_response_raw_ns"] - up["client_start_raw_ns"]) / 1e9
        assert (table["rtt_s"], table["retransmissions"]) == (0.02, 3)

    @pytest.mark.parametrize(("told", "expected"), [("failed", "failed"), ("timeout", "timeout"), ("missing", "missing")])
    def test_reply_that_was_never_held(self, told: str, expected: str) -> None:
        """Without an accepted reply there is neither total nor margin, and the status says what the phases tell."""
        timeline = TWO_CLIENTS[~(TWO_CLIENTS["client"].eq("b") & TWO_CLIENTS["phase"].isin(["collect", "wait"]))]
        lost = timeline["client"].eq("b") & timeline["phase"].eq("uplink")
        timeline = timeline.assign(status=timeline["status"].astype(object).mask(lost, told))
        table = clients(timeline, NO_TRANSFERS).set_index("client")
        assert table["status"].to_dict() == {"a": "ok", "b": expected}
        assert table.loc["b", ["total_s", "margin_s", "unexplained_s"]].isna().all()
        counts = rounds(table.reset_index(), timeline, NO_METRICS).iloc[0]
        assert (counts["clients_selected"], counts["clients_replied"], counts["clients_missing"]) == (2, 1, 1)
        assert counts["uplink_mean_s"] == 2.0  # of the accepted reply alone


class TestRounds:
    """One row a round."""

    def test_by_hand(self) -> None:
        """Duration to the end of aggregation, means and maxima, and who ended the round, why and by how much."""
        row = rounds(clients(TWO_CLIENTS, NO_TRANSFERS), TWO_CLIENTS, NO_METRICS).iloc[0]
        assert row["duration_s"] == 20.0
        assert (row["uplink_mean_s"], row["uplink_max_s"]) == (4.5, 7.0)
        assert (row["wait_mean_s"], row["wait_max_s"]) == (3.0, 6.0)
        assert (row["aggregate_s"], row["server_evaluate_s"], row["aggregate_overlap_s"]) == (3.0, 4.0, 0.0)
        assert (row["ended_by"], row["ended_in_phase"], row["ended_margin_s"]) == ("b", "uplink", 6.0)

    def test_aggregation_before_the_last_reply(self) -> None:
        """What the server measured of it adds up; a metric of that name that an app reported does not count."""
        rows = [
            (1, "server", "train", "aggregate-overlap-s", 0.25),
            (1, "server", "train", "aggregate-overlap-s", 0.5),
            (1, "server", None, "aggregate-overlap-s", 9.0),
            (1, "client", "train", "aggregate-overlap-s", 9.0),
        ]
        columns = ["round", "source", "message_type", "metric", "value"]
        metrics = conform(pd.DataFrame(rows, columns=columns), METRICS_TABLE)
        timeline = pd.concat([TWO_CLIENTS, TWO_CLIENTS.assign(round=2)], ignore_index=True)
        table = rounds(clients(timeline, NO_TRANSFERS), timeline, metrics)
        assert table["aggregate_overlap_s"].tolist() == [0.75, 0.0]

    def test_one_client_ends_a_round_against_nobody(self) -> None:
        """With a single client there is no phase and no margin to compare."""
        timeline = TWO_CLIENTS[TWO_CLIENTS["client"].ne("b")]
        row = rounds(clients(timeline, NO_TRANSFERS), timeline, NO_METRICS).iloc[0]
        assert row["ended_by"] == "a"
        assert row[["ended_in_phase", "ended_margin_s"]].isna().all()

    def test_straggler_is_found(self, runs: list[Run]) -> None:
        """Over 5G the client with the slow uplink ends nearly every round, there; over Ethernet it does not."""
        ended = runs[0]["rounds"].query("round >= 1")
        assert (ended["ended_by"] == STRAGGLER).mean() >= 0.75
        assert (ended.loc[ended["ended_by"] == STRAGGLER, "ended_in_phase"] == "uplink").mean() >= 0.75
        assert (runs[2]["rounds"]["ended_in_phase"] != "uplink").all()

    def test_round_zero_has_the_first_accuracy_and_no_clients(self, runs: list[Run]) -> None:
        """Round 0 is the model before training: evaluated, nobody selected."""
        row = runs[0]["rounds"].iloc[0]
        assert (row["round"], row["accuracy"], row["server_evaluate_s"]) == (0, 0.10, 0.04)
        assert row[["duration_s", "clients_selected", "clients_missing"]].isna().all()

    def test_run_without_rows_has_empty_tables(self, folder: Path) -> None:
        """A run that failed before its first round can be derived and written all the same."""
        for file in folder.glob("*.csv"):
            file.write_text(file.read_text().splitlines(keepends=True)[0])
        run = derive(load_run(folder))
        assert [len(run.tables[table.name]) for table in DERIVED] == [0, 0, 0]


def test_metric_prefers_the_server_then_the_better_name_then_the_later_row() -> None:
    """One value a round: the server's before the aggregate, test before validation, the last of several."""
    rows = [
        (1, "aggregate", "accuracy", 0.1, 1.0),
        (1, "server", "test-accuracy", 0.2, 1.0),
        (1, "server", "accuracy", 0.3, 1.0),
        (1, "server", "accuracy", 0.4, 2.0),
        (2, "aggregate", "validation-accuracy", 0.5, 3.0),
        (2, "aggregate", "test-accuracy", 0.6, 3.0),
        (2, "client", "precision", 0.7, 3.0),
    ]
    metrics = conform(pd.DataFrame(rows, columns=["round", "source", "metric", "value", "time_s"]), METRICS_TABLE)
    found = global_metric(metrics, ("accuracy", "test-accuracy", "validation-accuracy"))
    assert found["value"].tolist() == [0.4, 0.6]


def test_written_tables_are_read_back_equal(folder: Path) -> None:
    """The derived files follow the schema, flags as 1 and 0, and nothing else is left in the folder."""
    before = {path.name for path in folder.iterdir()}
    run = derive(load_run(folder))
    assert write(run) == [folder / table.name for table in DERIVED]
    assert {path.name for path in folder.iterdir()} == before | {table.name for table in DERIVED}
    for table in DERIVED:
        warnings: list[str] = []
        pd.testing.assert_frame_equal(read_table(folder / table.name, table, warnings), run.tables[table.name])
        assert warnings == []
    assert set(pd.read_csv(folder / "timeline.csv")["uncertain"]) == {0}


def test_folder_that_cannot_be_written_to_is_a_clear_error(folder: Path) -> None:
    """A derived file that cannot be replaced is named; reading several runs goes on with a warning."""
    (folder / "clients.csv").mkdir()
    with pytest.raises(RunFolderError, match=r"clients\.csv: cannot be written"):
        write(derive(load_run(folder)))
    assert [line for line in derive_folders([folder])[0].warnings if "clients.csv: cannot be written" in line]
    assert not list(folder.glob(".*"))
