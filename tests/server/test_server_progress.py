"""What people see of a run while it goes on."""

import io
from pathlib import Path

from rich.console import Console

from fltestbed.measure.recorder import Value
from fltestbed.server.latest import Latest
from fltestbed.server.progress import MOST_LINES, Progress, View
from tests.server.watched import half_a_round


def shown(view: View) -> list[str]:
    """Lines of the table and of the line below it, on a terminal 100 columns wide."""
    console = Console(file=io.StringIO(), width=100)
    console.print(Progress(view, console)._now())
    return [" ".join(text.split()) for text in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_the_table_says_what_each_client_is_at(tmp_path: Path) -> None:
    """Its phase, what is known of its transfers so far, and its signal."""
    lines = shown(half_a_round(tmp_path))
    assert lines[0] == "client link phase last downlink last train last uplink signal"
    assert lines[1] == "pi-0 5g train 5g -91 dBm"
    assert lines[2] == "pi-1 5g queue"
    assert lines[3].startswith("[lab-1] round 1/3 0/2 clients done train ")


def test_last_figures_stand_in_the_table(tmp_path: Path) -> None:
    """The last uplink, not the mean of all."""
    view = half_a_round(tmp_path)
    for seconds in (9.0, 4.125):
        row: dict[str, Value] = {
            "phase": "uplink",
            "client": "pi-1",
            "link": "5g",
            "duration_s": seconds,
            "start_host": "pi-1",
        }
        view.latest.hear("phases.csv", row)
    assert shown(view)[2] == "pi-1 5g queue 4.12 s"
    assert view.latest.clients["pi-1"].phases["uplink"].sum_s == 13.125


def test_those_who_are_done_stand_below_and_the_table_does_not_grow_with_the_clients(tmp_path: Path) -> None:
    """Of 40 clients the first of those who are awaited are shown, and how many are left out."""
    view = half_a_round(tmp_path, clients=40)
    view.log.held("m0", 2_000_000_000, None)
    lines = shown(view)
    assert lines[1].startswith("pi-1 ")
    assert lines[MOST_LINES + 1] == f"and {40 - MOST_LINES} more"
    assert lines[MOST_LINES + 2].startswith("[lab-1] round 1/3 1/40 clients done")


def test_phases_without_a_duration_are_no_figures() -> None:
    """A round that timed out has a row, and nothing to show."""
    latest = Latest()
    latest.hear("phases.csv", {"phase": "uplink", "client": "a", "link": "5g", "status": "timeout"})
    assert (latest.clients["a"].link, latest.clients["a"].phases) == ("5g", {})
