"""How clients get into a server: over TLS or not, and with which keys. Read before anything is made for a run."""

import ssl
from dataclasses import dataclass
from typing import Any, Self

from fltestbed.clock import Clock
from fltestbed.config import Server
from fltestbed.errors import ConfigError
from fltestbed.security.folder import CertificateFolder
from fltestbed.security.node_keys import RegisteredKey, read_registered
from fltestbed.server.gate import is_loopback


@dataclass(frozen=True)
class Admission:
    """What a server asks of its clients, and shows them.

    Attributes
    ----------
    tls : ssl.SSLContext or None
        None is plain HTTP.
    registered : tuple of RegisteredKey or None
        The keys that may join; None takes any.
    description : dict
        The same for the manifest, without secrets.
    """

    tls: ssl.SSLContext | None
    registered: tuple[RegisteredKey, ...] | None
    description: dict[str, Any]

    @classmethod
    def read(cls, server: Server, clock: Clock, *, emulated: bool) -> Self:
        """Read certificate, key and list as the configuration says.

        Raises
        ------
        ConfigError, HostError
            Something is missing or not usable.
        """
        tls, certificate = None, None
        if _wants_tls(server, emulated=emulated):
            folder = CertificateFolder(server.certificates, clock)
            try:
                tls, certificate = folder.server_context(), folder.describe()
            except ConfigError as error:
                raise ConfigError(f"{error}; or say tls = false under [server] to go without TLS") from error
        registered = read_registered(server.node_keys) if server.node_keys is not None else None
        names = None if registered is None else [key.name for key in registered]
        return cls(tls, registered, {"tls": certificate, "registered_nodes": names})


def _wants_tls(server: Server, *, emulated: bool) -> bool:
    """TLS as asked for; unasked, wherever somebody else could listen in."""
    if server.tls is not None:
        return server.tls
    return not emulated and server.host != "localhost" and not is_loopback((server.host, server.port))
