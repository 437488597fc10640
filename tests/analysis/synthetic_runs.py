"""Run folders as the recorder writes them, with the truth beside them: four clients whose clocks are shifted and drift."""

import csv
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fltestbed.measure.schema import (
    CLOCK_SAMPLES_TABLE,
    CLOCK_TABLE,
    METRICS_TABLE,
    PHASES_TABLE,
    SCHEMA_VERSION,
    SYSTEM_TABLE,
    TRANSFERS_TABLE,
)
from fltestbed.measure.table import Table

MS = 1_000_000
ZERO_RAW_NS = 5_000_000_000_000
MODEL_BYTES = 2_910_504
ACCURACY = (0.10, 0.18, 0.61, 0.67, 0.71, 0.76, 0.82, 0.86, 0.88)
STRAGGLER = "client-2"


@dataclass(frozen=True)
class Link:
    """Seconds that a model takes each way, and the one-way delays."""

    name: str
    up_s: float
    down_s: float
    up_delay_ns: int
    down_delay_ns: int


LINKS = (
    Link("5g", 2.3, 0.62, 14 * MS, 6 * MS),
    Link("wifi", 0.8, 0.75, 2 * MS, 2 * MS),
    Link("ethernet", 0.026, 0.025, MS // 5, MS // 5),
)


class Synthetic:
    """One recorded run; `truth` has the true start and end of each row of phases.csv (server's clock, from the zero)."""

    def __init__(self, link: Link, *, clients: int = 4, rounds: int = 8, seed: int = 1) -> None:
        self.link, self.rounds = link, rounds
        self.name = f"demo-{link.name}"
        self.clients = [f"client-{k}" for k in range(clients)]
        self.random = random.Random(f"{seed} {link.name}")
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        self.truth: list[tuple[int, int]] = []
        self._play()

    def client_raw_ns(self, client: str, true_ns: int) -> int:
        """What the clock of `client` shows at a moment of the server's clock (both raw, from the run's zero)."""
        k = self.clients.index(client)
        return 3_600_000_000_000 * (k + 1) + true_ns + true_ns * (15 * k - 20) // 1_000_000

    def write(self, folder: Path, **manifest: Any) -> Path:
        """Write the run folder ``folder/<name>`` and return it."""
        path = folder / self.name
        path.mkdir(parents=True)
        for name, table in TABLES.items():
            write_table(path / name, table, self.rows[name])
        (path / "manifest.json").write_text(json.dumps(self.manifest() | manifest, indent=1), encoding="utf-8")
        return path

    def manifest(self) -> dict[str, Any]:
        """Return manifest.json as the recorder has it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run": self.name,
            "status": "complete",
            "zero_raw_ns": ZERO_RAW_NS,
            "zero_wall": "2025-11-03T10:00:00+00:00",
            "experiment": {
                "name": "demo",
                "seed": 1,
                "rounds": self.rounds,
                "clients": len(self.clients),
                "link": self.link.name,
                "model": {"name": "squeezenet"},
                "data": {"name": "digits"},
                "training": {"local-epochs": 2, "batch-size": 16},
                "pacing": {"seconds-per-epoch": [1.5]},
                "probes": {"system": True},
            },
            "link": {
                "name": self.link.name,
                "profile": {"medium": "shared_tdd"},
                "backend": "wirefilter",
                "notes": ["one queue for all clients instead of fair queues"],
            },
            "hosts": {"server": {}},
            "model": {"parameters": 727_626, "tensors": 52, "bytes": MODEL_BYTES},
            "paced": True,
            "app": "",
            "versions": {"flwr": "1.41.0"},
            "seed": 1,
            "transport": "bundle",
        }

    def _jitter(self, seconds: float) -> int:
        return int(seconds * 1e9 * self.random.lognormvariate(0, 0.12))

    def _play(self) -> None:
        self._metric(0, 40 * MS)
        self._phase(0, "", "server_evaluate", start=0, end=40 * MS)
        now = 900 * MS
        for number in range(1, self.rounds + 1):
            held = {client: self._client_round(number, client, now) for client in self.clients}
            last = max(held.values())
            for client, moment in held.items():
                self._phase(number, client, "wait", start=moment, end=last)
            ready = last + self._jitter(0.08)
            self._phase(number, "", "aggregate", start=last, end=ready)
            evaluated = ready + self._jitter(0.5)
            self._phase(number, "", "server_evaluate", start=ready, end=evaluated)
            self._metric(number, evaluated)
            now = evaluated + 5 * MS
        for host in ("server", *self.clients):
            raw_ns = ZERO_RAW_NS if host == "server" else self.client_raw_ns(host, 0)
            state = {"cpu_percent": 87.5, "interface": "eth0", "rx_bytes": 1, "tx_bytes": 1}
            self._row("system.csv", host=host, raw_ns=raw_ns, time_s=0.0, **state)

    def _client_round(self, number: int, client: str, start: int) -> int:
        """One client's phases from the start of the round; return when its reply is held."""
        k = self.clients.index(client)
        slow = 1.9 if client == STRAGGLER and self.link.name == "5g" else 1.0
        at = start
        for phase, seconds, detail in (
            ("configure", 0.020 + 0.002 * k, ""),
            ("queue", 0.004, ""),
            *((("connect", 2e-9 * (self.link.up_delay_ns + self.link.down_delay_ns), ""),) if number == 1 else ()),
            ("downlink", self.link.down_s, ""),
            ("deserialize", 0.015, ""),
            ("train", 3.0 + 0.1 * k, ""),
            ("evaluate", 0.2, "validation"),
            ("evaluate", 0.25, "test"),
            ("serialize", 0.02, ""),
            ("uplink", self.link.up_s * slow, ""),
            ("collect", 0.012, ""),
        ):
            end = at + self._jitter(seconds)
            if phase in ("downlink", "uplink"):
                end += self.link.down_delay_ns if phase == "downlink" else self.link.up_delay_ns
                self._transfer(number, client, phase, at, end)
            self._phase(number, client, phase, start=at, end=end, detail=detail)
            at = end + (MS if phase in ("train", "evaluate") else 0)
        for moment in (start, start + 2_000 * MS):
            self._exchange(client, moment, "clock", "quiet0" if number % 2 else "link0")
        return at

    def _phase(self, number: int, client: str, phase: str, *, start: int, end: int, detail: str = "") -> None:
        start_host, end_host = ("server" if host == "server" else client for host in HOSTS.get(phase, ("client", "client")))
        hosts = {"start": (start_host, start), "end": (end_host, end)}
        stamps: dict[str, Any] = {}
        for side, (host, moment) in hosts.items():
            stamps[f"{side}_host"] = host
            stamps[f"{side}_raw_ns"] = ZERO_RAW_NS + moment if host == "server" else self.client_raw_ns(host, moment)
            # the mapping of that moment was a little off
            stamps[f"{side}_ns"] = moment if host == "server" else moment + 3 * MS
        transfer = phase in ("downlink", "uplink")
        moved = {"payload_bytes": MODEL_BYTES, "wire_bytes": int(MODEL_BYTES * 1.046)} if transfer else {}
        between = start_host != end_host
        self.truth.append((start, end))
        self._row(
            "phases.csv",
            round=number,
            client=client,
            link=self.link.name,
            message_type="train" if number else "",
            message_id=f"{number}-{client}" if client else "",
            attempt=1,
            phase=phase,
            **stamps,
            duration_s=(stamps["end_ns"] - stamps["start_ns"]) / 1e9,
            duration_uncertainty_s=0.02 if between else 0.0,
            placement_uncertainty_s=0.0 if start_host == end_host == "server" else 0.02,
            stamp_uncertainty_s=0.0,
            uncertain=0,
            **moved,
            status="ok",
            detail=detail,
        )

    def _transfer(self, number: int, client: str, direction: str, start: int, end: int) -> None:
        """The exchange that a transfer phase belongs to, and the clock sample that comes with it."""
        up = direction == "uplink"
        answered = end + self.link.down_delay_ns if up else end
        began = start if up else start + self.link.down_delay_ns
        self._row(
            "transfers.csv",
            round=number,
            client=client,
            link=self.link.name,
            direction=direction,
            message_id=f"{number}-{client}",
            attempt=1,
            transport="bundle",
            client_start_raw_ns=self.client_raw_ns(client, began),
            client_end_raw_ns=self.client_raw_ns(client, end - (self.link.up_delay_ns if up else 0)),
            client_response_raw_ns=self.client_raw_ns(client, answered) if up else "",
            server_start_raw_ns=ZERO_RAW_NS + start + (self.link.up_delay_ns if up else 0),
            server_end_raw_ns=ZERO_RAW_NS + end,
            payload_bytes=MODEL_BYTES,
            sender_host=client if up else "server",
            rtt_s=(self.link.up_delay_ns + self.link.down_delay_ns) / 1e9,
            retransmissions=2 if up else 1,
            congestion_control="cubic",
            new_connection=int(number == 1),
            status="ok",
        )
        if up:
            self._sample(client, "push", "link0", (start, end, end + MS, answered + MS))

    def _exchange(self, client: str, moment: int, exchange: str, interface: str) -> None:
        up, down = (int(ns * self.random.uniform(1, 3)) for ns in (self.link.up_delay_ns, self.link.down_delay_ns))
        self._sample(client, exchange, interface, (moment, moment + up, moment + up + MS, moment + up + MS + down))

    def _sample(self, client: str, exchange: str, interface: str, stamps: tuple[int, int, int, int]) -> None:
        t0, t1, t2, t3 = stamps
        sent, received = self.client_raw_ns(client, t0), self.client_raw_ns(client, t3)
        arrived, left = ZERO_RAW_NS + t1, ZERO_RAW_NS + t2
        offset_ns, half_width_ns = ((arrived - sent) + (left - received)) // 2, ((received - sent) - (left - arrived)) // 2
        self._row(
            "clock_samples.csv",
            client=client,
            interface=interface,
            exchange=exchange,
            client_send_raw_ns=sent,
            server_receive_raw_ns=arrived,
            server_send_raw_ns=left,
            client_receive_raw_ns=received,
            offset_ns=offset_ns,
            half_width_ns=half_width_ns,
        )
        estimate = {"offset_ns": offset_ns, "drift_ppm": 0.0, "half_width_ns": half_width_ns, "drift_bound_ppm": 100.0}
        self._row("clock.csv", client=client, interface=interface, client_raw_ns=sent, **estimate)

    def _metric(self, number: int, moment: int) -> None:
        for metric, value in (("accuracy", ACCURACY[number]), ("loss", 2.3 - 2 * ACCURACY[number])):
            stamp = {"raw_ns": ZERO_RAW_NS + moment, "time_s": moment / 1e9}
            self._row("metrics.csv", round=number, source="server", metric=metric, value=value, **stamp)
            if number:
                for client, source in (("", "aggregate"), *((client, "client") for client in self.clients)):
                    row = {"source": source, "message_type": "train", "metric": metric, "value": value - 0.05}
                    self._row("metrics.csv", round=number, client=client, **row, **stamp)

    def _row(self, table: str, **values: Any) -> None:
        self.rows[table].append({"run": self.name, **values})


RECORDED_HERE = (PHASES_TABLE, TRANSFERS_TABLE, CLOCK_SAMPLES_TABLE, CLOCK_TABLE, METRICS_TABLE, SYSTEM_TABLE)
TABLES: dict[str, Table] = {table.name: table for table in RECORDED_HERE}
HOSTS = {
    "configure": ("server", "server"),
    "queue": ("server", "server"),
    "downlink": ("server", "client"),
    "uplink": ("client", "server"),
    "collect": ("server", "server"),
    "wait": ("server", "server"),
    "aggregate": ("server", "server"),
    "server_evaluate": ("server", "server"),
}


def write_table(path: Path, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows under the header of the schema; a value that is not given is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table.header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
