"""A transfer that stalls is given up and tried again, long before TCP by itself would notice that the link is back.

TCP doubles its retransmission timeout each time nothing comes back (RFC 6298, section 5.5), so after an outage of half a
minute it may stay silent for another. Two things are done about it, while a request is under way and at no other time, for a
radio between two requests has a right to sleep:

* what was sent and is not acknowledged: `StallGuard` asks the kernel twice a second, and gives the connection up when
  it has sent again and heard nothing for `fltestbed.measure.tcp_path.STALL_S`;
* what is awaited: the kernel asks the server's host whether it still knows the connection (TCP keepalive), so one that the
  server has given up, or whose host is gone, breaks here as well.

Then whoever sends opens another connection, one attempt each second or two, until one stands.
"""

import socket
import threading
import time
import weakref

from fltestbed.measure.tcp_path import STALL_S, abandon, path_state, probe_while_waiting

LOOK_S = 0.5
CONNECT_S = 2.0
"""For one attempt to connect. Linux sends its first packet at once, the second after a second, others later."""


class StallGuard:
    """Watches the socket of the request that is under way, from a thread that ends with this object."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why the last watched connection was given up; None if it was not."""
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def begin(self, sock: socket.socket) -> None:
        """A request begins."""
        self.reason = None
        probe_while_waiting(sock, True)
        self._socket = sock
        if self._thread is None:
            self._thread = threading.Thread(target=_watch, args=(weakref.ref(self),), name="stall-guard", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """The request is over, however it ended."""
        sock, self._socket = self._socket, None
        if sock is not None and sock.fileno() >= 0:
            probe_while_waiting(sock, False)

    def look(self) -> None:
        """Give the connection up if nothing goes over it."""
        sock = self._socket
        path = path_state(sock) if sock is not None else None
        if sock is not None and path is not None and path.is_stalled(STALL_S):
            self.reason = f"stalled: the server's host acknowledged nothing for {path.ack_silence_s:.1f} s"
            abandon(sock)


def _watch(reference: "weakref.ref[StallGuard]") -> None:
    while (guard := reference()) is not None:
        guard.look()
        del guard
        time.sleep(LOOK_S)
