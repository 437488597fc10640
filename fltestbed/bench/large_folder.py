"""A large run folder of random durations, its files in the proportions of real runs.

Rows for each of phases.csv, in real runs of four clients and here: transfers 0.17 and 0.18, clock samples 0.26 and 0.27,
metrics 0.70 and 0.64. clock.csv and system.csv are left empty: a summary does not open them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fltestbed.measure.schema import (
    CLOCK_SAMPLES_TABLE,
    CLOCK_TABLE,
    METRICS_TABLE,
    PHASES_TABLE,
    SCHEMA_VERSION,
    SYSTEM_TABLE,
    TRANSFERS_TABLE,
)
from fltestbed.measure.table import Table as File

CLIENTS = 100

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

ROWS_PER_ROUND = CLIENTS * (len(_PHASES) + 1) + 2
"""Of phases.csv, with so many clients."""


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
            "stamp_uncertainty_s": 0.0,
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
