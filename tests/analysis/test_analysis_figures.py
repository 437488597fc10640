"""The figures: that they can be read, look the same everywhere, and what stands below them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Picture
from matplotlib.text import Text
from PIL import Image

from analysis import plots
from analysis.captions import made, shows
from analysis.draw import WIDTH_IN, draw, save
from analysis.emulation import limits
from analysis.figures import FIGURES
from analysis.load import Run
from analysis.measures import WARM_UP, links
from analysis.plots import FORMATS, draw_all, plot_all
from analysis.series.names import natural
from analysis.specification import Axis, Figure, Panel
from analysis.style import MARKS, Palettes, palettes
from fltestbed.cli.plot import Format
from fltestbed.cli.plot import plot as plot_command
from fltestbed.errors import RunFolderError, TestbedError
from fltestbed.measure.schema import PHASES

every_figure = pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)


def emptied(run: Run, *names: str) -> Run:
    """Return the run without the rows of some tables."""
    return replace(run, tables=run.tables | {f"{name}.csv": run[name].head(0) for name in names})


def looks(runs: Sequence[Run]) -> Palettes:
    """The looks of everything in the runs."""
    return palettes(links(runs), sorted({str(name) for run in runs for name in run["clients"]["client"]}, key=natural))


def drawn(figure: Figure, runs: Sequence[Run], caption: str = "") -> Picture:
    """One figure of the runs."""
    return draw(figure, figure.table(runs), looks(runs), caption)


@pytest.fixture(scope="module")
def every(campaign: list[Run], stored: dict[str, Run]) -> list[Run]:
    """Real runs from which every figure can be drawn: the campaign, and a run with another number of clients."""
    return [*campaign, stored["stored-5g-two"]]


@every_figure
def test_table_has_the_columns_that_the_figure_names(figure: Figure, every: list[Run]) -> None:
    """A specification fits the table that its function makes."""
    table = figure.table(every)
    assert not table.empty
    for panel in figure.panels:
        assert panel.columns | {figure.facet} - {""} <= set(table.columns)


@every_figure
def test_picture_can_be_read(figure: Figure, every: list[Run]) -> None:
    """A column wide and no longer, no letter under 7 points, its unit at every axis with one, nothing beyond the edges."""
    text = f"{shows(figure, figure.table(every), WARM_UP)} {made(every)}"
    picture = drawn(figure, every, text)
    assert picture.get_figwidth() == WIDTH_IN == 3.5
    assert picture.get_figheight() < 9.5
    picture.draw_without_rendering()
    written = [item for item in picture.findobj(Text) if isinstance(item, Text) and item.get_text() and item.get_visible()]
    assert min(float(item.get_fontsize()) for item in written) >= 7
    labels = {axes.get_xlabel() for part in picture.subfigs for axes in part.axes} - {""}
    assert labels == {panel.x_axis.text for panel in figure.panels}
    inked = picture.get_tightbbox()
    assert min(inked.x0, inked.y0) >= -0.01
    assert inked.x1 <= picture.get_figwidth() + 0.01
    assert inked.y1 <= picture.get_figheight() + 0.01


@every_figure
def test_caption_is_short_and_filled(figure: Figure, every: list[Run]) -> None:
    """What a figure shows fits into five lines of a column, leaves no field open and ends as a sentence."""
    text = shows(figure, figure.table(every), WARM_UP)
    assert 40 < len(text) < 420
    assert not set("{}") & set(text)
    assert text.endswith(".")


@pytest.mark.parametrize("suffix", FORMATS)
def test_same_runs_give_the_same_bytes(suffix: str, runs: list[Run], tmp_path: Path) -> None:
    """A figure that is made again differs in nothing, so that it can be kept under version control."""
    made_twice = []
    for name in ("one", "two"):
        (path,) = save(drawn(FIGURES[0], runs, "caption"), tmp_path / name, [suffix])
        made_twice.append(path.read_bytes())
    assert made_twice[0] == made_twice[1]
    assert len(made_twice[0]) > 5000


def test_drawing_changes_no_global_setting(runs: list[Run]) -> None:
    """Drawing leaves matplotlib's settings as they were."""
    before = mpl.rcParams["font.size"]
    drawn(FIGURES[0], runs)
    assert mpl.rcParams["font.size"] == before


def test_links_and_phases_look_different_and_always_the_same() -> None:
    """The three links of a testbed keep their look whatever else is there; every phase has one; no two are equal."""
    few, many = palettes(["5g", "wifi", "ethernet"], []), palettes(["lora", "ethernet", "wifi", "5g", "satellite"], [])
    assert all(few["link"][name] == many["link"][name] for name in few["link"])
    assert set(PHASES) < set(few["phase"])
    assert len(set(many["link"].values())) == 5
    for kind in ("phase", "link"):
        assert len({(look.colour, look.hatch, look.dashes, look.marker) for look in many[kind].values()}) == len(many[kind])
    assert len({(look.colour, look.hatch) for look in few["phase"].values()}) == len(few["phase"])


