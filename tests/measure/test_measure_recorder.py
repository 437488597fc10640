"""Rows reach the disk whole and soon, and a disk that is full is said."""

import csv
import errno
import io
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.errors import RunFolderError, TestbedError
from fltestbed.measure.manifest import Manifest
from fltestbed.measure.recorder import FLUSH_INTERVAL_S, SYNC_INTERVAL_S, Recorder, Value, _write_lines
from fltestbed.measure.schema import METRICS_TABLE, RECORDED, TABLES
from tests.waiting import wait_until


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def metric(name: str, value: float = 1.0) -> dict[str, Value]:
    return {"round": 1, "metric": name, "value": value}


class FullDisk(io.RawIOBase):
    """A file on a disk with `room` bytes left: takes what fits, then fails as the kernel does."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = b""

    def write(self, data: bytes) -> int:  # type: ignore[override]  # bytes are all that is written here
        """Take what fits."""
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = data[: self.room]
        self.room -= len(part)
        self.taken += part
        return len(part)


def put_on(disk: Any, recorder: Recorder) -> list[TestbedError]:
    """Let a recorder's metrics.csv lie on another disk; the result fills with what it says of its failure."""
    recorder._files["metrics.csv"].close()
    recorder._files["metrics.csv"] = disk
    failures: list[TestbedError] = []
    recorder.failed = failures.append
    return failures


class SlowDisk(io.FileIO):
    """A file whose disk takes `delay_s` for each write; who has waited for it is known."""

    def __init__(self, path: Path, mode: str, delay_s: float) -> None:
        super().__init__(path, mode)
        self.delay_s = delay_s
        self.writers: set[int] = set()

    def write(self, data: Any) -> int:
        """Write slowly."""
        self.writers.add(threading.get_ident())
        threading.Event().wait(self.delay_s)
        return super().write(data)


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_each_file_has_its_header_and_nothing_else_at_first(tmp_path: Path) -> None:
    """A run that records nothing still says what it would have recorded."""
    Recorder(tmp_path, "r").close()
    for table in RECORDED:
        assert (tmp_path / table.name).read_text() == ",".join(table.header) + "\n"


def test_a_header_is_written_once(tmp_path: Path) -> None:
    """Opening a run's files again appends; the header is not repeated."""
    for name in ("a", "b"):
        with Recorder(tmp_path, "r") as recorder:
            recorder.write("metrics.csv", metric(name))
    assert [row["metric"] for row in rows_of(tmp_path / "metrics.csv")] == ["a", "b"]


def test_a_row_is_on_disk_within_a_second(tmp_path: Path) -> None:
    """Without a flush and without an end of the run: the pauses before it is written, and is made to last, are shorter."""
    with Recorder(tmp_path, "r") as recorder:
        recorder.write("metrics.csv", metric("loss"))
        wait_until(lambda: b"loss" in (tmp_path / "metrics.csv").read_bytes())
    assert FLUSH_INTERVAL_S + SYNC_INTERVAL_S < 1.0


def test_closing_writes_everything_in_order(tmp_path: Path) -> None:
    """A thousand rows, closed at once: all there, whole, in their order. Closing twice does no harm."""
    recorder = Recorder(tmp_path, "r")
    for number in range(1000):
        recorder.write("metrics.csv", metric(f"m{number}", number))
    recorder.close()
    recorder.close()
    rows = rows_of(tmp_path / "metrics.csv")
    assert [row["metric"] for row in rows] == [f"m{number}" for number in range(1000)]
    assert all(row["run"] == "r" and len(row) == len(METRICS_TABLE.header) for row in rows)


