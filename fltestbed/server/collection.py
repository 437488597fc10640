"""Rows that clients have kept and the server never wrote: brought into the run folder, each once.

The clients' own copies (`fltestbed.client.journal`) hold what their requests carried. It is read with the same checks and
made into rows by the same code as during the run. What the run folder has already is recognised by the stamps of the
client; a row of transfers.csv that the server had to write alone gets the client's part. Which round a message belongs to
comes with the message (transport `bundle`) or is what the server wrote when it sent it (`objects`); facts of a message of
which neither is known are counted and left out.
"""

import csv
import fcntl
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fltestbed.client.journal import MOST_BYTES, SUFFIX
from fltestbed.errors import RunFolderError
from fltestbed.measure.manifest import FILE_NAME, amend, read_manifest
from fltestbed.measure.recorder import Recorder, Value, cell, line
from fltestbed.measure.schema import TABLES
from fltestbed.server.facts import Facts, FactsError, Interface, KeptReply, read_kept_replies
from fltestbed.server.host_log import HostLog
from fltestbed.server.late_facts import LateFacts, read_late_facts
from fltestbed.server.roster import Name
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import Client, ReplyFacts, Task, WireBytes
from fltestbed.server.transfers import NEVER_CAME, TransferLog

Row = dict[str, str]
_Line = tuple[LateFacts, dict[str, KeptReply]]
"""A line of a journal: what a request carried, and what only the journal has of its replies."""


@dataclass
class Collected:
    """What was found for one client.

    Attributes
    ----------
    added : Counter of str
        Rows that the folder lacked, by table.
    completed : int
        Rows of transfers.csv that got the client's part.
    unknown : int
        Facts of messages that the folder does not know.
    refused : int
        Lines that are torn or cannot be true.
    """

    client: str
    added: Counter[str] = field(default_factory=Counter)
    completed: int = 0
    unknown: int = 0
    refused: int = 0

    def __str__(self) -> str:
        parts = [f"{count} rows of {table}" for table, count in sorted(self.added.items())]
        parts += [f"{self.completed} rows of transfers.csv completed"] if self.completed else []
        parts += [f"{self.unknown} facts of messages that the run folder does not know"] if self.unknown else []
        parts += [f"{self.refused} lines could not be read"] if self.refused else []
        return f"{self.client}: {', '.join(parts) or 'nothing that the run folder lacks'}"


def collect(folder: Path, places: Sequence[Path]) -> list[Collected]:
    """Bring what clients have kept into a run folder.

    Parameters
    ----------
    folder : Path
        The run folder.
    places : sequence of Path
        Files, or folders that are searched with all folders in them, for this run's journals.

    Raises
    ------
    RunFolderError
        It is no run folder, the run is still under way, or there is no journal of it.
    """
    manifest = _read_manifest(folder)
    run, run_id = manifest["run"], manifest.get("run_id", "")
    # A run keeps the name of its folder in the manifest, also when the folder was renamed.
    files = dict.fromkeys(file.resolve() for place in places for file in _journals(place, f"{run}.{run_id}{SUFFIX}"))
    if not files:
        looked = ", ".join(map(str, places))
        raise RunFolderError(
            f"{folder}: no client has kept rows of run {run} (identifier {run_id}) in {looked}; give the clients' state "
            "folders with --state, or --from USER@HOST:PATH"
        )
    with _locked(folder):
        record = _Record(folder)
        found = [_take(file, record, manifest) for file in files]
        record.save()
        entries: dict[str, Any] = {"collected": {each.client: str(each) for each in found}}
        if manifest["status"] == "running":  # nobody holds the lock: its server is gone
            entries |= {"status": "interrupted", "reason": "the server ended without a word"}
        amend(folder, **entries)
    return found