def test_a_client_may_be_called_like_a_link_or_a_phase() -> None:
    """Names of different kinds do not take each other's look."""
    every = palettes(["5g", "train"], ["5g", "train"])
    assert every["client"]["5g"] != every["link"]["5g"]
    assert len({every[kind]["train"] for kind in ("link", "phase", "client")}) == 3


def test_thirty_clients_look_different() -> None:
    """Shade, dashes and marker together tell apart as many clients as a legend bears."""
    assert len(set(palettes([], [f"client-{k}" for k in range(30)])["client"].values())) == 30


def lightness(colour: str) -> float:
    """Relative luminance of a colour, from 0 to 1."""
    red, green, blue = to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_neighbours_differ_in_grey_print() -> None:
    """Phases that follow each other differ in lightness or hatch, links in dashes and marker, clients in lightness."""
    every = palettes(["5g", "wifi", "ethernet"], ["a", "b", "c", "d"])
    phase, link = every["phase"], every["link"].values()
    for one, other in pairwise(("downlink", "train", "evaluate", "uplink", "wait", "aggregate")):
        assert (
            abs(lightness(phase[one].colour) - lightness(phase[other].colour)) > 0.15
            or phase[one].hatch != phase[other].hatch
        )
    assert len({look.dashes for look in link}) == len({look.marker for look in link}) == 3
    for one_look, other_look in pairwise(every["client"].values()):
        assert abs(lightness(one_look.colour) - lightness(other_look.colour)) > 0.1


def test_a_pale_line_has_a_dark_edge() -> None:
    """What is hardly darker than paper (waiting, evaluation) can be seen as a line too."""
    phase = palettes([], [])["phase"]
    assert [name for name in ("wait", "evaluate", "train", "uplink") if "path_effects" in phase[name].line] == [
        "wait",
        "evaluate",
    ]


def test_a_dollar_sign_is_a_dollar_sign() -> None:
    """A name that looks like a formula is written as it is, and breaks nothing."""
    panel = Panel("boxes", "x", "name", "name", Axis("x", "s"), Axis(""))
    figure = Figure("f", "f", lambda runs: pd.DataFrame(), "", "", (panel,))
    table = pd.DataFrame({"x": [1.0, 2.0], "name": "$\\frac{$"})
    picture = draw(figure, table, palettes(["$\\frac{$"], []))
    picture.draw_without_rendering()
    assert [label.get_text() for label in picture.subfigs[0].axes[0].get_yticklabels()] == ["$\\frac{$"]


def test_long_names_leave_room_for_the_data(runs: list[Run]) -> None:
    """A client may have 64 letters: the middle is left out, both ends stay, and the axes keep most of the width."""
    long = {f"client-{k}": f"raspberry-pi-in-the-far-corner-of-the-laboratory-{k}" for k in range(4)}
    timeline = runs[0]["timeline"].assign(client=runs[0]["timeline"]["client"].map(long))
    run = replace(runs[0], tables=runs[0].tables | {"timeline.csv": timeline})
    picture = drawn(next(figure for figure in FIGURES if figure.name == "timeline"), [run])
    axes = picture.subfigs[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "server",
        *(f"raspberry-…oratory-{k}" for k in range(4)),
    ]
    assert axes.get_position().width > 0.6


def test_panels_without_rows_are_left_out(campaign: list[Run]) -> None:
    """Emulated links have no signal and no throttling: three panels of five remain, and the caption says so."""
    figure = next(figure for figure in FIGURES if figure.name == "conditions")
    picture = drawn(figure, campaign[:1])
    labels = [axes.get_ylabel() for axes in picture.subfigs[0].axes]
    assert labels == ["uplink [s]", "CPU, 100 a core [%]", "segments\nsent again"]
    assert "no rows of: signal (radio.csv), throttling (system.csv)." in shows(figure, figure.table(campaign[:1]), WARM_UP)


def test_legend_shows_what_is_there_in_the_order_of_a_round(campaign: list[Run]) -> None:
    """The legend of the timeline has the phases that can be seen, first things first."""
    picture = drawn(next(figure for figure in FIGURES if figure.name == "timeline"), campaign)
    names = [text.get_text() for text in picture.subfigs[0].legends[0].get_texts()]
    assert names == [phase for phase in PHASES if phase in names]
    assert {"downlink", "train", "uplink", "wait", "server_evaluate"} <= set(names)


