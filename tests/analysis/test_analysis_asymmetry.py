"""A second network tells how much longer one way takes than the other."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.asymmetry import Asymmetry, asymmetries
from analysis.load import Manifest, Run
from analysis.mapping import STAMPS

AHEAD_NS = 5_000_000_000
"""The server's clock against the client's."""


def exchange(interface: str, sent_ns: int, up_ns: int, down_ns: int) -> dict[str, object]:
    """An exchange that the server answers after 1 ms."""
    received_ns = sent_ns + up_ns + AHEAD_NS
    stamps = (sent_ns, received_ns, received_ns + 1_000_000, sent_ns + up_ns + 1_000_000 + down_ns)
    return {"client": "pi", "interface": interface, **dict(zip(STAMPS, stamps, strict=True))}


def run_with(clock_interface: str | None, *exchanges: dict[str, object]) -> Run:
    hosts = {"server": {}, "pi": {"clock_interface": clock_interface}}
    manifest = Manifest("r", "complete", "", 0, "5g", "", (), False, None, None, {}, {"hosts": hosts})
    return Run(Path(), manifest, {"clock_samples.csv": pd.DataFrame(exchanges)})


def test_each_way_is_timed_by_the_quiet_networks_clock() -> None:
    """14 ms up and 10 ms down, three times, and once 24 up: 4 ms in the median. A quiet round trip of 0.2 ms, the same both
    ways, leaves 0.1 ms at each of both ends, and the drift (at most 100 ppm) a little more.
    """
    quiet = [exchange("quiet0", 10**9 * second, 100_000, 100_000) for second in range(5)]
    link = [exchange("5g0", 10**9 * second + 1_000_000, 14_000_000, 10_000_000) for second in range(1, 4)]
    late = exchange("5g0", 10**9 * 4 + 1_000_000, 24_000_000, 10_000_000)
    (found,) = asymmetries(run_with("quiet0", *quiet, *link, late))
    assert (found.client, found.exchanges) == ("pi", 4)
    assert found.median_s == pytest.approx(0.004, abs=1e-5)
    assert found.p95_s == pytest.approx(0.0125, abs=1e-5)  # 4, 4, 4, 14: linear between the last two, at 0.85
    assert 0.0002 <= found.uncertainty_s < 0.00021


@pytest.mark.parametrize("quiet", [None, "quiet0"])
def test_without_exchanges_over_a_second_network_there_is_none(quiet: str | None) -> None:
    """The link by itself cannot tell, whatever was asked for."""
    assert asymmetries(run_with(quiet, exchange("5g0", 10**9, 14_000_000, 10_000_000))) == []


def test_the_line_says_which_way_takes_longer() -> None:
    """Milliseconds, with the clocks' own part beside them."""
    line = str(Asymmetry("pi", 12, -0.0041, -0.0052, -0.004, 0.00021))
    assert line == (
        "pi: the way down takes 4.1 ms longer than the way up (median of 12 exchanges; 5% to 95%, up minus down: "
        "-5.2 to -4 ms; clocks ± 0.21 ms)"
    )
