"""Run folders into typed tables, and what is said about odd ones."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.csv_file import DTYPES
from analysis.load import load_run, load_runs
from fltestbed.errors import RunFolderError
from fltestbed.measure.schema import PHASES_TABLE, RECORDED, SCHEMA_VERSION

Edit = Callable[[str, Callable[[str], str]], None]


def test_whole_run_has_every_table_typed_and_no_warning(folder: Path) -> None:
    """Every table has the schema's columns, in order, with the type of their kind; a whole run warns of nothing."""
    run = load_run(folder)
    assert run.warnings == ()
    for table in RECORDED:
        frame = run.tables[table.name]
        assert tuple(frame.columns) == table.header
        kinds = DTYPES | {"str": "category"} if table is PHASES_TABLE else DTYPES
        assert all(kind == kinds[column.kind] for kind, column in zip(frame.dtypes, table.columns, strict=True))
    assert len(run["phases"]) == 1 + 8 * (4 * 11 + 2) + 4


def test_stamps_keep_every_nanosecond(folder: Path, edit: Edit) -> None:
    """A stamp too large for a float is read exactly, also in a column with empty cells."""
    line = (folder / "phases.csv").read_text().splitlines()[1]
    start = line.split(",")[PHASES_TABLE.header.index("start_raw_ns")]
    edit("phases.csv", lambda text: text.replace(start, "1234567890123456789", 1).replace(",5000040000000,", ",,", 1))
    stamps = load_run(folder)["phases"]
    assert stamps["start_raw_ns"].iloc[0] == 1234567890123456789
    assert stamps["end_raw_ns"].isna().iloc[0]


def test_manifest_gives_link_model_and_pacing(folder: Path) -> None:
    """What captions and the summary say of a run comes from its manifest."""
    manifest = load_run(folder).manifest
    assert (manifest.run, manifest.status, manifest.link, manifest.backend) == ("demo-5g", "complete", "5g", "wirefilter")
    assert (manifest.model, manifest.parameters, manifest.model_bytes) == ("squeezenet", 727_626, 2_910_504)
    assert manifest.paced
    assert manifest.notes == ("one queue for all clients instead of fair queues",)


def test_real_link_and_unknown_model_are_no_error(folder: Path, edit: Edit) -> None:
    """A manifest of a real link has only its name; the model may be missing."""
    edit(
        "manifest.json", lambda text: json.dumps({**json.loads(text), "link": {"name": "5g"}, "model": None, "app": "numpy"})
    )
    manifest = load_run(folder).manifest
    assert (manifest.link, manifest.backend, manifest.notes) == ("5g", "", ())
    assert (manifest.model, manifest.parameters) == ("app numpy", None)


def test_torn_last_line_is_left_out_with_a_warning(folder: Path) -> None:
    """A line without its end costs itself and nothing else, even when it is torn within quotes."""
    whole = load_run(folder)["phases"]
    with (folder / "phases.csv").open("a") as file:
        file.write('demo-5g,9,client-0,5g,train,"abc')
    run = load_run(folder)
    pd.testing.assert_frame_equal(run["phases"], whole)
    assert run.warnings == ("phases.csv: the last line is torn and was left out",)


def test_empty_file_is_an_empty_table(folder: Path) -> None:
    """A file without even a header, as a crash at the start leaves it, is an empty table and a warning."""
    (folder / "transfers.csv").write_text("run,rou")
    run = load_run(folder)
    assert run["transfers"].empty
    assert "transfers.csv is empty" in run.warnings


def test_repeated_rows_count_once(folder: Path, edit: Edit) -> None:
    """A row that was delivered twice is reported and counted once."""
    whole = load_run(folder)["transfers"]
    edit("transfers.csv", lambda text: text + text.splitlines(keepends=True)[-1])
    run = load_run(folder)
    assert len(run["transfers"]) == len(whole)
    assert run.warnings == ("transfers.csv: 1 rows stand there more than once; each was counted once",)


def test_missing_files_and_columns_are_warnings(folder: Path, edit: Edit) -> None:
    """What is not there is empty and named; a column that nobody knows is named and ignored."""
    (folder / "clock.csv").unlink()
    edit("metrics.csv", lambda text: text.replace("time_s", "moment_s", 1))
    run = load_run(folder)
    assert run["clock"].empty
    assert run["metrics"]["time_s"].isna().all()
    assert set(run.warnings) == {
        "clock.csv is missing",
        "metrics.csv: no column time_s; taken as empty",
        "metrics.csv: unknown column moment_s; ignored",
    }


