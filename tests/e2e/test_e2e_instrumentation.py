"""Rounds that are not measured go the same way and leave nothing but their start and end."""

from pathlib import Path

from analysis.derive import derive
from analysis.load import load_run
from tests.e2e.conftest import fltestbed, numpy_app, write_experiment
from tests.e2e.test_e2e_collect import rows_of

TABLES = ("phases.csv", "transfers.csv", "metrics.csv", "clock_samples.csv", "system.csv")


def test_blocks_are_measured_by_turns(tmp_path: Path) -> None:
    """On, off, off, on: of rounds 2 and 3 there is one row each, their seconds; of 1 and 4 everything."""
    config = write_experiment(tmp_path, clients=2, instrumentation={"alternate_rounds": 1})
    app = numpy_app(tmp_path, num_server_rounds=4)
    done = fltestbed("run", config, "--link", "ethernet", "--app", app, "--runs", tmp_path, "--name", "run")
    assert done.status == 0, done.out + done.err
    assert "round 2/3, not measured, " in done.out
    folder = tmp_path / "run"
    for table in ("phases.csv", "transfers.csv"):
        assert {row["round"] for row in rows_of(folder / table)} == {"1", "4"}
    metrics = {(row["round"], row["metric"]) for row in rows_of(folder / "metrics.csv") if row["round"] in {"2", "3"}}
    assert metrics == {("2", "round-s"), ("3", "round-s")}
    assert len([row for row in rows_of(folder / "transfers.csv") if row["client_start_raw_ns"]]) == 2 * 2 * 2 * 2
    rounds = derive(load_run(folder))["rounds"].set_index("round")
    assert (rounds["duration_s"] > 0).all()
    assert list(rounds.index) == [1, 2, 3, 4]
    assert rounds["uplink_mean_s"].notna().to_list() == [True, False, False, True]
    assert rows_of(folder / "events.csv") == []  # nobody was missing, and so nobody was left out of a round or waited for


def test_off_takes_nothing_but_the_rounds(tmp_path: Path) -> None:
    """No exchange of clocks, no row of hosts, phases or transfers; the run is whole all the same."""
    config = write_experiment(tmp_path, clients=2, instrumentation={"off": True}, transport="objects")
    app = numpy_app(tmp_path, num_server_rounds=1)
    done = fltestbed("run", config, "--link", "ethernet", "--app", app, "--runs", tmp_path, "--name", "run")
    assert done.status == 0, done.out + done.err
    count = {table: len(rows_of(tmp_path / "run" / table)) for table in TABLES}
    assert count.pop("metrics.csv") >= 1
    assert set(count.values()) == {0}, count
    assert rows_of(tmp_path / "run" / "events.csv") == []
