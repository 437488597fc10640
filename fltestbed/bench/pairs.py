"""The ratio of round times with and without something, from pairs of blocks of rounds of one run.

A run goes to and fro between both in blocks, in the order on, off, off, on. So the two halves of a pair are neighbours in
time, on the same connections, in the same processes, and a drift of the machine takes the same from both. The first round of
each block is not counted: what the block before has left is still being done in it.

A pair gives the logarithm of the ratio of its blocks' mean round times, without the fastest and the slowest fifth of each (a
hiccup of the machine or a lost segment takes one round of a block, and not all; of what is left a mean says more than a
median does). Their mean and its 95% interval (Student's t over the pairs) are the estimate. What something costs in less
than a fifth of the rounds alone would be cut off as well: the ratio of the plain means stands beside.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

from scipy.stats import t as student_t
from scipy.stats import trim_mean

RESOLVED = 0.005
"""Half of the interval of the ratio, at most."""
CUT = 0.2
"""Part of a block's rounds that is left out, at each end."""


@dataclass(frozen=True)
class Pair:
    """Seconds of a round in two neighbouring blocks: the mean without the fastest and the slowest fifth, and of all."""

    on_s: float
    off_s: float
    on_mean_s: float
    off_mean_s: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What pairs say of the ratio of round times.

    Attributes
    ----------
    off_s : float
        Seconds of a round in the blocks that are off.
    ratio, low, high : float
        Round time on / off, and its 95% interval.
    plain_ratio : float
        Of the means of all counted rounds.
    resolved : bool
        Whether half of the interval is at most `RESOLVED`.
    """

    pairs: tuple[Pair, ...]
    off_s: float
    ratio: float
    low: float
    high: float
    plain_ratio: float
    resolved: bool


def estimate(pairs: Sequence[Pair]) -> Estimate:
    """The ratio of `pairs`, two at least, with its interval."""
    logs = [math.log(pair.on_s / pair.off_s) for pair in pairs]
    half = float(student_t.ppf(0.975, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
    low, high = math.exp(fmean(logs) - half), math.exp(fmean(logs) + half)
    return Estimate(
        pairs=tuple(pairs), off_s=fmean(pair.off_s for pair in pairs), ratio=math.exp(fmean(logs)), low=low, high=high,
        plain_ratio=fmean(pair.on_mean_s for pair in pairs) / fmean(pair.off_mean_s for pair in pairs),
        resolved=(high - low) / 2 <= RESOLVED,
    )  # fmt: skip


def pair_up(starts_ns: Sequence[int], block: int) -> list[Pair]:
    """Pairs of blocks from the starts of all rounds of a run and of one more.

    Parameters
    ----------
    starts_ns : sequence of int
        Of rounds in blocks of one that is not counted and `block` that are: on, off, off, on, and so on.
    """
    periods = [(after - before) / 1e9 for before, after in pairwise(starts_ns)]
    blocks = [periods[first + 1 : first + 1 + block] for first in range(0, len(periods) - block, block + 1)]
    halves = [(float(trim_mean(rounds, CUT)), fmean(rounds)) for rounds in blocks]
    neighbours = zip(halves[::2], halves[1::2], strict=False)
    return [
        Pair(on[0], off[0], on[1], off[1])
        for number, half in enumerate(neighbours)
        for on, off in [half if number % 2 == 0 else half[::-1]]
    ]