def test_cells_are_written_as_the_dictionary_says(tmp_path: Path) -> None:
    """None is empty, truth is 1 or 0, nanoseconds keep every digit, small and large floats keep nine digits or all."""
    row: dict[str, Value] = {
        "client": None, "uncertain": True, "start_raw_ns": 1234567890123456789, "duration_s": -0.000000001,
        "duration_uncertainty_s": 1 / 3, "placement_uncertainty_s": 12345678.123456789, "detail": "",
    }  # fmt: skip
    with Recorder(tmp_path, "r") as recorder:
        recorder.write("phases.csv", row)
    (read,) = rows_of(tmp_path / "phases.csv")
    assert (read["client"], read["uncertain"], read["start_raw_ns"]) == ("", "1", "1234567890123456789")
    assert (read["duration_s"], read["duration_uncertainty_s"]) == ("-1e-09", "0.333333333")
    assert float(read["placement_uncertainty_s"]) == 12345678.123456789


def test_what_needs_quotes_is_quoted(tmp_path: Path) -> None:
    """Commas, quotes and umlauts survive."""
    ugly = 'a "b", c;é'
    with Recorder(tmp_path, "r") as recorder:
        recorder.write("phases.csv", {"detail": ugly})
    assert rows_of(tmp_path / "phases.csv")[0]["detail"] == ugly


