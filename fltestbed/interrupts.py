"""What Ctrl-C and SIGTERM do to a command.

The first of them lets it end in good order. A terminal sends SIGINT to a command and to all that it has started, and the
command ends those by SIGTERM, so a SIGTERM that comes later means nothing new; a second SIGINT is somebody who does not want
to wait, and ends the process at once. Nothing survives that: processes are killed with their parents, network namespaces
vanish with the process that made them, and folders left behind are removed by the next start (`fltestbed.scratch`).
"""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

STATUS = 130
"""Exit status of a command that was interrupted."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _raise() -> None:
    raise KeyboardInterrupt


class Interrupts:
    """A context manager: within the block the first signal calls `action`, on the main thread.

    Attributes
    ----------
    action : callable () -> None
        Raises KeyboardInterrupt unless something else is put there.
    came : bool
        Whether there was a signal.
    """

    def __init__(self) -> None:
        self.action: Callable[[], None] = _raise
        self.came = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # Python's signature
        if self.came:
            if number == signal.SIGINT:
                os._exit(STATUS)
            return
        self.came = True
        self.action()
