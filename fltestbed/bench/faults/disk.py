"""A small disk of its own for one host, which can be filled to the last byte."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fltestbed.errors import HostError

_FILLER = "filler"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system in memory on a folder, which is made; `size` as tmpfs takes it.

    Raises
    ------
    HostError
        This process may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "fltestbed", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"{folder}: a small disk cannot be mounted: {done.stderr.strip()}; run as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave no byte of it."""
    with (disk / _FILLER).open("wb", buffering=0) as filler:
        for piece in (1 << 16, 512, 1):
            try:
                while filler.write(bytes(piece)) == piece:
                    pass
            except OSError:
                continue


def make_room(disk: Path) -> None:
    """Take back what filled it."""
    (disk / _FILLER).unlink(missing_ok=True)
