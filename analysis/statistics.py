r"""Means over runs and ratios of two groups of runs, each with its interval.

The unit is the *run*: rounds of one run share a machine, a channel and a model that learns, so they are not independent, and
an interval made from them would be too narrow. Each run counts as one value, its mean over rounds and clients.

What is estimated, on the scale of logs (durations, goodput, shares of a round: positive, and their errors multiply)::

    mean    the geometric mean of what such runs would give,  exp(E[ln X])
    ratio   the ratio of two of them,                         exp(E[ln A] - E[ln B])

For runs that vary by 10% the geometric mean is 0.5% below the arithmetic one. On the linear scale (accuracy, unexplained
time: they may be 0 or negative) it is the arithmetic mean, E[X].

How, with n runs (for a ratio the smaller group's n; the two groups are taken as independent)::

    n = 1        no interval: nothing is known of how runs vary
    n = 2 to 9   Student's t on the logs; for a ratio Welch's, with his degrees of freedom
    n >= 10      percentile-t bootstrap on the logs: runs are drawn with replacement, each draw studentised with its own
                 standard error (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5)

Both keep the same target, so the tenth run changes the interval's kind and not what it is about. The kind was chosen by its
coverage of log-normal data at n = 10: of 1,000 intervals that should hold the truth in 95%, percentile-t on logs held it in
95 and 96%, BCa in 88 to 91% (arithmetic mean or logs); tests repeat the former for 3, 5, 10 and 30 runs.

The clocks' error is *systematic*, and so is what the kernel leaves open of an arrival behind a lost packet, which is added
to it: repetition does not make it smaller, so it stands beside the interval, never inside it. It is a bound, not a
deviation: with half-widths e the truth behind the values v lies between the means of v - e and v + e, and that of a ratio
between the quotients of the opposite ends.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Share of such intervals that contain the truth."""

BOOTSTRAP_FROM = 10
"""Runs (in each group) from which on the bootstrap is used; with fewer there are too few different draws."""

DRAWS = 9_999

Scale = Literal["log", "linear"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean or a ratio, its interval over runs, and what the clocks leave open.

    Attributes
    ----------
    value : float
        The estimate; its unit is that of the values, a ratio has none.
    low, high : float or None
        Interval of `LEVEL` for how much runs vary; None with one run, where none can be given.
    systematic_low, systematic_high : float
        Where the clocks alone leave the value. Equal to `value` within one host; `systematic_high` of a ratio is infinite
        where the clocks allow the divisor to be nothing.
    runs : tuple of int
        How many runs it was made from; for a ratio those of the numerator, then of the divisor.
    method : str
        How the interval was made, in words for a reader.
    """

    value: float
    low: float | None
    high: float | None
    systematic_low: float
    systematic_high: float
    runs: tuple[int, ...]
    method: str

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON: what is infinite becomes None."""
        plain = asdict(self) | {"runs": list(self.runs)}
        return {key: None if isinstance(value, float) and math.isinf(value) else value for key, value in plain.items()}


@dataclass(frozen=True)
class Sample:
    """One value a run, and by how much the clocks may have put each of them wrong.

    Attributes
    ----------
    values : tuple of float
    half_widths : tuple of float
        Bounds of each value's systematic error, in its unit.
    """

    values: tuple[float, ...]
    half_widths: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float], half_widths: Iterable[float] | None = None) -> "Sample":
        """Make a sample; runs whose value is NaN are left out, a half-width that is NaN or not given is 0."""
        values = [float(value) for value in values]
        widths = [0.0] * len(values) if half_widths is None else [float(width) for width in half_widths]
        kept = [pair for pair in zip(values, widths, strict=True) if not math.isnan(pair[0])]
        return cls(tuple(value for value, _ in kept), tuple(0.0 if math.isnan(width) else width for _, width in kept))


def mean(sample: Sample, scale: Scale = "log", seed: int = 0) -> Estimate | None:
    """Estimate the mean of a sample: the geometric one on the scale of logs, else the arithmetic one.

    Parameters
    ----------
    sample : Sample
    scale : {"log", "linear"}
        Where a value is not positive (a one-way time within the clocks' error may be), the linear scale is taken, and
        `Estimate.method` says so.
    seed : int
        Of the bootstrap's draws: the same runs always give the same interval.

    Returns
    -------
    Estimate or None
        None for a sample without values.
    """
    values, widths = np.array(sample.values), np.array(sample.half_widths)
    if not values.size:
        return None
    logs = scale == "log" and bool((values > 0).all())
    forward, back, name = _scale(logs)
    interval, method = _interval((forward(values),), (1.0,), seed)
    if scale == "log" and not logs:
        method += ", in place of logs since a value is not positive"
    return Estimate(
        value=back(float(forward(values).mean())),
        low=None if interval is None else back(interval[0]),
        high=None if interval is None else back(interval[1]),
        systematic_low=_systematic(values - widths, logs),
        systematic_high=_systematic(values + widths, logs),
        runs=(values.size,),
        method=method.format(scale=name),
    )


