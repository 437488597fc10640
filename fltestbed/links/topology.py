"""An emulated network: a server, clients, and the medium between them, each in a network namespace of its own.

::

    client 0 ─ c0 ┐                        ┌ s0 ─ server
    client 1 ─ c1 ┼ bridge ─ w0c ══ w0s ─ bridge
    client 2 ─ c2 ┘             wire
    └ namespace ┘ └─────────── medium ────────┘ └ namespace ┘

Clients that share a medium share a wire; on a dedicated one each has its own. The bridges are told which address is behind
which port and neither learn nor flood, and client ports are isolated from each other: the wire is the only way out, and no
client counts frames of another.
"""

import errno
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from subprocess import Popen
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ndmsg import NTF_MASTER, NUD_NOARP

from fltestbed.errors import ConfigError, LinkError
from fltestbed.links.backends import choose_backend
from fltestbed.links.namespace import InterfaceCounters, Namespace
from fltestbed.links.privilege import in_user_namespace
from fltestbed.links.profile import LinkProfile, TraceEntry
from fltestbed.links.trace import TracePlayer
from fltestbed.links.traffic import shape, share_budget, tbf_arguments, turn_offloads_off
from fltestbed.measure.host import OFFLOADS

SUBNET = IPv4Network("10.77.0.0/24")
"""Seen inside the namespaces alone, so it cannot collide with a network of the host."""
QUIET_SUBNET = IPv4Network("10.78.0.0/24")
QUIET_INTERFACE = "quiet0"
"""Of each host on the second network, which nothing shapes."""
MTU = 1500
MOST_CLIENTS = 250
COMPETITOR = "competitor"
"""Name of the host whose traffic competes with the clients'."""

MEDIUM_NOTES = {
    "shared_tdd": "the clients' frames share the medium first come, first served; a cell's scheduler would take turns",
    "half_duplex": "air time is counted in bytes: no contention, and no rate of its own for each station",
    "dedicated": "the server's own port is not limited: clients together may exceed one client's rate",
}


