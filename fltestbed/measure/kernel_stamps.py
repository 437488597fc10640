"""A TCP socket that knows when bytes crossed its host's edge, as the kernel saw it.

What a process reads has been there for a while: the process was not running, or another thread of it was. What it writes has
not left yet: a send buffer may hold seconds of it. The kernel notes both moments (SO_TIMESTAMPING, software stamps; see
Documentation/networking/timestamping.rst): a packet's when it came from the device's driver, and when it went there.

Those stamps are of CLOCK_REALTIME. Each is carried to the raw clock when it is read, by its distance from a look at both
clocks at that moment, so a step or slew of the wall clock matters only within that distance, milliseconds. A stamp is not
believed that comes out later than now, before the one before it, more than `MOST_DELAY_NS` ago, or at a time when all there
was had been read (a gap was filled since): then the moment of reading counts. So does it where there is no stamp: with TLS
on a client, whose socket is OpenSSL's, or with a device that stamps nothing.

Two limits. The kernel joins packets that wait to be read and keeps the stamp of the last, so the first byte of a message
that is read late may seem later than it was, never by more than the reading was late. And a stamp of sending is of the
first time that the last byte left: if it was lost and sent again, the receiver's stamp says when it came.
"""

import contextlib
import select
import socket
import struct
from typing import Any

from fltestbed.clock import SYSTEM_CLOCK, Clock

MOST_DELAY_NS = 1_000_000_000

# linux/socket.h, linux/net_tstamp.h
_SO_TIMESTAMPING = 37
_MSG_ERRQUEUE = 0x2000
_TX_SOFTWARE, _RX_SOFTWARE, _SOFTWARE, _ONLY_STAMPS = 1 << 1, 1 << 3, 1 << 4, 1 << 11
_TIMESPEC = struct.Struct("@qq")
_ANCILLARY_BYTES = 256
_NS_PER_S = 1_000_000_000


