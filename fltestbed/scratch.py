"""Folders for what a command needs while it runs, and for nothing that lasts.

Each is ``fltestbed-<purpose>-...`` in the system's temporary folder, and holds a file `owner` that its process keeps locked
(flock) as long as it lives, from before it has that name. A process that was killed leaves its folder behind; the next one
removes it, since nobody holds the lock. A folder whose lock is held, that has no such file, or that is another user's, is
left alone.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "fltestbed-"
OWNER = "owner"


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Make a folder that is gone after the block; before and after also remove those that killed processes have left."""
    remove_left_over()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-"))
    nameless = folder / f"{OWNER}.new"
    lock = os.open(nameless, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        nameless.rename(folder / OWNER)
        yield folder
    finally:
        try:
            _remove(folder)
        finally:
            os.close(lock)
        remove_left_over()  # those of processes that this one has ended


def remove_left_over() -> list[Path]:
    """Remove the folders of processes that are gone; returns them."""
    removed = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if _is_left_over(folder):
            _remove(folder)
            removed.append(folder)
    return removed


def _remove(folder: Path) -> None:
    """Its `owner` last: without it the rest would stay for ever where this process is killed meanwhile."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != OWNER:
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _is_left_over(folder: Path) -> bool:
    try:
        at = folder.lstat()
        if not stat.S_ISDIR(at.st_mode) or at.st_uid != os.getuid():
            return False
        lock = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # gone meanwhile, or made by somebody who keeps no lock
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(lock)
