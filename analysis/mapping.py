r"""A client's clock on the server's, from exchanges of four stamps.

An exchange leaves the client at t0, reaches the server at t1, leaves it at t2 and is back at t3 (t0 and t3 of the client's
clock, t1 and t2 of the server's). As in NTP (RFC 5905, section 8) and in Cristian (1989)::

    offset     = ((t1 - t0) + (t2 - t3)) / 2        server minus client clock
    half-width = ((t3 - t0) - (t2 - t1)) / 2        the true offset is within offset +- half-width,
                                                    whatever the asymmetry of the path

Each way is a bound of its own: nothing arrives before it leaves, so the offset is at most t1 - t0 when the request leaves
and at least t2 - t3 when the answer is back. If the drift is between `slowest` and `fastest`, both bounds still hold, a
little wider, at another time t, and the best of all samples is::

    upper(t) = min_i (t1_i - t0_i + fastest * (t - t0_i) after t0_i, slowest * (t - t0_i) before)
    lower(t) = max_i (t2_i - t3_i + slowest * (t - t3_i) after t3_i, fastest * (t - t3_i) before)

The mapping is the middle of the two and its half-width half of their distance; for a single short exchange these are the
formulas above. Exchanges with small round trips decide, slow and one-sided ones change nothing, a long poll is as good as a
short one, and the true offset is inside as long as the stamps and the two drifts are right.

The drifts are estimated from the same bounds: over all pairs of a lower bound and a later upper one the smallest slope is
the most that the mean drift can be, and over all pairs of an upper and a later lower one the largest is the least (the
feasible region of Moon, Skelly and Towsley 1999 and of Zhang, Liu and Xia 2002; see `fltestbed.measure.mapping`, which does
the same while the run goes on). Around that mean the drift may wander by a fixed bound; where the pairs leave nothing, it
wanders more, and the fixed bound on the drift itself is all that is used.

Samples that contradict most others (a client that says what cannot be, a host that was started again) are left out, and how
many is said. Where lower still exceeds upper, `ClockMapping.contradiction_ns` says by how much.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fltestbed.measure.mapping import DRIFT_BOUND_PPM, WANDER_BOUND_PPM

STAMPS = ["client_send_raw_ns", "server_receive_raw_ns", "server_send_raw_ns", "client_receive_raw_ns"]
"""Columns of clock_samples.csv, t0 to t3."""

RESTART_NS = 60_000_000_000

_Floats = NDArray[np.float64]
_Ints = NDArray[np.integer]


@dataclass(frozen=True)
class _Envelope:
    """``min_i (values_i + rise * (t - at_i))`` over the samples before t, and with ``fall`` over those after it.

    `earlier` holds that minimum at each `at`, over the samples up to it; `later` over those from it on.
    """

    at: _Floats
    earlier: _Floats
    later: _Floats
    rise: float
    fall: float

    @classmethod
    def of(cls, at: _Floats, values: _Floats, rise: float, fall: float) -> Self:
        order = np.argsort(at, kind="stable")
        at, values = at[order], values[order]
        earlier = np.minimum.accumulate(values - rise * at) + rise * at
        later = np.minimum.accumulate((values - fall * at)[::-1])[::-1] + fall * at
        return cls(at, earlier, later, rise, fall)

    def __call__(self, moments: _Floats) -> _Floats:
        last = len(self.at) - 1
        place = np.searchsorted(self.at, moments)
        before, after = np.clip(place - 1, 0, last), np.clip(place, 0, last)
        return np.minimum(
            np.where(
                moments >= self.at[before],
                self.earlier[before] + self.rise * (moments - self.at[before]),
                np.inf,
            ),
            np.where(moments <= self.at[after], self.later[after] + self.fall * (moments - self.at[after]), np.inf),
        )


@dataclass(frozen=True)
class ClockMapping:
    """Server minus client clock over time, with bounds; made by `fit`.

    Attributes
    ----------
    samples : int
        How many exchanges it was made from.
    left_out : int
        How many more contradicted those.
    slowest_ppm, fastest_ppm : float
        The drift of the server's clock against the client's is between these, parts in a million.
    """

    samples: int
    left_out: int
    slowest_ppm: float
    fastest_ppm: float
    # moments of the client's clock and offsets are kept relative to these two, so that a float holds them exactly
    _origin_ns: int
    _base_ns: int
    _upper: _Envelope
    _negative_lower: _Envelope

    def offset(self, client_raw_ns: _Ints) -> tuple[_Ints, _Ints]:
        """Offset (server minus client clock) and its half-width at moments of the client's clock, in nanoseconds."""
        upper, lower = self._bounds((client_raw_ns - self._origin_ns).astype(np.float64))
        middle = self._base_ns + np.rint((upper + lower) / 2).astype(np.int64)
        return middle, np.ceil(np.abs(upper - lower) / 2).astype(np.int64)

    @property
    def contradiction_ns(self) -> float:
        """By how much the samples contradict each other under the drift bound; 0 if they do not."""
        upper, lower = self._bounds(np.concatenate([self._upper.at, self._negative_lower.at]))
        return float(max(0.0, np.max(lower - upper)))

    def _bounds(self, moments: _Floats) -> tuple[_Floats, _Floats]:
        return self._upper(moments), -self._negative_lower(moments)


