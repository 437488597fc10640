"""The lab's hosts and links, from the inventory with which deploy/ansible has set them up."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fltestbed.config_file import NAME_PATTERN, validate
from fltestbed.errors import ConfigError
from fltestbed.lab.ansible import find

PIS = "pis"
"""The group of the clients' hosts; their order in it is that of their partitions."""
LINKS = "fltestbed_links"
TIMEOUT_S = 60.0


class LinkPlace(BaseModel):
    """Where a link is on a Pi: its interface there, the server's address over it, and of a modem the APN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interface: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,15}$")]
    server: Annotated[str, Field(min_length=1)]
    apn: Annotated[str, Field(min_length=1)] | None = None
    """Of a modem that deploy/ansible brings up at boot; None of any other interface."""


class _Variables(BaseModel):
    fltestbed_links: dict[Annotated[str, Field(pattern=NAME_PATTERN)], LinkPlace]


@dataclass(frozen=True)
class Pi:
    """A client's host: its name in the inventory and in the results, and its links by their names in the results."""

    name: str
    links: dict[str, LinkPlace]


@dataclass(frozen=True)
class Inventory:
    """The Pis of an inventory.

    Attributes
    ----------
    path : Path
        File or folder, as Ansible takes it.
    pis : tuple of Pi
        In the inventory's order.
    """

    path: Path
    pis: tuple[Pi, ...]

    @property
    def links(self) -> tuple[str, ...]:
        """Names of the links that any Pi has."""
        return tuple(dict.fromkeys(link for pi in self.pis for link in pi.links))

    def clients(self, link: str, number: int) -> tuple[Pi, ...]:
        """The first `number` Pis, which have the partitions from 0 on; each must have the link.

        Raises
        ------
        ConfigError
            There are fewer Pis, or one of them lacks the link.
        """
        if number > len(self.pis):
            raise ConfigError(f"{self.path}: {number} clients are wanted, and the group {PIS} has {len(self.pis)} hosts")
        chosen = self.pis[:number]
        if lacking := [pi.name for pi in chosen if link not in pi.links]:
            raise ConfigError(
                f"{self.path}: {', '.join(lacking)}: no link {link} in {LINKS}; links here: {', '.join(self.links)}"
            )
        return chosen


def load_inventory(path: Path) -> Inventory:
    """Read an inventory with Ansible, whatever form it has.

    Raises
    ------
    ConfigError
        It cannot be read, has no group of Pis, or a Pi's links cannot be used.
    HostError
        Ansible is not installed here.
    """
    if not path.exists():
        raise ConfigError(f"--inventory {path}: there is no such file; copy deploy/ansible/inventory.example.yml")
    data = json.loads(_ask(path))
    hosts = data.get(PIS, {}).get("hosts", [])
    if not hosts:
        raise ConfigError(f"{path}: the group {PIS} is missing or empty; see deploy/ansible/inventory.example.yml")
    variables: dict[str, Any] = data["_meta"]["hostvars"]
    pis = (Pi(name, validate(_Variables, variables.get(name, {}), f"{path}: {name}").fltestbed_links) for name in hosts)
    return Inventory(path, tuple(pis))


def _ask(path: Path) -> str:
    command = [find("ansible-inventory"), "--inventory", str(path), "--list"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{path}: ansible-inventory has not ended after {TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        raise ConfigError(f"{path}: ansible-inventory ended with status {done.returncode}: {done.stderr.strip()[:500]}")
    return done.stdout
