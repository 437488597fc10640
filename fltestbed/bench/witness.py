"""What packets say of stamps: each transfer of a run beside the packets of its own hosts.

All hosts of an emulated network run on one kernel, so the raw clock of every host is the same one, whatever a client
believes its clock to be.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from analysis.load import Run
from fltestbed.bench.capture import HttpMessage
from fltestbed.bench.testbed import Witnessed
from fltestbed.errors import TestbedError

MOST_HEADER_BYTES = 4096
"""Of HTTP around a payload."""
MOST_RECORDS = 0.0025
"""Of a payload, for TLS: 22 bytes around each 16 KiB at most are 0.13%."""

STAMPS = (
    ("downlink", "server_start_raw_ns", "server", "first"),
    ("downlink", "server_end_raw_ns", "server", "last"),
    ("downlink", "client_start_raw_ns", "client", "first"),
    ("downlink", "client_end_raw_ns", "client", "last"),
    ("uplink", "client_start_raw_ns", "client", "first"),
    ("uplink", "client_end_raw_ns", "client", "last"),
    ("uplink", "server_start_raw_ns", "server", "first"),
    ("uplink", "server_end_raw_ns", "server", "last"),
)
"""Columns of transfers.csv: direction, column, at which end, and which packet of the transfer it stands for."""


@dataclass(frozen=True)
class Transfer:
    """One transfer: what was stamped, and its packets at both ends.

    Attributes
    ----------
    row : Series
        Of transfers.csv.
    at : dict of str to HttpMessage
        Keys `server` and `client`.
    """

    row: "pd.Series[int]"
    at: dict[str, HttpMessage]

    @property
    def direction(self) -> str:
        """The transfer's: downlink or uplink."""
        return str(self.row["direction"])

    def error_ms(self, column: str, end: str, which: str) -> float:
        """A stamp minus its host's packet."""
        packet = self.at[end].first_ns if which == "first" else self.at[end].last_ns
        return (int(self.row[column]) - packet) / 1e6

    @property
    def one_way_s(self) -> float:
        """First packet leaves the sender until the last has reached the receiver: the truth of a downlink or an uplink."""
        sender, receiver = ("server", "client") if self.direction == "downlink" else ("client", "server")
        return (self.at[receiver].last_ns - self.at[sender].first_ns) / 1e9


def match(run: Run, witnessed: Witnessed) -> list[Transfer]:
    """Find the packets of each transfer of a run.

    A transfer is a message of its payload and a header. Those of one client and direction come in order, so the n-th row
    is the n-th message of that size; no stamp is used to find it.

    Raises
    ------
    TestbedError
        The captures do not hold exactly the transfers of the run.
    """
    found: list[Transfer] = []
    for (client, direction), rows in run["transfers"].groupby(["client", "direction"]):
        address = witnessed.addresses[str(client)]
        in_order = rows.sort_values("server_start_raw_ns")
        sizes = in_order["payload_bytes"].tolist()
        at = {
            "server": list(_transfers(witnessed.at_server, address, str(direction), sizes)),
            "client": list(_transfers(witnessed.at_client[str(client)], address, str(direction), sizes)),
        }
        if any(len(messages) != len(rows) for messages in at.values()):
            raise TestbedError(
                f"{client}, {direction}: {len(rows)} transfers are on record, but the captures hold "
                f"{len(at['server'])} at the server and {len(at['client'])} at the client"
            )
        for number, (_, row) in enumerate(in_order.iterrows()):
            found.append(Transfer(row, {end: messages[number] for end, messages in at.items()}))
    return found


def _transfers(messages: list[HttpMessage], client: str, direction: str, sizes: list[int]) -> Iterator[HttpMessage]:
    """The messages between one client and the server that carry a payload of those sizes."""
    for message in messages:
        party = message.receiver if direction == "downlink" else message.sender
        if party[0] == client and any(
            size <= message.payload_bytes <= size * (1 + MOST_RECORDS) + MOST_HEADER_BYTES for size in sizes
        ):
            yield message
