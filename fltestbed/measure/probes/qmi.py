"""Signal, channel and cell of a modem that speaks QMI, by `qmicli`: for hosts without ModemManager."""

import re
from pathlib import Path
from typing import Any

from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.probe import Row
from fltestbed.measure.probes.tools import Toolbox

NETWORK_DEVICES = Path("/sys/class/net")
CONTROL_PATTERNS = ("device/usbmisc/cdc-wdm*", "device/wwan/wwan*/wwan*qmi*", "device/wwan*qmi*")
"""Below a network device: its control channel, of a USB modem and of one in the kernel's WWAN subsystem."""

SIGNAL_SECTIONS = {"5G": "5g", "LTE": "lte", "WCDMA": "umts", "GSM": "gsm"}
CELL_SECTIONS = {"5GNR cell information": "5g", "Intrafrequency LTE Info": "lte"}
COLUMNS = {"RSRP": "rsrp_dbm", "RSRQ": "rsrq_db", "SNR": "sinr_db", "RSSI": "rssi_dbm"}


class QmiProbe:
    """Reads the modem of an interface through its control channel, beside whatever else uses it.

    Parameters
    ----------
    interface : str
    interval_s : float
    tools : Toolbox
    network_devices : Path
        Where sysfs lists network devices.
    """

    name = "modem"
    table = "radio"
    joins = False

    def __init__(self, interface: str, interval_s: float, tools: Toolbox, network_devices: Path = NETWORK_DEVICES) -> None:
        self.interval_s = interval_s
        self._interface = interface
        self._tools = tools
        self._network_devices = network_devices
        self._device = ""

    def open(self) -> dict[str, Any]:
        """Find the control channel, and ask once."""
        folder = self._network_devices / self._interface
        channels = sorted(channel.name for pattern in CONTROL_PATTERNS for channel in folder.glob(pattern))
        if not channels:
            raise HostError(f"{self._interface} has no control channel that speaks QMI")
        self._device = f"/dev/{channels[0]}"
        self._ask("--nas-get-signal-info")
        return {"reads": f"qmicli {self._device}"}

    def state(self) -> dict[str, str | None]:
        """Whether the opened modem has a card (`card`, and its `application`) and is registered (`registration`).

        Each in qmicli's own word; None where it says none.
        """
        card, serving = self._ask("--uim-get-card-status"), self._ask("--nas-get-serving-system")
        return {
            "card": _word(card, "Card state"),
            "application": _word(card, "Application state"),
            "registration": _word(serving, "Registration state"),
        }

    def read(self) -> list[Row]:
        """One row for each technology that has a signal."""
        rows = parse_signal(self._ask("--nas-get-signal-info"))
        cells = parse_cells(self._ask("--nas-get-cell-location-info"))
        return [{"interface": self._interface} | row | cells.get(row["technology"], {}) for row in rows]

    def close(self) -> dict[str, Any]:
        """Nothing was changed."""
        return {}

    def _ask(self, request: str) -> str:
        """Ask through the proxy, which lets several programs use the channel."""
        return self._tools.ask("qmicli", "-d", self._device, "--device-open-proxy", request)


def parse_signal(text: str) -> list[Row]:
    """Rows of the technologies in the answer to ``--nas-get-signal-info``.

    Raises
    ------
    TestbedError
        The answer is of another kind.
    """
    if "Successfully got signal info" not in text:
        raise TestbedError(f"qmicli: answered with {text.strip()[:80]!r}, which is no signal info")
    rows = []
    for title, lines in _sections(text).items():
        if title in SIGNAL_SECTIONS:
            figures = {column: _figure(lines.get(key)) for key, column in COLUMNS.items()}
            rows.append({"technology": SIGNAL_SECTIONS[title]} | figures)
    return rows


def parse_cells(text: str) -> dict[str, Row]:
    """The serving cell of each technology in the answer to ``--nas-get-cell-location-info``."""
    sections = _sections(text)
    cells: dict[str, Row] = {}
    for title, technology in CELL_SECTIONS.items():
        lines = sections.get(title)
        if lines is not None:
            identity = _count(lines.get("Global Cell ID"))
            cells[technology] = {
                "channel": _count(lines.get("EUTRA Absolute RF Channel Number")),
                "cell": None if identity is None else f"{identity:x}",
                "physical_cell": _count(lines.get("Serving Cell ID") or lines.get("Physical Cell ID")),
            }
    arfcn = re.search(r"^5GNR ARFCN: '(\d+)'", text, re.MULTILINE)
    if arfcn is not None:
        cells.setdefault("5g", {})["channel"] = int(arfcn[1])
    return cells


def _sections(text: str) -> dict[str, dict[str, str]]:
    """Lines ``key: 'value'`` directly below each title that stands at the margin."""
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith((" ", "\t")):
            current = sections.setdefault(line.strip().removesuffix(":"), {})
        elif match := re.fullmatch(r"\t([^:\t]+): '([^']*)'.*", line):
            current.setdefault(match[1].strip(), match[2])
    return sections


def _word(text: str, key: str) -> str | None:
    """The first word of ``Card state: 'present'``; of ``'error: no-atr-received (3)'`` all of it."""
    match = re.search(rf"^\s*{key}:\s*'([^']*)'", text, re.MULTILINE)
    return match[1] if match else None


def _figure(text: str | None) -> float | None:
    """The number of ``-86 dBm``; None for ``n/a``."""
    match = re.match(r"-?\d+(?:\.\d+)?", text or "")
    return float(match[0]) if match else None


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
