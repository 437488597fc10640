"""Rows into the CSV files of a run folder, without disturbing what is being timed.

`Recorder.write` puts a row into a queue and returns; one thread formats rows and appends them, whole lines in one write,
several times a second. So a row is on disk well within a second, and a reader who meets a torn last line (after a power
failure) loses that line alone.
"""

import csv
import fcntl
import io
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from fltestbed.errors import RunFolderError, TestbedError
from fltestbed.measure.schema import PHASES_TABLE, RECORDED, TABLES

Value = str | int | float | bool | None

FLUSH_INTERVAL_S = 0.2


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
        A file cannot be created.
    """

    def __init__(self, folder: Path, run: str, heard: Callable[[str, Mapping[str, Value]], None] | None = None) -> None:
        self._run = run
        self._heard = heard
        self._folder = folder
        self._queue: queue.SimpleQueue[tuple[str, Mapping[str, Value]] | None] = queue.SimpleQueue()
        self._failure: OSError | None = None
        try:
            self._files = {table.name: (folder / table.name).open("ab", buffering=0) for table in RECORDED}
        except OSError as error:
            raise RunFolderError(f"{error.filename}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._files[PHASES_TABLE.name], fcntl.LOCK_EX | fcntl.LOCK_NB)  # as long as this process lives
        except BlockingIOError as error:
            raise RunFolderError(f"{folder}: another process writes there; wait for its end") from error
        except OSError:
            pass  # a file system without locks
        for table in RECORDED:
            if not self._files[table.name].tell():
                self._files[table.name].write(line(table.header))
        self._thread = threading.Thread(target=self._drain, name="recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, table: str, row: Mapping[str, Value]) -> None:
        """Append `row` to `table`. Columns that are not given stay empty; a column that is not known is a bug.

        Raises
        ------
        TestbedError
            An earlier row could not be written: the disk is full, or the folder is gone.
        """
        self._raise_failure()
        unknown = row.keys() - set(TABLES[table].header)
        if unknown:
            raise KeyError(f"{table} has no column {', '.join(sorted(unknown))}")
        self._queue.put((table, row))
        if self._heard is not None:
            self._heard(table, row)

    def close(self) -> None:
        """Write what is queued and close the files. May be called twice.

        Raises
        ------
        TestbedError
            Not everything could be written.
        """
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        for file in self._files.values():
            file.close()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise TestbedError(f"{self._folder}: rows cannot be written: {self._failure.strerror}") from self._failure

    def _drain(self) -> None:
        while True:
            batch = [self._queue.get()]
            if batch[0] is not None:
                threading.Event().wait(FLUSH_INTERVAL_S)
            while not self._queue.empty():
                batch.append(self._queue.get())
            lines: dict[str, list[bytes]] = {}
            for item in batch:
                if item is not None:
                    table, row = item
                    cells = {"run": self._run, **row}
                    lines.setdefault(table, []).append(line([cell(cells.get(name)) for name in TABLES[table].header]))
            try:
                for table, whole in lines.items():
                    left = memoryview(b"".join(whole))
                    while left:
                        left = left[self._files[table].write(left) or 0 :]
            except OSError as error:
                self._failure = error
                return
            if None in batch:
                return


def cell(value: Value) -> str:
    """A value as it stands in a file; None is empty."""
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