def test_a_column_that_is_not_known_is_a_bug(tmp_path: Path) -> None:
    """KeyError names table and columns; the rows around it are written."""
    with Recorder(tmp_path, "r") as recorder:
        recorder.write("metrics.csv", metric("a"))
        with pytest.raises(KeyError, match=r"metrics.csv has no column colour, size"):
            recorder.write("metrics.csv", {"size": 1, "colour": 2})
        with pytest.raises(KeyError, match=r"nothing.csv"):
            recorder.write("nothing.csv", {})
    assert len(rows_of(tmp_path / "metrics.csv")) == 1


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message has the path and the reason."""
    with pytest.raises(RunFolderError, match=r"nowhere/phases.csv: cannot be written: No such file"):
        Recorder(tmp_path / "nowhere", "r")


def test_a_full_disk_is_said_with_the_next_row(tmp_path: Path) -> None:
    """The first row that meets the full disk does not raise, being in another thread; the one after it does."""
    recorder = Recorder(tmp_path, "r")
    recorder.write("metrics.csv", metric("before"))
    wait_until(lambda: b"before" in (tmp_path / "metrics.csv").read_bytes())
    failures = put_on(FullDisk(0), recorder)
    recorder.write("metrics.csv", metric("lost"))
    wait_until(lambda: bool(failures))
    with pytest.raises(TestbedError, match="rows cannot be written: No space left on device"):
        recorder.write("metrics.csv", metric("refused"))
    with pytest.raises(TestbedError, match="No space left"):
        recorder.close()
    assert [row["metric"] for row in rows_of(tmp_path / "metrics.csv")] == ["before"]


def test_a_disk_that_is_full_at_the_end_is_said(tmp_path: Path) -> None:
    """When nobody writes after the failure, closing says it."""
    recorder = Recorder(tmp_path, "r")
    put_on(FullDisk(0), recorder)
    recorder.write("metrics.csv", metric("lost"))
    with pytest.raises(TestbedError, match="No space left"):
        recorder.close()


def test_a_disk_that_takes_half_a_row_is_full(tmp_path: Path) -> None:
    """A raw write may take a part; what is left is written again, and fails as the kernel then says."""
    recorder = Recorder(tmp_path, "r")
    failures = put_on(FullDisk(10), recorder)
    recorder.write("metrics.csv", metric("torn"))
    try:
        wait_until(lambda: bool(failures))
    finally:
        with pytest.raises(TestbedError, match="No space left on device"):
            recorder.close()


def test_of_a_row_that_is_torn_nothing_stays(tmp_path: Path) -> None:
    """The disk takes one row and ten bytes of the next: the file ends with the first."""
    (tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", tmp_path / "disk"], check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        with (tmp_path / "disk" / "file").open("ab", buffering=0) as file:
            left, error = _write_lines(file, b"x" * 4085 + b"\n" + b"y" * 20 + b"\n")
        assert (left, error and error.errno) == (b"y" * 20 + b"\n", errno.ENOSPC)
        assert (tmp_path / "disk" / "file").stat().st_size == 4086
    finally:
        subprocess.run(["umount", tmp_path / "disk"], check=True)


def test_a_full_disk_loses_no_row_that_was_queued(tmp_path: Path) -> None:
    """A disk of 2 MB that somebody else fills: what was written stays, what is queued goes into the room that was held back,
    and there is room for the last words of the manifest.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        manifest = Manifest(disk, "r", SYSTEM_CLOCK)
        told: list[TestbedError] = []
        recorder = Recorder(disk, "r")
        recorder.failed = told.append
        recorder.write("metrics.csv", metric("before"))
        wait_until(lambda: b"before" in (disk / "metrics.csv").read_bytes())
        with pytest.raises(OSError, match="No space"):
            fill(disk / "filling")
        for number in range(2000):
            recorder.write("metrics.csv", metric(f"m{number}"))
        wait_until(lambda: bool(told))
        assert len(told) == 1
        with pytest.raises(TestbedError, match=r"cannot be written: No space left on device; make room"):
            recorder.close()
        manifest.end("failed", str(told[0]))
        names = [row["metric"] for row in rows_of(disk / "metrics.csv")]
        assert names == ["before", *(f"m{number}" for number in range(2000))]
        assert json.loads((disk / "manifest.json").read_text())["status"] == "failed"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_slow_disk_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Who hands rows over never waits for a write; all are written."""
    recorder = Recorder(tmp_path, "r")
    put_on(slow := SlowDisk(tmp_path / "metrics.csv", "ab", 0.05), recorder)
    for number in range(1000):
        recorder.write("metrics.csv", metric(f"m{number}"))
    recorder.close()
    assert slow.writers
    assert threading.get_ident() not in slow.writers
    assert len(rows_of(tmp_path / "metrics.csv")) == 1000


def test_rows_that_no_disk_takes_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded: a disk that hangs is said before memory is gone."""
    monkeypatch.setattr("fltestbed.measure.recorder.MOST_ROWS", 10)
    monkeypatch.setattr("fltestbed.measure.recorder.FLUSH_INTERVAL_S", 60.0)
    recorder = Recorder(tmp_path, "r")
    for number in range(10):
        recorder.write("metrics.csv", metric(f"m{number}"))
    wait_until(lambda: recorder._queue.qsize() < 10)  # the thread has taken its first rows, and waits for more
    for number in range(10 - recorder._queue.qsize()):
        recorder.write("metrics.csv", metric(f"n{number}"))
    with pytest.raises(TestbedError, match="10 rows wait for the disk"):
        recorder.write("metrics.csv", metric("too much"))
    with pytest.raises(TestbedError, match="10 rows wait"):
        recorder.close()


def test_a_torn_last_line_is_cut_off_before_more_is_written(tmp_path: Path) -> None:
    """As kill -9 leaves a file; a file without any whole line gets its header again."""
    Recorder(tmp_path, "r").close()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("r,1,,server,,whole,1,1,1\nr,2,,ser")
    (tmp_path / "transfers.csv").write_text("run,rou")
    with Recorder(tmp_path, "r") as recorder:
        recorder.write("metrics.csv", metric("after"))
    assert [row["metric"] for row in rows_of(tmp_path / "metrics.csv")] == ["whole", "after"]
    assert (tmp_path / "transfers.csv").read_text() == ",".join(TABLES["transfers.csv"].header) + "\n"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_row_that_cannot_be_encoded_does_not_end_the_recording(tmp_path: Path) -> None:
    """Half a surrogate pair is no UTF-8; the rows after it are written all the same, or refused."""
    recorder = Recorder(tmp_path, "r")
    recorder.write("metrics.csv", metric("\ud800"))
    recorder.write("metrics.csv", metric("after"))
    told = False
    try:
        recorder.close()
    except TestbedError:
        told = True
    finally:
        for file in recorder._files.values():
            file.close()
    assert told or b"after" in (tmp_path / "metrics.csv").read_bytes()
