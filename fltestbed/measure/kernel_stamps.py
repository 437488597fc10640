"""A TCP socket that knows when bytes crossed its host's edge, as the kernel saw it.

What a process reads has been there for a while: the process was not running, or another thread of it was. What it writes has
not left yet: a send buffer may hold seconds of it. The kernel notes both moments (SO_TIMESTAMPING, software stamps; see
Documentation/networking/timestamping.rst): a packet's when it came from the device's driver, and when it went there.

Those stamps are of CLOCK_REALTIME. Each is carried to the raw clock when it is read, by its distance from a look at both
clocks at that moment, so a step or slew of the wall clock matters only within that distance, milliseconds. The look has a
length (a process may lose its CPU in it): of what it leaves open an arrival takes the latest moment and a departure the
earliest, so no bound that is made of them is ever too narrow. A stamp is not believed that comes out later than now or more
than `MOST_DELAY_NS` ago: then the moment of reading counts, as with a device that stamps nothing.

What comes behind a gap can be read when the gap is filled, and carries the stamp of its own, earlier packet. So the moment
of reading counts also for what is read after packets have come out of order (the kernel counts them, since 5.4), until
nothing waits for a gap any more. By how much that may be too late is known as well (`arrival_uncertainty_ns`). The last byte
came no earlier than each of these: the stamp of what was read; the last reading before that left nothing to read, as what is
read now was not to be had then; and data in order, of which the kernel says in ticks of its timer how long ago it came. The
latter two are of when TCP had it: microseconds after the driver, unless the host's soft interrupts have to wait. With TLS
all this is of the encrypted bytes.

A stamp of sending comes with the place of its write in the stream (SOF_TIMESTAMPING_OPT_ID), so the first write of a message
and its last are told apart, also when one of them was lost and sent again: what counts is when it left for the first time.
The receiver's stamp says when it came.

One limit. The kernel joins packets that wait to be read and keeps the stamp of the last, so the first byte of a message that
is read late may seem later than it was, never by more than the reading was late.
"""

import contextlib
import select
import socket
import struct
from dataclasses import dataclass
from typing import Any

from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.measure.tcp import longest_silence_ns, out_of_order_packets

MOST_DELAY_NS = 1_000_000_000

# linux/socket.h, linux/net_tstamp.h
_SO_TIMESTAMPING = 37
_SO_MEMINFO, _MEMINFO_BYTES = 55, 4  # the first of its numbers: bytes received and not read, with the kernel's own
_MSG_ERRQUEUE = 0x2000
_TX_SOFTWARE, _RX_SOFTWARE, _SOFTWARE, _NUMBERED, _ONLY_STAMPS = 1 << 1, 1 << 3, 1 << 4, 1 << 7, 1 << 11
_TIMESPEC = struct.Struct("@qq")
# linux/errqueue.h: the last field of struct sock_extended_err is the number
_EXTENDED_ERROR = struct.Struct("@IBBBBII")
_ERROR_KINDS = ((socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25))  # IP_RECVERR, IPV6_RECVERR
_NUMBERS = 1 << 32
_ANCILLARY_BYTES = 256
_NS_PER_S = 1_000_000_000
_SHORT_LOOK_NS, _MOST_LOOKS = 10_000, 4


