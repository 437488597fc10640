"""Interfaces, routes and packets of full size, each error provoked on a host with three networks up."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from fltestbed.check.finding import NotHere
from fltestbed.check.network import check_interface, check_path_mtu
from fltestbed.links.namespace import Namespace
from fltestbed.links.privilege import may_make_namespaces
from fltestbed.measure.probes.tools import Toolbox
from tests.check.findings import lines, only
from tests.client.three_networks import ThreeNetworks, three_networks
from tests.measure.probes.conftest import Install

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="this user may not make network namespaces")
needs_ping = pytest.mark.skipif(shutil.which("ping") is None, reason="ping is not installed (Debian package iputils-ping)")
LOOK = """
import json, sys
from dataclasses import asdict
from fltestbed.check.network import check_interface
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.measure.host import describe_host
interfaces = describe_host(SYSTEM_CLOCK)["interfaces"]
print(json.dumps({name: [asdict(each) for each in check_interface(name, interfaces)] for name in sys.argv[1:]}))
"""
PORT = {"state": "up", "addresses": ["10.0.0.2"], "speed_mbit": 1000, "duplex": "full", "mtu": 1500}


@pytest.fixture
def networks() -> Iterator[ThreeNetworks]:
    """New ones, to be broken."""
    with three_networks() as made:
        yield made


def change(namespace: Namespace, interface: str, **settings: Any) -> None:
    """Change a link."""

    def set_link() -> None:
        with IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname=interface)[0], **settings)

    namespace.call(set_link)


def test_each_interface_is_told_as_it_is(networks: ThreeNetworks) -> None:
    """One that is up, one whose cable is out, one that is off, one that does not exist, each with what to do."""
    change(networks.host, "wifi0", state="down")
    change(networks.pi, "wwan0", state="down")
    process = networks.pi.popen(
        [sys.executable, "-c", LOOK, "eth0", "wifi0", "wwan0", "eth9"], stdout=subprocess.PIPE, text=True
    )
    told = json.loads(process.communicate()[0])
    assert [(finding["status"], finding["said"]) for (finding,) in told.values()] == [
        ("ok", "10.0.0.2, fd00::2, 10000 Mbit/s, MTU 1500"),
        ("error", "up, without a carrier"),
        ("error", "down"),
        ("error", "does not exist"),
    ]
    assert told["wwan0"][0]["advice"] == "sudo ip link set wwan0 up"
    assert "eth0" in told["eth9"][0]["advice"]


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, "ok"),
        ({"speed_mbit": None}, "ok"),
        ({"speed_mbit": 10}, "warning"),
        ({"duplex": "half"}, "warning"),
        ({"addresses": ["fe80::1"]}, "error"),
        ({"state": "dormant"}, "error"),
    ],
)
def test_a_port_that_is_slow_or_has_no_address(networks: ThreeNetworks, settings: dict[str, Any], status: str) -> None:
    """A cable with two broken wires is 10 Mbit/s or half duplex; a link-local address does not count."""
    said = networks.pi.call(lambda: list(check_interface("eth0", {"eth0": PORT | settings})))
    assert lines(said) == [("interface eth0", status)]


def test_two_interfaces_on_one_network_are_a_warning(networks: ThreeNetworks) -> None:
    """Each answers ARP for the other, so replies may come in there; not if each is told to answer for itself alone."""

    def add() -> None:
        with IPRoute() as ip:
            ip.addr("add", index=ip.link_lookup(ifname="wifi0")[0], address="10.0.0.3", prefixlen=24)

    def settle() -> None:
        for key, value in (("arp_ignore", "1"), ("arp_announce", "2")):
            Path(f"/proc/sys/net/ipv4/conf/all/{key}").write_text(value)

    def look() -> list[tuple[str, str]]:
        return lines(check_interface("eth0", {"eth0": PORT}))

    networks.pi.call(add)
    assert networks.pi.call(look) == [("interface eth0", "ok"), ("network of eth0", "warning")]
    networks.pi.call(settle)
    assert networks.pi.call(look) == [("interface eth0", "ok"), ("network of eth0", "ok")]


def look_at_mtu(networks: ThreeNetworks, address: str, interface: str) -> Any:
    return only([networks.pi.call(check_path_mtu, address, interface, 1500, Toolbox(threading.Lock()))])


@needs_ping
@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])
def test_packets_of_full_size_arrive(networks: ThreeNetworks, address: str) -> None:
    """There and back, over IPv4 and IPv6."""
    found = look_at_mtu(networks, address, "eth0")
    assert (found.status, found.said) == ("ok", "1500 bytes, as the interface's")


@needs_ping
def test_a_smaller_mtu_on_the_way_is_told(networks: ThreeNetworks) -> None:
    """As on a 5G tunnel: the kernel knows of 1400 bytes, and the advice names them."""

    def narrow() -> None:
        with IPRoute() as ip:
            index = ip.link_lookup(ifname="wwan0")[0]
            ip.route("add", dst="10.9.9.9/32", gateway="10.0.2.1", oif=index, metrics={"mtu": 1400})

    networks.pi.call(narrow)
    found = look_at_mtu(networks, "10.9.9.9", "wwan0")
    assert (found.status, found.said) == ("warning", "1400 bytes, the interface's is 1500")
    assert "mtu 1400" in found.advice


@needs_ping
def test_a_black_hole_for_large_packets_is_an_error(networks: ThreeNetworks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end takes 1400 bytes and drops larger ones without a word: found to within 8 bytes."""
    monkeypatch.setattr("fltestbed.check.network.REPLY_TIMEOUT_S", 0.1)
    change(networks.host, "wifi0", mtu=1400)
    found = look_at_mtu(networks, "10.0.1.1", "wifi0")
    assert found.status == "error"
    largest = int(found.said.split("about ")[1].split()[0])
    assert 1400 - 8 <= largest <= 1400 + 4  # a veth takes a few bytes more than its MTU, for a VLAN


@needs_ping
def test_a_server_that_answers_no_ping_leaves_it_unknown(networks: ThreeNetworks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning, and no verdict."""
    monkeypatch.setattr("fltestbed.check.network.REPLY_TIMEOUT_S", 0.1)
    networks.host.call(Path("/proc/sys/net/ipv4/icmp_echo_ignore_all").write_text, "1")
    found = look_at_mtu(networks, "10.0.0.1", "eth0")
    assert (found.status, found.said) == ("warning", "unknown: 10.0.0.1 does not answer ping")


@pytest.mark.usefixtures("install")
def test_without_ping_it_is_not_looked_at(tools: Toolbox) -> None:
    """The package is named."""
    said = check_path_mtu("127.0.0.1", "lo", 1500, tools)
    assert said == NotHere("path MTU by lo", "ping is not installed (Debian package iputils-ping)")


def test_a_ping_that_fails_for_another_reason_is_told(install: Install, tools: Toolbox) -> None:
    """With what it said."""
    install("ping", "echo 'ping: socket: Operation not permitted' >&2; exit 2")
    found = only([check_path_mtu("127.0.0.1", "lo", 1500, tools)])
    assert (found.status, "Operation not permitted" in found.said) == ("warning", True)
