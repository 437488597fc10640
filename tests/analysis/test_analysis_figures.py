"""The figures: what they draw, that they can be read, and what stands below them."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from analysis import series
from analysis.captions import caption, made
from analysis.draw import WIDTH_IN, draw, save
from analysis.figures import FIGURES, Figure
from analysis.load import Run
from analysis.measures import links
from analysis.plots import FORMATS, plot_all
from analysis.rounds import CLIENT_PHASES
from analysis.style import looks
from fltestbed.cli.plot import plot as plot_command
from fltestbed.errors import RunFolderError
from fltestbed.measure.schema import PHASES

every_figure = pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)


def emptied(run: Run, *names: str) -> Run:
    """Return the run without the rows of some tables."""
    return replace(run, tables=run.tables | {f"{name}.csv": run[name].head(0) for name in names})


@every_figure
def test_table_has_the_columns_that_the_figure_names(figure: Figure, runs: list[Run]) -> None:
    """A specification fits the table that its function makes."""
    table = figure.table(runs)
    assert not table.empty
    for panel in figure.panels:
        wanted = {panel.x, panel.y, panel.colour, panel.series, panel.start, panel.text, panel.error, figure.facet} - {""}
        assert wanted | ({panel.where[0]} if panel.where else set()) <= set(table.columns)


@every_figure
def test_picture_can_be_read(figure: Figure, runs: list[Run]) -> None:
    """Two columns wide, no letter under 7 points, units at every axis of seconds, nothing beyond the edges."""
    table = figure.table(runs)
    picture = draw(figure, table, caption(figure, table, runs), looks(links(runs)))
    assert picture.get_figwidth() == WIDTH_IN
    picture.draw_without_rendering()
    written = [item for item in picture.findobj(Text) if isinstance(item, Text) and item.get_text() and item.get_visible()]
    assert min(float(item.get_fontsize()) for item in written) >= 7
    labels = {axes.get_xlabel() for part in picture.subfigs for axes in part.axes} - {""}
    assert labels == {panel.x_axis.text for panel in figure.panels}
    inked = picture.get_tightbbox()
    assert min(inked.x0, inked.y0) >= -0.01
    assert inked.x1 <= picture.get_figwidth() + 0.01
    assert inked.y1 <= picture.get_figheight() + 0.01


@pytest.mark.parametrize("suffix", FORMATS)
def test_same_runs_give_the_same_bytes(suffix: str, runs: list[Run], tmp_path: Path) -> None:
    """A figure that is made again differs in nothing, so that it can be kept under version control."""
    figure = FIGURES[0]
    table = figure.table(runs)
    made_twice = []
    for name in ("one", "two"):
        (path,) = save(draw(figure, table, "caption", looks(links(runs))), tmp_path / name, [suffix])
        made_twice.append(path.read_bytes())
    assert made_twice[0] == made_twice[1]
    assert len(made_twice[0]) > 5000


def test_drawing_changes_no_global_setting(runs: list[Run]) -> None:
    """Drawing leaves matplotlib's settings as they were."""
    before = mpl.rcParams["font.size"]
    draw(FIGURES[0], FIGURES[0].table(runs), "caption", looks(links(runs)))
    assert mpl.rcParams["font.size"] == before


def test_links_and_phases_look_different_and_always_the_same() -> None:
    """The three links of a testbed keep their look whatever else is there; every phase has one; no two are equal."""
    few, many = looks(["5g", "wifi", "ethernet"]), looks(["lora", "ethernet", "wifi", "5g", "satellite"])
    assert all(few[name] == many[name] for name in few)
    assert set(PHASES) < set(few)
    assert len({many[name] for name in ("5g", "wifi", "ethernet", "lora", "satellite")}) == 5
    areas = [(look.colour, look.hatch) for name, look in few.items() if name not in {"5g", "wifi", "ethernet"}]
    assert len(set(areas)) == len(areas)


