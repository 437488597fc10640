"""The probes of this host, as client and server use them."""

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import psutil

from fltestbed.errors import TestbedError
from fltestbed.measure.probes.probe import Row

log = logging.getLogger("fltestbed")

CLOSE_S = 4.0
"""How long the probe process may take to leave the host as it was."""


class HostProbes:
    """Starts the probe process and passes on what it says.

    It is a process of its own because a thread at low priority that is interrupted while it holds Python's lock holds up
    the thread that takes the stamps. Measured on two cores with two busy trainers and 10 readings a second: of 100
    datagrams 99 were stamped within 2 ms of being sent without probes (median of eight trials, 0.1 to 4 ms), 4 ms with
    this process (six trials, 0.1 to 14 ms: not told apart from none), 8 ms with a thread at nice 10 (four trials, 4 to 13
    ms), and 31 and 147 ms with a thread at nice 19. A reading took 1 ms of CPU time and came at most 0.6 s late at nice
    19; under SCHED_IDLE it came up to 1.6 s late.

    Without the process (it cannot be started, it dies) the run goes on, with one message.

    Parameters
    ----------
    host : str
        Name for messages.
    interface : str
        Whose bytes are counted, and whose radio is read.
    probes : dict
        The section `probes` of the experiment.
    radio : bool
        Whether the interface's radio is read.
    processes : callable () -> iterable of int
        Identifiers of the toolkit's processes on this host, asked after every row.
    take_row : callable (str, dict) -> None
        Gets the table (system or radio) and the columns but `run`, `host` and `time_s`. Called on this object's thread.
    take_fact : callable (str, dict) -> None
        Gets what the manifest should say of a probe, by its name. Called on this object's thread.
    """

    def __init__(
        self,
        host: str,
        interface: str,
        probes: dict[str, Any],
        radio: bool,
        processes: Callable[[], Iterable[int]],
        take_row: Callable[[str, Row], None],
        take_fact: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._host = host
        self._settings = {"interface": interface, "radio": radio, "probes": probes}
        self._is_wanted = any(value is True or isinstance(value, str) for value in probes.values())
        self._processes = processes
        self._take_row = take_row
        self._take_fact = take_fact
        self._told: list[int] = []
        self._is_on = True
        self._telling = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._closing = self._has_ended = False
        self._asked_s = 0.0
        self._thread = threading.Thread(target=self._listen, name="probes", daemon=True)

    def start(self) -> None:
        """Begin to read, if anything is switched on."""
        if not self._is_wanted:
            return
        self._told = list(self._processes())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fltestbed.measure.probes"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0,
            )  # fmt: skip
        except OSError as error:
            log.warning("%s: the probes cannot be started: %s", self._host, error.strerror)
            return
        self._tell(self._settings | {"processes": self._told, "on": self._is_on})
        self._thread.start()

    def switch(self, on: bool) -> None:
        """Read from now on, or pause. May be called before `start`."""
        if on != self._is_on:
            self._is_on = on
            if self._process is not None:
                self._tell({"on": on})

    def ask_to_stop(self) -> None:
        """Let the probes tell their last and end, while something else goes on; `stop` waits for it."""
        if self._process is not None and not self._closing:
            self._closing = True
            self._asked_s = time.monotonic()
            with contextlib.suppress(OSError), self._telling:
                self._process.stdin.close()  # type: ignore[union-attr]  # it has a pipe

    def stop(self) -> None:
        """Let the probes tell their last and end. May be called before `start`, and twice."""
        self.ask_to_stop()
        process = self._process
        if process is None or self._has_ended:
            return
        self._has_ended = True
        try:
            process.wait(max(0.0, CLOSE_S - (time.monotonic() - self._asked_s)))
        except subprocess.TimeoutExpired:
            log.warning("%s: the probes did not end within %g s and were killed", self._host, CLOSE_S)
            with contextlib.suppress(psutil.Error):
                for tool in psutil.Process(process.pid).children(recursive=True):
                    tool.kill()
            process.kill()
            process.wait()
        self._thread.join()
        process.stdout.close()  # type: ignore[union-attr]  # a pipe

    def _listen(self) -> None:
        is_heard = True
        for line in self._process.stdout:  # type: ignore[union-attr]  # a pipe
            try:
                if is_heard:
                    self._hear(json.loads(line))
            except TestbedError:  # rows cannot be written, which whoever runs the rounds is told as well
                is_heard = False
        if not self._closing:
            log.warning("%s: the probe process has ended; the run goes on without it", self._host)

    def _hear(self, said: dict[str, Any]) -> None:
        if "row" in said:
            table = said.pop("row")
            self._take_row(table, said)
            processes = list(self._processes())
            if processes != self._told:
                self._told = processes
                self._tell({"processes": processes})
        elif "probe" in said:
            self._take_fact(said.pop("probe"), said)
        else:
            log.warning("%s: probe %s: %s; the run goes on", self._host, said["trouble"], said["reason"])

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, ValueError), self._telling:  # it has ended: `_listen` says so
            self._process.stdin.write(json.dumps(message) + "\n")  # type: ignore[union-attr]  # a pipe
            self._process.stdin.flush()  # type: ignore[union-attr]  # a pipe
