"""What clients have kept is added where it is missing, and nowhere else."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from fltestbed.client.journal import Journal
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.errors import RunFolderError
from fltestbed.measure.manifest import Manifest
from fltestbed.measure.recorder import Recorder
from fltestbed.server.collection import collect
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import Client
from fltestbed.server.transfers import NEVER_CAME, TransferLog
from tests.e2e.test_e2e_collect import rows_of
from tests.server.test_server_facts import TRANSFER

HEAD = {"run": "r", "run_id": "7", "client": "pi", "link": "5g", "interface": "lo", "transport": "bundle"}
SYSTEM = {
    "raw_ns": 5, "cpu_percent": 1.0, "process_cpu_percent": 1.0, "memory_used_bytes": 1, "process_memory_bytes": 1,
    "interface": "lo",
}  # fmt: skip


def reply(**known: Any) -> dict[str, Any]:
    stamps = {"downlink_end_raw_ns": 100, "called_raw_ns": 200, "returned_raw_ns": 500, "send_raw_ns": 600}
    span = {"phase": "train", "start_raw_ns": 210, "end_raw_ns": 400}
    return {"message_id": "m", **stamps, "spans": [span], **known}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that ended before client pi had told of its uplink."""
    run = tmp_path / "r"
    run.mkdir()
    manifest = Manifest(run, "r", SYSTEM_CLOCK)
    manifest.update(run_id="7")
    with Recorder(run, "r") as recorder:
        log, transfers, client = RoundLog(recorder, 0), TransferLog(recorder), Client("pi", "5g", "lo")
        log.sent(3, "train", [("m", 1, client)], 10, 20)
        task = log.downlink_started("m", 30, 0)
        assert task is not None
        transfers.objects_arrived(task, "uplink", 1, 2, 1000)
        transfers.close()
    return run


def keep(tmp_path: Path, *lines: dict[str, Any]) -> Path:
    with Journal(tmp_path / "state" / "runs", HEAD) as journal:
        for line in lines:
            journal.write(line)
    return tmp_path / "state"


def test_a_row_that_the_server_wrote_alone_is_completed(folder: Path, tmp_path: Path) -> None:
    """It keeps what the server knew, gets what the client knew, and is one row still."""
    (before,) = rows_of(folder / "transfers.csv")
    assert (before["detail"], before["client_start_raw_ns"]) == (NEVER_CAME, "")
    (found,) = collect(folder, [keep(tmp_path, {"transfers": [TRANSFER]})])
    (after,) = rows_of(folder / "transfers.csv")
    assert found.completed == 1
    assert (after["detail"], after["client_start_raw_ns"], after["rtt_s"]) == ("", "1", "0.1")
    assert (after["server_end_raw_ns"], after["payload_bytes"], after["round"]) == ("2", "1000", "3")


def test_phases_of_a_reply_that_never_arrived(folder: Path, tmp_path: Path) -> None:
    """Everything on the client is there; the uplink, whose end nobody saw, is not made up. The round is the server's."""
    collect(folder, [keep(tmp_path, {"replies": [reply()]}, {"system": [SYSTEM]})])
    rows = {row["phase"]: row for row in rows_of(folder / "phases.csv")}
    assert list(rows) == ["configure", "queue", "downlink", "deserialize", "train", "serialize"]
    assert (rows["downlink"]["start_raw_ns"], rows["downlink"]["end_raw_ns"]) == ("30", "100")
    assert (rows["train"]["start_raw_ns"], rows["train"]["end_raw_ns"], rows["train"]["round"]) == ("210", "400", "3")
    assert [row["host"] for row in rows_of(folder / "system.csv")] == ["pi"]


def test_a_message_that_the_server_never_wrote_of_is_placed_by_what_came_with_it(folder: Path, tmp_path: Path) -> None:
    """Round, type and the server's stamps are in the copy; an error is told as one; without a round it is left out."""
    known = {"round": 4, "message_type": "train", "downlink_start_raw_ns": 90, "server_end_raw_ns": 800}
    new = reply(**known, message_id="new", payload_bytes=5, error="it broke")
    (found,) = collect(folder, [keep(tmp_path, {"replies": [new, reply(message_id="other")]})])
    rows = [row for row in rows_of(folder / "phases.csv") if row["message_id"] == "new"]
    assert {row["round"] for row in rows} == {"4"}
    (train,) = [row for row in rows if row["phase"] == "train"]
    assert (train["status"], train["detail"]) == ("failed", "it broke")
    (uplink,) = [row for row in rows if row["phase"] == "uplink"]
    assert (uplink["start_raw_ns"], uplink["end_raw_ns"], uplink["payload_bytes"]) == ("600", "800", "5")
    assert found.unknown == 1


def test_what_a_stamp_leaves_open_is_in_the_copy(folder: Path, tmp_path: Path) -> None:
    """Of both ends; a copy of an older client, which says nothing of it, leaves nothing open."""
    told = {"downlink_start_raw_ns": 30, "server_end_raw_ns": 800, "payload_bytes": 5, "round": 3, "message_type": "train"}
    late = reply(**told, message_id="late", downlink_end_uncertainty_ns=40, server_end_uncertainty_ns=50)
    absurd = reply(**told, message_id="absurd", server_end_uncertainty_ns=-1)
    state = keep(tmp_path, {"replies": [reply(**told)]}, {"replies": [late]}, {"replies": [absurd]})
    (found,) = collect(folder, [state])
    rows = {(row["message_id"], row["phase"]): row["stamp_uncertainty_s"] for row in rows_of(folder / "phases.csv")}
    assert [float(rows["late", phase]) for phase in ("downlink", "deserialize", "train", "uplink")] == [4e-8, 4e-8, 0, 5e-8]
    assert {float(rows["m", phase]) for phase in ("downlink", "deserialize", "train", "uplink")} == {0}
    assert found.refused == 1


