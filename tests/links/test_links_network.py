"""Emulated networks with real traffic: rates, delays, sharing, nothing around the link."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from fltestbed.errors import LinkError
from fltestbed.links import EmulatedNetwork, Host, LinkProfile
from fltestbed.links.backends import Wirefilter
from fltestbed.links.privilege import may_make_namespaces

PROBE = str(Path(__file__).with_name("link_probe.py"))
PAYLOAD = 1448 / 1514  # of a full frame, with TCP's time stamps
UP, DOWN = 20.0, 60.0  # Mbit/s

pytestmark = pytest.mark.skipif(
    not may_make_namespaces(),
    reason="this user may not make network namespaces; run the tests as root, or with unshare --user --map-root-user",
)
WIREFILTER_MISSING = Wirefilter().missing()
wirefilter = pytest.param(
    "wirefilter", marks=pytest.mark.skipif(WIREFILTER_MISSING is not None, reason=str(WIREFILTER_MISSING))
)
needs_wirefilter = pytest.mark.skipif(WIREFILTER_MISSING is not None, reason=str(WIREFILTER_MISSING))


def profile(medium: str = "shared_tdd", *, up: float = UP, down: float = DOWN, **both: Any) -> LinkProfile:
    common = {"queue-kb": 150.0} | {key.replace("_", "-"): value for key, value in both.items()}
    uplink, downlink = common | {"rate-mbit": up}, common | {"rate-mbit": down}
    return LinkProfile.model_validate({"name": "lab", "medium": medium, "uplink": uplink, "downlink": downlink})


@contextmanager
def network(link: LinkProfile, clients: int = 1, **options: Any) -> Iterator[EmulatedNetwork]:
    """Make a network whose server answers the probes."""
    with EmulatedNetwork(link, clients, **options) as emulated:
        server = emulated.server.popen([sys.executable, PROBE, "serve", emulated.server.address], stdout=subprocess.PIPE)
        assert server.stdout is not None
        with server.stdout:
            assert server.stdout.readline() == b"ready\n"
            yield emulated


def start(emulated: EmulatedNetwork, client: int, command: str, *arguments: object) -> Callable[[], dict[str, Any]]:
    """Start a probe on a client; the result is a function that waits for what it found."""
    argv = [sys.executable, PROBE, command, emulated.server.address, *map(str, arguments)]
    process = emulated.clients[client].popen(argv, stdout=subprocess.PIPE)

    def result() -> dict[str, Any]:
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        return dict(json.loads(output))

    return result


def run(emulated: EmulatedNetwork, client: int, command: str, *arguments: object) -> dict[str, Any]:
    return start(emulated, client, command, *arguments)()


@pytest.mark.parametrize("backend", ["tbf", wirefilter])
def test_rates_are_the_profiles_in_each_direction(backend: str) -> None:
    """TCP's payload arrives at the rate of the profile less headers, and never faster than that."""
    with network(profile(), backend=backend) as emulated:
        assert emulated.describe()["backend"] == backend
        assert 0.85 * UP * PAYLOAD < run(emulated, 0, "send", 1.5, 0)["mbit"] < 1.03 * UP * PAYLOAD
        assert 0.85 * DOWN * PAYLOAD < run(emulated, 0, "receive", 1.5, 0)["mbit"] < 1.03 * DOWN * PAYLOAD


def test_clients_share_a_cell() -> None:
    """On a shared medium two uplinks together get the one rate, not twice that."""
    with network(profile(), 2, backend="tbf") as emulated:
        rates = [result()["mbit"] for result in [start(emulated, client, "send", 1.5, 0) for client in (0, 1)]]
    assert 0.8 * UP * PAYLOAD < sum(rates) < 1.1 * UP * PAYLOAD


def test_clients_of_a_switch_do_not_share() -> None:
    """On a dedicated medium two uplinks at once get the full rate each."""
    with network(profile("dedicated"), 2, backend="tbf") as emulated:
        rates = [result()["mbit"] for result in [start(emulated, client, "send", 1.5, 0) for client in (0, 1)]]
    assert all(0.85 * UP * PAYLOAD < rate < 1.03 * UP * PAYLOAD for rate in rates)


