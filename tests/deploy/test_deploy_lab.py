"""The playbooks and a campaign, on three hosts with systemd, sshd and three networks, as people in a lab use them."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.deploy.lab_hosts import LINKS, PIS, Host, Lab, add_gateway, inventory, make_bundle, running_lab, unavailable
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
CERTIFICATES = "/etc/fltestbed/certs"
CAMPAIGN = {
    "name": "lab",
    "repetitions": 1,
    "factors": {"link": ["5g", "wifi"], "clients": [2]},
    "experiment": {
        "rounds": 2,
        "model": {"name": "cnn"},
        "data": {"name": "synthetic", "samples": 300},
        "training": {"threads": 1},
        "server": {"certificates": CERTIFICATES, "node-keys": f"{CERTIFICATES}/nodes"},
    },
}

OF_THE_UNIT = {
    "name": "unit",
    "rounds": 5,
    "clients": 2,
    "model": {"name": "cnn"},
    "data": {"name": "synthetic", "samples": 300},
    "training": {"threads": 1},
    "pacing": {"seconds-per-epoch": [1.0]},
}
RUNS = "/var/lib/fltestbed/runs"

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


@dataclass(frozen=True)
class Ended:
    """How a command on the radio host ended."""

    status: int
    out: str

    def recap(self) -> dict[str, dict[str, int]]:
        """Ansible's figures, by host."""
        lines = re.findall(r"^(\S+)\s+: (ok=.*)$", self.out, re.MULTILINE)
        return {host: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", figures)} for host, figures in lines}


@dataclass(frozen=True)
class Bench:
    """The lab, and the files with which its radio host is used."""

    lab: Lab
    folder: Path

    def run(self, *argv: str, cwd: Path | None = None) -> Ended:
        """Run a program of the tests' environment on the radio host."""
        path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = [f"PATH={path}", f"PYTHONPATH={ROOT}", "HOME=/root", "LC_ALL=C.UTF-8", "COLUMNS=200"]
        command = ["env", "-i", "-C", str(cwd or self.folder), *environment, *argv]
        done = self.lab.radio_host.run(*command, timeout=300)
        return Ended(done.returncode, done.stdout + done.stderr)

    def play(self) -> Ended:
        """The playbook, as the README says."""
        given = ["-i", str(self.folder / "lab.yml"), "-e", f"fltestbed_build={self.folder / 'build'}"]
        return self.run("ansible-playbook", *given, "site.yml", cwd=ROOT / "deploy" / "ansible")

    def campaign(self) -> Ended:
        """The campaign, over the hosts of the same inventory."""
        given = ["--inventory", str(self.folder / "lab.yml"), "--runs", str(self.folder / "runs")]
        return self.run("python", "-m", "fltestbed", "campaign", "campaign.toml", *given)

    def read(self, path: str) -> Any:
        """A JSON file that a campaign has written on the radio host."""
        return json.loads(self.lab.radio_host.call("cat", str(self.folder / "runs" / "lab" / path)))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("lab")
    folder.joinpath("build").mkdir()
    make_bundle(folder / "build", tmp_path_factory.mktemp("wheels"))
    folder.joinpath("lab.yml").write_text(json.dumps(inventory(folder / "unit.toml")))
    folder.joinpath("unit.toml").write_text(tomli_w.dumps(OF_THE_UNIT))
    folder.joinpath("campaign.toml").write_text(tomli_w.dumps(CAMPAIGN))
    with running_lab(tmp_path_factory.mktemp("hosts")) as lab:
        yield Bench(lab, folder)


@pytest.fixture(scope="module")
def first(bench: Bench) -> Ended:
    """The first run of the playbook."""
    return bench.play()


def test_the_playbook_makes_a_testbed_of_fresh_hosts(bench: Bench, first: Ended) -> None:
    """No task fails; each Pi has the toolkit from the bundle, a file for each link, and the unit that systemd takes."""
    assert first.status == 0, first.out
    assert {host: (figures["failed"], figures["unreachable"]) for host, figures in first.recap().items()} == dict.fromkeys(
        ("radio-host", *PIS), (0, 0)
    )
    for number, pi in enumerate(bench.lab.pis):
        assert "/opt/fltestbed/lib" in pi.call(
            "/opt/fltestbed/bin/python", "-c", "import fltestbed; print(fltestbed.__file__)"
        )
        pi.call("/opt/fltestbed/bin/python", "-c", "import tiny_dependency")
        settings = pi.call("cat", "/etc/fltestbed/client-wwan0.env")
        assert {"SERVER=10.63.0.1:9092", "LINK=5g", f"PARTITION={number}", f"NAME={pi.name}"} <= set(settings.splitlines())
        assert {f"client-{link.pi_interface}.env" for link in LINKS} <= set(pi.call("ls", "/etc/fltestbed").split())
        assert pi.call("systemd-analyze", "verify", "/etc/systemd/system/fltestbed-client@.service") == ""
    radio_host = bench.lab.radio_host
    assert radio_host.call("systemd-analyze", "verify", "/etc/systemd/system/fltestbed-server.service") == ""


def test_a_modem_is_up_now_and_after_a_boot(bench: Bench, first: Ended) -> None:
    """Its unit is enabled and has left one route on wwan0, to the radio host; the Pi without an APN has no such unit."""
    pi = bench.lab.pis[1]
    wait_until(lambda: pi.run("systemctl", "is-active", "fltestbed-modem@wwan0").stdout.strip() == "active")
    assert pi.call("systemctl", "is-enabled", "fltestbed-modem@wwan0").strip() == "enabled"
    assert pi.call("systemd-analyze", "verify", "/etc/systemd/system/fltestbed-modem@.service") == ""
    (route,) = json.loads(pi.call("ip", "-json", "route", "show", "dev", "wwan0"))
    assert (route["dst"], route["prefsrc"]) == ("10.63.0.1", "10.63.0.11")
    assert bench.lab.pis[0].run("systemctl", "cat", "fltestbed-modem@wwan0").returncode != 0


def test_a_second_run_changes_nothing(bench: Bench, first: Ended) -> None:
    """Every host reports changed=0."""
    second = bench.play()
    assert second.status == 0, second.out
    assert {host: figures["changed"] for host, figures in second.recap().items()} == dict.fromkeys(("radio-host", *PIS), 0)
    assert all(figures["changed"] > 0 for figures in first.recap().values())


def test_keys_are_their_owners_alone(bench: Bench, first: Ended) -> None:
    """The services' user reads its own key and no other; another user reads none; no key stands in what Ansible has said."""
    pi, radio_host = bench.lab.pis[0], bench.lab.radio_host
    assert pi.run("runuser", "-u", "fltestbed", "--", "cat", "/etc/fltestbed/node.key").returncode == 0
    assert pi.run("runuser", "-u", "pi", "--", "cat", "/etc/fltestbed/node.key").returncode != 0
    for name, may in (("server.key", True), ("ca.key", False), ("nodes/pi-0.key", False)):
        done = radio_host.run("runuser", "-u", "fltestbed", "--", "cat", f"{CERTIFICATES}/{name}")
        assert (done.returncode == 0) is may, name
    secret = pi.call("cat", "/etc/fltestbed/node.key").splitlines()[1]
    assert secret not in first.out
    assert "PRIVATE KEY" not in first.out


def test_the_pis_take_their_time_from_the_radio_host_alone(bench: Bench, first: Ended) -> None:
    """Chrony on a Pi knows one source: the radio host's address on the quiet network; and that one answers."""
    for pi in bench.lab.pis:
        pi.call("chronyc", "-n", "waitsync", "30", "0", "0", "1")
        sources = [line.split(",") for line in pi.call("chronyc", "-n", "-c", "sources").split()]
        assert [(source[1], source[2]) for source in sources] == [("*", LINKS[0].server)]


def journal(host: Host, unit: str) -> str:
    """What a service has said on its host."""
    return host.call("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")


def test_a_campaign_goes_on_after_a_host_that_fails_and_says_what_is_missing(bench: Bench, first: Ended) -> None:
    """With a Pi's WiFi down, the 5G run is made and the WiFi run is missing, with host and reason; later that is made."""
    broken = bench.lab.pis[1]
    broken.call("ip", "link", "set", "wlan0", "down")
    ended = bench.campaign()
    assert ended.status == 1, ended.out
    assert "1 of 2 runs are missing: wifi-c2-r1 (failed: pi-1 is not ready: " in ended.out
    assert "wlan0" in bench.read("wifi-c2-r1/manifest.json")["reason"]
    assert bench.read("5g-c2-r1/manifest.json")["status"] == "complete"
    assert journal(broken, "fltestbed-client@wlan0") == ""

    broken.call("ip", "link", "set", "wlan0", "up")
    add_gateway(broken)
    ended = bench.campaign()
    assert ended.status == 0, ended.out
    assert "2 runs are complete" in ended.out
    for link, interface in (("5g", "wwan0"), ("wifi", "wlan0")):
        manifest = bench.read(f"{link}-c2-r1/manifest.json")
        assert manifest["status"] == "complete"
        assert manifest["campaign"]["levels"] == {"link": link, "clients": 2}
        assert manifest["lab"] == {"hosts": ["pi-0", "pi-1"], "missing": {}}
        hosts = {name: (host["link"], host["interface"], host["partition"]) for name, host in of_pis(manifest).items()}
        assert hosts == {"pi-0": (link, interface, 0), "pi-1": (link, interface, 1)}
        for pi in bench.lab.pis[:2]:
            log = bench.lab.radio_host.call(
                "cat", str(bench.folder / "runs" / "lab" / f"{link}-c2-r1" / "logs" / f"{pi.name}.log")
            )
            assert f"{pi.name} joined" in log
            assert pi.run("systemctl", "is-active", f"fltestbed-client@{interface}").stdout.strip() == "inactive"


def test_a_service_pins_its_route_if_it_may_and_leaves_none(bench: Bench, first: Ended) -> None:
    """pi-1's WiFi leads to the radio host's address on Ethernet, by the unit's one capability; pi-0 needs and has none."""
    assert bench.campaign().status == 0  # which makes nothing anew
    hosts = bench.read("wifi-c2-r1/manifest.json")["hosts"]
    assert [hosts[name]["path"]["pinned"] for name in PIS] == [False, True]
    (route,) = hosts["pi-1"]["path"]["routes"]
    assert (route["address"], route["gateway"]) == ("10.61.0.1", "10.62.0.1")
    assert hosts["pi-1"]["path"]["mismatch"] is None
    bounds = [pi.call("systemctl", "show", "-P", "CapabilityBoundingSet", "fltestbed-client@wlan0") for pi in bench.lab.pis]
    assert [bound.strip() for bound in bounds] == ["", "cap_net_admin"]
    assert "proto 102" not in bench.lab.pis[1].call("ip", "rule", "show")


def test_a_server_that_was_killed_goes_on_with_its_run(bench: Bench, first: Ended) -> None:
    """Its unit is killed after two rounds, and a client's: both come back by themselves, and one run is complete."""
    radio_host, units = bench.lab.radio_host, ("fltestbed-server", "fltestbed-client@eth0")
    for host in bench.lab.hosts.values():
        host.call("systemctl", "start", units[host is not radio_host])
    wait_until(lambda: "round-000002" in radio_host.run("sh", "-c", f"ls {RUNS}/unit-*/checkpoints").stdout)
    radio_host.call("systemctl", "kill", "--signal=KILL", units[0])
    bench.lab.pis[1].call("systemctl", "kill", "--signal=KILL", units[1])

    def states() -> set[str]:
        return {
            host.call("systemctl", "show", "-P", "ActiveState", units[host is not radio_host]).strip()
            for host in bench.lab.hosts.values()
        }

    wait_until(lambda: states() <= {"inactive", "failed"})
    for host, restarts in ((radio_host, 1), (bench.lab.pis[0], 0), (bench.lab.pis[1], 1)):
        unit = units[host is not radio_host]
        said = journal(host, unit)
        assert said.count("Scheduled restart job") == restarts, said
        assert f"{unit}.service: Deactivated successfully." in said.splitlines()[-2:], said
    (folder,) = radio_host.call("ls", RUNS).split()
    manifest = json.loads(radio_host.call("cat", f"{RUNS}/{folder}/manifest.json"))
    assert manifest["status"] == "complete"
    begun, resumed = manifest["sessions"]
    assert begun["after_round"] is None
    assert resumed["after_round"] >= 1  # the second round, if its last row was on the disk
    rounds = radio_host.call("cut", "-d,", "-f2", f"{RUNS}/{folder}/phases.csv").split()
    assert {"1", "2", "3", "4", "5"} <= set(rounds)


def test_the_journals_of_all_hosts_are_brought(bench: Bench, first: Ended) -> None:
    """The playbook logs.yml leaves a file for each host, with what its services have said."""
    given = ["-i", str(bench.folder / "lab.yml"), "-e", f"logs={bench.folder / 'logs'}"]
    ended = bench.run("ansible-playbook", *given, "logs.yml", cwd=ROOT / "deploy" / "ansible")
    assert ended.status == 0, ended.out
    for name in ("radio-host", *PIS):
        assert "chronyd" in bench.lab.radio_host.call("cat", str(bench.folder / "logs" / name / "journal.txt"))


def of_pis(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The hosts of a manifest but the server."""
    return {name: host for name, host in manifest["hosts"].items() if name in PIS}
