"""What the ServerApp's process says on standard error, in a file of the run folder.

Flower logs several lines a round, in the thread that runs the rounds. A pipe takes them, and a thread of the server brings
them to the file: so the app never waits for a disk that is slow, short of a megabyte that the disk has not taken yet.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

PIPE_BYTES = 1 << 20
"""The most that Linux lets an ordinary user have."""
END_S = 1.0
"""For the last words; a process that the app has started and that lives on may hold the pipe for ever."""


@contextlib.contextmanager
def app_log(path: Path) -> Iterator[int]:
    """A descriptor whose bytes are appended to a file; the caller closes it, and no word is lost that was said before.

    Raises
    ------
    OSError
        The file cannot be made.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    reader, writer = os.pipe()
    with contextlib.suppress(OSError):  # a user who has many pipes gets the usual 64 KiB
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    thread = threading.Thread(target=_copy, args=(reader, file), name="app-log", daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        thread.join(END_S)


def _copy(reader: int, file: int) -> None:
    """Append what comes until nobody can say more; where the disk is full, let the app talk on."""
    with os.fdopen(reader, "rb", buffering=0) as said, os.fdopen(file, "ab", buffering=0) as log:
        while words := said.read(PIPE_BYTES):
            with contextlib.suppress(OSError):
                log.write(words)
