"""Hosts of a lab on one machine: each a file tree, a network, a name and a systemd of its own, with three links.

::

    radio-host   eth0 10.61.0.1   wlan0 10.62.0.1   ogstun 10.63.0.1     (three bridges)
    pi-0         eth0 10.61.0.10  wlan0 10.62.0.10  wwan0  10.63.0.10
    pi-1         eth0 10.61.0.11  wlan0 10.62.0.11  wwan0  10.63.0.11

pi-1 differs: its wwan0 belongs to a modem, which a stand-in for ModemManager knows and the unit of deploy/systemd brings up,
and its WiFi leads to the radio host's address on Ethernet, to which only a pinned route takes it.

Whatever is written on a host is in memory and vanishes with it.
"""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy import bundle

HERE = Path(__file__).parent
IMAGE = Path(sys.prefix) / "lab-image"
"""What `make env` has made with make_image.sh."""
PATIENCE_S = 60.0
RADIO_HOST = "radio-host"
PIS = ("pi-0", "pi-1")


@dataclass(frozen=True)
class Link:
    """One network of the lab: its name in results, its interface on either side, and the rate of a Pi's uplink."""

    name: str
    host_interface: str
    pi_interface: str
    network: str
    rate_mbit: int

    @property
    def server(self) -> str:
        """The radio host's address there."""
        return f"{self.network}.1"


LINKS = (
    Link("ethernet", "eth0", "eth0", "10.61.0", 200),
    Link("wifi", "wlan0", "wlan0", "10.62.0", 60),
    Link("5g", "ogstun", "wwan0", "10.63.0", 30),
)

MODEM = f"""#!/bin/sh
case "$*" in
"-J -L") echo '{{"modem-list": []}}' ;; # the check and the probe find no modem that they could ask for its signal
"-K -L") echo "modem-list.value[1] : /org/freedesktop/ModemManager1/Modem/0" ;;
"-K -m "*) echo "modem.generic.ports.value[1] : wwan0 (net)"
    echo "modem.generic.bearers.value[1] : /org/freedesktop/ModemManager1/Bearer/0" ;;
"-K -b "*) echo "bearer.type : default"
    if [ -e /run/fltestbed-modem/connected ]; then echo "bearer.status.connected : yes"; fi
    echo "bearer.status.interface : wwan0"
    echo "bearer.properties.apn : fltestbed"
    echo "bearer.ipv4-config.address : {LINKS[2].network}.11"
    echo "bearer.ipv4-config.gateway : {LINKS[2].server}"
    echo "bearer.ipv4-config.mtu : 1456" ;;
*--simple-connect*) touch /run/fltestbed-modem/connected ;;
*--simple-disconnect*) rm -f /run/fltestbed-modem/connected ;;
esac
"""
"""Plays mmcli with one modem; connected, it has the address that the lab's 5G network has for pi-1."""


def unavailable() -> str | None:
    """Why there can be no such hosts here; None if there can."""
    if os.geteuid() != 0:
        return "lab hosts are made by root alone"
    if cgroup_root() is None:
        return "lab hosts need a cgroup2 file system that may be written, for systemd"
    if sys.version_info[:2] != _debian_python():
        return f"the hosts run Debian's Python {_debian_python()}, the tests another one: their packages do not fit"
    if not IMAGE.is_dir():
        return f"{IMAGE}: there is no such folder; make it with: tests/deploy/make_image.sh {IMAGE}"
    return None


