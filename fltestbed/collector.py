"""Python's garbage collector, told when there is nothing for it, and once what stays."""

import contextlib
import gc
from collections.abc import Iterator

THRESHOLDS = 10_000, 10, 10
"""Python's are 700, 10 and 10: with a hundred models in memory a tenth of the SuperLink's time went into looking at them."""


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
    """Leave everything that exists now out of all further collections, which come less often.

    Imports leave a few hundred thousand objects that live as long as the process. A round makes enough others for a full
    collection, which would look at all of them: nearly 10 ms of every round, in the middle of what is timed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
