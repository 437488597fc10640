"""A host with three networks up at once, and another that is on all of them: what a Raspberry Pi and a radio host are.

::

    pi    eth0  10.0.0.2 ── veth ── 10.0.0.1  eth0   host
          wifi0 10.0.1.2 ── veth ── 10.0.1.1  wifi0
          wwan0 10.0.2.2 ── veth ── 10.0.2.1  wwan0

and the same with fd00:N::. The pi has a default route by each network, and prefers them in this order.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from fltestbed.links.namespace import Namespace

INTERFACES = ("eth0", "wifi0", "wwan0")


@dataclass(frozen=True)
class ThreeNetworks:
    """Both hosts."""

    pi: Namespace
    host: Namespace

    def routing(self) -> tuple[Any, ...]:
        """All rules and routes of the pi."""
        return self.pi.call(read_routing)

    def sent(self, interface: str) -> int:
        """Bytes that the pi has sent by an interface."""
        return self.pi.counters(interface).tx_bytes


@contextlib.contextmanager
def three_networks() -> Iterator[ThreeNetworks]:
    """Both are gone after the block."""
    with contextlib.ExitStack() as stack:
        pi, host = Namespace("pi"), Namespace("host")
        stack.callback(pi.close)
        stack.callback(host.close)
        pi.call(_lay, host.handle)
        host.call(_configure, 1)
        pi.call(_configure, 2)
        pi.call(_add_default_routes)
        yield ThreeNetworks(pi, host)


def read_routing() -> tuple[Any, ...]:
    """Rules and routes that are not the kernel's own, of the namespace that this runs in."""
    found = []
    with IPRoute() as ip:
        for family in (2, 10):
            rules = [
                (str(r.get_attr("FRA_DST")), r.get_attr("FRA_TABLE"), r.get_attr("FRA_PROTOCOL"))
                for r in ip.get_rules(family=family)
            ]
            routes = [
                (str(r.get_attr("RTA_DST")), r.get_attr("RTA_TABLE"), r["proto"])
                for r in ip.get_routes(family=family)
                if r["proto"] != 2
            ]
            found.append((sorted(rules, key=str), sorted(routes, key=str)))
    return tuple(found)


def _lay(host: int) -> None:
    with IPRoute() as ip:
        for name in INTERFACES:
            ip.link("add", ifname=name, kind="veth", peer={"ifname": name, "net_ns_fd": host})


def _configure(last: int) -> None:
    for scope in ("all", "default", *INTERFACES):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("0")
    with IPRoute() as ip:
        for number, name in enumerate(INTERFACES):
            index = ip.link_lookup(ifname=name)[0]
            ip.link("set", index=index, state="up")
            ip.addr("add", index=index, address=f"10.0.{number}.{last}", prefixlen=24)
            ip.addr("add", index=index, address=f"fd00:{number}::{last}", prefixlen=64, flags=2)  # without waiting for DAD


def _add_default_routes() -> None:
    with IPRoute() as ip:
        for number, name in enumerate(INTERFACES):
            index = ip.link_lookup(ifname=name)[0]
            ip.route("add", dst="default", gateway=f"10.0.{number}.1", oif=index, priority=100 * (number + 1))
            ip.route("add", dst="::/0", gateway=f"fd00:{number}::1", oif=index, priority=100 * (number + 1), family=10)
