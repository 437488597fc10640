"""One HTML page about some runs: what was not the same, how the links compare, figures, warnings, and the data itself.

The page is whole in itself: pictures and data are inside it, it names no address, runs no script, and forbids both to the
browser. Whatever comes from a run folder (names of runs, clients and links, settings, warnings) is escaped.
"""

import base64
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.captions import made
from analysis.comparison import differences
from analysis.draw import rendered
from analysis.emulation import limits
from analysis.load import Refused, Run
from analysis.measures import WARM_UP, links
from analysis.plots import Drawn, draw_all
from analysis.report_tables import PHASES, SECONDS_NOTE, note, ratio_rows, run_rows, seconds_rows
from analysis.tables import summarise
from fltestbed import __version__
from fltestbed.errors import RunFolderError
from fltestbed.measure.derived import DERIVED

LARGEST_DATA_BYTES = 20_000_000
"""A table is left out of the page's data from this size on, since a page that large cannot be mailed."""

_POINTS = 96 / 72
"""Pixels of a page for a point of a picture."""


def write_report(runs: Sequence[Run], file: Path, warm_up: int = WARM_UP, refused: Refused | None = None) -> None:
    """Write the page of runs that were loaded and derived.

    Parameters
    ----------
    runs : sequence of Run
    file : Path
    warm_up : int
        Rounds at the start of each run that are left out.
    refused : dict of Path to RunFolderError, optional
        Folders that could not be used: the page names them.

    Raises
    ------
    RunFolderError
        The file cannot be written.
    """
    page = report(runs, warm_up, refused)
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RunFolderError(
            f"{file}: the report cannot be written there: {error.strerror}; give another file with -o"
        ) from error


def report(runs: Sequence[Run], warm_up: int = WARM_UP, refused: Refused | None = None) -> str:
    """Return the page as HTML."""
    drawn, summary = list(draw_all(runs, captions=False, warm_up=warm_up)), summarise(runs, warm_up, refused=refused)
    names = [name or "an unnamed link" for name in links(runs)]
    environment = Environment(
        loader=PackageLoader("analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        version=__version__,
        title=f"Federated learning over {_list(names)}",
        made=(how := made(runs)),
        when=_when(runs),
        one_run=len(runs) == 1,
        one_link=len(names) == 1,
        differences=differences(runs),
        warnings=[*(f"left out: {reason}" for reason in summary.refused.values()), *summary.warnings],
        ratios=ratio_rows(summary),
        note=note(warm_up),
        phases=PHASES,
        seconds=seconds_rows(summary),
        seconds_note=SECONDS_NOTE,
        figures=[_figure(each, how) for each in drawn if each.picture is not None],
        not_drawn=[f"{each.figure.title}: not drawn, {each.reason}." for each in drawn if each.picture is None],
        limits=limits(runs),
        run_columns=("run", "link", "status", "rounds", "clients", "accuracy", "backend", "training", "started"),
        runs=run_rows(summary, runs),
        archive=_archive(runs),
    )


@dataclass(frozen=True)
class Archive:
    """The derived tables of all runs in one file, as the page holds it."""

    name: str
    uri: str
    size: str
    about: str


def _figure(drawn: Drawn, how: str) -> dict[str, Any]:
    assert drawn.picture is not None
    width, height = (round(float(inches) * 72 * _POINTS) for inches in drawn.picture.get_size_inches())
    return {
        "name": drawn.figure.name,
        "title": drawn.figure.title,
        "caption": drawn.shows,
        "how": how,
        "uri": _data_uri("image/svg+xml", rendered(drawn.picture, "svg", letters=False)),
        "width": width,
        "height": height,
    }


def _archive(runs: Sequence[Run]) -> Archive:
    """Zip the derived tables, and the manifests, in a folder a run; what is too large is named and left out."""
    file, left_out = io.BytesIO(), []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, run in enumerate(runs, 1):
            for name, content in _contents(run):
                if len(content) > LARGEST_DATA_BYTES:
                    left_out.append(f"{name} of {run.manifest.run}")
                else:
                    entry = zipfile.ZipInfo(
                        f"{number}-{_safe(run.manifest.run)}/{name}"
                    )  # a fixed date: same runs, same bytes
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(entry, content)
    content = file.getvalue()
    tables = _list([table.name for table in DERIVED])
    about = (
        f"A zip archive with a folder a run: {tables}, and the manifest. Every column is explained in analysis/columns.md."
    )
    if left_out:
        about += f" Left out, each over {LARGEST_DATA_BYTES / 1e6:.0f} MB: {', '.join(left_out)}."
    uri = _data_uri("application/zip", content)
    return Archive("fltestbed-data.zip", uri, f"{len(content) / 1e3:.0f} kB", about)


def _contents(run: Run) -> Iterator[tuple[str, bytes]]:
    for table in DERIVED:
        yield table.name, run.tables[table.name].to_csv(index=False, lineterminator="\n").encode()
    yield "manifest.json", (run.path / "manifest.json").read_bytes()


def _safe(name: str) -> str:
    """A run's name as that of a folder: a manifest may say anything."""
    return "".join(letter if letter.isalnum() or letter in "._-#" else "_" for letter in name).lstrip(".") or "run"


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _when(runs: Sequence[Run]) -> str:
    """On which days the runs were made, by the server's wall clock."""
    days = sorted({str(run.manifest.data.get("zero_wall") or "")[:10] for run in runs} - {""})
    if not days:
        return ""
    return f"Measured on {days[0]}." if len(days) == 1 else f"Measured from {days[0]} to {days[-1]}."


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)
