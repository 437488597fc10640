"""What a run folder of the benchmark says: transfers, phases, and the pauses between them."""

from pathlib import Path

import pandas as pd

from analysis.derive import derive
from analysis.load import load_run
from fltestbed.bench.contenders import Sample, Traffic, middle
from fltestbed.measure.schema import PHASES, SERVER_PHASES


def read_run(folder: Path, all_rounds: int) -> Sample:
    """Read the counted rounds of a run on one machine.

    Parameters
    ----------
    folder : Path
        The run folder.
    all_rounds : int
        Rounds of the run; the first and the last are not counted.

    Returns
    -------
    Sample
        Without `round_s`, which the ServerApp stamps. Durations of transfers are differences of raw stamps: both ends read
        the same clock here, so there is no mapping and no uncertainty.
    """
    run = derive(load_run(folder))
    rows = run["timeline"]
    rows = rows[rows["round"].between(2, all_rounds - 1)]
    ends = {phase: _stamps(rows, phase) for phase in ("downlink", "uplink")}
    down, up = ends["downlink"], ends["uplink"]
    first_sent, last_arrived = down["start_raw_ns"].groupby("round").min(), up["end_raw_ns"].groupby("round").max()
    return Sample(
        downlink_s=_seconds(down["end_raw_ns"] - down["start_raw_ns"]),
        uplink_s=_seconds(up["end_raw_ns"] - up["start_raw_ns"]),
        phase_s=phase_means(run["rounds"], all_rounds),
        traffic=Traffic(
            down_bytes=int(down["payload_bytes"].median()),
            up_bytes=int(up["payload_bytes"].median()),
            turnaround_s=middle(_seconds(up["start_raw_ns"] - down["end_raw_ns"])),
            gap_s=middle(_seconds(first_sent.shift(-1) - last_arrived)),
        ),
    )


def phase_means(rounds: pd.DataFrame, all_rounds: int) -> dict[str, list[float]]:
    """Seconds of each phase, one a counted round: the mean over clients, or those of a phase of the server.

    Parameters
    ----------
    rounds : DataFrame
        rounds.csv of a run.
    all_rounds : int
        Rounds of the run; the first and the last are not counted.
    """
    counted = rounds[rounds["round"].between(2, all_rounds - 1)]
    columns = {phase: f"{phase}_s" if phase in SERVER_PHASES else f"{phase}_mean_s" for phase in PHASES}
    return {phase: counted[column].dropna().tolist() for phase, column in columns.items()}


def _stamps(rows: pd.DataFrame, phase: str) -> pd.DataFrame:
    """Rows of one phase by round and client."""
    return rows[rows["phase"] == phase].set_index(["round", "client"]).sort_index()


def _seconds(nanoseconds: "pd.Series[int]") -> list[float]:
    return [float(value) / 1e9 for value in nanoseconds.dropna()]
