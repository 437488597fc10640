"""Whether a client's stamps can be of the time in which they must have been taken.

The server's own clock says when something cannot have begun yet, and when it was told.
"""

from collections.abc import Sequence
from itertools import pairwise

from fltestbed.measure.mapping import DRIFT_BOUND_PPM, ClockMapping

SLACK_NS = 1_000_000
"""For what the kernel's stamps may be off when they are carried to the raw clock (`fltestbed.measure.kernel_stamps`)."""


def can_be(mapping: ClockMapping, stamps_ns: Sequence[int], since_ns: int, until_ns: int | None) -> bool:
    """Whether stamps of a client, in the order in which they were taken, can lie between two moments of the server.

    Parameters
    ----------
    mapping : ClockMapping
        Of the client's clock; as long as it is empty, only the distance of the stamps can be judged.
    stamps_ns : sequence of int
        Raw clock of the client, one at least.
    since_ns, until_ns : int
        Raw clock of the server; without `until_ns` the end is not known.
    """
    first, last = stamps_ns[0], stamps_ns[-1]
    if any(later < earlier for earlier, later in pairwise(stamps_ns)):
        return False
    if until_ns is not None and (last - first) * (1 - DRIFT_BOUND_PPM / 1e6) > until_ns - since_ns + SLACK_NS:
        return False
    begin, end = mapping.at(first), mapping.at(last)
    if begin is None or end is None:
        return True
    if first + begin.offset_ns + begin.half_width_ns + SLACK_NS < since_ns:
        return False
    return until_ns is None or last + end.offset_ns - end.half_width_ns - SLACK_NS <= until_ns
