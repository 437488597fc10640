"""All figures of some runs, into a folder."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Picture

from analysis.captions import made, shows
from analysis.draw import draw, save
from analysis.emulation import limits
from analysis.figures import FIGURES
from analysis.load import Run
from analysis.measures import WARM_UP, links
from analysis.series.names import natural
from analysis.specification import Figure
from analysis.style import palettes
from fltestbed.errors import RunFolderError

FORMATS = ("png", "svg", "pdf")


@dataclass(frozen=True)
class Drawn:
    """One figure of some runs: its picture and what it shows, or why there is none (then `picture` is None)."""

    figure: Figure
    picture: Picture | None = None
    shows: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Plotted:
    """What became of one figure: the files that were written, or why there are none."""

    name: str
    paths: tuple[Path, ...] = ()
    reason: str = ""


def draw_all(runs: Sequence[Run], *, captions: bool, warm_up: int = WARM_UP) -> Iterator[Drawn]:
    """Draw every figure that the runs (loaded and derived) allow, without the first rounds where a figure leaves them out.

    With `captions`, what each shows and how the runs were made stands in its picture as well.
    """
    how = made(runs)
    clients = {str(name) for run in runs for name in run["clients"]["client"].dropna()}
    clients |= {str(name) for run in runs for name in run["clock_samples"]["client"].dropna()}
    looks = palettes(links(runs), sorted(clients, key=natural))
    for figure in FIGURES:
        table = figure.of(runs, warm_up)
        if table.empty:
            yield Drawn(figure, reason=f"the runs lack {figure.needs}")
        else:
            text = shows(figure, table, warm_up)
            yield Drawn(figure, draw(figure, table, looks, f"{text} {how}" if captions else ""), text)


def plot_all(
    runs: Sequence[Run],
    folder: Path,
    formats: Sequence[str] = ("png", "svg"),
    *,
    captions: bool = True,
    warm_up: int = WARM_UP,
) -> list[Plotted]:
    """Draw every figure that the runs allow, and write their captions beside them (captions.md, captions.json).

    Parameters
    ----------
    runs : sequence of Run
        Loaded and derived.
    folder : Path
        Made if it is not there; figures of an earlier call are replaced.
    formats : sequence of str
        Of `FORMATS`.
    captions : bool
        Whether each caption stands in its picture as well.
    warm_up : int
        Rounds at the start of each run that are left out of the figures that compare times.

    Raises
    ------
    RunFolderError
        The folder cannot be written to.
    """
    plotted, texts, how, notes = [], [], made(runs), limits(runs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for drawn in draw_all(runs, captions=captions, warm_up=warm_up):
            name = drawn.figure.name
            if drawn.picture is None:
                plotted.append(Plotted(name, reason=drawn.reason))
                continue
            paths = save(drawn.picture, folder / name, formats)
            plotted.append(Plotted(name, tuple(paths)))
            files = [path.name for path in paths]
            text = {"name": name, "title": drawn.figure.title, "caption": f"{drawn.shows} {how}"}
            texts.append(text | {"limits": notes, "files": files})
        (folder / "captions.json").write_text(json.dumps(texts, indent=1) + "\n", encoding="utf-8")
        (folder / "captions.md").write_text("\n".join(_markdown(texts)), encoding="utf-8")
    except OSError as error:
        raise RunFolderError(
            f"{folder}: figures cannot be written there: {error.strerror}; give another folder with -o"
        ) from error
    return plotted


def _markdown(texts: Sequence[dict[str, Any]]) -> Iterator[str]:
    for text in texts:
        yield f"## {text['title']}\n\n![{text['title']}]({text['files'][0]})\n\n{text['caption']}\n"
