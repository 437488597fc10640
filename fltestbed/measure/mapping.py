"""A client's clock on the server's, as far as it is known while the run goes on.

Each exchange carries four stamps: the client sends (t0), the server receives (t1) and answers (t2), the client receives
(t3). The offset (server minus client) is ``((t1 - t0) + (t2 - t3)) / 2``, and whatever the asymmetry of the path, it is
wrong by at most ``((t3 - t0) - (t2 - t1)) / 2``, half the round trip net of the server's processing (Cristian 1989; RFC
5905, section 8, names the same quantities).

Each way is a bound of its own: nothing arrives before it has left, so the offset is at most ``t1 - t0`` when the request
leaves and at least ``t2 - t3`` when the answer is back. Away from those moments a bound moves with the drift, of which two
things are believed: it is never more than `DRIFT_BOUND_PPM`, and it stays within `WANDER_BOUND_PPM` of its mean. A line of
that mean slope has to pass below every upper and above every lower bound. So each pair of a lower bound and a later upper
one limits how fast the offset can grow, and each pair of an upper and a later lower one how slowly: what is left is the
convex region of feasible skews of Moon, Skelly and Towsley (INFOCOM 1999, with one-way delays) and of Zhang, Liu and Xia
(INFOCOM 2002), used here as an interval instead of a best line. The mapping is the middle of what all bounds allow at a
moment, and its half-width is half of it (intersection of intervals: Marzullo 1984). No filter, and no assumption about
delays but that none is negative.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]

DRIFT_BOUND_PPM = 100.0
"""Two oscillators of ±50 ppm, what the crystals of PCs and Raspberry Pis are specified to."""

_DRIFT = DRIFT_BOUND_PPM / 1e6

WANDER_BOUND_PPM = 10.0
"""How far the drift may stray from its mean during a run: an assumption. A crystal follows its temperature, and on a Pi that
of the processor beside it (measured there, kelvin by kelvin: https://blog.ntpsec.org/2017/03/28/Finding_zero_TC.html), so it
moves when training begins. What strays further is noticed, and `DRIFT_BOUND_PPM` alone is used from then on."""

MOST_BOUNDS = 256
"""Kept in each direction. Beyond that the older half is thinned out, which can only widen the estimate."""

MOST_STRANGERS = 3
"""So many samples in a row that contradict the mapping, and agree with each other, replace it: the client's host was
started again and counts from another zero."""


@dataclass(frozen=True)
class ClockSample:
    """The four stamps of one exchange, in ns of the raw clock of each host."""

    client_send_raw_ns: int
    server_receive_raw_ns: int
    server_send_raw_ns: int
    client_receive_raw_ns: int

    @property
    def offset_ns(self) -> int:
        """Server minus client clock, the middle of what is possible."""
        ahead = self.server_receive_raw_ns - self.client_send_raw_ns
        return (ahead + self.server_send_raw_ns - self.client_receive_raw_ns) // 2

    @property
    def half_width_ns(self) -> int:
        """By how much `offset_ns` can be wrong: half the round trip net of processing, and the drift during it."""
        round_trip = self.client_receive_raw_ns - self.client_send_raw_ns
        processing = self.server_send_raw_ns - self.server_receive_raw_ns
        return -((processing - round_trip) // 2) + math.ceil(round_trip * DRIFT_BOUND_PPM / 1e6)

    @property
    def is_plausible(self) -> bool:
        """Whether the stamps are in an order that two clocks can give."""
        return (
            self.client_send_raw_ns <= self.client_receive_raw_ns
            and self.server_receive_raw_ns <= self.server_send_raw_ns
            and self.half_width_ns >= 0
        )


@dataclass(frozen=True)
class Estimate:
    """What is known of the offset at one moment of the client's clock.

    Attributes
    ----------
    offset_ns : int
        Server minus client clock, the middle of what is possible.
    half_width_ns : int
        The truth is within `offset_ns` ± this.
    drift_ppm : float
        How much faster the server's clock runs, the middle of what is possible.
    drift_bound_ppm : float
        The truth is within `drift_ppm` ± this: the growth of the half-width with time.
    """

    offset_ns: int
    half_width_ns: int
    drift_ppm: float = 0.0
    drift_bound_ppm: float = DRIFT_BOUND_PPM


class _Bounds:
    """What the offset is at most, or at least, at moments of the client's clock.

    Differences of stamps are integers, so no size of a stamp costs precision; NumPy, because the event loop that stamps
    exchanges does this as well.
    """

    def __init__(self) -> None:
        self._rows = np.empty((MOST_BOUNDS + 1, 2), dtype=np.int64)
        self.count = 0

    @property
    def at(self) -> _Ints:
        """Moments."""
        return self._rows[: self.count, 0]

    @property
    def offsets(self) -> _Ints:
        """The bounds there."""
        return self._rows[: self.count, 1]

    def insert(self, at_ns: int, offset_ns: int) -> None:
        """Add one; when there are too many, every second of the older half goes."""
        self._rows[self.count] = at_ns, offset_ns
        self.count += 1
        if self.count > MOST_BOUNDS:
            half = MOST_BOUNDS // 2
            kept = np.concatenate([self._rows[:half:2], self._rows[half : self.count]])
            self.count = len(kept)
            self._rows[: self.count] = kept

    def least(self, moment_ns: int, slowest: float, fastest: float) -> int:
        """The smallest of them as upper bounds, each moved to a moment."""
        distance = moment_ns - self.at
        return int((self.offsets + _moved(distance, np.where(distance >= 0, fastest, slowest))).min())

    def most(self, moment_ns: int, slowest: float, fastest: float) -> int:
        """The largest of them as lower bounds, each moved to a moment."""
        distance = moment_ns - self.at
        return int((self.offsets - _moved(distance, np.where(distance >= 0, -slowest, -fastest))).max())

    def slopes(self, at_ns: int, offset_ns: int) -> tuple[_Floats, _Floats]:
        """Slopes from those that are earlier to a bound, and from it to those that are later."""
        distance = at_ns - self.at
        earlier, later = distance > 0, distance < 0
        rise = (offset_ns - self.offsets).astype(np.float64)
        return rise[earlier] / distance[earlier], rise[later] / distance[later]


class ClockMapping:
    """Everything that the samples so far allow."""

    def __init__(self) -> None:
        self._strangers: list[ClockSample] = []
        self._forget()

    def add(self, sample: ClockSample) -> bool:
        """Take a plausible sample; True if the estimate is narrower for it.

        A sample that contradicts the others is put aside (`contradicts` says so beforehand).
        """
        if self.contradicts(sample):
            self._strangers.append(sample)
            if len(self._strangers) < MOST_STRANGERS:
                return False
            strangers = self._strangers
            self._forget()
            narrower = [self.add(stranger) for stranger in strangers]  # each of them has to be taken
            return any(narrower)
        self._strangers = []
        before = self.at(sample.client_receive_raw_ns)
        upper, lower = _bounds(sample)
        self._narrow_drift(upper, lower)
        self._upper.insert(*upper)
        self._lower.insert(*lower)
        after = self.at(sample.client_receive_raw_ns)
        return before is None or (after is not None and after.half_width_ns < before.half_width_ns)

    def contradicts(self, sample: ClockSample) -> bool:
        """Whether a sample cannot be true if those before it are, with any drift within `DRIFT_BOUND_PPM`."""
        if not self._upper.count:
            return False
        upper, lower = _bounds(sample)
        return upper[1] < self._lower.most(upper[0], -_DRIFT, _DRIFT) or lower[1] > self._upper.least(
            lower[0], -_DRIFT, _DRIFT
        )

    def at(self, client_raw_ns: int) -> Estimate | None:
        """Estimate for a stamp of the client; None before the first sample."""
        if not self._upper.count:
            return None
        highest = self._upper.least(client_raw_ns, self._slowest, self._fastest)
        lowest = self._lower.most(client_raw_ns, self._slowest, self._fastest)
        return Estimate(
            (highest + lowest) // 2,
            -(-abs(highest - lowest) // 2),
            (self._fastest + self._slowest) / 2 * 1e6,
            (self._fastest - self._slowest) / 2 * 1e6,
        )

    def _forget(self) -> None:
        self._upper, self._lower = _Bounds(), _Bounds()
        self._strangers = []
        self._slowest, self._fastest = -_DRIFT, _DRIFT
        self._drift_is_steady = True

    def _narrow_drift(self, upper: tuple[int, int], lower: tuple[int, int]) -> None:
        if not self._drift_is_steady:
            return
        # From a lower bound to a later upper one the offset grows no faster, from an upper to a later lower no slower.
        (to_upper, from_upper), (to_lower, from_lower) = self._lower.slopes(*upper), self._upper.slopes(*lower)
        wander = WANDER_BOUND_PPM / 1e6
        self._fastest = float(
            min(self._fastest, *((slopes.min(initial=np.inf) + wander) for slopes in (to_upper, from_lower)))
        )
        self._slowest = float(
            max(self._slowest, *((slopes.max(initial=-np.inf) - wander) for slopes in (to_lower, from_upper)))
        )
        if self._slowest > self._fastest:
            # It strays further than is believed: of the drift nothing is left but its bound.
            self._drift_is_steady = False
            self._slowest, self._fastest = -_DRIFT, _DRIFT


def _bounds(sample: ClockSample) -> tuple[tuple[int, int], tuple[int, int]]:
    """The upper and the lower bound that one exchange gives: a moment of the client's clock and the offset there."""
    sent, back = sample.client_send_raw_ns, sample.client_receive_raw_ns
    return (sent, sample.server_receive_raw_ns - sent), (back, sample.server_send_raw_ns - back)


def _moved(distances: _Ints, drifts: _Floats) -> _Ints:
    """Change of the offset over each distance, rounded up: a bound that is rounded down is none."""
    return np.ceil(distances * drifts).astype(np.int64)
