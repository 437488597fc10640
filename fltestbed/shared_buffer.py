"""Memory that a process shares with its child, so that a model need not be copied through a pipe or a socket."""

import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

KEPT_BYTES = 64 << 20
MOST_PIECES = 1024
"""Of one write: the kernel's IOV_MAX."""


class SharedBuffer:
    """Bytes that one process writes and another reads in place. Nothing of it has a name: it is gone with its processes.

    Parameters
    ----------
    descriptor : int or None
        File descriptor of a buffer that another process has made and passed on; None makes a new one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("fltestbed") if descriptor is None else descriptor
        self._mapping: mmap.mmap | None = None

    def write(self, parts: Iterable[bytes | bytearray | memoryview], start: int = 0) -> int:
        """Put the parts, one after the other, in the place of what was there from `start` on; returns their length."""
        at = start
        pieces = iter(parts)
        while batch := [memoryview(part) for part in islice(pieces, MOST_PIECES)]:
            while batch:
                count = os.pwritev(self.descriptor, batch, at)
                at += count
                while batch and count >= len(batch[0]):
                    count -= len(batch.pop(0))
                if count:
                    batch[0] = batch[0][count:]
        return at - start

    def read(self, length: int, start: int = 0) -> memoryview:
        """So many bytes from `start` on, at least one, where they are. Valid until they are written again or freed."""
        end = start + length
        if self._mapping is None or len(self._mapping) < end:
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            self._mapping = mmap.mmap(self.descriptor, end, flags=flags, prot=mmap.PROT_READ)
        return memoryview(self._mapping)[start:end]

    def free(self) -> None:
        """Give memory back, but for `KEPT_BYTES`: getting pages from the kernel again costs more than filling them."""
        if os.fstat(self.descriptor).st_size > KEPT_BYTES:
            os.ftruncate(self.descriptor, KEPT_BYTES)
            self._mapping = None

    def close(self) -> None:
        """Let go of the buffer, also twice. What has been read of it stays valid."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            self._mapping = None


@dataclass(frozen=True)
class BufferPair:
    """A buffer for each direction between a process and its child."""

    to_child: SharedBuffer
    to_parent: SharedBuffer

    @classmethod
    def make(cls) -> "BufferPair":
        """Two new buffers: the parent's part."""
        return cls(SharedBuffer(), SharedBuffer())

    @classmethod
    def inherit(cls, descriptors: Sequence[int]) -> "BufferPair":
        """The buffers that the parent has made: the child's part."""
        to_child, to_parent = descriptors
        return cls(SharedBuffer(to_child), SharedBuffer(to_parent))

    @property
    def descriptors(self) -> list[int]:
        """What the child has to inherit, and to be told."""
        return [self.to_child.descriptor, self.to_parent.descriptor]

    def close(self) -> None:
        """Let go of both."""
        self.to_child.close()
        self.to_parent.close()
