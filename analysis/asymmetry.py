"""By how much a path is slower in one direction than in the other.

Four stamps over one path never tell: half the round trip is all that bounds it. With a second, quiet network the client's
clock is known apart from the measured link, so the two ways of each exchange over the link can be timed by themselves (t0 to
t3 as in `analysis.mapping`, the offset of the mapping over the quiet network alone)::

    up        = t1 - (t0 + offset(t0))
    down      = (t3 + offset(t3)) - t2
    asymmetry = up - down                       wrong by at most half-width(t0) + half-width(t3)

It is of the first bytes of requests and answers: of the path and its queues, not of its rates.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.load import Run
from analysis.mapping import STAMPS, ClockMapping, fit


@dataclass(frozen=True)
class Asymmetry:
    """What was found for one client.

    Attributes
    ----------
    client : str
    exchanges : int
        Over the measured link.
    median_s : float
        How much longer the way up takes than the way down, over the exchanges; negative where down takes longer.
    p5_s, p95_s : float
        Between these lie nine of ten exchanges: queues come and go.
    uncertainty_s : float
        By how much the clocks alone may have put any of them wrong.
    """

    client: str
    exchanges: int
    median_s: float
    p5_s: float
    p95_s: float
    uncertainty_s: float

    def __str__(self) -> str:
        longer, shorter = ("up", "down") if self.median_s >= 0 else ("down", "up")
        return (
            f"{self.client}: the way {longer} takes {abs(self.median_s) * 1e3:.3g} ms longer than the way {shorter} (median "
            f"of {self.exchanges} exchanges; 5% to 95%, up minus down: {self.p5_s * 1e3:.3g} to {self.p95_s * 1e3:.3g} ms; "
            f"clocks ± {self.uncertainty_s * 1e3:.2g} ms)"
        )


def asymmetries(run: Run) -> list[Asymmetry]:
    """The asymmetry of each client's link, of clients that had a second network."""
    found = []
    hosts = run.manifest.data.get("hosts") or {}
    for client, samples in run["clock_samples"].groupby("client"):
        second = (hosts.get(str(client)) or {}).get("clock_interface")
        if not second:
            continue
        quiet = fit(samples[samples["interface"] == second])
        over_link = samples[samples["interface"] != second]
        if quiet is None or over_link.empty:
            continue
        asymmetry_ns, uncertainty_ns = asymmetry_of(over_link, quiet)
        median, low, high = np.quantile(asymmetry_ns, [0.5, 0.05, 0.95]) / 1e9
        widest_s = float(uncertainty_ns.max()) / 1e9
        found.append(Asymmetry(str(client), len(over_link), float(median), float(low), float(high), widest_s))
    return found


def asymmetry_of(samples: pd.DataFrame, quiet: ClockMapping) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Asymmetry of each exchange over a link and its uncertainty, in ns, by the mapping over the quiet network."""
    t0, t1, t2, t3 = samples[STAMPS].to_numpy(dtype=np.int64).T
    (leaving, leaving_width), (back, back_width) = quiet.offset(t0), quiet.offset(t3)
    up, down = t1 - (t0 + leaving), (t3 + back) - t2
    return up - down, leaving_width + back_width
