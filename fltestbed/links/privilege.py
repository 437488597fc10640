"""The right to make network namespaces: as root, or as an ordinary user inside a user namespace."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fltestbed.errors import HostError
from fltestbed.links.namespace import unshare_network

MARKER = "FLTESTBED_USER_NAMESPACE"
"""Set in the environment of the command that was started again, so that it is not started a third time."""

FORBIDDING = {
    "user/max_user_namespaces": "0",
    "kernel/unprivileged_userns_clone": "0",
    "kernel/apparmor_restrict_unprivileged_userns": "1",
}
"""Settings under /proc/sys, with the value that keeps ordinary users from user namespaces."""


def may_make_namespaces() -> bool:
    """Whether this process may make network namespaces as it is. Tries it, in a thread that ends at once."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(unshare_network).exception() is None


def in_user_namespace() -> bool:
    """Whether this process's root is not the host's: `ensure_privilege` or a rootless container has put it there."""
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def ensure_privilege() -> None:
    """Return if this process may make network namespaces; otherwise run the same command again where it may.

    An ordinary user is root in a user namespace of their own, with rights over nothing but what is made inside. The process
    image is replaced (`os.execvp`), so call this first, before anything is opened or started.

    Raises
    ------
    HostError
        The host allows neither; the message names what forbids it.
    """
    if may_make_namespaces():
        return
    prefix = ["unshare", "--user", "--map-root-user", "--"]
    if MARKER in os.environ:
        raise HostError("emulated links: this host forbids network namespaces inside a user namespace; run as root")
    try:
        trial = subprocess.run([*prefix, "unshare", "--net", "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise HostError("emulated links: the program unshare is missing; install util-linux, or run as root") from error
    if trial.returncode != 0:
        reasons = _forbidding_settings() or trial.stderr.strip() or "unshare --user --net fails"
        raise HostError(
            f"emulated links: user {os.getuid()} may not make network namespaces, and this host forbids user namespaces "
            f"({reasons}); run as root, or allow them"
        )
    os.environ[MARKER] = "1"
    os.execvp(prefix[0], [*prefix, sys.executable, *sys.orig_argv[1:]])


def _forbidding_settings() -> str:
    found = []
    for setting, value in FORBIDDING.items():
        file = Path("/proc/sys", setting)
        if file.is_file() and file.read_text().strip() == value:
            found.append(f"{setting.replace('/', '.')} is {value}")
    return ", ".join(found)
