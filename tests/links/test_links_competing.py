"""A competing flow crosses the clients' medium and takes its share of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fltestbed.config import CompetingFlow
from fltestbed.errors import ConfigError, HostError, LinkError
from fltestbed.links import EmulatedNetwork, LinkProfile
from fltestbed.links.competing import CompetingTraffic, check_iperf3, flow_command
from fltestbed.links.privilege import may_make_namespaces

PROBE = str(Path(__file__).with_name("link_probe.py"))
RATE = 20.0  # Mbit/s, each way
PAYLOAD = 1448 / 1514

needs_namespaces = pytest.mark.skipif(not may_make_namespaces(), reason="this user may not make network namespaces")


def profile(medium: str = "shared_tdd") -> LinkProfile:
    way = {"rate-mbit": RATE, "queue-kb": 100}
    return LinkProfile.model_validate({"name": "cell", "medium": medium, "uplink": way, "downlink": way})


def goodput(network: EmulatedNetwork, way: str) -> float:
    """Mbit/s that a client gets for a second."""
    argv = [sys.executable, PROBE, way, network.server.address, "1", "0"]
    with network.clients[0].popen(argv, stdout=subprocess.PIPE) as process:
        output, _ = process.communicate(timeout=30)
    return float(json.loads(output)["mbit"])


def measure(medium: str, **flow: Any) -> tuple[float, float, dict[str, Any]]:
    """Goodput of a client without and with the flow, in the flow's direction, and what the flow says of itself."""
    chosen = CompetingFlow.model_validate(flow)
    way = "receive" if chosen.direction == "downlink" else "send"
    with EmulatedNetwork(profile(medium), 1, backend="tbf", competitor=True) as network:
        server = network.server.popen([sys.executable, PROBE, "serve", network.server.address], stdout=subprocess.PIPE)
        assert server.stdout is not None
        with server.stdout:
            assert server.stdout.readline() == b"ready\n"
            alone = goodput(network, way)
            with CompetingTraffic(chosen, network) as traffic:
                shared = goodput(network, way)
    return alone, shared, traffic.facts


@needs_namespaces
@pytest.mark.parametrize(("medium", "direction"), [("shared_tdd", "uplink"), ("half_duplex", "downlink")])
def test_a_flow_takes_what_it_sends_from_the_clients(medium: str, direction: str) -> None:
    """Of 20 Mbit/s, a flow of 12 leaves a client about 8; its own counters say 12 (headers and all)."""
    alone, shared, facts = measure(medium, **{"direction": direction, "protocol": "udp", "rate-mbit": 12})
    assert 0.7 * RATE * PAYLOAD < alone < 1.03 * RATE * PAYLOAD
    assert shared < 0.55 * RATE
    assert 10 < facts[f"{direction}_mean_mbit"] < 14
    assert facts["ended_early"] is False
    assert facts["ended_raw_ns"] - facts["started_raw_ns"] > 0.9e9
    assert facts["program"].startswith("iperf 3")


@needs_namespaces
def test_a_flow_that_dies_is_told() -> None:
    """Whoever reads the run knows that the flow was not there to the end."""
    with EmulatedNetwork(profile(), 1, backend="tbf", competitor=True) as network:
        assert network.competitor is not None
        with CompetingTraffic(CompetingFlow(), network) as traffic:
            process = traffic._client  # the one thing that must die
            process.kill()
            process.wait()
    assert traffic.ended_early


@needs_namespaces
def test_there_is_no_competitor_unless_it_is_asked_for() -> None:
    """A network without one refuses the flow; on a dedicated medium there can be none."""
    with EmulatedNetwork(profile(), 1, backend="tbf") as network:
        assert network.competitor is None
        with pytest.raises(LinkError, match="without a host for it"):
            CompetingTraffic(CompetingFlow(), network)
    with pytest.raises(ConfigError, match="a port each"):
        EmulatedNetwork(profile("dedicated"), 1, backend="tbf", competitor=True)


def test_a_missing_iperf3_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the package to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="Debian package iperf3"):
        check_iperf3()


@pytest.mark.parametrize(
    ("flow", "options"),
    [
        ({}, []),
        ({"direction": "downlink", "rate-mbit": 5.5}, ["--reverse", "--bitrate", "5.5M"]),
        ({"direction": "both", "protocol": "udp", "rate-mbit": 2}, ["--bidir", "--udp", "--bitrate", "2M"]),
    ],
)
def test_the_flow_is_iperf3s_without_an_end(flow: dict[str, Any], options: list[str]) -> None:
    """Direction, protocol and rate become iperf3's options."""
    command = flow_command(CompetingFlow.model_validate(flow), "10.77.0.1")
    assert command[:9] == ["iperf3", "--client", "10.77.0.1", "--port", "5201", "--time", "0", "--interval", "0"]
    assert command[9:] == options


def test_udp_wants_a_rate() -> None:
    """It would send as fast as it can."""
    with pytest.raises(ValueError, match="give rate-mbit"):
        CompetingFlow.model_validate({"protocol": "udp"})
