"""A modem through mmcli.

Its answers were recorded from mmcli 1.20.4 (Debian 12) in front of a D-Bus object with the properties that ModemManager
documents.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.modem import ModemProbe, serving_cells, signal_rows
from fltestbed.measure.probes.tools import Toolbox
from tests.measure.probes.conftest import Install

MODEM = "/org/freedesktop/ModemManager1/Modem/0"
LIST = f'{{"modem-list":["{MODEM}"]}}'
DESCRIPTION = (
    '{"modem":{"dbus-path":"/org/freedesktop/ModemManager1/Modem/0","generic":{"access-technologies":["lte","5gnr"],'
    '"manufacturer":"Quectel","model":"RM500Q-GL","ports":["cdc-wdm0 (qmi)","ttyUSB2 (at)","wwan0 (net)"],'
    '"primary-port":"cdc-wdm0","revision":"RM500QGLABR11A02M4G","state":"connected"}}}'
)
SIGNAL = (
    '{"modem":{"signal":{"5g":{"error-rate":"--","rsrp":"-87.00","rsrq":"-10.50","snr":"23.50"},'
    '"cdma1x":{"ecio":"--","error-rate":"--","rssi":"--"},'
    '"evdo":{"ecio":"--","error-rate":"--","io":"--","rssi":"--","sinr":"--"},'
    '"gsm":{"error-rate":"--","rssi":"--"},'
    '"lte":{"error-rate":"--","rsrp":"-92.00","rsrq":"-11.00","rssi":"-61.00","snr":"12.40"},'
    '"refresh":{"rate":"RATE"},"threshold":{"error-rate":"no","rssi":"0"},'
    '"umts":{"ecio":"--","error-rate":"--","rscp":"--","rssi":"--"}}}}'
)
CELLS = (
    '{"modem":{"generic":{"cell-info":['
    '"cell type: lte, serving: no, physical ci: 12, earfcn: 1300, rsrp: -102.000000, rsrq: -15.000000",'
    '"cell type: lte, serving: yes, operator id: 00101, tac: 003001, ci: 0CB2A01, physical ci: 6A, earfcn: 1300, '
    'rsrp: -92.000000, rsrq: -11.000000",'
    '"cell type: 5gnr, serving: yes, operator id: 00101, tac: 000001, ci: 00E000101, physical ci: 2A, nrarfcn: 627360, '
    'rsrp: -87.000000, rsrq: -10.500000, sinr: 23.500000"]}}}'
)
NR = {
    "interface": "wwan0", "technology": "5g", "rsrp_dbm": -87.0, "rsrq_db": -10.5, "sinr_db": 23.5, "rssi_dbm": None,
    "channel": 627360, "cell": "00e000101", "physical_cell": 0x2A,
}  # fmt: skip
LTE = {
    "interface": "wwan0", "technology": "lte", "rsrp_dbm": -92.0, "rsrq_db": -11.0, "sinr_db": 12.4, "rssi_dbm": -61.0,
    "channel": 1300, "cell": "0cb2a01", "physical_cell": 0x6A,
}  # fmt: skip


def mmcli(install: Install, rate_s: int = 0, cells: str = CELLS) -> Path:
    """Install an mmcli that keeps the refresh rate in a file, which is returned."""
    rate = Path(install("mmcli", "").parent / "rate")
    rate.write_text(str(rate_s))
    before, after = SIGNAL.split("RATE")
    install(
        "mmcli",
        f"""case "$*" in
        "-J -L") echo '{LIST}';;
        "-J -m {MODEM}") echo '{DESCRIPTION}';;
        "-J -m {MODEM} --signal-get") echo '{before}'$(cat {rate})'{after}';;
        "-m {MODEM} --signal-setup="*) echo "${{3#--signal-setup=}}" >{rate}
            echo "Successfully setup signal quality information polling";;
        "-J -m {MODEM} --get-cell-info") {f"echo '{cells}'" if cells else "echo 'error: unsupported' >&2; exit 1"};;
        *) echo "error: couldn't find modem" >&2; exit 1;;
        esac""",
    )
    return rate


def test_a_modem_on_5g_gives_a_row_for_each_technology(install: Install, tools: Toolbox) -> None:
    """Signal of both, each with the channel and identities of its own serving cell."""
    mmcli(install)
    probe = ModemProbe("wwan0", 1.0, tools)
    assert probe.open() == {
        "reads": "ModemManager", "modem": "Quectel RM500Q-GL", "firmware": "RM500QGLABR11A02M4G", "former_refresh_s": 0,
    }  # fmt: skip
    assert probe.read() == [NR, LTE]


@pytest.mark.parametrize(("former_s", "interval_s", "during_s"), [(0, 5.0, 5), (30, 2.4, 2), (1, 5.0, 1), (0, 0.2, 1)])
def test_the_refresh_rate_is_set_and_put_back(
    install: Install, tools: Toolbox, former_s: int, interval_s: float, during_s: int
) -> None:
    """Whole seconds, one at least; a rate that is faster already is left alone."""
    rate = mmcli(install, former_s)
    probe = ModemProbe("wwan0", interval_s, tools)
    probe.open()
    assert int(rate.read_text()) == during_s
    probe.close()
    assert int(rate.read_text()) == former_s


def test_a_modem_that_tells_no_cells_still_tells_its_signal(install: Install, tools: Toolbox) -> None:
    """What is lacking is said once, at the start."""
    mmcli(install, cells="")
    probe = ModemProbe("wwan0", 1.0, tools)
    assert "unsupported" in probe.open()["lacks"]["cell"]
    assert [row.get("channel") for row in probe.read()] == [None, None]


@pytest.mark.parametrize(
    ("interface", "script", "reason"),
    [
        ("wwan0", "echo '{\"modem-list\":[]}'", "ModemManager knows no modem"),
        ("wlan0", None, "wlan0 belongs to no modem; interfaces of modems here: wwan0"),
    ],
)
def test_a_host_without_the_modem_is_nothing_to_read(
    install: Install, tools: Toolbox, interface: str, script: str | None, reason: str
) -> None:
    """No modem, or another interface's."""
    mmcli(install)
    if script:
        install("mmcli", script)
    with pytest.raises(HostError, match=reason):
        ModemProbe(interface, 1.0, tools).open()


