"""The key by which Flower's server knows a node, and the signature of its requests."""

import contextlib
import fcntl
import os
import weakref
from base64 import b64encode
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from fltestbed.clock import Clock
from fltestbed.errors import HostError, ServerRefused
from fltestbed.security import files, node_keys
from fltestbed.text import printable

SIGNED_FOR_S = 30.0
"""How long a signed moment is used again. Flower takes it for 300 s; to sign and to check costs most of a small request."""
_LONGEST_RUN_S = 1e9
"""Beyond a date that is believed there are still dates to sign."""


class NodeKey:
    """The key by which the server knows a node again, kept in a file that nobody else can read.

    It is never unregistered: Flower does not take a key twice.

    Parameters
    ----------
    path : Path
        The private key; made, with its public half beside it, when it is not there.
    clock : Clock
    name : str
        Name of the client, which the public key is marked with.
    """

    def __init__(self, path: Path, clock: Clock, name: str = "") -> None:
        try:
            if not path.exists():
                _make_key(path, name)
            lock = os.open(path, os.O_RDONLY)
            self.release = weakref.finalize(self, os.close, lock)  # held as long as the key is in use
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._private = node_keys.decode_private(path.read_bytes())
        except BlockingIOError as error:
            raise HostError(
                f"{path}: another client of this host uses this key; give each client its own --name, or its own --state"
            ) from error
        except (OSError, ValueError) as error:
            raise HostError(
                f"{path}: the node's key cannot be read or made: {error}; give another --state, or --key"
            ) from error
        files.check_private(path)
        self.public = public_key_to_bytes(self._private.public_key())
        self._clock = clock
        self._server_minus_raw_s = clock.wall_ns() / 1e9 - clock.raw_ns() / 1e9
        self._signed: dict[str, str] = {}
        self._signed_ns = 0

    def learn_time(self, date_header: str) -> None:
        """Correct the time that is signed: a Pi without a battery may boot days in the past, and Flower refuses
        timestamps that are 5 s ahead or 305 s behind.
        """
        self._server_minus_raw_s = server_time_s(date_header) - self._clock.raw_ns() / 1e9
        self._signed = {}

    @property
    def wall_offset_s(self) -> float:
        """Server's wall clock minus this host's, from the server's Date header: to within a second."""
        return self._server_s() - self._clock.wall_ns() / 1e9

    def _server_s(self) -> float:
        """The server's wall clock. On this host's raw clock since `learn_time`, for its wall clock may step at any time."""
        return self._server_minus_raw_s + self._clock.raw_ns() / 1e9

    def headers(self) -> dict[str, str]:
        """Flower's three headers of a signed request; what is signed is the time, so they serve for `SIGNED_FOR_S`."""
        now_ns = self._clock.raw_ns()
        if not self._signed or now_ns - self._signed_ns > SIGNED_FOR_S * 1e9:
            self._signed, self._signed_ns = self._sign(), now_ns
        return self._signed

    def _sign(self) -> dict[str, str]:
        timestamp = datetime.fromtimestamp(self._server_s(), UTC).isoformat()
        signature = sign_message(self._private, timestamp.encode("ascii"))
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(self.public).decode("ascii"),
            TIMESTAMP_HEADER: timestamp,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode("ascii"),
        }

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Sign a request of Flower's own client."""
        context.request.headers.update(self.headers())
        return call_next(context)


def server_time_s(date_header: str) -> float:
    """The server's wall clock, in seconds since 1970, from its Date header.

    Raises
    ------
    ServerRefused
        It is no date, or one after which there are hardly any.
    """
    try:
        server_s = parsedate_to_datetime(date_header).timestamp()
        datetime.fromtimestamp(server_s + _LONGEST_RUN_S, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ServerRefused(
            f"the server says that it is {printable(date_header, 60)!r}, which is no date; is it a fltestbed server?"
        ) from error
    return server_s


def _make_key(path: Path, name: str) -> None:
    private = node_keys.make_private()
    with contextlib.suppress(FileExistsError):  # another process was first: its key is the one
        files.write_new(path, node_keys.encode_private(private))
        files.replace(path.with_suffix(node_keys.SUFFIX), node_keys.encode_public(private, name), files.PUBLIC_MODE)
