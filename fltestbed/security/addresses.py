"""Under which names and addresses clients may reach this host: what a server's certificate is for."""

import ipaddress
import re
import socket
from collections.abc import Iterable

import psutil
from cryptography import x509

from fltestbed.errors import ConfigError

_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


def own_addresses() -> tuple[str, ...]:
    """Name of this host, the same in the local domain (mDNS), localhost, and the addresses of all interfaces."""
    name = socket.gethostname()
    names = [name, f"{name.partition('.')[0]}.local", "localhost"]
    found = [
        address.address.partition("%")[0]  # a link-local address without the interface that it is valid on
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return in_order([*(name for name in names if _HOST_NAME.fullmatch(name)), *found])


def in_order(addresses: Iterable[str]) -> tuple[str, ...]:
    """The same in one spelling, without repetitions: names first, then addresses."""
    spelled = dict.fromkeys(_spelled(address) for address in addresses)
    return tuple(sorted(spelled, key=_is_ip))


def check_address(option: str, given: str) -> str:
    """Return an address from the command line in its usual spelling.

    Raises
    ------
    ConfigError
        It is neither a host name nor an IPv4 or IPv6 address.
    """
    bare = given.strip("[]")
    if not _is_ip(bare) and not _HOST_NAME.fullmatch(bare):
        raise ConfigError(
            f"{option} {given}: neither a host name nor an address; for example radio-host, 10.0.0.1 or fd00::1"
        )
    return _spelled(bare)


def alternative_names(addresses: Iterable[str]) -> x509.SubjectAlternativeName:
    """The certificate extension that says all of them."""
    return x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address(a)) if _is_ip(a) else x509.DNSName(a) for a in addresses]
    )


def addresses_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Host names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return in_order([*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))])


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _spelled(address: str) -> str:
    return str(ipaddress.ip_address(address)) if _is_ip(address) else address.lower()