def ratio(numerator: Sample, divisor: Sample, seed: int = 0) -> Estimate | None:
    """Estimate how many times as large the numerator's geometric mean is as the divisor's.

    Returns
    -------
    Estimate or None
        None where a sample is empty or holds a value that is not positive: there is no ratio of these.
    """
    above, below = np.array(numerator.values), np.array(divisor.values)
    if not above.size or not below.size or min(above.min(), below.min()) <= 0:
        return None
    above_widths, below_widths = np.array(numerator.half_widths), np.array(divisor.half_widths)
    interval, method = _interval((np.log(above), np.log(below)), (1.0, -1.0), seed)
    least, most = _systematic(below - below_widths, True), _systematic(below + below_widths, True)
    return Estimate(
        value=math.exp(np.log(above).mean() - np.log(below).mean()),
        low=None if interval is None else math.exp(interval[0]),
        high=None if interval is None else math.exp(interval[1]),
        systematic_low=_systematic(above - above_widths, True) / most,
        systematic_high=_systematic(above + above_widths, True) / least if least else math.inf,
        runs=(above.size, below.size),
        method=method.format(scale=" on logs"),
    )


def _scale(logs: bool) -> tuple[Callable[[_Floats], _Floats], Callable[[float], float], str]:
    return (np.log, math.exp, " on logs") if logs else (np.asarray, float, "")


def _systematic(values: _Floats, logs: bool) -> float:
    """Mean of one end of the bounds. A true duration is positive, so on logs an end at or below 0 says no more than 0."""
    if not logs:
        return float(values.mean())
    return math.exp(np.log(values).mean()) if (values > 0).all() else 0.0


def _interval(groups: tuple[_Floats, ...], signs: tuple[float, ...], seed: int) -> tuple[tuple[float, float] | None, str]:
    """Interval of ``sum(sign * mean of group)``, and the name of the method; its ``{scale}`` is still to be filled."""
    fewest = min(group.size for group in groups)
    if fewest < 2:
        return None, "one run: no interval can be given" if len(
            groups
        ) == 1 else "one run in a group: no interval can be given"
    centre = math.fsum(sign * group.mean() for sign, group in zip(signs, groups, strict=True))
    squares = [float(group.var(ddof=1)) / group.size for group in groups]
    error = math.sqrt(math.fsum(squares))
    if fewest >= BOOTSTRAP_FROM:
        low, high = _studentised(groups, signs, seed) if error else (0.0, 0.0)
        return (centre - high * error, centre - low * error), "percentile-t bootstrap over runs{scale}"
    name = "Student's t{scale}" if len(groups) == 1 else "Welch's t{scale}"
    if not error:  # all runs of a group gave the same value
        return (centre, centre), name
    # Welch and Satterthwaite; for one group these are its n - 1
    freedom = error**4 / math.fsum(square**2 / (group.size - 1) for square, group in zip(squares, groups, strict=True))
    from scipy import special  # noqa: PLC0415  # a quarter of a second, which a single run does without

    quantile = float(special.stdtrit(freedom, 0.5 + LEVEL / 2))
    return (centre - quantile * error, centre + quantile * error), name


def _studentised(groups: tuple[_Floats, ...], signs: tuple[float, ...], seed: int) -> tuple[float, float]:
    """Quantiles of the studentised distance of a draw's value from the sample's own."""
    distance, square = np.zeros(DRAWS), np.zeros(DRAWS)
    for place, (sign, group) in enumerate(zip(signs, groups, strict=True)):
        counts, size = _draws(group.size, seed, place), group.size
        away = group - group.mean()
        drawn = counts @ away / size
        distance += sign * drawn
        square += (counts @ away**2 / size - drawn**2) / (size - 1)
    # a draw of equal values has no error; beside that of the others, what rounding makes of it is nothing
    varied = square > 1e-12 * np.median(square)
    ends = np.quantile(distance[varied] / np.sqrt(square[varied]), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(ends[0]), float(ends[1])


@lru_cache(maxsize=16)
def _draws(size: int, seed: int, place: int) -> _Floats:
    """How often each of `size` runs is drawn, one row a draw; groups have draws of their own."""
    rng = np.random.default_rng((seed, place))
    return rng.multinomial(size, np.full(size, 1 / size), size=DRAWS).astype(np.float64)
