"""TLS over a socket that is stamped by the kernel.

Python's `ssl.SSLSocket` reads and writes its descriptor inside of OpenSSL, where no stamp can be had. Here OpenSSL works on
memory, and what it makes and wants goes through the `StampedSocket`: a transfer begins when its first encrypted byte leaves
the host, and ends when the last one has arrived, as it does without TLS.
"""

import io
import ssl
from typing import Any, cast

from fltestbed.measure.kernel_stamps import StampedSocket

RECORD_BYTES = 16 << 10
PIECE_BYTES = 256 << 10
"""Encrypted and sent at once: what is kept twice in memory."""


class TlsSocket:
    """As much of a connected socket as `http.client` uses, the handshake done.

    Parameters
    ----------
    sock : StampedSocket
        Connected; closed with this one.
    context : ssl.SSLContext
    name : str
        The name that the server's certificate has to be for.

    Raises
    ------
    OSError
        The handshake failed; an `ssl.SSLError` says what of it.
    """

    def __init__(self, sock: StampedSocket, context: ssl.SSLContext, name: str) -> None:
        self.stamped = sock
        self._files, self._is_closed = 0, False
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._buffer = bytearray(PIECE_BYTES)
        self._tls = context.wrap_bio(self._arrived, self._leaving, server_hostname=name)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            except ssl.SSLError:
                self._flush()  # the server's log says what was wrong with it
                raise
            else:
                self._flush()
                return

    def sendall(self, data: bytes | memoryview) -> None:
        """Encrypt and send."""
        with memoryview(data).cast("B") as left:
            for at in range(0, len(left), PIECE_BYTES):
                self._tls.write(left[at : at + PIECE_BYTES])
                self._flush()

    def recv_into(self, buffer: Any) -> int:
        """Wait for bytes and decrypt them; 0 when the connection has ended, of which HTTP knows whether it was too early."""
        with memoryview(buffer).cast("B") as view:
            while True:
                try:
                    return cast(int, self._tls.read(len(view), view))  # typeshed knows the one without a buffer
                except ssl.SSLWantReadError:
                    self._flush()
                    self._receive()
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return 0

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What the server says, as a file to read; the connection stays open until that is closed as well."""
        self._files += 1
        return io.BufferedReader(_Reader(self), RECORD_BYTES)

    def settimeout(self, timeout_s: float | None) -> None:
        """As of any socket."""
        self.stamped.settimeout(timeout_s)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """As of any socket."""
        self.stamped.setsockopt(level, option, value)

    def close(self) -> None:
        """Close the connection, without a word of farewell: nobody waits for one."""
        self._is_closed = True
        if not self._files:
            self.stamped.close()

    def file_closed(self) -> None:
        """One of the files is not needed any more."""
        self._files -= 1
        if self._is_closed:
            self.close()

    def _flush(self) -> None:
        if self._leaving.pending:
            self.stamped.sendall(self._leaving.read())

    def _receive(self) -> None:
        count = self.stamped.recv_into(self._buffer)
        if count:
            self._arrived.write(memoryview(self._buffer)[:count])
        else:
            self._arrived.write_eof()


class _Reader(io.RawIOBase):
    def __init__(self, sock: TlsSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._sock.file_closed()
        super().close()

    def readinto(self, buffer: Any) -> int:
        return self._sock.recv_into(buffer)
