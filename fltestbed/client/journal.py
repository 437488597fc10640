"""A client's own copy of what it tells the server, so that a server that dies or a link that breaks costs no row.

One file a run, ``<run>.<run identifier>.jsonl`` in the folder `runs` of the client's state. Its first line says whose it is;
every other line is what a request carried, as `fltestbed.server.facts` reads it. Writing is a queue's business: a thread
appends and syncs several times a second, so a line is on disk within a second, and a torn last line costs that line alone.
`fltestbed collect` brings the files' rows into the run folder.
"""

import json
import logging
import os
import queue
import threading
import time
from pathlib import Path
from typing import Any, Self

log = logging.getLogger("fltestbed")

SUFFIX = ".jsonl"
JOURNALS = "journals"
"""Folder in a run folder where `fltestbed run` keeps its clients' journals when the run did not end well."""
FLUSH_INTERVAL_S = 0.3
MOST_BYTES = 64 << 20
"""Of one run: about a day of rounds that take a few seconds, with a reading of the system each second."""
KEPT_RUNS = 20
"""Files of older runs are removed when a new one begins."""


class Journal:
    """Appends facts to the file of one run.

    A file that cannot be written is told once, and the run goes on: it is a copy.

    Parameters
    ----------
    folder : Path
        The folder of the client's journals; it is made.
    head : dict
        Whose they are: `run`, `run_id`, `client`, `link`, `interface`, `transport`.
    """

    def __init__(self, folder: Path, head: dict[str, Any], most_bytes: int = MOST_BYTES) -> None:
        self.path = folder / f"{head['run']}.{head['run_id']}{SUFFIX}"
        self._most_bytes = most_bytes
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._queue.put(head)
        self._thread = threading.Thread(target=self._drain, name="journal", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()

    def write(self, facts: dict[str, Any]) -> None:
        """Keep facts. They must not be changed afterwards."""
        self._queue.put(facts)

    def _drain(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _remove_oldest(self.path.parent)
            with self.path.open("ab", buffering=0) as file:
                if file.tell():
                    file.write(b"\n")  # a client that comes back: its last line may be torn
                while self._append(file):
                    time.sleep(FLUSH_INTERVAL_S)
        except OSError as error:
            log.warning(
                "%s: the client's own copy cannot be written: %s; the run goes on without it", self.path, error.strerror
            )

    def _append(self, file: Any) -> bool:
        """Write what waits, at least one; False when there is no more to come."""
        batch = [self._queue.get()]
        while not self._queue.empty():
            batch.append(self._queue.get())
        data = b"".join(json.dumps(facts, separators=(",", ":")).encode() + b"\n" for facts in batch if facts is not None)
        if file.tell() + len(data) > self._most_bytes:
            log.warning("%s: the client's own copy is full at %s bytes; later rows are not kept", self.path, file.tell())
            return False
        left = memoryview(data)
        while left:
            left = left[file.write(left) or 0 :]
        os.fsync(file.fileno())
        return None not in batch


def _remove_oldest(folder: Path) -> None:
    files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime_ns)
    for file in files[: max(0, len(files) - KEPT_RUNS + 1)]:
        file.unlink(missing_ok=True)
