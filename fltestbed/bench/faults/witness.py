"""A witness that reads along while a run's tables grow, and knows afterwards which whole rows there were."""

import contextlib
import threading
from pathlib import Path
from typing import Self

from fltestbed.measure.schema import RECORDED

INTERVAL_S = 0.05


class RowWitness:
    """A context manager: within the block a thread tails every recorded table of a run folder, as soon as it is there.

    Parameters
    ----------
    run : Path
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._seen = {table.name: bytearray() for table in RECORDED}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tail, name="row-witness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def rows(self) -> int:
        """Whole lines that were seen, headers included."""
        with self._lock:
            return sum(seen.count(b"\n") for seen in self._seen.values())

    def look(self) -> None:
        """Take note of what has come."""
        with self._lock:
            for name, seen in self._seen.items():
                with contextlib.suppress(FileNotFoundError), (self._run / name).open("rb") as file:
                    file.seek(len(seen))
                    data = file.read()
                    seen.extend(data[: data.rfind(b"\n") + 1])

    def lost(self) -> list[str]:
        """Tables in which rows that were seen are not there any more, as they were and where they were."""
        found = []
        with self._lock:
            for name, seen in self._seen.items():
                path = self._run / name
                now = path.read_bytes() if path.exists() else b""
                if not now.startswith(seen):
                    before, after = seen.splitlines(), now.splitlines()
                    kept = sum(old == new for old, new in zip(before, after, strict=False))
                    found.append(f"{name}: {len(before) - kept} of {len(before)} rows that were seen are gone or changed")
        return found

    def _tail(self) -> None:
        while not self._over.wait(INTERVAL_S):
            self.look()
        self.look()
