"""The scripts of a 5G cell, run: the modem's with the kernel's own routes, and with programs that stand in.

The stand-ins answer as mmcli (`-K`), qmicli and docker do, and write down what they were asked.
"""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import make_cell
import pytest
from cell_config import load_cell

from fltestbed.links.privilege import may_make_namespaces

DEPLOY = Path(__file__).parents[2] / "deploy" / "5g"
RADIO_HOST = "192.168.70.129"

MMCLI = """
case "$*" in
"-K -L") echo "modem-list.length   : 2"
    echo "modem-list.value[1] : /org/freedesktop/ModemManager1/Modem/3"
    echo "modem-list.value[2] : /org/freedesktop/ModemManager1/Modem/0" ;;
"-K -m /org/freedesktop/ModemManager1/Modem/3") echo "modem.generic.ports.value[1] : wwan00 (net)" ;;
"-K -m /org/freedesktop/ModemManager1/Modem/0")
    echo "modem.dbus-path                : /org/freedesktop/ModemManager1/Modem/0"
    echo "modem.generic.ports.length     : 2"
    echo "modem.generic.ports.value[1]   : cdc-wdm0 (qmi)"
    echo "modem.generic.ports.value[2]   : wwan0 (net)"
    echo "modem.generic.bearers.value[1] : /org/freedesktop/ModemManager1/Bearer/0"
    echo "modem.generic.bearers.value[2] : /org/freedesktop/ModemManager1/Bearer/1" ;;
"-K -b /org/freedesktop/ModemManager1/Bearer/0")
    echo "bearer.type              : default-attach"
    echo "bearer.status.connected  : yes"
    echo "bearer.properties.apn    : fltestbed" ;;
"-K -b /org/freedesktop/ModemManager1/Bearer/1")
    echo "bearer.type                : default"
    echo "bearer.status.connected    : $(cat $FOLDER/connected)"
    echo "bearer.status.interface    : $OVER"
    echo "bearer.properties.apn      : fltestbed"
    echo "bearer.ipv4-config.method  : static"
    echo "bearer.ipv4-config.address : $ADDRESS"
    echo "bearer.ipv4-config.prefix  : 30"
    echo "bearer.ipv4-config.gateway : 10.45.0.1"
    echo "bearer.ipv4-config.dns.value[1] : 192.168.70.129"
    echo "bearer.ipv4-config.mtu     : 1456" ;;
*--simple-connect*) [ "$REFUSES" = no ] || exit 1; echo yes >$FOLDER/connected ;;
*--simple-disconnect*) echo no >$FOLDER/connected ;;
esac
"""

QMICLI = """
case "$*" in
*--nas-get-serving-system*)
    printf "[/dev/cdc-wdm0] Successfully got serving system:\\n\\tRegistration state: '$REGISTRATION'\\n" ;;
*--wds-get-packet-service-status*)
    printf "[/dev/cdc-wdm0] Connection status: '$(sed 's/yes/connected/;s/no/disconnected/' $FOLDER/connected)'\\n" ;;
*--wds-start-network*)
    [ "$REFUSES" = no ] || { echo "error: couldn't start network: QMI protocol error (14): 'CallFailed'" >&2; exit 1; }
    echo yes >$FOLDER/connected
    printf "[/dev/cdc-wdm0] Network started\\n\\tPacket data handle: '2267587312'\\n"
    printf "[/dev/cdc-wdm0] Client ID not released:\\n\\tService: 'wds'\\n\\t    CID: '19'\\n" ;;
*--wds-get-current-settings*)
    printf "[/dev/cdc-wdm0] Current settings retrieved:\\n           IP Family: IPv4\\n        IPv4 address: $ADDRESS\\n"
    printf "    IPv4 subnet mask: 255.255.255.252\\nIPv4 gateway address: 10.45.0.1\\n"
    printf "                 MTU: 1456\\n             Domains: none\\n" ;;
*--wds-stop-network*) echo no >$FOLDER/connected ;;
esac
"""

HOST = """
ip link set lo up
ip link add eth0 type veth peer name lan
ip link set lan up
ip link set eth0 up
ip address add 10.0.0.20/24 dev eth0
ip route add default via 10.0.0.1
ip link add wwan0 type veth peer name air
ip link set air up
ip link set wwan0 {arp} up
ip address add 192.0.2.9/24 dev wwan0
ip route add default via 192.0.2.1 metric 700
"""
"""A Pi on Ethernet, whose modem has an address and a default route that something else has left there."""


