"""A route to one address that is pinned to an interface for as long as this process wants it, or lives.

A pin is a policy rule and a route in a table of their own::

    ip rule:   77: from all to 10.0.0.1 lookup 0x666c0003 proto 102
    ip route:  10.0.0.1 via 10.1.0.1 dev wifi0 table 0x666c0003 proto 102

so no route that the host has is changed, and undoing it is deleting these two. Both are ours beyond doubt: by their
protocol number, which no routing program of Linux uses (102, see /etc/iproute2/rt_protos), and by the table, 0x666c ("fl")
followed by the interface's index.

Who still wants a pin is known by an abstract UNIX socket, whose name holds table, address and process. Such a name belongs
to the same network namespace as the routes, and ends with its process however that ends. So a pin without a name was left
behind by a process that was killed, and `remove_abandoned` removes it; several clients may share one.
"""

import contextlib
import errno
import itertools
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from fltestbed.errors import HostError

PROTOCOL = 102
PRIORITY = 77
"""After the local table, before every rule that a host usually has."""
TABLES = 0x666C
NAME = "fltestbed-pin"
LOCK = f"\0{NAME}s"
LOCK_TIMEOUT_S = 5.0
UNIX_SOCKETS = Path("/proc/thread-self/net/unix")
FAMILIES = (socket.AF_INET, socket.AF_INET6)
RTNH_F_ONLINK = 4  # linux/rtnetlink.h
LACKING = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
"""A kernel without IPv6, or without policy rules, has no pins of that kind."""
GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV)

_numbers = itertools.count()


class Pin:
    """A context manager: inside the block packets to `address` leave by `interface`, whoever sends them.

    Parameters
    ----------
    address : str
        IPv4 or IPv6.
    interface : str
    index : int
        Of the interface.
    gateway : str or None
        The next hop on the interface's network; None when the address itself is on it.

    Raises
    ------
    HostError
        On entry: this process may not change routes, or the kernel refused.
    """

    def __init__(self, address: str, interface: str, index: int, gateway: str | None) -> None:
        self._address = address
        self._interface = interface
        self._index = index
        self._gateway = gateway
        self._table = TABLES << 16 | index & 0xFFFF
        self._name: socket.socket | None = None

    def __enter__(self) -> Self:
        with _lock():
            self._name = _bind(f"\0{NAME} {self._table:x} {self._address} {os.getpid()} {next(_numbers)}")
            try:
                self._add()
            except NetlinkError as error:
                with contextlib.suppress(NetlinkError):  # the first error says it all
                    self._release()
                right = "; it needs CAP_NET_ADMIN: run as root" if error.code == errno.EPERM else ""
                raise HostError(
                    f"--pin-route: {self._address} cannot be pinned to {self._interface}: {error.args[1]}{right}"
                ) from error
        return self

    def __exit__(self, *_: object) -> None:
        with _lock():
            self._release()

    def _release(self) -> None:
        if self._name is not None:
            self._name.close()
        if (self._table, self._address) not in _wanted():
            _remove(self._table, self._address)

    def _add(self) -> None:
        family, bits = _family(self._address)
        # On the link for sure: the host's own route has it so, and a modem's address comes without its network.
        by_gateway = {"gateway": self._gateway, "flags": RTNH_F_ONLINK}
        way: dict[str, Any] = by_gateway if self._gateway is not None else {"scope": "link"}
        with IPRoute() as ip:
            ip.route(
                "replace", dst=f"{self._address}/{bits}", oif=self._index, table=self._table, proto=PROTOCOL, family=family,
                **way,
            )  # fmt: skip
            try:
                ip.rule("add", **_rule(self._table, self._address))
            except NetlinkError as error:
                if error.code != errno.EEXIST:  # shared with another client
                    raise


def holders(address: str) -> int:
    """How many living processes have pinned this address, to whatever interface."""
    return sum(pinned == address for _, pinned in _wanted())


def remove_abandoned() -> list[str]:
    """Remove the pins of processes that were killed; returns the addresses that were pinned.

    Raises
    ------
    HostError
        There is one, and this process may not change routes.
    """
    with _lock():
        wanted = _wanted()
        abandoned = [pin for pin in _pins() if pin not in wanted]
        for table, address in abandoned:
            try:
                _remove(table, address)
            except NetlinkError as error:
                raise HostError(
                    f"{address}: a client that was killed has left its route pinned ({error.args[1]}); "
                    f"as root: ip rule del to {address} lookup {table} protocol {PROTOCOL}"
                ) from error
    return sorted({address for _, address in abandoned})


def _pins() -> set[tuple[int, str]]:
    """Table and address of each pin of this network namespace, of which the rule, the route or both are there."""
    found = set()
    with IPRoute() as ip:
        for family in FAMILIES:
            try:
                rules, routes = list(ip.get_rules(family=family)), list(ip.get_routes(family=family))
            except NetlinkError as error:
                if error.code not in LACKING:
                    raise
                continue
            for rule in rules:
                if rule.get_attr("FRA_PROTOCOL") == PROTOCOL and rule.get_attr("FRA_PRIORITY") == PRIORITY:
                    found.add((rule.get_attr("FRA_TABLE"), rule.get_attr("FRA_DST")))
            for route in routes:
                if route["proto"] == PROTOCOL:
                    found.add((route.get_attr("RTA_TABLE"), route.get_attr("RTA_DST")))
    return {(table, address) for table, address in found if table and address and table >> 16 == TABLES}


def _wanted() -> set[tuple[int, str]]:
    """Pins that a living process holds."""
    found = set()
    for line in UNIX_SOCKETS.read_text(errors="replace").splitlines():
        name, _, rest = line.partition(f"@{NAME} ")[2].partition(" ")
        if rest:
            found.add((int(name, 16), rest.split()[0]))
    return found


def _remove(table: int, address: str) -> None:
    family, bits = _family(address)
    with IPRoute() as ip:
        with _ignoring_what_is_gone():
            ip.rule("del", **_rule(table, address))
        with _ignoring_what_is_gone():
            ip.route("del", dst=f"{address}/{bits}", table=table, proto=PROTOCOL, family=family)


def _rule(table: int, address: str) -> dict[str, Any]:
    family, bits = _family(address)
    return {
        "dst": address, "dst_len": bits, "table": table, "priority": PRIORITY, "protocol": PROTOCOL, "family": family,
    }  # fmt: skip


def _family(address: str) -> tuple[int, int]:
    return (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)


@contextlib.contextmanager
def _ignoring_what_is_gone() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in GONE:
            raise


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One process at a time changes pins; the kernel lets go of the lock when its process ends."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            lock = _bind(LOCK)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise HostError(
                    f"--pin-route: another process changes pinned routes and does not end ({error.strerror})"
                ) from error
            time.sleep(0.01)
    with lock:
        yield


def _bind(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(name)
    except OSError:
        sock.close()
        raise
    return sock
