"""Whether a TCP connection still carries anything: what the kernel knows of the way to the other host, and how it asks."""

import contextlib
import socket
import struct
from dataclasses import dataclass

from fltestbed.measure.tcp import tcp_info

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
PROBE_IDLE_S = 2
PROBE_INTERVAL_S = 1
PROBES = 3
STALL_S = 3.0
"""A transfer is stalled when the other host has acknowledged nothing for so long and what was sent is sent again and again.
TCP alone may wait two minutes until it tries once more after an outage (RFC 6298, section 5.5: the timeout doubles)."""


@dataclass(frozen=True)
class PathState:
    """What the kernel knows of the way to the other side at one moment.

    Attributes
    ----------
    unacked_segments : int
        Sent and not acknowledged.
    unsent_bytes : int
        Handed to the kernel and not sent yet.
    timeouts : int
        Retransmission timeouts in a row without an acknowledgement of anything new (tcpi_retransmits).
    ack_silence_s, data_silence_s : float
        Since the last acknowledgement of any kind, and since the last data, came from the other side.
    acked_bytes : int
        That the other host has acknowledged since the connection was made; known also when it has been reset.
    """

    unacked_segments: int
    unsent_bytes: int
    timeouts: int
    ack_silence_s: float
    data_silence_s: float
    acked_bytes: int

    @property
    def is_delivered(self) -> bool:
        """Whether the other host has acknowledged all that was handed to the kernel here."""
        return not self.unacked_segments and not self.unsent_bytes

    def is_stalled(self, silence_s: float) -> bool:
        """Whether what was sent is neither acknowledged nor refused: the kernel has sent it again and hears nothing so long.

        A receiver that lives and is too slow, or stopped, acknowledges what it has and closes its window: nothing is then
        unacknowledged, and the connection is not stalled in this sense.
        """
        return self.unacked_segments > 0 and self.timeouts > 0 and self.ack_silence_s >= silence_s


def path_state(sock: socket.socket) -> PathState | None:
    """Read it of a connected socket; None if it is closed already."""
    info = tcp_info(sock)
    if info is None:
        return None
    return PathState(
        info.unacked, info.notsent_bytes, info.retransmits, info.last_ack_recv / 1e3, info.last_data_recv / 1e3,
        info.bytes_acked,
    )  # fmt: skip


def probe_while_waiting(sock: socket.socket, on: bool) -> None:
    """Let the kernel ask the other host whether it is there while nothing comes from it (TCP keepalive), or no longer.

    After `PROBE_IDLE_S` of silence an empty segment goes out each `PROBE_INTERVAL_S`; `PROBES` of them unanswered, or a host
    that has forgotten the connection, break it.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(on))
    if on:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_INTERVAL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


def abandon(sock: socket.socket) -> None:
    """Give a connection up: whoever reads or writes it is woken, and what it holds is not sent any more, only a reset."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        sock.shutdown(socket.SHUT_RDWR)
