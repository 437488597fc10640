"""`fltestbed bench memory`: what a client takes on its host while it trains SqueezeNet.

One real client on loopback: its network process and its trainer; and beside them a bare script that imports torch and trains
the same model on as many samples. Bars: the network process takes at most 110 MB, the trainer at most the script and 60 MB.

The bars judge the peak of the PSS that the client would have on a host of its own, as on a Pi: what its processes share with
the server of this machine counts in full, what the two share with each other by halves (`fltestbed.bench.footprint`).
"""

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fltestbed.bench import bare
from fltestbed.bench.contenders import PORT
from fltestbed.bench.footprint import Footprint, Watch, watching
from fltestbed.bench.place import LOOPBACK, Place, Processes, place
from fltestbed.bench.results import SCHEMA_VERSION, Bar
from fltestbed.bench.table import render_bars
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.measure.host import describe_host, package_versions

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


@dataclass(frozen=True)
class MemoryReport:
    """All that one command measured, in bytes."""

    benchmark: str
    schema_version: int
    about: tuple[str, ...]
    host: dict[str, Any]
    versions: dict[str, str]
    peak_resident_bytes: dict[str, int]
    peak_pss_bytes: dict[str, int]
    bars: tuple[Bar, ...]

    @property
    def holds(self) -> bool:
        """Whether all bars hold."""
        return all(bar.holds for bar in self.bars)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; each bar says whether it holds."""
        bars = [asdict(bar) | {"holds": bar.holds} for bar in self.bars]
        return asdict(self) | {"bars": bars, "holds": self.holds}


def measure() -> MemoryReport:
    """Run the benchmark; nothing is left running.

    Raises
    ------
    TestbedError
        The server, the client or the script failed.
    """
    watch = Watch(SYSTEM_CLOCK, with_sharing=True)
    with tempfile.TemporaryDirectory(prefix="fltestbed-bench-") as folder, place(LOOPBACK, 1) as here:
        _run_bare(here, Path(folder), watch)
        _run_client(here, Path(folder), watch)
    found = watch.footprints
    return MemoryReport(
        "memory", SCHEMA_VERSION, ABOUT, describe_host(SYSTEM_CLOCK), package_versions(),
        {name: footprint.peak_bytes for name, footprint in found.items()},
        {name: footprint.peak_pss_bytes for name, footprint in found.items()},
        tuple(judge(found)),
    )  # fmt: skip


def judge(found: dict[str, Footprint]) -> list[Bar]:
    """The two bars."""
    peaks = {name: footprint.peak_pss_bytes / MEGABYTE for name, footprint in found.items()}
    return [
        Bar("network process, peak PSS in MB", LOOPBACK, "squeezenet", peaks[NETWORK], MOST_NETWORK_MB),
        Bar(
            "trainer - bare script, peak PSS in MB",
            LOOPBACK,
            "squeezenet",
            peaks[TRAINER] - peaks[BARE],
            MOST_BESIDE_BARE_MB,
        ),
    ]


def render(report: MemoryReport, console: Console) -> None:
    """Print a report."""
    for line in report.about:
        console.print(line, style="dim", markup=False, highlight=False)
    console.print()
    for name, peak in report.peak_resident_bytes.items():
        pss = report.peak_pss_bytes[name]
        console.print(f"{name:16} {peak / MEGABYTE:7.1f} MB resident, {pss / MEGABYTE:7.1f} MB PSS", highlight=False)
    render_bars(report.bars, console)


def _run_bare(here: Place, folder: Path, watch: Watch) -> None:
    processes = _processes(folder / "bare")
    arguments = map(str, (SAMPLES, BATCH_SIZE, EPOCHS * ROUNDS, THREADS))
    processes.start(here.server, BARE, [sys.executable, "-P", str(Path(bare.__file__)), *arguments])
    watch.add(BARE, processes.pid(BARE))
    with watching(watch):
        processes.wait([BARE], TIMEOUT_S)


def _run_client(here: Place, folder: Path, watch: Watch) -> None:
    processes = _processes(folder / "logs")
    config = folder / "bench.toml"
    config.write_text(
        f'name = "bench"\nclients = 1\nrounds = {ROUNDS}\n[data]\nsamples = {SAMPLES}\nserver-fraction = 0.001\n'
        f"validation-fraction = 0.01\ntest-fraction = 0.01\n"
        f"[training]\nlocal-epochs = {EPOCHS}\nbatch-size = {BATCH_SIZE}\nthreads = {THREADS}\n"
        f"[evaluation]\nserver = false\n[server]\nport = {PORT}\ntls = false\n"
    )
    toolkit = [sys.executable, "-m", "fltestbed"]
    processes.start(here.server, "server", [*toolkit, "server", str(config), "--name", "run", "--runs", str(folder)])
    host = here.clients[0]
    processes.start(host, NETWORK, [
        *toolkit, "client", "--server", f"{here.server.address}:{PORT}", "--interface", host.interface, "--link", LOOPBACK,
        "--partition", "0", "--name", "client-0", "--state", str(folder / "state"),
    ])  # fmt: skip
    watch.add(NETWORK, processes.pid(NETWORK))
    processes.wait_until(lambda: watch.add_child(TRAINER, processes.pid(NETWORK), "fltestbed.client.trainer"), TIMEOUT_S)
    with watching(watch):
        processes.wait(["server", NETWORK], TIMEOUT_S)


def _processes(logs: Path) -> Processes:
    logs.mkdir()
    return Processes(logs)
