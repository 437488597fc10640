"""`fltestbed bench fuzz`: what server and client read from the network, under bytes that atheris makes up.

Each target of `fltestbed.bench.fuzz_targets` runs in a process of its own with libFuzzer's limits: so many seconds for one
input, so much memory. Bars: no finding in any target. As a program this module fuzzes one target: its name, the seconds, and
the folder of the inputs to begin with, where a finding is left too.
"""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fltestbed.bench.report import Bar, Report, show
from fltestbed.collector import importing
from fltestbed.errors import HostError
from fltestbed.scratch import scratch_folder

SEED = 1
MOST_MEMORY_MB = 1024
LONGEST_INPUT_BYTES = 64 << 10
START_ALLOWANCE_S = 120.0
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb:\s+(\d+)")

ABOUT = (
    f"atheris (libFuzzer, coverage of fltestbed, Flower, uvicorn), seed {SEED}, inputs of up to {LONGEST_INPUT_BYTES} B",
    f"a finding: an error that the reader does not declare, more than 10 s for one input, more than {MOST_MEMORY_MB} MB",
)


@dataclass(frozen=True)
class Fuzzed:
    """What came out of one target; `finding` is the last thing that it said, empty without one."""

    inputs: int
    peak_mb: int
    finding: str


@dataclass(frozen=True, kw_only=True)
class FuzzReport(Report):
    """What came out of each target."""

    benchmark = "fuzz"
    targets: dict[str, Fuzzed]

    def render_findings(self, console: Console) -> None:
        """Print how many inputs each target has read."""
        table = Table("target", "inputs", "peak MB", "finding", title_justify="left")
        for name, fuzzed in self.targets.items():
            table.add_row(name, f"{fuzzed.inputs:,}", str(fuzzed.peak_mb), "none" if not fuzzed.finding else "yes")
        console.print()
        console.print(table)
        for name, fuzzed in self.targets.items():
            if fuzzed.finding:
                show(console, f"{name}: {fuzzed.finding}", style="red")


def measure(names: Sequence[str], seconds: float, findings: Path | None = None) -> FuzzReport:
    """Fuzz each target for its part of `seconds`; an input that breaks one is kept in `findings`.

    Raises
    ------
    HostError
        atheris is not installed.
    """
    if importlib.util.find_spec("atheris") is None:
        raise HostError("bench fuzz: atheris is not installed here; pip install 'fltestbed[dev]' on x86-64 Linux has it")
    targets = {name: fuzz(name, seconds / len(names), findings) for name in names}
    bars = tuple(Bar("findings", name, int(bool(fuzzed.finding)), 0) for name, fuzzed in targets.items())
    return FuzzReport(about=(f"{seconds:g} s for {len(names)} targets", *ABOUT), targets=targets, bars=bars)


def fuzz(name: str, seconds: float, findings: Path | None = None) -> Fuzzed:
    """Fuzz one target in a process of its own."""
    with scratch_folder("fuzz") as folder:
        kept = findings or folder / "findings"
        kept.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "fltestbed.bench.fuzz", name, str(max(1, round(seconds))), str(folder), str(kept)],
            capture_output=True, text=True, errors="replace", timeout=seconds + START_ALLOWANCE_S, check=False,
        )  # fmt: skip
    inputs, peak = (_EXECUTED.search(done.stderr), _PEAK.search(done.stderr))
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    said = [line for line in lines if "Error" in line or "exception" in line or "SUMMARY" in line]
    finding = "" if done.returncode == 0 else " | ".join(said[:4] or lines[-1:])[:500] or f"status {done.returncode}"
    return Fuzzed(int(inputs[1]) if inputs else 0, int(peak[1]) if peak else 0, finding)


def main(name: str, seconds: str, folder: str, findings: str) -> None:
    """Fuzz one target; ends the process."""
    import atheris  # noqa: PLC0415  # only where it is installed

    import fltestbed.flower  # noqa: F401, PLC0415  # before flwr: it switches telemetry off

    instrumented = ["fltestbed", "flwr.app", "flwr.supercore.inflatable", "uvicorn.protocols"]
    with importing(), atheris.instrument_imports(include=instrumented):
        from fltestbed.bench.fuzz_targets import MOST_S, TARGETS  # noqa: PLC0415  # what it imports is instrumented

    target = TARGETS[name]
    corpus = Path(folder) / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(seed)
    options = [
        f"-seed={SEED}", f"-max_total_time={seconds}", f"-timeout={MOST_S}", f"-rss_limit_mb={MOST_MEMORY_MB}",
        f"-max_len={LONGEST_INPUT_BYTES}", f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1", str(corpus),
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], target.read)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