def test_marks_of_ranges_have_a_legend_of_their_own(campaign: list[Run]) -> None:
    """Colours of that figure are links, which its rows name; the legend says what the marks are."""
    picture = drawn(next(figure for figure in FIGURES if figure.name == "goodput"), campaign)
    assert [text.get_text() for text in picture.subfigs[0].legends[0].get_texts()] == list(MARKS)


def test_caption_tells_how_the_runs_were_made(runs: list[Run]) -> None:
    """Runs, clients, rounds, model and its size, then what was emulated."""
    assert made(runs).startswith(
        "3 runs (1 over 5g, 1 over wifi, 1 over ethernet), 4 clients, 8 rounds each; squeezenet, 2.9 MB. "
        "5g is emulated by wirefilter"
    )
    assert made(runs[:1]).startswith("1 run over 5g, 4 clients, 8 rounds; squeezenet")


def test_caption_names_runs_that_are_not_complete(runs: list[Run]) -> None:
    """A caption ends with the runs of which it shows a part."""
    failed = replace(runs[1].manifest, status="failed", parameters=None, model_bytes=None)
    text = made([runs[0], replace(runs[1], manifest=failed)])
    assert "squeezenet, size not recorded" in text
    assert text.endswith("Not complete: demo-wifi (failed).")


@pytest.mark.parametrize(("warm_up", "said"), [(0, "No warm-up"), (1, "Warm-up (round 1)"), (3, "Warm-up (3 rounds)")])
def test_caption_tells_how_much_warm_up_was_left_out(runs: list[Run], warm_up: int, said: str) -> None:
    """A figure of times leaves out as many rounds as it is told, and says so; one of learning has all of them."""
    drawn_with = {each.figure.name: each for each in draw_all(runs[:1], captions=False, warm_up=warm_up)}
    assert drawn_with["anatomy"].shows.endswith(f"{said} left out.")
    assert "arm-up" not in drawn_with["accuracy"].shows
    transfers = next(figure for figure in FIGURES if figure.name == "transfers")
    assert len(transfers.of(runs[:1], warm_up)) == 2 * 4 * (8 - warm_up)  # both ways, four clients


def test_every_figure_is_written_in_every_format(every: list[Run], tmp_path: Path) -> None:
    """From real runs: PNG, SVG and PDF that readers of these formats accept, captions as Markdown and JSON."""
    folder = tmp_path / "figures"
    plotted = plot_all(every, folder, FORMATS)
    names = [figure.name for figure in FIGURES]
    assert [each.name for each in plotted] == names
    written = {path.name for path in folder.iterdir()}
    assert written == {f"{name}.{suffix}" for name in names for suffix in FORMATS} | {"captions.md", "captions.json"}
    for name, figure in zip(names, FIGURES, strict=True):
        with Image.open(folder / f"{name}.png") as image:
            assert image.width == 3.5 * 300
            assert len(image.convert("L").getcolors(256) or []) > 20
        letters = "".join(ET.parse(folder / f"{name}.svg").getroot().itertext())
        assert figure.title in letters
        content = (folder / f"{name}.pdf").read_bytes()
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
    texts = json.loads((folder / "captions.json").read_text())
    assert [text["files"] for text in texts] == [[f"{name}.{suffix}" for suffix in FORMATS] for name in names]
    page = (folder / "captions.md").read_text()
    assert all(text["caption"] in page for text in texts)
    notes = limits(every)
    assert notes
    assert all(note in text["caption"] for text in texts for note in notes)


def test_what_cannot_be_drawn_says_why(runs: list[Run], tmp_path: Path) -> None:
    """Runs without transfers and without metrics still give the other figures, and a reason for each that is missing."""
    blank = {f"{way}_{what}": float("nan") for way in ("uplink", "downlink") for what in ("s", "goodput_bps")}
    timeline = runs[0]["timeline"]
    timeline = timeline[~timeline["phase"].isin(["uplink", "downlink"])]
    run = emptied(runs[0], "metrics")
    changed = {"clients.csv": run["clients"].assign(**blank), "timeline.csv": timeline}
    plotted = {each.name: each for each in plot_all([replace(run, tables=run.tables | changed)], tmp_path, ["svg"])}
    assert {name: each.reason for name, each in plotted.items() if each.reason} == {
        "accuracy": "the runs lack an accuracy or a loss of the global model in metrics.csv",
        "transfers": "the runs lack a downlink or an uplink with stamps at both ends",
        "clients": "the runs lack other numbers of clients over the same link",
        "goodput": "the runs lack a downlink or an uplink with its bytes",
        "conditions": "the runs lack an uplink with stamps at both ends",
    }
    assert all(plotted[name].paths for name in ("anatomy", "timeline", "stragglers", "clock"))