class _Record:
    """The recorded tables of a run folder in memory; whole lines alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, dict[tuple[str, ...], Row]] = {}
        self._changed: set[str] = set()

    def rows(self, table: str) -> dict[tuple[str, ...], Row]:
        """Rows by what tells them apart."""
        if table not in self._rows:
            path = self._folder / table
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1].decode(errors="replace")
            self._rows[table] = {}
            for number, row in enumerate(csv.DictReader(io.StringIO(whole, newline=""))):
                key = _key(table, row)
                # Two server rows may look alike (a phase that happened twice has no stamp of a client): all of them stay.
                self._rows[table][key if key not in self._rows[table] else (*key, str(number))] = row
        return self._rows[table]

    def add(self, table: str, row: Row) -> bool:
        """Add a row that is not there; False when it is."""
        rows, key = self.rows(table), _key(table, row)
        if key in rows:
            return False
        rows[key] = row
        self._changed.add(table)
        return True

    def disbelieved(self, client: str) -> set[str]:
        """Messages of which the server found, during the run, that what their client says cannot be true."""
        rows = self.rows("phases.csv").values()
        return {row["message_id"] for row in rows if row["client"] == client and row["status"] == "missing"}

    def has_phase(self, row: Row) -> bool:
        """Whether there is a row of the same phase of the same message, whatever it says."""
        names = ("client", "message_id", "phase")
        return any(all(there[name] == row[name] for name in names) for there in self.rows("phases.csv").values())

    def complete(self, row: Row) -> bool:
        """Give a row of transfers.csv that the server wrote alone what the client knows; False when it knew it."""
        there = self.rows("transfers.csv")[_key("transfers.csv", row)]
        if there["client_start_raw_ns"]:
            return False
        there.update({name: value for name, value in row.items() if value and not there.get(name)})
        if there["detail"] == NEVER_CAME:
            there["detail"] = ""
        self._changed.add("transfers.csv")
        return True

    def save(self) -> None:
        """Replace the files that have changed; a reader sees the old one or the new one."""
        for table in self._changed:
            header = TABLES[table].header
            unfinished = self._folder / f".{table}.{os.getpid()}"
            lines = [line(header), *(line([row.get(name) or "" for name in header]) for row in self.rows(table).values())]
            with unfinished.open("wb") as file:
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._folder / table)


def _key(table: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells a row from all others: the client and its own stamps."""

    def own(end: str) -> str:
        return row[f"{end}_raw_ns"] if row[f"{end}_host"] == row["client"] else ""

    if table == "phases.csv":
        return row["client"], row["message_id"], row["phase"], own("start"), own("end")
    if table == "transfers.csv":
        # A client knows the number of its attempts to send, and not which attempt of the server's it read.
        counted = row["direction"] == "uplink" or row["status"] == "failed"
        return row["client"], row["message_id"], row["direction"], str(row["attempt"]) if counted else ""
    columns = {
        "clock_samples.csv": ("client", "interface", "client_send_raw_ns"),
        "clock.csv": ("client", "interface", "client_raw_ns"),
        "radio.csv": ("host", "interface", "technology", "raw_ns"),
    }
    return tuple(str(row[name]) for name in columns.get(table, ("host", "interface", "raw_ns")))


class _Rows(Recorder):
    """Keeps rows as they would stand in the files."""

    def __init__(self, run: str) -> None:
        self._run_name = run
        self.rows: list[tuple[str, Row]] = []

    def write(self, table: str, row: Mapping[str, Value]) -> None:
        """Keep a row."""
        cells = {"run": self._run_name, **row}
        self.rows.append((table, {name: cell(cells.get(name)) for name in TABLES[table].header}))


def _take(file: Path, record: _Record, manifest: Mapping[str, Any]) -> Collected:
    """Add the rows of one journal that the folder lacks."""
    head, facts, refused = _read_journal(file)
    client = Client(head["client"], head["link"], head["interface"])
    found = Collected(client.name, refused=refused)
    rows = _Rows(str(manifest["run"]))
    zero_ns = int(manifest["zero_raw_ns"])
    log, hosts, transfers = RoundLog(rows, zero_ns), HostLog(rows, zero_ns), TransferLog(rows)
    for late, _ in facts:  # first of all: they place the rest
        for sample, exchange, interface in late.clock_samples:
            hosts.clock_sample(client, sample, exchange, interface)
    for late, _ in facts:
        for table, readings in (("system", late.system), ("radio", late.radio)):
            for reading in readings:
                hosts.reading(table, client.name, reading.model_dump(), client)
    tasks = _tasks(record, client) | _tasks_kept(facts, client)
    disbelieved = record.disbelieved(client.name)
    for late, kept in facts:
        about = [*late.replies, *(transfer.message_id for transfer in late.transfers)]
        found.unknown += sum(message_id not in tasks for message_id in about)
        for message_id in late.replies.keys() & tasks.keys() - disbelieved:
            _replay_reply(log, tasks[message_id], late.replies[message_id], kept[message_id])
        for transfer in late.transfers:
            if (task := tasks.get(transfer.message_id)) is not None:
                start_ns = task.downlink_start_ns if transfer.direction == "downlink" else None
                transfers.expected(task, transfer.direction, start_ns, head["transport"], transfer.attempt)
                transfers.client_told(client, transfer)
    for table, cells in rows.rows:
        _add(record, table, cells, found)
    return found


