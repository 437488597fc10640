"""The summary: what it says, in which words, and what it warns of."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from analysis.derive import derive
from analysis.groups import differences
from analysis.load import Run, load_run
from analysis.statistics import Sample, ratio
from analysis.tables import PHASES, Summary, missed_pace, seconds, summarise
from analysis.terminal import render
from fltestbed.cli.summary import summary as summary_command
from fltestbed.errors import RunFolderError

Edit = Callable[[str, Callable[[str], str]], None]


def with_experiment(run: Run, **changes: Any) -> Run:
    """Return the run as if its configuration had been another one."""
    return replace(run, manifest=replace(run.manifest, experiment=run.manifest.experiment | changes))


def text(found: Summary, width: int = 100) -> str:
    """What a terminal of `width` characters shows."""
    shown = StringIO()
    render(found, Console(file=shown, width=width))
    return shown.getvalue()


def test_row_of_a_run(runs: list[Run]) -> None:
    """One row a run: what it was, mean and spread of every phase, clock half-width where two hosts are involved."""
    row = summarise(runs).runs[0]
    rounds, clients = (runs[0][name].query("round >= 2") for name in ("rounds", "clients"))
    assert [row[key] for key in ("run", "link", "status", "rounds", "clients")] == ["demo-5g", "5g", "complete", 8, 4]
    assert [row[key] for key in ("accuracy", "backend", "paced")] == [0.88, "wirefilter", True]
    assert row["round_mean_s"] == pytest.approx(rounds["duration_s"].mean())
    assert row["uplink_mean_s"] == pytest.approx(clients["uplink_s"].mean())
    assert row["uplink_sd_s"] == pytest.approx(rounds["uplink_mean_s"].std())
    assert row["uplink_clock_half_width_s"] == pytest.approx(clients["uplink_uncertainty_s"].mean())
    assert row["uplink_share"] == pytest.approx(row["uplink_mean_s"] / row["round_mean_s"])
    assert {key for key in row if "clock" in key} == {"downlink_clock_half_width_s", "uplink_clock_half_width_s"}


def test_an_accuracy_that_no_run_reaches_has_no_time(runs: list[Run]) -> None:
    """A blank for each run, and the rest of the summary as ever."""
    found = summarise(runs[:2], target=1.0)
    assert [row["target_s"] for row in found.runs] == [None, None]


def test_json_has_no_value_that_json_lacks(runs: list[Run]) -> None:
    """NaN and infinity are null, so that any reader can read it."""
    clients = runs[2]["clients"].assign(uplink_uncertainty_s=1.0, evaluate_s=float("nan"))
    run = replace(runs[2], tables={**runs[2].tables, "clients.csv": clients})
    found = json.loads(json.dumps(asdict(summarise([runs[0], run])), allow_nan=False))
    assert found["ratios"][0]["estimate"]["systematic_high"] is None
    assert found["runs"][1]["evaluate_mean_s"] is None


def test_text_names_links_phases_and_ratios(runs: list[Run]) -> None:
    """A terminal of 100 columns shows every run, phase and ratio without a word cut off."""
    shown = text(summarise(runs))
    for word in ("demo-5g", "demo-wifi", "demo-ethernet", "wirefilter", "uplink share", *PHASES):
        assert word in shown
    assert "5g uplink over ethernet's" in shown
    assert "no interval can be given" in shown
    assert "Round 1 of each run was left out (warm-up)" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert "…" not in shown
    assert "warning" not in shown


def test_configurations_that_differ_are_named(runs: list[Run]) -> None:
    """Each setting that is not the same, with the runs of each value; name and link do not count."""
    assert differences(runs) == []
    other = with_experiment(runs[1], training={"local-epochs": 3, "batch-size": 16})
    assert differences([runs[0], other, runs[2]]) == ["training.local-epochs: 2 (demo-5g, demo-ethernet), 3 (demo-wifi)"]
    real = replace(runs[0], manifest=replace(runs[0].manifest, backend=""))
    assert differences([real, runs[1]]) == ["backend: real (demo-5g), wirefilter (demo-wifi)"]
    assert "the runs differ in more than their link:\n  training.local-epochs" in text(summarise([runs[0], other]))


def test_warnings_of_status_lost_replies_and_uncertain_rows(folder: Path, edit: Edit) -> None:
    """An interrupted run, a reply that never came and transfers within the clocks' uncertainty are each one line."""
    edit("manifest.json", lambda old: json.dumps({**json.loads(old), "status": "interrupted"}))
    edit(
        "phases.csv",
        lambda old: (
            "\n".join(
                line
                for line in old.splitlines()
                if not (",8-client-3," in line and (",collect," in line or ",wait," in line))
            )
            + "\n"
        ),
    )
    run = derive(load_run(folder))
    uncertain = run["timeline"].assign(uncertain=(run["timeline"]["phase"] == "uplink").astype("boolean"))
    run = replace(run, tables={**run.tables, "timeline.csv": uncertain})
    assert summarise([run]).warnings == [
        "demo-5g: status is interrupted: figures cover a part of the run",
        "demo-5g: 1 of 32 replies missing: client-3 in round 8 (missing)",
        "demo-5g: 32 of 32 uplinks are shorter than the clocks' uncertainty: read them as 'at most'",
    ]


