"""The folder that `fltestbed certs` makes and a server reads.

::

    certs/ca.key           signs; stays on the host where it was made, needed by `fltestbed certs` alone
    certs/ca.crt           public: each client gets a copy
    certs/server.key       the server's, nobody else's
    certs/server.crt       public: for all names and addresses of the server
    certs/nodes/NAME.key   a client's: goes to that client and may then be deleted here
    certs/nodes/NAME.pub   public: the server's list of who may join
"""

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fltestbed.clock import Clock
from fltestbed.errors import ConfigError
from fltestbed.security import files, node_keys
from fltestbed.security.addresses import addresses_of, in_order, own_addresses
from fltestbed.security.authority import SERVER_DAYS, Authority, Identity, at, outdated

CA_NAME = "ca"
SERVER_NAME = "server"
NODES = "nodes"
_MAKE = "make it with: fltestbed certs"


@dataclass(frozen=True)
class Step:
    """What was done with one file: "made", "kept" or "replaced"."""

    done: str
    path: Path
    detail: str = ""


@dataclass(frozen=True)
class CertificateFolder:
    """The certificates and keys of one testbed.

    Attributes
    ----------
    path : Path
    clock : Clock
        Its wall clock says what is valid.
    """

    path: Path
    clock: Clock

    @property
    def ca_certificate(self) -> Path:
        """What clients need to believe the server."""
        return self.path / f"{CA_NAME}.crt"

    @property
    def nodes(self) -> Path:
        """The folder of the nodes' keys."""
        return self.path / NODES

    def node_key(self, name: str) -> Path:
        """A node's private key."""
        return self.nodes / f"{name}.key"

    def make(
        self,
        addresses: tuple[str, ...] = (),
        nodes: tuple[str, ...] = (),
        *,
        days: int = SERVER_DAYS,
        renew: bool = False,
        found: tuple[str, ...] | None = None,
    ) -> list[Step]:
        """Make what is missing; what is there is kept.

        Parameters
        ----------
        addresses : tuple of str
            Names and addresses that the server's certificate has to be for, besides those of this host.
        nodes : tuple of str
            Clients that get a key.
        days : int
            How long a new server certificate is valid.
        renew : bool
            Make the server's certificate and key again, for the addresses of the old one too; and the CA's certificate (with
            its old key) when it would end before the server's.
        found : tuple of str, optional
            This host's own names and addresses; None looks.

        Raises
        ------
        ConfigError
            What is there does not do: it lacks an address, has expired, does not belong together.
        """
        found = own_addresses() if found is None else found
        authority, steps = self._authority(days, renew=renew)
        steps += self._server(authority, in_order(addresses), found, days, renew=renew)
        for name in nodes:
            steps += self._node(name)
        return steps

    def server_context(self) -> ssl.SSLContext:
        """TLS for the server: version 1.3, its certificate and key.

        Raises
        ------
        ConfigError, HostError
            A file is missing, readable by everybody, does not belong to the other, or the certificate is not valid now.
        """
        certificate = self._certificate(SERVER_NAME)
        problem = outdated(certificate, self._now())
        if problem is not None:
            raise ConfigError(
                f"{self._file(SERVER_NAME, 'crt')}: the server's certificate {problem}; make a new one with: "
                f"fltestbed certs {self.path} --renew (or set this host's clock: it is at {self._now():%Y-%m-%d %H:%M} UTC)"
            )
        key = self._file(SERVER_NAME, "key")
        files.read(key, "the server's key", _MAKE)
        files.check_private(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0  # nobody resumes, and their bytes would come in the first measured answer
        try:
            context.load_cert_chain(self._file(SERVER_NAME, "crt"), key)
        except ssl.SSLError as error:
            raise ConfigError(
                f"{key}: does not belong to {SERVER_NAME}.crt ({error.reason}); make both again with: "
                f"fltestbed certs {self.path} --renew"
            ) from error
        return context

    def describe(self) -> dict[str, Any]:
        """The server's certificate for the manifest: nothing of it is secret."""
        certificate = self._certificate(SERVER_NAME)
        return {
            "certificate_addresses": list(addresses_of(certificate)),
            "not_before": certificate.not_valid_before_utc.isoformat(),
            "not_after": certificate.not_valid_after_utc.isoformat(),
            "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        }

    def _authority(self, days: int, *, renew: bool) -> tuple[Authority | None, list[Step]]:
        """The CA; None where its key is not kept, which only matters when something is to be signed."""
        now = self._now()
        key_file, file = self._file(CA_NAME, "key"), self.ca_certificate
        if not key_file.exists() and not file.exists():
            authority = Authority.make(now)
            files.write_new(key_file, authority.key_pem)
            files.write_new(file, authority.certificate_pem, files.PUBLIC_MODE)
            return authority, [Step("made", key_file, "keep it here"), Step("made", file, "copy it to each client")]
        certificate = self._certificate(CA_NAME)
        if not key_file.exists():
            return None, [Step("kept", file)]
        files.check_private(key_file)
        authority = Authority(_load_key(key_file), certificate)
        if not _belongs(authority):
            raise ConfigError(f"{key_file}: does not belong to {file}; move both away to make a new CA")
        if renew and (certificate.not_valid_after_utc - now).days < days:
            authority = Authority.make(now, key=authority.key)
            files.replace(file, authority.certificate_pem, files.PUBLIC_MODE)
            return authority, [Step("kept", key_file), Step("replaced", file, "copy it to each client again")]
        return authority, [Step("kept", key_file), Step("kept", file)]

    def _server(
        self, authority: Authority | None, given: tuple[str, ...], found: tuple[str, ...], days: int, *, renew: bool
    ) -> list[Step]:
        now = self._now()
        key_file, file = self._file(SERVER_NAME, "key"), self._file(SERVER_NAME, "crt")
        old: tuple[str, ...] = ()
        if file.exists():
            certificate = self._certificate(SERVER_NAME)
            old = addresses_of(certificate)
            if not renew:
                self._check_server(certificate, given)
                end = f"until {certificate.not_valid_after_utc:%Y-%m-%d}"
                return [Step("kept", key_file), Step("kept", file, f"{end}, for {', '.join(old)}")]
        if authority is None:
            raise ConfigError(f"{self._file(CA_NAME, 'key')}: the CA's key is not here; sign where it is kept")
        addresses = in_order([*old, *given, *found])
        server = authority.issue(addresses, now, days)
        done = "replaced" if file.exists() else "made"
        files.replace(key_file, server.key_pem)
        files.replace(file, server.certificate_pem, files.PUBLIC_MODE)
        end = f"until {server.certificate.not_valid_after_utc:%Y-%m-%d}"
        return [Step(done, key_file), Step(done, file, f"{end}, for {', '.join(addresses)}")]

    def _check_server(self, certificate: x509.Certificate, given: tuple[str, ...]) -> None:
        file = self._file(SERVER_NAME, "crt")
        lacking = [address for address in given if address not in addresses_of(certificate)]
        if lacking:
            raise ConfigError(f"{file}: is not for {', '.join(lacking)}; add --renew to make it again for these too")
        problem = outdated(certificate, self._now())
        if problem is not None:
            raise ConfigError(f"{file}: {problem}; add --renew to make it again")
        try:
            certificate.verify_directly_issued_by(self._certificate(CA_NAME))
        except (InvalidSignature, ValueError) as error:
            raise ConfigError(f"{file}: was not signed by {self.ca_certificate}; add --renew to make it again") from error

    def _node(self, name: str) -> list[Step]:
        file, public = self.node_key(name), self.nodes / f"{name}{node_keys.SUFFIX}"
        if public.exists() and not file.exists():
            return [Step("kept", public, f"the private key is with {name}")]
        made = not file.exists()
        if made:
            files.write_new(file, node_keys.encode_private(node_keys.make_private()))
        files.check_private(file)
        line = node_keys.encode_public(_load_node_key(file), name)
        if not public.exists():
            files.write_new(public, line, files.PUBLIC_MODE)
            return [Step("made" if made else "kept", file, f"copy it to {name}"), Step("made", public)]
        if public.read_bytes().split()[:2] != line.split()[:2]:
            raise ConfigError(f"{public}: does not belong to {file}; move one of them away")
        return [Step("kept", file), Step("kept", public)]

    def _now(self) -> datetime:
        return at(self.clock.wall_ns())

    def _file(self, name: str, suffix: str) -> Path:
        return self.path / f"{name}.{suffix}"

    def _certificate(self, name: str) -> x509.Certificate:
        file = self._file(name, "crt")
        data = files.read(file, "a certificate", f"{_MAKE} {self.path}")
        try:
            return x509.load_pem_x509_certificate(data)
        except ValueError as error:
            raise ConfigError(f"{file}: not a certificate in PEM format; {_MAKE} {self.path}") from error


def _load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{file}: not a private key without a password: {error}; make one with: fltestbed certs"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{file}: not an ECDSA key; move the CA away to make a new one")
    return key


def _load_node_key(file: Path) -> node_keys.PrivateKey:
    try:
        return node_keys.decode_private(file.read_bytes())
    except ValueError as error:
        raise ConfigError(
            f"{file}: not a node's private key: {error}; make one with: fltestbed certs --node NAME"
        ) from error


def _belongs(identity: Identity) -> bool:
    return identity.key.public_key() == identity.certificate.public_key()