@pytest.mark.parametrize("backend", ["tbf", wirefilter])
def test_half_duplex_is_one_budget(backend: str) -> None:
    """Alone, a direction gets more than the half that it is sure of; both at once get no more than the budget together, and
    neither starves. The budget is small, its queue 150 ms: a process that waits that long for a CPU loses nothing of it.
    """
    budget = 8.0
    with network(profile("half_duplex", up=budget, down=budget), 2, backend=backend) as emulated:
        alone = run(emulated, 0, "send", 1.5, 0)["mbit"]
        pair = [start(emulated, 0, "send", 2.0, 0), start(emulated, 1, "receive", 2.0, 0)]
        both = [result()["mbit"] for result in pair]
    assert 0.7 * budget < alone < 1.03 * budget * PAYLOAD
    assert 0.6 * budget < sum(both) < 1.1 * budget * PAYLOAD
    assert min(both) > 0.1 * budget


@needs_wirefilter
def test_delays_are_the_profiles_in_each_direction_even_under_load() -> None:
    """One-way delays are those of their own direction; a busy uplink with a long delay does not lengthen the downlink's."""
    data = profile(queue_kb=50).model_dump(by_alias=True)
    data["uplink"]["delay-ms"], data["downlink"]["delay-ms"] = 30, 5
    with network(LinkProfile.model_validate(data), 2, backend="wirefilter") as emulated:
        idle = run(emulated, 0, "ping", 20, 2)
        load = start(emulated, 1, "send", 2.0, 0)
        busy = run(emulated, 0, "ping", 20, 2)
        load()
    assert idle["lost"] == 0
    assert 28 < idle["up_ms"] < 40
    assert 4 < idle["down_ms"] < 13
    assert busy["up_ms"] > 29
    assert busy["down_ms"] < 18


@pytest.mark.parametrize("backend", ["tbf", wirefilter])
def test_the_wire_itself_loses_nothing(backend: str) -> None:
    """With a queue that holds everything, what one end sends the other receives, both directions at once."""
    with network(profile(up=80, down=80, queue_kb=4000, delay_ms=3), 2, backend=backend) as emulated:
        pair = [start(emulated, 0, "send", 0, 2_000_000), start(emulated, 1, "receive", 0, 2_000_000)]
        assert [result()["bytes"] for result in pair] == [2_000_000, 2_000_000]
        run(emulated, 0, "ping", 20, 2)  # until then, the last acknowledgements have arrived
        server = emulated.server.counters()
        clients = [client.counters() for client in emulated.clients]
    assert server.rx_packets == sum(client.tx_packets for client in clients) > 1381
    assert server.tx_packets == sum(client.rx_packets for client in clients) > 1381


@needs_wirefilter
def test_loss_is_the_profiles() -> None:
    """Of 200 datagrams with 20 % loss in one direction, about 40 are lost (within five standard deviations)."""
    data = profile().model_dump(by_alias=True)
    data["uplink"]["loss-percent"] = 20
    with network(LinkProfile.model_validate(data), backend="wirefilter") as emulated:
        assert 12 <= run(emulated, 0, "ping", 200, 0.03)["lost"] <= 68


def test_nothing_goes_around_the_link() -> None:
    """A client has its loopback and its link, no way to another client, and its counters hold the whole transfer."""
    with network(profile(), 2, backend="tbf") as emulated:
        client = emulated.clients[0]
        names = output(client, "import socket; print([name for _, name in socket.if_nameindex()])")
        assert names == "['lo', 'lab0']"
        reach = "import socket; socket.create_connection(('{}', 9), timeout=0.3)"
        assert "refused" in output(client, reach.format(emulated.server.address))
        for here, there in (emulated.clients, emulated.clients[::-1]):  # or they would find no address to send to
            here.namespace.call(know, here, there)
        assert "timed out" in output(client, reach.format(emulated.clients[1].address))
        assert "unreachable" in output(client, reach.format("192.0.2.1"))
        before = client.counters()
        run(emulated, 0, "send", 0, 1_000_000)
        after = client.counters()
    sent, frames = after.tx_bytes - before.tx_bytes, after.tx_packets - before.tx_packets
    assert 1_000_000 / PAYLOAD <= sent < 1.06 * 1_000_000 / PAYLOAD
    assert sent / frames <= 1514  # frames and not what offloading makes of them


