"""However a run ends, nothing is left of it but its folder, which says how it ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fltestbed.scratch import remove_left_over
from tests.e2e.conftest import fltestbed, free_port, left_over, marked, numpy_app, write_experiment
from tests.waiting import wait_until


@contextmanager
def running(folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A run whose client is in the middle of a long training."""
    app = numpy_app(folder, num_server_rounds=50, seconds=30.0, min_nodes=1)
    config = write_experiment(folder, clients=1)
    command = [
        sys.executable, "-m", "fltestbed", "run", str(config), "--link", "ethernet", "--app", str(app),
        "--runs", str(folder), "--name", "long",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            phases = folder / "long" / "phases.csv"
            wait_until(lambda: process.poll() is not None or (phases.exists() and "queue" in phases.read_text()))
            assert process.poll() is None
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """Status 130, one line, a manifest that says interrupted, rows kept, no process left."""
    mark, environment = marked()
    with running(tmp_path, environment) as process:
        os.killpg(process.pid, number)  # as a terminal does: to the command and to all that it has started
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines() == ["fltestbed: interrupted"]
    assert json.loads((tmp_path / "long" / "manifest.json").read_text())["status"] == "interrupted"
    assert "queue" in (tmp_path / "long" / "phases.csv").read_text()
    wait_until(lambda: left_over(mark) == [])


def test_nothing_survives_kill_9(tmp_path: Path) -> None:
    """Server, clients, trainers and links die with the command that started them, also when it is killed."""
    mark, environment = marked()
    with running(tmp_path, environment) as process:
        assert len(left_over(mark)) >= 5  # the command, server, ServerApp, client and trainer
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
    wait_until(lambda: left_over(mark) == [])


def test_a_second_ctrl_c_ends_at_once_and_the_next_start_removes_what_is_left(tmp_path: Path) -> None:
    """No process survives it; the folders in the temporary folder do, until somebody needs one: then they are gone."""
    mark, environment = marked()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with running(tmp_path, environment | {"TMPDIR": str(temporary)}) as process:

        def is_gone_when_asked_again() -> bool:
            os.killpg(process.pid, signal.SIGINT)  # two that come before the process runs again are one to it
            return process.poll() is not None

        wait_until(is_gone_when_asked_again)
    assert process.returncode == 130
    wait_until(lambda: left_over(mark) == [])
    assert list(temporary.glob("fltestbed-*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(temporary))

        def is_tidy() -> bool:
            remove_left_over()  # a process that is ending has lost its mark, and holds its folder for a moment more
            return not list(temporary.glob("fltestbed-*"))

        wait_until(is_tidy)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_waits_for_clients_is_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """Status 130, one line, a manifest that says interrupted and by whom, all files with their headers, no process left."""
    mark, environment = marked()
    config = write_experiment(tmp_path, clients=2, server={"host": "127.0.0.1", "port": free_port()})
    command = [sys.executable, "-m", "fltestbed", "server", str(config), "--runs", str(tmp_path), "--name", "waiting"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert "waiting for 2 clients" in process.stdout.readline()
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "fltestbed: interrupted\n")
    manifest = json.loads((tmp_path / "waiting" / "manifest.json").read_text())
    assert (manifest["status"], manifest["reason"]) == ("interrupted", "interrupted on the server")
    assert (tmp_path / "waiting" / "phases.csv").read_text().startswith("run,round,client")
    wait_until(lambda: left_over(mark) == [])


def test_a_campaign_is_interrupted(tmp_path: Path) -> None:
    """Its run ends in good order and says interrupted; no process is left."""
    mark, environment = marked()
    file = tmp_path / "c.toml"
    app = numpy_app(tmp_path, num_server_rounds=50, seconds=30.0)
    file.write_text(
        f'name = "c"\nrepetitions = 1\napp = "{app}"\n[factors]\nlink = ["ethernet"]\n[experiment]\nclients = 2\n'
    )
    command = [sys.executable, "-m", "fltestbed", "campaign", str(file), "--runs", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        wait_until(
            lambda: process.poll() is not None or any("queue" in f.read_text() for f in tmp_path.glob("c/*/phases.csv"))
        )
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err.splitlines()[-1]) == (130, "fltestbed: interrupted")
    (manifest,) = tmp_path.glob("c/*/manifest.json")
    assert json.loads(manifest.read_text())["status"] == "interrupted"
    wait_until(lambda: left_over(mark) == [])


def test_a_run_works_without_root(tmp_path: Path) -> None:
    """With no more rights than an ordinary user has, the run goes through a user namespace; the backend is tbf."""
    rights = ("setpriv", "--bounding-set", "-all,+setfcap", "--inh-caps", "-all", "--")
    config = write_experiment(tmp_path, clients=1)
    app = numpy_app(tmp_path, num_server_rounds=1, min_nodes=1)
    done = fltestbed("run", config, "--link", "ethernet", "--app", app, "--runs", tmp_path, "--name", "user", prefix=rights)
    if done.status != 0:
        assert "this host forbids" in done.err, done.err
        pytest.skip(done.err)
    manifest = json.loads((tmp_path / "user" / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["link"]["user_namespace"] is True
    assert manifest["link"]["backend"] == "tbf"


def test_a_run_whose_clients_never_come_says_so(tmp_path: Path) -> None:
    """The server gives up after join-timeout-s, names who is there, and the manifest says failed."""
    config = write_experiment(tmp_path, clients=2, server={"host": "127.0.0.1", "port": 9, "join_timeout_s": 0.5})
    done = fltestbed("server", config, "--runs", tmp_path, "--name", "alone")
    assert done.status == 1
    assert "0 of 2 clients joined within 0.5 s" in done.err
    manifest = json.loads((tmp_path / "alone" / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert "0 of 2 clients joined" in manifest["reason"]