def test_replies_of_a_round_under_way_are_not_missing(folder: Path, edit: Edit) -> None:
    """While a run goes on, nobody says that what has not come yet is lost."""
    edit("manifest.json", lambda old: json.dumps({**json.loads(old), "status": "running"}))
    edit("phases.csv", lambda old: old[: old.index(",8-client-0,")].rsplit("\n", 1)[0] + "\n")
    edit("phases.csv", lambda old: old + old.splitlines()[-20].replace("demo-5g,7,", "demo-5g,8,") + "\n")
    found = summarise([derive(load_run(folder))])
    assert found.warnings == ["demo-5g: status is running: figures cover a part of the run"]


def test_run_without_a_round_is_a_row_of_blanks(folder: Path) -> None:
    """A run that failed at once is listed, not hidden, and breaks nothing."""
    for file in folder.glob("*.csv"):
        file.write_text(file.read_text().splitlines(keepends=True)[0])
    found = summarise([derive(load_run(folder))])
    assert (found.runs[0]["rounds"], found.runs[0]["uplink_mean_s"], found.runs[0]["accuracy"]) == (0, None, None)
    assert found.ratios == []
    assert "demo-5g" in text(found)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (12.345, "12.3"),
        (1234.5, "1234"),
        (0.02684, "0.0268"),
        (0.0000004, "0.000000"),
        (-0.5, "-0.500"),
        (0.0, "0"),
        (None, "-"),
    ],
)
def test_seconds_have_three_significant_digits(value: float | None, written: str) -> None:
    """Durations are written as a reader would: three digits, at most to the microsecond."""
    assert seconds(value) == written


