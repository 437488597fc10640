"""manifest.json: what a run was, on which hosts, and how it ended."""

import json
import os
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fltestbed.clock import Clock
from fltestbed.errors import RunFolderError
from fltestbed.measure.schema import SCHEMA_VERSION

FILE_NAME = "manifest.json"
STATUSES = ("running", "complete", "failed", "interrupted")


def create_run_folder(folder: Path) -> None:
    """Make the run folder; it must not exist, for nothing that was measured is ever overwritten."""
    refuse_existing(folder)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be created: {error.strerror}") from error


def refuse_existing(folder: Path) -> None:
    """Raise `RunFolderError` when there is something at the run folder's place."""
    if folder.exists():
        raise RunFolderError(f"{folder}: exists already; choose another name with --name, or move it away")


class Manifest:
    """The manifest of one run: a dictionary that is on disk whenever it changes.

    The file is replaced, never written in place, so a reader finds it whole at any moment. Threads may share it.
    """

    def __init__(self, folder: Path, run: str, clock: Clock) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.RLock()
        self._data: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "run": run,
            "status": "running",
            "zero_raw_ns": clock.raw_ns(),
            "zero_wall": datetime.fromtimestamp(clock.wall_ns() / 1e9, UTC).isoformat(),
            "git": git_state(),
            "hosts": {},
        }
        self.save()

    @property
    def run(self) -> str:
        """Name of the run."""
        return str(self._data["run"])

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
            self._data["hosts"].setdefault(name, {}).setdefault(key, {}).update(entries)
            self.save()

    def mark(self, reason: str) -> None:
        """Say what a reader of the run's figures has to know, below `marks`, and save."""
        with self._lock:
            marks = self._data.setdefault("marks", [])
            if reason not in marks:
                marks.append(reason)
            self.save()

    def save(self) -> None:
        """Replace the file."""
        with self._lock:
            _replace(self._path, self._data)


def amend(folder: Path, **entries: Any) -> None:
    """Add top-level entries to the manifest of a run that has ended."""
    path = folder / FILE_NAME
    data = json.loads(path.read_text())
    _replace(path, data | entries)


def _replace(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(data, indent=2) + "\n")
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
