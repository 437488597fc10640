"""Whether the bytes that a client sent and received are those that its interface carried.

What the sockets carried is TCP's own count (TCP_INFO), with headers for each segment; what the interfaces carried is the
kernel's count of frames. The two are never equal: the kernel may count the headers of several segments once, a modem has no
Ethernet header, and there is always some ARP. So `SHORTFALL` and `SURPLUS` say how far apart is too far.
"""

import socket
import threading
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from pyroute2 import IPRoute

from fltestbed.measure.tcp import TcpSnapshot, tcp_snapshot

LOOPBACK = "lo"
SHORTFALL = 0.06
"""Part of a client's bytes that may be missing from the interface: one header instead of 45 with segmentation offload is
4.4%, Ethernet's own on a modem another 0.9% of full segments."""
SURPLUS = 0.05
"""Part of the interface's bytes that may be somebody else's."""
MOST_INTERFACES = 16
MOST_NAMED = 3
LOST_BYTES = 1 << 16
OTHER_BYTES = 1 << 20
"""Whatever the parts are, this many missing or foreign bytes are of no consequence: ARP, a login by ssh."""


@dataclass(frozen=True)
class Bytes:
    """Sent and received."""

    sent: int = 0
    received: int = 0

    def __add__(self, other: "Bytes") -> "Bytes":
        return Bytes(self.sent + other.sent, self.received + other.received)

    def __sub__(self, other: "Bytes") -> "Bytes":
        return Bytes(self.sent - other.sent, self.received - other.received)

    def describe(self) -> dict[str, int]:
        """For the manifest."""
        return {"sent_bytes": self.sent, "received_bytes": self.received}


class SocketBytes:
    """Adds up what sockets have carried. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: WeakKeyDictionary[socket.socket, TcpSnapshot] = WeakKeyDictionary()
        self._total = Bytes()

    def take(self, sock: socket.socket | None) -> None:
        """Read a socket that has carried something since it was read last; one that is closed says no more."""
        snapshot = tcp_snapshot(sock) if sock is not None else None
        if sock is None or snapshot is None:
            return
        with self._lock:
            before = self._latest.get(sock)
            carried = Bytes(snapshot.wire_out_bytes, snapshot.wire_in_bytes)
            self._total += carried - (Bytes(before.wire_out_bytes, before.wire_in_bytes) if before else Bytes())
            self._latest[sock] = snapshot

    def total(self) -> Bytes:
        """Of all sockets, those included that are still open."""
        for sock in list(self._latest):
            self.take(sock)
        return self._total


class ByteCount:
    """Compares, from now on, an interface with the sockets that were told to use it.

    Parameters
    ----------
    interface : str
    """

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._before = _counters()
        self.sockets = SocketBytes()

    def describe(self) -> dict[str, Any]:
        """What was carried so far, for the manifest.

        Returns
        -------
        dict
            `sent_bytes`, `received_bytes` of the client's sockets; `interfaces`, the same of each interface but the
            loopback, of the busiest where there are many; `mismatch`, why the two do not go together, or None.
        """
        carried = self.sockets.total()
        grown = {name: counted - self._before.get(name, Bytes()) for name, counted in _counters().items()}
        others = {name: counted for name, counted in grown.items() if name not in (self._interface, LOOPBACK)}
        mismatch = None
        if self._interface != LOOPBACK:  # which carries what all processes of this host say to each other
            mismatch = find_mismatch(self._interface, carried, grown.get(self._interface, Bytes()), others)
        grown.pop(LOOPBACK, None)
        busiest = sorted(grown, key=lambda name: (name != self._interface, -abs(grown[name].sent), name))[:MOST_INTERFACES]
        interfaces = {name: grown[name].describe() for name in sorted(busiest)}
        return carried.describe() | {"interfaces": interfaces, "mismatch": mismatch}


def find_mismatch(interface: str, carried: Bytes, counted: Bytes, others: dict[str, Bytes]) -> str | None:
    """Why an interface's count does not go with what a client's sockets carried; None when it does.

    Parameters
    ----------
    interface : str
    carried : Bytes
        By the sockets.
    counted : Bytes
        By the interface.
    others : dict of Bytes
        By the host's other interfaces, by name: where missing bytes may have gone.
    """
    for direction, verb in (("sent", "left"), ("received", "came in")):
        own, seen = getattr(carried, direction), getattr(counted, direction)
        if own - seen > max(SHORTFALL * own, LOST_BYTES):
            missing = (own - seen) * (1 - SHORTFALL) - LOST_BYTES
            elsewhere = [name for name, count in others.items() if getattr(count, direction) >= missing]
            where = f"by {', '.join(elsewhere[:MOST_NAMED])}" if elsewhere else "another way"
            return f"{direction} {own} bytes, but {interface} counted {max(seen, 0)}: the rest {verb} {where}"
        if seen - own > max(SURPLUS * seen, OTHER_BYTES):
            return (
                f"{interface} {direction} {seen - own} bytes that were not the client's ({(seen - own) / seen:.0%} of all)"
            )
    return None


def _counters() -> dict[str, Bytes]:
    """What each interface has carried since it was made."""
    with IPRoute() as ip:
        counted = {str(link.get_attr("IFLA_IFNAME")): link.get_attr("IFLA_STATS64") for link in ip.get_links()}
    return {name: Bytes(int(each["tx_bytes"]), int(each["rx_bytes"])) for name, each in counted.items()}
