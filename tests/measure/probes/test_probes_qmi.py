"""A modem through qmicli, with answers as public reports of real modems show them."""

from pathlib import Path

import pytest

from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.qmi import QmiProbe, parse_cells, parse_signal
from fltestbed.measure.probes.tools import Toolbox
from tests.measure.probes.conftest import Install

SIGNAL = """[/dev/cdc-wdm0] Successfully got signal info
LTE:
\tRSSI: '-70 dBm'
\tRSRQ: '-12 dB'
\tRSRP: '-97 dBm'
\tSNR: '9.6 dB'
5G:
\tRSRP: '-74 dBm'
\tSNR: '16.5 dB'
\tRSRQ: '-11 dB'
"""
CELLS = """[/dev/cdc-wdm0] Successfully got cell location info
Intrafrequency LTE Info
\tUE In Idle: 'yes'
\tPLMN: '23415'
\tTracking Area Code: '12299'
\tGlobal Cell ID: '3697446'
\tEUTRA Absolute RF Channel Number: '2850' (E-UTRA band 7: 2600)
\tServing Cell ID: '177'
\tCell [0]:
\t\tPhysical Cell ID: '295'
\t\tRSRQ: '-11.6' dB
Interfrequency LTE Info
\tUE In Idle: 'yes'
\tFrequency [0]:
\t\tEUTRA Absolute RF Channel Number: '223' (E-UTRA band 1: 2100)
LTE Timing Advance: '1' us
5GNR ARFCN: '627360'
5GNR cell information
\tPLMN: '00101'
\tTracking Area Code: '1'
\tGlobal Cell ID: '14680321'
\tPhysical Cell ID: '42'
\tRSRQ: '-11.0 dB'
"""
LTE = {
    "technology": "lte", "rsrp_dbm": -97.0, "rsrq_db": -12.0, "sinr_db": 9.6, "rssi_dbm": -70.0,
    "channel": 2850, "cell": "386b26", "physical_cell": 177,
}  # fmt: skip
NR = {
    "technology": "5g", "rsrp_dbm": -74.0, "rsrq_db": -11.0, "sinr_db": 16.5, "rssi_dbm": None,
    "channel": 627360, "cell": "e00101", "physical_cell": 42,
}  # fmt: skip


def test_signal_and_cells_are_read_through_the_proxy(tmp_path: Path, install: Install, tools: Toolbox) -> None:
    """The control channel is found below the network device; 3697446 is 386b26 in hexadecimal."""
    (tmp_path / "wwan0/device/usbmisc/cdc-wdm1").mkdir(parents=True)
    install(
        "qmicli",
        f"""case "$*" in
        "-d /dev/cdc-wdm1 --device-open-proxy --nas-get-signal-info") cat <<E\n{SIGNAL}E\n;;
        "-d /dev/cdc-wdm1 --device-open-proxy --nas-get-cell-location-info") cat <<E\n{CELLS}E\n;;
        *) exit 1;; esac""",
    )
    probe = QmiProbe("wwan0", 5.0, tools, tmp_path)
    assert probe.open() == {"reads": "qmicli /dev/cdc-wdm1"}
    assert probe.read() == [{"interface": "wwan0"} | LTE, {"interface": "wwan0"} | NR]


def test_figures_that_are_not_there_stay_empty() -> None:
    """For a 5G figure that the modem does not have, qmicli writes n/a."""
    (row,) = parse_signal("[/dev/cdc-wdm0] Successfully got signal info\n5G:\n\tRSRP: '-98 dBm'\n\tSNR: 'n/a'\n")
    assert row == {"technology": "5g", "rsrp_dbm": -98.0, "rsrq_db": None, "sinr_db": None, "rssi_dbm": None}
    assert parse_cells("[/dev/cdc-wdm0] Successfully got cell location info\n") == {}
    assert parse_signal("[/dev/cdc-wdm0] Successfully got signal info\n") == []


def test_another_answer_is_refused() -> None:
    """An error of the modem is not mistaken for silence of the radio."""
    with pytest.raises(TestbedError, match="is no signal info"):
        parse_signal("error: couldn't get signal info: QMI protocol error (74): 'InformationUnavailable'")


def test_an_interface_without_a_control_channel_is_nothing_to_read(tmp_path: Path, tools: Toolbox) -> None:
    """An Ethernet port."""
    (tmp_path / "eth0/device").mkdir(parents=True)
    with pytest.raises(HostError, match="eth0 has no control channel that speaks QMI"):
        QmiProbe("eth0", 5.0, tools, tmp_path).open()


def test_a_modem_without_qmicli_is_nothing_to_read(tmp_path: Path, install: Install, tools: Toolbox) -> None:
    """The reason is the missing program."""
    (tmp_path / "wwan0/device/wwan/wwan0/wwan0qmi0").mkdir(parents=True)
    with pytest.raises(HostError, match="qmicli is not installed"):
        QmiProbe("wwan0", 5.0, tools, tmp_path).open()
