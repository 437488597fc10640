"""manifest.json: what a run was, on which hosts, and how it ended."""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fltestbed.clock import Clock
from fltestbed.errors import RunFolderError
from fltestbed.measure.schema import SCHEMA_VERSION

FILE_NAME = "manifest.json"
STATUSES = ("running", "complete", "failed", "interrupted")
MOST_MARKS = 200
"""More are not kept: clients have a say in them, and the file is written anew with each."""


def create_run_folder(folder: Path) -> None:
    """Make the run folder; it must not exist, for nothing that was measured is ever overwritten."""
    refuse_existing(folder)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be created: {error.strerror}; choose another place with --runs") from error


def refuse_existing(folder: Path) -> None:
    """Raise `RunFolderError` when there is something at the run folder's place."""
    if folder.exists():
        raise RunFolderError(f"{folder}: exists already; choose another name with --name, or move it away")


class Manifest:
    """The manifest of one run: a dictionary that is on disk whenever it changes.

    The file is replaced, never written in place, so a reader finds it whole at any moment. Threads may share it.

    Parameters
    ----------
    folder : Path
    run : str
    clock : Clock
        Its zero is now.
    former : dict, optional
        What the manifest of a run that goes on says; it keeps its name and its zero.
    """

    def __init__(self, folder: Path, run: str, clock: Clock, former: dict[str, Any] | None = None) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.RLock()
        self._background: queue.SimpleQueue[str | None] | None = None
        self._data: dict[str, Any] = former or {
            "schema_version": SCHEMA_VERSION,
            "run": run,
            "status": "running",
            "zero_raw_ns": clock.raw_ns(),
            "zero_wall": datetime.fromtimestamp(clock.wall_ns() / 1e9, UTC).isoformat(),
            "git": git_state(),
            "hosts": {},
        }
        self._data["status"] = "running"
        self._data.pop("reason", None)
        self.save()

    @property
    def run(self) -> str:
        """Name of the run."""
        return str(self._data["run"])

    @property
    def run_id(self) -> str:
        """Flower's identifier of the run in its first session; empty before it is known."""
        return str(self._data.get("run_id", ""))

    @property
    def zero_raw_ns(self) -> int:
        """The run's zero on the server's raw clock."""
        return int(self._data["zero_raw_ns"])

    def update(self, **entries: Any) -> None:
        """Set top-level entries and save."""
        with self._lock:
            self._data.update(entries)
            self.save()

    def set_host(self, name: str, description: dict[str, Any]) -> None:
        """Record what a host says of itself."""
        with self._lock:
            self._data["hosts"][name] = description
            self.save()

    def add_to_host(self, name: str, key: str, entries: dict[str, Any]) -> None:
        """Add to what is known of a host below `key`, and save."""
        with self._lock:
            host = self._data["hosts"].setdefault(name, {})
            there = host.get(key)  # what a client says of its host may be anything
            host[key] = (there if isinstance(there, dict) else {}) | entries
            self.save()

    def mark(self, reason: str) -> None:
        """Say what a reader of the run's figures has to know, below `marks`, and save."""
        with self._lock:
            marks = self._data.setdefault("marks", [])
            if reason in marks or len(marks) >= MOST_MARKS:
                return
            marks.append(reason)
            self.save()

    def begin_session(self, **facts: Any) -> int:
        """The server has started, for the first time or again; returns the number of the session, from 1."""
        with self._lock:
            sessions: list[dict[str, Any]] = self._data.setdefault("sessions", [])
            for former in sessions[-1:]:
                former["status"] = "killed" if former["status"] == "running" else former["status"]
            sessions.append({**facts, "status": "running"})
            self.save()
            return len(sessions)

    def end(self, status: str, reason: str | None = None) -> None:
        """Say how the run ended, and the session with it."""
        ending = {"status": status} | ({} if reason is None else {"reason": reason})
        with self._lock:
            for session in self._data.get("sessions", [])[-1:]:
                session.update(ending)
            self.update(**ending)

    def save(self) -> None:
        """Replace the file."""
        with self._lock:
            text = _text(self._data)
            if self._background is None:
                _replace(self._path, text)
                return
            with suppress(queue.Empty):
                self._background.get_nowait()  # what the thread has not come to is out of date
            self._background.put(text)

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """Within the block a thread saves what changes, the latest state alone: nobody waits for a disk that is slow.

        At the end of the block everything is on the disk; a disk that refuses is told by what is saved after that.
        """
        background: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        thread = threading.Thread(target=self._save_latest, args=(background,), name="manifest", daemon=True)
        thread.start()
        self._background = background
        try:
            yield
        finally:
            with self._lock:
                self._background = None
                background.put(None)
            thread.join()

    def _save_latest(self, texts: "queue.SimpleQueue[str | None]") -> None:
        while (text := texts.get()) is not None:
            with suppress(OSError):
                _replace(self._path, text)


def read_manifest(folder: Path) -> Any:
    """The manifest of a run folder as it stands there, whatever it is.

    Raises
    ------
    OSError, ValueError
        There is none, or it cannot be read.
    """
    return json.loads((folder / FILE_NAME).read_text())


def amend(folder: Path, **entries: Any) -> None:
    """Add top-level entries to the manifest of a run that has ended."""
    _replace(folder / FILE_NAME, _text(read_manifest(folder) | entries))


def _text(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def git_state() -> dict[str, Any] | None:
    """Commit of the toolkit's checkout and whether it was changed; None outside of a checkout."""
    folder = Path(__file__).parent
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain"])
    try:
        commit, changes = (
            subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=10, check=True
            ).stdout
            for command in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "changed": bool(changes.strip())}
