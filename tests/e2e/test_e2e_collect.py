"""A server that is killed, or a link that is cut, right after the last uplink costs no row of a client."""

import contextlib
import csv
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.conftest import fltestbed, free_port, left_over, marked, numpy_app, write_experiment

ROUNDS = 2


class Relay:
    """Passes bytes on between a client and a server, until the client asks for work after its last push; then nothing."""

    def __init__(self, server_port: int, pushes: int) -> None:
        self._server_port = server_port
        self._pushes = pushes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self.has_cut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._sockets += [client, server]
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._pushes -= b"/client/push HTTP" in data
                if self._pushes == 0 and b"/client/pull HTTP" in data:
                    self.cut()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Nothing passes any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self.has_cut.set()


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose link was cut and whose server was killed when the answer to the last reply had just passed."""
    folder = tmp_path_factory.mktemp("killed")
    port = free_port()
    config = write_experiment(folder, clients=1, server={"host": "127.0.0.1", "port": port})
    app = numpy_app(folder, own_loop=True)  # it makes ROUNDS rounds with any number of clients
    relay = Relay(port, ROUNDS)
    mark, environment = marked()
    environment |= {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "fltestbed"]
    serving = [*command, "server", str(config), "--name", "run", "--runs", str(folder), "--app", str(app)]
    with subprocess.Popen(serving, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert "listening" in server.stdout.readline()
        taking_part = [
            *command, "client", "--server", f"127.0.0.1:{relay.port}", "--interface", "lo", "--link", "5g",
            "--partition", "0", "--name", "pi", "--state", str(folder / "state"), "--trust-apps", "--timeout", "0",
            "--patience", "0",
        ]  # fmt: skip
        with subprocess.Popen(taking_part, env=environment, stderr=subprocess.PIPE, text=True) as client:
            assert relay.has_cut.wait(60)
            os.kill(server.pid, signal.SIGKILL)
            _, err = client.communicate(timeout=60)
    assert client.returncode == 1
    assert "the server has been gone" in err
    assert left_over(mark) == []
    return folder


def test_what_the_server_never_wrote_comes_back_once(killed: Path) -> None:
    """Before, the last uplink is missing; after, each phase and transfer stands there once; again adds none."""
    run = killed / "run"
    before = rows_of(run / "transfers.csv")
    assert ("2", "uplink") not in [(row["round"], row["direction"]) for row in before]
    done = fltestbed("collect", run, "--state", killed / "state")
    assert done.status == 0, done.err
    assert "pi: " in done.out
    transfers = rows_of(run / "transfers.csv")
    assert sorted((row["round"], row["direction"]) for row in transfers) == [
        ("1", "downlink"), ("1", "uplink"), ("2", "downlink"), ("2", "uplink"),
    ]  # fmt: skip
    (last,) = [row for row in transfers if (row["round"], row["direction"]) == ("2", "uplink")]
    assert int(last["client_end_raw_ns"]) >= int(last["client_start_raw_ns"]) > 0
    phases = rows_of(run / "phases.csv")
    count = Counter((row["round"], row["phase"]) for row in phases if row["client"] == "pi")
    for phase in ("downlink", "deserialize", "train", "serialize", "uplink"):
        assert [count[round_, phase] for round_ in ("1", "2")] == [1, 1], phase
    samples = rows_of(run / "clock_samples.csv")
    assert len({row["client_send_raw_ns"] for row in samples}) == len(samples)
    content = {file.name: file.read_bytes() for file in run.glob("*.csv")}
    again = fltestbed("collect", run, "--state", killed / "state")
    assert again.out.strip() == "pi: nothing that the run folder lacks"
    assert {file.name: file.read_bytes() for file in run.glob("*.csv")} == content


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
def test_the_copy_may_come_over_ssh(killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--from fetches with rsync through the shell that rsync is told to use; what it says when it fails is the message."""
    shell = tmp_path / "ssh"
    shell.write_text('#!/bin/sh\ntest "$1" = -l && shift 2\ntest "$1" = pi || { echo "no such host" >&2; exit 255; }\n'
                     'shift\nexec "$@"\n')  # fmt: skip
    shell.chmod(shell.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("RSYNC_RSH", str(shell))
    done = fltestbed("collect", killed / "run", "--from", f"me@pi:{killed / 'state'}")
    assert done.status == 0, done.err
    refused = fltestbed("collect", killed / "run", "--from", f"other:{killed / 'state'}")
    assert refused.status == 1
    assert "no such host" in refused.err
