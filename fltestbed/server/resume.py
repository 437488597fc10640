"""A run that goes on after its server failed: what its folder says, and whether it may go on.

The same experiment, but for what concerns this host alone; the same app; no server that still writes there. Rounds that are
over stay as they are; the one that was under way is made again, as is one whose model came to the disk before its rows did,
when a server was killed in the fraction of a second between. Where the host itself was started again, its raw clock began
anew: the run's clock is continued by the wall clock, so that later stamps stay later.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from fltestbed.clock import Clock, shifted
from fltestbed.config import Experiment, Instrumentation
from fltestbed.config_file import read_json
from fltestbed.differences import differences
from fltestbed.errors import ConfigError, RunFolderError
from fltestbed.measure.host import boot_id
from fltestbed.measure.manifest import FILE_NAME
from fltestbed.measure.recorder import Value
from fltestbed.measure.schema import CHECKPOINT_PAUSE, METRICS_TABLE
from fltestbed.server.checkpoint import FOLDER, Found, find
from fltestbed.server.tasks import SERVER

HARMLESS = frozenset(
    f"server.{key}" for key in ("host", "port", "certificates", "node-keys", "join-timeout-s", "checkpoints")
)
"""Keys that may differ: where the server listens and how long it waits for the clients change no round."""

_STAMPED = (("phases.csv", "end_host", "end_raw_ns"), ("system.csv", "host", "raw_ns"), ("metrics.csv", "", "raw_ns"))
_TAIL_BYTES = 1 << 16
_NS = 1_000_000_000


@dataclass(frozen=True)
class Past:
    """What a run folder says of the sessions before.

    Attributes
    ----------
    manifest : dict
    found : Found
        The checkpoint to go on from.
    last_raw_ns : int
        Last stamp of the server, by the run's clock.
    same_boot : bool
        Whether the host has not been started again since.
    shift_ns : int
        To be added to this host's raw clock.
    """

    manifest: dict[str, Any]
    found: Found
    last_raw_ns: int
    same_boot: bool
    shift_ns: int

    @classmethod
    def read(cls, folder: Path, clock: Clock) -> Self:
        """Read a run folder.

        Raises
        ------
        RunFolderError
            It is none, its run is complete, or it was made by a version that could not be resumed.
        """
        if not (folder / FILE_NAME).is_file():
            raise RunFolderError(f"{folder}: not a run folder, it has no {FILE_NAME}; --resume wants the run to go on with")
        try:
            manifest = read_json(folder / FILE_NAME)
            if manifest["status"] == "complete":
                raise RunFolderError(f"{folder}: the run is complete: there is nothing to resume")
            former = manifest["sessions"][-1]
            zero_ns, zero_wall = int(manifest["zero_raw_ns"]), datetime.fromisoformat(manifest["zero_wall"])
            same_boot = former["boot_id"] == boot_id()
            shift_ns = int(former["shift_ns"])
            is_measured = Instrumentation.model_validate(manifest["experiment"]["instrumentation"]).is_measured
        except (ConfigError, KeyError, IndexError, TypeError, ValueError) as error:
            raise RunFolderError(f"{folder / FILE_NAME}: does not say what is needed to resume the run: {error}") from error
        last_ns = max(_stamps(folder), default=zero_ns)
        if not same_boot:
            by_wall_ns = zero_ns + clock.wall_ns() - round(zero_wall.timestamp() * _NS)
            shift_ns = max(by_wall_ns, last_ns + _NS) - clock.raw_ns()
        recorded = set(_recorded_rounds(folder, former))
        found = find(folder / FOLDER, lambda round_: round_ in recorded or not is_measured(round_))
        return cls(manifest, found, last_ns, same_boot, shift_ns)

    @property
    def after_round(self) -> int | None:
        """The last round that is over; None where the run begins anew."""
        return self.found.round

    @property
    def first_round(self) -> int:
        """The round to begin with."""
        return (self.found.round or 0) + 1

    @property
    def how(self) -> str:
        """How the session before ended."""
        status = str(self.manifest["sessions"][-1].get("status", "running"))
        return "killed" if status == "running" else status

    def clock(self, clock: Clock) -> Clock:
        """The host's clock, as the run counts."""
        return shifted(clock, self.shift_ns)

    def check(self, folder: Path, experiment: Experiment, app: str, fab_hash: str | None) -> None:
        """Refuse another configuration or another app.

        Parameters
        ----------
        fab_hash : str or None
            Of an app of the user's; None of the toolkit's own, which is what the experiment says.

        Raises
        ------
        ConfigError
            With every key that differs.
        """
        found = _changed(self.manifest, experiment)
        if self.manifest["app"] != app:
            found.append(f"app: {self.manifest['app']} there, {app} now")
        elif fab_hash is not None and self.manifest.get("fab_hash") != fab_hash:
            found.append(f"app: the files of {app} have changed")
        if found:
            raise ConfigError(
                f"{folder}: was begun under another configuration ({'; '.join(found)}); go on with the same, or start "
                "another run with --name"
            )

    def row(self, session: int, clock: Clock) -> dict[str, Value]:
        """The row of sessions.csv for the session that begins now."""
        former = self.manifest["sessions"][-1]
        now_ns = clock.raw_ns()
        return session_row(session, self.first_round, int(self.manifest["zero_raw_ns"]), clock, now_ns) | {
            "gap_s": (now_ns - self.last_raw_ns) / _NS, "same_boot": self.same_boot, "before": self.how,
            "detail": str(former.get("reason") or ""),
        }  # fmt: skip

    @property
    def told(self) -> str:
        """What is said on the terminal, in one line."""
        damaged = "".join(f"{name} is damaged; " for name in self.found.damaged)
        damaged += "".join(f"{name} is left aside, as rows of its round are missing; " for name in self.found.ahead)
        before = f"the session before: {self.how}"
        if self.found.path is None:
            return f"{damaged}resumed without a checkpoint: begins again with round 1 ({before})"
        return f"{damaged}resumed after round {self.found.round}, from {self.found.path.name} ({before})"