class StampedSocket(socket.socket):
    """A socket whose reads leave the kernel's stamps behind.

    Attributes
    ----------
    first_ns : int or None
        Raw clock when the first byte read after `expect` reached this host.
    arrived_ns : int or None
        Raw clock when the last byte read so far reached this host.
    """

    def __init__(self, *arguments: Any, clock: Clock = SYSTEM_CLOCK, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.clock = clock
        self.first_ns: int | None = None
        self.arrived_ns: int | None = None
        self._drained_ns = 0  # everything that could be read then has been
        self._left_ns: int | None = None
        self._is_fresh = True
        self._is_on = True
        self._stamps_sending = False
        self._set(_RX_SOFTWARE)

    def accept(self) -> tuple["StampedSocket", Any]:
        """Accept a connection; its socket is of this kind as well."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]  # as socket.accept does
        return StampedSocket(self.family, self.type, self.proto, fileno=descriptor, clock=self.clock), address

    def switch(self, on: bool) -> None:
        """Be stamped from now on, or be like any other socket: then `first_ns` and `arrived_ns` are None."""
        if on == self._is_on:
            return
        if self._stamps_sending:
            self.stamp_sending(False)
        self.left_ns()  # off the error queue, which nobody looks at while this is off
        self._is_on = on
        self.first_ns = self.arrived_ns = None
        self._set(_RX_SOFTWARE if on else 0)

    def expect(self) -> None:
        """The next byte that is read is the first of a message."""
        self._take_stamps()  # a segment that was sent again is stamped again, when nobody waits for it any more
        self._is_fresh = True
        self.first_ns = None

    def stamp_sending(self, on: bool) -> None:
        """Let the kernel stamp what is sent from now on, or no longer."""
        if on:
            self.left_ns()
            self._left_ns = None
        self._stamps_sending = on
        self._set(_RX_SOFTWARE | (_TX_SOFTWARE | _ONLY_STAMPS if on else 0))

    def left_ns(self) -> int | None:
        """Raw clock when the last byte sent under `stamp_sending` left this host; None if the kernel has not said."""
        self._take_stamps()
        return self._left_ns

    def _take_stamps(self) -> bool:
        """Take what there is off the error queue; False if it was empty."""
        timeout, found = self.gettimeout(), False
        self.settimeout(0)
        try:
            with contextlib.suppress(OSError):
                while True:
                    _, ancillary, _, _ = self.recvmsg(0, _ANCILLARY_BYTES, _MSG_ERRQUEUE)
                    self._left_ns = max(self._read_stamp(ancillary) or 0, self._left_ns or 0) or None
                    found = True
        finally:
            self.settimeout(timeout)
        return found

    def wait_left(self, timeout_s: float) -> int | None:
        """Wait until the last byte has left this host, or an answer has come.

        Raises
        ------
        TimeoutError
        """
        poll = select.poll()
        poll.register(self, select.POLLIN)
        while (left := self.left_ns()) is None:
            ready = poll.poll(timeout_s * 1e3)
            if not ready:
                raise TimeoutError("timed out")
            if ready[0][1] & ~select.POLLERR:
                return self.left_ns()
        return left

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """As of any socket. It does not block in the middle, so a message's first byte may come by itself."""
        if not self._is_on:
            return super().recv(bufsize, flags)
        self._clear_errors()
        if not self._is_fresh:
            return self._receive(bufsize, flags)
        first = self._receive(1, flags)
        self._note_first()
        if not first or self.gettimeout() != 0:
            return first
        try:
            return first + self._receive(bufsize - 1, flags)
        except BlockingIOError:
            return first

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As of any socket."""
        if not self._is_on:
            return super().recv_into(buffer, nbytes, flags)
        view = memoryview(buffer).cast("B")[: nbytes or None]
        was_fresh = self._is_fresh
        view = view[:1] if was_fresh else view
        self._wait_readable()
        before_ns = self.clock.raw_ns()
        count, ancillary, _, _ = self.recvmsg_into([view], _ANCILLARY_BYTES, flags)
        self._note_arrival(ancillary, before_ns, count < len(view))
        if was_fresh:
            self._note_first()
        return count

    def _wait_readable(self) -> None:
        """Wait as a blocking socket does, and take stamps of sending off the error queue: while one is there, the socket
        counts as ready, and Python's own waiting would spin.

        Raises
        ------
        TimeoutError
        """
        timeout = self.gettimeout()
        if timeout == 0:
            return
        poll = select.poll()
        poll.register(self, select.POLLIN)
        while ready := poll.poll(None if timeout is None else timeout * 1e3):
            if ready[0][1] & ~select.POLLERR or not self._take_stamps():
                return
        raise TimeoutError("timed out")

    def _receive(self, bufsize: int, flags: int) -> bytes:
        before_ns = self.clock.raw_ns()
        data, ancillary, _, _ = self.recvmsg(bufsize, _ANCILLARY_BYTES, flags)
        self._note_arrival(ancillary, before_ns, len(data) < bufsize)
        return data

    def _note_arrival(self, ancillary: list[tuple[int, int, bytes]], before_ns: int, drained: bool) -> None:
        stamp = self._read_stamp(ancillary)
        now = self.clock.raw_ns()
        # Bytes that came behind a gap carry the stamp of their own packet, and not of the one that filled the gap: what
        # could not be read at `_drained_ns` has become whole since.
        floor = max(now - MOST_DELAY_NS, self.arrived_ns or 0, self._drained_ns)
        self._drained_ns = before_ns if drained else self._drained_ns
        self.arrived_ns = stamp if stamp is not None and floor <= stamp <= now else now

    def _note_first(self) -> None:
        self._is_fresh = False
        self.first_ns = self.arrived_ns

    def _read_stamp(self, ancillary: list[tuple[int, int, bytes]]) -> int | None:
        """The kernel's software stamp on the raw clock; None if there is none that can be believed."""
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING:
                seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                raw_ns, wall_ns = self.clock.raw_ns(), self.clock.wall_ns()
                delay_ns = wall_ns - (seconds * _NS_PER_S + nanoseconds)
                return raw_ns - delay_ns if 0 <= delay_ns <= MOST_DELAY_NS else None
        return None

    def _clear_errors(self) -> None:
        """Take the stamps of sending off the error queue: as long as they are there, the socket counts as readable."""
        if self._stamps_sending:
            self.left_ns()

    def _set(self, flags: int) -> None:
        with contextlib.suppress(OSError):
            self.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, flags and flags | _SOFTWARE)
