"""Programs of the host, asked with a time limit."""

import contextlib
import os
import resource
import selectors
import signal
import subprocess
import threading
import time
from typing import IO

from fltestbed.errors import HostError, TestbedError

LIMIT_S = 5.0
HURRIED_LIMIT_S = 1.0
MAX_ANSWER_BYTES = 1 << 20


class Toolbox:
    """Runs programs for one probe, and knows what CPU time they took.

    Parameters
    ----------
    turn : threading.Lock
        Shared by all probes of the process: one program at a time, since the kernel counts the CPU time of children that
        have ended for the process as a whole.
    limit_s : float
        A program that has not answered by then is killed.
    """

    def __init__(self, turn: threading.Lock, limit_s: float = LIMIT_S) -> None:
        self._turn = turn
        self._limit_s = limit_s
        self.cpu_s = 0.0
        self._running: subprocess.Popen[bytes] | None = None

    def ask(self, *command: str) -> str:
        """Run a program and return what it wrote to its standard output.

        Raises
        ------
        HostError
            It is not installed.
        TestbedError
            It did not answer within the limit, wrote more than a megabyte, or ended with an error.
        """
        status, out, err = self.run(*command)
        if status != 0:
            said = " ".join((err.strip() or out.strip()).split())[:200]
            raise TestbedError(f"{' '.join(command)}: ended with status {status}: {said or 'without a word'}")
        return out

    def run(self, *command: str) -> tuple[int, str, str]:
        """Run a program and return its status and what it wrote to standard output and error.

        Raises
        ------
        HostError
            It is not installed.
        TestbedError
            It did not answer within the limit, or wrote more than a megabyte.
        """
        with self._turn:
            before_s = _children_cpu_s()
            try:
                return self._run(command)
            finally:
                self.cpu_s += _children_cpu_s() - before_s

    def hurry(self) -> None:
        """The run is over: end the program that runs now, and give those to come a second."""
        self._limit_s = min(self._limit_s, HURRIED_LIMIT_S)
        running = self._running
        if running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)

    def _run(self, command: tuple[str, ...]) -> tuple[int, str, str]:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C"}, process_group=0,
            )  # fmt: skip
        except FileNotFoundError:
            raise HostError(f"{command[0]} is not installed") from None
        except OSError as error:
            raise TestbedError(f"{command[0]}: cannot be run: {error.strerror}") from error
        with process:
            self._running = process
            try:
                out, err = self._gather(process, command)
                process.wait(self._limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise TestbedError(f"{' '.join(command)}: has answered and does not end") from None
            except TestbedError:
                os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started, which may hold the pipes
                raise
            finally:
                self._running = None
        return process.returncode, out, err

    def _gather(self, process: "subprocess.Popen[bytes]", command: tuple[str, ...]) -> tuple[str, str]:
        """Both streams to their ends, within the limits of time and size."""
        deadline = time.monotonic() + self._limit_s
        gathered: dict[IO[bytes] | None, bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
        with selectors.DefaultSelector() as selector:
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ, stream)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise TestbedError(f"{' '.join(command)}: no answer within {self._limit_s:g} s")
                for key, _ in ready:
                    chunk = os.read(key.fd, 1 << 16)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    gathered[key.data] += chunk
                    if len(gathered[key.data]) > MAX_ANSWER_BYTES:
                        raise TestbedError(f"{' '.join(command)}: answered with more than {MAX_ANSWER_BYTES} bytes")
        out, err = (gathered[stream].decode(errors="replace") for stream in (process.stdout, process.stderr))
        return out, err


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
