"""A run folder into typed tables.

What is odd about a folder (a file or column that is missing, a torn last line, rows that stand there twice, a run that did
not end well) becomes a line in `Run.warnings` and costs nothing else. What cannot be understood is a `RunFolderError`.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.csv_file import DTYPES, EMPTY, REPEATED, Part, read_columns
from analysis.sessions import without_broken_rounds
from fltestbed.errors import RunFolderError
from fltestbed.measure.derived import TIMELINE_TABLE
from fltestbed.measure.schema import PHASES_TABLE, RECORDED, SCHEMA_VERSION
from fltestbed.measure.table import Kind, Table

_FLAGS = {"1": True, "0": False, "true": True, "false": False, "True": True, "False": False}


Refused = dict[Path, RunFolderError]
"""Folders that cannot be used, and why."""


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says that the analysis needs; `data` is all of it.

    Attributes
    ----------
    run, status, reason : str
        Name, ``running | complete | failed | interrupted``, and why a run failed ("" if it did not).
    zero_raw_ns : int
        The run's zero on the server's CLOCK_MONOTONIC_RAW.
    link, backend : str
        Name of the link; how it was emulated, "" for a real one.
    notes : tuple of str
        What the backend could not do.
    paced : bool
        Whether compute was emulated (a trainer that takes at least a configured time).
    parameters, model_bytes : int or None
        Size of the model; None if it is not known.
    experiment : dict
        The resolved configuration, keys in kebab-case.
    """

    run: str
    status: str
    reason: str
    zero_raw_ns: int
    link: str
    backend: str
    notes: tuple[str, ...]
    paced: bool
    parameters: int | None
    model_bytes: int | None
    experiment: dict[str, Any]
    data: dict[str, Any]

    @property
    def model(self) -> str:
        """Name of the model; for an app that is not ours, the app's."""
        if self.app:
            return f"app {self.app}"
        return str(self.experiment.get("model", {}).get("name", "model"))

    @property
    def app(self) -> str:
        """Name of the Flower app that was run, "" for the one that comes with the toolkit."""
        app = str(self.data.get("app") or "")
        return "" if app.startswith("fltestbed") else app


@dataclass(frozen=True)
class Run:
    """One run folder in memory.

    Attributes
    ----------
    path : Path
        The folder.
    manifest : Manifest
    tables : dict of str to DataFrame
        By file name ("phases.csv"), each with the columns of the schema, or of the part that was wanted, in its order and
        with the types of `DTYPES`.
    warnings : tuple of str
        What a reader of the figures should know, one line each, without the name of the run.
    """

    path: Path
    manifest: Manifest
    tables: dict[str, pd.DataFrame]
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> pd.DataFrame:
        """Return the table `name` ("phases" for phases.csv)."""
        return self.tables[f"{name}.csv"]


def load_runs(paths: Iterable[Path], parts: Mapping[str, Part] | None = None, refused: Refused | None = None) -> list[Run]:
    """Load run folders in the order given, each once; of two runs with one name the second becomes ``name#2``.

    Parameters
    ----------
    paths : iterable of Path
    parts : mapping of str to Part, optional
        As for `load_run`.
    refused : dict of Path to RunFolderError, optional
        Takes the errors of folders that cannot be used, so that the others can; without it the first is raised.

    Raises
    ------
    RunFolderError
        A folder cannot be used, or with `refused` none can.
    """
    runs: list[Run] = []
    names: Counter[str] = Counter()
    for path in dict.fromkeys(Path(path).resolve() for path in paths):
        try:
            run = load_run(path, parts)
        except RunFolderError as error:
            if refused is None:
                raise
            refused[path] = error
            continue
        name = run.manifest.run
        names[name] += 1
        if names[name] > 1:
            run = replace(run, manifest=replace(run.manifest, run=f"{name}#{names[name]}"))
        runs.append(run)
    if refused and not runs:
        raise refusal(refused)
    return runs


def refusal(refused: Refused) -> RunFolderError:
    """One error of several, a line each."""
    return RunFolderError("\n".join(str(error) for error in refused.values()))


def load_run(path: Path, parts: Mapping[str, Part] | None = None) -> Run:
    """Load the recorded files of one run folder.

    Parameters
    ----------
    path : Path
    parts : mapping of str to Part, optional
        What is wanted, by file name; other files are not opened, and have no table. Everything if left out, and of a run
        whose server was started again, where it takes all to tell which rows count.

    Raises
    ------
    RunFolderError
        There is no manifest, it is of a newer schema, or a cell is not of its column's type.
    """
    manifest = _read_manifest(path)
    warnings: list[str] = []
    if manifest.status != "complete":
        reason = f" ({manifest.reason})" if manifest.reason else ""
        warnings.append(f"status is {manifest.status}{reason}: figures cover a part of the run")
    sessions = manifest.data.get("sessions") or []
    if len(sessions) > 1:
        parts = None
    tables = {}
    for table in RECORDED:
        file = path / table.name
        there = file.is_file()
        if not there and _was_recorded(table, manifest):
            warnings.append(f"{table.name} is missing")
        if parts is None or table.name in parts:
            part = None if parts is None else parts[table.name]
            tables[table.name] = read_table(file, table, warnings, part) if there else conform(pd.DataFrame(), table, part)
    if len(sessions) > 1:
        tables, told = without_broken_rounds(tables, sessions)
        warnings += told
    return Run(path, manifest, tables, tuple(warnings))


