"""The report: whole in itself, safe with names that nobody chose well, and readable in a browser."""

import base64
import io
import math
import re
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

from analysis import plots
from analysis import report as report_module
from analysis.figures import FIGURES
from analysis.load import Run
from analysis.report import report, write_report
from analysis.report_tables import PHASES, ratio_rows, seconds_rows
from analysis.tables import summarise
from fltestbed.cli.report import report as report_command
from fltestbed.errors import RunFolderError

EVIL = '<script src="//evil.example/x.js">alert(1)</script>"\'&{{ 7 * 7 }}'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)")


class Page(HTMLParser):
    """What the tests want to know of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.headings: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element and its attributes."""
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Leave an element."""
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        """Note a text."""
        if "style" not in self._inside:
            self.words.append(data)
        if self._inside and self._inside[-1] == "h2":
            self.headings.append(data)

    def having(self, tag: str) -> list[dict[str, str]]:
        """Attributes of every element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(campaign: list[Run]) -> str:
    """The report of nine real runs."""
    return report(campaign)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the text alone: drawing takes longer than all else."""
    monkeypatch.setattr(report_module, "draw_all", lambda runs, captions, warm_up: iter(()))


def test_page_refers_to_nothing_outside(page: str) -> None:
    """Every address is a data URI, style sheets load nothing, there is no script, and the browser is told to refuse any."""
    found = Page(page)
    addresses = [
        value
        for _, attributes in found.tags
        for key, value in attributes.items()
        if key in {"src", "href", "srcset", "action", "poster", "data", "background", "xlink:href"}
    ]
    assert len(addresses) > 8
    assert all(address.startswith("data:") for address in addresses)
    assert not found.having("script") + found.having("link") + found.having("iframe") + found.having("object")
    assert not [key for _, attributes in found.tags for key in attributes if key.startswith("on")]
    style = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in re.sub(r"http-equiv", "", "".join(re.split(r"data:[\w/+-]+;base64,[\w+/=]+", page)))
    (policy,) = (meta["content"] for meta in found.having("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy


def test_pictures_are_svg_that_refers_to_nothing(page: str) -> None:
    """Each picture is an SVG of outlines with an alternative text; its references stay within it."""
    images = Page(page).having("img")
    assert len(images) == 8
    for image in images:
        kind, _, content = image["src"].partition(";base64,")
        assert kind == "data:image/svg+xml"
        root = ET.fromstring(base64.b64decode(content))
        assert not list(root.iter("{http://www.w3.org/2000/svg}text"))
        links = {value for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")}
        assert all(link.startswith("#") for link in links)
        assert len(image["alt"]) > 40
        assert 300 < int(image["width"]) < 400


def test_what_differed_comes_first(page: str) -> None:
    """Differences, warnings, ratios, figures, limits, runs, data; the setting that differed stands with its runs."""
    found = Page(page)
    assert [heading.split()[0] for heading in found.headings] == [
        "What",
        "Warnings",
        "How",
        "Figures",
        "What",
        "Runs",
        "Data",
    ]
    text = " ".join(found.words)
    assert "git.changed" in text
    assert "stored-wifi-3, stored-ethernet-3" in text


@pytest.mark.usefixtures("no_figures")
def test_runs_that_agree_are_said_to_agree(campaign: list[Run]) -> None:
    """Without a difference the page says so in words."""
    assert "Nothing but the link" in " ".join(Page(report(campaign[:2])).words)


def test_ratios_have_intervals_and_what_the_clocks_allow(campaign: list[Run]) -> None:
    """Uplink, downlink and round of every two links, largest first, each at least 1; the interval and the clocks apart."""
    rows = ratio_rows(summarise(campaign))
    assert [row.what.split()[0] for row in rows] == ["uplink"] * 3 + ["downlink"] * 3 + ["round"] * 3
    assert rows[0].what == "uplink over 5g against ethernet"
    for row in rows:
        low, high = (float(value) for value in row.interval.split(" to "))
        assert low <= float(row.ratio) <= high
        assert float(row.ratio) >= 1
        assert row.runs == "3 and 3 runs"
    assert rows[-1].clocks == "exact: one clock"
    geometric = [
        fmean(math.log(run["clients"].query("round > 1")["uplink_s"].mean()) for run in campaign[first : first + 3])
        for first in (0, 6)
    ]
    assert float(rows[0].ratio) == pytest.approx(math.exp(geometric[0] - geometric[1]), rel=0.01)


@pytest.mark.usefixtures("no_figures")
def test_configurations_are_not_mixed(campaign: list[Run], stored: dict[str, Run]) -> None:
    """A run with two clients has a row of its own and no part in the ratios of those with three."""
    summary = summarise([*campaign, stored["stored-5g-two"]])
    assert [row.label for row in seconds_rows(summary)] == ["5g, clients 3", "wifi", "ethernet", "5g, clients 2"]
    uplink = next(row for row in ratio_rows(summary) if row.what == "uplink over 5g, clients 3 against ethernet")
    assert uplink.ratio == ratio_rows(summarise(campaign))[0].ratio
    text = " ".join(Page(report([*campaign, stored["stored-5g-two"]])).words)
    assert "Runs of different configurations are pooled: 5g, clients 3; wifi; ethernet; 5g, clients 2." in text


@pytest.mark.usefixtures("no_figures")
def test_one_run_has_no_interval(campaign: list[Run]) -> None:
    """One run a link gives ratios without an interval, and one run alone says that there is nothing to compare."""
    assert {row.interval for row in ratio_rows(summarise([campaign[0], campaign[3]]))} == {"none: one run"}
    text = " ".join(Page(report(campaign[:1])).words)
    assert "There is one run: nothing to compare it with, and no interval can be given." in text
    assert "There is one link: nothing to compare." in text


def test_seconds_are_in_a_row_a_link(campaign: list[Run]) -> None:
    """Each phase has a mean; transfers say what the clocks allow, phases of one host do not."""
    rows = seconds_rows(summarise(campaign))
    assert [row.label for row in rows] == ["5g", "wifi", "ethernet"]
    cells = dict(zip(PHASES, rows[0].cells, strict=True))
    assert cells["uplink"].clocks
    assert cells["uplink"].interval
    assert not cells["train"].clocks
    assert float(cells["train"].mean) == pytest.approx(0.67, abs=0.05)


def with_names(run: Run, name: str) -> Run:
    """Return the run as if everything that has a name were called so."""
    tables = {}
    for file, table in run.tables.items():
        named = {column: name for column in ("client", "link", "host", "detail", "start_host") if column in table}
        tables[file] = table.assign(
            **{column: table[column].astype(object).mask(table[column].notna(), value) for column, value in named.items()}
        )
    data = run.manifest.data | {"transport": name, "zero_wall": name, "hosts": {name: {"cpu": name}}}
    manifest = replace(
        run.manifest, run=name, link=name, backend=name, notes=(name,), status="failed", reason=name, data=data
    )
    return replace(run, tables=tables, manifest=manifest, warnings=(name,))


@pytest.fixture
def two_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """One figure with names of clients and runs, one with names of links."""
    monkeypatch.setattr(plots, "FIGURES", [figure for figure in FIGURES if figure.name in {"timeline", "transfers"}])


@pytest.mark.usefixtures("two_figures")
def test_names_from_a_run_folder_are_escaped(campaign: list[Run]) -> None:
    """Markup in the names of runs, clients, links, settings and warnings is text, also in pictures and in the archive."""
    page = report([with_names(campaign[0], EVIL), campaign[1]])
    found = Page(page)
    assert not found.having("script")
    assert not [key for _, attributes in found.tags for key in attributes if key.startswith("on")]
    assert "".join(found.words).count(EVIL) >= 6
    assert "{{ 7 * 7 }}" in page
    for image in found.having("img"):
        root = ET.fromstring(base64.b64decode(image["src"].partition(";base64,")[2]))
        assert not [element for element in root.iter() if element.tag.endswith("script")]
    for name in archive(page).namelist():
        assert re.fullmatch(r"\d+-[\w.#-]+/[\w.]+", name)


def archive(page: str) -> zipfile.ZipFile:
    """The data that the page holds."""
    (link,) = (link for link in Page(page).having("a") if "download" in link)
    assert link["download"] == "fltestbed-data.zip"
    return zipfile.ZipFile(io.BytesIO(base64.b64decode(link["href"].partition(";base64,")[2])))


def test_data_are_the_derived_tables_of_every_run(page: str, campaign: list[Run]) -> None:
    """A folder a run with three tables and the manifest, with the rows that the analysis has."""
    data = archive(page)
    assert len(data.namelist()) == 4 * len(campaign)
    with data.open("4-stored-wifi-1/clients.csv") as file:
        table = pd.read_csv(file)
    assert table["uplink_s"].tolist() == campaign[3]["clients"]["uplink_s"].tolist()


@pytest.mark.usefixtures("no_figures")
def test_tables_that_cannot_be_mailed_are_left_out_and_named(campaign: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """A page says what it does not hold."""
    monkeypatch.setattr(report_module, "LARGEST_DATA_BYTES", 10_000)
    page = report(campaign[:1])
    assert "1-stored-5g-1/timeline.csv" not in archive(page).namelist()
    assert "Left out, each over 0 MB: timeline.csv of stored-5g-1." in " ".join(Page(page).words)


@pytest.mark.usefixtures("two_figures")
def test_same_runs_give_the_same_page(campaign: list[Run]) -> None:
    """Nothing on it depends on when or where it was made."""
    assert report(campaign[:4]) == report(campaign[:4])


def test_a_run_without_rows_still_has_a_page(runs: list[Run]) -> None:
    """A run that failed at once is shown as what it is: no figure, its reason, its row."""
    tables = {name: table.head(0) for name, table in runs[0].tables.items()}
    failed = replace(runs[0].manifest, status="failed", reason="no client came")
    found = Page(report([replace(runs[0], tables=tables, manifest=failed)]))
    assert not found.having("img")
    assert "failed: no client came" in " ".join(found.words)


def test_command_writes_the_page(
    stored_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command derives the folders, writes the file and says how large it is."""
    file = tmp_path / "report.html"
    report_command([stored_folders["stored-5g-1"]], out=file)
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out == f"{file}: {file.stat().st_size / 1e6:.1f} MB\n"


