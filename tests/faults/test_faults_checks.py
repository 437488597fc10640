"""Each check finds what it is for, in run folders written by hand."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from fltestbed.bench.faults import checks
from fltestbed.bench.faults.matrix import Cell, Channel, choose_cells
from fltestbed.bench.faults.witness import RowWitness
from fltestbed.measure.recorder import line
from fltestbed.measure.schema import TABLES

S = 1_000_000_000


def write(run: Path, table: str, rows: Iterable[dict[str, object]]) -> None:
    """A table of the run folder."""
    header = TABLES[f"{table}.csv"].header
    run.mkdir(exist_ok=True)
    lines = [line(header), *(line([str(row.get(name, "")) for name in header]) for row in rows)]
    (run / f"{table}.csv").write_bytes(b"".join(lines))


def manifest(run: Path, *sessions: str, status: str = "complete", missing: object = None, **more: str) -> None:
    """The manifest of the run folder."""
    data = {"status": status, "sessions": [{"status": each, "reason": "r"} for each in sessions], "missing": missing or {}}
    (run / "manifest.json").write_text(json.dumps(data | more))


def asked(round_: int, client: str, message: str, at_s: int) -> dict[str, object]:
    return phase("configure", round_, client, message, at_s, at_s)


def phase(name: str, round_: int, client: str, message: str, start_s: int, end_s: int) -> dict[str, object]:
    return {
        "phase": name, "round": round_, "client": client, "message_id": message, "start_raw_ns": start_s * S,
        "end_raw_ns": end_s * S, "status": "ok",
    }  # fmt: skip


def missing(round_: int, client: str, message: str, where: str = "train", symptom: str = "silence") -> dict[str, object]:
    return {
        "event": "missing", "round": round_, "client": client, "message_id": message, "phase": where, "symptom": symptom,
        "detail": "nothing heard for 4.0 s",
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four rounds of two clients, a second each; client-0 is missing in the second."""
    folder = tmp_path / "run"
    rows = []
    for round_ in range(1, 5):
        for client in ("client-0", "client-1"):
            rows.append(asked(round_, client, f"{round_}{client}", 10 * round_))
            if (round_, client) != (2, "client-0"):
                rows.append(phase("collect", round_, client, f"{round_}{client}", 10 * round_, 10 * round_ + 1))
        rows.append(phase("aggregate", round_, "", "", 10 * round_ + 1, 10 * round_ + 2))
    write(folder, "phases", rows)
    write(folder, "events", [missing(2, "client-0", "2client-0")])
    write(folder, "sessions", [{"session": 1}])
    manifest(folder, "complete", missing={"client-0": {"train: silence": 1}})
    return folder


def cell(name: str) -> Cell:
    (found,) = choose_cells([name])
    return found


def test_a_run_as_it_should_be_passes_every_check(run: Path) -> None:
    """A client that was stopped while it trained."""
    stopped = cell("client-stopped/train")
    found = [
        *checks.check_rows(run), *checks.check_named(run), *checks.check_absence(run, stopped, "client-0", Channel()),
        *checks.check_status(run, stopped), *checks.check_rounds(run, 2.0),
    ]  # fmt: skip
    assert found == []
    assert checks.round_seconds(run) == {1: 2.0, 2: 2.0, 3: 2.0, 4: 2.0}


def test_a_reply_that_nobody_misses_is_found(run: Path) -> None:
    """Neither held nor named; and the manifest counts what events.csv does not have."""
    write(run, "events", [])
    assert list(checks.check_named(run)) == [
        "round 2, client-0: no reply, and no row of events.csv that says so",
        "the manifest's missing {('client-0', 'train: silence'): 1} are not those of events.csv {}",
    ]


def test_an_absence_without_a_phase_or_a_symptom_is_not_named(run: Path) -> None:
    """Words that events.csv has not are no names either."""
    write(run, "events", [missing(2, "client-0", "2client-0", "", "gone")])
    manifest(run, "complete", missing={"client-0": {": gone": 1}})
    assert list(checks.check_named(run)) == ["round 2, client-0: named with phase '' and symptom 'gone'"]


def test_the_wrong_absence_is_found(run: Path) -> None:
    """In another phase, with another symptom, or where none may be; and somebody who was not struck."""
    (killed,) = checks.check_absence(run, cell("client-killed/train"), "client-0", Channel())
    assert killed.startswith(
        "named as client-0, round 2, train, silence; right were client-0, round 2, train, connection clo"
    )
    (uplink,) = checks.check_absence(run, cell("client-stopped/uplink"), "client-0", Channel())
    assert "right were client-0, round 2, uplink, silence" in uplink
    (down,) = checks.check_absence(run, cell("link-down-1s/train"), "client-0", Channel())
    assert down.startswith("1 replies were missing, not 0: round 2, client-0, train: nothing heard")
    *_, other = checks.check_absence(run, cell("client-stopped/train"), "client-1", Channel())
    assert other == "missing, but not struck: client-0"


def test_a_message_that_has_to_be_asked_for_may_be_missed_in_the_queue() -> None:
    """The next message of a client that is stopped: over `bundle` it had asked already."""
    absence = cell("client-stopped/aggregate").absence
    assert absence is not None
    assert absence.phases(Channel("bundle")) == ("downlink",)
    assert absence.phases(Channel("objects")) == ("queue", "downlink")


