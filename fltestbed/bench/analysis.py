"""`fltestbed bench analysis`: how long the analysis of a large run takes, and how much memory.

A run folder with a million rows in phases.csv, and with as many rows in the other files as real runs have, is made of random
durations. Then a process of its own, which the interpreter and the libraries belong to, loads what a summary needs of it, as
`fltestbed summary` does where the derived files are up to date, derives its tables and summarises it. Writing the derived
files of the whole folder is timed as well; it is no part of the bar.

Rows for each of phases.csv, in real runs of four clients and here: transfers 0.17 and 0.18, clock samples 0.26 and 0.27,
metrics 0.70 and 0.64. clock.csv and system.csv are left empty: a summary does not open them.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fltestbed.bench.results import Bar
from fltestbed.errors import TestbedError
from fltestbed.measure.schema import (
    CLOCK_SAMPLES_TABLE,
    CLOCK_TABLE,
    METRICS_TABLE,
    PHASES_TABLE,
    SCHEMA_VERSION,
    SYSTEM_TABLE,
    TRANSFERS_TABLE,
)
from fltestbed.measure.schema import Table as File

CLIENTS = 100
MOST_S = 3.0
MOST_MB = 500.0

_ZERO_RAW_NS = 5_000_000_000_000
_PHASES = (
    ("configure", "server", "server", 0.02),
    ("queue", "server", "server", 0.004),
    ("downlink", "server", "client", 0.6),
    ("deserialize", "client", "client", 0.015),
    ("train", "client", "client", 3.0),
    ("evaluate", "client", "client", 0.2),
    ("evaluate", "client", "client", 0.25),
    ("serialize", "client", "client", 0.02),
    ("uplink", "client", "server", 2.3),
    ("collect", "server", "server", 0.012),
)
_METRICS = ("train-loss", "validation-loss", "validation-accuracy", "test-loss", "test-accuracy", "num-examples", "epochs")

_CHILD = """
import json, resource, sys, time
started = time.perf_counter()
from pathlib import Path
from analysis.derive import SUMMARISED, derive, write
from analysis.load import load_run, load_runs
from analysis.tables import summarise
imported = time.perf_counter()
loaded = load_runs([Path(sys.argv[1])], SUMMARISED)
read = time.perf_counter()
derived = [derive(run) for run in loaded]
made = time.perf_counter()
summarise(derived)
done = time.perf_counter()
peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
whole = derive(load_run(Path(sys.argv[1])))
whole_made = time.perf_counter()
write(whole)
written = time.perf_counter()
print(json.dumps({
    "import_s": imported - started, "load_s": read - imported, "derive_s": made - read, "summarise_s": done - made,
    "total_s": done - started, "peak_mb": peak_kb * 1024 / 1e6, "write_s": written - whole_made,
    "rows": len(derived[0]["phases"]),
}))
"""


@dataclass(frozen=True)
class Figures:
    """What the process of the analysis took.

    Attributes
    ----------
    rows : int
        Of phases.csv.
    csv_mb : float
        Size of all recorded files of the folder.
    import_s, load_s, derive_s, summarise_s, total_s : float
        Seconds of each step, and of all from the start of the imports to the summary.
    write_s : float
        Seconds to write timeline.csv, clients.csv and rounds.csv afterwards.
    peak_mb : float
        Largest resident memory of the process until the summary, libraries included.
    """

    rows: int
    csv_mb: float
    import_s: float
    load_s: float
    derive_s: float
    summarise_s: float
    total_s: float
    write_s: float
    peak_mb: float

    @property
    def bars(self) -> tuple[Bar, ...]:
        """Time and memory beside their bars."""
        size = f"{self.rows:,} rows"
        return (
            Bar("seconds to load and summarise", "", size, self.total_s, MOST_S),
            Bar("peak memory in MB", "", size, self.peak_mb, MOST_MB),
        )

    @property
    def holds(self) -> bool:
        """Whether both bars hold."""
        return all(bar.holds for bar in self.bars)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; each bar says whether it holds."""
        return asdict(self) | {"bars": [asdict(bar) | {"holds": bar.holds} for bar in self.bars]}