def test_runs_without_rows_draw_nothing_and_break_nothing(runs: list[Run], tmp_path: Path) -> None:
    """A run that failed at once gives a reason for every figure and no picture."""
    run = emptied(runs[0], "clients", "rounds", "timeline", "metrics", "clock_samples", "transfers", "system")
    assert all(each.reason for each in plot_all([run], tmp_path))
    assert not list(tmp_path.glob("*.png"))


def test_one_link_with_negative_transfers_is_drawn(runs: list[Run]) -> None:
    """A negative one-way time within its uncertainty is drawn where it is, on a linear axis."""
    clients = runs[2]["clients"].copy()
    clients.loc[clients["round"] == 5, "uplink_s"] = -0.0002
    run = replace(runs[2], tables=runs[2].tables | {"clients.csv": clients})
    picture = drawn(next(figure for figure in FIGURES if figure.name == "transfers"), [run])
    axes = picture.subfigs[0].axes[0]
    assert axes.get_xscale() == "linear"
    assert axes.get_xlim()[0] < -0.0002


def test_many_clients_still_fit(runs: list[Run]) -> None:
    """Sixty clients on each of three links are no taller than a page, which names as many as it has room for."""
    figure = next(figure for figure in FIGURES if figure.name == "timeline")
    table = figure.table(runs[:1])
    client = table[table["lane"] == "client-0"]
    links = [client.assign(panel=link, lane=f"client-{k}") for link in ("5g", "wifi", "ethernet") for k in range(60)]
    picture = draw(figure, pd.concat(links), looks(runs))
    assert picture.get_figheight() < 9
    named = [label.get_text() for label in picture.subfigs[0].axes[0].get_yticklabels()]
    assert 10 < len(named) < 31
    assert named[:2] == ["client-0", f"client-{-(-60 // len(named))}"]


@pytest.fixture
def two_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the anatomy and the figure over numbers of clients alone: the others are tested above."""
    monkeypatch.setattr(plots, "FIGURES", [figure for figure in FIGURES if figure.name in {"anatomy", "clients"}])


@pytest.mark.usefixtures("two_figures")
def test_command_prints_paths_and_reasons(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints what it wrote, in the formats asked for, and tells beside it what it could not draw."""
    plot_command(folders[:1], out=tmp_path, formats=[Format.PDF, Format.SVG, Format.PDF])
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["clients: not drawn, the runs lack other numbers of clients over the same link"]
    assert [Path(line).name for line in captured.out.split()] == ["anatomy.pdf", "anatomy.svg"]
    assert all(Path(line).is_file() for line in captured.out.split())


def test_command_fails_where_there_is_nothing_to_draw(folder: Path, tmp_path: Path) -> None:
    """A run without a row ends with an error, not with success."""
    for file in folder.glob("*.csv"):
        file.write_text(file.read_text().splitlines(keepends=True)[0])
    with pytest.raises(TestbedError, match="there is nothing to draw") as caught:
        plot_command([folder], out=tmp_path / "figures")
    assert caught.value.exit_status == 1


@pytest.mark.usefixtures("two_figures")
def test_command_draws_what_it_can_and_fails_for_the_rest(folders: list[Path], folder: Path, tmp_path: Path) -> None:
    """A folder that cannot be used costs its own runs alone, is named at the end, and the status is 2."""
    (folder / "manifest.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"manifest\.json: cannot be read as JSON") as caught:
        plot_command([folders[0], folder], out=tmp_path / "figures", formats=[Format.SVG])
    assert caught.value.exit_status == 2
    assert (tmp_path / "figures" / "anatomy.svg").is_file()


@pytest.mark.usefixtures("two_figures")
def test_captions_may_be_left_to_the_paper(folders: list[Path], tmp_path: Path) -> None:
    """With --no-captions a picture has none, and captions.md has them all the same."""
    plot_command(folders[:1], out=tmp_path, formats=[Format.SVG], captions=False)
    letters = "".join(ET.parse(tmp_path / "anatomy.svg").getroot().itertext())
    assert "Where the time of a round goes" in letters
    assert "Training is paced" not in letters
    assert "Training is paced" in (tmp_path / "captions.md").read_text()


def test_folder_that_cannot_be_made_is_a_clear_error(runs: list[Run], tmp_path: Path) -> None:
    """A file where the folder should be is named."""
    (tmp_path / "figures").write_text("")
    with pytest.raises(RunFolderError, match="figures cannot be written there"):
        plot_all(runs, tmp_path / "figures")
