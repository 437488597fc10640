"""Python's garbage collector, told once what stays."""

import gc

THRESHOLDS = 10_000, 10, 10
"""Python's are 700, 10 and 10: with a hundred models in memory a tenth of the SuperLink's time went into looking at them."""


def keep_what_is_there() -> None:
    """Leave everything that exists now out of all further collections, which come less often.

    Imports leave a few hundred thousand objects that live as long as the process. A round makes enough others for a full
    collection, which would look at all of them: nearly 10 ms of every round, in the middle of what is timed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
