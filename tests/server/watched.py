"""A view of a scripted round that is under way, for those who show it."""

from collections.abc import Mapping
from pathlib import Path

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.measure.recorder import Value
from fltestbed.server.host_log import HostLog
from fltestbed.server.latest import Latest
from fltestbed.server.progress import View
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import Client
from tests.server.lab import Lab
from tests.server.recorded import Rows


class Heard(Rows):
    """Rows that go to the latest figures as well, as the recorder's do."""

    def __init__(self) -> None:
        super().__init__()
        self.latest = Latest()

    def write(self, table: str, row: Mapping[str, Value]) -> None:
        """Keep it, and tell of it."""
        super().write(table, row)
        self.latest.hear(table, row)


def half_a_round(folder: Path, clients: int = 2) -> View:
    """Round 1 of 3: pi-0 was sent its message 0.25 s after it was ready and is training, the others wait for theirs."""
    lab, rows = Lab(folder, clients=clients), Heard()
    lab.desk.close()
    log = RoundLog(rows, 0)
    everybody = [Client(f"pi-{number}", "5g", "wwan0") for number in range(clients)]
    log.sent(1, "train", [(f"m{number}", number, client) for number, client in enumerate(everybody)], 0, 1_000_000_000)
    log.downlink_started("m0", 1_250_000_000, 2_900_000)
    task = log.task_of("m0")
    assert task is not None
    log.downlink_sent(task)
    lab.desk.close()
    signal: dict[str, Value] = {"raw_ns": 5, "technology": "5g", "rsrp_dbm": -91.4, "rssi_dbm": None}
    HostLog(rows, 0).reading("radio", "pi-0", signal, everybody[0])
    return View("lab-1", lab.experiment, log, lab.roster, rows.latest, lab.waiting, SYSTEM_CLOCK)
