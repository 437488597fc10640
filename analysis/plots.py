"""All figures of some runs, into a folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.captions import caption
from analysis.draw import draw, save
from analysis.figures import FIGURES
from analysis.load import Run
from analysis.measures import links
from analysis.style import looks
from fltestbed.errors import RunFolderError

FORMATS = ("png", "svg", "pdf")


@dataclass(frozen=True)
class Plotted:
    """What became of one figure: the files that were written, or why there are none."""

    name: str
    paths: tuple[Path, ...] = ()
    reason: str = ""


def plot_all(runs: Sequence[Run], folder: Path, formats: Sequence[str] = ("png", "svg")) -> list[Plotted]:
    """Draw every figure that the runs allow, and write their captions beside them (captions.md, captions.json).

    Parameters
    ----------
    runs : sequence of Run
        Loaded and derived.
    folder : Path
        Made if it is not there; figures of an earlier call are replaced.
    formats : sequence of str
        Of `FORMATS`.

    Raises
    ------
    RunFolderError
        The folder cannot be written to.
    """
    every_look = looks(links(runs))
    plotted, texts = [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for figure in FIGURES:
            table = figure.table(runs)
            if table.empty:
                plotted.append(Plotted(figure.name, reason=f"no run has {figure.needs}"))
                continue
            text = caption(figure, table, runs)
            paths = save(draw(figure, table, text, every_look), folder / figure.name, formats)
            plotted.append(Plotted(figure.name, tuple(paths)))
            files = [path.name for path in paths]
            texts.append({"name": figure.name, "title": figure.title, "caption": text, "files": files})
        (folder / "captions.json").write_text(json.dumps(texts, indent=1) + "\n", encoding="utf-8")
        sections = [f"## {text['title']}\n\n![{text['title']}]({text['files'][0]})\n\n{text['caption']}\n" for text in texts]
        (folder / "captions.md").write_text("\n".join(sections), encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{folder}: figures cannot be written there: {error.strerror}") from error
    return plotted