@dataclass
class Host:
    """A host that is up.

    Attributes
    ----------
    name : str
    init : int
        Process id of its systemd, seen from here.
    """

    name: str
    init: int

    def command(self, *argv: str) -> list[str]:
        """`argv` with a prefix that runs it inside, as root."""
        environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"]
        return ["nsenter", "--target", str(self.init), "--all", "--", "env", "-i", *environment, *argv]

    def run(self, *argv: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a program inside to its end."""
        return subprocess.run(self.command(*argv), capture_output=True, text=True, check=False, **options)

    def call(self, *argv: str) -> str:
        """What a program inside prints; it must succeed."""
        done = self.run(*argv)
        assert done.returncode == 0, f"{self.name}: {' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def path(self, inside: str) -> Path:
        """A path of the host's tree, seen from here; links with absolute targets lead astray."""
        return Path(f"/proc/{self.init}/root", inside.lstrip("/"))


@dataclass
class Lab:
    """The radio host and the Pis."""

    hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def radio_host(self) -> Host:
        """Where the server runs, and Ansible."""
        return self.hosts[RADIO_HOST]

    @property
    def pis(self) -> list[Host]:
        """The clients' hosts."""
        return [self.hosts[name] for name in PIS]


@contextlib.contextmanager
def running_lab(scratch: Path) -> Iterator[Lab]:
    """Boot the hosts, connect them, let the radio host log in to the Pis.

    Everything is gone afterwards: a control group that cannot be removed, because a process is left in it, is an error.
    """
    with contextlib.ExitStack() as stack:
        started = {name: stack.enter_context(_host(name, scratch)) for name in (RADIO_HOST, *PIS)}
        lab = Lab({name: _wait_until_up(name, process) for name, process in started.items()})
        _connect(lab)
        _let_in(lab)
        yield lab


@contextlib.contextmanager
def _host(name: str, scratch: Path) -> "Iterator[subprocess.Popen[str]]":
    mount_point = scratch / name
    mount_point.mkdir()
    group = (cgroup_root() or Path()) / f"fltestbed-tests-{os.getpid()}-{name}"
    group.mkdir()
    namespaces = ["--mount", "--pid", "--fork", "--uts", "--net", "--ipc", "--cgroup", "--kill-child=KILL"]
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    boot = [str(HERE / "boot_host.sh"), name, str(mount_point), str(IMAGE), packages]
    enter = f'echo 0 > {group}/cgroup.procs && exec "$@"'
    argv = ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", enter, "sh", "unshare", *namespaces, *boot]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        for folder in [*sorted(group.rglob("*/"), reverse=True), group]:
            _remove_group(folder)


def _remove_group(folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:  # the last of its processes may still be on its way out
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            assert time.monotonic() < deadline, f"{folder}: {(folder / 'cgroup.procs').read_text()}"
            time.sleep(0.02)


def _wait_until_up(name: str, process: "subprocess.Popen[str]") -> Host:
    deadline = time.monotonic() + PATIENCE_S
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while True:
        assert process.poll() is None, f"{name}: {process.communicate()[0]}"
        assert time.monotonic() < deadline, f"{name} does not boot"
        found = children.read_text().split()
        if found and Path(f"/proc/{found[0]}/comm").read_text().strip() == "systemd":
            host = Host(name, int(found[0]))
            if host.run("systemctl", "is-system-running", "--wait").stdout.strip() == "running":
                return host
        time.sleep(0.05)


def _connect(lab: Lab) -> None:
    radio_host = lab.radio_host
    for link in LINKS:
        bridge = link.host_interface
        commands = [f"ip link add {bridge} type bridge", f"ip addr add {link.server}/24 dev {bridge}"]
        commands.append(f"ip link set {bridge} up")
        for number, pi in enumerate(lab.pis):
            port = f"{link.pi_interface}-{number}"
            commands.append(f"ip link add {port} type veth peer name {link.pi_interface} netns {pi.init}")
            commands.append(f"ip link set {port} master {bridge} up")
        # From outside of its mounts: inside, the other hosts' process ids mean nothing.
        subprocess.run(["nsenter", f"--net=/proc/{radio_host.init}/ns/net", "sh", "-ec", "\n".join(commands)], check=True)
    lab.pis[1].path("/usr/bin/mmcli").write_text(MODEM)
    lab.pis[1].path("/usr/bin/mmcli").chmod(0o755)
    for number, pi in enumerate(lab.pis):
        for link in LINKS:
            shape = f"root tbf rate {link.rate_mbit}mbit burst 32kb latency 100ms"
            pi.call("ip", "addr", "add", f"{link.network}.{10 + number}/24", "dev", link.pi_interface)
            pi.call("ip", "link", "set", link.pi_interface, "up")
            pi.call("tc", "qdisc", "replace", "dev", link.pi_interface, *shape.split())
    add_gateway(lab.pis[1])


def add_gateway(pi: Host) -> None:
    """The last resort of pi-1's WiFi, which goes when the interface does; only a pin makes use of it."""
    pi.call(*f"ip route replace default via {LINKS[1].server} dev {LINKS[1].pi_interface} metric 9999".split())


def _let_in(lab: Lab) -> None:
    lab.radio_host.call("mkdir", "-p", "-m", "700", "/root/.ssh")
    lab.radio_host.call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
    key = lab.radio_host.call("cat", "/root/.ssh/id_ed25519.pub")
    names = [f"{LINKS[0].network}.{10 + number} {pi.name}" for number, pi in enumerate(lab.pis)]
    known = [f"{pi.name} {pi.call('cat', '/etc/ssh/ssh_host_ed25519_key.pub')}" for pi in lab.pis]
    for file, lines in (("/etc/hosts", names), ("/root/.ssh/known_hosts", known)):
        with lab.radio_host.path(file).open("a") as stream:
            stream.write("\n".join(line.strip() for line in lines) + "\n")
    for pi in lab.pis:
        script = "install -d -m 700 -o pi -g pi ~pi/.ssh && cat > ~pi/.ssh/authorized_keys"
        assert pi.run("sh", "-c", script, input=key).returncode == 0


def cgroup_root() -> Path | None:
    """Where a cgroup2 file system is mounted for writing."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(place, os.W_OK):
            return Path(place)
    return None


def _debian_python() -> tuple[int, int] | None:
    if shutil.which("python3", path="/usr/bin") is None:
        return None
    code = "import sys; print(*sys.version_info[:2])"
    major, minor = subprocess.run(
        ["/usr/bin/python3", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    return int(major), int(minor)


def inventory(experiment: Path) -> dict[str, Any]:
    """What a person writes into the inventory of this lab, with the names of deploy/ansible/inventory.example.yml.

    Parameters
    ----------
    experiment : Path
        What the server's unit runs.
    """
    links = {link.name: {"interface": link.pi_interface, "server": link.server} for link in LINKS}
    quiet, wifi, cell = LINKS
    pinned = {wifi.name: {"interface": wifi.pi_interface, "server": quiet.server}}
    modem = {cell.name: {**links[cell.name], "apn": "fltestbed"}}
    of_pi_1 = {"fltestbed_links": links | pinned | modem, "fltestbed_client_options": "--pin-route"}
    return {
        "radio_host": {
            "hosts": {RADIO_HOST: {"ansible_connection": "local"}},
            "vars": {"fltestbed_ntp_clients": [f"{quiet.network}.0/24"], "fltestbed_experiment": str(experiment)},
        },
        "pis": {
            "hosts": {PIS[0]: {"ansible_host": PIS[0]}, PIS[1]: {"ansible_host": PIS[1], **of_pi_1}},
            "vars": {"ansible_user": "pi", "fltestbed_time_server": quiet.server, "fltestbed_links": links},
        },
    }


def make_bundle(build: Path, scratch: Path) -> None:
    """Put a bundle for these hosts where the playbook finds it, as if it had been collected before.

    The wheels in it are the toolkit's own and one tiny package's: everything else is on the hosts already (boot_host.sh).
    """
    _, toolkit = bundle.build_wheel(build / "wheel")
    tiny = scratch / "tiny_dependency-1.0-py3-none-any.whl"
    metadata = "tiny_dependency-1.0.dist-info"
    with zipfile.ZipFile(tiny, "w") as archive:
        archive.writestr("tiny_dependency.py", "")
        archive.writestr(f"{metadata}/METADATA", "Metadata-Version: 2.1\nName: tiny-dependency\nVersion: 1.0\n")
        archive.writestr(f"{metadata}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{metadata}/RECORD", "")
    machine, python = platform.machine(), f"{sys.version_info.major}.{sys.version_info.minor}"
    file = build / f"fltestbed-{machine}-python{python}.tar"
    bundle.pack(file, toolkit, [tiny])
    file.with_suffix(".json").write_text(json.dumps({"made_of": bundle.bundle_key(toolkit, machine, python, ("digits",))}))