def test_readings_of_a_radio_are_told_apart_by_technology(folder: Path, tmp_path: Path) -> None:
    """A modem's two rows of one moment are both added, once; samples of a second network keep its name."""
    radio = [{"raw_ns": 5, "interface": "wwan0", "technology": kind, "rsrp_dbm": -80.0} for kind in ("5g", "lte")]
    zero = json.loads((folder / "manifest.json").read_text())["zero_raw_ns"]
    sample = {"exchange": "clock", "interface": "eth1", "stamps": [1, zero + 2, zero + 3, 4]}
    state = keep(tmp_path, {"radio": radio, "clock_samples": [sample]})
    for _ in range(2):
        collect(folder, [state])
        assert [row["technology"] for row in rows_of(folder / "radio.csv")] == ["5g", "lte"]
        assert [row["interface"] for row in rows_of(folder / "clock_samples.csv")] == ["eth1"]


def test_stamps_that_the_server_did_not_believe_are_not_brought_back(folder: Path, tmp_path: Path) -> None:
    """What the run folder calls missing stays so: the client's copy says the same impossible thing again."""
    with Recorder(folder, "r") as recorder:
        recorder.write("phases.csv", {"client": "pi", "message_id": "m", "phase": "downlink", "status": "missing"})
    before = rows_of(folder / "phases.csv")
    collect(folder, [keep(tmp_path, {"replies": [reply()]})])
    assert rows_of(folder / "phases.csv") == before


def test_stamps_that_the_server_believed_are_not_called_missing_later(folder: Path, tmp_path: Path) -> None:
    """With all samples at hand a reply may look impossible that the run took: its rows stay as they are."""
    told = {"downlink_start_raw_ns": 30, "server_end_raw_ns": 800, "payload_bytes": 5, "round": 3, "message_type": "train"}
    kept = {"replies": [reply(**told)]}
    collect(folder, [keep(tmp_path, kept)])
    before = rows_of(folder / "phases.csv")
    contradicting = {"exchange": "clock", "stamps": [0, 10**9, 10**9, 1]}
    collect(folder, [keep(tmp_path, kept, {"clock_samples": [contradicting]})])
    assert rows_of(folder / "phases.csv") == before


def test_a_torn_line_of_either_side_costs_itself(folder: Path, tmp_path: Path) -> None:
    """The folder's torn row goes when its file is replaced; the copy's is counted; all others are there."""
    with (folder / "phases.csv").open("a") as file:
        file.write("r,3,pi,5g,tr")
    state = keep(tmp_path, {"replies": [reply()]})
    with next(state.rglob("*.jsonl")).open("a") as file:
        file.write('{"replies": [{"mess')
    (found,) = collect(folder, [state])
    assert found.refused == 1
    assert [row["phase"] for row in rows_of(folder / "phases.csv")][2:] == ["downlink", "deserialize", "train", "serialize"]


def test_a_killed_server_is_told_in_the_manifest(folder: Path, tmp_path: Path) -> None:
    """A run that still says running, though nobody holds its folder, was interrupted."""
    collect(folder, [keep(tmp_path, {"system": [SYSTEM]})])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    assert manifest["collected"] == {"pi": "pi: 1 rows of system.csv"}


def test_a_run_that_goes_on_is_left_alone(folder: Path, tmp_path: Path) -> None:
    """Its server holds a lock on the folder."""
    state = keep(tmp_path, {"system": [SYSTEM]})
    with (folder / "phases.csv").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunFolderError, match="its server still writes there"):
            collect(folder, [state])


def test_a_place_without_copies_is_named(folder: Path, tmp_path: Path) -> None:
    """With the run, its identifier and what to do; a folder that is no run is told, too."""
    with pytest.raises(RunFolderError, match=r"no client has kept rows of run r \(identifier 7\) in .*; give the clients'"):
        collect(folder, [tmp_path / "nothing"])
    with pytest.raises(RunFolderError, match="not a run folder"):
        collect(tmp_path, [tmp_path])


def test_a_copy_from_a_stranger_is_read_within_bounds(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines nested without end are counted and left out, a head that names no client is none, a huge file is refused."""
    state = keep(tmp_path, {"system": [SYSTEM]})
    journal = next(state.rglob("*.jsonl"))
    with journal.open("a") as file:
        file.write("[" * 100_000 + "\n" + json.dumps(HEAD | {"client": "../=pi"}) + "\n")
    (found,) = collect(folder, [state])
    assert (found.client, found.refused) == ("pi", 2)
    journal.write_text(json.dumps(HEAD | {"client": "a\nb"}) + "\n")
    with pytest.raises(RunFolderError, match="does not say which client it is of"):
        collect(folder, [state])
    monkeypatch.setattr("fltestbed.server.collection.MOST_BYTES", 10)
    with pytest.raises(RunFolderError, match="and no client keeps more than 10; leave it out"):
        collect(folder, [state])