def test_system_table_is_not_missed_where_its_probe_was_off(folder: Path, edit: Edit) -> None:
    """A file that the configuration switched off is no warning."""
    (folder / "system.csv").unlink()
    assert load_run(folder).warnings == ("system.csv is missing",)
    edit("manifest.json", lambda text: text.replace('"system": true', '"system": false'))
    assert load_run(folder).warnings == ()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (",5000000000000,", ",soon,", "line 2: start_raw_ns: 'soon' is not of type int"),
        (",0.04,0.0,", ",0.04.1,0.0,", "line 2: duration_s: '0.04.1' is not of type float"),
        (",0.04,0.0,0.0,0.0,0,", ",0.04,0.0,0.0,0.0,7,", "line 2: uncertain: '7' is not of type bool"),
    ],
)
def test_cell_of_a_wrong_type_names_line_and_column(folder: Path, edit: Edit, before: str, after: str, message: str) -> None:
    """A cell that cannot be read is an error with file, line, column and value."""
    edit("phases.csv", lambda text: text.replace(before, after, 1))
    with pytest.raises(RunFolderError) as error:
        load_run(folder)
    assert message in str(error.value)
    assert str(folder / "phases.csv") in str(error.value)


def test_metrics_may_be_nan(folder: Path, edit: Edit) -> None:
    """A loss that diverged is written as nan and read as NaN."""
    edit("metrics.csv", lambda text: text.replace("accuracy,0.1,", "accuracy,nan,", 1))
    run = load_run(folder)
    assert run.warnings == ()
    assert run["metrics"]["value"].isna().sum() == 1


def test_newer_schema_asks_for_an_upgrade(folder: Path, edit: Edit) -> None:
    """Files of a later version are refused, not guessed at."""
    now, later = f'"schema_version": {SCHEMA_VERSION}', f'"schema_version": {SCHEMA_VERSION + 1}'
    edit("manifest.json", lambda text: text.replace(now, later))
    with pytest.raises(RunFolderError, match="please upgrade"):
        load_run(folder)


def test_folder_that_is_no_run_says_what_to_give(folder: Path) -> None:
    """The folder of all runs in place of one names the runs inside it."""
    with pytest.raises(RunFolderError, match=r"no manifest\.json; run folders inside it: demo-5g"):
        load_run(folder.parent)
    with pytest.raises(RunFolderError, match="give the folder of a run"):
        load_run(folder / "nothing")


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": "one"}'])
def test_broken_manifest_is_one_clear_error(folder: Path, text: str) -> None:
    """A manifest that is not one is an error with its path."""
    (folder / "manifest.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"manifest\.json: "):
        load_run(folder)


def test_run_that_failed_says_so(folder: Path, edit: Edit) -> None:
    """The first warning of a run that is not complete is its status and reason."""
    edit("manifest.json", lambda text: json.dumps({**json.loads(text), "status": "failed", "reason": "disk full"}))
    assert load_run(folder).warnings == ("status is failed (disk full): figures cover a part of the run",)


def test_runs_are_loaded_once_and_have_names_of_their_own(folders: list[Path], folder: Path) -> None:
    """A folder given twice is one run; two runs of one name are told apart."""
    loaded = load_runs([folders[0], folders[1], folders[0], folder])
    assert [run.manifest.run for run in loaded] == ["demo-5g", "demo-wifi", "demo-5g#2"]


def test_analysis_imports_neither_flower_nor_torch() -> None:
    """Run folders can be read on a host that has none of what runs experiments, and read quickly."""
    code = (
        "import sys, analysis.derive, analysis.plots, analysis.report, analysis.tables, analysis.trace;"
        "loaded = {name for name in sys.modules if name.split('.')[0] in {'flwr', 'torch', 'torchvision', 'fltestbed'}};"
        "print(sorted(loaded))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(
        [
            "fltestbed",
            "fltestbed.errors",
            "fltestbed.measure",
            "fltestbed.measure.derived",
            "fltestbed.measure.mapping",  # the drift bound, and nothing that measures
            "fltestbed.measure.schema",
            "fltestbed.measure.table",
        ]
    )


def test_line_torn_in_the_middle_is_left_out_with_a_warning(folder: Path, edit: Edit) -> None:
    """A line that a crash cut off and another one followed costs itself and is shown."""
    whole = load_run(folder)["phases"]
    edit("phases.csv", lambda text: text.replace("\n", "\ndemo-5g,3,client-0,5g,tr\n", 1))
    run = load_run(folder)
    pd.testing.assert_frame_equal(run["phases"], whole)
    assert run.warnings == ("phases.csv: 1 torn lines were left out: 'demo-5g,3,client-0,5g,tr' has 5 cells, not 23",)


def test_text_over_several_lines_is_one_cell(folder: Path, edit: Edit) -> None:
    """The symptom of a failure may have line ends and commas; so has its cell."""
    edit("phases.csv", lambda text: text.replace(",test\n", ',"refused,\nagain"\n', 1))
    run = load_run(folder)
    assert run.warnings == ()
    assert (run["phases"]["detail"] == "refused,\nagain").sum() == 1