def test_a_client_that_is_not_taken_back_is_found(run: Path) -> None:
    """The last round has one reply."""
    text = (run / "phases.csv").read_text().splitlines(keepends=True)
    (run / "phases.csv").write_text("".join(row for row in text if "4client-0" not in row))
    found = list(checks.check_absence(run, cell("client-stopped/train"), "client-0", Channel()))
    assert found == ["the last round has 1 replies, not 2: the client was not taken back"]


def test_a_transfer_in_which_a_client_was_lost_is_a_row(run: Path) -> None:
    """Of its own message, in its own direction, and failed."""
    write(run, "events", [missing(2, "client-0", "2client-0", "uplink")])
    rows = [("2client-0", "downlink", "failed"), ("2client-0", "uplink", "ok"), ("2client-1", "uplink", "failed")]
    names = ("message_id", "direction", "status")
    write(run, "transfers", [dict(zip(names, row, strict=True)) for row in rows])
    assert list(checks.check_attempts(run)) == [
        "round 2, client-0: lost in its uplink, of which transfers.csv has no failed row"
    ]
    write(run, "transfers", [dict(zip(names, ("2client-0", "uplink", "failed"), strict=True))])
    assert list(checks.check_attempts(run)) == []


def test_a_wrong_end_is_found(run: Path) -> None:
    """Another status, another number of sessions, a failure without a reason, a gap that no row tells."""
    assert list(checks.check_status(run, cell("server-killed/train"))) == [
        "status complete, sessions ['complete']; right were complete, ['killed', 'complete']"
    ]
    manifest(run, "failed", "complete")
    assert list(checks.check_status(run, cell("serverapp-crashed/train"))) == [
        "sessions.csv has 1 rows, with gaps [''], for 2 sessions"
    ]
    manifest(run, "complete", reason="the disk was full")
    (reason,) = checks.check_status(run, cell("link-down-1s/train"))
    assert reason == "the run is complete, and yet has a reason for its failure: the disk was full"


def test_a_round_that_was_made_again_counts_as_it_was_made_last(run: Path) -> None:
    """The messages of the broken attempt owe nothing, and its time is not the round's."""
    with (run / "phases.csv").open("ab") as file:
        header = TABLES["phases.csv"].header
        for row in (asked(5, "client-0", "old", 50), asked(5, "client-0", "new", 90), phase("aggregate", 5, "", "", 91, 92)):
            file.write(line([str(row.get(name, "")) for name in header]))
    last = [message for message in checks.messages(run) if message.round == 5]
    assert [(message.message_id, message.is_accepted) for message in last] == [("new", False)]
    assert checks.round_seconds(run)[5] == 2.0
    assert list(checks.check_rounds(run, 1.9)) == [f"round {number} took 2.0 s, more than 1.9 s" for number in range(1, 6)]


def test_what_a_round_waits_before_its_messages_are_ready_is_not_its_own(run: Path) -> None:
    """Round 5 begins at 50 s, waits at a gate until 90 s, and is aggregated at 92 s: it took 2 s."""
    with (run / "phases.csv").open("ab") as file:
        header = TABLES["phases.csv"].header
        for row in (phase("configure", 5, "client-0", "new", 50, 90), phase("aggregate", 5, "", "", 91, 92)):
            file.write(line([str(row.get(name, "")) for name in header]))
    assert checks.round_seconds(run)[5] == 2.0


def test_torn_lines_and_rounds_that_are_not_there_are_found(run: Path) -> None:
    """A line of too few cells, a last line without its end, and no aggregation of the third round."""
    text = (run / "phases.csv").read_text().splitlines(keepends=True)
    kept = [row for row in text if ",aggregate," not in row or f",{32 * S}," not in row]
    assert len(kept) == len(text) - 1
    (run / "phases.csv").write_text("".join(kept) + "run,5,client-0\nrun,6")
    assert list(checks.check_rows(run)) == [
        f"phases.csv: line {len(kept) + 1}", f"phases.csv: line {len(kept) + 2}", "phases.csv: the last line has no end",
        "phases.csv: no row of the aggregation of round 3",
    ]  # fmt: skip


def test_the_witness_misses_rows_that_were_whole(tmp_path: Path) -> None:
    """A row that was seen and is gone, or was changed, is lost; a torn one that was never whole is not."""
    with RowWitness(tmp_path) as witness:
        file = tmp_path / "events.csv"
        file.write_text("run,round\nrun,1\nrun,2\nrun,")
        witness.look()
        assert witness.rows == 3
        file.write_text("run,round\nrun,1\nrun,2\nrun,3\n")
        witness.look()
        assert (witness.rows, witness.lost()) == (4, [])
        file.write_text("run,round\nrun,1\nrun,3\n")
        assert witness.lost() == ["events.csv: 2 of 4 rows that were seen are gone or changed"]
        file.unlink()
        assert witness.lost() == ["events.csv: 4 of 4 rows that were seen are gone or changed"]


def test_a_later_run_that_is_not_whole_is_found(run: Path) -> None:
    """Its status, its events and its replies are looked at."""
    manifest(run, "failed", status="failed", reason="no room")
    assert list(checks.check_later(run, 8)) == [
        "a later run: status failed: no room", "a later run: 1 events: missing, nothing heard for 4.0 s",
        "a later run: 7 replies of 8",
    ]  # fmt: skip
