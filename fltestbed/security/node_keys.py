"""The keys of nodes: ECDSA over P-384 as Flower makes them, in OpenSSH's format, which a stock flower-supernode reads too.

A list of registered keys is a folder of `NAME.pub` files, whose names are the clients' names, or one file of such lines (as
in authorized_keys), where the comment at the end of a line is the client's name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fltestbed.config_file import NAME_PATTERN
from fltestbed.errors import ConfigError
from fltestbed.security import files

SUFFIX = ".pub"

PrivateKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class RegisteredKey:
    """A public key that the server lets in.

    Attributes
    ----------
    public : bytes
        As Flower compares it: PEM, SubjectPublicKeyInfo.
    name : str or None
        The client whose key it is; None lets it use any name.
    """

    public: bytes
    name: str | None


def make_private() -> PrivateKey:
    """A new key of a node."""
    return ec.generate_private_key(ec.SECP384R1())


def encode_private(key: PrivateKey) -> bytes:
    """The file that the node keeps, not encrypted."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())


def decode_private(data: bytes) -> PrivateKey:
    """Read a node's private key, OpenSSH's format or PKCS#8.

    Raises
    ------
    ValueError
        It is no private key, is encrypted, or is not ECDSA.
    """
    try:
        load = serialization.load_ssh_private_key if b"OPENSSH" in data[:40] else serialization.load_pem_private_key
        key = load(data, None)
    except (TypeError, UnsupportedAlgorithm) as error:  # TypeError: a password is wanted
        raise ValueError(str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")  # noqa: TRY004  # of the file's content, not of an argument
    return key


def encode_public(key: PrivateKey, name: str) -> bytes:
    """The line that the server wants in its list."""
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line + f" {name}\n".encode()


def read_registered(path: Path) -> tuple[RegisteredKey, ...]:
    """Read the list of the keys that may join.

    Parameters
    ----------
    path : Path
        A folder of `NAME.pub` files, or a file of public keys, one a line; empty lines and lines with # are skipped.

    Raises
    ------
    ConfigError
        It is not there, holds no key, the same key twice, or something that is no ECDSA public key in OpenSSH's format.
    """
    entries = list(_folder(path) if path.is_dir() else _lines(path))
    if not entries:
        raise ConfigError(f"{path}: no public key there; make some with: fltestbed certs --node NAME")
    owners: dict[bytes, str] = {}
    for key, place in entries:
        if key.public in owners:
            raise ConfigError(f"{place}: the same key as {owners[key.public]}; each client needs one of its own")
        owners[key.public] = place
    return tuple(key for key, _ in entries)


def _folder(path: Path) -> Iterator[tuple[RegisteredKey, str]]:
    for file in sorted(path.glob(f"*{SUFFIX}")):
        line = files.read(file, "a node's public key", "see server.node-keys").strip()
        yield RegisteredKey(_decode_public(line, str(file)), file.stem), str(file)


def _lines(path: Path) -> Iterator[tuple[RegisteredKey, str]]:
    data = files.read(path, "the list of the nodes' public keys", "make it with: fltestbed certs --node NAME")
    for number, line in enumerate(data.splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith(b"#"):
            place = f"{path}:{number}"
            comment = words[2].decode(errors="replace") if len(words) == 3 else ""
            name = comment if re.fullmatch(NAME_PATTERN, comment) else None
            yield RegisteredKey(_decode_public(line, place), name), place


def _decode_public(line: bytes, place: str) -> bytes:
    try:
        key = serialization.load_ssh_public_key(line)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{place}: not a public key in OpenSSH's format (ecdsa-sha2-nistp384 AAAA... name); make one "
            "with: fltestbed certs --node NAME"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{place}: not an ECDSA key; Flower takes no other: ssh-keygen -t ecdsa -b 384")
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
