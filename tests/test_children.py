"""Processes are started so that none outlives us, and ended so that each can say how."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fltestbed.children import Process, ToldByChild, end, server_arguments, start

POLITE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(flush=True); signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"


def ready(code: str) -> Process:
    """Start a program that says when it listens to signals."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"\n"
    return process


def test_processes_are_asked_and_then_made_to_end() -> None:
    """One that listens ends with its own status, one that does not is killed, and one that has ended stays as it was."""
    over = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    over.wait()
    processes = [over, ready(POLITE), ready(DEAF)]
    end(processes, 1.0)
    assert [process.returncode for process in processes] == [3, 7, -signal.SIGKILL]


def test_a_command_is_one_of_the_toolkits_own(capfd: pytest.CaptureFixture[str]) -> None:
    """It shares our terminal, and its exit status is its own."""
    assert start(["server", "--no-such-option"]).wait() == 2
    assert "--no-such-option" in capfd.readouterr().err


def test_the_servers_arguments_are_those_of_the_run() -> None:
    """What is not given is not named."""
    config, runs = Path("demo.toml"), Path("runs")
    plain = ["server", "demo.toml", "--name", "a", "--runs", "runs"]
    assert server_arguments(config, "a", runs, None, None) == plain
    assert server_arguments(config, "a", runs, Path("my-app"), Path("campaign.json")) == [
        *plain, "--app", "my-app", "--campaign", "campaign.json",
    ]  # fmt: skip


def test_a_failure_that_was_told_keeps_its_status() -> None:
    """There is nothing left to say."""
    error = ToldByChild(2)
    assert (str(error), error.exit_status) == ("", 2)
