"""Processes that this one starts, most of them the toolkit's own commands: how they begin, and how they are ended."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fltestbed.errors import TestbedError

Process = subprocess.Popen[Any]


class ToldByChild(TestbedError):
    """A command that this one had started failed, and has said on the same terminal why.

    Parameters
    ----------
    status : int
        Its exit status, which becomes this one's.
    """

    def __init__(self, status: int) -> None:
        super().__init__("")
        self.exit_status = status


def server_arguments(config: Path, name: str, runs: Path, app: Path | None, campaign: Path | None) -> list[str]:
    """`fltestbed server` for one run of an experiment's file.

    Parameters
    ----------
    app : Path or None
        Folder of a Flower app; None for the toolkit's own.
    campaign : Path or None
        JSON file that says of which campaign the run is a part.
    """
    arguments = ["server", str(config), "--name", name, "--runs", str(runs)]
    arguments += [] if app is None else ["--app", str(app)]
    return arguments + ([] if campaign is None else ["--campaign", str(campaign)])


def start(arguments: Sequence[str]) -> Process:
    """Start a command that dies with this process; Ctrl-C reaches it through `end` alone, once."""
    argv = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "fltestbed", *arguments]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, process_group=0)


def end(processes: Sequence[Process], timeout_s: float) -> None:
    """End processes: all are asked first, so that they can say how they ended, and after `timeout_s` made to."""
    deadline = time.monotonic() + timeout_s
    for process in processes:
        process.terminate()  # one that has ended already is left alone
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
