"""An interface, the route to the server by it, and what packets of full size meet on the way."""

import re
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from socket import AF_INET
from typing import Any

from pyroute2 import IPRoute

from fltestbed.check.finding import NotHere, Said, error, ok, warning
from fltestbed.client.path import Route
from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.tools import Toolbox

NO_CARRIER = ("down", "lowerlayerdown", "notpresent", "dormant")
"""States of RFC 2863 in which an interface that is switched on carries nothing."""
SLOW_MBIT = 100
ICMP_HEADERS_BYTES = {4: 28, 6: 48}
"""IP and ICMP."""
SMALLEST_MTU = {4: 576, 6: 1280}
FINE_BYTES = 8
"""To which a path MTU is searched that nobody tells."""
REPLY_TIMEOUT_S = 2


def check_interface(name: str, interfaces: dict[str, dict[str, Any]]) -> Iterator[Said]:
    """Whether it is there and up, its speed and addresses; whether another interface is on the same network.

    Parameters
    ----------
    name : str
    interfaces : dict
        As `fltestbed.measure.host.describe_host` describes them.
    """
    check = f"interface {name}"
    facts = interfaces.get(name)
    if facts is None:
        yield error(check, "does not exist", f"this host has {', '.join(sorted(interfaces))}")
        return
    if not facts.get("switched_on", True):
        yield error(check, "down", f"sudo ip link set {name} up")
        return
    if not facts.get("carrier", True) or facts.get("state") in NO_CARRIER:
        yield error(check, "up, without a carrier", "look at the cable, the access point or the modem")
        return
    addresses = [address for address in facts["addresses"] if not address.startswith("fe80:")]
    if not addresses:
        yield error(
            check, "up, without an address", f"look at DHCP or at the core network; or: sudo ip addr add ... dev {name}"
        )
        return
    speed, duplex = facts["speed_mbit"], facts["duplex"]
    said = ", ".join([*addresses, f"{speed} Mbit/s" if speed else "no stated speed", f"MTU {facts['mtu']}"])
    if duplex == "half":
        yield warning(check, f"{said}, half duplex", "look at the cable and at the port of the switch")
    elif speed and speed < SLOW_MBIT:
        yield warning(check, said, f"below {SLOW_MBIT} Mbit/s: look at the cable and at the port of the switch")
    else:
        yield ok(check, said)
    yield from _check_neighbours(name)


def check_route(routes: tuple[Route, ...], interface: str, pinned: bool) -> Said:
    """How the kernel sends to the server; `fltestbed.client.path.ServerPath` has proven it."""
    how = "pinned for the run" if pinned else "by the host's own routes"
    return ok(
        f"route by {interface}",
        ", ".join(f"{route.address} via {route.gateway or 'its own network'}, from {route.source}" for route in routes)
        + f" ({how})",
    )


def check_path_mtu(address: str, interface: str, mtu: int, tools: Toolbox) -> Said:
    """Send packets that may not be fragmented, there and back: do those of full size arrive?

    Parameters
    ----------
    address : str
        The server's.
    interface : str
    mtu : int
        Of the interface, in bytes.
    tools : Toolbox
        Runs `ping`.
    """
    check = f"path MTU by {interface}"
    version = 6 if ":" in address else 4

    def arrives(size: int) -> tuple[bool, int | None]:
        return _ping(address, interface, size - ICMP_HEADERS_BYTES[version], tools)

    try:
        full, told = arrives(mtu)
        if full:
            return ok(check, f"{mtu} bytes, as the interface's")
        if told is not None:
            return warning(
                check, f"{told} bytes, the interface's is {mtu}",
                f"TCP finds it out anew for each connection; sudo ip link set {interface} mtu {told}",
            )  # fmt: skip
        if not arrives(SMALLEST_MTU[version])[0]:
            return warning(check, f"unknown: {address} does not answer ping", "let the server answer ICMP echo requests")
        largest, lost = SMALLEST_MTU[version], mtu
        while lost - largest > FINE_BYTES:
            middle = (largest + lost) // 2
            largest, lost = (middle, lost) if arrives(middle)[0] else (largest, middle)
    except HostError as problem:
        return NotHere(check, f"{problem} (Debian package iputils-ping)")
    except TestbedError as problem:
        return warning(check, str(problem), f"try by hand: ping -M do -s 1472 -I {interface} {address}")
    return error(
        check, f"packets of more than about {largest} bytes vanish without a word, so transfers stall",
        f"sudo ip link set {interface} mtu {largest}; or let ICMP 'fragmentation needed' through",
    )  # fmt: skip


def _ping(address: str, interface: str, payload: int, tools: Toolbox) -> tuple[bool, int | None]:
    """Whether a packet of this size is answered; and the MTU that somebody on the way has told."""
    command = ("ping", "-n", "-c", "1", "-W", str(REPLY_TIMEOUT_S), "-M", "do", "-I", interface, "-s", str(payload), address)
    for _ in range(2):  # one may be lost for other reasons
        status, out, err = tools.run(*command)
        if status == 0:
            return True, None
        told = re.search(r"mtu ?= ?(\d+)", out + err)
        if told is not None:
            return False, int(told[1])
        if status > 1:
            raise TestbedError(f"ping: {' '.join((err or out).split())[:120]}")
    return False, None


def _check_neighbours(name: str) -> Iterator[Said]:
    """Two interfaces on one network: by Linux's default each answers ARP for the other, so replies may come in there."""
    networks = _networks()
    shared = sorted(other for other, nets in networks.items() if other != name and nets & networks.get(name, set()))
    if not shared:
        return
    settings = [_read(Path("/proc/sys/net/ipv4/conf/all") / key) for key in ("arp_ignore", "arp_announce")]
    if settings == ["1", "2"]:
        yield ok(f"network of {name}", f"shared with {', '.join(shared)}, each answers for itself alone")
        return
    yield warning(
        f"network of {name}", f"shared with {', '.join(shared)}: what the server sends may come in there",
        f"take {', '.join(shared)} down, or: sysctl net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
    )  # fmt: skip


def _networks() -> dict[str, set[str]]:
    """IPv4 networks of each interface that carries something."""
    found: dict[str, set[str]] = {}
    with IPRoute() as ip:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links() if _carries(link)}
        for entry in ip.get_addr(family=AF_INET):
            name = names.get(entry["index"])
            if name not in (None, "lo") and entry["prefixlen"] < 32:
                network = ip_interface(f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}").network
                found.setdefault(str(name), set()).add(str(network))
    return found


def _carries(link: Any) -> bool:
    return str(link.get_attr("IFLA_OPERSTATE")).lower() not in NO_CARRIER


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
