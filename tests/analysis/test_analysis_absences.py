"""One line of the summary for each client that was missing."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.absences import absence_warnings
from analysis.load import Manifest, Run, conform
from fltestbed.measure.schema import EVENTS_TABLE


def run_of(*events: dict[str, Any]) -> Run:
    manifest = Manifest("r", "complete", "", 0, "5g", "", (), False, None, None, {}, {})
    return Run(Path(), manifest, {"events.csv": conform(pd.DataFrame(list(events)), EVENTS_TABLE)})


def missing(client: str, round_: int, phase: str, symptom: str) -> dict[str, Any]:
    return {"event": "missing", "client": client, "round": round_, "phase": phase, "symptom": symptom}


def test_a_client_has_one_line() -> None:
    """How often, in which rounds, what was seen, the most frequent first; and after how long it was back the last time."""
    run = run_of(
        missing("pi-1", 2, "uplink", "silence"),
        missing("pi-0", 3, "train", "error reply"),
        missing("pi-1", 5, "downlink", "connection stalled"),
        {"event": "returned", "client": "pi-1", "round": 5, "duration_s": 4.0},
        missing("pi-1", 7, "uplink", "silence"),
        {"event": "returned", "client": "pi-1", "round": 8, "duration_s": 12.34},
    )
    assert list(absence_warnings(run)) == [
        "pi-0 was missing in round 3: train: error reply",
        "pi-1 was missing in 3 rounds (2 to 7): uplink: silence (2 times), downlink: connection stalled; back after 12.3 s",
    ]


def test_one_that_stays_away_is_told() -> None:
    """A client that answers with an error is there; one that was not heard again is not."""
    (line,) = absence_warnings(run_of(missing("pi-1", 2, "uplink", "connection stalled")))
    assert line == "pi-1 was missing in round 2: uplink: connection stalled; it did not come back"


def test_abandoned_rounds_are_named() -> None:
    """Once each, although a round has two messages."""
    (line,) = absence_warnings(run_of(*({"event": "abandoned", "round": number} for number in (2, 2, 4))))
    assert line == "abandoned for want of replies, so the model stayed as it was: round 2, 4"


def test_a_run_without_events_has_no_line() -> None:
    """Nor has one from before there was such a file."""
    assert list(absence_warnings(run_of())) == []
    manifest = Manifest("r", "complete", "", 0, "5g", "", (), False, None, None, {}, {})
    assert list(absence_warnings(Run(Path(), manifest, {}))) == []
