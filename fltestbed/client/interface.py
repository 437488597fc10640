"""The interface that a client was told to use."""

import psutil

from fltestbed.errors import HostError


def check_interface(name: str, option: str = "--interface") -> None:
    """Make sure that an interface exists and is up.

    Raises
    ------
    HostError
        It does not exist, or is down; the message names the ones that are there.
    """
    interfaces = psutil.net_if_stats()
    if name not in interfaces:
        raise HostError(f"{option} {name}: this host has no such interface; it has {', '.join(sorted(interfaces))}")
    if not interfaces[name].isup:
        raise HostError(f"{option} {name}: the interface is down; bring it up with: ip link set {name} up")