def know(here: Host, there: Host) -> None:
    """Add the Ethernet address of one client to the neighbours of another."""
    mac = there.namespace.call(address_of, there.interface)
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=here.interface)[0]
        ip.neigh("replace", dst=there.address, lladdr=mac, ifindex=index, state="permanent")


def address_of(interface: str) -> str:
    with IPRoute() as ip:
        return str(ip.get_links(ifname=interface)[0].get_attr("IFLA_ADDRESS"))


def output(host: Host, code: str) -> str:
    """Run Python code on a host and return what it printed, or its last line of error."""
    process = host.popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return str(process.communicate(timeout=30)[0]).strip().splitlines()[-1]


def test_command_runs_on_the_host() -> None:
    """A command with the host's prefix sees the host's network, for callers that start processes in their own way."""
    with EmulatedNetwork(profile(), 1, backend="tbf") as emulated:
        code = "import socket; print([name for _, name in socket.if_nameindex()])"
        seen = subprocess.run(emulated.clients[0].command([sys.executable, "-c", code]), capture_output=True, check=True)
    assert seen.stdout == b"['lo', 'lab0']\n"


def test_congestion_control_is_set_for_every_socket() -> None:
    """Both ends of a connection use the algorithm asked for, which is not the kernel's default."""
    algorithms = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    default = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    other = next(name for name in algorithms if name != default)
    with network(profile(), backend="tbf", congestion_control=other) as emulated:
        found = run(emulated, 0, "send", 0, 10_000)
        assert emulated.describe()["congestion_control"] == other
    assert found["congestion_control"] == found["server_congestion_control"] == other


def test_unknown_congestion_control_lists_the_known_ones() -> None:
    """An algorithm that the kernel has not is one clear error, and nothing is left behind."""
    with (
        pytest.raises(LinkError, match=r'"swift".*it has .*reno'),
        EmulatedNetwork(profile(), 1, congestion_control="swift"),
    ):
        pass


def test_link_down_and_up() -> None:
    """A client whose link is down reaches nobody, the others do; after it is up again it does too."""
    with network(profile(), 2, backend="tbf") as emulated:
        emulated.set_link(0, up=False)
        assert run(emulated, 0, "ping", 3, 0.1)["lost"] == 3
        assert run(emulated, 1, "ping", 3, 2)["lost"] == 0
        emulated.set_link(0, up=True)
        assert run(emulated, 0, "ping", 3, 2)["lost"] == 0


def test_trace_gives_a_client_a_rate_of_its_own() -> None:
    """With its trace started, one client is slower in both directions and the other is not; `set_rate` overrides it."""
    data = profile().model_dump(by_alias=True)
    data["trace"] = [
        {"client": 0, "at-s": 0.0, "uplink-mbit": 5.0, "downlink-mbit": 8.0},
        {"client": 7, "at-s": 0.0, "uplink-mbit": 1.0},
    ]
    with network(LinkProfile.model_validate(data), 2, backend="tbf") as emulated:
        emulated.start_trace()
        assert run(emulated, 0, "send", 1.2, 0)["mbit"] < 1.05 * 5 * PAYLOAD
        assert run(emulated, 0, "receive", 1.2, 0)["mbit"] < 1.05 * 8 * PAYLOAD
        assert run(emulated, 1, "send", 1.2, 0)["mbit"] > 0.8 * UP * PAYLOAD
        emulated.set_rate(0, uplink_mbit=10)
        assert 0.8 * 10 * PAYLOAD < run(emulated, 0, "send", 1.2, 0)["mbit"] < 1.05 * 10 * PAYLOAD


def test_description_is_plain_and_complete() -> None:
    """What the manifest gets is JSON and says which link, which backend, and what was not emulated."""
    with EmulatedNetwork(profile(delay_ms=14), 1, backend="tbf") as emulated:
        description = json.loads(json.dumps(emulated.describe()))
    assert description["profile"]["uplink"]["rate-mbit"] == UP
    assert (description["backend"], description["medium"], description["mtu"]) == ("tbf", "shared_tdd", 1500)
    assert "tbf emulates the rate alone: no uplink delay 14 ms" in description["notes"]
    assert set(description["offloads"].values()) == {False}
