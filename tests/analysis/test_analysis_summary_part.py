"""A summary reads a part of a run folder, and says the same."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from analysis.derive import SUMMARISED, derive, derive_for_summary
from analysis.load import load_run
from analysis.tables import summarise
from fltestbed.measure.derived import DERIVED
from fltestbed.measure.schema import PHASES_TABLE

Edit = Callable[[str, Callable[[str], str]], None]


def _same_from_a_part(folder: Path) -> None:
    """Compare what is said from a part with what is said from everything."""
    whole, part = derive(load_run(folder)), derive(load_run(folder, SUMMARISED))
    assert set(part.tables) == {*SUMMARISED, *(table.name for table in DERIVED)}
    expected, found = asdict(summarise([whole])), asdict(summarise([part]))
    of_others = ("system.csv", "clock.csv", "radio.csv")
    expected["warnings"] = [line for line in expected["warnings"] if not any(f": {name}: " in line for name in of_others)]
    assert found == expected


def test_stored_runs_say_the_same(stored_folders: dict[str, Path]) -> None:
    """Real runs, whole and failed, have the same summary from the columns that it needs."""
    for folder in stored_folders.values():
        _same_from_a_part(folder)


def test_recorded_times_are_read_where_no_better_ones_can_be_made(folder: Path) -> None:
    """A client without clock samples keeps its recorded times in the summary too."""
    file = folder / "clock_samples.csv"
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if ",client-3," not in line))
    assert derive(load_run(folder, SUMMARISED))["clients"].query("client == 'client-3'")["uplink_s"].notna().all()
    _same_from_a_part(folder)


@pytest.mark.parametrize("column", ["start_host", "end_raw_ns", "client", "phase"])
def test_a_column_that_is_missing_costs_no_more_in_the_summary(folder: Path, edit: Edit, column: str) -> None:
    """A file of another version may lack a column: a part of it says what all of it says."""
    place = PHASES_TABLE.header.index(column)
    rows = (line.split(",") for line in (folder / "phases.csv").read_text().splitlines())
    edit("phases.csv", lambda _: "".join(",".join(row[:place] + row[place + 1 :]) + "\n" for row in rows))
    _same_from_a_part(folder)


@pytest.mark.parametrize("change", ["again", "else"])
def test_rows_are_repeated_only_if_all_their_columns_are(folder: Path, edit: Edit, change: str) -> None:
    """A row that differs in a column that was not read is another row; one that does not is counted once."""
    rows = len(load_run(folder)["metrics"])
    last = [line for line in (folder / "metrics.csv").read_text().splitlines() if ",server," in line][-1].split(",")
    last[-2] = str(int(last[-2]) + (change == "else"))  # raw_ns
    edit("metrics.csv", lambda text: text + ",".join(last) + "\n")
    part, whole = load_run(folder, SUMMARISED), load_run(folder)
    assert len(whole["metrics"]) == rows + (change == "else")
    assert part.warnings == whole.warnings
    assert len(part.warnings) == (change == "again")


def test_a_summary_writes_nothing(folder: Path) -> None:
    """The folder may be one that cannot be written to: what is there before a summary is there after it, and no more."""
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert [run.warnings for run in derive_for_summary([folder])] == [()]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
