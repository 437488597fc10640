"""The derived files of a run folder: timeline.csv, clients.csv and rounds.csv.

They are made from the recorded files alone and can be made again at any time; what they replace is never lost.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc
from pyarrow import csv

from analysis.csv_file import DTYPES, REPEATED, Part, release_unused
from analysis.load import Refused, Run, load_runs, read_table, refusal
from analysis.mapping import ClockMapping, began_anew, fit
from analysis.rounds import clients, rounds
from analysis.sessions import boots, epoch_of_phases
from fltestbed.errors import RunFolderError
from fltestbed.measure.derived import CLIENTS_TABLE, DERIVED, ROUNDS_TABLE, TIMELINE_TABLE
from fltestbed.measure.schema import PHASES_TABLE, UPLINK_COMPRESSION_ERROR

SUMMARISED = {
    "phases.csv": Part((
        "run", "round", "client", "link", "message_type", "phase", "start_host", "start_raw_ns", "end_host", "end_raw_ns",
        "stamp_uncertainty_s", "payload_bytes", "status",
    )),
    "transfers.csv": Part((
        "round", "client", "direction", "client_start_raw_ns", "client_end_raw_ns", "client_response_raw_ns", "rtt_s",
        "retransmissions", "status",
    )),
    "events.csv": Part(("round", "client", "event", "phase", "symptom", "duration_s")),
    "clock_samples.csv": Part((
        "client", "interface", "client_send_raw_ns", "server_receive_raw_ns", "server_send_raw_ns", "client_receive_raw_ns",
    )),
    "metrics.csv": Part(
        ("run", "round", "client", "source", "message_type", "metric", "value", "time_s"),
        pc.field("client").is_null() | (pc.field("metric").cast("string") == UPLINK_COMPRESSION_ERROR),
    ),
}  # fmt: skip
"""What clients.csv, rounds.csv and the summary are made of: a large run is read in less time and memory without the rest.
Where stamps and clock samples are whole, the times of phases.csv are made again and not read."""

_TIMES = ("start_ns", "end_ns", "duration_s", "duration_uncertainty_s", "uncertain")
_FORMAT = csv.WriteOptions(quoting_style="needed", quoting_header="none")
_Ints = NDArray[np.integer]


def derive_folders(paths: Iterable[Path], refused: Refused | None = None) -> list[Run]:
    """Load run folders, derive their tables and write them there; a folder that cannot be written to is still read.

    Folders that cannot be used are as in `load_runs`.
    """
    return [_written(run) for run in _derived(load_runs(paths, refused=refused), refused)]


def derive_for_summary(paths: Iterable[Path], refused: Refused | None = None) -> list[Run]:
    """Load what a summary needs of run folders and derive it; nothing is written.

    What is odd in files that a summary does not open is no warning here. Folders that cannot be used are as in `load_runs`.
    """
    return list(_derived(load_runs(paths, SUMMARISED, refused), refused))


def derive(run: Run) -> Run:
    """Add the derived tables to a run; nothing is written."""
    warnings = list(run.warnings)
    phases, samples = run["phases"], run["clock_samples"]
    starts_ns = boots(run.manifest.data.get("sessions") or [])
    if starts_ns:
        of_phases = epoch_of_phases(phases, starts_ns)
        of_samples = np.searchsorted(starts_ns, samples["server_receive_raw_ns"].fillna(0).to_numpy(np.int64), side="right")
        parts = [
            _timed(run, phases[of_phases == epoch], samples[of_samples == epoch], warnings)
            for epoch in range(len(starts_ns) + 1)
        ]
        timed = pd.concat(parts).sort_index()
    else:
        timed = _timed(run, phases, samples, warnings)
    release_unused()
    per_client = clients(timed, run["transfers"])
    release_unused()
    tables = {
        TIMELINE_TABLE.name: timed,
        CLIENTS_TABLE.name: per_client,
        ROUNDS_TABLE.name: rounds(per_client, timed, run["metrics"]),
    }
    return replace(run, tables={**run.tables, **tables}, warnings=tuple(warnings))


def _timed(run: Run, phases: pd.DataFrame, clock_samples: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """The timeline of phases by the mappings that these clock samples allow; what is odd is added to `warnings`."""
    grouped = {str(client): samples for client, samples in clock_samples.groupby("client")}
    restarted = {client for client, samples in grouped.items() if began_anew(samples)}
    mappings = {client: None if client in restarted else fit(samples) for client, samples in grouped.items()}
    stamped = dict.fromkeys(host for name in ("start_host", "end_host") for host in phases[name].dropna().unique())
    for host in stamped:
        mapping = mappings.get(host)
        if host in restarted:
            warnings.append(
                f"{host}: its host was started again during the run, so its clock has two zeros; its phases stay where the "
                "mapping known while recording put them"
            )
        elif mapping is None and host != "server":
            warnings.append(f"{host}: no clock samples; its phases stay where the mapping known while recording put them")
        elif mapping is not None and mapping.left_out:
            warnings.append(
                f"{host}: {mapping.left_out} of {mapping.left_out + mapping.samples} clock samples contradict the others "
                "and were left out"
            )
        if mapping is not None and mapping.contradiction_ns > 0:
            warnings.append(
                f"{host}: clock samples contradict each other by {mapping.contradiction_ns / 1e6:.3f} ms: its clock "
                f"drifts more than is believed, or a stamp is wrong; do not trust its downlink and uplink"
            )
    stamps = ("start_host", "start_raw_ns", "end_host", "end_raw_ns")
    stamped_whole = all(phases[name].notna().all() for name in stamps)
    if "start_ns" not in phases and not (stamped_whole and all(host == "server" or mappings.get(host) for host in stamped)):
        part = Part((*SUMMARISED["phases.csv"].columns, *_TIMES))
        phases = read_table(run.path / "phases.csv", PHASES_TABLE, [], part)
    return timeline(phases, {host: mapping for host, mapping in mappings.items() if mapping}, run.manifest.zero_raw_ns)


def write(run: Run) -> list[Path]:
    """Write the derived tables of `run` into its folder; a reader sees the old file or the new one, never a part.

    Raises
    ------
    RunFolderError
        The folder cannot be written to.
    """
    paths = []
    for table in DERIVED:
        path = run.path / table.name
        unfinished = path.with_name(f".{table.name}.{os.getpid()}")
        frame = run.tables[table.name]
        flags = {column.name: frame[column.name].astype("Int64") for column in table.columns if column.kind == "bool"}
        try:
            csv.write_csv(pa.Table.from_pandas(frame.assign(**flags), preserve_index=False), unfinished, _FORMAT)
            unfinished.replace(path)
        except OSError as error:
            raise RunFolderError(
                f"{path}: cannot be written: {error.strerror}; make room, or copy the run folder to where you may write"
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)
        paths.append(path)
    return paths


def timeline(phases: pd.DataFrame, mappings: Mapping[str, ClockMapping], zero_raw_ns: int) -> pd.DataFrame:
    """Place every phase on the server's clock again, with the mapping that all samples of its client allow.

    Parameters
    ----------
    phases : DataFrame
        Rows of phases.csv.
    mappings : mapping of str to ClockMapping
        By client. Rows with a stamp of a client that is not here keep what was recorded.
    zero_raw_ns : int
        The run's zero on the server's CLOCK_MONOTONIC_RAW.

    Returns
    -------
    DataFrame
        The columns of timeline.csv. A duration between stamps of one host is the difference of its raw stamps and certain;
        between two hosts it has the mapping's half-width at the client's stamp. What the stamps themselves may be off is
        added to both; it is nothing where it was not recorded. Nothing is clamped.
    """
    starts, ends = phases["start_host"].astype(REPEATED), phases["end_host"].astype(REPEATED)
    start, start_half_width, start_known = _on_server(starts, phases["start_raw_ns"], mappings)
    end, end_half_width, end_known = _on_server(ends, phases["end_raw_ns"], mappings)
    known = start_known & end_known
    at_start = starts.cat.codes.to_numpy()
    one_host = (at_start >= 0) & (at_start == ends.cat.set_categories(starts.cat.categories).cat.codes.to_numpy())
    raw_ns = (phases["end_raw_ns"] - phases["start_raw_ns"]).to_numpy(dtype=np.int64, na_value=0)
    duration_s = np.where(one_host, raw_ns, end - start) / 1e9
    uncertainty_s = np.where(one_host, 0, start_half_width + end_half_width) / 1e9
    uncertainty_s += np.nan_to_num(phases["stamp_uncertainty_s"].to_numpy())
    start -= zero_raw_ns
    end -= zero_raw_ns
    best = {
        "start_ns": start,
        "end_ns": end,
        "duration_s": duration_s,
        "duration_uncertainty_s": uncertainty_s,
        "placement_uncertainty_s": np.maximum(start_half_width, end_half_width) / 1e9,
        "uncertain": np.abs(duration_s) < uncertainty_s,
    }
    kinds = {column.name: DTYPES[column.kind] for column in TIMELINE_TABLE.columns}
    wanted = [name for name in best if name in _TIMES or name in phases]
    again = {name: pd.array(best.pop(name), dtype=kinds[name], copy=False) for name in wanted}
    if not known.all():
        again = {name: phases[name].mask(known, values) for name, values in again.items()}
    return phases.assign(**again)


def _derived(runs: Iterable[Run], refused: Refused | None) -> Iterator[Run]:
    """Derive each run; what was not read of it before may still be unusable."""
    none = True
    for run in runs:
        try:
            yield derive(run)
            none = False
        except RunFolderError as error:
            if refused is None:
                raise
            refused[run.path] = error
    if none and refused:
        raise refusal(refused)


def _written(run: Run) -> Run:
    try:
        write(run)
    except RunFolderError as error:
        return replace(run, warnings=(*run.warnings, str(error)))
    return run


def _on_server(
    hosts: "pd.Series[Any]", raw_ns: "pd.Series[int]", mappings: Mapping[str, ClockMapping]
) -> tuple[_Ints, _Ints, NDArray[np.bool_]]:
    """Stamps on the server's raw clock, their half-widths, and where there is a stamp and a mapping."""
    stamped = raw_ns.notna().to_numpy(dtype=bool)
    on_server = raw_ns.to_numpy(dtype=np.int64, na_value=0, copy=True)
    half_width = np.zeros_like(on_server)
    codes, names = hosts.cat.codes.to_numpy(), hosts.cat.categories
    order = np.argsort(codes, kind="stable")  # linear in the rows, for numbers so small
    places = np.split(order, np.searchsorted(codes[order], np.arange(len(names))))[1:]
    known = stamped & (codes >= 0)
    for name, place in zip(names, places, strict=True):
        if name == "server":
            continue
        if (mapping := mappings.get(str(name))) is None:
            known[place] = False
            continue
        offset, half_width[place] = mapping.offset(on_server[place])
        on_server[place] += offset
    return on_server, half_width, known