@pytest.mark.parametrize("answer", ["garbage", "", '{"modem":{"signal":{"refresh":{"rate":"--"}}}}', "[1]"])
def test_garbage_is_refused(install: Install, tools: Toolbox, answer: str) -> None:
    """An answer that is not JSON, or has no rate to put back, is a failure."""
    mmcli(install)
    probe = ModemProbe("wwan0", 1.0, tools)
    install("mmcli", f"case \"$*\" in *-L) echo '{LIST}';; *--signal-get) echo '{answer}';; *) echo '{DESCRIPTION}';; esac")
    with pytest.raises(TestbedError, match="mmcli"):
        probe.open()


def test_a_vanished_modem_is_a_failed_reading(install: Install, tools: Toolbox) -> None:
    """It says what mmcli says."""
    mmcli(install)
    probe = ModemProbe("wwan0", 1.0, tools)
    probe.open()
    install("mmcli", 'echo "error: couldn\'t find modem" >&2; exit 1')
    with pytest.raises(TestbedError, match="couldn't find modem"):
        probe.read()


def test_figures_that_are_not_there_stay_empty() -> None:
    """`--` is none, a comma is a point, and a technology without a figure has no row."""
    signal: dict[str, Any] = json.loads(SIGNAL.replace("RATE", "10"))["modem"]["signal"]
    signal["5g"] = dict.fromkeys(signal["5g"], "--")
    signal["lte"] |= {"rsrp": "-67,00", "rsrq": "--"}
    (row,) = signal_rows(signal)
    assert row == {"technology": "lte", "rsrp_dbm": -67.0, "rsrq_db": None, "sinr_db": 12.4, "rssi_dbm": -61.0}
    assert signal_rows({}) == signal_rows({"lte": "--"}) == []


def test_only_serving_cells_count() -> None:
    """A neighbour is not where the modem is; a line of another kind is passed over."""
    assert (
        serving_cells(["cell type: lte, serving: no, ci: 1, earfcn: 1300", "nonsense", "cell type: cdma, serving: yes"])
        == {}
    )
    assert serving_cells(["cell type: lte, serving: yes, earfcn: n/a"]) == {
        "lte": {"channel": None, "cell": None, "physical_cell": None}
    }
