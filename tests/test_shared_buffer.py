"""Bytes that two processes share."""

import os
import subprocess
import sys

import pytest

from fltestbed.shared_buffer import KEPT_BYTES, SharedBuffer

READER = """
import sys
from fltestbed.shared_buffer import SharedBuffer
buffer = SharedBuffer(int(sys.argv[1]))
assert bytes(buffer.read(6)) == b"abcdef"
buffer.free()
buffer.write([b"xyz"])
"""


@pytest.fixture
def buffer() -> SharedBuffer:
    return SharedBuffer()


def test_another_process_reads_what_was_written(buffer: SharedBuffer) -> None:
    """The parts lie one after the other, and what the other process writes is read here."""
    assert buffer.write([b"ab", bytearray(b"cd"), memoryview(b"ef")]) == 6
    subprocess.run([sys.executable, "-c", READER, str(buffer.descriptor)], pass_fds=[buffer.descriptor], check=True)
    assert bytes(buffer.read(3)) == b"xyz"
    buffer.close()


def test_memory_is_given_back(buffer: SharedBuffer) -> None:
    """A buffer that was freed holds no more than it may keep, and takes the next content all the same."""
    content = b"x" * (KEPT_BYTES + (1 << 20))
    buffer.write([content])
    assert os.fstat(buffer.descriptor).st_blocks * 512 >= len(content)
    buffer.free()
    assert 0 < os.fstat(buffer.descriptor).st_blocks * 512 <= KEPT_BYTES
    buffer.write([content])
    assert bytes(buffer.read(len(content))) == content
    buffer.close()


def test_what_was_read_outlives_the_buffer(buffer: SharedBuffer) -> None:
    """A view stays valid after `close`, which may be called twice."""
    buffer.write([b"content"])
    view = buffer.read(7)
    buffer.close()
    buffer.close()
    assert bytes(view) == b"content"
