"""Requests to the kernel's traffic control: rates, queues, delays.

The functions named ``*_arguments`` build a request without sending it, so that a test can look at what a kernel which
lacks the qdisc would have been asked.
"""

from ipaddress import IPv4Address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.ethtool.ioctl import IoctlEthtool
from pyroute2.netlink.rtnl.tcmsg import plugins, sched_pfifo
from pyroute2.protocols import ETH_P_ALL, ETH_P_IP

from fltestbed.links.profile import Direction, LinkProfile
from fltestbed.measure.host import OFFLOADS

FRAME_BYTES = 1514
"""Largest frame that a counter or a qdisc sees: 1,500 bytes of IP and the Ethernet header."""
ROOT = 0x10000  # handle 1:
EGRESS = 0xFFFFFFF3  # the egress hook of clsact

plugins.setdefault("bfifo", sched_pfifo)  # the same message with bytes for frames, which pyroute2 does not list


def tbf_arguments(rate_mbit: float, queue_kb: float) -> dict[str, Any]:
    """Token bucket: an exact rate and a queue in bytes.

    The bucket holds what the rate yields in a millisecond, two frames at least, so a burst cannot flatter a transfer.
    """
    rate_bytes = rate_mbit * 125_000
    return {
        "kind": "tbf",
        "rate": int(rate_bytes),
        "burst": int(max(2 * FRAME_BYTES, rate_bytes / 1000)),
        "limit": int(queue_kb * 1000),
    }


def netem_arguments(direction: Direction, *, with_rate: bool) -> dict[str, Any]:
    """Delay, jitter and loss, and the rate where the medium is not shared by both directions.

    netem bounds frames and not bytes, and counts those in flight (delayed) with those that wait; `limit` allows for both.
    """
    rate_bytes = direction.rate_mbit * 125_000
    in_flight = rate_bytes * (direction.delay_ms + direction.jitter_ms) / 1000
    arguments: dict[str, Any] = {
        "kind": "netem",
        "delay": int(direction.delay_ms * 1000),
        "jitter": int(direction.jitter_ms * 1000),
        "loss": direction.loss_percent,
        "limit": int((direction.queue_kb * 1000 + in_flight) // FRAME_BYTES) + 1,
    }
    return arguments | ({"rate": int(rate_bytes)} if with_rate else {})


def shape(ip: IPRoute, interface: str, arguments: dict[str, Any]) -> None:
    """Make a qdisc the root of what `interface` sends; one of the same kind that is there is changed, with its queue."""
    ip.tc("replace", index=_index(ip, interface), handle=ROOT, **arguments)


def share_budget(ip: IPRoute, ends: tuple[str, str], profile: LinkProfile, budget: str, server: IPv4Address) -> None:
    """Let both directions of a wire draw on one rate: what its two `ends` send passes through one device first.

    That device (`budget`, an ifb) holds a queue for each direction under one htb class with the whole rate: each direction
    is sure of half and takes what the other leaves. Then a frame goes on where it came from, into the wire.
    """
    rate = profile.uplink.rate_mbit * 125_000
    bucket = {"burst": max(2 * FRAME_BYTES, int(rate / 1000)), "cburst": max(2 * FRAME_BYTES, int(rate / 1000))}
    ip.link("add", ifname=budget, kind="ifb")
    device = _index(ip, budget)
    ip.link("set", index=device, state="up")
    whole, uplink, downlink = ROOT + 1, ROOT + 2, ROOT + 3
    ip.tc("add", "htb", device, ROOT, default=uplink - ROOT)
    ip.tc("add-class", "htb", device, whole, parent=ROOT, rate=int(rate), **bucket)
    for number, direction in ((uplink, profile.uplink), (downlink, profile.downlink)):
        half = {"rate": int(rate / 2), "ceil": int(rate), "quantum": FRAME_BYTES}
        ip.tc("add-class", "htb", device, number, parent=whole, **half, **bucket)
        queue = (number - ROOT + 1) * ROOT
        ip.tc("add", "bfifo", device, queue, parent=number, limit=int(direction.queue_kb * 1000))
    from_server = [f"0x{int(server):08x}/0xffffffff+12"]  # source address of an IPv4 header
    ip.tc("add-filter", "u32", device, parent=ROOT, prio=1, protocol=ETH_P_IP, target=downlink, keys=from_server)
    redirect = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": device}
    every_frame = {"prio": 1, "protocol": ETH_P_ALL, "keys": ["0x0/0x0+0"], "target": 0}
    for end in ends:
        source = _index(ip, end)
        ip.tc("add", "clsact", source)
        ip.tc("add-filter", "u32", source, parent=EGRESS, action=redirect, **every_frame)


def turn_offloads_off(interface: str) -> None:
    """Turn off what would make one large frame of many, so that what crosses the wire and what counters count are frames.

    Call it inside the interface's namespace.
    """
    ethtool = IoctlEthtool(interface)
    try:
        features = ethtool.get_features()
        for name in OFFLOADS:
            if name in features:
                features[name] = False
        ethtool.set_features(features)
    finally:
        ethtool.close()


def _index(ip: IPRoute, interface: str) -> int:
    return int(ip.link_lookup(ifname=interface)[0])
