"""One bit is flipped on the way, once, in the middle of a model: that transfer is made again, and the run is whole."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import TIMEOUT_S, free_port, left_over, marked, numpy_app, write_experiment
from tests.e2e.test_e2e_collect import rows_of
from tests.waiting import wait_until

PARAMETERS = 100_000
"""0.4 MB in four tensors."""
SPOILT_BYTE = 60_000
"""Of a connection, in one direction: past all that is small, within the first tensor."""
ROUNDS = 2
DEADLINE_S = 60.0


class SpoilingProxy:
    """Passes on what comes to a port, but for one bit; within the block.

    Parameters
    ----------
    port : int
        Of the server.
    direction : str
        In which a bit is flipped: uplink or downlink.
    """

    def __init__(self, port: int, direction: str) -> None:
        self._port = port
        self._direction = direction
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.has_spoilt = False

    def __enter__(self) -> "SpoilingProxy":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._ends):
            _shut(sock)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self._ends):
            sock.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except ConnectionRefusedError:  # it has ended already, or does not listen yet
                    _shut(client)
                    continue
                self._ends.append(server)
                for ends in ((client, server, "uplink"), (server, client, "downlink")):
                    self._threads.append(threading.Thread(target=self._pass, args=ends))
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        passed = 0
        with suppress(OSError):
            while data := bytearray(source.recv(1 << 16)):
                at = SPOILT_BYTE - passed
                if direction == self._direction and 0 <= at < len(data) and not self.has_spoilt:
                    data[at] ^= 1
                    self.has_spoilt = True
                passed += len(data)
                target.sendall(data)
        _shut(source)
        _shut(target)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def started(log: Path, environment: dict[str, str], *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A command of the toolkit, whose words go to a file."""
    command = [sys.executable, "-m", "fltestbed", *map(str, arguments)]
    with (
        log.open("wb") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(params=["bundle", "objects"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each of the two."""
    return str(request.param)


@pytest.mark.parametrize("direction", ["downlink", "uplink"])
def test_a_damaged_transfer_is_made_again(tmp_path: Path, transport: str, direction: str) -> None:
    """The run is complete with every reply and the client ends well. With bundles the attempt that failed is a row that says
    so; server or client say in a line what was wrong.
    """
    port = free_port()
    server = {"host": "127.0.0.1", "port": port, "tls": False, "round_deadline_s": DEADLINE_S}
    config = write_experiment(tmp_path, clients=1, transport=transport, server=server)
    app = numpy_app(tmp_path, num_server_rounds=ROUNDS, parameters=PARAMETERS, min_nodes=1)
    mark, environment = marked()
    server_log, client_log = tmp_path / "server.log", tmp_path / "client.log"
    with (
        started(server_log, environment, "server", config, "--app", app, "--runs", tmp_path, "--name", "run") as serving,
        SpoilingProxy(port, direction) as proxy,
    ):
        wait_until(lambda: "waiting for" in server_log.read_text() or serving.poll() is not None)
        with started(
            client_log, environment, "client", "--server", proxy.address, "--interface", "lo", "--link", "lo",
            "--partition", 0, "--name", "pi-0", "--state", tmp_path / "state", "--trust-apps",
        ) as client:  # fmt: skip
            statuses = client.wait(TIMEOUT_S), serving.wait(TIMEOUT_S)
    server_said, client_said = server_log.read_text(), client_log.read_text()
    assert proxy.has_spoilt
    assert statuses == (0, 0), server_said + client_said
    assert left_over(mark) == []

    folder = tmp_path / "run"
    assert json.loads((folder / "manifest.json").read_text())["status"] == "complete"
    phases = rows_of(folder / "phases.csv")
    collected = [(row["round"], row["message_type"], row["status"]) for row in phases if row["phase"] == "collect"]
    assert collected == [(str(number), kind, "ok") for number in range(1, ROUNDS + 1) for kind in ("train", "evaluate")]
    transfers = rows_of(folder / "transfers.csv")
    failed = [row for row in transfers if row["status"] != "ok"]
    assert len(transfers) - len(failed) == 2 * len(collected)
    assert "hash" in (client_said if (transport, direction) == ("objects", "downlink") else server_said)
    if transport == "objects":
        assert failed == []
        return
    (row,) = failed
    assert (row["round"], row["direction"], row["attempt"]) == ("1", direction, "1")
    assert "does not have the hash that it is named by" in row["detail"]
    about = row["message_id"], direction
    first, second = (one for one in transfers if (one["message_id"], one["direction"]) == about)
    assert first is row
    assert (second["status"], second["attempt"]) == ("ok", "2")
    assert int(first["server_start_raw_ns"]) < int(first["server_end_raw_ns"]) <= int(second["server_start_raw_ns"])
