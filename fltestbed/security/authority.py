"""A testbed's certificate authority: makes its own certificate and signs the server's.

Keys are ECDSA over P-256: small, quick to verify on a Pi, and known to every OpenSSL. Certificates carry what strict
verification (RFC 5280, and Python's default from 3.13 on) asks for.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fltestbed.security.addresses import alternative_names

AUTHORITY_DAYS = 3650
SERVER_DAYS = 365
BACKDATED = timedelta(hours=1)
"""A certificate is valid from a little before it was made: the clocks of two hosts are never quite the same."""

PrivateKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Identity:
    """A certificate and the private key that belongs to it."""

    key: PrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        """The private key, PKCS#8, not encrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def certificate_pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class Authority(Identity):
    """A CA that signs servers' certificates and nothing else: it cannot make other CAs."""

    @classmethod
    def make(cls, now: datetime, days: int = AUTHORITY_DAYS, key: PrivateKey | None = None) -> Self:
        """A CA that is valid for so many days; with `key`, the same one again for longer."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fltestbed CA")])
        usage = _usage(key_cert_sign=True, crl_sign=True)
        certificate = (
            _builder(name, name, key.public_key(), now, now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    def issue(self, addresses: tuple[str, ...], now: datetime, days: int = SERVER_DAYS) -> Identity:
        """A server's certificate for all of `addresses`, with a new key; it does not outlive the CA."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fltestbed server")])
        end = min(now + timedelta(days=days), self.certificate.not_valid_after_utc)
        certificate = (
            _builder(name, self.certificate.subject, key.public_key(), now, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(alternative_names(addresses), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Identity(key, certificate)


def outdated(certificate: x509.Certificate, now: datetime) -> str | None:
    """Why a certificate is not valid at a moment: "expired on ..." or "is not valid before ..."; None when it is valid."""
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return None


def at(wall_ns: int) -> datetime:
    """A wall clock's nanoseconds since 1970 as a date."""
    return datetime.fromtimestamp(wall_ns / 1e9, UTC)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now - BACKDATED, end))
        .not_valid_after(end)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature, key_cert_sign=key_cert_sign, crl_sign=crl_sign, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
