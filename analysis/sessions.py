"""A run whose server was started again: what counts of its rows, and what a reader should know of the gap.

The round that was under way when a session of the server ended was made again by the next. The rows of the broken attempt
stay in the recorded files, where they were measured; in the tables each round counts once, as it was made whole. The
manifest's `sessions` say after which round each session went on and when, by the server's raw clock.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_Mask = NDArray[np.bool_]


def without_broken_rounds(
    tables: dict[str, pd.DataFrame], sessions: Sequence[dict[str, Any]]
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Leave out the rows of rounds that were begun, broken off and made again.

    Parameters
    ----------
    tables : dict of str to DataFrame
        Recorded tables by file name, with all columns.
    sessions : sequence of dict
        The manifest's.

    Returns
    -------
    tables : dict of str to DataFrame
    warnings : list of str
        One for each time that the server was started again.
    """
    tables, warnings = dict(tables), []
    for number, session in enumerate(sessions[1:], 2):
        done = session.get("after_round")
        start_ns = int(session["start_raw_ns"])
        masks = _broken(tables, -1 if done is None else int(done), start_ns)
        count = int(masks["phases.csv"].sum())
        warnings.append(_told(number, tables.get("sessions.csv"), done, count))
        tables |= {name: tables[name][~mask].reset_index(drop=True) for name, mask in masks.items() if mask.any()}
    return tables, warnings


def boots(sessions: Sequence[dict[str, Any]]) -> list[int]:
    """When the server's host had been started again, by the run's raw clock: clock mappings do not reach across."""
    pairs = itertools.pairwise(sessions)
    return [int(after["start_raw_ns"]) for before, after in pairs if before.get("boot_id") != after.get("boot_id")]


def epoch_of_phases(phases: pd.DataFrame, starts_ns: Sequence[int]) -> NDArray[np.int64]:
    """For each row of phases.csv, how many of `starts_ns` are before its message (or, of the server's, the row) began."""
    begun = _on_server(phases, "start")
    by_message = begun.groupby(phases["message_id"]).transform("min")
    return np.searchsorted(starts_ns, by_message.fillna(begun).fillna(0).to_numpy(np.int64), side="right")


def _broken(tables: dict[str, pd.DataFrame], done: int, start_ns: int) -> dict[str, _Mask]:
    phases, transfers, metrics = (tables[f"{name}.csv"] for name in ("phases", "transfers", "metrics"))
    later = (phases["round"] > done).to_numpy(bool, na_value=False)
    earlier_row = (_on_server(phases, "start") < start_ns).to_numpy(bool, na_value=False)
    messages = set(phases["message_id"][later & earlier_row].dropna())
    no_message = phases["message_id"].isna().to_numpy(bool)
    return {
        "phases.csv": (later & earlier_row & no_message) | phases["message_id"].isin(messages).to_numpy(bool),
        "transfers.csv": transfers["message_id"].isin(messages).to_numpy(bool),
        "metrics.csv": ((metrics["round"] > done) & (metrics["raw_ns"] < start_ns)).to_numpy(bool, na_value=False),
    }


def _on_server(phases: pd.DataFrame, end: str) -> "pd.Series[int]":
    return phases[f"{end}_raw_ns"].where(phases[f"{end}_host"] == "server")


def _told(number: int, table: pd.DataFrame | None, done: int | None, count: int) -> str:
    row = table[table["session"] == number] if table is not None else None
    gap = f", after {float(row['gap_s'].iloc[0]):.1f} s without one" if row is not None and len(row) else ""
    how = f" (it was {row['before'].iloc[0]})" if row is not None and len(row) else ""
    after = f"after round {done}" if done is not None else "before a round was over"
    rows = f"; {count} phases of a round that was made again are left out" if count else ""
    return f"the server was started again {after}{gap}{how}{rows}"