def test_command_writes_tables_and_json(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the table, or writes JSON to a file."""
    summary_command(folders)
    assert "Seconds of a round" in capsys.readouterr().out
    summary_command(folders, json=True, out=tmp_path / "summary.json")
    assert capsys.readouterr().out == ""
    assert [row["run"] for row in json.loads((tmp_path / "summary.json").read_text())["runs"]] == [
        "demo-5g",
        "demo-wifi",
        "demo-ethernet",
    ]


@pytest.mark.parametrize(
    ("file", "before", "after", "message"),
    [
        ("manifest.json", "{", "", "cannot be read as JSON"),
        ("manifest.json", '"schema_version": 1', '"schema_version": 99', "please upgrade"),
        ("phases.csv", ",1,configure,server,", ",1,configure,server,now", "start_raw_ns: 'now"),
    ],
)
def test_a_folder_that_cannot_be_used_is_a_marked_row(
    folders: list[Path],
    folder: Path,
    edit: Edit,
    capsys: pytest.CaptureFixture[str],
    file: str,
    before: str,
    after: str,
    message: str,
) -> None:
    """The others are summarised, it has a row and a message, and the status is 2."""
    edit(file, lambda text: text.replace(before, after, 1))
    with pytest.raises(RunFolderError, match=message) as caught:
        summary_command([folders[1], folder])
    assert caught.value.exit_status == 2
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if row.startswith(("demo-wifi wifi", "demo-5g"))] == [
        "demo-wifi wifi complete 8 4 0.880 wirefilter yes",
        "demo-5g not used",
    ]


def test_a_pace_that_was_missed_is_counted() -> None:
    """Two epochs at 1.5 s are 3 s: 3.1 s is kept, 3.2 s is missed, and a client that nobody placed is not judged."""
    clients = pd.DataFrame({"client": ["a", "a", "b", "c"], "train_s": [3.1, 3.2, 9.0, 9.0]}).astype({"train_s": "Float64"})
    data = {
        "experiment": {"pacing": {"seconds-per-epoch": [1.5, 5.0]}, "training": {"local-epochs": 2}},
        "hosts": {"a": {"partition": 0}, "b": {"partition": 1}},
    }

    run: Any = type(
        "Run", (), {"manifest": SimpleNamespace(data=data), "__getitem__": lambda self, name: {"clients": clients}[name]}
    )()
    assert missed_pace(run) == (1, 3)
    data["experiment"] = {}
    assert missed_pace(run) == (0, 0)


def copies(run: Run, count: int, factor: float = 1.0) -> list[Run]:
    """Repetitions of a run whose uplinks take 1, 2, 3, ... times as long, times `factor`."""
    found = []
    for number in range(1, count + 1):
        clients = run["clients"].assign(uplink_s=run["clients"]["uplink_s"] * number * factor)
        manifest = replace(run.manifest, run=f"{run.manifest.run}-{number}")
        found.append(replace(run, manifest=manifest, tables={**run.tables, "clients.csv": clients}))
    return found


def test_ratio_of_two_links_has_an_interval_over_runs(runs: list[Run]) -> None:
    """Three runs a link: each run is one value, and the estimate is that of the runs' means; the clocks stand apart."""
    slow, fast = copies(runs[0], 3), copies(runs[2], 3)
    found = summarise([*slow, *fast])
    pair = found.ratios[0]
    assert (pair["slower"], pair["faster"], pair["phase"]) == ("5g", "ethernet", "uplink")
    means = [[run["clients"].query("round >= 2")["uplink_s"].mean() for run in group] for group in (slow, fast)]
    expected = ratio(Sample.of(means[0]), Sample.of(means[1]))
    assert expected is not None
    for name in ("value", "low", "high"):
        assert pair["estimate"][name] == pytest.approx(getattr(expected, name))
    assert pair["estimate"]["systematic_low"] < expected.value < pair["estimate"]["systematic_high"]
    assert pair["estimate"]["runs"] == [3, 3]
    shown = " ".join(text(found).split())
    assert "Student's t on logs; Welch's t on logs" in shown
    assert " 95% " in shown


def test_warm_up_is_chosen_and_said(runs: list[Run]) -> None:
    """What is left out is left out of every mean, and stands below the table."""
    found = summarise(runs, warm_up=3)
    late = runs[0]["rounds"].query("round > 3")["duration_s"].mean()
    assert found.groups[0]["estimates"]["round_s"]["value"] == pytest.approx(late)
    assert "The first 3 rounds of each run were left out (warm-up)" in text(found)
    assert "No warm-up round was left out" in text(summarise(runs, warm_up=0))
    kept = summarise(runs[:1], warm_up=8)
    assert [line for line in kept.warnings if "all its rounds are among the 8 of warm-up" in line]
    assert kept.groups[0]["estimates"]["round_s"] is not None


def test_mixed_configurations_are_never_averaged(runs: list[Run]) -> None:
    """Two runs of a link that differ in a setting are two rows, named by it, with no ratio between them."""
    found = summarise([runs[0], with_experiment(runs[0], clients=8), runs[1]])
    assert [group["label"] for group in found.groups] == ["5g, clients 4", "5g, clients 8", "wifi"]
    assert {(pair["slower"], pair["faster"]) for pair in found.ratios} <= {
        ("5g, clients 4", "wifi"),
        ("wifi", "5g, clients 4"),
    }
    assert "clients: 4 (demo-5g, demo-wifi), 8 (demo-5g)" in found.differences
