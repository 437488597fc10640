"""What a run folder says of the sessions before, and which runs may go on."""

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord

from fltestbed.clock import Clock
from fltestbed.config import Experiment
from fltestbed.config_file import validate
from fltestbed.errors import ConfigError, RunFolderError
from fltestbed.flower.strategy_state import Snapshot
from fltestbed.measure.host import boot_id
from fltestbed.measure.manifest import Manifest
from fltestbed.measure.recorder import Recorder
from fltestbed.measure.schema import CHECKPOINT_PAUSE
from fltestbed.server.checkpoint import FOLDER, Checkpoint, save
from fltestbed.server.resume import Past, find_broken_off

SECOND = 10**9
WALL = 1_750_000_000 * SECOND
BEGUN = Clock(lambda: 100 * SECOND, lambda: WALL)
EXPERIMENT = validate(Experiment, {"name": "e"}, "e")


def killed_run(folder: Path, **session: Any) -> None:
    """A run folder whose server was killed 60 s after the run's zero."""
    folder.mkdir(exist_ok=True)
    manifest = Manifest(folder, "r", BEGUN)
    manifest.update(experiment=EXPERIMENT.resolved, app="own", fab_hash=None)
    facts: dict[str, Any] = {"started": "", "start_raw_ns": 100 * SECOND, "boot_id": boot_id(), "shift_ns": 0}
    manifest.begin_session(**facts | session)
    with Recorder(folder, "r") as recorder:
        recorder.write("phases.csv", {"end_host": "server", "end_raw_ns": 130 * SECOND, "detail": 'of "many, lines\n'})
        recorder.write("phases.csv", {"end_host": "pi-0", "end_raw_ns": 900 * SECOND})
        recorder.write("system.csv", {"host": "server", "raw_ns": 160 * SECOND})
        recorder.write("system.csv", {"host": "pi-0", "raw_ns": 900 * SECOND})
        for round_ in (4, 5):
            recorder.write("metrics.csv", {"round": round_, "metric": CHECKPOINT_PAUSE, "raw_ns": 140 * SECOND})
    with (folder / "system.csv").open("a") as file:
        file.write("r,server,99999999999999999")


def at(raw_s: int, wall_s: int) -> Clock:
    return Clock(lambda: raw_s * SECOND, lambda: WALL + wall_s * SECOND)


def test_the_gap_is_from_the_last_stamp_of_the_server(tmp_path: Path) -> None:
    """Neither a client's stamp nor a torn line counts; the row says how the session before ended."""
    killed_run(tmp_path)
    past = Past.read(tmp_path, at(200, 100))
    assert (past.how, past.after_round, past.first_round, past.same_boot, past.shift_ns) == ("killed", None, 1, True, 0)
    row = past.row(2, past.clock(at(200, 100)))
    assert (row["session"], row["first_round"], row["gap_s"], row["same_boot"]) == (2, 1, 40.0, True)
    assert (row["start_raw_ns"], row["start_ns"], row["before"]) == (200 * SECOND, 100 * SECOND, "killed")
    assert past.told == "resumed without a checkpoint: begins again with round 1 (the session before: killed)"


def test_a_host_that_was_started_again_counts_on_by_its_wall_clock(tmp_path: Path) -> None:
    """Its raw clock began at 0, 500 s after the run's zero by the wall clock: the run's clock is at 600 s."""
    killed_run(tmp_path, boot_id="another")
    past = Past.read(tmp_path, at(7, 500))
    assert not past.same_boot
    assert past.clock(at(7, 500)).raw_ns() == 600 * SECOND
    assert past.row(2, past.clock(at(7, 500)))["gap_s"] == 440.0


def test_the_runs_clock_never_goes_back(tmp_path: Path) -> None:
    """A wall clock that lags after a reboot: a second after the last stamp, as nothing better is known."""
    killed_run(tmp_path, boot_id="another")
    assert Past.read(tmp_path, at(7, -500)).clock(at(7, -500)).raw_ns() == 161 * SECOND


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    """And told in one line, with the one that is damaged."""
    killed_run(tmp_path)
    kept = save(tmp_path / FOLDER, Checkpoint(4, ArrayRecord(), Snapshot({}, {}, ())))
    damaged = save(tmp_path / FOLDER, Checkpoint(5, ArrayRecord(), Snapshot({}, {}, ())))
    damaged.write_bytes(b"")
    past = Past.read(tmp_path, BEGUN)
    assert (past.after_round, past.first_round) == (4, 5)
    assert past.told == (f"{damaged.name} is damaged; resumed after round 4, from {kept.name} (the session before: killed)")


def test_a_checkpoint_that_came_to_the_disk_before_the_rows_of_its_round_is_left_aside(tmp_path: Path) -> None:
    """The server was killed in between: the round is made again, so that none is without its rows. Where rounds are not
    measured there are no rows to wait for.
    """
    killed_run(tmp_path)
    kept = save(tmp_path / FOLDER, Checkpoint(5, ArrayRecord(), Snapshot({}, {}, ())))
    ahead = save(tmp_path / FOLDER, Checkpoint(6, ArrayRecord(), Snapshot({}, {}, ())))
    past = Past.read(tmp_path, BEGUN)
    assert past.first_round == 6
    assert past.told == (
        f"{ahead.name} is left aside, as rows of its round are missing; resumed after round 5, from {kept.name} "
        "(the session before: killed)"
    )
    unmeasured = validate(Experiment, {"name": "e", "instrumentation": {"off": True}}, "e")
    Manifest(tmp_path, "r", BEGUN, past.manifest).update(experiment=unmeasured.resolved, status="running")
    assert Past.read(tmp_path, BEGUN).first_round == 7