def _was_recorded(table: Table, manifest: Manifest) -> bool:
    """Whether a run like this has this file; runs from before there were radio probes, deadlines or sessions lack theirs."""
    probes = manifest.experiment.get("probes", {})
    recorded = {
        "system.csv": probes.get("system", True), "radio.csv": "wifi" in probes,
        "events.csv": "deadlines" in manifest.experiment, "sessions.csv": "sessions" in manifest.data,
    }  # fmt: skip
    return bool(recorded.get(table.name, True))


def read_table(file: Path, table: Table, warnings: list[str], part: Part | None = None) -> pd.DataFrame:
    """Read one CSV file, or a part of it; append to `warnings` what is odd about it.

    Raises
    ------
    RunFolderError
        A cell is not of its column's type, or the file is not CSV; the message names line and column.
    """
    kinds = {column.name: column.kind for column in table.columns}
    try:
        read = read_columns(file, kinds, part)
    except (ValueError, TypeError, OverflowError) as error:
        content = file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        raise RunFolderError(_what_is_wrong(file, whole, kinds) or f"{file}: cannot be read as CSV: {error}") from error
    warnings += [f"{table.name}: {line}" if line != EMPTY else f"{table.name} {line}" for line in read.oddities]
    return conform(read.frame, table, part)


def conform(frame: pd.DataFrame, table: Table, part: Part | None = None) -> pd.DataFrame:
    """Give `frame` the columns of `table` (or of a part of it), in order and with their types; what it lacks is empty."""
    types = {name: kind for name, kind in types_of(table).items() if part is None or name in part.columns}
    return frame.reindex(columns=list(types)).astype(types)


def types_of(table: Table) -> dict[str, Any]:
    """Pandas type of each column: of `DTYPES`, and texts of the two tables with a row a phase as `REPEATED`."""
    kinds = DTYPES | {"str": REPEATED} if table in (PHASES_TABLE, TIMELINE_TABLE) else DTYPES
    return {column.name: kinds[column.kind] for column in table.columns}


def _what_is_wrong(file: Path, content: bytes, kinds: dict[str, Kind]) -> str | None:
    """Name the first cell that is not of its column's type; None if every cell is."""
    try:
        cells = pd.read_csv(io.BytesIO(content), dtype=DTYPES["str"], keep_default_na=False)
    except ValueError:
        return None
    for name, kind in kinds.items():
        if kind == "str" or name not in cells:
            continue
        given = cells[name][cells[name] != ""]
        parsed = given.map(_FLAGS) if kind == "bool" else pd.to_numeric(given, errors="coerce")
        if kind == "int":
            parsed = parsed.where(given.str.fullmatch(r"-?\d{1,18}"))
        bad = given[parsed.isna() & (given != "nan")]
        if not bad.empty:
            line = int(bad.index[0]) + 2
            return f"{file}: line {line}: {name}: {str(bad.iloc[0])!r} is not of type {kind}; mend or delete that line"
    return None


def _read_manifest(path: Path) -> Manifest:
    file = path / "manifest.json"
    if not file.is_file():
        inside = sorted(found.parent.name for found in path.glob("*/manifest.json"))
        hint = f"run folders inside it: {', '.join(inside)}" if inside else "give the folder of a run, such as runs/demo-5g"
        raise RunFolderError(f"{path}: not a run folder, it has no manifest.json; {hint}")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunFolderError(f"{file}: cannot be read as JSON: {error}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise RunFolderError(
            f"{file}: schema_version is {version!r}, not a number: this is no manifest of a run; give a run folder"
        )
    if version > SCHEMA_VERSION:
        raise RunFolderError(
            f"{file}: schema {version} is newer than {SCHEMA_VERSION}, which this fltestbed reads: please upgrade"
        )
    link, model = data.get("link") or {}, data.get("model") or {}
    return Manifest(
        run=str(data.get("run") or path.name),
        status=str(data.get("status", "interrupted")),
        reason=str(data.get("reason") or ""),
        zero_raw_ns=int(data.get("zero_raw_ns") or 0),
        link=str(link.get("name") or ""),
        backend=str(link.get("backend") or ""),
        notes=tuple(str(note) for note in link.get("notes") or ()),
        paced=bool(data.get("paced", False)),
        parameters=model.get("parameters"),
        model_bytes=model.get("bytes"),
        experiment=data.get("experiment") or {},
        data=data,
    )
