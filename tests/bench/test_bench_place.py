"""Places of contenders, and their processes."""

import sys
from pathlib import Path

import flwr.server
import psutil
import pytest

from fltestbed.bench.contenders import missing
from fltestbed.bench.place import CONGESTION_CONTROL, Processes, place
from fltestbed.errors import TestbedError

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
TELL_CONGESTION_CONTROL = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
    print(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(bytes(1)).decode())
"""


def test_programs_on_loopback_use_the_congestion_control_of_emulated_links(tmp_path: Path) -> None:
    """A program that chooses none gets it, whatever this kernel's default is."""
    with place("loopback", 1) as here:
        processes = Processes(tmp_path)
        processes.start(here.server, "probe", [sys.executable, "-c", TELL_CONGESTION_CONTROL])
        processes.wait(["probe"], 30)
    assert (tmp_path / "probe.log").read_text().strip() == CONGESTION_CONTROL


def test_a_process_that_fails_is_named_with_its_last_words_and_the_others_end(tmp_path: Path) -> None:
    """The wait for one process ends when another fails, and no process outlives the place."""
    with place("loopback", 1) as here:
        processes = Processes(tmp_path)
        processes.start(here.server, "server", SLEEP)
        processes.start(here.clients[0], "client-0", [sys.executable, "-c", "raise SystemExit('no route')"])
        with pytest.raises(TestbedError, match="client-0 ended with status 1: no route"):
            processes.wait(["server"], 30)
    assert not [child for child in psutil.Process().children() if "time.sleep(60)" in " ".join(child.cmdline())]


def test_a_contender_that_hangs_is_given_up(tmp_path: Path) -> None:
    """The wait ends at its limit, and the message says so."""
    with place("loopback", 1) as here:
        processes = Processes(tmp_path)
        processes.start(here.server, "server", SLEEP)
        with pytest.raises(TestbedError, match=r"not done after 0\.1 s; server: said nothing"):
            processes.wait(["server"], 0.1)


def test_a_contender_that_flower_dropped_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The older path takes part as long as Flower ships it; everybody else always does."""
    assert [missing(name) for name in ("bundle", "grpc", "raw", "stock")] == [None] * 4
    monkeypatch.delattr(flwr.server, "start_server")
    assert "does not ship start_server" in str(missing("grpc"))
