"""What hosts, radios and clocks did while models moved."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from analysis.load import Run
from analysis.mapping import fit
from analysis.measures import client_rounds, link_of, links
from analysis.series.names import milliseconds, natural

MEASURES = {
    "uplink": "uplink",
    "signal": "signal (radio.csv)",
    "throttled": "throttling (system.csv)",
    "cpu": "processor load (system.csv)",
    "retransmissions": "retransmissions",
}
"""What the figure of conditions may show, and what its caption calls what the run has no rows of."""

_THROTTLED_NOW = 0b1111
"""Bits of a Raspberry Pi's flags that speak of now: undervoltage, frequency capped, throttled, temperature limit."""

_SIGNALS = {"rsrp_dbm": "RSRP", "rssi_dbm": "RSSI"}
"""Columns of radio.csv that tell of the signal, best first, and what they are called."""

_GNB = "block errors"
"""What the gNB's log tells, in a panel of its own; most runs have none, and none is missed."""

_POINTS = 200


def conditions(runs: Sequence[Run]) -> pd.DataFrame:
    """One run's uplinks and what went on beside them: `measure`, `client`, `time_s`, `value`.

    The run is the first that has rows of radio.csv, else the first of the link with the longest mean uplink. `time_s` counts
    from the run's zero on the server's clock; an uplink stands at its start, retransmissions at the uplink they belong to.
    """
    run = _most_telling(runs)
    if run is None:
        return pd.DataFrame()
    rows = run["timeline"]
    uplinks = rows[(rows["phase"] == "uplink") & (rows["round"] >= 1) & rows["duration_s"].notna()]
    uplinks = uplinks.assign(time_s=uplinks["start_ns"].astype("float64") / 1e9)
    columns = ["time_s", "client", "duration_s"]
    frames = [uplinks[columns].rename(columns={"duration_s": "value"}).assign(measure="uplink")]
    again = run["transfers"]
    again = again[again["direction"] == "uplink"].dropna(subset=["retransmissions"])
    counted = again.groupby(["round", "client"])["retransmissions"].sum().rename("value").astype("float64")
    placed = uplinks.drop_duplicates(["round", "client"]).join(counted, on=["round", "client"], how="inner")
    frames.append(placed[["time_s", "client", "value"]].assign(measure="retransmissions"))
    frames += _of_hosts(run)
    table = pd.concat([frame for frame in frames if not frame.empty], ignore_index=True).astype({"value": "float64"})
    table = table.dropna(subset=["value"])
    table = table.sort_values("client", key=lambda names: names.map(natural), kind="stable", ignore_index=True)
    absent = [name for measure, name in MEASURES.items() if measure not in set(table["measure"])]
    table.attrs["run"] = run.manifest.run
    table.attrs["link"] = link_of(run)
    _, signal = _radio(run)
    said = [f"Signal: {signal}."] if signal else []
    if _GNB in set(table["measure"]):
        said.append("Block errors: uplink blocks that failed, as the gNB logs them, mean over its modems.")
    table.attrs["absent"] = " ".join(said + ([f"The run has no rows of: {', '.join(absent)}."] if absent else []))
    return table


def clocks(runs: Sequence[Run]) -> pd.DataFrame:
    """How each client's clock went against the server's, in the first run of each link that has samples.

    Columns `link`, `client`, `time_s` since the run's zero, `offset_ms` (server minus client clock, less the client's
    median) and `half_width_ms` of the mapping that all samples of the run allow.
    """
    frames, widest = [], {}
    for link in links(runs):
        for run in runs:
            if link_of(run) == link and not (table := _clocks_of(run)).empty:
                frames.append(table.assign(link=f"{link}: {run.manifest.run}"))
                widest[link] = table["half_width_ms"].max()
                break
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    table.attrs["widest"] = ", ".join(f"{milliseconds(value / 1e3)} ({link})" for link, value in widest.items())
    return table


