"""Who was last, in which phase, by how much, and whether it is always the same client.

The *straggler* of a round is the client whose reply was held last; `ended_in_phase` of rounds.csv is the phase in which its
time exceeds the median of the others' by most, `ended_margin_s` how much later its reply was held than the one before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from analysis.load import Run
from analysis.measures import WARM_UP

LEAST_ROUNDS = 5
SIGNIFICANCE = 0.05

Kind = Literal["consistent", "competing", "unclear"]


@dataclass(frozen=True)
class Stragglers:
    """What the rounds of one run say of its stragglers.

    Attributes
    ----------
    rounds : int
        Rounds with at least two accepted replies.
    clients : int
        Clients that could have been last.
    client : str
        The one that was last most often.
    share : float
        Part of the rounds in which it was.
    phase : str
        Phase that made the last client last in most rounds, whoever it was.
    margin_s : float
        Mean over rounds of how much later the last reply was held than the one before it.
    persistence : float or None
        Of pairs of consecutive rounds, the part with the same straggler; None without such a pair. 1 over the number of
        clients is what chance gives.
    kind : {"consistent", "competing", "unclear"}
        As from `classify`.
    """

    rounds: int
    clients: int
    client: str
    share: float
    phase: str
    margin_s: float
    persistence: float | None
    kind: Kind


def classify(counts: Sequence[int], clients: int) -> Kind:
    """Tell whether one client is consistently last or several compete.

    *consistent*: one client ended more than half of the rounds, and chance does not explain it: were each of the n clients
    last with probability 1/n, any of them would end k of N rounds or more with a probability of at most
    ``n * P(Binomial(N, 1/n) >= k)``, and that is at most 0.05. *competing*: no client ended more than half. *unclear*: fewer
    than five rounds, a single client, or a majority that may be chance.

    Parameters
    ----------
    counts : sequence of int
        Rounds that each client ended.
    clients : int
        How many clients there were.
    """
    rounds, most = sum(counts), max(counts, default=0)
    if rounds < LEAST_ROUNDS or clients < 2:
        return "unclear"
    if 2 * most <= rounds:
        return "competing"
    from scipy import special  # noqa: PLC0415  # a quarter of a second, which most runs do without

    by_chance = clients * float(special.bdtrc(most - 1, rounds, 1 / clients))
    return "consistent" if by_chance <= SIGNIFICANCE else "unclear"


def stragglers(run: Run, warm_up: int = WARM_UP) -> Stragglers | None:
    """Describe the stragglers of a run without its first rounds; None if no round had two accepted replies."""
    rounds = run["rounds"]
    ended = rounds[(rounds["round"] > warm_up) & rounds["ended_margin_s"].notna()].sort_values("round")
    if ended.empty:
        return None
    clients = run["clients"]
    replied = clients[(clients["status"] == "ok") & clients["round"].isin(ended["round"])]
    counts = ended["ended_by"].value_counts()
    consecutive = ended["round"].diff().eq(1).fillna(False).to_numpy(dtype=bool)
    same = ended["ended_by"].eq(ended["ended_by"].shift()).fillna(False).to_numpy(dtype=bool)
    phases = ended["ended_in_phase"].value_counts()
    number = int(replied["client"].nunique())
    return Stragglers(
        rounds=len(ended),
        clients=number,
        client=str(counts.index[0]),
        share=float(counts.iloc[0] / len(ended)),
        phase=str(phases.index[0]) if len(phases) else "",
        margin_s=float(ended["ended_margin_s"].mean()),
        persistence=float(same[consecutive].mean()) if consecutive.any() else None,
        kind=classify([int(count) for count in counts], number),
    )


def table(runs: Sequence[Run], warm_up: int = WARM_UP) -> pd.DataFrame:
    """One row a run that has stragglers: `run` and the attributes of `Stragglers`."""
    found = [(run.manifest.run, stragglers(run, warm_up)) for run in runs]
    return pd.DataFrame([{"run": name} | vars(each) for name, each in found if each is not None])
