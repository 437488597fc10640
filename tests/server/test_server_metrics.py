"""What Prometheus gets of a run, and whether the dashboard asks for what there is."""

import contextlib
import json
import re
import socket
import threading
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fltestbed.errors import HostError
from fltestbed.measure.recorder import Value
from fltestbed.server.metrics import MOST_AT_ONCE, serving
from tests.e2e.conftest import free_port
from tests.server.watched import half_a_round
from tests.waiting import wait_until

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "fltestbed.json"
Labels = tuple[tuple[str, str], ...]


def scrape(port: int) -> dict[tuple[str, Labels], float]:
    """Every sample by name and labels, as Prometheus' own parser reads it."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_tells_of_the_round_under_way(tmp_path: Path) -> None:
    """0.25 s in the queue, 2.9 MB down and -91.4 dBm of pi-0, which trains, while pi-1 waits."""
    view, port = half_a_round(tmp_path), free_port()
    uplink: dict[str, Value] = {"phase": "uplink", "client": "pi-0", "link": "5g", "payload_bytes": 100, "duration_s": 2.0}
    aggregate: dict[str, Value] = {"phase": "aggregate", "client": "", "start_host": "server", "duration_s": 0.5}
    for row in (uplink, uplink | {"duration_s": 3.0}, aggregate):
        view.latest.hear("phases.csv", row)
    with serving(view, "127.0.0.1", port):
        found = scrape(port)
    pi_0 = (("client", "pi-0"), ("link", "5g"))
    assert found["fltestbed_round", ()] == 1
    assert found["fltestbed_rounds_planned", ()] == 3
    assert found["fltestbed_client_phase", (("client", "pi-0"), ("phase", "train"))] == 1
    assert found["fltestbed_client_phase", (("client", "pi-1"), ("phase", "queue"))] == 1
    assert found["fltestbed_phase_duration_seconds_sum", (*pi_0, ("phase", "queue"))] == 0.25
    assert found["fltestbed_phase_duration_seconds_sum", (*pi_0, ("phase", "uplink"))] == 5.0
    assert found["fltestbed_phase_duration_seconds_count", (*pi_0, ("phase", "uplink"))] == 2
    assert found["fltestbed_phase_last_duration_seconds", (*pi_0, ("phase", "uplink"))] == 3.0
    assert found["fltestbed_phase_last_duration_seconds", (("client", ""), ("link", ""), ("phase", "aggregate"))] == 0.5
    assert found["fltestbed_payload_bytes_total", (("client", "pi-0"), ("direction", "uplink"), ("link", "5g"))] == 200
    assert found["fltestbed_signal_dbm", (*pi_0, ("technology", "5g"))] == pytest.approx(-91.4)


def test_the_dashboard_asks_for_metrics_that_there_are(tmp_path: Path) -> None:
    """Every name in its queries is one that a scrape gives, and it leaves none of them out."""
    view, port = half_a_round(tmp_path), free_port()
    view.latest.hear("phases.csv", {"phase": "uplink", "client": "a", "link": "5g", "payload_bytes": 9, "duration_s": 2.0})
    view.log.metrics(1, "server", "", {"accuracy": 0.5}, 0)
    with serving(view, "127.0.0.1", port):
        served = {name for name, _ in scrape(port)}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {
        name for panel in panels for target in panel["targets"] for name in re.findall(r"fltestbed_\w+", target["expr"])
    }
    assert asked == served


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    """One line that names the option."""
    view, port = half_a_round(tmp_path), free_port()
    with serving(view, "127.0.0.1", port), pytest.raises(HostError, match=f"--metrics-port {port}: cannot listen at 127"):
        serving(view, "127.0.0.1", port).__enter__()


def test_connections_that_ask_nothing_are_few_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Forty hold the port: all but sixteen are closed at once, those after a silence; then Prometheus is answered again."""
    monkeypatch.setattr("fltestbed.server.metrics.SILENCE_S", 0.2)
    view, port = half_a_round(tmp_path), free_port()
    with serving(view, "127.0.0.1", port), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(40)]
        for sock in socks:
            sock.sendall(b"GET /metr")
        assert answering() <= MOST_AT_ONCE
        for sock in socks:
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b""
        wait_until(lambda: answering() == 0)
        assert scrape(port)["fltestbed_round", ()] == 1
    assert capfd.readouterr().err == ""


def answering() -> int:
    """Threads of the metrics' server that are at a request."""
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())