def fit(samples: pd.DataFrame, drift_bound_ppm: float = DRIFT_BOUND_PPM) -> ClockMapping | None:
    """Fit the mapping of one client.

    Parameters
    ----------
    samples : DataFrame
        Rows of clock_samples.csv of one client, over whatever interfaces: a bound holds on every path, and a quiet one
        gives the narrower. To compare paths, fit the rows of each interface by themselves.
    drift_bound_ppm : float
        Largest drift between the two clocks, parts in a million.

    Returns
    -------
    ClockMapping or None
        None if no row has four stamps in a possible order.
    """
    columns = [samples[name] for name in STAMPS]
    whole = np.logical_and.reduce([column.notna().to_numpy(dtype=bool) for column in columns])
    stamps = np.column_stack([column.to_numpy(dtype=np.int64, na_value=0) for column in columns])[whole]
    round_trip = (stamps[:, 3] - stamps[:, 0]) - (stamps[:, 2] - stamps[:, 1])
    possible = stamps[(round_trip >= 0) & (stamps[:, 3] >= stamps[:, 0]) & (stamps[:, 2] >= stamps[:, 1])]
    if not len(possible):
        return None
    bound = drift_bound_ppm * 1e-6
    agreeing = possible[_agree(possible, bound)]
    t0, t1, t2, t3 = agreeing.T
    origin, base = int(t0[0]), int(t1[0] - t0[0])
    sent, back = (t0 - origin).astype(np.float64), (t3 - origin).astype(np.float64)
    upper, lower = ((t1 - t0) - base).astype(np.float64), ((t2 - t3) - base).astype(np.float64)
    slowest, fastest = _drift(sent, upper, back, lower, bound)
    return ClockMapping(
        samples=len(agreeing),
        left_out=len(possible) - len(agreeing),
        slowest_ppm=slowest * 1e6,
        fastest_ppm=fastest * 1e6,
        _origin_ns=origin,
        _base_ns=base,
        _upper=_Envelope.of(sent, upper, fastest, slowest),
        _negative_lower=_Envelope.of(back, -lower, -slowest, -fastest),
    )


def began_anew(samples: pd.DataFrame) -> bool:
    """Whether a client's clock went back by more than `RESTART_NS` while the server's went on: its host was started again.

    The order of the rows does not matter: `fltestbed collect` adds samples that the server was never told at the end.
    """
    stamps = samples[["server_receive_raw_ns", "client_send_raw_ns"]].dropna().to_numpy(dtype=np.int64)
    by_server = stamps[stamps[:, 0].argsort(kind="stable"), 1]
    return bool((np.diff(by_server) < -RESTART_NS).any())


def _agree(stamps: _Ints, bound: float) -> NDArray[np.bool_]:
    """Which samples allow the offset that most of them allow (Marzullo 1984), each widened by the drift of its distance."""
    t0, t1, t2, t3 = stamps.T
    middle = int(np.median(t0))
    base = int(t1[0] - t0[0])
    widening = bound * np.abs(t0 - middle).astype(np.float64) + bound * (t3 - t0).astype(np.float64)
    low = ((t2 - t3) - base).astype(np.float64) - widening
    high = ((t1 - t0) - base).astype(np.float64) + widening
    ends = np.concatenate([low, high])
    # at equal places the beginnings come first: intervals that touch agree
    order = np.lexsort((np.repeat([0, 1], len(low)), ends))
    depth = np.cumsum(np.where(order < len(low), 1, -1))
    most = ends[order[int(np.argmax(depth))]]
    return np.asarray((low <= most) & (most <= high))


def _drift(sent: _Floats, upper: _Floats, back: _Floats, lower: _Floats, bound: float) -> tuple[float, float]:
    """The least and the most that the drift can be, as a ratio."""
    wander = WANDER_BOUND_PPM * 1e-6
    fastest = min(bound, _least_slope(back, lower, sent, upper, bound) + wander)
    slowest = max(-bound, -_least_slope(sent, -upper, back, -lower, bound) - wander)
    return (slowest, fastest) if slowest <= fastest else (-bound, bound)


def _least_slope(from_at: _Floats, from_value: _Floats, to_at: _Floats, to_value: _Floats, most: float) -> float:
    """Smallest slope of a line from a point of the first kind to a later one of the second, or `most` if that is less.

    Newton's method for the ratio (Dinkelbach 1967): the pair that is farthest below a line of the slope found so far gives
    the next slope, until no pair is below. Each step is linear in the number of points.
    """
    order, by_time = np.argsort(from_at, kind="stable"), np.argsort(to_at, kind="stable")
    from_at, from_value, to_at, to_value = from_at[order], from_value[order], to_at[by_time], to_value[by_time]
    before = np.searchsorted(from_at, to_at, side="left")  # so many of the first kind are earlier
    to_at, to_value, before = to_at[before > 0], to_value[before > 0], before[before > 0]
    slope = most
    while len(to_at):
        level = from_value - slope * from_at
        highest = np.maximum.accumulate(level)
        below = (to_value - slope * to_at) - highest[before - 1]
        worst = int(np.argmin(below))
        start = int(np.argmax(level[: before[worst]]))
        next_slope = float((to_value[worst] - from_value[start]) / (to_at[worst] - from_at[start]))
        if below[worst] >= 0 or next_slope >= slope:
            break
        slope = next_slope
    return slope
