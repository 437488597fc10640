"""How each contender is started in a place, and what its seconds are.

A *round* lasts from the moment when the strategy begins to configure it to the moment when it begins to configure the next
one, in every contender that has rounds, so nothing can hide between them. The first round, which opens connections, and the
last one, which no other follows, are not counted.

All processes run on one kernel, so the stamps of both ends of a transfer are of one clock and need no mapping.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import flwr.client
import flwr.server

from fltestbed.bench import raw
from fltestbed.bench.models import Size
from fltestbed.bench.noise import write_app
from fltestbed.bench.place import CONGESTION_CONTROL, LOOPBACK, Place, Processes
from fltestbed.bench.toolkit import PORT, RUN, START_ALLOWANCE_S, client_command, start_server
from fltestbed.flower.supernode import supernode_command, supernode_environment

UNCOUNTED_ROUNDS = 2
ROUND_ALLOWANCE_S = 30.0
SLOWEST_BYTES_PER_S = 200_000.0
"""A contender that is slower than this, after the allowances, is given up."""


@dataclass(frozen=True)
class Traffic:
    """What one contender moved and how long it paused: what `raw` has to repeat.

    Attributes
    ----------
    down_bytes, up_bytes : int
        Of one message to a client and of one reply.
    turnaround_s : float
        From the last byte at the client to the first byte of its reply.
    gap_s : float
        From the last byte of the round's last reply to the first byte of the next round's first message.
    """

    down_bytes: int
    up_bytes: int
    turnaround_s: float = 0.0
    gap_s: float = 0.0


@dataclass(frozen=True)
class Sample:
    """What one run of one contender gave, in seconds.

    Attributes
    ----------
    round_s : list of float
        One a counted round; empty for `raw`, which has none.
    downlink_s, uplink_s : list of float
        One a client and counted round; empty where the contender does not say.
    phase_s : dict of str to list of float
        Mean over clients of each phase, one a counted round: where the round's time goes.
    traffic : Traffic or None
    """

    round_s: list[float] = field(default_factory=list)
    downlink_s: list[float] = field(default_factory=list)
    uplink_s: list[float] = field(default_factory=list)
    phase_s: dict[str, list[float]] = field(default_factory=dict)
    traffic: Traffic | None = None


@dataclass(frozen=True)
class Task:
    """One run of one contender: where, which model, how many counted rounds, and a folder of its own."""

    place: Place
    size: Size
    rounds: int
    folder: Path
    traffic: Traffic

    @property
    def all_rounds(self) -> int:
        """With the rounds that are not counted."""
        return self.rounds + UNCOUNTED_ROUNDS

    @property
    def timeout_s(self) -> float:
        """When to give up."""
        moved = 2 * self.size.model_bytes * len(self.place.clients)
        return START_ALLOWANCE_S + self.all_rounds * (ROUND_ALLOWANCE_S + moved / SLOWEST_BYTES_PER_S)

    @property
    def address(self) -> str:
        """The server's, host:port."""
        return f"{self.place.server.address}:{PORT}"

    @property
    def stamps(self) -> Path:
        """Where the contender writes the start of each round."""
        return self.folder / "stamps.json"

    def app(self) -> Path:
        """The folder of the Flower app, made now."""
        return write_app(self.folder / "app", size=self.size.name, rounds=self.all_rounds, stamps=self.stamps)

    def processes(self) -> Processes:
        """No process yet, and a folder for the logs."""
        logs = self.folder / "logs"
        logs.mkdir()
        return Processes(logs)

    def periods_s(self) -> list[float]:
        """Seconds of the counted rounds, from the starts that the contender has stamped."""
        return periods_s(json.loads(self.stamps.read_text()))


def periods_s(starts_ns: list[int]) -> list[float]:
    """Seconds from the start of each round to that of the next; the first and the last round are not counted."""
    return [(after - before) / 1e9 for before, after in pairwise(starts_ns)][1:]


def run_toolkit(transport: str, task: Task) -> Sample:
    """The toolkit itself, with one of its transports: `fltestbed server` and `fltestbed client`."""
    place, processes = task.place, task.processes()
    settings = {
        "clients": len(place.clients), "transport": transport, "server": {"round-deadline-s": task.timeout_s},
    }  # fmt: skip
    start_server(processes, place.server, task.folder, settings, ["--app", str(task.app())])
    for number, host in enumerate(place.clients):
        command = client_command(host, place.server, place.link, number, task.folder)
        processes.start(host, host.name, [*command, "--trust-apps"])
    place.start_trace()
    processes.wait(["server", *(host.name for host in place.clients)], task.timeout_s)
    from fltestbed.bench.timeline import read_run  # noqa: PLC0415  # pandas, where there is something to read

    return replace(read_run(task.folder / RUN, task.all_rounds), round_s=task.periods_s())


