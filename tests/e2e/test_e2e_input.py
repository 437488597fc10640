"""Bad input to a run ends with one readable message and leaves nothing behind; tests/cli has what all commands refuse."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import APPS, Outcome, fltestbed, free_port, write_experiment


def one_message(done: Outcome, status: int) -> str:
    """The message of a command that failed as it should: its status, one line, no traceback."""
    assert done.status == status, done.out + done.err
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert len(lines) == 1, done.err
    return lines[0]


def test_an_unknown_link(tmp_path: Path) -> None:
    """A link name with a slip: the nearest is offered."""
    message = one_message(fltestbed("run", write_experiment(tmp_path), "--link", "ethernt", "--runs", tmp_path), 2)
    assert 'did you mean "ethernet"?' in message


def test_a_run_folder_that_exists(tmp_path: Path) -> None:
    """What was measured is never overwritten."""
    (tmp_path / "there").mkdir()
    done = fltestbed("run", write_experiment(tmp_path), "--link", "ethernet", "--runs", tmp_path, "--name", "there")
    assert "there: exists already" in one_message(done, 2)
    assert list((tmp_path / "there").iterdir()) == []


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server on the loopback that waits for its one client."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    config = write_experiment(folder, clients=1, server={"host": "127.0.0.1", "port": port, "join_timeout_s": 60})
    command = [sys.executable, "-m", "fltestbed", "server", config, "--app", APPS / "numpy_app", "--runs", folder]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def client(folder: Path, address: str, partition: int) -> Outcome:
    return fltestbed(
        "client", "--server", address, "--interface", "lo", "--link", "lo", "--partition", partition, "--timeout", 20,
        "--state", folder / "state",
    )  # fmt: skip


def test_a_client_runs_no_code_of_the_server_without_being_told(tmp_path: Path, address: str) -> None:
    """A client that was not started with --trust-apps refuses an app that brings code."""
    message = one_message(client(tmp_path, address, 0), 1)
    assert "the server wants this client to run code of its own (numpy_app.client_app:app)" in message
    assert "--trust-apps" in message


def test_a_partition_past_the_end(tmp_path: Path, address: str) -> None:
    """The client says how many there are."""
    message = one_message(client(tmp_path, address, 5), 2)
    assert "--partition 5 is past the end: this run has 1 clients, so it is 0 to 0" in message
