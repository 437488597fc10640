"""A client's side of TLS: which server it believes, and what the time has to do with it.

A certificate is valid between two dates, and a Raspberry Pi has no clock that survives a power cut: in an isolated lab it
boots days in the past. So:

- When the kernel says that this host's clock is synchronised (chrony, ntpd, timesyncd), OpenSSL checks everything, dates
  included, by this host's clock.
- When it does not, OpenSSL checks the CA's signature, the name and the possession of the key, but no dates. They are checked
  here, by the server's clock: its Date header, read over the connection that was just authenticated. Until then one request
  without content is all that goes out.
- The latest time that a server was believed at is kept in the client's state folder, and no earlier time is believed later.

What that gives away: who holds the private key of an *expired* certificate of the testbed, and sits on the path, can lie
about the time to a client whose clock is not synchronised and that has met no honest server since the certificate expired.
A lie cannot reach beyond the certificate's own dates. With chrony on the Pis (against the radio host) nothing is given away.
"""

import ctypes
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from fltestbed.clock import Clock
from fltestbed.errors import ConfigError
from fltestbed.security import files
from fltestbed.security.authority import at, outdated

NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for."""

FLOOR_FILE = "server-time"
RENEW = "make a new one on the server with: fltestbed certs --renew"

_TIME_ERROR = 5
_OTHER_NAME = "is not for this name or address; add it on the server: fltestbed certs --renew --address ADDRESS"
_REFUSED = {
    9: "or that of its CA is not valid yet by this host's clock, which is synchronised; check the server's clock",
    10: f"or that of its CA has expired by this host's clock; {RENEW}",
    62: _OTHER_NAME,
    64: _OTHER_NAME,
}
"""What OpenSSL's codes X509_V_ERR_* mean here; all others mean another CA."""


class CertificateOutdated(ssl.SSLError):
    """The server's certificate, or its CA's, is not valid at the time that counts."""


class ServerTrust:
    """What a client believes a server by.

    Parameters
    ----------
    ca : Path
        The testbed's CA certificate (or several in one file), PEM.
    state : Path
        Folder in which the client keeps the latest time that it has learnt.
    clock : Clock
    synchronised : callable () -> bool
        Whether this host's wall clock can be relied on.
    """

    def __init__(self, ca: Path, state: Path, clock: Clock, synchronised: Callable[[], bool] | None = None) -> None:
        self.ca = ca
        self._clock = clock
        self._floor_file = state / FLOOR_FILE
        self._floor_ns = self._read_floor()
        self._offset_ns: int | None = None
        self._seen: x509.Certificate | None = None
        self.by_own_clock = (synchronised or clock_is_synchronised)()
        self.pem = files.read(ca, "the CA's certificate", "copy ca.crt from the server's folder of certificates")
        try:
            self._authorities = x509.load_pem_x509_certificates(self.pem)
            self.context = self._make_context()
        except (ValueError, ssl.SSLError) as error:
            raise ConfigError(f"--ca {ca}: not a certificate in PEM format; it wants the testbed's ca.crt") from error

    def learn_time(self, offset_s: float) -> None:
        """Take the server's clock, and check the certificate that it came with.

        Parameters
        ----------
        offset_s : float
            The server's wall clock minus this host's, from the Date header of the connection that was opened last.

        Raises
        ------
        CertificateOutdated
        """
        if self.by_own_clock or self._seen is None:
            return
        self._offset_ns = int(offset_s * 1e9)
        self._check(self._seen)
        now_ns = self._now_ns()
        if now_ns > self._floor_ns:
            self._floor_ns = now_ns
            with suppress(OSError):  # a client without a place for it runs all the same
                files.replace(self._floor_file, b"%d\n" % now_ns, files.PUBLIC_MODE)

    def describe(self) -> dict[str, Any]:
        """How the server was believed, for the manifest."""
        return {
            "clock_synchronised": self.by_own_clock,
            "dates_checked_by": "this host's clock" if self.by_own_clock else "the server's Date header",
        }

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=self.pem.decode("ascii"))
        if not self.by_own_clock:
            context.verify_flags |= NO_CHECK_TIME
            context.sslsocket_class, context.sslobject_class = _checking(self._meet)
        return context

    def _meet(self, certificate: bytes) -> None:
        """Check a certificate as soon as the handshake is over, before anything is sent."""
        self._seen = x509.load_der_x509_certificate(certificate)
        if self._offset_ns is not None or at(self._floor_ns) > self._seen.not_valid_after_utc:
            self._check(self._seen)

    def _check(self, certificate: x509.Certificate) -> None:
        now = at(self._now_ns())
        problem = outdated(certificate, now)
        if problem is not None:
            raise CertificateOutdated(
                f"the server's certificate {problem} (it is {now:%Y-%m-%d %H:%M} by the server); {RENEW}"
            )
        issuers = [ca for ca in self._authorities if _has_issued(ca, certificate)]
        problems = [outdated(ca, now) for ca in issuers]
        if problems and None not in problems:
            raise CertificateOutdated(f"{self.ca}: the CA's certificate {problems[0]}; {RENEW}, and copy ca.crt again")

    def _now_ns(self) -> int:
        return max(self._clock.wall_ns() + (self._offset_ns or 0), self._floor_ns)

    def _read_floor(self) -> int:
        try:
            return int(self._floor_file.read_text())
        except (OSError, ValueError):
            return 0


def clock_is_synchronised() -> bool:
    """Whether the kernel says that something keeps this host's wall clock right (adjtimex)."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # struct timex, zeros: change nothing
    except AttributeError:
        return False
    return bool(0 <= state < _TIME_ERROR)


def why_not_trusted(error: Exception, ca: Path) -> str | None:
    """What a failed connection says about the server's identity, and what to do; None when it says nothing."""
    if isinstance(error, CertificateOutdated):
        return str(error.args[0])
    if isinstance(error, ssl.SSLCertVerificationError):
        other_ca = f"was not signed by the CA in {ca} ({error.verify_message}); is it a copy of the server's ca.crt?"
        return f"the server's certificate {_REFUSED.get(error.verify_code, other_ca)}"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "the server does not speak TLS; leave --ca out, or say tls = true in the server's configuration"
    return None


def _has_issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _checking(check: Callable[[bytes], None]) -> tuple[type[ssl.SSLSocket], type[ssl.SSLObject]]:
    """Classes that show each server's certificate to `check` before anything is sent: httpx's, and the client's own."""

    class CheckedSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            check(self.getpeercert(binary_form=True) or b"")

    class CheckedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            check(self.getpeercert(binary_form=True) or b"")

    return CheckedSocket, CheckedObject
