"""What a run leaves on its host when it is over: nothing, if all is well."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
from pyroute2 import IPRoute

MARK = "FLTESTBED_TEST"
"""Set in the environment of what is started, and so of everything that is started by it."""


def marked() -> tuple[str, dict[str, str]]:
    """A new mark, and the environment that carries it."""
    mark = uuid.uuid4().hex
    return mark, {**os.environ, MARK: mark}


def left_over(mark: str) -> list[str]:
    """Command lines of processes that carry the mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def mounts() -> list[str]:
    """What is mounted where, as this process sees it, in the order in which it was mounted."""
    return Path("/proc/self/mounts").read_text().splitlines()


def routes() -> set[str]:
    """The routes of the network namespace of this thread, each as a line."""
    with IPRoute() as ip:
        return {str(sorted(route["attrs"], key=str)) for route in ip.get_routes() if _is_lasting(route)}


def held_namespaces() -> set[str]:
    """Network namespaces that this process keeps alive beside its own: by a thread inside, or by an open descriptor."""
    found = set(_links(Path("/proc/self/task").glob("*/ns/net"))) | set(_links(Path("/proc/self/fd").iterdir()))
    return {link for link in found if link.startswith("net:[")} - set(_links([Path("/proc/self/ns/net")]))


def _links(paths: Iterator[Path] | list[Path]) -> Iterator[str]:
    for path in paths:
        with contextlib.suppress(OSError):  # a thread or a descriptor that has just gone
            yield str(path.readlink())


def _is_lasting(route: dict[str, object]) -> bool:
    return not int(str(route["flags"])) & 0x200  # RTM_F_CLONED: an entry of the kernel's cache
