"""Over the named interface or not at all: on a host with three networks up, over IPv4 and IPv6."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from fltestbed.client.path import ServerPath, addresses_of, find_route, free_abandoned_routes
from fltestbed.client.pin import remove_abandoned
from fltestbed.errors import HostError, ServerUnreachable
from fltestbed.links.privilege import may_make_namespaces
from tests.client.three_networks import ThreeNetworks, three_networks

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="this user may not make network namespaces")
SERVERS = ["10.0.0.1:9092", "[fd00:0::1]:9092"]
HOLDER = """
import sys
from fltestbed.client.path import ServerPath
with ServerPath(sys.argv[1], sys.argv[2], pin=True):
    print("pinned", flush=True)
    sys.stdin.read()
"""
WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--"]


@pytest.fixture
def networks() -> Iterator[ThreeNetworks]:
    """New ones, so that a route that is left over harms no other test."""
    with three_networks() as made:
        yield made


def leaves_by(server: str) -> str | None:
    ((address, _),) = addresses_of(server)
    route = find_route(address)
    return route.interface if route is not None else None


def start_holder(networks: ThreeNetworks, server: str, interface: str, *prefix: str) -> "subprocess.Popen[str]":
    holder = networks.pi.popen(
        [*prefix, sys.executable, "-c", HOLDER, server, interface],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    if holder.stdout.readline() != "pinned\n":
        raise AssertionError(holder.communicate()[1])
    return holder


def enter(server: str, interface: str, pin: bool = False) -> tuple[str | None, str | None, str | None]:
    """Where the server's packets leave inside the block, and gateway and source of the proven route."""
    with ServerPath(server, interface, pin) as path:
        (route,) = path.routes
        return leaves_by(server), route.gateway, route.source


@pytest.mark.parametrize("server", SERVERS)
def test_the_route_that_leaves_by_the_interface_is_fine(networks: ThreeNetworks, server: str) -> None:
    """Nothing is changed, and the source address is the interface's."""
    before = networks.routing()
    found = networks.pi.call(enter, server, "eth0")
    assert found in {("eth0", None, "10.0.0.2"), ("eth0", None, "fd00::2")}
    assert networks.routing() == before


@pytest.mark.parametrize("server", SERVERS)
def test_a_route_that_leaves_elsewhere_is_refused(networks: ThreeNetworks, server: str) -> None:
    """The message names the interface that it leaves by, and both ways out."""
    with pytest.raises(HostError, match=r"--interface wifi0: .* leaves by eth0; --pin-route pins it .* --interface eth0"):
        networks.pi.call(enter, server, "wifi0")


@pytest.mark.parametrize("server", SERVERS)
def test_a_pinned_route_leaves_by_the_interface_and_is_undone(networks: ThreeNetworks, server: str) -> None:
    """By the interface's gateway, whoever sends; afterwards rules and routes are what they were."""
    before = networks.routing()
    found = networks.pi.call(enter, server, "wifi0", pin=True)
    assert found in {("wifi0", "10.0.1.1", "10.0.1.2"), ("wifi0", "fd00:1::1", "fd00:1::2")}
    assert networks.pi.call(leaves_by, server) == "eth0"
    assert networks.routing() == before


