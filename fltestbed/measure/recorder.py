"""Rows into the CSV files of a run folder, without disturbing what is being timed.

`Recorder.write` puts a row into a queue and returns; one thread formats rows and appends them, whole lines in one write,
several times a second, and another tells the kernel to bring them to the disk. So a row is on disk well within a second
where the disk allows it, and a disk that is slow (an SD card, NFS) keeps nobody waiting but these two. A reader who meets a
torn last line (after a power failure) loses that line alone; a run that goes on cuts it off.

A disk that is full stops the run. A piece of it is held back from the start, so that the rows that are queued by then and
the last words of the manifest still find room.
"""

import csv
import errno
import fcntl
import io
import os
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from fltestbed.errors import RunFolderError, TestbedError
from fltestbed.measure.schema import PHASES_TABLE, RECORDED, TABLES
from fltestbed.text import printable

Value = str | int | float | bool | None

FLUSH_INTERVAL_S = 0.2
SYNC_INTERVAL_S = 0.4
MOST_ROWS = 200_000
"""That wait to be written: some 100 MB. A disk that falls back so far never catches up."""
RESERVE = ".reserve"
RESERVE_BYTES = 1 << 20
LAST_WORDS_BYTES = 1 << 18
"""The part of the reserve that is left for the manifest."""
FORMULA_BEGINS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
MOST_TEXT = 1000


class Recorder:
    """Appends rows to the recorded tables of one run folder.

    Parameters
    ----------
    folder : Path
        The run folder. It has to exist.
    run : str
        Name of the run: the first column of every table.
    heard : callable (table, row) -> None, optional
        Told of each row when it is queued.

    Raises
    ------
    RunFolderError
        A file cannot be created, or another process writes there.
    """

    def __init__(self, folder: Path, run: str, heard: Callable[[str, Mapping[str, Value]], None] | None = None) -> None:
        self._run = run
        self._heard = heard
        self._folder = folder
        self._queue: queue.SimpleQueue[tuple[str, Mapping[str, Value]] | None] = queue.SimpleQueue()
        self._failure: OSError | None = None
        self._lost = 0
        self.failed: Callable[[TestbedError], None] | None = None
        """Called once, on a thread of this object, when rows cannot be written any more."""
        try:
            self._files = {table.name: (folder / table.name).open("ab", buffering=0) for table in RECORDED}
        except OSError as error:
            raise RunFolderError(
                f"{error.filename}: cannot be written: {error.strerror}; choose another place with --runs"
            ) from error
        try:
            fcntl.flock(self._files[PHASES_TABLE.name], fcntl.LOCK_EX | fcntl.LOCK_NB)  # as long as this process lives
        except BlockingIOError as error:
            raise RunFolderError(f"{folder}: another process writes there; wait for its end") from error
        except OSError:
            pass  # a file system without locks
        for table in RECORDED:
            _cut_torn_line(folder / table.name)
            if not self._files[table.name].seek(0, os.SEEK_END):
                self._files[table.name].write(line(table.header))
        _reserve(folder / RESERVE)
        self._unsynced: set[str] = set(self._files)
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="recorder", daemon=True)
        self._syncer = threading.Thread(target=self._sync_often, name="recorder-sync", daemon=True)
        self._thread.start()
        self._syncer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, table: str, row: Mapping[str, Value]) -> None:
        """Append `row` to `table`. Columns that are not given stay empty; a column that is not known is a bug.

        Raises
        ------
        TestbedError
            An earlier row could not be written: the disk is full or far too slow, or the folder is gone.
        """
        self._raise_failure()
        unknown = row.keys() - set(TABLES[table].header)
        if unknown:
            raise KeyError(f"{table} has no column {', '.join(sorted(unknown))}")
        if self._queue.qsize() >= MOST_ROWS:
            self._fail(OSError(errno.ETIMEDOUT, f"{MOST_ROWS} rows wait for the disk, which takes none or too few"))
            self._raise_failure()
        self._queue.put((table, row))
        if self._heard is not None:
            self._heard(table, row)

    def close(self) -> None:
        """Write what is queued, bring it to the disk and close the files. May be called twice.

        Raises
        ------
        TestbedError
            Not everything could be written.
        """
        if not self._is_closing.is_set():
            self._is_closing.set()
            self._queue.put(None)
            self._thread.join()
            self._syncer.join()
            self._sync()
            with suppress(OSError):
                (self._folder / RESERVE).unlink()
        for file in self._files.values():
            file.close()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            lost = f"; {self._lost} found no room" if self._lost else ""
            raise TestbedError(
                f"{self._folder}: rows cannot be written: {self._failure.strerror}{lost}; make room, and --resume the run"
            ) from self._failure

    def _fail(self, error: OSError) -> None:
        is_first = self._failure is None
        self._failure = self._failure or error
        if is_first and self.failed is not None:
            try:
                self._raise_failure()
            except TestbedError as told:
                self.failed(told)

    def _drain(self) -> None:
        while True:
            batch = [self._queue.get()]
            if batch[0] is not None:
                self._is_closing.wait(FLUSH_INTERVAL_S)
            while not self._queue.empty():
                batch.append(self._queue.get())
            self._append([item for item in batch if item is not None])
            if None in batch:
                return

    def _append(self, rows: list[tuple[str, Mapping[str, Value]]]) -> None:
        """Write rows; where the disk is full, once more into the room that was held back."""
        lines: dict[str, list[bytes]] = {}
        for table, row in rows:
            cells = {"run": self._run, **row}
            lines.setdefault(table, []).append(line([cell(cells.get(name)) for name in TABLES[table].header]))
        for table, whole in lines.items():
            left, error = _write_lines(self._files[table], b"".join(whole))
            if error is not None:
                with suppress(OSError):
                    os.truncate(self._folder / RESERVE, LAST_WORDS_BYTES)
                left, _ = _write_lines(self._files[table], left)
                self._lost += left.count(b"\n")
                self._fail(error)
            self._unsynced.add(table)

    def _sync_often(self) -> None:
        while not self._is_closing.wait(SYNC_INTERVAL_S):
            self._sync()

    def _sync(self) -> None:
        """Bring to the disk what was written; the kernel may take its time, and does so without Python's lock."""
        while self._unsynced:
            file = self._files[self._unsynced.pop()]
            try:
                os.fdatasync(file.fileno())
            except OSError as error:
                if error.errno not in (None, errno.EINVAL, errno.ENOSYS):  # what knows no such thing
                    self._fail(error)


