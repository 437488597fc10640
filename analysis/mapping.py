r"""A client's clock on the server's, from exchanges of four stamps.

An exchange leaves the client at t0, reaches the server at t1, leaves it at t2 and is back at t3 (t0 and t3 of the client's
clock, t1 and t2 of the server's). As in NTP (RFC 5905, section 8) and in Cristian (1989)::

    offset     = ((t1 - t0) + (t2 - t3)) / 2        server minus client clock
    half-width = ((t3 - t0) - (t2 - t1)) / 2        the true offset is within offset +- half-width,
                                                    whatever the asymmetry of the path

Each way is a bound of its own: nothing arrives before it leaves, so the offset is at most t1 - t0 when the request leaves
and at least t2 - t3 when the answer is back. Two free-running clocks drift apart by at most a rate r, so both bounds still
hold, a little wider, at another time t, and the best of all samples is::

    upper(t) = min_i (t1_i - t0_i + r * |t - t0_i|)
    lower(t) = max_i (t2_i - t3_i - r * |t - t3_i|)

The mapping is the middle of the two and its half-width half of their distance; for a single short exchange these are the
formulas above. Exchanges with small round trips decide, slow and one-sided ones change nothing, a long poll is as good as a
short one, and the true offset is inside as long as the stamps and r are right. Where lower exceeds upper they are not:
`ClockMapping.contradiction_ns` says by how much.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fltestbed.measure.mapping import DRIFT_BOUND_PPM

_STAMPS = ["client_send_raw_ns", "server_receive_raw_ns", "server_send_raw_ns", "client_receive_raw_ns"]

_Floats = NDArray[np.float64]
_Ints = NDArray[np.integer]


@dataclass(frozen=True)
class _Envelope:
    """``min_i (values_i + rate * |t - at_i|)``, quick to evaluate at many t.

    `earlier` holds that minimum at each `at`, over the samples up to it; `later` over those from it on.
    """

    at: _Floats
    earlier: _Floats
    later: _Floats
    rate: float

    @classmethod
    def of(cls, at: _Floats, values: _Floats, rate: float) -> Self:
        order = np.argsort(at, kind="stable")
        at, values = at[order], values[order]
        earlier = np.minimum.accumulate(values - rate * at) + rate * at
        later = np.minimum.accumulate((values + rate * at)[::-1])[::-1] - rate * at
        return cls(at, earlier, later, rate)

    def __call__(self, moments: _Floats) -> _Floats:
        last = len(self.at) - 1
        place = np.searchsorted(self.at, moments)
        before, after = np.clip(place - 1, 0, last), np.clip(place, 0, last)
        return np.minimum(
            self.earlier[before] + self.rate * np.abs(moments - self.at[before]),
            self.later[after] + self.rate * np.abs(moments - self.at[after]),
        )


@dataclass(frozen=True)
class ClockMapping:
    """Server minus client clock over time, with bounds; made by `fit`.

    Attributes
    ----------
    samples : int
        How many exchanges it was made from.
    """

    samples: int
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
    samples = samples[samples[_STAMPS].notna().all(axis=1)]
    stamps = samples[_STAMPS].to_numpy(dtype=np.int64)
    round_trip = (stamps[:, 3] - stamps[:, 0]) - (stamps[:, 2] - stamps[:, 1])
    possible = (round_trip >= 0) & (stamps[:, 2] >= stamps[:, 1])
    if not possible.any():
        return None
    t0, t1, t2, t3 = stamps[possible].T
    origin, base = int(t0[0]), int(t1[0] - t0[0])
    rate = drift_bound_ppm * 1e-6
    return ClockMapping(
        samples=len(t0),
        _origin_ns=origin,
        _base_ns=base,
        _upper=_Envelope.of((t0 - origin).astype(np.float64), ((t1 - t0) - base).astype(np.float64), rate),
        _negative_lower=_Envelope.of((t3 - origin).astype(np.float64), (base - (t2 - t3)).astype(np.float64), rate),
    )
