"""What a slow disk costs a round: the report, its bar, and that a disk was slow."""

import json
import math
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from fltestbed.bench.disk import DiskReport, check_use, find
from fltestbed.bench.pairs import Pair, estimate
from fltestbed.bench.slow_disk import Count, DiskUse
from fltestbed.errors import TestbedError
from tests.e2e.conftest import fltestbed

NONE = Count(0, 0, 0.0)


def used(calls: int, delayed: int, delay_s: float, main_thread_s: float = 0.0) -> DiskUse:
    return DiskUse({"write": Count(calls, delayed, delay_s), "sync": NONE, "rename": NONE}, main_thread_s)


def pairs_of(*logs: float) -> list[Pair]:
    return [Pair(math.exp(log), 1.0, math.exp(log), 1.0) for log in logs]


def test_the_bar_is_one_percent_for_the_upper_end() -> None:
    """Ratios e^0.001 and e^0.003: the mean e^0.002 is below 1.01; the interval's end, 12.7062 * 0.001 above it, is not."""
    found = find("ethernet", (), 2, estimate(pairs_of(0.001, 0.003)), 6, [{"run folder": used(4, 2, 0.5)}])
    assert found.ratio == pytest.approx(math.exp(0.002))
    assert found.bar.figure == pytest.approx(math.exp(0.002 + 0.0127062), rel=1e-6)
    assert (found.bar.limit, found.bar.holds, found.resolved) == (1.01, False, False)
    assert find("ethernet", (), 2, estimate(pairs_of(0.001, 0.001)), 6, [{"run folder": used(4, 2, 0.5)}]).bar.holds


def test_the_disks_of_all_runs_are_added_up() -> None:
    """Of two runs, calls and seconds of each kind."""
    runs = [{"run folder": used(4, 2, 0.5, 0.1)}, {"run folder": used(6, 3, 0.7, 0.2)}]
    found = find("ethernet", (), 2, estimate(pairs_of(0.0, 0.0, 0.0, 0.0)), 14, runs)
    assert found.use["run folder"].counts["write"] == Count(10, 5, pytest.approx(1.2))  # type: ignore[arg-type]
    assert found.use["run folder"].main_thread_s == pytest.approx(0.3)


@pytest.mark.parametrize("disk", [used(9, 0, 0.0), used(0, 0, 0.0), used(9, 9, 0.1)])
def test_a_disk_that_was_never_slow_or_never_fast_is_no_finding(disk: DiskUse) -> None:
    """The benchmark ends with the name of the disk and its counts."""
    calls, delayed = disk.counts["write"].calls, disk.delayed
    with pytest.raises(TestbedError, match=rf"client-0: {delayed} of {calls} calls were delayed"):
        check_use({"run folder": used(9, 4, 0.1), "client-0": disk})


def test_bench_disk_slows_the_folders_of_server_and_clients(tmp_path: Path) -> None:
    """A short run ends with the status that its bar gives; the server's disk and both clients' were slow, and said so."""
    file = tmp_path / "disk.json"
    done = fltestbed("bench", "disk", "--links", "loopback", "--size", "mini", "--pairs", "2", "--json", file)
    assert done.status in {0, 1}, done.err
    assert file.is_file(), done.err
    data = json.loads(file.read_text())
    for bar in [*data["bars"], *(found["bar"] for found in data["findings"])]:
        bar.pop("holds", None)
    assert done.status == (0 if data.pop("holds") else 1)
    assert (data.pop("benchmark"), data.pop("schema_version")) == ("disk", 1)
    (found,) = TypeAdapter(DiskReport).validate_python(data, extra="forbid").findings
    assert len(found.pairs) == 2
    assert found.slow_rounds == 2 * (found.counted_rounds + 1) + 1  # a block of each pair, and the last round
    assert list(found.use) == ["run folder", "client-0", "client-1"]
    for use in found.use.values():
        assert min(use.counts["write"].delayed, use.counts["sync"].delayed) > 0
        assert use.delay_s > 0.005 * use.counts["write"].delayed + 0.050 * use.counts["sync"].delayed
    assert f"{found.bar.figure:.4g}" in done.out
    assert "resolved" in done.out
