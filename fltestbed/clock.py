"""The clocks of a host, and which one serves what.

`raw_ns`
    CLOCK_MONOTONIC_RAW. Every stamp and every duration. Time synchronisation (chrony, ntpd, ptp4l) slews CLOCK_MONOTONIC
    and steps CLOCK_REALTIME; it never touches RAW, which drifts freely instead. Values of two hosts have nothing in
    common but what `fltestbed.measure.mapping` estimates.
`wall_ns`
    CLOCK_REALTIME. Recorded once a host, as an anchor for people; never subtracted.

Code that waits or stamps takes a `Clock` as an argument, so a test can pass one that drifts, jumps or stands still.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass


def _raw_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


@dataclass(frozen=True)
class Clock:
    """The pair of clocks that a process reads.

    Attributes
    ----------
    raw_ns : callable () -> int
        Nanoseconds of CLOCK_MONOTONIC_RAW, from an arbitrary zero that is this host's own.
    wall_ns : callable () -> int
        Nanoseconds of CLOCK_REALTIME since 1970-01-01 UTC, right only as far as the host's clock is.
    """

    raw_ns: Callable[[], int] = _raw_ns
    wall_ns: Callable[[], int] = time.time_ns


SYSTEM_CLOCK = Clock()


def shifted(clock: Clock, shift_ns: int) -> Clock:
    """The same clock with `shift_ns` added to its raw one: a host that was started again counts on from where it was."""
    return Clock(lambda: clock.raw_ns() + shift_ns, clock.wall_ns) if shift_ns else clock
