"""The table that describes a cell, and what follows from it."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

import nr
import usrp
from pydantic import AfterValidator, Field, model_validator

from fltestbed.config_file import NAME_PATTERN, Section, read_toml, validate
from fltestbed.errors import ConfigError

GTP_U_BYTES = 44
"""What carrying a packet to the gNB adds: IPv4 20, UDP 8, GTP-U 8, its extension with the QoS flow 8 (TS 29.281, 38.415)."""

OAI_PARTS = ("mysql", "nrf", "udr", "udm", "ausf", "amf", "smf", "upf")
OPEN5GS_PARTS = ("mongo", "nrf", "udr", "udm", "ausf", "nssf", "pcf", "bsf", "amf", "smf", "upf")

Network = ipaddress.IPv4Network
Address = ipaddress.IPv4Address


class CarrierTable(Section):
    """Where in the spectrum, and in which direction when."""

    bandwidth_mhz: Literal[40, 100] = 40
    centre_mhz: float
    physical_cell: Annotated[int, Field(strict=True, ge=0, le=1007)] = 0
    tdd: str = "DDDDDDDSUU"
    special_symbols: tuple[int, int, int] = (6, 4, 4)


class Radio(Section):
    """The software radio."""

    device: usrp.Device = "b200"
    address: ipaddress.IPv4Address | None = None
    antennas: Annotated[int, Field(strict=True, ge=1, le=2)] = 1
    transmit_attenuation_db: Annotated[int, Field(strict=True, ge=0, le=60)] = 12
    receive_attenuation_db: Annotated[int, Field(strict=True, ge=0, le=60)] = 12

    @model_validator(mode="after")
    def _address_where_one_is_needed(self) -> Self:
        if (self.address is None) != (self.device == "b200"):
            raise ValueError("address belongs to an n300 or x300, which needs it, and not to a b200")
        return self


class NetworkTable(Section):
    """Addresses of the core and of the modems."""

    bridge: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,14}$")] = "fl5g"
    core: Network
    clients: Network
    mtu: Annotated[int, Field(strict=True, ge=1280 + GTP_U_BYTES, le=9000)] = 1500

    @model_validator(mode="after")
    def _apart_and_large_enough(self) -> Self:
        if self.core.overlaps(self.clients):
            raise ValueError(f"core {self.core} and clients {self.clients} overlap")
        if self.core.num_addresses < 16 or self.clients.num_addresses < 8:
            raise ValueError("core needs 16 addresses at least, clients 8")
        return self


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("give the whole path, from / on: core.sh runs in another folder")
    return path


class Oai(Section):
    """OpenAirInterface."""

    checkout: Annotated[Path, AfterValidator(_absolute)]
    core_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] = "v2.1.0"


class Open5gs(Section):
    """Open5GS."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] = "2.7.6"


class Cell(Section):
    """The whole table."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,31}$")]
    mcc: Annotated[str, Field(pattern=r"^[0-9]{3}$")]
    mnc: Annotated[str, Field(pattern=r"^[0-9]{2,3}$")]
    tac: Annotated[int, Field(strict=True, ge=1, le=0xFFFD)] = 1
    sst: Annotated[int, Field(strict=True, ge=1, le=255)] = 1
    dnn: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,61}[a-z0-9]$")]
    carrier: CarrierTable
    radio: Radio = Radio()
    network: NetworkTable
    oai: Oai
    open5gs: Open5gs = Open5gs()
    subscribers: dict[Annotated[str, Field(pattern=NAME_PATTERN)], Annotated[int, Field(strict=True, ge=1)]]

    @model_validator(mode="after")
    def _subscribers_are_apart(self) -> Self:
        numbers = list(self.subscribers.values())
        if not numbers or len(numbers) != len(set(numbers)):
            raise ValueError("subscribers: at least one, each with a number of its own")
        if max(numbers) >= 10 ** (15 - len(self.plmn)):
            raise ValueError(f"subscribers: a number has {15 - len(self.plmn)} digits at most after {self.plmn}")
        if len(numbers) > self.network.clients.num_addresses - 3:
            raise ValueError(f"subscribers: more than {self.network.clients} has addresses for")
        return self

    @property
    def plmn(self) -> str:
        """Country and network, five or six digits."""
        return self.mcc + self.mnc

    @property
    def imsis(self) -> dict[str, str]:
        """The identity of each client's SIM: 15 digits."""
        return {name: self.plmn + str(number).zfill(15 - len(self.plmn)) for name, number in self.subscribers.items()}

    @property
    def spectrum(self) -> nr.Carrier:
        """Frequencies and resource blocks."""
        return nr.carrier(self.carrier.bandwidth_mhz, self.carrier.centre_mhz)

    @property
    def tdd(self) -> nr.TddPattern:
        """The order of slots."""
        return nr.tdd_pattern(self.carrier.tdd, self.carrier.special_symbols)

    @property
    def host(self) -> Address:
        """The radio host's address on the bridge: the gNB's, and where clients find the server."""
        return self.network.core[1]

    @property
    def ue_mtu(self) -> int:
        """What modems are told, so that no packet is cut in two on the bridge."""
        return self.network.mtu - GTP_U_BYTES

    def addresses(self, parts: tuple[str, ...]) -> dict[str, Address]:
        """Address of each part of a core, after the radio host's."""
        return {part: self.network.core[2 + place] for place, part in enumerate(parts)}


def load_cell(path: Path) -> Cell:
    """Read and check a table.

    Raises
    ------
    ConfigError
        It cannot be read, or a value cannot be; all problems of single values are said at once.
    """
    cell = validate(Cell, read_toml(path), str(path))
    try:
        usrp.samples_mhz(cell.radio.device, cell.spectrum.bandwidth_mhz)
        cell.tdd  # noqa: B018  # it checks itself
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return cell