@pytest.mark.parametrize("server", SERVERS)
def test_a_pin_of_a_killed_process_is_removed_by_the_next(
    networks: ThreeNetworks, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It stands after kill -9, and is gone, with a word about it, when the next client starts; a living one's is not."""
    before = networks.routing()
    living = start_holder(networks, "10.0.2.1:9092", "eth0")
    while_living = networks.routing()
    killed = start_holder(networks, server, "wifi0")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert networks.pi.call(leaves_by, server) == "wifi0"
    networks.pi.call(free_abandoned_routes)
    assert "a client that was killed had pinned the route there; it is free again" in caplog.text
    assert networks.routing() == while_living
    living.communicate("")
    assert networks.routing() == before
    assert networks.pi.call(remove_abandoned) == []


def test_routes_of_others_are_left_alone(networks: ThreeNetworks) -> None:
    """Neither another's rule with our priority nor a route with our protocol number in another table is touched."""

    def add() -> None:
        with IPRoute() as ip:
            ip.rule("add", dst="10.0.0.1", dst_len=32, table=1000, priority=77, protocol=4)
            ip.route("add", dst="10.9.0.0/24", gateway="10.0.1.1", proto=102, table=1000)

    networks.pi.call(add)
    before = networks.routing()
    assert networks.pi.call(remove_abandoned) == []
    networks.pi.call(enter, "10.0.0.1:9092", "wifi0", pin=True)
    assert networks.routing() == before


def test_two_clients_share_a_pin(networks: ThreeNetworks) -> None:
    """The route goes when the second of them goes."""
    before = networks.routing()
    first = start_holder(networks, SERVERS[0], "wifi0")
    second = start_holder(networks, SERVERS[0], "wifi0")
    first.communicate("")
    assert networks.pi.call(leaves_by, SERVERS[0]) == "wifi0"
    second.communicate("")
    assert networks.routing() == before


def test_clients_pin_one_server_to_several_interfaces(networks: ThreeNetworks) -> None:
    """What is bound to an interface leaves by it, through its own network's gateway; what is not, as the first said."""
    first = start_holder(networks, SERVERS[0], "wifi0")
    second = start_holder(networks, SERVERS[0], "wwan0")

    def bound() -> list[str | None]:
        with IPRoute() as ip:
            routes = [find_route("10.0.0.1", ip.link_lookup(ifname=name)[0]) for name in ("wifi0", "wwan0")]
        return [route.gateway if route is not None else None for route in routes]

    assert networks.pi.call(bound) == ["10.0.1.1", "10.0.2.1"]
    assert networks.pi.call(leaves_by, SERVERS[0]) == "wifi0"
    first.communicate("")
    assert networks.pi.call(leaves_by, SERVERS[0]) == "wwan0"
    second.communicate("")


def test_an_interface_without_a_way_to_the_server_is_refused(networks: ThreeNetworks) -> None:
    """No route of any kind leads there: the kernel's guess that everything is on that network does not count."""

    def drop() -> None:
        with IPRoute() as ip:
            ip.route("del", dst="default", gateway="10.0.2.1", oif=ip.link_lookup(ifname="wwan0")[0])

    networks.pi.call(drop)
    with pytest.raises(HostError, match=r"--pin-route: wwan0 has no route to 10.0.0.1 and no gateway"):
        networks.pi.call(enter, SERVERS[0], "wwan0", pin=True)


def test_on_a_point_to_point_interface_everything_is_at_the_other_end(networks: ThreeNetworks) -> None:
    """As on a modem: without a route and a gateway the address is on the link."""

    def make() -> None:
        with IPRoute() as ip:
            index = ip.link_lookup(ifname="wwan0")[0]
            ip.route("del", dst="default", gateway="10.0.2.1", oif=index)
            ip.link("set", index=index, arp=False)

    networks.pi.call(make)
    assert networks.pi.call(enter, SERVERS[0], "wwan0", pin=True) == ("wwan0", None, "10.0.2.2")


def test_a_gateway_without_a_network_is_pinned_to(networks: ThreeNetworks) -> None:
    """As deploy/5g/modem.sh leaves a modem that plays Ethernet: an address alone, and a gateway that is said to be there."""

    def make() -> None:
        with IPRoute() as ip:
            index = ip.link_lookup(ifname="wwan0")[0]
            ip.flush_addr(index=index, family=socket.AF_INET)
            ip.addr("add", index=index, address="10.9.9.9", prefixlen=32)
            ip.route("add", dst="10.0.2.1/32", gateway="10.0.2.1", oif=index, flags=["onlink"], prefsrc="10.9.9.9")

    networks.pi.call(make)
    assert networks.pi.call(enter, "10.0.2.1:9092", "wwan0", pin=True) == ("wwan0", "10.0.2.1", "10.9.9.9")


def test_an_own_address_is_no_server(networks: ThreeNetworks) -> None:
    """Nothing leaves for it, whatever is asked for."""
    for pin in (False, True):
        with pytest.raises(HostError, match=r"10.0.1.2 is this host's own address"):
            networks.pi.call(enter, "10.0.1.2:9092", "wifi0", pin=pin)


def test_no_route_at_all_is_told(networks: ThreeNetworks) -> None:
    """Without any network, the message asks for one."""
    with pytest.raises(HostError, match=r"--interface eth0: this host has no route to 192.0.2.1"):
        networks.host.call(enter, "192.0.2.1:1", "eth0")


def test_who_may_not_change_routes_is_told(networks: ThreeNetworks) -> None:
    """The message names the right that is missing, and nothing is changed."""
    before = networks.routing()
    with pytest.raises(
        AssertionError, match=r"10.0.0.1 cannot be pinned to wifi0: Operation not permitted; it needs CAP_NET_ADMIN"
    ):
        start_holder(networks, SERVERS[0], "wifi0", *WITHOUT_RIGHTS)
    assert networks.routing() == before


def test_a_name_without_an_address_is_told() -> None:
    """As a server that cannot be reached."""
    with pytest.raises(ServerUnreachable, match=r"nowhere.invalid:1: nowhere.invalid has no address"):
        addresses_of("nowhere.invalid:1")


def test_addresses_keep_their_zone() -> None:
    """A link-local address belongs to an interface."""
    assert addresses_of("[fe80::1%lo]:9092") == [("fe80::1", 1)]
    assert addresses_of("127.0.0.1:9092") == [("127.0.0.1", 0)]
