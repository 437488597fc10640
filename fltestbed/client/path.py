"""The way to the server, as the kernel would take it: by which interface, gateway and source address.

Sockets of a client are bound to its interface, so what they send leaves there or not at all. That says nothing of where the
host's own routes lead: with two networks up, a server whose route leaves by the other one is a server that somebody means to
measure over the wrong link. So a client asks the kernel (RTM_GETROUTE) before it says a word, and refuses.
"""

import errno
import logging
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from fltestbed.client.byte_count import ByteCount
from fltestbed.client.pin import Pin, holders, remove_abandoned
from fltestbed.errors import HostError, ServerUnreachable

log = logging.getLogger("fltestbed")

RTM_F_FIB_MATCH = 0x2000  # linux/rtnetlink.h: tell the entry of the routing table instead of what becomes of it
LOCAL = 2  # RTN_LOCAL
NO_NEIGHBOURS = 0x10 | 0x80  # IFF_POINTOPOINT, IFF_NOARP: whatever is sent there arrives at the other end
UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.ENODEV)


@dataclass(frozen=True)
class Route:
    """How the kernel would send to one address.

    Attributes
    ----------
    address : str
        Where to, without a zone.
    interface : str
        Where a packet leaves.
    gateway : str or None
        The next hop; None when the address is on the interface's own network.
    source : str or None
        Address of this host that the packet bears.
    is_local : bool
        The address is this host's own: nothing leaves.
    """

    address: str
    interface: str
    gateway: str | None
    source: str | None
    is_local: bool = False

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {"address": self.address, "gateway": self.gateway, "source": self.source}


def host_of(server: str) -> str:
    """The host of ``HOST:PORT``, without the brackets of an IPv6 address."""
    return server.rpartition(":")[0].strip("[]")


def addresses_of(server: str) -> list[tuple[str, int]]:
    """The addresses of ``HOST:PORT``, each with the index of the interface that it names (``fe80::1%eth0``), or 0.

    Raises
    ------
    ServerUnreachable
        The name cannot be resolved.
    """
    host = host_of(server)
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServerUnreachable(
            f"{server}: {host} has no address ({error.strerror}); give its number, or fix DNS"
        ) from error
    targets = [(str(target[0]).partition("%")[0], int(target[3]) if len(target) > 3 else 0) for *_, target in found]
    return list(dict.fromkeys(targets))


def find_route(address: str, interface: int = 0, zone: int = 0) -> Route | None:
    """Ask the kernel for the route to an address.

    Parameters
    ----------
    address : str
        IPv4 or IPv6.
    interface : int
        Index of the interface that the sender is bound to, as `--interface` does; 0 for a sender that is not bound. Bound,
        an entry of the routing table has to lead there: the kernel's guess that it is on that network does not count.
    zone : int
        Index of the interface that a link-local address belongs to.

    Returns
    -------
    Route or None
        None when there is none.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = {"oif": interface or zone} if interface or zone else {}
    with IPRoute() as ip:
        try:
            if interface:
                ip.route("get", dst=address, family=family, flags=RTM_F_FIB_MATCH, **bound)
            route = ip.route("get", dst=address, family=family, **bound)[0]
            name = ip.get_links(route.get_attr("RTA_OIF"))[0].get_attr("IFLA_IFNAME")
        except (NetlinkError, IndexError) as error:
            if isinstance(error, NetlinkError) and error.code not in UNREACHABLE:
                raise HostError(f"{address}: the kernel does not say how it would send there: {error}") from error
            return None
    gateway = route.get_attr("RTA_GATEWAY")
    return Route(address, str(name), gateway, route.get_attr("RTA_PREFSRC"), is_local=route["type"] == LOCAL)


def free_abandoned_routes() -> None:
    """Undo what clients that were killed have pinned, with one message a route; without the right to, say what is left."""
    try:
        for address in remove_abandoned():
            log.warning("%s: a client that was killed had pinned the route there; it is free again", address)
    except HostError as error:
        log.warning("%s", error)


class ServerPath:
    """A context manager: inside the block everything that this host sends to the server leaves by one interface.

    Parameters
    ----------
    server : str
        HOST:PORT.
    interface : str
        It is there and up.
    pin : bool
        Whether a route that leaves elsewhere may be pinned for as long as the block lasts.

    Raises
    ------
    HostError
        On entry: the route leaves by another interface, or cannot be pinned.
    ServerUnreachable
        On entry: the server's name has no address.
    """

    def __init__(self, server: str, interface: str, pin: bool = False) -> None:
        self._server = server
        self.interface = interface
        self._pin = pin
        self._stack = ExitStack()
        self.routes: tuple[Route, ...] = ()
        """Of the server's addresses those whose route leaves by the interface, one at least inside the block."""
        self._count = ByteCount(interface)
        self.sockets = self._count.sockets
        """To be shown every socket that talks to the server."""

    def __enter__(self) -> Self:
        index = socket.if_nametoindex(self.interface)
        problems = []
        with ExitStack() as stack:
            for address, zone in addresses_of(self._server):
                try:
                    if self._pin and not zone:
                        stack.enter_context(self._pin_route(address, index))
                    self.routes += (self._prove(address, index, zone),)
                except HostError as error:
                    problems.append(error)
            if not self.routes:
                raise problems[0]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {"interface": self.interface, "pinned": self._pin, "routes": [route.describe() for route in self.routes]}

    def carried(self) -> dict[str, Any]:
        """What went that way so far, and what went another; see `ByteCount.describe`."""
        return self._count.describe()

    def _pin_route(self, address: str, index: int) -> Pin:
        route = find_route(address, index)
        if route is not None and route.is_local:
            raise HostError(f"--interface {self.interface}: {address} is this host's own address")
        if route is None and not self._has_no_neighbours(index):
            raise HostError(
                f"--pin-route: {self.interface} has no route to {address} and no gateway that could take it there; name "
                "the server by its address on that network, or: ip route add default via GATEWAY metric 9999 "
                f"dev {self.interface}"
            )
        return Pin(address, self.interface, index, route.gateway if route is not None else None)

    def _prove(self, address: str, index: int, zone: int) -> Route:
        route = find_route(address, zone=zone)
        if route is not None and route.interface == self.interface:
            return route
        if route is None:
            raise HostError(
                f"--interface {self.interface}: this host has no route to {address}; is the network up, the address right?"
            )
        if route.is_local:
            raise HostError(f"--interface {self.interface}: {address} is this host's own address; give --interface lo")
        if self._pin:
            mine = find_route(address, index)
            if mine is not None and holders(address) > 1:  # another client has pinned it to its own interface, before us
                return mine
            raise HostError(
                f"--pin-route: the route to {address} leaves by {route.interface} all the same; "
                "a policy rule stands before it: ip rule show"
            )
        raise HostError(
            f"--interface {self.interface}: this host's route to {address} leaves by {route.interface}; "
            f"--pin-route pins it to {self.interface} for the run, or give --interface {route.interface}"
        )

    @staticmethod
    def _has_no_neighbours(index: int) -> bool:
        with IPRoute() as ip:
            return bool(ip.get_links(index)[0]["flags"] & NO_NEIGHBOURS)