def test_neighbours_differ_in_grey_print() -> None:
    """Phases that follow each other differ in lightness or in hatch, links in dashes and marker."""
    every = looks(["5g", "wifi", "ethernet"])

    def lightness(name: str) -> float:
        red, green, blue = to_rgb(every[name].colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    large = ("downlink", "train", "evaluate", "uplink", "wait", "aggregate")
    for one, other in pairwise(large):
        assert abs(lightness(one) - lightness(other)) > 0.15 or every[one].hatch != every[other].hatch
    assert len({every[name].dashes for name in ("5g", "wifi", "ethernet")}) == 3
    assert len({every[name].marker for name in ("5g", "wifi", "ethernet")}) == 3


def test_bars_add_up_to_the_mean_round(runs: list[Run]) -> None:
    """The pieces of a link's bar are its mean round; pieces under one per cent everywhere are one, and named."""
    table = series.anatomy(runs)
    for run in runs:
        bar = table.query("link == @run.manifest.link")
        assert bar["mean_s"].sum() == pytest.approx(run["rounds"].query("round >= 2")["duration_s"].mean())
        assert bar["share"].sum() == pytest.approx(1)
    assert list(dict.fromkeys(table["link"])) == ["5g", "wifi", "ethernet"]
    assert "queue" in table.attrs["other"]
    assert not set(table["part"]) & {"configure", "queue", "connect"}


def test_transfers_are_every_accepted_one(runs: list[Run]) -> None:
    """Both directions of every client and round after the first, in seconds."""
    table = series.transfers(runs)
    assert table.groupby(["link", "direction"]).size().tolist() == [28] * 6
    assert "13 ms on 5g" in table.attrs["half_widths"]


def test_accuracy_starts_with_the_model_before_training(runs: list[Run]) -> None:
    """Round 0 stands at second 0; the others follow in time, later on the slower link."""
    table = series.accuracy(runs)
    assert table.loc[table["round"] == 0, ["accuracy", "time_s"]].to_numpy().tolist() == [[0.10, 0.0]] * 3
    ends = table.loc[table["round"] == 8, "time_s"]
    assert ends.is_monotonic_decreasing
    assert ends.min() > 30
    for _, run in table.groupby("run"):
        assert run["time_s"].is_monotonic_increasing


def test_timeline_is_the_median_round_of_each_link(runs: list[Run]) -> None:
    """One panel a link, the server's lane first, then clients in natural order, every phase of them."""
    table = series.timeline([*runs, runs[0]])
    assert table["panel"].nunique() == 3
    first = table[table["panel"] == table["panel"].iloc[0]]
    assert list(dict.fromkeys(first["lane"])) == ["server", "client-0", "client-1", "client-2", "client-3"]
    assert set(first["phase"]) >= set(CLIENT_PHASES) - {"connect"}
    durations = runs[0]["rounds"]["duration_s"].dropna().sort_values()
    shown_s = (first["start_s"] + first["seconds"])[first["phase"] == "aggregate"].max()
    assert shown_s == pytest.approx(durations.iloc[3])
    assert series._natural("client-2") < series._natural("client-10")


def test_caption_tells_how_the_runs_were_made(runs: list[Run]) -> None:
    """Runs, clients, rounds, model and its size, backend with what it could not do, and pacing."""
    assert made(runs) == (
        "3 runs (1 over 5g, 1 over wifi, 1 over ethernet), 4 clients, 8 rounds each. "
        "Model: squeezenet (727,626 parameters, 2.9 MB). "
        "Links: emulated by wirefilter. Limits of the emulation: one queue for all clients instead of fair queues. "
        "Compute is paced: training takes at least a configured time."
    )


def test_caption_tells_real_links_partial_pacing_and_incomplete_runs(runs: list[Run]) -> None:
    """What differs between the runs is told of each."""
    real = replace(runs[1].manifest, backend="", notes=(), paced=False, status="failed", parameters=None, model_bytes=None)
    text = made([runs[0], replace(runs[1], manifest=real)])
    assert "Links: emulated by wirefilter (5g), real (wifi). " in text
    assert "Limits of the emulation: one queue for all clients instead of fair queues (5g). " in text
    assert "Compute is paced (training takes at least a configured time) in demo-5g alone." in text
    assert "squeezenet (size not recorded)" in text
    assert text.endswith("Not complete: demo-wifi (failed).")
    assert made(runs[:1]).startswith("1 run over 5g, 4 clients, 8 rounds. Model")


def test_every_figure_is_written_with_its_caption(runs: list[Run], tmp_path: Path) -> None:
    """PNG and SVG of each figure, captions as Markdown and JSON; an SVG is XML with its letters as text."""
    plotted = plot_all(runs, tmp_path / "figures")
    names = [figure.name for figure in FIGURES]
    assert [each.name for each in plotted] == names
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert written == {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")} | {"captions.md", "captions.json"}
    texts = json.loads((tmp_path / "figures" / "captions.json").read_text())
    assert [text["files"] for text in texts] == [[f"{name}.png", f"{name}.svg"] for name in names]
    assert all(text["caption"] in (tmp_path / "figures" / "captions.md").read_text() for text in texts)
    letters = "".join(ET.parse(tmp_path / "figures" / "anatomy.svg").getroot().itertext())
    assert "Where the time of a round goes" in letters


def test_what_cannot_be_drawn_says_why(runs: list[Run], tmp_path: Path) -> None:
    """Runs without transfers and without metrics still give the other figures, and a reason for each that is missing."""
    blank = {f"{way}_s": float("nan") for way in ("uplink", "downlink")}
    run = emptied(runs[0], "metrics")
    run = replace(run, tables=run.tables | {"clients.csv": run["clients"].assign(**blank)})
    plotted = {each.name: each for each in plot_all([run], tmp_path)}
    assert plotted["accuracy"].reason == "no run has an accuracy of the global model in metrics.csv"
    assert plotted["transfers"].reason == "no run has a downlink or an uplink with stamps at both ends"
    assert plotted["anatomy"].paths
    assert plotted["timeline"].paths


def test_runs_without_rows_draw_nothing_and_break_nothing(runs: list[Run], tmp_path: Path) -> None:
    """A run that failed at once gives four reasons and no picture."""
    run = emptied(runs[0], "clients", "rounds", "timeline", "metrics")
    assert all(each.reason for each in plot_all([run], tmp_path))
    assert not list(tmp_path.glob("*.png"))


def test_one_link_with_negative_transfers_is_drawn(runs: list[Run], tmp_path: Path) -> None:
    """A negative one-way time within its uncertainty is drawn where it is, on a linear axis."""
    clients = runs[2]["clients"].copy()
    clients.loc[0, "uplink_s"] = -0.0002
    run = replace(runs[2], tables=runs[2].tables | {"clients.csv": clients})
    assert all(each.paths for each in plot_all([run], tmp_path, ["pdf"]))


def test_many_clients_still_fit(runs: list[Run]) -> None:
    """A timeline of fifty clients is no taller than a page."""
    table = series.timeline(runs[:1])
    client = table[table["lane"] == "client-0"]
    table = pd.concat([client.assign(lane=f"client-{k}") for k in range(50)])
    figure = next(figure for figure in FIGURES if figure.name == "timeline")
    assert draw(figure, table, "caption", looks(["5g"])).get_figheight() < 9


def test_command_prints_paths_and_reasons(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints what it wrote, and tells beside it what it could not draw."""
    plot_command(folders[:1], out=tmp_path, pdf=True)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert [Path(line).name for line in captured.out.split()][:3] == ["anatomy.png", "anatomy.svg", "anatomy.pdf"]
    assert all(Path(line).is_file() for line in captured.out.split())


def test_folder_that_cannot_be_made_is_a_clear_error(runs: list[Run], tmp_path: Path) -> None:
    """A file where the folder should be is named."""
    (tmp_path / "figures").write_text("")
    with pytest.raises(RunFolderError, match="figures cannot be written there"):
        plot_all(runs, tmp_path / "figures")