def _write_lines(file: io.FileIO, data: bytes) -> tuple[bytes, OSError | None]:
    """Append whole lines: those that found no room, and why. Of a line that was torn, nothing stays."""
    at = 0
    try:
        while at < len(data):
            at += file.write(memoryview(data)[at:]) or 0
    except OSError as error:
        whole = data.rfind(b"\n", 0, at) + 1
        if at > whole:
            with suppress(OSError):
                file.truncate(file.seek(0, os.SEEK_END) - (at - whole))
        return data[whole:], error
    return b"", None


def _cut_torn_line(path: Path) -> None:
    """Cut off what a power failure or kill -9 has left of a last line."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        at = size
        while at:
            start = max(0, at - (1 << 16))
            file.seek(start)
            found = file.read(at - start).rfind(b"\n")
            if found >= 0:
                at = start + found + 1
                break
            at = start
        if at < size:
            file.truncate(at)


def _reserve(path: Path) -> None:
    """Hold a piece of the disk back; a file system that cannot goes without."""
    with suppress(OSError), path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)


def cell(value: Value) -> str:
    """A value as it stands in a file; None is empty.

    Text is printable, and never a formula: a spreadsheet would compute a cell that begins with ``=``, ``+``, ``-`` or ``@``
    (in some countries also with their wide forms), so an apostrophe stands before it, which a spreadsheet takes for "this is
    text" (OWASP, CSV injection).
    """
    if isinstance(value, str):
        text = printable(value, MOST_TEXT)
        return f"'{text}" if text.lstrip().startswith(FORMULA_BEGINS) else text
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return f"{value:.9g}" if abs(value) < 1e6 else repr(value)
    return str(value)


def line(cells: tuple[str, ...] | list[str]) -> bytes:
    """A line of a file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode(errors="replace")