def find_broken_off(runs: Path, experiment: Experiment) -> Path | None:
    """The newest run of an experiment below a folder, if its server failed or was killed: a service goes on with it.

    None where that run is complete, was stopped by somebody, or was begun under another configuration, and where none is.
    """
    found = [known for file in runs.glob(f"*/{FILE_NAME}") if (known := _known(file, experiment.name)) is not None]
    if not found:
        return None
    _, folder, manifest = max(found, key=lambda known: known[0])
    may_go_on = manifest["status"] in ("failed", "running") and bool(manifest.get("sessions"))
    return folder if may_go_on and not _changed(manifest, experiment) else None


def _known(file: Path, name: str) -> tuple[datetime, Path, dict[str, Any]] | None:
    """When a run of this experiment began, its folder and its manifest; None of another one, or when it does not say."""
    try:
        manifest = read_json(file)
        if manifest["experiment"]["name"] != name or "status" not in manifest:
            return None
        return datetime.fromisoformat(manifest["zero_wall"]), file.parent, manifest
    except (ConfigError, KeyError, TypeError, ValueError):
        return None


def _changed(manifest: dict[str, Any], experiment: Experiment) -> list[str]:
    """In what a run was begun under another configuration."""
    return [str(each) for each in differences(manifest["experiment"], experiment.resolved) if each.key not in HARMLESS]


def session_row(session: int, first_round: int, zero_ns: int, clock: Clock, raw_ns: int) -> dict[str, Value]:
    """What a row of sessions.csv says of any session."""
    wall = datetime.fromtimestamp(clock.wall_ns() / _NS, UTC).isoformat()
    return {
        "session": session, "first_round": first_round, "start_wall": wall, "start_raw_ns": raw_ns,
        "start_ns": raw_ns - zero_ns,
    }  # fmt: skip


def _recorded_rounds(folder: Path, former: dict[str, Any]) -> Iterator[int]:
    """Rounds whose rows are all on the disk: those that the last session made, and those that it found.

    Rows come to the disk in the order in which they are told, and that of a round's checkpoint is told last.
    """
    found, start_ns = int(former.get("after_round") or 0), int(former["start_raw_ns"])
    path = folder / METRICS_TABLE.name
    if path.is_file():
        with path.open(newline="", errors="replace") as file:
            for row in csv.DictReader(line for line in file if line.endswith("\n")):
                if row["metric"] == CHECKPOINT_PAUSE and (int(row["round"]) <= found or int(row["raw_ns"]) >= start_ns):
                    yield int(row["round"])


def _stamps(folder: Path) -> Iterator[int]:
    """The server's last stamps, by the ends of the files."""
    for name, host, column in _STAMPED:
        path = folder / name
        if not path.is_file():
            continue
        with path.open("rb") as file:
            header = file.readline().decode(errors="replace").strip().split(",")
            start = file.tell()
            file.seek(max(start, path.stat().st_size - _TAIL_BYTES))
            if file.tell() > start:
                file.readline()
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1].decode(errors="replace")
        for cells in csv.reader(io.StringIO(whole, newline="")):
            row = dict(zip(header, cells, strict=False))
            if row.get(column, "").isdigit() and (not host or row.get(host) == SERVER):
                yield int(row[column])
