"""A run as a trace that Perfetto and Chrome open.

The file is a JSON object in the Trace Event Format: each host is a process (``pid``), what it does at the same time stands
in threads of it (``tid``), a phase is a complete event (``ph`` X), a figure over time a counter (C), names are metadata (M).
Times are whole microseconds of the server's clock from the run's zero; starts and ends are rounded down alike, so phases
that touch still do. Each slice has the exact duration and both uncertainties in its ``args``.

A phase between the server and a client stands on the client; what the server does for one client alone has a thread of its
own there. The format lets slices of a thread nest but not overlap, so one that would (a second try that begins before the
first has ended) moves to a thread beside it. A negative duration within its uncertainty cannot be a slice; it is an instant
event (i) that says so.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.load import Run
from analysis.measures import link_of
from analysis.series.names import natural
from fltestbed import __version__
from fltestbed.errors import RunFolderError

Event = dict[str, Any]

SERVER = "server"
ROUNDS = "rounds"

_BESIDE = 1000
"""Between the number of a thread and that of the one beside it; more than a server has clients."""

SYSTEM_COUNTERS = {
    "cpu_percent": "CPU [%, 100 a core]",
    "process_cpu_percent": "CPU of the toolkit [%, 100 a core]",
    "memory_used_bytes": "memory [bytes]",
    "temperature_c": "temperature [°C]",
}
RADIO_COUNTERS = {
    "rsrp_dbm": "RSRP [dBm]",
    "rsrq_db": "RSRQ [dB]",
    "sinr_db": "SINR [dB]",
    "rssi_dbm": "RSSI [dBm]",
    "tx_bit_rate_bps": "sending rate [bit/s]",
    "ul_mcs": "uplink MCS",
    "ul_bler": "uplink block errors",
    "ul_bit_rate_bps": "uplink rate [bit/s]",
    "dl_bit_rate_bps": "downlink rate [bit/s]",
}


def write_trace(run: Run, file: Path) -> int:
    """Write a run (derived) as a trace; return how many events it has.

    Raises
    ------
    RunFolderError
        The file cannot be written.
    """
    found = trace(run)
    try:
        with file.open("w", encoding="utf-8") as out:
            json.dump(found, out, allow_nan=False, separators=(",", ":"))
            out.write("\n")
    except OSError as error:
        raise RunFolderError(
            f"{file}: the trace cannot be written there: {error.strerror}; give another file with -o"
        ) from error
    return len(found["traceEvents"])


def trace(run: Run) -> dict[str, Any]:
    """Return a run as the object of a Trace Event file."""
    timeline = run["timeline"]
    rows = timeline[timeline["start_ns"].notna() & timeline["end_ns"].notna()]
    tracks = _Tracks(run)
    events = [*_apart([*_rounds(run, tracks), *_phases(rows, tracks)]), *_counters(run, tracks)]
    about = {
        "run": run.manifest.run,
        "status": run.manifest.status,
        "link": link_of(run),
        "backend": run.manifest.backend or "real link",
        "clock": "server's CLOCK_MONOTONIC_RAW from the run's zero, microseconds",
        "zero_wall": str(run.manifest.data.get("zero_wall") or ""),
        "made_by": f"fltestbed {__version__}",
    }
    return {"traceEvents": [*tracks.names(), *events], "displayTimeUnit": "ms", "otherData": about}


class _Tracks:
    """Numbers of the processes (hosts) and threads (what a host does at the same time)."""

    def __init__(self, run: Run) -> None:
        clients = {str(name) for name in run["timeline"]["client"].dropna()}
        hosts = {str(name) for name in run["system"]["host"].dropna()} | {str(host) for host in _radio(run)["host"].dropna()}
        self._link = link_of(run)
        self._hosts = [SERVER, *sorted((clients | hosts) - {SERVER}, key=natural)]
        self._threads = [ROUNDS, *sorted(clients, key=natural)]

    def host(self, name: str) -> int:
        return self._hosts.index(name) + 1

    def on(self, client: str, hosts: set[str]) -> Event:
        """Where an event stands: on the client if it is one of the hosts, else on the server in the client's thread."""
        if client in hosts:
            return {"pid": self.host(client), "tid": 1}
        return {"pid": self.host(SERVER), "tid": self._threads.index(client or ROUNDS) + 1}

    def names(self) -> Iterator[Event]:
        for place, host in enumerate(self._hosts):
            label = host if host == SERVER else f"{host} ({self._link})"
            process = {"ph": "M", "pid": self.host(host), "ts": 0}
            yield process | {"tid": 0, "name": "process_name", "args": {"name": label}}
            yield process | {"tid": 0, "name": "process_sort_index", "args": {"sort_index": place}}
            threads = [ROUNDS, *(f"for {name}" for name in self._threads[1:])] if host == SERVER else ["phases"]
            for number, thread in enumerate(threads, 1):
                yield process | {"tid": number, "name": "thread_name", "args": {"name": thread}}
                yield process | {"tid": number, "name": "thread_sort_index", "args": {"sort_index": number}}


