"""The matrix of faults: what it has, how cells are chosen, and a few of them for real."""

import json
from pathlib import Path

import pytest

from fltestbed.bench.faults.cell import Outcome
from fltestbed.bench.faults.matrix import CELLS, FAULTS, PHASES, Channel, choose_cells
from fltestbed.bench.faults.measure import measure
from fltestbed.bench.faults.report import judge
from fltestbed.bench.report import Bar
from fltestbed.errors import ConfigError
from tests.e2e.conftest import fltestbed


def test_four_cells_hold(tmp_path: Path) -> None:
    """A client killed while it trains, a link that goes down in an uplink, a server killed while it aggregates, a server's
    disk that is full: the command strikes real runs, and prints and writes what came out.
    """
    file = tmp_path / "faults.json"
    names = ["client-killed/train", "link-down-1s/uplink", "disk-full-server/train", "server-killed/aggregate"]
    done = fltestbed("bench", "faults", "--cells", ",".join([*names, "trainer-hung/queue"]), "--json", file)
    report = json.loads(file.read_text()) if file.exists() else {}
    assert [(outcome["cell"], outcome["reasons"]) for outcome in report.get("outcomes", [])] == [
        (name, []) for name in names
    ], done.out + done.err
    assert done.status == 0
    assert report["holds"] is True
    assert list(report["impossible"]) == ["trainer-hung/queue"]
    assert all(outcome["rows"] > 20 for outcome in report["outcomes"])
    assert "cells that hold" in done.out
    assert "cannot exist: trainer-hung/queue: nothing trains then" in done.out
    assert done.out.count("holds,") == 4


def test_a_cell_holds_over_objects_and_tls(tmp_path: Path) -> None:
    """A client that stood still in its downlink finds its message gone when it goes on, and is taken back."""
    file = tmp_path / "faults.json"
    options = ("--cells", "client-stopped/downlink", "--transport", "objects", "--tls", "--json", file)
    done = fltestbed("bench", "faults", *options)
    report = json.loads(file.read_text()) if file.exists() else {}
    assert [outcome["reasons"] for outcome in report.get("outcomes", [])] == [[]], done.out + done.err
    assert report["channel"] == {"transport": "objects", "has_tls": True}


def test_every_fault_meets_every_phase() -> None:
    """Thirteen faults, five phases; what cannot exist says why, and all else says how the server's sessions end."""
    assert len(CELLS) == 13 * 5
    assert [cell.name for cell in CELLS if cell.impossible] == [
        f"trainer-hung/{phase}" for phase in PHASES if phase != "train"
    ]
    for fault in FAULTS:
        assert fault.status in {"complete", "running"}
        assert set(fault.absences) <= set(PHASES)
        assert not set(fault.absences) & set(fault.impossible)


def test_cells_are_chosen_by_fault_phase_or_both() -> None:
    """In the order of the matrix, each once; without a word, all."""
    assert [cell.name for cell in choose_cells(["link-down/train", "trainer-crashed"])] == [
        "link-down/train", *(f"trainer-crashed/{phase}" for phase in PHASES),
    ]  # fmt: skip
    assert {cell.phase for cell in choose_cells(["uplink"])} == {"uplink"}
    assert choose_cells([]) == list(CELLS)


def test_a_word_that_names_no_cell_is_refused() -> None:
    """With what there is to choose of."""
    with pytest.raises(
        ConfigError, match=r"--cells uplink,client-dead: client-dead is not known; choose of the faults client"
    ):
        choose_cells(["uplink", "client-dead"])


def test_cells_that_cannot_exist_are_no_misses() -> None:
    """Nothing is run for them, and nothing is counted."""
    report = measure(choose_cells(["trainer-hung/queue", "trainer-hung/uplink"]), 1, Channel("objects", has_tls=True))
    assert list(report.impossible) == ["trainer-hung/queue", "trainer-hung/uplink"]
    assert report.bars == (Bar("cells that hold", "emulated links, real processes", 0, 0, "of 0", at_least=True),)
    assert report.holds
    assert report.about[-1] == "transport objects, with TLS"


def test_one_reason_is_a_miss() -> None:
    """One of two cells holds; the slowest link is the one that is judged."""
    cells, link = judge((Outcome("a/train", (), resumed_s=0.7), Outcome("b/train", ("left running: x",), resumed_s=5.1)))
    assert (cells.figure, cells.limit, cells.holds) == (1, 2, False)
    assert (link.figure, link.limit, link.holds) == (5.1, 5.0, False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--transport", "pigeon"), "--transport pigeon: is not known; choose bundle or objects"),
        (("--random", "3", "--tls"), "--transport, --tls: are of the matrix; leave them out with --random"),
        (("--random", "3", "--transport", "objects"), "--transport, --tls: are of the matrix; leave them out"),
    ],
)
def test_a_channel_is_one_that_there_is_and_of_the_matrix(options: tuple[str, ...], says: str) -> None:
    """Refused before anything starts."""
    done = fltestbed("bench", "faults", *options)
    assert done.status == 2
    assert says in done.err.replace("\n", " ")
