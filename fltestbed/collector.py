"""Python's garbage collector, told once what stays."""

import gc


def keep_what_is_there() -> None:
    """Leave everything that exists now out of all further collections.

    Imports leave a few hundred thousand objects that live as long as the process. A round makes enough others for a full
    collection, which would look at all of them: nearly 10 ms of every round, in the middle of what is timed.
    """
    gc.collect()
    gc.freeze()
