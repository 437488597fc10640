"""`fltestbed bench memory`: what a client takes on its host while it trains SqueezeNet.

One real client on loopback: its network process and its trainer; and beside them a bare script that imports torch and trains
the same model on as many samples. Bars: the network process takes at most 110 MB, the trainer at most the script and 60 MB.

The bars judge the peak of the PSS that the client would have on a host of its own, as on a Pi: what its processes share with
the server of this machine counts in full, what the two share with each other by halves (`fltestbed.bench.footprint`).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fltestbed.bench import bare
from fltestbed.bench.footprint import Footprint, Watch, watching
from fltestbed.bench.place import LOOPBACK, Place, Processes, place
from fltestbed.bench.report import Bar, Report, show
from fltestbed.bench.toolkit import client_command, start_server
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.scratch import scratch_folder

MEGABYTE = 1e6
MOST_NETWORK_MB = 110.0
MOST_BESIDE_BARE_MB = 60.0
TIMEOUT_S = 180.0
SAMPLES, BATCH_SIZE, EPOCHS, ROUNDS, THREADS = 600, 16, 1, 4, 1

NETWORK, TRAINER, BARE = "network process", "trainer", "bare script"
ABOUT = (
    f"one client on loopback, SqueezeNet, {SAMPLES} samples of digits, batches of {BATCH_SIZE}, {ROUNDS} rounds of {EPOCHS} "
    "epoch; the bare script: as many random samples, batches and epochs",
    "peak resident: VmHWM; peak PSS: the same, but for what the network process and the trainer share with each other",
)


@dataclass(frozen=True, kw_only=True)
class MemoryReport(Report):
    """What `fltestbed bench memory` measured, in bytes."""

    benchmark = "memory"
    peak_resident_bytes: dict[str, int]
    peak_pss_bytes: dict[str, int]

    def render_findings(self, console: Console) -> None:
        """Print the peaks."""
        console.print()
        for name, peak in self.peak_resident_bytes.items():
            pss = self.peak_pss_bytes[name]
            show(console, f"{name:16} {peak / MEGABYTE:7.1f} MB resident, {pss / MEGABYTE:7.1f} MB PSS")


def measure() -> MemoryReport:
    """Run the benchmark; nothing is left running.

    Raises
    ------
    TestbedError
        The server, the client or the script failed.
    """
    watch = Watch(SYSTEM_CLOCK, with_sharing=True)
    with scratch_folder("bench") as folder, place(LOOPBACK, 1) as here:
        _run_bare(here, folder, watch)
        _run_client(here, folder, watch)
    found = watch.footprints
    return MemoryReport(
        about=ABOUT,
        peak_resident_bytes={name: footprint.peak_bytes for name, footprint in found.items()},
        peak_pss_bytes={name: footprint.peak_pss_bytes for name, footprint in found.items()},
        bars=tuple(judge(found)),
    )


def judge(found: dict[str, Footprint]) -> list[Bar]:
    """The two bars."""
    peaks = {name: footprint.peak_pss_bytes / MEGABYTE for name, footprint in found.items()}
    where = f"{LOOPBACK}, squeezenet"
    return [
        Bar("network process, peak PSS", where, peaks[NETWORK], MOST_NETWORK_MB, "MB"),
        Bar("trainer - bare script, peak PSS", where, peaks[TRAINER] - peaks[BARE], MOST_BESIDE_BARE_MB, "MB"),
    ]


def _run_bare(here: Place, folder: Path, watch: Watch) -> None:
    processes = _processes(folder / "bare")
    arguments = map(str, (SAMPLES, BATCH_SIZE, EPOCHS * ROUNDS, THREADS))
    processes.start(here.server, BARE, [sys.executable, "-P", str(Path(bare.__file__)), *arguments])
    watch.add(BARE, processes.pid(BARE))
    with watching(watch):
        processes.wait([BARE], TIMEOUT_S)


def _run_client(here: Place, folder: Path, watch: Watch) -> None:
    processes = _processes(folder / "logs")
    settings = {
        "clients": 1, "rounds": ROUNDS,
        "data": {"samples": SAMPLES, "server-fraction": 0.001, "validation-fraction": 0.01, "test-fraction": 0.01},
        "training": {"local-epochs": EPOCHS, "batch-size": BATCH_SIZE, "threads": THREADS}, "evaluation": {"server": False},
    }  # fmt: skip
    start_server(processes, here.server, folder, settings)
    host = here.clients[0]
    processes.start(host, NETWORK, client_command(host, here.server, LOOPBACK, 0, folder))
    watch.add(NETWORK, processes.pid(NETWORK))
    processes.wait_until(lambda: watch.add_child(TRAINER, processes.pid(NETWORK), "fltestbed.client.trainer"), TIMEOUT_S)
    with watching(watch):
        processes.wait(["server", NETWORK], TIMEOUT_S)


def _processes(logs: Path) -> Processes:
    logs.mkdir()
    return Processes(logs)