def test_rows_of_an_attempt_that_was_given_up_do_not_stand_for_the_next(tmp_path: Path) -> None:
    """The last session began after round 4 at 150 s: a checkpoint of round 5 of which it wrote no row is left aside."""
    killed_run(tmp_path, start_raw_ns=150 * SECOND, after_round=4)
    for round_ in (4, 5):
        save(tmp_path / FOLDER, Checkpoint(round_, ArrayRecord(), Snapshot({}, {}, ())))
    assert Past.read(tmp_path, BEGUN).first_round == 5


def test_a_changed_configuration_is_refused_but_for_the_hosts_own_keys(tmp_path: Path) -> None:
    """All that differs is named at once; where the server listens may differ."""
    killed_run(tmp_path)
    past = Past.read(tmp_path, BEGUN)
    past.check(tmp_path, EXPERIMENT.with_server(port=1, host="::1", join_timeout_s=5.0), "own", None)
    other = validate(Experiment, {"name": "e", "seed": 2, "rounds": 9, "server": {"round-deadline-s": 5}}, "e")
    with pytest.raises(ConfigError) as refused:
        past.check(tmp_path, other, "own", None)
    for told in ("seed: 1 there, 2 now", "rounds: 3 there, 9 now", "round-deadline-s: 600.0 there, 5.0 now", "--name"):
        assert told in str(refused.value)
    with pytest.raises(ConfigError, match="app: own there, theirs now"):
        past.check(tmp_path, EXPERIMENT, "theirs", "0")
    with pytest.raises(ConfigError, match="the files of own have changed"):
        past.check(tmp_path, EXPERIMENT, "own", "0")


def test_what_cannot_be_resumed_is_refused(tmp_path: Path) -> None:
    """No run, a complete one, one of before there were sessions."""
    with pytest.raises(RunFolderError, match=r"not a run folder, it has no manifest\.json"):
        Past.read(tmp_path, BEGUN)
    killed_run(tmp_path)
    file = tmp_path / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"status": "complete"}))
    with pytest.raises(RunFolderError, match="the run is complete: there is nothing to resume"):
        Past.read(tmp_path, BEGUN)
    file.write_text(json.dumps({key: value for key, value in manifest.items() if key != "sessions"}))
    with pytest.raises(RunFolderError, match="does not say what is needed to resume the run"):
        Past.read(tmp_path, BEGUN)


def test_the_manifest_lists_the_sessions(tmp_path: Path) -> None:
    """The one that ended without a word was killed; how the run ended is how its last session did."""
    killed_run(tmp_path)
    past = Past.read(tmp_path, BEGUN)
    manifest = Manifest(tmp_path, "r", BEGUN, past.manifest)
    assert manifest.begin_session(started="") == 2
    manifest.end("failed", "because")
    again = Manifest(tmp_path, "r", BEGUN, json.loads((tmp_path / "manifest.json").read_text()))
    assert again.begin_session(started="") == 3
    again.end("complete")
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert [session["status"] for session in data["sessions"]] == ["killed", "failed", "complete"]
    assert data["sessions"][1]["reason"] == "because"
    assert (data["status"], data["zero_raw_ns"], "reason" in data) == ("complete", 100 * SECOND, False)


def test_a_manifest_in_the_background_is_whole_at_the_end(tmp_path: Path) -> None:
    """A hundred changes while a thread saves the latest of them; after the block the last is on the disk."""
    manifest = Manifest(tmp_path, "r", BEGUN)
    with manifest.in_background():
        for number in range(100):
            manifest.update(number=number)
    assert json.loads((tmp_path / "manifest.json").read_text())["number"] == 99
    manifest.update(number=100)
    assert json.loads((tmp_path / "manifest.json").read_text())["number"] == 100


def restate(folder: Path, **changes: Any) -> None:
    """Another word in a manifest."""
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_service_goes_on_with_the_newest_run_of_its_experiment(tmp_path: Path) -> None:
    """Failed or killed; not an older one, not one of another experiment, and none that says nothing of itself."""
    assert find_broken_off(tmp_path, EXPERIMENT) is None
    days = {"older": "2026-01-01", "newest": "2026-01-03", "another": "2026-01-05", "silent": "2026-01-07"}
    for name, day in days.items():
        killed_run(tmp_path / name)
        restate(tmp_path / name, zero_wall=f"{day}T00:00:00+00:00")
    restate(tmp_path / "another", experiment=EXPERIMENT.resolved | {"name": "another"})
    (tmp_path / "silent" / "manifest.json").write_text("{}")
    for status in ("running", "failed"):
        restate(tmp_path / "newest", status=status)
        assert find_broken_off(tmp_path, EXPERIMENT) == tmp_path / "newest"


@pytest.mark.parametrize(
    "newest", [{"status": "complete"}, {"status": "interrupted"}, {"sessions": []}, {"experiment": {"name": "e", "seed": 7}}]
)
def test_a_service_begins_anew_where_there_is_nothing_to_go_on_with(tmp_path: Path, newest: dict[str, Any]) -> None:
    """The newest run is over, was stopped, never began, or had another configuration: an older failure is history."""
    for name, day in (("older", "01"), ("newest", "03")):
        killed_run(tmp_path / name)
        restate(tmp_path / name, zero_wall=f"2026-01-{day}T00:00:00+00:00")
    restate(tmp_path / "newest", **newest)
    assert find_broken_off(tmp_path, EXPERIMENT) is None