@dataclass(frozen=True)
class Host:
    """A host of an emulated network.

    Attributes
    ----------
    name : str
        server, or client-0, client-1...
    address : str
        IPv4 address, reachable inside the network alone.
    interface : str
        Its only interface beside the loopback.
    namespace : Namespace
        Where its processes run.
    """

    name: str
    address: str
    interface: str
    namespace: Namespace

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv` with a prefix that runs it on this host; see `Namespace.command`."""
        return self.namespace.command(argv)

    def popen(self, argv: Sequence[str], **kwargs: Any) -> Popen[Any]:
        """Start a process on this host that dies with the network and with this process; see `Namespace.popen`."""
        return self.namespace.popen(argv, **kwargs)

    def counters(self) -> InterfaceCounters:
        """Frames and bytes that its interface has sent and received."""
        return self.namespace.counters(self.interface)


class EmulatedNetwork:
    """A context manager: hosts and links are there inside the block and gone after it.

    Parameters
    ----------
    profile : LinkProfile
        What the link is like.
    clients : int
        How many, 1 to 250.
    backend : str
        "auto" for the best that this host has, or "netem", "wirefilter", "tbf".
    congestion_control : str or None
        Set on the routes in both directions, so that every program's TCP uses it; None leaves the kernel's default.
    competitor : bool
        Add a host that is no client and shares the clients' medium, for traffic that competes with theirs.
    second_network : bool
        Give each host one more interface, `QUIET_INTERFACE`, to a network without rates and delays, for clock exchanges.
    sysctls : mapping of str to str, optional
        Settings below /proc/sys/net of the server's and the clients' namespaces, by path.

    Raises
    ------
    ConfigError
        The number of clients, or a competitor on a dedicated medium, where there is nothing to share.
    HostError
        This host lacks what the backend needs, or the right to make network namespaces.
    LinkError
        The kernel refused a part of it.
    """

    server: Host
    clients: tuple[Host, ...]
    competitor: Host | None
    quiet_server: str | None = None
    """The server's address on the second network."""

    def __init__(
        self,
        profile: LinkProfile,
        clients: int,
        *,
        backend: str = "auto",
        congestion_control: str | None = "cubic",
        competitor: bool = False,
        second_network: bool = False,
        sysctls: Mapping[str, str] | None = None,
    ) -> None:
        if not 1 <= clients <= MOST_CLIENTS:
            raise ConfigError(f"clients: an emulated network has 1 to {MOST_CLIENTS}, not {clients}; lower it")
        if competitor and profile.medium == "dedicated":
            raise ConfigError(
                f"competing-flow: the clients of {profile.name} have a port each: there is nothing to share; leave the "
                "flow out"
            )
        self._with_competitor = competitor
        self.profile = profile
        self.congestion_control = congestion_control
        self._sysctls = dict(sysctls or {})
        self._count = clients
        self._second_network = second_network
        self._backend, self._passed_over = choose_backend(profile, backend)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                self._build(stack)
            except NetlinkError as error:
                raise LinkError(f"link {self.profile.name}: the kernel refused a part of it: {error}") from error
            self._player = TracePlayer([entry for entry in self.profile.trace if entry.client < self._count], self._apply)
            stack.callback(self._player.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_trace(self) -> None:
        """Let time zero of the profile's trace be now. Nothing happens without a trace."""
        self._player.start()

    def set_rate(self, client: int, *, uplink_mbit: float | None = None, downlink_mbit: float | None = None) -> None:
        """Give one client a rate of its own, beside that of the medium; None leaves a direction as it is."""
        host, profile = self.clients[client], self.profile
        if uplink_mbit is not None:
            host.namespace.call(_shape, host.interface, tbf_arguments(uplink_mbit, profile.uplink.queue_kb))
        if downlink_mbit is not None:
            self._medium.call(_shape, f"c{client}", tbf_arguments(downlink_mbit, profile.downlink.queue_kb))

    def set_link(self, client: int, *, up: bool) -> None:
        """Take one client's link down (its interface loses its carrier, its processes live on) or up again."""
        self._medium.call(_set_state, f"c{client}", "up" if up else "down")

    def describe(self) -> dict[str, Any]:
        """What was emulated, and what was not, as plain data for a manifest. `notes` are sentences for captions."""
        return {
            "profile": self.profile.model_dump(mode="json", by_alias=True),
            "medium": self.profile.medium,
            "backend": self._backend.name,
            "passed_over": self._passed_over,
            "notes": [*self._backend.notes(self.profile), MEDIUM_NOTES[self.profile.medium]],
            "clients": self._count,
            "interface": self.profile.interface,
            "mtu": MTU,
            "offloads": dict.fromkeys(OFFLOADS, False),
            "congestion_control": self.congestion_control,
            "second_network": self._second_network,
            "sysctls": self._sysctls,
            "user_namespace": in_user_namespace(),
        }

    def _apply(self, entry: TraceEntry) -> None:
        self.set_rate(entry.client, uplink_mbit=entry.uplink_mbit, downlink_mbit=entry.downlink_mbit)

    def _build(self, stack: ExitStack) -> None:
        shared = self.profile.medium != "dedicated"
        everybody = self._count + self._with_competitor
        groups = [range(everybody)] if shared else [range(number, number + 1) for number in range(self._count)]
        addresses = SUBNET.hosts()
        self._medium = medium = self._namespace(stack, "medium")
        medium.call(_add_bridge, "server")
        self.server, server_mac = self._add_host(stack, "server", next(addresses), "net0", ("s0", "server"))
        hosts: list[Host] = []
        macs: list[tuple[str, str]] = []
        for wire, members in enumerate(groups):
            bridge = f"clients{wire}"
            medium.call(_add_bridge, bridge)
            client_side, server_side = self._backend.lay_wire(medium, wire, self.profile)
            for port in {client_side.sends, client_side.receives}:
                medium.call(_plug_in, port, bridge)
            for port in {server_side.sends, server_side.receives}:
                medium.call(_plug_in, port, "server")
            medium.call(_lead_to, server_mac, client_side.sends)
            if self.profile.medium == "half_duplex":
                ends = (client_side.sends, server_side.sends)
                medium.call(_share_budget, ends, self.profile, f"air{wire}", IPv4Address(self.server.address))
            for number in members:
                port_of_client = (f"c{number}", bridge)
                name = COMPETITOR if number == self._count else f"client-{number}"
                host, mac = self._add_host(stack, name, next(addresses), self.profile.interface, port_of_client)
                medium.call(_lead_to, mac, server_side.sends)
                host.namespace.call(_meet, host, [(self.server.address, server_mac)], self.congestion_control)
                hosts.append(host)
                macs.append((host.address, mac))
        self.server.namespace.call(_meet, self.server, macs, self.congestion_control)
        self.clients, self.competitor = tuple(hosts[: self._count]), next(iter(hosts[self._count :]), None)
        if self._second_network:
            self._add_quiet()

    def _add_quiet(self) -> None:
        addresses = QUIET_SUBNET.hosts()
        self._medium.call(_add_bridge, "quiet")
        hosts, macs = [], []
        for number, host in enumerate((self.server, *self.clients)):
            address, port = next(addresses), f"q{number}"
            self._medium.call(_connect, port, host.namespace.handle, QUIET_INTERFACE)
            self._medium.call(_plug_in, port, "quiet", isolated=number > 0)
            mac = host.namespace.call(_configure, QUIET_INTERFACE, address)
            self._medium.call(_lead_to, mac, port)
            hosts.append(Host(host.name, str(address), QUIET_INTERFACE, host.namespace))
            macs.append((str(address), mac))
        hosts[0].namespace.call(_meet, hosts[0], macs[1:], None)
        for host in hosts[1:]:
            host.namespace.call(_meet, host, macs[:1], None)
        self.quiet_server = hosts[0].address

    @staticmethod
    def _namespace(stack: ExitStack, name: str) -> Namespace:
        namespace = Namespace(name)
        stack.callback(namespace.close)
        return namespace

    def _add_host(
        self, stack: ExitStack, name: str, address: IPv4Address, interface: str, port: tuple[str, str]
    ) -> tuple[Host, str]:
        namespace = self._namespace(stack, name)
        namespace.call(_set_sysctls, self._sysctls)
        self._medium.call(_connect, port[0], namespace.handle, interface)
        self._medium.call(_plug_in, *port, isolated=port[1] != "server")
        mac = namespace.call(_configure, interface, address)
        self._medium.call(_lead_to, mac, port[0])
        return Host(name, str(address), interface, namespace), mac


def _set_sysctls(settings: Mapping[str, str]) -> None:
    for path, value in settings.items():
        try:
            Path("/proc/sys", path).write_text(value)
        except OSError as error:
            raise LinkError(f"{path} = {value}: this kernel does not take it in a namespace: {error.strerror}") from error


def _shape(interface: str, arguments: dict[str, Any]) -> None:
    with IPRoute() as ip:
        shape(ip, interface, arguments)


def _share_budget(ends: tuple[str, str], profile: LinkProfile, budget: str, server: IPv4Address) -> None:
    with IPRoute() as ip:
        share_budget(ip, ends, profile, budget, server)


def _set_state(interface: str, state: str) -> None:
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname=interface)[0], state=state)


def _add_bridge(name: str) -> None:
    # No spanning tree and no multicast snooping: ports forward at once and the bridge says nothing of its own.
    with IPRoute() as ip:
        ip.link("add", ifname=name, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
        ip.link("set", index=ip.link_lookup(ifname=name)[0], mtu=MTU, state="up")


def _connect(port: str, namespace_handle: int, interface: str) -> None:
    with IPRoute() as ip:
        ip.link("add", ifname=port, kind="veth", peer={"ifname": interface, "net_ns_fd": namespace_handle})
    turn_offloads_off(port)


def _plug_in(port: str, bridge: str, *, isolated: bool = False) -> None:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=port)[0]
        ip.link("set", index=index, mtu=MTU, master=ip.link_lookup(ifname=bridge)[0], state="up")
        ip.brport("set", index=index, learning=0, unicast_flood=0, mcast_flood=0, bcast_flood=0, isolated=int(isolated))


def _lead_to(mac: str, port: str) -> None:
    """Tell the port's bridge that frames for `mac` leave there."""
    with IPRoute() as ip:
        ip.fdb("add", ifindex=ip.link_lookup(ifname=port)[0], lladdr=mac, state=NUD_NOARP, flags=NTF_MASTER)


def _configure(interface: str, address: IPv4Address) -> str:
    turn_offloads_off(interface)
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=interface)[0]
        ip.addr("add", index=index, address=str(address), prefixlen=SUBNET.prefixlen)
        ip.link("set", index=index, mtu=MTU, state="up")
        return str(ip.get_links(index)[0].get_attr("IFLA_ADDRESS"))


def _meet(host: Host, others: list[tuple[str, str]], congestion_control: str | None) -> None:
    """Tell a host the addresses of the others, so that ARP neither waits for the link nor is lost on it."""
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=host.interface)[0]
        for address, mac in others:
            ip.neigh("replace", dst=address, lladdr=mac, ifindex=index, state="permanent")
        if congestion_control is None:
            return
        try:
            ip.route(
                "replace", dst=str(SUBNET), oif=index, prefsrc=host.address, scope="link", proto="kernel",
                metrics={"cc_algo": congestion_control},
            )  # fmt: skip
        except NetlinkError as error:
            if error.code not in (errno.EINVAL, errno.ENOENT):
                raise
            available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().strip()
            raise LinkError(
                f'congestion control "{congestion_control}": this kernel has it not; it has {available}'
            ) from error
