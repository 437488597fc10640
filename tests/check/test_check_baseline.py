"""ping and iperf3 over a real link, their answers by hand, and what becomes of a baseline that was kept."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fltestbed.check import baseline as module
from fltestbed.check.baseline import (
    Baseline,
    Rate,
    RoundTrips,
    check_baseline,
    measure_baseline,
    parse_iperf3,
    parse_ping,
    recall_baseline,
)
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.errors import TestbedError
from fltestbed.links import EmulatedNetwork, load_link
from fltestbed.links.privilege import may_make_namespaces
from fltestbed.measure.probes.tools import Toolbox
from tests.check.findings import lines, only

PING = """PING 10.0.0.1 (10.0.0.1) from 10.0.0.2 eth0: 56(84) bytes of data.

--- 10.0.0.1 ping statistics ---
20 packets transmitted, 19 received, 5% packet loss, time 3810ms
rtt min/avg/max/mdev = 24.100/26.500/40.250/3.125 ms
"""
IPERF3 = {
    "end": {
        "sum_sent": {"bits_per_second": 21e6, "retransmits": 7},
        "sum_received": {"bits_per_second": 20.5e6},
        "sender_tcp_congestion": "cubic",
    }
}
MEASURED = Baseline(
    "10.0.0.1", "wifi0", RoundTrips(20, 20, 0.024, 0.0265, 0.04, 0.003), Rate(20.5e6, 7, "cubic"), Rate(90e6, 0, "cubic"),
    module._boot_id(), 100.0, 1,
)  # fmt: skip


def test_ping_by_hand() -> None:
    """Milliseconds become seconds."""
    assert parse_ping(PING) == RoundTrips(20, 19, 0.0241, 0.0265, 0.04025, 0.003125)
    with pytest.raises(TestbedError, match="is not what ping writes"):
        parse_ping("ping: unknown host")


def test_iperf3_by_hand() -> None:
    """What arrived counts, not what was sent; its own error is passed on."""
    assert parse_iperf3(json.dumps(IPERF3)) == Rate(20.5e6, 7, "cubic")
    with pytest.raises(TestbedError, match="iperf3: unable to connect to server"):
        parse_iperf3('{"error": "unable to connect to server: Connection refused"}')
    for text in ("", "{}", "[]", '{"end": {}}'):
        with pytest.raises(TestbedError, match="is not what iperf3 writes"):
            parse_iperf3(text)


def test_lost_pings_are_a_warning_and_a_failure_is_an_error() -> None:
    """With what to start on the server."""

    def fail() -> Baseline:
        raise TestbedError("iperf3: unable to connect")

    said, found = check_baseline(lambda: replace(MEASURED, ping=parse_ping(PING)), "wifi0", "10.0.0.1")
    assert (lines(said), found is not None) == ([("baseline of wifi0", "warning")], True)
    said, found = check_baseline(fail, "wifi0", "10.0.0.1")
    assert (only(said).status, only(said).advice, found) == (
        "error", "start on 10.0.0.1: iperf3 -s; and let port 5201 and ping through", None,
    )  # fmt: skip


def test_a_baseline_of_today_is_recalled(tmp_path: Path) -> None:
    """For the same server and interface, with its age on a clock that no wall clock moves; of another boot it is not."""
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    replace(MEASURED, boot_s=now_s - 60).keep(tmp_path)
    recalled = recall_baseline(tmp_path, "10.0.0.1", "wifi0")
    assert recalled is not None
    assert recalled["age_s"] == pytest.approx(60, abs=5)
    assert recalled["uplink"] == {"rate_bps": 20.5e6, "retransmissions": 7, "congestion_control": "cubic"}
    assert recall_baseline(tmp_path, "10.0.0.9", "wifi0") is None
    assert recall_baseline(tmp_path, "10.0.0.1", "eth0") is None
    for other in (replace(MEASURED, boot_s=now_s - 86401), replace(MEASURED, boot_s=now_s, boot_id="another")):
        other.keep(tmp_path)
        assert recall_baseline(tmp_path, "10.0.0.1", "wifi0") is None
    (tmp_path / "baseline" / "wifi0.json").write_text('{"boot_s": null}')
    assert recall_baseline(tmp_path, "10.0.0.1", "wifi0") is None


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedNetwork]:
    """A shaped link, and iperf3's server at its other end."""
    monkeypatch.setattr(module, "RATE_S", 1)
    monkeypatch.setattr(module, "OMIT_S", 0)
    monkeypatch.setattr(module, "PINGS", 3)
    with EmulatedNetwork(load_link("wifi"), 1, backend="tbf") as made:
        server = made.server.popen(["iperf3", "--server", "--forceflush"], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            pass
        with server.stdout:
            yield made


@pytest.mark.skipif(not may_make_namespaces(), reason="this user may not make network namespaces")
@pytest.mark.skipif(not (shutil.which("iperf3") and shutil.which("ping")), reason="iperf3 or ping is not installed")
def test_a_real_link_is_measured(network: EmulatedNetwork) -> None:
    """Each direction comes out below the rate that the link was given, and not far below."""
    host = network.clients[0]
    found = host.namespace.call(
        measure_baseline,
        "host",
        network.server.address,
        host.interface,
        Toolbox(threading.Lock(), 20.0),
        SYSTEM_CLOCK,
        "cubic",
    )
    assert (found.ping.sent, found.ping.received) == (3, 3)
    assert 0 < found.ping.min_s <= found.ping.mean_s <= found.ping.max_s
    for direction in ("uplink", "downlink"):
        rate = getattr(network.profile, direction).rate_mbit * 1e6
        measured = getattr(found, direction)
        assert 0.5 * rate < measured.rate_bps < 1.05 * rate
        assert measured.congestion_control == "cubic"
