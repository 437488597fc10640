"""Where contenders meet: the loopback of one network namespace, or an emulated link; and the processes there.

Every run of a contender gets a place of its own: nothing of the run before it is left, not even what the kernel remembers
of a path's round trips.
"""

import logging
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from fltestbed.errors import TestbedError
from fltestbed.links import EmulatedNetwork, Host, load_link
from fltestbed.links.namespace import Namespace

LOOPBACK = "loopback"
CONGESTION_CONTROL = "cubic"
POLL_S = 0.05
TELL_S = 30.0
REACH_TIMEOUT_S = 60.0
LOOPBACK_NOTE = "plain loopback of one network namespace: no rate, no delay, packets of up to 64 kB"
_LOCAL_TABLE = 255

log = logging.getLogger("fltestbed")


@dataclass(frozen=True)
class Place:
    """Hosts that are there as long as the block of `place` lasts.

    Attributes
    ----------
    link : str
        Name of the link.
    server : Host
    clients : tuple of Host
    notes : tuple of str
        What a reader of the figures should know of the link.
    """

    link: str
    server: Host
    clients: tuple[Host, ...]
    notes: tuple[str, ...]
    start_trace: Callable[[], None]


@contextmanager
def place(link: str, clients: int, backend: str = "auto") -> Iterator[Place]:
    """Make a place; whatever still runs there at the end is killed.

    Parameters
    ----------
    link : str
        "loopback", a shipped profile, or the path of a profile.
    clients : int
    backend : str
        How the link is emulated.
    """
    if link == LOOPBACK:
        with closing(Namespace(LOOPBACK)) as namespace:
            namespace.call(_set_loopback_congestion_control)
            host = Host("server", "127.0.0.1", "lo", namespace)
            others = tuple(Host(f"client-{number}", "127.0.0.1", "lo", namespace) for number in range(clients))
            yield Place(LOOPBACK, host, others, (LOOPBACK_NOTE,), lambda: None)
        return
    with EmulatedNetwork(load_link(link), clients, backend=backend, congestion_control=CONGESTION_CONTROL) as network:
        facts = network.describe()
        notes = (network.profile.summary, f"backend {facts['backend']}", *facts["notes"])
        yield Place(network.profile.name, network.server, network.clients, notes, network.start_trace)


def _set_loopback_congestion_control() -> None:
    # On the route, as on emulated links: a namespace may not choose its default freely, and programs do not choose at all.
    with IPRoute() as ip:
        ip.route(
            "replace", dst="127.0.0.1/32", table=_LOCAL_TABLE, type="local", scope="host", proto="kernel",
            oif=ip.link_lookup(ifname="lo")[0], prefsrc="127.0.0.1", metrics={"cc_algo": CONGESTION_CONTROL},
        )  # fmt: skip


class Processes:
    """The processes of one contender, each with a log of its own.

    Parameters
    ----------
    logs : Path
        Folder for the logs, which is there.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, host: Host, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a program on a host; it dies with the place."""
        with self._log(name).open("wb") as log_file:
            self._processes[name] = host.popen(
                argv, stdin=subprocess.DEVNULL, stdout=log_file, stderr=subprocess.STDOUT, env=environment
            )

    def pid(self, name: str) -> int:
        """Identifier of a process."""
        return self._processes[name].pid

    def wait_listening(self, host: Host, address: str, port: int) -> None:
        """Wait until something listens there.

        Raises
        ------
        TestbedError
            A process ended meanwhile, or it took too long.
        """
        deadline = time.monotonic() + REACH_TIMEOUT_S
        while not host.namespace.call(_listens, address, port):
            self._check()
            if time.monotonic() >= deadline:
                raise TestbedError(f"nobody listens on {address}:{port} after {REACH_TIMEOUT_S:g} s{self._tails()}")
            time.sleep(POLL_S)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until something is so.

        Raises
        ------
        TestbedError
            A process failed meanwhile, or it took longer than `timeout_s`; what they said last is in the message.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._check()
            if time.monotonic() >= deadline:
                raise TestbedError(f"not done after {timeout_s:g} s{self._tails()}")
            time.sleep(POLL_S)

    def wait(self, names: Sequence[str], timeout_s: float, told: str | None = None) -> None:
        """Wait until those have ended well; every `TELL_S` seconds what the process `told` said last is logged.

        Raises
        ------
        TestbedError
            One of all processes failed, or they took longer than `timeout_s`; what it said last is in the message.
        """
        tell_at = time.monotonic() + TELL_S

        def ended() -> bool:
            nonlocal tell_at
            if told is not None and time.monotonic() >= tell_at:
                tell_at += TELL_S
                log.info("  %s", self._last_line(told))
            return all(self._processes[name].poll() is not None for name in names)

        self.wait_until(ended, timeout_s)
        self._check()

    def _check(self) -> None:
        for name, process in self._processes.items():
            if process.poll() not in (None, 0):
                raise TestbedError(f"{name} ended with status {process.returncode}: {self._last_line(name)}")

    def _tails(self) -> str:
        return "".join(f"; {name}: {self._last_line(name)}" for name in self._processes)

    def _last_line(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "said nothing"

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=POLL_S).close()
    except OSError:
        return False
    return True
