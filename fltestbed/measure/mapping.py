"""A client's clock on the server's, as far as it is known while the run goes on.

Each exchange carries four stamps: the client sends (t0), the server receives (t1) and answers (t2), the client receives
(t3). The offset (server minus client) is ``((t1 - t0) + (t2 - t3)) / 2``, and whatever the asymmetry of the path, it is
wrong by at most ``((t3 - t0) - (t2 - t1)) / 2``, half the round trip net of the server's processing (Cristian 1989; RFC
5905, section 8, names the same quantities). Away from the exchange the two oscillators drift apart, so the bound grows
with the drift bound times the distance.
"""

import math
from dataclasses import dataclass

DRIFT_BOUND_PPM = 100.0
"""Two oscillators of ±50 ppm, what the crystals of PCs and Raspberry Pis are specified to."""


def _drift_ns(interval_ns: int) -> int:
    """The most by which two clocks drift apart, rounded up: a bound that is rounded down is none."""
    return math.ceil(interval_ns * DRIFT_BOUND_PPM / 1e6)


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
        return -((processing - round_trip) // 2) + _drift_ns(round_trip)

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
    """Offset and its half-width at one moment of the client's clock, in ns."""

    offset_ns: int
    half_width_ns: int


class ClockMapping:
    """The best sample so far, aged by the drift bound."""

    def __init__(self) -> None:
        self._best: ClockSample | None = None

    def add(self, sample: ClockSample) -> bool:
        """Take a sample; True if it is now the one that is used."""
        if self._best is not None:
            aged = self.at(sample.client_receive_raw_ns)
            if aged is not None and aged.half_width_ns <= sample.half_width_ns:
                return False
        self._best = sample
        return True

    def at(self, client_raw_ns: int) -> Estimate | None:
        """Estimate for a stamp of the client; None before the first sample."""
        if self._best is None:
            return None
        distance = abs(client_raw_ns - self._best.client_receive_raw_ns)
        return Estimate(self._best.offset_ns, self._best.half_width_ns + _drift_ns(distance))
