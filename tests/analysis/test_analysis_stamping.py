"""The line of the summary that says how late the stamps of a run were."""

from pathlib import Path
from typing import Any

from analysis.load import Manifest, Run
from analysis.stamping import stamp_error


def run_of(**hosts: Any) -> Run:
    manifest = Manifest("r", "complete", "", 0, "5g", "", (), False, None, None, {}, {"hosts": hosts})
    return Run(Path(), manifest, {})


def waiting(delay_s: float, time_slices: int) -> dict[str, Any]:
    return {"cpu_s": 1.0, "delay_s": delay_s, "time_slices": time_slices}


def test_the_line_names_the_lag_and_the_client_that_waited_longest() -> None:
    """1 s over 1,000 wake-ups is 1 ms each; of two clients the one with the longer wait per wake-up, not in all."""
    lag = {"interval_s": 0.02, "count": 9, "p50_s": 0.0001, "p95_s": 0.002, "p99_s": 0.003, "max_s": 0.0256}
    line = stamp_error(
        run_of(
            server={"stamp_error": {"scheduling": waiting(1.0, 1000), "loop_lag": lag}},
            a={"stamp_error": {"scheduling": waiting(2.0, 1000)}},
            b={"stamp_error": {"scheduling": waiting(1.0, 100)}},
        )
    )
    assert line == (
        "the server's event loop came late by 0.1 ms (median), 3 ms (99%), 25.6 ms (most); a wake-up waited 1 ms for a CPU "
        "on the server; 10 ms on b, the client that waited longest"
    )


def test_a_run_that_measured_nothing_has_no_line() -> None:
    """Older runs, stock SuperNodes and kernels without schedstat."""
    assert stamp_error(run_of(server={}, a={"stamp_error": {"scheduling": None}})) is None
