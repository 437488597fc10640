"""The manifest is whole at any moment, and no run is written over another."""

import json
import threading
from pathlib import Path

import pytest

from fltestbed.clock import Clock
from fltestbed.errors import RunFolderError
from fltestbed.measure.host import describe_host
from fltestbed.measure.manifest import FILE_NAME, MOST_MARKS, Manifest, create_run_folder, git_state, refuse_existing
from fltestbed.measure.schema import SCHEMA_VERSION

CLOCK = Clock(raw_ns=lambda: 42_000_000_000, wall_ns=lambda: 1_750_000_000_500_000_000)


def test_a_new_manifest_says_when_the_run_began(tmp_path: Path) -> None:
    """Zero on the raw clock, its anchor on the wall clock in UTC, and that the run is under way."""
    manifest = Manifest(tmp_path, "run-1", CLOCK)
    data = json.loads((tmp_path / FILE_NAME).read_text())
    assert manifest.zero_raw_ns == data["zero_raw_ns"] == 42_000_000_000
    assert data["zero_wall"] == "2025-06-15T15:06:40.500000+00:00"
    assert (data["schema_version"], data["run"], data["status"]) == (SCHEMA_VERSION, "run-1", "running")


def test_every_change_is_on_disk(tmp_path: Path) -> None:
    """Entries and hosts are saved as they come, and nothing else is left in the folder."""
    manifest = Manifest(tmp_path, "r", CLOCK)
    manifest.update(status="failed", reason="because")
    manifest.set_host("pi-1", {"model": "Raspberry Pi 5"})
    data = json.loads((tmp_path / FILE_NAME).read_text())
    assert (data["status"], data["reason"], data["hosts"]) == ("failed", "because", {"pi-1": {"model": "Raspberry Pi 5"}})
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


def test_a_reader_never_finds_half_a_manifest(tmp_path: Path) -> None:
    """While it is saved a hundred times, large, every look at the file finds whole JSON."""
    manifest = Manifest(tmp_path, "r", CLOCK)
    done = threading.Event()

    def write() -> None:
        for number in range(100):
            manifest.update(filling=["x" * 100] * 1000, number=number)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    looks = 0
    while not done.is_set() or not looks:
        assert json.loads((tmp_path / FILE_NAME).read_text())["run"] == "r"
        looks += 1
    writer.join()
    assert json.loads((tmp_path / FILE_NAME).read_text())["number"] == 99


def test_a_save_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """What cannot be JSON is refused before the file is touched."""
    manifest = Manifest(tmp_path, "r", CLOCK)
    with pytest.raises(TypeError):
        manifest.update(bad=object())
    assert json.loads((tmp_path / FILE_NAME).read_text())["status"] == "running"


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    """Even an empty one, and a file in its place too; the message says what to do."""
    taken = tmp_path / "run"
    create_run_folder(taken)
    (tmp_path / "file").touch()
    for path in (taken, tmp_path / "file"):
        with pytest.raises(RunFolderError, match="exists already; choose another name with --name"):
            create_run_folder(path)
    refuse_existing(tmp_path / "free")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands where a folder should be."""
    (tmp_path / "runs").touch()
    with pytest.raises(RunFolderError, match=r"runs/a: cannot be created: Not a directory"):
        create_run_folder(tmp_path / "runs" / "a")


def test_git_state_is_whole_or_absent() -> None:
    """In a checkout, forty hex digits and whether anything was changed."""
    state = git_state()
    if state is not None:
        assert len(state["commit"]) == 40
        assert isinstance(state["changed"], bool)


def test_without_git_there_is_no_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pi has no git: None, and no error."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() is None


def test_a_host_is_described_with_what_could_not_be_read() -> None:
    """The anchor is the clock's, loopback is up, and each key has a value or a reason for its absence."""
    description = describe_host(CLOCK)
    assert (description["raw_ns"], description["wall_ns"]) == (42_000_000_000, 1_750_000_000_500_000_000)
    assert description["interfaces"]["lo"]["up"]
    assert "127.0.0.1" in description["interfaces"]["lo"]["addresses"]
    assert description["packages"]["flwr"].startswith("1.41.")
    for key in ("model", "governor", "clock_source", "congestion_control"):
        assert bool(description[key]) != (key in description["unknown"])
    json.dumps(description)


def test_what_is_learnt_of_a_host_later_is_added(tmp_path: Path) -> None:
    """Below its key, beside what was known; from several threads at once nothing is lost and the file stays whole."""
    manifest = Manifest(tmp_path, "r", CLOCK)
    manifest.set_host("pi-1", {"model": "Raspberry Pi 5"})
    threads = [
        threading.Thread(target=manifest.add_to_host, args=("pi-1", "probes", {f"probe-{number}": {"on": True}}))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    host = json.loads((tmp_path / FILE_NAME).read_text())["hosts"]["pi-1"]
    assert host["model"] == "Raspberry Pi 5"
    assert len(host["probes"]) == 20


def test_marks_are_kept_up_to_a_number(tmp_path: Path) -> None:
    """Each once, and of a client that says another thing each time no more than that."""
    manifest = Manifest(tmp_path, "r", CLOCK)
    for number in range(MOST_MARKS + 50):
        manifest.mark("always the same")
        manifest.mark(f"lie {number}")
    marks = json.loads((tmp_path / FILE_NAME).read_text())["marks"]
    assert len(marks) == MOST_MARKS
    assert marks[:2] == ["always the same", "lie 0"]


def test_what_is_told_later_stands_beside_whatever_a_host_said(tmp_path: Path) -> None:
    """A table is added to; anything else makes way."""
    manifest = Manifest(tmp_path, "r", CLOCK)
    manifest.set_host("pi", {"path": "nonsense", "probes": {"wifi": 1}})
    manifest.add_to_host("pi", "path", {"sent_bytes": 1})
    manifest.add_to_host("pi", "probes", {"modem": 2})
    data = json.loads((tmp_path / FILE_NAME).read_text())
    assert data["hosts"]["pi"] == {"path": {"sent_bytes": 1}, "probes": {"wifi": 1, "modem": 2}}


def test_a_disk_that_stands_still_gathers_no_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand changes while one is being written: the latest alone waits, and it is what stands there in the end."""
    manifest = Manifest(tmp_path, "r", CLOCK)
    begun, go_on, written = threading.Event(), threading.Event(), []

    def slow(path: Path, text: str) -> None:
        begun.set()
        assert go_on.wait(20)
        written.append(json.loads(text)["number"])
        path.write_text(text)

    monkeypatch.setattr("fltestbed.measure.manifest._replace", slow)
    with manifest.in_background():
        manifest.update(number=0)
        assert begun.wait(20)
        for number in range(1, 1001):
            manifest.update(number=number)
        go_on.set()
    assert written == [0, 1000]
