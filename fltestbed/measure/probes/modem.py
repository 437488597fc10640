"""Signal, channel and cell of a modem that ModemManager looks after, by `mmcli`.

ModemManager reads the signal only while a refresh rate is set. The probe sets one, and puts the former rate back at the end.
Its figures are therefore as old as one refresh at most. Units are ModemManager's: RSSI and RSRP in dBm, RSRQ and SNR in dB.
"""

import json
import re
from typing import Any

from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.probe import Row
from fltestbed.measure.probes.tools import Toolbox

TECHNOLOGIES = {"5g": "5g", "lte": "lte", "umts": "umts", "gsm": "gsm"}
"""Name of a technology in ``mmcli --signal-get`` and in radio.csv."""

CELL_TYPES = {"5gnr": "5g", "lte": "lte", "umts": "umts", "gsm": "gsm"}
"""The same in ``mmcli --get-cell-info``."""

COLUMNS = {"rsrp": "rsrp_dbm", "rsrq": "rsrq_db", "snr": "sinr_db", "rssi": "rssi_dbm"}


class ModemProbe:
    """Reads the modem that an interface belongs to.

    Parameters
    ----------
    interface : str
    interval_s : float
        Also the refresh rate that is set, in whole seconds, one at least.
    tools : Toolbox
    """

    name = "modem"
    table = "radio"
    joins = False

    def __init__(self, interface: str, interval_s: float, tools: Toolbox) -> None:
        self.interval_s = interval_s
        self._interface = interface
        self._tools = tools
        self._modem = ""
        self._former_rate_s: int | None = None
        self._tells_cells = False

    def state(self) -> dict[str, Any]:
        """What ModemManager says of the interface's modem beside its signal: the object `generic` of ``mmcli -J -m``."""
        modems = self._modems()
        if not modems:
            raise HostError("ModemManager knows no modem")
        return self._find(modems)[1]

    def open(self) -> dict[str, Any]:
        """Find the interface's modem and switch its signal figures on."""
        modems = self._modems()
        if not modems:
            raise HostError("ModemManager knows no modem")
        self._modem, generic = self._find(modems)
        former_s = _rate_s(self._signal())
        rate_s = max(1, round(self.interval_s))
        if former_s == 0 or former_s > rate_s:
            self._set_rate(rate_s)
            self._former_rate_s = former_s
        facts: dict[str, Any] = {
            "reads": "ModemManager", "modem": f"{generic.get('manufacturer')} {generic.get('model')}",
            "firmware": str(generic.get("revision")), "former_refresh_s": former_s,
        }  # fmt: skip
        try:
            self._cells()
            self._tells_cells = True
        except TestbedError as error:  # an optional request, which many modems refuse
            facts["lacks"] = {"cell": str(error)}
        return facts

    def read(self) -> list[Row]:
        """One row for each technology that has a signal."""
        rows = signal_rows(self._signal())
        cells = self._cells() if self._tells_cells else {}
        return [{"interface": self._interface} | row | cells.get(row["technology"], {}) for row in rows]

    def close(self) -> dict[str, Any]:
        """Put the refresh rate back."""
        if self._former_rate_s is not None:
            self._set_rate(self._former_rate_s)
        return {}

    def _modems(self) -> list[str]:
        listed = _json(self._tools.ask("mmcli", "-J", "-L")).get("modem-list", [])
        return [path for path in listed if isinstance(path, str)]

    def _find(self, modems: list[str]) -> tuple[str, dict[str, Any]]:
        """The modem that has the interface among its ports, and its description."""
        ports = []
        for path in modems:
            generic = _at(_json(self._tools.ask("mmcli", "-J", "-m", path)), "modem", "generic")
            if f"{self._interface} (net)" in generic.get("ports", []):
                return path, generic
            ports += [port.removesuffix(" (net)") for port in generic.get("ports", []) if port.endswith(" (net)")]
        raise HostError(f"{self._interface} belongs to no modem; interfaces of modems here: {', '.join(ports) or 'none'}")

    def _signal(self) -> dict[str, Any]:
        return _at(_json(self._tools.ask("mmcli", "-J", "-m", self._modem, "--signal-get")), "modem", "signal")

    def _set_rate(self, rate_s: int) -> None:
        self._tools.ask("mmcli", "-m", self._modem, f"--signal-setup={rate_s}")

    def _cells(self) -> dict[str, Row]:
        """What is known of the serving cell of each technology."""
        return parse_cell_info(self._tools.ask("mmcli", "-J", "-m", self._modem, "--get-cell-info"))


def parse_cell_info(text: str) -> dict[str, Row]:
    """The serving cell of each technology in the answer to ``mmcli -J --get-cell-info``.

    Raises
    ------
    TestbedError
        The answer is no JSON.
    """
    lines = _at(_json(text), "modem", "generic").get("cell-info")
    return serving_cells([line for line in lines if isinstance(line, str)] if isinstance(lines, list) else [])


def parse_signal_get(text: str) -> list[Row]:
    """Rows of the technologies in the answer to ``mmcli -J --signal-get``.

    Raises
    ------
    TestbedError
        The answer is no JSON.
    """
    return signal_rows(_at(_json(text), "modem", "signal"))


def signal_rows(signal: dict[str, Any]) -> list[Row]:
    """Rows of the technologies for which ``mmcli -J --signal-get`` has a figure; `--` stands for none."""
    rows = []
    for name, technology in TECHNOLOGIES.items():
        figures = {column: _number(_at(signal, name).get(key)) for key, column in COLUMNS.items()}
        if any(figure is not None for figure in figures.values()):
            rows.append({"technology": technology} | figures)
    return rows


def serving_cells(lines: list[str]) -> dict[str, Row]:
    """The serving cell of each technology, from the lines of ``mmcli -J --get-cell-info``.

    Such a line is ``cell type: lte, serving: yes, tac: 003001, ci: 0CB2A01, physical ci: 6A, earfcn: 1300``; identities are
    hexadecimal, channels decimal.
    """
    cells: dict[str, Row] = {}
    for line in lines:
        facts = dict(re.findall(r"([\w ]+): ([^,]*)", line))
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        technology = CELL_TYPES.get(facts.get("cell type", ""))
        if technology is None or facts.get("serving") != "yes":
            continue
        channel = facts.get("nrarfcn") or facts.get("earfcn") or facts.get("uarfcn") or facts.get("arfcn")
        physical = facts.get("physical ci")
        cells[technology] = {
            "channel": int(channel) if channel and channel.isdigit() else None,
            "cell": facts.get("ci", "").lower() or None,
            "physical_cell": int(physical, 16) if physical and re.fullmatch("[0-9A-Fa-f]+", physical) else None,
        }
    return cells


def _json(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TestbedError(f"mmcli: answered with {text.strip()[:80]!r}, which is not JSON") from error
    return answer if isinstance(answer, dict) else {}


def _at(answer: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The object below these keys; an empty one where there is none."""
    inner: Any = answer
    for key in keys:
        inner = inner.get(key) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else {}


def _number(text: object) -> float | None:
    """A figure of mmcli; some versions write it with the locale's comma."""
    try:
        return float(str(text).replace(",", "."))
    except ValueError:
        return None


def _rate_s(signal: dict[str, Any]) -> int:
    text = str(_at(signal, "refresh").get("rate"))
    if not text.isdigit():
        raise TestbedError(f"mmcli --signal-get: the refresh rate is {text[:40]!r}, not a number of seconds")
    return int(text)