@dataclass
class Pi:
    """A host with a modem.

    Attributes
    ----------
    environment : dict of str to str
        What the stand-ins answer.
    """

    folder: Path
    environment: dict[str, str]
    arp: str = "arp off"

    def install(self, name: str, script: str) -> None:
        """A program that writes down its arguments and answers."""
        program = self.folder / "bin" / name
        program.write_text(f'#!/bin/sh\necho "$*" >>$FOLDER/{name}.asked\n{script}')
        program.chmod(0o755)

    def asked(self, name: str) -> list[str]:
        """What a program was asked, but for questions that change nothing."""
        file = self.folder / f"{name}.asked"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if "-K" not in line and "-get-" not in line]

    def run(self, *commands: str) -> subprocess.CompletedProcess[str]:
        """Run commands one after the other, until one fails; `modem.sh` is at hand."""
        script = "\n".join(["set -e", HOST.format(arp=self.arp), *commands])
        return subprocess.run(
            ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "PATH": f"{self.folder / 'bin'}:{DEPLOY}:/usr/sbin:/usr/bin:/sbin:/bin", **self.environment},
        )  # fmt: skip

    def network(self, *commands: str) -> dict[str, Any]:
        """What `ip` says after commands that succeed."""
        questions = {
            "address": "ip -json -4 address show dev wwan0", "routes": "ip -json -4 route show",
            "to_host": f"ip -json route get {RADIO_HOST}", "to_others": "ip -json route get 203.0.113.7",
            "to_modems": "ip -json route get 10.45.0.3",
        }  # fmt: skip
        done = self.run(*commands, *(f'echo "{name}=$({question})"' for name, question in questions.items()))
        assert done.returncode == 0, done.stderr
        lines = [line.partition("=") for line in done.stdout.splitlines()]
        return {name: json.loads(text) for name, _, text in lines if name in questions}


UP, DOWN = f"modem.sh up wwan0 {RADIO_HOST} fltestbed", f"modem.sh down wwan0 {RADIO_HOST}"
needs_namespaces = pytest.mark.skipif(not may_make_namespaces(), reason="this user may not make network namespaces")


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    (tmp_path / "bin").mkdir()
    (tmp_path / "connected").write_text("no\n")
    device = tmp_path / "sys" / "class" / "net" / "wwan0"
    (device / "qmi").mkdir(parents=True)
    (device / "qmi" / "raw_ip").write_text("N\n")
    (device / "device" / "usbmisc" / "cdc-wdm0").mkdir(parents=True)
    environment = {
        "FOLDER": str(tmp_path), "SYS": str(tmp_path / "sys"), "STATE": str(tmp_path / "state"), "REGISTRATION_S": "1",
        "OVER": "wwan0", "ADDRESS": "10.45.0.2", "REFUSES": "no", "REGISTRATION": "registered",
    }  # fmt: skip
    return Pi(tmp_path, environment)


@pytest.fixture
def with_modemmanager(pi: Pi) -> Pi:
    """ModemManager knows two modems, of which the second is wwan0's."""
    pi.install("mmcli", MMCLI)
    pi.install("qmicli", "exit 1\n")
    return pi


@pytest.fixture
def with_qmi(pi: Pi) -> Pi:
    """ModemManager is there and knows no modem."""
    pi.install("mmcli", 'echo "modem-list.length : 0"\n')
    pi.install("qmicli", QMICLI)
    return pi


def only_the_host_is_reached(network: dict[str, Any]) -> bool:
    """Whether the radio host is reached over the modem, and all else over Ethernet, the other modems too."""
    over_modem = [route["dst"] for route in network["routes"] if route["dev"] == "wwan0"]
    assert over_modem == [RADIO_HOST]
    assert [(route["dst"], route["dev"]) for route in network["routes"] if route["dst"] == "default"] == [
        ("default", "eth0")
    ]
    ((to_host,), (to_others,), (to_modems,)) = (network[name] for name in ("to_host", "to_others", "to_modems"))
    assert (to_host["dev"], to_host["prefsrc"]) == ("wwan0", "10.45.0.2")
    (interface,) = network["address"]
    addresses = [(one["local"], one["prefixlen"]) for one in interface["addr_info"] if one["scope"] == "global"]
    assert (addresses, interface["mtu"]) == ([("10.45.0.2", 32)], 1456)
    return bool(to_others["dev"] == to_modems["dev"] == "eth0")


@needs_namespaces
def test_a_modem_comes_up_through_modemmanager(with_modemmanager: Pi) -> None:
    """It connects to the APN by IPv4; one route leads over it, and what was left there is gone."""
    assert only_the_host_is_reached(with_modemmanager.network(UP))
    modem = "-m /org/freedesktop/ModemManager1/Modem/0"
    assert with_modemmanager.asked("mmcli") == [
        f"{modem} --enable", f"--timeout 1 {modem} --simple-connect=apn=fltestbed,ip-type=ipv4",
    ]  # fmt: skip
    assert with_modemmanager.asked("qmicli") == []


