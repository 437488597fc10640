"""What is known last of each client, for those who watch a run while it goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fltestbed.measure.recorder import Value
from fltestbed.measure.schema import PHASES_TABLE, RADIO_TABLE
from fltestbed.server.tasks import SERVER

TRANSFERS = ("downlink", "uplink")


@dataclass
class Timed:
    """A phase of one client, over the rounds so far.

    Attributes
    ----------
    last_s, sum_s : float
        Seconds of the last one, and of all.
    count : int
        How many.
    """

    last_s: float = 0.0
    sum_s: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self.last_s = seconds
        self.sum_s += seconds
        self.count += 1


@dataclass
class Known:
    """One client.

    Attributes
    ----------
    phases : dict of str to Timed
        By name; what ended without both of its stamps is not in it.
    payload_bytes : dict of str to int
        Of all downlinks and all uplinks so far.
    signal_dbm : dict of str to float
        RSRP of each technology of a modem, RSSI of WiFi.
    """

    link: str = ""
    phases: dict[str, Timed] = field(default_factory=dict)
    payload_bytes: dict[str, int] = field(default_factory=dict)
    signal_dbm: dict[str, float] = field(default_factory=dict)


class Latest:
    """Hears every row that is recorded; what it keeps does not grow with the rounds.

    Attributes
    ----------
    clients : dict of str to Known
        By name. Another thread may read it: rows come in on the event loop alone, and `list(clients.items())` is one step.
    server_phases : dict of str to Timed
        aggregate and server_evaluate.
    """

    def __init__(self) -> None:
        self.clients: dict[str, Known] = {}
        self.server_phases: dict[str, Timed] = {}

    def hear(self, table: str, row: Mapping[str, Value]) -> None:
        """A row of `table` goes to its file."""
        if table == PHASES_TABLE.name:
            self._hear_phase(row)
        elif table == RADIO_TABLE.name and row["host"] != SERVER:
            signal = row.get("rsrp_dbm") if row.get("rsrp_dbm") is not None else row.get("rssi_dbm")
            if isinstance(signal, float | int):
                self._client(row["host"]).signal_dbm[str(row.get("technology"))] = float(signal)

    def _hear_phase(self, row: Mapping[str, Value]) -> None:
        phase, seconds = str(row["phase"]), row.get("duration_s")
        if row.get("start_host") == SERVER and not row.get("client"):
            if isinstance(seconds, float):
                self.server_phases.setdefault(phase, Timed()).add(seconds)
            return
        known = self._client(row["client"])
        known.link = str(row["link"])
        if isinstance(seconds, float):
            known.phases.setdefault(phase, Timed()).add(seconds)
        size = row.get("payload_bytes")
        if phase in TRANSFERS and isinstance(size, int):
            known.payload_bytes[phase] = known.payload_bytes.get(phase, 0) + size

    def _client(self, name: Value) -> Known:
        return self.clients.setdefault(str(name), Known())