def run_grpc(task: Task) -> Sample:
    """Flower's deprecated start_server and start_client, over gRPC."""
    place, processes = task.place, task.processes()
    program = [sys.executable, "-m", "fltestbed.bench.legacy"]
    order = {"size": task.size.name, "rounds": task.all_rounds, "stamps": str(task.stamps)}
    processes.start(place.server, "server", [*program, json.dumps({"role": "server", "address": task.address, **order})])
    processes.wait_listening(place.server, place.server.address, PORT)
    for host in place.clients:
        processes.start(host, host.name, [*program, json.dumps({"role": "client", "address": task.address})])
    place.start_trace()
    processes.wait(["server", *(host.name for host in place.clients)], task.timeout_s)
    return Sample(round_s=task.periods_s())


def run_raw(task: Task) -> Sample:
    """Bare sockets that move what `task.traffic` says."""
    place, processes, traffic = task.place, task.processes(), task.traffic
    order = raw.Order(
        "server", place.server.address, PORT, len(place.clients), task.all_rounds, traffic.down_bytes, traffic.up_bytes,
        traffic.turnaround_s, traffic.gap_s, CONGESTION_CONTROL, str(task.folder / "server.json"),
    )  # fmt: skip
    program = [sys.executable, "-m", "fltestbed.bench.raw"]
    processes.start(place.server, "server", [*program, order.to_json()])
    for number, host in enumerate(place.clients):
        own = replace(order, role="client", number=number, stamps=str(task.folder / f"{number}.json"))
        processes.start(host, host.name, [*program, own.to_json()])
    place.start_trace()
    processes.wait(["server", *(host.name for host in place.clients)], task.timeout_s)
    served: list[raw.Stamps] = json.loads(Path(order.stamps).read_text())
    sample = Sample(traffic=traffic)
    for number, at_server in enumerate(served):
        at_client: raw.Stamps = json.loads((task.folder / f"{number}.json").read_text())
        both = list(zip(at_server, at_client, strict=True))[1:-1]
        sample.downlink_s.extend((received - sent) / 1e9 for (sent, _), (received, _) in both)
        sample.uplink_s.extend((received - sent) / 1e9 for (_, received), (_, sent) in both)
    return sample


def run_stock(task: Task) -> Sample:
    """`flower-superlink`, `flower-supernode` and `flwr run`, as Flower's documentation has it; transfers from packets."""
    if task.place.link == LOOPBACK:
        _serve_stock(task)
        return Sample(round_s=task.periods_s())
    from fltestbed.bench.bulk import watching  # noqa: PLC0415  # dpkt, where packets are read

    with watching(task.place, PORT, task.all_rounds, task.folder) as bulk:
        _serve_stock(task)
    return Sample(round_s=task.periods_s(), downlink_s=bulk.downlink_s, uplink_s=bulk.uplink_s)


def _serve_stock(task: Task) -> None:
    place, processes = task.place, task.processes()
    scripts = Path(sys.executable).parent
    home = task.folder / "flwr"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "127.0.0.1:{PORT}"\ninsecure = true\n'
    )
    environment = supernode_environment(home)
    processes.start(place.server, "superlink", [
        str(scripts / "flower-superlink"), "--insecure", "--host", "0.0.0.0", "--port", str(PORT),
        "--disable-runtime-dependency-installation",
    ], environment)  # fmt: skip
    processes.wait_listening(place.server, place.server.address, PORT)
    for number, host in enumerate(place.clients):
        own = task.folder / f"{host.name}-flwr"
        own.mkdir()
        command = supernode_command(task.address, number, len(place.clients))
        # On loopback the SuperNodes share a host, so each needs a port of its own for its ClientApp.
        command += ["--port", str(PORT + 2 + number)]
        processes.start(host, host.name, command, supernode_environment(own))
    place.start_trace()
    submit = [str(scripts / "flwr"), "run", str(task.app()), "bench", "--stream"]
    processes.start(place.server, "flwr-run", submit, environment)
    processes.wait(["flwr-run"], task.timeout_s)


CONTENDERS: dict[str, Callable[[Task], Sample]] = {
    "bundle": partial(run_toolkit, "bundle"),
    "raw": run_raw,
    "grpc": run_grpc,
    "objects": partial(run_toolkit, "objects"),
    "stock": run_stock,
}
"""By name, in the order in which they take turns first: `raw` repeats what `bundle` has just moved."""


def missing(name: str) -> str | None:
    """Why a contender cannot take part here; None if it can."""
    if name == "grpc" and not (hasattr(flwr.server, "start_server") and hasattr(flwr.client, "start_client")):
        return f"grpc: Flower {flwr.__version__} does not ship start_server and start_client any more"
    return None


def middle(samples: list[float]) -> float:
    """Median, 0 of nothing."""
    return median(samples) if samples else 0.0
