"""Memory that the client's two processes share, so that a model need not be copied through a pipe."""

import mmap
import os
from collections.abc import Iterable


class SharedBuffer:
    """Bytes that one process writes and another reads in place. Nothing of it has a name: it is gone with its processes.

    Parameters
    ----------
    descriptor : int or None
        File descriptor of a buffer that another process has made and passed on; None makes a new one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("fltestbed") if descriptor is None else descriptor

    def write(self, parts: Iterable[bytes | bytearray | memoryview]) -> int:
        """Put the parts, one after the other, in the place of what was there; returns their length in bytes."""
        at = 0
        for part in parts:
            left = memoryview(part)
            while left:
                count = os.pwrite(self.descriptor, left, at)
                left, at = left[count:], at + count
        return at

    def read(self, length: int) -> memoryview:
        """The first `length` bytes, at least one, where they are. Valid until they are written again or freed."""
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        return memoryview(mmap.mmap(self.descriptor, length, flags=flags, prot=mmap.PROT_READ))

    def free(self) -> None:
        """Give the memory back; the buffer can be written again."""
        os.ftruncate(self.descriptor, 0)

    def close(self) -> None:
        """Let go of the buffer, also twice. What has been read of it stays valid."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
