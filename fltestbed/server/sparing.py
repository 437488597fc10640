"""What uvicorn and Flower log of requests, sparingly and on one line: whoever reaches the port has a say in it, and could
fill a disk with it.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator

from fltestbed.text import printable

LOGGERS = "uvicorn.error", "flwr"
MOST_OF_A_KIND = 5
MOST_CHARACTERS = 300


class Sparing(logging.Filter):
    """Lets through a few lines from each place in the code that logs."""

    def __init__(self) -> None:
        super().__init__()
        self._said: Counter[tuple[str, int]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to say it; the last time it says that there will be no more."""
        place = record.pathname, record.lineno
        self._said[place] += 1
        record.msg, record.args = printable(record.getMessage(), MOST_CHARACTERS), None
        if self._said[place] == MOST_OF_A_KIND:
            record.msg += " (more of the kind are not said)"
        return self._said[place] <= MOST_OF_A_KIND


@contextlib.contextmanager
def spared() -> Iterator[None]:
    """Within the block both say each thing a few times."""
    sparing = Sparing()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addFilter(sparing)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(sparing)
