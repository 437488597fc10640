"""Folders of a command are gone after it, however it ends, and nobody else's are touched."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fltestbed.scratch import OWNER, remove_left_over, scratch_folder

HOLDER = """
import sys
from fltestbed.scratch import scratch_folder
with scratch_folder("test") as folder:
    (folder / "inside").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system folder of temporary files of our own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    tempfile.tempdir = None


def holder() -> tuple["subprocess.Popen[str]", Path]:
    """A process with a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_after_its_block() -> None:
    """With everything in it, after an error too."""
    with scratch_folder("test") as folder:
        (folder / "file").touch()
        assert folder.name.startswith("fltestbed-test-")
    assert not folder.exists()
    with pytest.raises(ZeroDivisionError), scratch_folder("test") as folder:
        raise ZeroDivisionError
    assert not folder.exists()


def test_the_folder_of_a_killed_process_is_removed_by_the_next_start() -> None:
    """As long as the process lives, nobody removes it; after kill -9 the next one that wants a folder does."""
    process, folder = holder()
    assert remove_left_over() == []
    assert (folder / "inside").is_dir()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert folder.exists()
    with scratch_folder("other") as own:
        assert not folder.exists()
        assert own.exists()


def test_folders_of_processes_that_a_command_has_killed_go_with_its_own() -> None:
    """A benchmark ends those that it started without asking; nothing of them waits for the next start."""
    with scratch_folder("bench"):
        process, folder = holder()
        process.kill()
        process.communicate()
        assert folder.exists()
    assert not folder.exists()


def test_what_is_not_provably_left_over_stays(temporary: Path) -> None:
    """A folder without an owner's file, a link to one, a file, and one of another user's."""
    (temporary / "fltestbed-nobody").mkdir()
    (temporary / "real").mkdir()
    (temporary / "real" / OWNER).touch()
    (temporary / "fltestbed-link").symlink_to(temporary / "real")
    (temporary / "fltestbed-file").touch()
    (temporary / "fltestbed-linked-owner").mkdir()
    (temporary / "fltestbed-linked-owner" / OWNER).symlink_to(temporary / "real" / OWNER)
    other = temporary / "fltestbed-other"
    other.mkdir()
    (other / OWNER).touch()
    if os.getuid() == 0:
        os.chown(other, 12345, 12345)
    else:
        other.rename(temporary / "other")
    before = sorted(path.name for path in temporary.iterdir())
    assert remove_left_over() == []
    assert sorted(path.name for path in temporary.iterdir()) == before


def test_a_removal_that_is_cut_short_is_finished_by_the_next(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it removes its folder: what is left of it still says whose it was."""

    def cut_short(path: Path, **_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fltestbed.scratch.shutil.rmtree", cut_short)
        with pytest.raises(KeyboardInterrupt), scratch_folder("test") as folder:
            (folder / "inside").mkdir()
    assert folder.exists()
    assert remove_left_over() == [folder]
    assert list(temporary.iterdir()) == []
