"""WiFi and modem: from readings by hand, and from what mmcli and qmicli document."""

import json
from pathlib import Path
from typing import Any

import pytest

from fltestbed.check.finding import NotHere
from fltestbed.check.radio import check_modem, check_wifi, judge_qmi, judge_signal, judge_state, judge_wifi
from fltestbed.measure.probes.qmi import QmiProbe
from fltestbed.measure.probes.tools import Toolbox
from tests.check.findings import lines, only
from tests.measure.probes.conftest import Install

ASSOCIATED = {
    "cell": "02:00:00:00:00:01", "rssi_dbm": -52.0, "tx_bit_rate_bps": 866.7e6, "channel": 36, "channel_width_mhz": 80,
    "power_save": False,
}  # fmt: skip
CONNECTED = {
    "state": "connected", "state-failed-reason": "--", "sim": "/org/freedesktop/ModemManager1/SIM/0",
    "unlock-required": "sim-pin2", "access-technologies": ["5gnr"],
}  # fmt: skip
NR = {"technology": "5g", "rsrp_dbm": -87.0, "rsrq_db": -10.5, "sinr_db": 23.5}
CARD = """[/dev/cdc-wdm0] Successfully got card status
Provisioning applications:
\tPrimary GW:   slot '1', application '1'
Slot [1]:
\tCard state: '{card}'
\tUPIN state: 'not-initialized'
\tApplication [1]:
\t\tApplication type:  'usim (2)'
\t\tApplication state: '{application}'
"""
SERVING = """[/dev/cdc-wdm0] Successfully got serving system:
\tRegistration state: '{registration}'
\tCS: 'detached'
\tPS: 'attached'
\tRadio interfaces: '1'
\t\t[0]: '5gnr'
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [("wifi of wlan0", "ok"), ("wifi of wlan0: power save", "ok")]),
        ({"power_save": True}, [("wifi of wlan0", "ok"), ("wifi of wlan0: power save", "warning")]),
        ({"rssi_dbm": -80.0, "power_save": None}, [("wifi of wlan0", "warning")]),
        ({"cell": None}, [("wifi of wlan0", "error")]),
    ],
)
def test_wifi(change: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """Not associated is an error; weak, or asleep between beacons, a warning."""
    assert lines(judge_wifi("wlan0", ASSOCIATED | change)) == expected


def test_what_is_said_of_wifi() -> None:
    """Channel, width, signal and rate, with units; and how to switch power save off."""
    wifi, power_save = judge_wifi("wlan0", ASSOCIATED | {"power_save": True})
    assert getattr(wifi, "said", "") == "channel 36, 80 MHz wide, -52 dBm, 866.7 Mbit/s"
    assert getattr(power_save, "advice", "") == "iw dev wlan0 set power_save off"


def test_a_host_without_wifi_has_none(tmp_path: Path) -> None:
    """No finding."""
    assert [type(each) for each in check_wifi("eth0", tmp_path / "none")] == [NotHere]


@pytest.mark.parametrize(
    ("change", "sim", "modem"),
    [
        ({}, "ok", "ok"),
        ({"state": "registered"}, "ok", "ok"),
        ({"state": "searching"}, "ok", "error"),
        ({"state": "disabled"}, "ok", "error"),
        ({"state": "failed", "state-failed-reason": "sim-missing", "sim": "--"}, "error", "error"),
        ({"state": "locked", "unlock-required": "sim-pin"}, "error", "error"),
    ],
)
def test_modem_state(change: dict[str, Any], sim: str, modem: str) -> None:
    """ModemManager's states: on the air or not, and whether the SIM is why."""
    assert lines(judge_state("wwan0", CONNECTED | change)) == [("sim of wwan0", sim), ("modem of wwan0", modem)]


def test_signal() -> None:
    """None at all is an error, the edge of a cell a warning."""
    assert only([judge_signal("wwan0", [])]).status == "error"
    fine = only([judge_signal("wwan0", [NR])])
    assert (fine.status, fine.said) == ("ok", "5g: RSRP -87 dBm, RSRQ -10.5 dB, SINR 23.5 dB")
    assert only([judge_signal("wwan0", [NR | {"rsrp_dbm": -115.0}])]).status == "warning"


def test_a_modem_by_mmcli(install: Install, tools: Toolbox) -> None:
    """Found by its interface, asked, and left with the refresh rate that it had; of eth0 there is nothing to say."""
    modem = "/org/freedesktop/ModemManager1/Modem/0"
    generic = CONNECTED | {"ports": ["cdc-wdm0 (qmi)", "wwan0 (net)"], "manufacturer": "Quectel", "model": "RM500Q"}
    signal = {"5g": {"rsrp": "-87.00", "rsrq": "-10.50", "snr": "23.50"}, "refresh": {"rate": "5"}}
    asked = install("mmcli", "").parent / "asked"
    install(
        "mmcli",
        f"""echo "$*" >>{asked}
        case "$*" in
        "-J -L") echo '{json.dumps({"modem-list": [modem]})}';;
        "-J -m {modem}") echo '{json.dumps({"modem": {"generic": generic}})}';;
        "-J -m {modem} --signal-get") echo '{json.dumps({"modem": {"signal": signal}})}';;
        *--signal-setup=*) ;;
        *) echo "error: unsupported" >&2; exit 1;;
        esac""",
    )
    expected = [("sim of wwan0", "ok"), ("modem of wwan0", "ok"), ("signal of wwan0", "ok")]
    assert lines(check_modem("wwan0", tools)) == expected
    setups = [line for line in asked.read_text().splitlines() if "signal-setup" in line]
    assert setups == [f"-m {modem} --signal-setup=1", f"-m {modem} --signal-setup=5"]
    assert lines(check_modem("eth0", tools)) == [("modem of eth0", "not here")]


def test_a_modem_manager_that_fails_is_an_error(install: Install, tools: Toolbox) -> None:
    """With what it said."""
    install("mmcli", "echo 'error: could not connect to the bus' >&2; exit 1")
    found = only(check_modem("wwan0", tools))
    assert (found.status, "could not connect to the bus" in found.said) == ("error", True)


@pytest.mark.parametrize(
    ("card", "application", "registration", "statuses"),
    [
        ("present", "ready", "registered", ["ok", "ok"]),
        ("present", "ready", "not-registered-searching", ["ok", "error"]),
        ("present", "pin1-or-upin-pin-required", "not-registered", ["error", "error"]),
        ("error: no-atr-received (3)", "", "not-registered", ["error", "error"]),
    ],
)
def test_a_modem_by_qmicli(
    install: Install, tools: Toolbox, tmp_path: Path, card: str, application: str, registration: str, statuses: list[str]
) -> None:
    """Card, its application and registration, in qmicli's own words."""
    (tmp_path / "wwan0" / "device" / "usbmisc" / "cdc-wdm0").mkdir(parents=True)
    (tmp_path / "card").write_text(CARD.format(card=card, application=application))
    (tmp_path / "serving").write_text(SERVING.format(registration=registration))
    install(
        "qmicli",
        f"""case "$*" in
        *--uim-get-card-status) cat {tmp_path}/card;;
        *--nas-get-serving-system) cat {tmp_path}/serving;;
        *--nas-get-signal-info) echo "[/dev/cdc-wdm0] Successfully got signal info";;
        esac""",
    )
    probe = QmiProbe("wwan0", 1.0, tools, tmp_path)
    probe.open()
    assert [status for _, status in lines(judge_qmi("wwan0", probe.state()))] == statuses
