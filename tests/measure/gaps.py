"""A real gap in a TCP stream: a socket filter takes packets of one length away before TCP sees them.

The sender sends them again, and when the filter is gone, what comes so fills the gap.
"""

import ctypes
import select
import socket
import struct

from fltestbed.measure.kernel_stamps import StampedSocket

TCP_HEADER_BYTES = 32  # with timestamps
_ATTACH_FILTER, _DETACH_FILTER = 26, 27  # linux/socket.h
_LOAD_LENGTH, _JUMP_IF_EQUAL, _RETURN = 0x80, 0x15, 0x06  # linux/bpf_common.h
LOST, BEHIND = 1000, 500
HOLD_NS = 100_000_000


def _lose(sock: socket.socket, payload_bytes: int) -> None:
    program = (
        (_LOAD_LENGTH, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, TCP_HEADER_BYTES + payload_bytes),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 0xFFFFFFFF),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("@HBBI", *step) for step in program))
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HL", len(program), ctypes.addressof(code)))


def fill_late(near: socket.socket, far: StampedSocket, lost_packet_bytes: int = LOST) -> tuple[int, int, int]:
    """Send two pieces, of `LOST` and `BEHIND` bytes, of which the first arrives `HOLD_NS` after the second, or later.

    Parameters
    ----------
    near, far : socket
        Both ends; everything that was sent has been read.
    lost_packet_bytes : int
        What the first piece is in its packet: with TLS there is more around it.

    Returns
    -------
    int, int, int
        Raw clock of `far` when both had been sent, when the gap could be filled at the earliest, and when it had been.
    """
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _lose(far, lost_packet_bytes)
    near.sendall(b"a" * LOST)
    near.sendall(b"b" * BEHIND)
    sent = far.clock.raw_ns()
    while far.clock.raw_ns() < sent + HOLD_NS:
        pass
    before = far.clock.raw_ns()
    far.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
    readable = select.poll()  # which takes descriptors of any number
    readable.register(far, select.POLLIN)
    assert readable.poll(10_000)
    return sent, before, far.clock.raw_ns()