@needs_namespaces
def test_a_modem_comes_up_by_qmi_where_modemmanager_does_not_know_it(with_qmi: Pi) -> None:
    """In raw IP, online and registered; the session's handle and client are kept for its end."""
    assert only_the_host_is_reached(with_qmi.network(UP))
    assert (with_qmi.folder / "sys/class/net/wwan0/qmi/raw_ip").read_text() == "Y\n"
    assert (with_qmi.folder / "state" / "wwan0").read_text() == "19 2267587312\n"
    assert with_qmi.asked("qmicli") == [
        "-d /dev/cdc-wdm0 --device-open-proxy --dms-set-operating-mode=online",
        "-d /dev/cdc-wdm0 --device-open-proxy --wds-start-network=apn=fltestbed,ip-type=4 --client-no-release-cid",
    ]


@needs_namespaces
@pytest.mark.parametrize("way", ["with_modemmanager", "with_qmi"])
def test_up_again_changes_nothing(way: str, request: pytest.FixtureRequest) -> None:
    """The connection that there is stays."""
    pi: Pi = request.getfixturevalue(way)
    assert only_the_host_is_reached(pi.network(UP, UP))
    asked = " ".join(pi.asked("mmcli") + pi.asked("qmicli"))
    assert asked.count("--simple-connect") + asked.count("--wds-start-network") == 1


@needs_namespaces
@pytest.mark.parametrize(
    ("way", "last"),
    [
        ("with_modemmanager", "-m /org/freedesktop/ModemManager1/Modem/0 --simple-disconnect"),
        ("with_qmi", "-d /dev/cdc-wdm0 --device-open-proxy --wds-stop-network=2267587312 --client-cid=19"),
    ],
)
def test_down_leaves_nothing(way: str, last: str, request: pytest.FixtureRequest) -> None:
    """No address, no route, no session; Ethernet as it was."""
    pi: Pi = request.getfixturevalue(way)
    network = pi.network(UP, DOWN)
    assert {route["dev"] for route in network["routes"]} == {"eth0"}
    assert network["to_host"][0]["dev"] == "eth0"
    assert [one for interface in network["address"] for one in interface.get("addr_info", [])] == []
    assert pi.asked("mmcli" if way == "with_modemmanager" else "qmicli")[-1] == last
    assert not (pi.folder / "state" / "wwan0").exists()


@needs_namespaces
def test_a_session_that_the_core_has_ended_is_begun_anew(with_qmi: Pi) -> None:
    """Its handle is worth nothing any more."""
    assert only_the_host_is_reached(with_qmi.network(UP, "echo no >$FOLDER/connected", UP))
    assert sum("--wds-start-network" in line for line in with_qmi.asked("qmicli")) == 2


@needs_namespaces
def test_a_modem_that_plays_ethernet_is_reached_through_its_gateway(with_modemmanager: Pi) -> None:
    """It would not answer who the radio host is."""
    with_modemmanager.arp = "arp on"
    network = with_modemmanager.network(UP)
    assert only_the_host_is_reached(network)
    assert network["to_host"][0]["gateway"] == "10.45.0.1"


@needs_namespaces
@pytest.mark.parametrize(
    ("way", "environment", "said"),
    [
        ("with_modemmanager", {"REFUSES": "yes"}, "ModemManager cannot connect to fltestbed"),
        ("with_modemmanager", {"OVER": "qmapmux0.0"}, "connected over qmapmux0.0; give that one"),
        ("with_modemmanager", {"ADDRESS": "--"}, "no IPv4 address came of it"),
        ("with_qmi", {"REGISTRATION": "searching"}, "not registered after 1 s; is the SIM known to the core"),
        ("with_qmi", {"REFUSES": "yes"}, "the modem cannot connect to fltestbed; is that the core's DNN?"),
    ],
)
def test_what_fails_is_said(way: str, environment: dict[str, str], said: str, request: pytest.FixtureRequest) -> None:
    """In one line, with what to do, and the status is 1."""
    pi: Pi = request.getfixturevalue(way)
    pi.environment |= environment
    done = pi.run(UP)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert "modem.sh: wwan0: " in done.stderr.splitlines()[-1]


@needs_namespaces
def test_a_rule_that_leads_elsewhere_is_found(with_modemmanager: Pi) -> None:
    """A route is not enough: what the kernel would do is asked."""
    done = with_modemmanager.run("ip rule add to 192.168.70.129 lookup 7", "ip route add default dev eth0 table 7", UP)
    assert done.returncode == 1
    assert "192.168.70.129 is reached another way all the same" in done.stderr