@dataclass(frozen=True)
class _Departure:
    """A write that has left: the place of its last byte in the stream, modulo 2**32, and when it left first."""

    number: int
    left_ns: int

    def bytes_after(self, other: "_Departure") -> int:
        """How many bytes later in the stream; negative for an earlier write."""
        return (self.number - other.number + _NUMBERS // 2) % _NUMBERS - _NUMBERS // 2


class StampedSocket(socket.socket):
    """A socket whose reads leave the kernel's stamps behind.

    Attributes
    ----------
    first_ns : int or None
        Raw clock when the first byte read after `expect` reached this host. Behind a gap it is too late by an unknown time;
        the bounds that are made of it grow by as much.
    arrived_ns : int or None
        Raw clock when the last byte read so far reached this host.
    arrival_uncertainty_ns : int
        By how much `arrived_ns` may be too late; 0 where it is the kernel's stamp.
    """

    def __init__(self, *arguments: Any, clock: Clock = SYSTEM_CLOCK, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.clock = clock
        self.first_ns: int | None = None
        self.arrived_ns: int | None = None
        self.arrival_uncertainty_ns = 0
        self._arrived_after_ns = 0  # of what `arrived_ns` is about
        self._drained_ns = 0  # before the last reading that left nothing to read
        self._written: int | None = None  # by `sendall`, after its first write since `begin_sending`
        self._first_left: _Departure | None = None
        self._last_left: _Departure | None = None
        self._out_of_order: int | None = 0
        self._has_gap = False
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
        self.stamp_sending(False)
        self._take_stamps()  # off the error queue, which nobody looks at while this is off
        self._is_on = on
        self._out_of_order, self._has_gap = out_of_order_packets(self), True
        self.first_ns = self.arrived_ns = None
        self.arrival_uncertainty_ns = 0
        self._first_left = self._last_left = None
        self._set(_RX_SOFTWARE if on else 0)

    def expect(self) -> None:
        """The next byte that is read is the first of a message."""
        self._take_stamps()  # a segment that was sent again is stamped again, when nobody waits for it any more
        self._is_fresh = True
        self.first_ns = None

    def begin_sending(self) -> None:
        """The next write is the first of a message; let the kernel stamp it, and what follows until `stamp_sending`."""
        self._take_stamps()
        self._first_left = self._last_left = None
        self._written = None
        self.stamp_sending(True)

    def stamp_sending(self, on: bool) -> None:
        """Let the kernel stamp what is sent from now on, or no longer."""
        if on == self._stamps_sending or not self._is_on:
            return
        self._stamps_sending = on
        # Numbers count from when they were asked for, so they stay on: those of one message have to be of one count.
        self._set(_RX_SOFTWARE | _ONLY_STAMPS | _NUMBERED | (_TX_SOFTWARE if on else 0))

    def began_ns(self) -> int | None:
        """Raw clock when the first write since `begin_sending` left this host; None if the kernel has not said."""
        self._take_stamps()
        return None if self._first_left is None else self._first_left.left_ns

    def left_ns(self) -> int | None:
        """Raw clock when the last stamped write left this host for the first time; None if the kernel has not said.

        After `sendall` the kernel has said so when the last byte has left, and not when an earlier one has.
        """
        self._take_stamps()
        if self._first_left is None or self._last_left is None:
            return None
        if self._written is not None and self._last_left.bytes_after(self._first_left) != self._written % _NUMBERS:
            return None
        return self._last_left.left_ns

    def _take_stamps(self) -> bool:
        """Take what there is off the error queue; False if it was empty."""
        timeout, found = self.gettimeout(), False
        if timeout != 0:
            self.settimeout(0)
        try:
            with contextlib.suppress(OSError):
                while True:
                    _, ancillary, _, _ = self.recvmsg(0, _ANCILLARY_BYTES, _MSG_ERRQUEUE)
                    self._note_departure(ancillary)
                    found = True
        finally:
            if timeout != 0:
                self.settimeout(timeout)
        return found

    def _note_departure(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        left_ns = self._read_stamp(ancillary, latest=False)
        numbers = [_EXTENDED_ERROR.unpack_from(data)[-1] for *kind, data in ancillary if tuple(kind) in _ERROR_KINDS]
        if left_ns is None or not numbers:
            return
        departure = _Departure(numbers[0], left_ns)
        if self._first_left is None or departure.bytes_after(self._first_left) < 0:
            self._first_left = departure
        if self._last_left is None or departure.bytes_after(self._last_left) > 0:
            self._last_left = departure

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As of any socket, but for stamps of sending: while one is there, the socket counts as ready, and Python's own
        sending would spin.

        Raises
        ------
        TimeoutError
            Nothing could be sent for as long as the socket's timeout.
        """
        timeout = self.gettimeout()
        if timeout == 0:
            super().sendall(data, flags)
            return
        left = memoryview(data).cast("B")
        self._written = 0 if self._written is None else self._written + len(left)
        self.settimeout(0)
        try:
            while left:
                try:
                    left = left[self.send(left, flags) :]
                except BlockingIOError:
                    self._wait(select.POLLOUT, timeout)
        finally:
            self.settimeout(timeout)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """As of any socket. It does not block in the middle, so a message's first byte may come by itself."""
        if not self._is_on:
            return super().recv(bufsize, flags)
        if self._stamps_sending or self._first_left is not None:
            self._take_stamps()  # as long as one is there, the socket counts as readable
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
        self._note_arrival(ancillary, before_ns, drained=count < len(view))
        if was_fresh:
            self._note_first()
        return count

    def _wait_readable(self) -> None:
        """Wait as a blocking socket does.

        Raises
        ------
        TimeoutError
        """
        timeout = self.gettimeout()
        if timeout != 0:
            self._wait(select.POLLIN, timeout)

    def _wait(self, event: int, timeout: float | None) -> None:
        """Wait until the socket is ready, and take stamps of sending off the error queue, for which it counts as ready."""
        poll = select.poll()
        poll.register(self, event)
        while ready := poll.poll(None if timeout is None else timeout * 1e3):
            if ready[0][1] & ~select.POLLERR or not self._take_stamps():
                return
        raise TimeoutError("timed out")

    def _receive(self, bufsize: int, flags: int) -> bytes:
        before_ns = self.clock.raw_ns()
        data, ancillary, _, _ = self.recvmsg(bufsize, _ANCILLARY_BYTES, flags)
        self._note_arrival(ancillary, before_ns, drained=len(data) < bufsize)
        return data

    def _note_arrival(self, ancillary: list[tuple[int, int, bytes]], before_ns: int, *, drained: bool) -> None:
        """Bytes have been read since `before_ns`, everything that could be if `drained`."""
        stamp = self._read_stamp(ancillary, latest=True)
        now = self.clock.raw_ns()
        if self._waited_for_a_gap(drained) or stamp is None or stamp > now:
            stamp, after = now, self._earliest(ancillary, now)
        else:
            after = stamp
        # The same stamp, read twice with a part of its packet each, comes out a little different: a look has a length.
        self.arrived_ns = max(stamp, self.arrived_ns or 0)
        # The last of several arrivals came no earlier than the earliest that any of them can have.
        self._arrived_after_ns = max(after, self._arrived_after_ns)
        self.arrival_uncertainty_ns = self.arrived_ns - self._arrived_after_ns
        if drained:
            self._drained_ns = before_ns

    def _earliest(self, ancillary: list[tuple[int, int, bytes]], now: int) -> int:
        """Raw clock when that which has just been read can have come at the earliest, where no stamp counts."""
        stamp, silence_ns = self._read_stamp(ancillary, latest=False), longest_silence_ns(self)
        bounds = (self._drained_ns, stamp or 0, 0 if silence_ns is None else now - silence_ns)
        return min(now, max(bounds))

    def _waited_for_a_gap(self, drained: bool) -> bool:
        """Whether what has just been read may have waited for a gap to be filled."""
        before, self._out_of_order = self._out_of_order, out_of_order_packets(self)
        waited = self._has_gap or self._out_of_order is None or self._out_of_order != before
        if waited:
            self._has_gap = not drained or self._holds_bytes()
        return waited

    def _holds_bytes(self) -> bool:
        """Whether the kernel holds anything that has come: after everything was read, what is behind a gap."""
        (held,) = struct.unpack_from("@I", self.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_BYTES))
        return bool(held)

    def _note_first(self) -> None:
        self._is_fresh = False
        self.first_ns = self.arrived_ns

    def _read_stamp(self, ancillary: list[tuple[int, int, bytes]], *, latest: bool) -> int | None:
        """The kernel's software stamp on the raw clock, at the latest or at the earliest; None if it cannot be believed."""
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING:
                seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                before_ns, wall_ns, after_ns = self._look()
                delay_ns = wall_ns - (seconds * _NS_PER_S + nanoseconds)
                return (after_ns if latest else before_ns) - delay_ns if 0 <= delay_ns <= MOST_DELAY_NS else None
        return None

    def _look(self) -> tuple[int, int, int]:
        """The wall clock between two readings of the raw clock; short, unless the process loses its CPU again and again."""
        for _ in range(_MOST_LOOKS):
            look = self.clock.raw_ns(), self.clock.wall_ns(), self.clock.raw_ns()
            if look[2] - look[0] < _SHORT_LOOK_NS:
                break
        return look

    def _set(self, flags: int) -> None:
        with contextlib.suppress(OSError):
            self.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, flags and flags | _SOFTWARE)
