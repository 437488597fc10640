"""`fltestbed bench analysis`: a folder of the size asked for, figures of a process of its own, and what its bars say."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from analysis.derive import derive
from analysis.load import load_run
from fltestbed.bench.analysis import MOST_MB, MOST_S, AnalysisReport, Command, judge, measure
from fltestbed.bench.large_folder import make_folder
from fltestbed.errors import ConfigError


def test_folder_is_a_run_without_oddities(tmp_path: Path) -> None:
    """Twenty rounds of three clients: 11 phases each, two of the server a round; nobody is lost and all is explained."""
    run = derive(load_run(make_folder(tmp_path / "large", rounds=20, clients=3)))
    assert run.warnings == ()
    assert len(run["phases"]) == 20 * (3 * 11 + 2)
    assert (run["clients"]["status"] == "ok").all()
    assert run["clients"]["unexplained_s"].abs().max() < 0.03  # what the mapping of the clocks leaves open
    assert run["rounds"]["duration_s"].notna().all()


def test_figures_and_bars_of_a_small_folder(tmp_path: Path) -> None:
    """The process is measured from its imports on; a bar is missed when its figure is larger."""
    figures = measure(rows=1_000).figures
    assert figures.rows == 1_102  # whole rounds
    steps = figures.import_s + figures.load_s + figures.derive_s + figures.summarise_s
    assert figures.total_s == pytest.approx(steps)
    assert all(command.total_s > 0 and command.peak_mb > 0 for command in figures.commands)
    commands = (Command(MOST_S - 1, MOST_MB), Command(MOST_S + 1, MOST_MB - 2))
    late = replace(figures, total_s=MOST_S + 1, peak_mb=MOST_MB - 1, commands=commands)
    slow = AnalysisReport(figures=late, bars=judge(late))
    assert [bar.holds for bar in slow.bars] == [False, True, False, True]
    shown = StringIO()
    slow.render(Console(file=shown, width=120))
    assert "missed" in shown.getvalue()
    slow.write(tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["bars"][0]["holds"] is False
    with pytest.raises(ConfigError, match="cannot be written"):
        slow.write(tmp_path / "nowhere" / "figures.json")
