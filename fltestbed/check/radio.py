"""WiFi and modem of an interface: associated, registered, strong enough, awake."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fltestbed.check.finding import NotHere, Said, error, ok, warning
from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.__main__ import WIRELESS_DEVICES
from fltestbed.measure.probes.modem import ModemProbe
from fltestbed.measure.probes.qmi import QmiProbe
from fltestbed.measure.probes.tools import Toolbox

WEAK_WIFI_DBM = -75.0
WEAK_RSRP_DBM = -110.0
"""Near the edge of a cell."""
FIRST_LOOK_S = 2.0
ON_AIR = ("registered", "connected", "connecting", "disconnecting")
"""States of ModemManager in which a modem is registered with a network."""


def check_wifi(interface: str, devices: Path = WIRELESS_DEVICES) -> Iterator[Said]:
    """Association, channel, signal and power save, from the kernel by nl80211."""
    if not devices.is_dir() or not any(devices.iterdir()):
        yield NotHere(f"wifi of {interface}", "this host has no wireless device")
        return
    from fltestbed.measure.probes.wifi import WifiProbe  # noqa: PLC0415  # imports much of pyroute2

    probe = WifiProbe(interface, 1.0)
    try:
        probe.open()
        (row,) = probe.read()
    except HostError as problem:
        yield NotHere(f"wifi of {interface}", str(problem))
    except TestbedError as problem:
        yield warning(f"wifi of {interface}", str(problem), "look with: iw dev")
    else:
        yield from judge_wifi(interface, row)
    finally:
        probe.close()


def judge_wifi(interface: str, row: dict[str, Any]) -> Iterator[Said]:
    """Findings from one reading of `WifiProbe`."""
    check = f"wifi of {interface}"
    if row.get("cell") is None:
        yield error(check, "not associated with an access point", f"look with: iw dev {interface} scan; nmcli device wifi")
        return
    signal_dbm, rate_bps = row.get("rssi_dbm"), row.get("tx_bit_rate_bps")
    said = [f"channel {row.get('channel')}", f"{row.get('channel_width_mhz')} MHz wide"]
    said += [f"{signal_dbm:g} dBm"] if signal_dbm is not None else []
    said += [f"{rate_bps / 1e6:g} Mbit/s"] if rate_bps else []
    if signal_dbm is not None and signal_dbm < WEAK_WIFI_DBM:
        yield warning(check, ", ".join(said), f"weak: bring it above {WEAK_WIFI_DBM:g} dBm, or expect retransmissions")
    else:
        yield ok(check, ", ".join(said))
    if row.get("power_save"):
        yield warning(
            f"{check}: power save", "on: the radio sleeps between beacons, and each first packet waits",
            f"iw dev {interface} set power_save off",
        )  # fmt: skip
    elif row.get("power_save") is not None:
        yield ok(f"{check}: power save", "off")


def check_modem(interface: str, tools: Toolbox) -> Iterator[Said]:
    """SIM, registration and signal, by ModemManager or, without it, qmicli."""
    try:
        if shutil.which("mmcli"):
            probe = ModemProbe(interface, 1.0, tools)
            yield from judge_state(interface, probe.state())
            yield from _read_signal(interface, probe)
        else:
            qmi = QmiProbe(interface, 1.0, tools)
            qmi.open()
            yield from judge_qmi(interface, qmi.state())
            yield from _read_signal(interface, qmi)
    except HostError as problem:
        yield NotHere(f"modem of {interface}", str(problem))
    except TestbedError as problem:
        yield error(f"modem of {interface}", str(problem), "look with: mmcli -m any; journalctl -u ModemManager")


def judge_state(interface: str, generic: dict[str, Any]) -> Iterator[Said]:
    """Findings from the object `generic` of ``mmcli -J -m MODEM``."""
    state, sim = generic.get("state"), generic.get("sim", "--")
    reason, locked = generic.get("state-failed-reason", "--"), generic.get("unlock-required", "--")
    if reason in ("sim-missing", "sim-error", "sim-wrong") or (state != "failed" and sim == "--"):
        yield error(
            f"sim of {interface}",
            "missing" if reason == "--" else reason,
            "put in a SIM that the core network knows; then: mmcli -m any --reset",
        )
    elif locked not in ("--", "none", "sim-pin2", "sim-puk2"):  # the second ones guard nothing that is needed here
        yield error(f"sim of {interface}", f"locked: {locked}", "unlock it: mmcli -i any --pin=PIN, or switch the PIN off")
    else:
        yield ok(f"sim of {interface}", "ready")
    technologies = ", ".join(generic.get("access-technologies", [])) or "no technology"
    if state in ON_AIR:
        yield ok(f"modem of {interface}", f"{state} ({technologies})")
    else:
        advice = "mmcli -m any --simple-connect=apn=APN; is the gNB on the air, and the subscriber in the core?"
        yield error(f"modem of {interface}", f"not registered: {state}" + ("" if reason == "--" else f" ({reason})"), advice)


def judge_qmi(interface: str, state: dict[str, str | None]) -> Iterator[Said]:
    """Findings from `QmiProbe.state`."""
    card, application, registration = state["card"], state["application"], state["registration"]
    if card != "present":
        yield error(f"sim of {interface}", f"card: {card or 'unknown'}", "put in a SIM that the core network knows")
    elif application != "ready":
        yield error(f"sim of {interface}", f"locked: {application}", "unlock it: qmicli --uim-verify-pin=PIN1,PIN")
    else:
        yield ok(f"sim of {interface}", "ready")
    if registration == "registered":
        yield ok(f"modem of {interface}", "registered")
    else:
        advice = "is the gNB on the air, and the subscriber in the core?"
        yield error(f"modem of {interface}", registration or "the modem does not say whether it is registered", advice)


def judge_signal(interface: str, rows: list[dict[str, Any]]) -> Said:
    """A finding from one reading of `ModemProbe` or `QmiProbe`."""
    if not rows:
        return error(f"signal of {interface}", "none", "is the gNB on the air, and on a band of this modem?")
    said = "; ".join(
        f"{row['technology']}: " + ", ".join(
            f"{name.rpartition('_')[0].upper()} {row[name]:g} {unit}"
            for name, unit in (("rsrp_dbm", "dBm"), ("rsrq_db", "dB"), ("sinr_db", "dB")) if row.get(name) is not None
        )
        for row in rows
    )  # fmt: skip
    strongest = max((row["rsrp_dbm"] for row in rows if row.get("rsrp_dbm") is not None), default=None)
    if strongest is not None and strongest < WEAK_RSRP_DBM:
        return warning(
            f"signal of {interface}", said, f"weak: bring RSRP above {WEAK_RSRP_DBM:g} dBm, or measure the edge of a cell"
        )
    return ok(f"signal of {interface}", said)


def _read_signal(interface: str, probe: ModemProbe | QmiProbe) -> Iterator[Said]:
    probe.open()
    try:
        rows = probe.read()
        if not rows:  # the modem may have been told just now to look
            time.sleep(FIRST_LOOK_S)
            rows = probe.read()
        yield judge_signal(interface, rows)
    finally:
        probe.close()