def _add(record: _Record, table: str, cells: Row, found: Collected) -> None:
    """Add a row that the folder lacks, and count it."""
    if table == "clock.csv":
        return  # what was believed while the run went on; the analysis makes its own of all samples
    if table == "phases.csv" and cells["status"] == "missing" and record.has_phase(cells):
        return  # doubted with all samples at hand, believed during the run
    if record.add(table, cells):
        found.added[table] += 1
    elif table == "transfers.csv" and record.complete(cells):
        found.completed += 1


def _replay_reply(log: RoundLog, task: Task, reply: ReplyFacts, kept: KeptReply) -> None:
    """Tell the log of a reply as its client knows it; without the server's answer the uplink has no end."""
    if kept.server_end_raw_ns is None or kept.payload_bytes is None:
        log.client_told(task, reply, WireBytes(None, None))
    else:
        task.uplink_end_uncertainty_ns = kept.server_end_uncertainty_ns
        log.replied(task, reply, kept.server_end_raw_ns, kept.payload_bytes, WireBytes(None, None))


def _tasks_kept(facts: Sequence[_Line], client: Client) -> dict[str, Task]:
    """The messages of which the client knows everything, whatever the server has written."""
    tasks = {}
    for _, kept in facts:
        for message_id, reply in kept.items():
            start_ns = reply.downlink_start_raw_ns
            if reply.round is not None and reply.message_type is not None and start_ns is not None:
                task = Task(reply.round, reply.message_type, message_id, 0, client, start_ns)
                task.downlink_start_ns, task.attempt = start_ns, 1
                tasks[message_id] = task
    return tasks


def _tasks(record: _Record, client: Client) -> dict[str, Task]:
    """The messages that the server sent to a client, from the phases that it wrote by itself."""
    tasks = {}
    for row in record.rows("phases.csv").values():
        if row["client"] == client.name and row["phase"] == "queue" and row["end_raw_ns"]:
            task = Task(int(row["round"]), row["message_type"], row["message_id"], 0, client, int(row["start_raw_ns"]))
            task.downlink_start_ns, task.attempt = int(row["end_raw_ns"]), 1
            tasks[task.message_id] = task
    return tasks


class _Head(Facts):
    """Whose a journal is."""

    client: Name
    link: Name
    interface: Interface
    transport: Literal["bundle", "objects"]


def _read_journal(file: Path) -> tuple[dict[str, str], list[_Line], int]:
    """The head of a journal, its facts, and how many lines could not be read."""
    facts, refused = [], 0
    head: dict[str, str] = {}
    if (size := file.stat().st_size) > 2 * MOST_BYTES:
        raise RunFolderError(f"{file}: has {size} bytes, and no client keeps more than {MOST_BYTES}; leave it out")
    for text in file.read_bytes().split(b"\n"):
        if not text:
            continue
        try:
            data = json.loads(text)
            if "client" in data:
                head = _Head.model_validate(data).model_dump()
            else:
                kept, late = read_kept_replies(data), read_late_facts(data)
                refused += bool(late.problems)
                facts.append((late, kept))
        except (ValueError, TypeError, FactsError, RecursionError):
            refused += 1
    if not head:
        raise RunFolderError(f"{file}: does not say which client it is of; leave it out")
    return head, facts, refused


def _journals(place: Path, name: str) -> Iterator[Path]:
    if place.is_file():
        yield place
    elif place.is_dir():
        yield from sorted(place.rglob(name))


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder}: not a run folder, it has no {FILE_NAME}; give one of runs/") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder / FILE_NAME}: cannot be read: {error}; give a run folder that is whole") from error
    if not isinstance(manifest, dict) or not manifest.get("run_id"):
        raise RunFolderError(
            f"{folder}: its manifest names no run_id: it was made before clients kept copies; there is nothing to collect"
        )
    return manifest


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep the folder to oneself; a server that still writes holds the same lock."""
    try:
        with (folder / "phases.csv").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise RunFolderError(f"{folder}: its server still writes there; collect when the run is over") from error
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder}: it has no phases.csv: there is nothing to add to") from error
