"""Anonymous network namespaces, each held by one thread of this process.

A network namespace belongs to a thread, not to a process, and lives as long as somebody is inside or holds it open. So a
thread of this process makes one and stays in it: whatever runs on that thread (netlink requests, new processes) happens
inside. Nothing is mounted and nothing has a name, so nothing can be left behind: when this process ends, even by
``kill -9``, the kernel removes the namespace with all its interfaces, and the processes started here are killed with it.
"""

import ctypes
import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psutil
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from fltestbed.errors import HostError, LinkError

CLONE_NEWNET = 0x40000000  # linux/sched.h
QUIET = {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"}
"""Without this, router solicitations and duplicate address detection would be on every counter."""

REAP_TIMEOUT_S = 0.5

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class InterfaceCounters:
    """What the kernel counted on an interface since it was made: Ethernet frames, without their checksum."""

    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int


def unshare_network() -> None:
    """Move the calling thread, and no other, into a new network namespace. Needs CAP_SYS_ADMIN, or raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Namespace:
    """A network namespace of our own, with its loopback up and IPv6 off.

    Parameters
    ----------
    name : str
        What messages and threads call it; the kernel knows no name.

    Raises
    ------
    HostError
        This process may not make network namespaces; see `fltestbed.links.privilege.ensure_privilege`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[Any]] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"netns-{name}")
        try:
            self._handle = self.call(_enter)
        except OSError as error:
            self._thread.shutdown()
            raise HostError(
                f"{name}: cannot make a network namespace: {error.strerror}; emulated links need root or user namespaces"
            ) from error
        self.call(_set_loopback_up)

    @property
    def handle(self) -> int:
        """Open file descriptor of the namespace, for netlink's ``net_ns_fd``."""
        return self._handle

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` inside and return its result; what it raises is raised here."""
        return self._thread.submit(function, *args, **kwargs).result()

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv` with a prefix that runs it inside, for whoever starts processes in a way of their own.

        The prefix holds as long as this process lives; the process is not killed with us, unlike one of `popen`.
        """
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self._handle}", "--", *argv]

    def popen(self, argv: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a process inside; it is killed when the namespace is closed and when this process dies.

        Takes what `subprocess.Popen` takes.
        """
        # The kernel sends the signal when the *thread* that started the process ends: ours stays until close().
        process = self.call(_start, ["setpriv", "--pdeathsig", "KILL", "--", *argv], kwargs)
        self._processes.append(process)
        return process

    def counters(self, interface: str) -> InterfaceCounters:
        """Read the counters of one interface inside."""
        found = self.call(_find_link, interface).get_attr("IFLA_STATS64")
        return InterfaceCounters(*(int(found[key]) for key in InterfaceCounters.__dataclass_fields__))

    def close(self) -> None:
        """Kill what still runs inside and let go of the namespace; the kernel then removes its interfaces."""
        # Children of our processes first, and a moment for their parents to reap them: not every init does.
        own = {process.pid for process in self._processes}
        if descendants := [process for process in self._inside() if process.pid not in own]:
            _kill(descendants)
            psutil.wait_procs([process for process in self._inside() if process.pid in own], timeout=REAP_TIMEOUT_S)
        for process in self._processes:
            process.kill()
            process.wait()
        while late := self._inside():  # started by one of those meanwhile
            _kill(late)
            psutil.wait_procs(late, timeout=REAP_TIMEOUT_S)
        self._thread.shutdown()
        os.close(self._handle)

    def _inside(self) -> list[psutil.Process]:
        """Processes inside, this one excepted. A dead one that nobody has reaped is in no namespace."""
        this = os.fstat(self._handle)
        found = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if process.pid != os.getpid() and os.path.samestat(Path(f"/proc/{process.pid}/ns/net").stat(), this):
                    found.append(process)
        return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _start(argv: list[str], options: dict[str, Any]) -> subprocess.Popen[Any]:
    return subprocess.Popen(argv, **options)


def _enter() -> int:
    unshare_network()
    for key, value in QUIET.items():
        with suppress(FileNotFoundError):  # a kernel without IPv6 is quiet already
            Path("/proc/sys", key).write_text(value)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _set_loopback_up() -> None:
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")


def _find_link(interface: str) -> Any:
    try:
        with IPRoute() as ip:
            return ip.get_links(ifname=interface)[0]
    except (NetlinkError, IndexError) as error:
        raise LinkError(f"{interface}: there is no such interface in this namespace") from error