def _rounds(run: Run, tracks: _Tracks) -> Iterator[Event]:
    """One slice a round, from its first phase to the end of its last aggregation; inside it the server's own phases."""
    timeline, rounds = run["timeline"], run["rounds"]
    starts = timeline[timeline["phase"] == "configure"].groupby("round")["start_ns"].min()
    facts = ["round", "ended_by", "ended_in_phase", "ended_margin_s", "loss", "accuracy"]
    for row in rounds.dropna(subset=["duration_s"]).to_dict("records"):
        start_ns = int(starts[row["round"]])
        event: Event = {"name": f"round {row['round']}", "cat": "round", "args": _plain({key: row[key] for key in facts})}
        yield event | tracks.on("", {SERVER}) | _slice(start_ns, start_ns + round(row["duration_s"] * 1e9))


def _phases(rows: pd.DataFrame, tracks: _Tracks) -> Iterator[Event]:
    columns = ["round", "message_type", "attempt", "duration_s", "duration_uncertainty_s", "placement_uncertainty_s"]
    columns += ["uncertain", "payload_bytes", "status", "detail", "start_host", "end_host"]
    for row in rows.to_dict("records"):
        start_ns, end_ns = int(row["start_ns"]), int(row["end_ns"])
        client = "" if pd.isna(row["client"]) else str(row["client"])
        event: Event = {"name": str(row["phase"]), "cat": "phase", "args": _plain({key: row[key] for key in columns})}
        event |= tracks.on(client, {row["start_host"], row["end_host"]})
        if end_ns >= start_ns:
            yield event | _slice(start_ns, end_ns)
        else:
            event["args"]["note"] = "ends before it starts, within the clocks' uncertainty"
            yield event | {"ph": "i", "s": "t", "ts": end_ns // 1000}


def _counters(run: Run, tracks: _Tracks) -> Iterator[Event]:
    for rows, names in ((run["system"], SYSTEM_COUNTERS), (_radio(run), RADIO_COUNTERS)):
        for column, label in names.items():
            if column not in rows:
                continue
            known = rows.dropna(subset=["host", "time_s", column]).reindex(columns=["host", "time_s", column, "rnti"])
            for host, time_s, value, rnti in known.itertuples(index=False):
                where = {"pid": tracks.host(str(host)), "tid": 0, "ts": round(time_s * 1e6)}
                name = label if pd.isna(rnti) else f"{label}, modem {rnti}"
                yield {"name": name, "cat": "host", "ph": "C", "args": {label: float(value)}} | where


def _slice(start_ns: int, end_ns: int) -> Event:
    return {"ph": "X", "ts": start_ns // 1000, "dur": end_ns // 1000 - start_ns // 1000}


def _apart(events: list[Event]) -> Iterator[Event]:
    """Move slices that overlap others of their thread without nesting to a thread beside it."""
    ends: dict[tuple[int, int], list[int]] = {}
    for event in sorted(events, key=lambda event: (event["ts"], -event.get("dur", 0))):
        if event["ph"] != "X":
            yield event
            continue
        start, end, tid = event["ts"], event["ts"] + event["dur"], event["tid"]
        while True:
            open_ends = ends.setdefault((event["pid"], tid), [])
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            if not open_ends or end <= open_ends[-1]:
                break
            tid += _BESIDE
        open_ends.append(end)
        if tid != event["tid"]:
            name = {"name": "thread_name", "args": {"name": "at the same time"}}
            yield name | {"ph": "M", "pid": event["pid"], "tid": tid, "ts": 0}
        yield event | {"tid": tid}


def _radio(run: Run) -> pd.DataFrame:
    return run.tables.get("radio.csv", pd.DataFrame(columns=["host", "time_s"]))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """What JSON can say, without what does not exist."""
    known = {key: value for key, value in values.items() if pd.notna(value)}
    return {key: value if isinstance(value, bool | int | float | str) else value.item() for key, value in known.items()}
