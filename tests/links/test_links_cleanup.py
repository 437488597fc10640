"""Nothing is left of an emulated network: after its block, an error, a signal, kill -9; and as an ordinary user."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fltestbed.errors import ConfigError
from fltestbed.links import EmulatedNetwork, load_link
from fltestbed.links.privilege import MARKER, may_make_namespaces

pytestmark = pytest.mark.skipif(
    not may_make_namespaces(),
    reason="this user may not make network namespaces; run the tests as root, or with unshare --user --map-root-user",
)
OWNER = """
import json, os, sys
from fltestbed.links import EmulatedNetwork, ensure_privilege, load_link
ensure_privilege()
with EmulatedNetwork(load_link(sys.argv[1]), 2, congestion_control=None) as network:
    sleepers = [host.popen(["sleep", "600"]) for host in (network.server, *network.clients)]
    spaces = [os.fstat(host.namespace.handle).st_ino for host in (network.server, *network.clients)]
    print(json.dumps({"spaces": spaces, "user_namespace": network.describe()["user_namespace"]}), flush=True)
    sys.stdin.read()
print("left")
"""
WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-all,+setfcap", "--inh-caps", "-all", "--"]
"""Root without capabilities may do no more with networks than any user; who maps uid 0 needs setfcap."""


def processes_of(spaces: set[int]) -> set[int]:
    """Living processes that are in one of the network namespaces or hold one open."""
    found = set()
    for process in psutil.process_iter():
        base = Path(f"/proc/{process.pid}")
        with contextlib.suppress(OSError):
            links = [base / "ns" / "net", *(base / "fd").iterdir()]
            if any(f"net:[{space}]" in str(link.readlink()) for link in links for space in spaces):
                found.add(process.pid)
    return found


def wait_until_gone(spaces: set[int]) -> set[int]:
    """Give a killed tree of processes a few seconds to die; what is left then."""
    deadline = time.monotonic() + 10
    while (left := processes_of(spaces)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def interfaces() -> set[str]:
    return set(psutil.net_if_addrs())


def open_files() -> int:
    return int(psutil.Process().num_fds())


def start_owner(link: str, *prefix: str) -> tuple["subprocess.Popen[str]", set[int], bool]:
    owner = subprocess.Popen(
        [*prefix, sys.executable, "-c", OWNER, link],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    line = owner.stdout.readline()
    if not line:
        pytest.fail(owner.communicate()[1])
    facts = json.loads(line)
    return owner, set(facts["spaces"]), facts["user_namespace"]


@pytest.mark.parametrize("link", ["5g", "wifi", "ethernet"])
def test_block_ends_with_nothing_left(link: str) -> None:
    """After the block its processes are dead, nobody holds its namespaces, and the host's interfaces are as before."""
    before, descriptors = interfaces(), open_files()
    with EmulatedNetwork(load_link(link), 2) as network:
        hosts = (network.server, *network.clients)
        spaces = {os.fstat(host.namespace.handle).st_ino for host in hosts}
        sleepers = [host.popen(["sh", "-c", "sleep 600 & wait"]) for host in hosts]
        assert processes_of(spaces) >= {sleeper.pid for sleeper in sleepers}
    assert processes_of(spaces) == set()
    assert all(sleeper.returncode is not None for sleeper in sleepers)
    assert interfaces() == before
    assert open_files() == descriptors


def test_error_in_the_block_leaves_nothing() -> None:
    """An exception goes through and the network is gone."""
    spaces: set[int] = set()

    def fail() -> None:
        with EmulatedNetwork(load_link("ethernet"), 1) as network:
            network.clients[0].popen(["sleep", "600"])
            spaces.add(os.fstat(network.clients[0].namespace.handle).st_ino)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert processes_of(spaces) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal_to_the_owner_leaves_nothing(number: signal.Signals) -> None:
    """Whatever ends the process that made a network, by kill -9 as well, its processes and namespaces end with it."""
    before = interfaces()
    owner, spaces, _ = start_owner("5g")
    assert len(processes_of(spaces)) >= 4
    owner.send_signal(number)
    owner.communicate(timeout=20)
    assert wait_until_gone(spaces) == set()
    assert interfaces() == before


def test_number_of_clients_is_checked() -> None:
    """No clients and more than the addresses suffice for are refused before anything is made."""
    for clients in (0, 251):
        with pytest.raises(ConfigError, match=f"1 to 250, not {clients}"):
            EmulatedNetwork(load_link("ethernet"), clients)


def test_without_rights_the_command_starts_again_in_a_user_namespace() -> None:
    """A process that may not make network namespaces runs itself again where it may, and the network works."""
    environment = {key: value for key, value in os.environ.items() if key != MARKER}
    if subprocess.run(["unshare", "--user", "--map-root-user", "true"], check=False, env=environment).returncode:
        pytest.skip("this host forbids user namespaces")
    owner, spaces, user_namespace = start_owner("ethernet", *WITHOUT_RIGHTS)
    assert user_namespace
    output, errors = owner.communicate(timeout=20)
    assert (output, errors) == ("left\n", "")
    assert wait_until_gone(spaces) == set()


def test_host_that_forbids_user_namespaces_is_named() -> None:
    """Without rights and without user namespaces the error says which setting forbids them and what to do."""
    code = (
        "from fltestbed.links import ensure_privilege\n"
        "from fltestbed.errors import HostError\n"
        "try: ensure_privilege()\n"
        "except HostError as error: print(error)"
    )
    # The limit is set in a user namespace of its own: the host's stays as it is.
    shell = f'echo 0 > /proc/sys/user/max_user_namespaces; exec {" ".join(WITHOUT_RIGHTS)} "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", shell, "sh", sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare failed" in said.stderr:
        pytest.skip("this host forbids user namespaces")
    assert "user.max_user_namespaces is 0" in said.stdout
    assert "run as root" in said.stdout