def test_wrong_arguments_are_refused(pi: Pi) -> None:
    """An interface that is not there, or is no modem's; a command that is none; too few words."""
    environment = {**os.environ, **pi.environment, "PATH": f"{pi.folder / 'bin'}:/usr/bin:/bin"}

    def run(*words: str) -> tuple[int, str]:
        command = [str(DEPLOY / "modem.sh"), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stderr

    pi.install("mmcli", "exit 1\n")
    assert run("up", "wwan7", RADIO_HOST, "x") == (
        1,
        "modem.sh: wwan7: no such interface here; ip link shows those that are\n",
    )
    assert run("up", "wwan0", RADIO_HOST, "x")[1].startswith("modem.sh: wwan0: ModemManager knows no modem with it")
    for words in (("up", "wwan0", RADIO_HOST), ("down", "wwan0"), ("off", "wwan0", RADIO_HOST)):
        status, said = run(*words)
        assert (status, said[:16]) == (2, "usage: modem.sh ")


DOCKER = """
case "$*" in
*"exec -T mysql"*) cat >>$FOLDER/mysql.read; [ -s $FOLDER/tables ] && cat $FOLDER/tables ;;
*"exec -T mongo"*) cat >>$FOLDER/mongo.read ;;
esac
true
"""


@pytest.fixture
def core(tmp_path: Path, pi: Pi) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs core.sh over a made cell, with stand-ins for docker and ip."""
    source = tmp_path / "it's $(false) here"
    schema = source / "doc" / "tutorial_resources" / "oai-cn5g" / "database" / "oai_db.sql"
    schema.parent.mkdir(parents=True)
    schema.write_text("CREATE TABLE of OpenAirInterface;\n")
    table = tmp_path / "cell.toml"
    table.write_text((DEPLOY / "cell.toml").read_text().replace("/opt/openairinterface5g", str(source)))
    make_cell.write_cell(load_cell(table), tmp_path / "cell")
    for name, script in (("docker", DOCKER), ("ip", "")):
        pi.install(name, script)

    def run(command: str, kind: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(DEPLOY / "core.sh"), command, str(tmp_path / "cell" / kind)], capture_output=True, text=True, check=False,
            env={**os.environ, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "FOLDER": str(tmp_path)},
        )  # fmt: skip

    return run


@pytest.mark.parametrize(("kind", "database"), [("oai", "mysql"), ("open5gs", "mongo")])
def test_a_core_starts_with_its_subscribers(
    kind: str, database: str, core: Callable[..., subprocess.CompletedProcess[str]], pi: Pi
) -> None:
    """First the database, then who may join, then the rest and the route to the modems; no secret is on a command line."""
    done = core("up", kind)
    assert done.returncode == 0, done.stderr
    asked = pi.asked("docker")
    assert asked[0] == f"compose up --detach --wait {database}"
    assert asked[-1] == "compose up --detach --wait"
    assert all(line.startswith(f"compose exec -T {database} ") for line in asked[1:-1])
    upf = {"oai": "192.168.70.137", "open5gs": "192.168.70.140"}[kind]
    assert pi.asked("ip") == [f"route replace 10.45.0.0/24 via {upf} dev fl5g"]
    folder = pi.folder / "cell" / kind
    (subscribers,) = folder.glob("subscribers.*")
    read = (pi.folder / f"{database}.read").read_text()
    assert read.endswith(subscribers.read_text())
    assert ("CREATE TABLE" in read) == (kind == "oai")
    secrets = json.loads((pi.folder / "cell" / "keys.json").read_text())
    drawn = {secrets["database_password"], *(key for sim in secrets["sims"].values() for key in sim.values())}
    assert not any(secret in " ".join(asked) for secret in drawn)


def test_tables_that_are_there_are_left_alone(core: Callable[..., subprocess.CompletedProcess[str]], pi: Pi) -> None:
    """A second start brings the subscribers alone."""
    (pi.folder / "tables").write_text("AuthenticationSubscription\n")
    assert core("up", "oai").returncode == 0
    assert "CREATE TABLE" not in (pi.folder / "mysql.read").read_text()


def test_a_core_without_its_tables_or_its_folder_says_so(
    core: Callable[..., subprocess.CompletedProcess[str]], pi: Pi
) -> None:
    """With what to set."""
    (schema,) = pi.folder.glob("*/doc/*/*/*/oai_db.sql")
    schema.unlink()
    done = core("up", "oai")
    assert (done.returncode, "set oai.checkout to its source" in done.stderr) == (1, True)
    assert core("up", "nowhere").returncode == 2
    assert core("restart", "oai").returncode == 2
    assert core("down", "oai").returncode == 0
    assert pi.asked("docker")[-1] == "compose down"
