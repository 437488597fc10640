"""Bad input ends with one readable message and leaves nothing behind."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import APPS, Outcome, fltestbed, free_port, write_experiment


def one_message(done: Outcome, status: int) -> str:
    """The message of a command that failed as it should: its status, one line, no traceback."""
    assert done.status == status, done.out + done.err
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert len(lines) == 1, done.err
    return lines[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nmae = 'x'\nname = 'y'", 'unknown key; did you mean "name"?'),
        ("name = 'x'\nrounds = 'three'", "rounds: input should be a valid integer"),
        ("name = 'x'\n[training]\nlearning-rate = -1", "training.learning-rate: input should be greater than 0, not -1"),
        ("name = '../x'", "name: string should match pattern"),
        ("name = ", "not valid TOML"),
    ],
)
def test_an_experiment_that_cannot_be(tmp_path: Path, text: str, expected: str) -> None:
    """A bad key or value: status 2, with the file, the key and what is allowed."""
    file = tmp_path / "bad.toml"
    file.write_text(text)
    message = one_message(fltestbed("run", file, "--runs", tmp_path), 2)
    assert expected in message
    assert "bad.toml" in message


def test_a_link_with_a_negative_rate(tmp_path: Path) -> None:
    """A profile that cannot be: status 2, naming the key."""
    link = tmp_path / "bad-link.toml"
    link.write_text(
        "name = 'bad'\nmedium = 'dedicated'\n"
        "[uplink]\nrate-mbit = -5\nqueue-kb = 100\n[downlink]\nrate-mbit = 5\nqueue-kb = 100\n"
    )
    message = one_message(fltestbed("run", write_experiment(tmp_path), "--link", link, "--runs", tmp_path), 2)
    assert "uplink.rate-mbit: input should be greater than 0, not -5" in message


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


def test_a_port_in_use(tmp_path: Path) -> None:
    """The server says which port, and makes no run folder."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = write_experiment(tmp_path, server={"host": "127.0.0.1", "port": port})
        message = one_message(fltestbed("server", config, "--runs", tmp_path, "--name", "never"), 1)
    assert f"127.0.0.1:{port}: cannot listen there: Address already in use" in message
    assert not (tmp_path / "never").exists()


def client(tmp_path: Path, *changes: object) -> Outcome:
    options: dict[object, object] = {
        "--server": "127.0.0.1:1",
        "--interface": "lo",
        "--link": "lo",
        "--partition": 0,
        "--timeout": 0.5,
    }
    options |= dict(zip(changes[::2], changes[1::2], strict=True))
    flat = [part for option in options.items() for part in option]
    return fltestbed("client", *flat, "--state", tmp_path / "state")


def test_an_interface_that_does_not_exist(tmp_path: Path) -> None:
    """The client names the ones that do."""
    message = one_message(client(tmp_path, "--interface", "wwan7"), 1)
    assert "--interface wwan7: this host has no such interface; it has" in message
    assert "lo" in message


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    """The client gives up after the given time, with the address in the message."""
    message = one_message(client(tmp_path), 1)
    assert "127.0.0.1:1: no server answers there within 0.5 s over lo" in message


@contextmanager
def server_with_an_app(tmp_path: Path) -> Iterator[str]:
    """A server on the loopback that waits for its one client; gives its address."""
    port = free_port()
    config = write_experiment(tmp_path, clients=1, server={"host": "127.0.0.1", "port": port, "join_timeout_s": 60})
    command = [sys.executable, "-m", "fltestbed", "server", config, "--app", APPS / "numpy_app", "--runs", tmp_path]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def test_a_client_runs_no_code_of_the_server_without_being_told(tmp_path: Path) -> None:
    """A client that was not started with --trust-apps refuses an app that brings code."""
    with server_with_an_app(tmp_path) as address:
        message = one_message(client(tmp_path, "--server", address, "--timeout", 20), 1)
    assert "the server wants this client to run code of its own (numpy_app.client_app:app)" in message
    assert "--trust-apps" in message


def test_a_partition_past_the_end(tmp_path: Path) -> None:
    """The client says how many there are."""
    with server_with_an_app(tmp_path) as address:
        message = one_message(client(tmp_path, "--server", address, "--timeout", 20, "--partition", 5), 2)
    assert "--partition 5 is past the end: this run has 1 clients, so it is 0 to 0" in message


@pytest.mark.parametrize("address", ["localhost", "host:port", "http://host:1", ""])
def test_an_address_that_is_none(tmp_path: Path, address: str) -> None:
    """HOST:PORT or nothing."""
    assert "give HOST:PORT" in one_message(client(tmp_path, "--server", address), 2)


def test_an_app_that_is_none(tmp_path: Path) -> None:
    """--app wants the folder of a Flower app."""
    done = fltestbed("server", write_experiment(tmp_path), "--app", tmp_path, "--runs", tmp_path, "--name", "never")
    assert "no pyproject.toml there" in one_message(done, 2)
