"""The first signal ends a command in good order, a second Ctrl-C at once."""

import os
import signal
import subprocess
import sys

import pytest

from fltestbed.interrupts import STATUS, Interrupts

COMMAND = """
import signal, sys
from fltestbed.interrupts import Interrupts
try:
    with Interrupts():
        try:
            print("ready", flush=True)
            signal.pause()
        finally:
            print("tidying", flush=True)
            {tidying}
            print("tidy", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


def start(tidying: str = "pass") -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", COMMAND.format(tidying=tidying)], stdout=subprocess.PIPE, text=True)
    assert read(process) == "ready"
    return process


def read(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_command_tidy_up(number: signal.Signals) -> None:
    """Its blocks end, it says interrupted once, and its status is 130."""
    process = start()
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("tidying\ntidy\ninterrupted\n", STATUS)


def test_a_sigterm_after_the_first_signal_changes_nothing() -> None:
    """A terminal sends SIGINT to all, and the parent then SIGTERM to its children: tidying up is not disturbed."""
    process = start("sys.stdin = open(0); signal.sigtimedwait([signal.SIGUSR1], 0.5)")
    process.send_signal(signal.SIGINT)
    assert read(process) == "tidying"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("tidy\ninterrupted\n", STATUS)


def test_a_second_ctrl_c_ends_at_once() -> None:
    """Whatever the command is at."""
    process = start("import time; time.sleep(600)")
    process.send_signal(signal.SIGINT)
    assert read(process) == "tidying"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", STATUS)


def test_the_handlers_from_before_are_put_back() -> None:
    """And something else than KeyboardInterrupt may be done."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    done: list[str] = []
    with Interrupts() as interrupts:
        interrupts.action = lambda: done.append("action")
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert done == ["action"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
