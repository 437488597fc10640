"""Campaigns whose links are those of real hosts."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from fltestbed.campaign.listing import print_listing
from fltestbed.campaign.plan import load_plan
from fltestbed.campaign.resume import survey
from fltestbed.campaign.schedule import schedule
from fltestbed.errors import ConfigError
from fltestbed.lab.inventory import Inventory, LinkPlace, Pi
from tests.campaign.campaign_files import write_campaign

LINKS = {"5g": LinkPlace(interface="wwan0", server="10.45.0.1"), "lte": LinkPlace(interface="wwan1", server="10.46.0.1")}
INVENTORY = Inventory(Path("lab.yml"), (Pi("pi-0", LINKS), Pi("pi-1", LINKS)))


def test_links_are_those_of_the_inventory(tmp_path: Path) -> None:
    """A name that no profile has is a level all the same, and one that the inventory lacks is an error even if shipped."""
    plan = load_plan(write_campaign(tmp_path, factors={"link": ["5g", "lte"], "clients": [1, 2]}), INVENTORY)
    assert [condition.label for condition in plan.conditions] == ["5g-c1", "5g-c2", "lte-c1", "lte-c2"]
    assert {condition.profile for condition in plan.conditions} == {None}
    with pytest.raises(ConfigError, match=r"factors.link: wifi: not in lab.yml; links there: 5g, lte"):
        load_plan(write_campaign(tmp_path, factors={"link": ["wifi"]}), INVENTORY)


def test_more_clients_than_hosts_are_an_error_before_anything_is_started(tmp_path: Path) -> None:
    """Of the plan, not of a run hours later."""
    with pytest.raises(ConfigError, match="3 clients are wanted, and the group pis has 2 hosts"):
        load_plan(write_campaign(tmp_path, factors={"link": ["5g"], "clients": [1, 3]}), INVENTORY)


def test_what_only_an_emulated_link_can_be_told_is_refused(tmp_path: Path) -> None:
    """Each such factor, and TLS that the hosts' clients were not set up without; all in one message."""
    factors = {
        "link": ["5g"],
        "bandwidth": [0.5, 1.0],
        "uplink-downlink-ratio": [1.0],
        "competing-flow": [True],
        "tls": [True],
    }
    file = write_campaign(tmp_path, factors=factors, experiment={"server": {"tls": False}})
    with pytest.raises(ConfigError) as raised:
        load_plan(file, INVENTORY)
    refused = re.findall(r"factors\.(\S+): for emulated links alone", str(raised.value))
    assert refused == ["bandwidth", "uplink-downlink-ratio", "competing-flow", "tls"]
    assert "the experiment says server.tls = false" in str(raised.value)


def test_the_listing_says_that_the_hosts_are_real(tmp_path: Path) -> None:
    """No rates, and no length that nobody can compute."""
    plan = load_plan(write_campaign(tmp_path, factors={"link": ["5g"]}), INVENTORY)
    text = io.StringIO()
    print_listing(plan, survey(schedule(plan), tmp_path / "runs"), Console(file=text, width=120))
    assert "5g: real hosts" in text.getvalue()
    assert "nothing known of its length" in text.getvalue()
