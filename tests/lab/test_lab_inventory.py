"""Inventories, read by Ansible itself."""

import sys
from pathlib import Path

import pytest

from fltestbed.errors import ConfigError, HostError
from fltestbed.lab.inventory import Inventory, LinkPlace, Pi, load_inventory

EXAMPLE = Path(__file__).parents[2] / "deploy" / "ansible" / "inventory.example.yml"


@pytest.fixture(scope="module")
def example() -> Inventory:
    return load_inventory(EXAMPLE)


def test_the_example_has_three_pis_with_three_links_each(example: Inventory) -> None:
    """Hosts come in the inventory's order, which is that of their partitions; a link is an interface and an address."""
    assert [pi.name for pi in example.pis] == ["pi-0", "pi-1", "pi-2"]
    assert sorted(example.links) == ["5g", "ethernet", "wifi"]
    assert example.pis[2].links["5g"] == LinkPlace(interface="wwan0", server="192.168.70.129", apn="fltestbed")


def test_the_clients_of_a_run_are_the_first_hosts(example: Inventory) -> None:
    """So that partitions 0 to N-1 are there."""
    assert [pi.name for pi in example.clients("wifi", 2)] == ["pi-0", "pi-1"]


def test_more_clients_than_hosts_are_refused(example: Inventory) -> None:
    """With the numbers and the group's name."""
    with pytest.raises(ConfigError, match="4 clients are wanted, and the group pis has 3 hosts"):
        example.clients("wifi", 4)


def test_a_host_without_the_link_is_named(tmp_path: Path) -> None:
    """Only hosts that take part need it."""
    wifi = {"wifi": LinkPlace(interface="wlan0", server="10.0.0.1")}
    inventory = Inventory(tmp_path, (Pi("pi-0", wifi), Pi("pi-1", {})))
    assert [pi.name for pi in inventory.clients("wifi", 1)] == ["pi-0"]
    with pytest.raises(ConfigError, match="pi-1: no link wifi in fltestbed_links; links here: wifi"):
        inventory.clients("wifi", 2)


def test_hosts_keep_the_order_of_the_file(tmp_path: Path) -> None:
    """Ten comes after two where it stands after it, and before where it stands before: partitions follow."""
    file = tmp_path / "lab.yml"
    links = "{fltestbed_links: {5g: {interface: wwan0, server: 10.0.0.1}}}"
    file.write_text(f"pis:\n  hosts:\n    pi-2: {links}\n    pi-10: {links}\n    amsel: {links}\n")
    assert [pi.name for pi in load_inventory(file).pis] == ["pi-2", "pi-10", "amsel"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pis:\n", "the group pis is missing or empty"),
        ("pis:\n  hosts:\n    pi-0:\n", "pi-0: fltestbed_links: missing"),
        ("pis:\n  hosts:\n    pi-0: {fltestbed_links: {5g: {interface: wwan0}}}\n", r"fltestbed_links.5g.server: missing"),
    ],
)
def test_what_is_wrong_with_an_inventory_is_told(tmp_path: Path, text: str, message: str) -> None:
    """File, host and variable stand in the message."""
    file = tmp_path / "lab.yml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        load_inventory(file)
    assert str(file) in str(raised.value)


def test_without_ansible_the_way_to_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has only the client's packages."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(HostError, match=r"pip install 'fltestbed\[lab\]'"):
        load_inventory(EXAMPLE)