def measure(rows: int = 1_000_000) -> Figures:
    """Make a folder of so many rows, analyse it in a process of its own, and delete it.

    Raises
    ------
    TestbedError
        The process of the analysis failed.
    """
    with tempfile.TemporaryDirectory(prefix="fltestbed-") as place:
        folder = make_folder(Path(place) / "large", rounds=-(-rows // (CLIENTS * (len(_PHASES) + 1) + 2)))
        done = subprocess.run([sys.executable, "-c", _CHILD, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise TestbedError(f"{folder}: the analysis of it failed: {done.stderr.strip().splitlines()[-1]}")
        csv_bytes = sum(table.stat().st_size for table in folder.glob("*.csv") if table.name in _RECORDED)
        return Figures(csv_mb=csv_bytes / 1e6, **json.loads(done.stdout))


def render(figures: Figures, console: Console) -> None:
    """Print the figures beside their bars."""
    steps = ("import", "load", "derive", "summarise")
    taken = ", ".join(f"{step} {getattr(figures, f'{step}_s'):.2f}" for step in steps)
    about = f"{figures.rows:,} rows of phases.csv, {figures.csv_mb:.0f} MB of CSV in all; seconds: {taken}"
    console.print(f"{about}; and {figures.write_s:.2f} to write the derived files", highlight=False)
    table = Table("", "figure", "bar", "")
    for bar in figures.bars:
        table.add_row(bar.name, f"{bar.figure:.2f}", f"<= {bar.most:g}", "holds" if bar.holds else "missed")
    console.print(table)


def make_folder(folder: Path, rounds: int, clients: int = CLIENTS) -> Path:
    """Make a run folder of random durations, its files in the proportions of real runs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    names = np.array([f"client-{number}" for number in range(clients)])
    offsets = 3_600_000_000_000 * (1 + np.arange(clients, dtype=np.int64))
    for table in _RECORDED.values():
        pd.DataFrame(columns=list(table.header)).to_csv(folder / table.name, index=False)
    began = 0
    for first in range(1, rounds + 1, 50):
        numbers = np.arange(first, min(first + 50, rounds + 1))
        began = _append(folder, rng, names, offsets, numbers, began)
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run": folder.name,
        "status": "complete",
        "zero_raw_ns": _ZERO_RAW_NS,
        "experiment": {"name": "large", "rounds": rounds, "clients": clients, "probes": {"system": True}},
        "link": {
            "name": "5g",
            "backend": "none",
            "profile": {"medium": "shared_tdd", "uplink": {"rate-mbit": 2000}, "downlink": {"rate-mbit": 9000}},
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


_RECORDED: dict[str, File] = {
    table.name: table
    for table in (PHASES_TABLE, TRANSFERS_TABLE, CLOCK_SAMPLES_TABLE, CLOCK_TABLE, METRICS_TABLE, SYSTEM_TABLE)
}


def _append(
    folder: Path,
    rng: np.random.Generator,
    names: NDArray[np.str_],
    offsets: NDArray[np.int64],
    numbers: NDArray[np.int64],
    began: int,
) -> int:
    """Append some rounds to the files; return when the last of them was over, in nanoseconds from the zero."""
    shape = (len(numbers), len(names))
    usual = np.array([seconds for *_, seconds in _PHASES])
    lasts_ns = (usual * rng.lognormal(0, 0.15, (*shape, len(usual))) * 1e9).astype(np.int64)
    held = lasts_ns.sum(axis=2)
    longest = held.max(axis=1)
    start = began + np.concatenate([[0], np.cumsum(longest + 600_000_000)[:-1]])
    ends = start[:, None, None] + lasts_ns.cumsum(axis=2)
    starts = ends - lasts_ns
    last = start + longest
    common = {
        "round": np.repeat(numbers, shape[1]),
        "client": np.tile(names, shape[0]),
        "link": "5g",
        "message_type": "train",
        "message_id": [rng.bytes(32).hex() for _ in range(shape[0] * shape[1])],
        "attempt": 1,
    }
    clock = np.tile(offsets, shape[0])
    frames = []
    for place, (phase, start_host, end_host, _) in enumerate(_PHASES):
        frames.append(
            _rows(common, phase, (start_host, end_host), (starts[..., place].ravel(), ends[..., place].ravel()), clock)
        )
    waited = np.repeat(last, shape[1])
    frames.append(_rows(common, "wait", ("server", "server"), (ends[..., -1].ravel(), waited), clock))
    for phase, began_ns, ended_ns in (
        ("aggregate", last, last + 80_000_000),
        ("server_evaluate", last + 80_000_000, last + 580_000_000),
    ):
        of_server = {"round": numbers, "message_type": "train", "attempt": 1}
        frames.append(_rows(of_server, phase, ("server", "server"), (began_ns, ended_ns), np.zeros(shape[0], np.int64)))
    _write(folder, PHASES_TABLE, pd.concat(frames).sort_values("end_ns"))
    _write(folder, TRANSFERS_TABLE, _transfers(common, starts, ends, clock))
    _write(folder, CLOCK_SAMPLES_TABLE, _samples(rng, common, starts[..., 0].ravel(), clock))
    _write(folder, METRICS_TABLE, _metrics(rng, common, numbers, last))
    return int(last[-1] + 600_000_000)


def _rows(
    common: dict[str, Any],
    phase: str,
    hosts: tuple[str, str],
    spans: tuple[NDArray[np.int64], NDArray[np.int64]],
    clock: NDArray[np.int64],
) -> pd.DataFrame:
    start, end = spans
    raw = [_ZERO_RAW_NS + moment if host == "server" else moment + clock for host, moment in zip(hosts, spans, strict=True)]
    between, transfer = hosts[0] != hosts[1], phase in ("downlink", "uplink")
    return pd.DataFrame(
        common
        | {
            "phase": phase,
            "start_host": "server" if hosts[0] == "server" else common["client"],
            "start_raw_ns": raw[0],
            "end_host": "server" if hosts[1] == "server" else common["client"],
            "end_raw_ns": raw[1],
            "start_ns": start,
            "end_ns": end,
            "duration_s": (end - start) / 1e9,
            "duration_uncertainty_s": 0.013 if between else 0.0,
            "placement_uncertainty_s": 0.0 if hosts == ("server", "server") else 0.013,
            "uncertain": 0,
            "payload_bytes": 2_910_504 if transfer else None,
            "wire_bytes": 3_044_387 if transfer else None,
            "status": "ok",
            "detail": "test" if phase == "evaluate" else None,
        }
    )


def _transfers(
    common: dict[str, Any], starts: NDArray[np.int64], ends: NDArray[np.int64], clock: NDArray[np.int64]
) -> pd.DataFrame:
    frames = []
    for place, direction in ((2, "downlink"), (8, "uplink")):
        start, end = starts[..., place].ravel(), ends[..., place].ravel()
        row = {
            "direction": direction,
            "transport": "bundle",
            "client_start_raw_ns": start + clock,
            "client_end_raw_ns": end + clock,
            "client_response_raw_ns": end + clock + 1_000_000 if direction == "uplink" else None,
            "server_start_raw_ns": _ZERO_RAW_NS + start,
            "server_end_raw_ns": _ZERO_RAW_NS + end,
            "payload_bytes": 2_910_504,
            "wire_up_bytes": 3_044_387,
            "wire_down_bytes": 90_000,
            "sender_host": common["client"] if direction == "uplink" else "server",
            "rtt_s": 0.024,
            "rtt_variance_s": 0.004,
            "min_rtt_s": 0.02,
            "retransmissions": 2,
            "congestion_window_segments": 120,
            "delivery_rate_bps": 19_000_000.0,
            "congestion_control": "cubic",
            "new_connection": 0,
            "idle_s": 1.5,
            "status": "ok",
        }
        frames.append(pd.DataFrame({key: common[key] for key in common if key != "message_type"} | row))
    return pd.concat(frames)


def _samples(
    rng: np.random.Generator, common: dict[str, Any], moments: NDArray[np.int64], clock: NDArray[np.int64]
) -> pd.DataFrame:
    """Three exchanges a client and round."""
    frames = []
    for exchange in ("clock", "pull", "push"):
        up, down = rng.integers(6_000_000, 20_000_000, (2, len(moments)))
        arrived = moments + up
        stamps = {
            "client_send_raw_ns": moments + clock,
            "server_receive_raw_ns": _ZERO_RAW_NS + arrived,
            "server_send_raw_ns": _ZERO_RAW_NS + arrived + 1_000_000,
            "client_receive_raw_ns": arrived + 1_000_000 + down + clock,
            "offset_ns": _ZERO_RAW_NS - clock + (up - down) // 2,
            "half_width_ns": (up + down) // 2,
        }
        frames.append(pd.DataFrame({"client": common["client"], "interface": "wwan0", "exchange": exchange} | stamps))
    return pd.concat(frames)


def _metrics(
    rng: np.random.Generator, common: dict[str, Any], numbers: NDArray[np.int64], moments: NDArray[np.int64]
) -> pd.DataFrame:
    """Each client's own figures, their aggregate, and the server's."""
    frames = []
    known = dict(zip(numbers, moments, strict=True))
    for source, metrics in (("client", _METRICS), ("aggregate", _METRICS), ("server", ("loss", "accuracy"))):
        rounds = common["round"] if source == "client" else numbers
        at = np.array([known[number] for number in rounds])
        who = {"client": common["client"]} if source == "client" else {}
        kind = {} if source == "server" else {"message_type": "train"}
        stamp = {"raw_ns": _ZERO_RAW_NS + at, "time_s": at / 1e9}
        frames += [
            pd.DataFrame(
                who | kind | {"round": rounds, "source": source, "metric": name, "value": rng.random(len(rounds))} | stamp
            )
            for name in metrics
        ]
    return pd.concat(frames)


def _write(folder: Path, table: File, rows: pd.DataFrame) -> None:
    types = {column.name: "Int64" for column in table.columns if column.kind in {"int", "bool"}}
    frame = rows.assign(run=folder.name).reindex(columns=list(table.header)).astype(types)
    frame.to_csv(folder / table.name, index=False, header=False, mode="a", float_format="%.9g", lineterminator="\n")
