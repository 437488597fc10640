"""Python's garbage collector and C's allocator, told when there is nothing for them, and once what stays."""

import contextlib
import ctypes
import gc
from collections.abc import Iterator

THRESHOLDS = 10_000, 10, 10
"""Python's are 700, 10 and 10: with a hundred models in memory a tenth of the SuperLink's time went into looking at them."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES, _SMALL_BYTES = 64 << 20, 32 << 20
"""Freed memory that a process keeps, and what counts as small enough for it; more than the latter glibc does not allow."""


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Make no collection within the block: hardly anything that an import makes is garbage.

    Python looks at it again and again all the same, which is a sixth of the time that Flower's imports take, and a fifth of
    PyTorch's.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def keep_what_is_there() -> None:
    """Leave everything that exists now out of all further collections, which come less often; and keep memory that is freed.

    Imports leave a few hundred thousand objects that live as long as the process. A round makes enough others for a full
    collection, which would look at all of them: nearly 10 ms of every round, in the middle of what is timed. And what a
    message took goes back to the system when it is freed, to be taken anew for the next one, page by page.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    with contextlib.suppress(AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _SMALL_BYTES)