@pytest.mark.usefixtures("no_figures")
def test_command_names_a_folder_that_cannot_be_used(stored_folders: dict[str, Path], tmp_path: Path) -> None:
    """The page is of the others, begins its warnings with that folder, and the status is 2."""
    (tmp_path / "empty").mkdir()
    folders = [stored_folders["stored-5g-1"], stored_folders["stored-wifi-1"]]
    file = tmp_path / "report.html"
    with pytest.raises(RunFolderError, match="not a run folder") as caught:
        report_command([*folders, tmp_path / "empty"], out=file, warm_up=2)
    assert caught.value.exit_status == 2
    words = " ".join(Page(file.read_text(encoding="utf-8")).words)
    assert f"left out: {tmp_path / 'empty'}: not a run folder" in words
    assert "without the first 2 rounds (warm-up)" in words


@pytest.mark.usefixtures("no_figures")
def test_file_that_cannot_be_written_is_a_clear_error(campaign: list[Run], tmp_path: Path) -> None:
    """The file is named."""
    with pytest.raises(RunFolderError, match="report cannot be written there"):
        write_report(campaign[:1], tmp_path / "no" / "report.html")


def chromium(arguments: Sequence[str], file: Path) -> subprocess.CompletedProcess[str]:
    """Open a file in headless Chromium, with a profile that is thrown away."""
    command = [str(CHROMIUM), "--headless", "--disable-gpu", "--no-sandbox", "--enable-logging=stderr"]
    command += [f"--user-data-dir={file.parent / 'profile'}", *arguments, file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@needs_chromium
@pytest.mark.parametrize("width", [390, 1200])
def test_page_fits_a_phone_and_a_screen(page: str, tmp_path: Path, width: int) -> None:
    """Chromium lays the page out without anything beyond its width, and decodes every picture.

    The page itself runs no script; a copy of it does here, in a frame as wide as the screen, to ask the browser.
    """
    asking = """<script>onload = () => parent.postMessage([document.documentElement.scrollWidth, innerWidth,
      [...document.images].filter(image => image.naturalWidth > 100).length], "*")</script></body>"""
    (tmp_path / "asked.html").write_text(
        re.sub(r"<meta http-equiv=[^>]*>", "", page).replace("</body>", asking), encoding="utf-8"
    )
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"""<script>onmessage = message => {{ document.body.dataset.found = message.data }}</script>
        <body><iframe src="asked.html" width="{width}" height="2000" style="border:0"></iframe></body>"""
    )
    dom = chromium(["--window-size=1300,2000", "--dump-dom", "--virtual-time-budget=5000"], frame).stdout
    found = re.search(r'data-found="(\d+),(\d+),(\d+)"', dom)
    assert found is not None
    needed, given, pictures = map(int, found.groups())
    assert needed <= given == width
    assert pictures == 8


@needs_chromium
def test_page_prints_without_being_refused_anything(page: str, tmp_path: Path) -> None:
    """Chromium makes a PDF of it, and its own policy refuses none of its parts."""
    file, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    file.write_text(page, encoding="utf-8")
    done = chromium(["--no-pdf-header-footer", f"--print-to-pdf={paper}"], file)
    assert paper.read_bytes().startswith(b"%PDF-")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes())) <= 8
    assert "CONSOLE" not in done.stderr
