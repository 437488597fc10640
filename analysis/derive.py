"""The derived files of a run folder: timeline.csv, clients.csv and rounds.csv.

They are made from the recorded files alone and can be made again at any time; what they replace is never lost.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.load import Run, conform, load_runs
from analysis.mapping import ClockMapping, fit
from analysis.rounds import clients, rounds
from fltestbed.errors import RunFolderError
from fltestbed.measure.schema import CLIENTS_TABLE, DERIVED, ROUNDS_TABLE, TIMELINE_TABLE


def derive_folders(paths: Iterable[Path]) -> list[Run]:
    """Load run folders, derive their tables and write them there; a folder that cannot be written to is still read."""
    return [_written(derive(run)) for run in load_runs(paths)]


def derive(run: Run) -> Run:
    """Add the derived tables to a run; nothing is written."""
    phases, warnings = run["phases"], list(run.warnings)
    mappings = {str(client): fit(samples) for client, samples in run["clock_samples"].groupby("client")}
    stamped = pd.concat([phases["start_host"], phases["end_host"]]).dropna().unique()
    for host in stamped:
        mapping = mappings.get(host)
        if mapping is None and host != "server":
            warnings.append(f"{host}: no clock samples; its phases stay where the mapping known while recording put them")
        elif mapping is not None and mapping.contradiction_ns > 0:
            warnings.append(
                f"{host}: clock samples contradict each other by {mapping.contradiction_ns / 1e6:.3f} ms: its clock "
                f"drifts more than is believed, or a stamp is wrong; do not trust its downlink and uplink"
            )
    timed = timeline(phases, {host: mapping for host, mapping in mappings.items() if mapping}, run.manifest.zero_raw_ns)
    per_client = clients(timed, run["transfers"])
    tables = {
        TIMELINE_TABLE.name: timed,
        CLIENTS_TABLE.name: per_client,
        ROUNDS_TABLE.name: rounds(per_client, timed, run["metrics"]),
    }
    return replace(run, tables={**run.tables, **tables}, warnings=tuple(warnings))


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
            frame.assign(**flags).to_csv(unfinished, index=False, lineterminator="\n")
            unfinished.replace(path)
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error
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
        between two hosts it has the mapping's half-width at the client's stamp. Nothing is clamped.
    """
    start, start_half_width = _on_server(phases["start_host"], phases["start_raw_ns"], mappings)
    end, end_half_width = _on_server(phases["end_host"], phases["end_raw_ns"], mappings)
    one_host = (phases["start_host"] == phases["end_host"]).fillna(False).to_numpy(dtype=bool)
    lasted = (end - start).where(~one_host, phases["end_raw_ns"] - phases["start_raw_ns"])
    uncertainty = (start_half_width + end_half_width).where(~one_host, 0)
    placement = start_half_width.where(start_half_width >= end_half_width, end_half_width)
    duration_s, uncertainty_s = _seconds(lasted), _seconds(uncertainty)
    best = pd.DataFrame(
        {
            "start_ns": start - zero_raw_ns,
            "end_ns": end - zero_raw_ns,
            "duration_s": duration_s,
            "duration_uncertainty_s": uncertainty_s,
            "placement_uncertainty_s": _seconds(placement),
            "uncertain": (duration_s.abs() < uncertainty_s).astype("boolean"),
        }
    )
    known = start.notna() & end.notna()
    again = {str(name): column.where(known, phases[str(name)]) for name, column in best.items()}
    return conform(phases.assign(**again), TIMELINE_TABLE)


def _written(run: Run) -> Run:
    try:
        write(run)
    except RunFolderError as error:
        return replace(run, warnings=(*run.warnings, str(error)))
    return run


def _on_server(
    hosts: "pd.Series[str]", raw_ns: "pd.Series[int]", mappings: Mapping[str, ClockMapping]
) -> tuple["pd.Series[int]", "pd.Series[int]"]:
    """Stamps on the server's raw clock and their half-widths, NA where there is no stamp or no mapping."""
    on_server = pd.Series(pd.NA, index=raw_ns.index, dtype="Int64")
    half_width = pd.Series(pd.NA, index=raw_ns.index, dtype="Int64")
    stamped = raw_ns.notna()
    for host, rows in hosts[stamped].groupby(hosts[stamped]).groups.items():
        if host == "server":
            on_server.loc[rows], half_width.loc[rows] = raw_ns.loc[rows], 0
        elif (mapping := mappings.get(str(host))) is not None:
            raw = raw_ns.loc[rows].to_numpy(dtype=np.int64)
            offset, uncertainty = mapping.offset(raw)
            on_server.loc[rows], half_width.loc[rows] = raw + offset, uncertainty
    return on_server, half_width


def _seconds(nanoseconds: "pd.Series[int]") -> "pd.Series[float]":
    return nanoseconds.astype("Float64").astype("float64") / 1e9
