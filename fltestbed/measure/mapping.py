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
from collections.abc import Iterable
from dataclasses import dataclass

DRIFT_BOUND_PPM = 100.0
"""Two oscillators of ±50 ppm, what the crystals of PCs and Raspberry Pis are specified to."""

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


@dataclass(frozen=True)
class _Bound:
    """The offset is at most, or at least, `offset_ns` when the client's clock shows `at_ns`."""

    at_ns: int
    offset_ns: int


class ClockMapping:
    """Everything that the samples so far allow."""

    def __init__(self) -> None:
        self._upper: list[_Bound] = []
        self._lower: list[_Bound] = []
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
            return any([self.add(stranger) for stranger in strangers])
        self._strangers = []
        before = self.at(sample.client_receive_raw_ns)
        upper, lower = _bounds(sample)
        self._narrow_drift(upper, lower)
        _insert(self._upper, upper)
        _insert(self._lower, lower)
        after = self.at(sample.client_receive_raw_ns)
        return before is None or (after is not None and after.half_width_ns < before.half_width_ns)

    def contradicts(self, sample: ClockSample) -> bool:
        """Whether a sample cannot be true if those before it are, with any drift within `DRIFT_BOUND_PPM`."""
        upper, lower = _bounds(sample)
        return any(
            upper.offset_ns < other.offset_ns - _grown(abs(upper.at_ns - other.at_ns), DRIFT_BOUND_PPM)
            for other in self._lower
        ) or any(
            lower.offset_ns > other.offset_ns + _grown(abs(lower.at_ns - other.at_ns), DRIFT_BOUND_PPM)
            for other in self._upper
        )

    def at(self, client_raw_ns: int) -> Estimate | None:
        """Estimate for a stamp of the client; None before the first sample."""
        if not self._upper:
            return None
        highest, lowest = self._highest(client_raw_ns), self._lowest(client_raw_ns)
        return Estimate(
            (highest + lowest) // 2,
            -(-abs(highest - lowest) // 2),
            (self._fastest_ppm + self._slowest_ppm) / 2,
            (self._fastest_ppm - self._slowest_ppm) / 2,
        )

    def _forget(self) -> None:
        self._upper, self._lower, self._strangers = [], [], []
        self._slowest_ppm, self._fastest_ppm = -DRIFT_BOUND_PPM, DRIFT_BOUND_PPM
        self._drift_is_steady = True

    def _highest(self, moment_ns: int) -> int:
        """The largest offset that is possible at a moment of the client's clock."""
        return min(
            bound.offset_ns
            + _grown(moment_ns - bound.at_ns, self._fastest_ppm if moment_ns >= bound.at_ns else self._slowest_ppm)
            for bound in self._upper
        )

    def _lowest(self, moment_ns: int) -> int:
        """The smallest."""
        return max(
            bound.offset_ns
            - _grown(bound.at_ns - moment_ns, self._slowest_ppm if moment_ns >= bound.at_ns else self._fastest_ppm)
            for bound in self._lower
        )

    def _narrow_drift(self, upper: _Bound, lower: _Bound) -> None:
        if not self._drift_is_steady:
            return
        rising = [*_slopes_ppm(self._lower, upper, later=True), *_slopes_ppm(self._upper, lower, later=False)]
        falling = [*_slopes_ppm(self._upper, lower, later=True), *_slopes_ppm(self._lower, upper, later=False)]
        # `rising`: from a lower bound to a later upper one, the offset grows no faster; `falling`: no slower.
        self._fastest_ppm = min([self._fastest_ppm, *(slope + WANDER_BOUND_PPM for slope in rising)])
        self._slowest_ppm = max([self._slowest_ppm, *(slope - WANDER_BOUND_PPM for slope in falling)])
        if self._slowest_ppm > self._fastest_ppm:
            # It strays further than is believed: of the drift nothing is left but its bound.
            self._drift_is_steady = False
            self._slowest_ppm, self._fastest_ppm = -DRIFT_BOUND_PPM, DRIFT_BOUND_PPM


def _bounds(sample: ClockSample) -> tuple[_Bound, _Bound]:
    """The upper and the lower bound that one exchange gives."""
    return (
        _Bound(sample.client_send_raw_ns, sample.server_receive_raw_ns - sample.client_send_raw_ns),
        _Bound(sample.client_receive_raw_ns, sample.server_send_raw_ns - sample.client_receive_raw_ns),
    )


def _grown(interval_ns: int, drift_ppm: float) -> int:
    """Growth of the offset, rounded up: a bound that is rounded down is none."""
    return math.ceil(interval_ns * drift_ppm / 1e6)


def _slopes_ppm(others: Iterable[_Bound], bound: _Bound, *, later: bool) -> list[float]:
    """Slopes between `bound` and those of the others that it is later than, or earlier than."""
    return [
        (bound.offset_ns - other.offset_ns) / (bound.at_ns - other.at_ns) * 1e6
        for other in others
        if bound.at_ns != other.at_ns and (bound.at_ns > other.at_ns) is later
    ]


def _insert(bounds: list[_Bound], bound: _Bound) -> None:
    bounds.append(bound)
    if len(bounds) > MOST_BOUNDS:
        half = MOST_BOUNDS // 2
        bounds[:half] = bounds[:half:2]
