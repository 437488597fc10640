"""What the app says comes into the file, and the app does not wait for the disk."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fltestbed.server import app_log
from fltestbed.server.app_log import PIPE_BYTES
from tests.waiting import wait_until


def test_every_word_of_a_process_is_in_the_file_behind_those_before(tmp_path: Path) -> None:
    """A run that goes on appends; at the end of the block all is there, whatever was in the pipe."""
    path = tmp_path / "serverapp.log"
    path.write_bytes(b"first session\n")
    with app_log.app_log(path) as log:
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'x' * 300_000)"], stderr=log, check=True)
        os.close(log)
    assert path.read_bytes() == b"first session\n" + b"x" * 300_000


def test_a_word_is_there_while_the_app_goes_on(tmp_path: Path) -> None:
    """Who looks into the log of a run that is under way sees what was said."""
    path = tmp_path / "serverapp.log"
    with app_log.app_log(path) as log:
        os.write(log, b"[ROUND 1/3]\n")
        wait_until(lambda: path.read_bytes() == b"[ROUND 1/3]\n")
        os.close(log)


def test_an_app_talks_on_while_the_disk_takes_nothing(tmp_path: Path) -> None:
    """The file is a pipe that nobody reads: half a megabyte more than it holds is said at once, and is there in the end."""
    path = tmp_path / "serverapp.log"
    os.mkfifo(path)
    disk = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    said = b"x" * (PIPE_BYTES // 2)
    with app_log.app_log(path) as log:
        assert os.write(log, said) == len(said)  # the disk has taken 64 KiB of it, and holds the thread
        os.close(log)
        os.set_blocking(disk, True)
        with os.fdopen(disk, "rb") as taken:
            assert taken.read() == said


def test_a_disk_that_is_full_stops_nobody(tmp_path: Path) -> None:
    """/dev/full takes no byte: the app says what it likes, twice."""
    (tmp_path / "serverapp.log").symlink_to("/dev/full")
    with app_log.app_log(tmp_path / "serverapp.log") as log:
        os.write(log, b"one")
        os.write(log, b"two")
        os.close(log)


def test_a_process_that_holds_the_pipe_holds_up_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that left a child behind: the block ends all the same, and the thread when the child does."""
    monkeypatch.setattr(app_log, "END_S", 0.0)
    with app_log.app_log(tmp_path / "serverapp.log") as log:
        pass
    assert "app-log" in {thread.name for thread in threading.enumerate()}
    os.close(log)
    wait_until(lambda: "app-log" not in {thread.name for thread in threading.enumerate()})