def _most_telling(runs: Sequence[Run]) -> Run | None:
    uplinks = client_rounds(runs).dropna(subset=["uplink_s"])
    candidates = [run for run in runs if run.manifest.run in set(uplinks["run"])]
    with_radio = [run for run in candidates if _radio(run)[1]]
    if with_radio or not candidates:
        return with_radio[0] if with_radio else None
    slowest = str(uplinks.groupby("link")["uplink_s"].mean().idxmax())
    return next(run for run in candidates if slowest in {link_of(run), *run["clients"]["link"].dropna()})


def _radio(run: Run) -> tuple[pd.DataFrame, str]:
    """Rows of radio.csv with a signal as `value`, and the signal's name; none and "" where there is no such row.

    A modem on a non-standalone network has rows of 5g and of lte: those of 5g are taken.
    """
    rows = run.tables.get("radio.csv", pd.DataFrame())
    if "rnti" in rows:
        rows = rows[rows["rnti"].isna()]  # the gNB knows its modems by other names than ours
    for column, name in _SIGNALS.items():
        if column in rows and rows[column].notna().any():
            known = rows.assign(value=rows[column].astype("float64")).dropna(subset=["value", "time_s"])
            on_5g = set(known.loc[known["technology"] == "5g", "host"])
            return known[(known["technology"] == "5g") | ~known["host"].isin(on_5g)], name
    return pd.DataFrame(), ""


def _of_hosts(run: Run) -> Iterator[pd.DataFrame]:
    clients = set(run["clients"]["client"].dropna())
    state = run["system"]
    state = state[state["host"].isin(clients)].rename(columns={"host": "client"}).dropna(subset=["time_s"])
    flags = state.dropna(subset=["throttled_flags"])
    now = flags["throttled_flags"].map(_throttled)
    columns = ["time_s", "client", "value", "measure"]
    yield flags.assign(value=now, measure="throttled")[columns]
    yield state.assign(value=state["cpu_percent"], measure="cpu")[columns]
    radio, signal = _radio(run)
    if signal:
        yield radio.rename(columns={"host": "client"}).assign(measure="signal")[columns]
    yield _of_the_gnb(run)


def _of_the_gnb(run: Run) -> pd.DataFrame:
    """Uplink block errors, mean over the modems of each report; `client` is the link, whose colour they have."""
    rows = run.tables.get("radio.csv", pd.DataFrame())
    if "ul_bler" not in rows:
        return pd.DataFrame()
    known = rows.dropna(subset=["ul_bler", "time_s"])
    means = known.astype({"ul_bler": "float64"}).groupby("time_s")["ul_bler"].mean().rename("value").reset_index()
    return means.assign(client=link_of(run), measure=_GNB)


def _throttled(flags: str) -> float:
    """1 if hexadecimal flags say that the processor is held back now, 0 if not, NaN if they are no number."""
    try:
        return float(bool(int(flags, 16) & _THROTTLED_NOW))
    except ValueError:
        return float("nan")


def _clocks_of(run: Run) -> pd.DataFrame:
    frames = []
    for client, samples in run["clock_samples"].groupby("client", sort=False):
        mapping = fit(samples)
        if mapping is None:
            continue
        stamps = samples["client_send_raw_ns"].dropna().to_numpy(dtype=np.int64)
        moments = np.linspace(stamps.min(), stamps.max(), _POINTS).astype(np.int64)
        moments = np.unique(np.concatenate([moments, stamps]))
        offset, half_width = mapping.offset(moments)
        frames.append(
            pd.DataFrame(
                {
                    "client": str(client),
                    "time_s": (moments + offset - run.manifest.zero_raw_ns) / 1e9,
                    "offset_ms": (offset - int(np.median(offset))) / 1e6,
                    "half_width_ms": half_width / 1e6,
                }
            )
        )
    if not frames:
        return pd.DataFrame(columns=["client", "time_s", "offset_ms", "half_width_ms"])
    table = pd.concat(frames, ignore_index=True)
    return table.sort_values("client", key=lambda names: names.map(natural), kind="stable", ignore_index=True)
