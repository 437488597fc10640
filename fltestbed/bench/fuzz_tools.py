"""What a host's own programs and a gNB's log say, as functions of bytes that raise for a bug alone.

Names of networks and cells, an iperf3 server's answer and a modem's identity come from outside; and a program may be another
version, or cut short.
"""

from collections.abc import Callable
from contextlib import suppress

from fltestbed.check.baseline import parse_iperf3, parse_ping
from fltestbed.errors import TestbedError
from fltestbed.measure.probes.gnb_report import GnbReports
from fltestbed.measure.probes.modem import parse_cell_info, parse_signal_get
from fltestbed.measure.probes.qmi import parse_cells, parse_signal
from fltestbed.measure.probes.throttling import parse_flags
from fltestbed.measure.probes.time_sync import parse_chrony, parse_ptp4l, parse_timesyncd

READERS: tuple[Callable[[str], object], ...] = (
    parse_chrony, parse_timesyncd, parse_ptp4l, parse_signal_get, parse_cell_info, parse_signal, parse_cells, parse_flags,
    parse_ping, parse_iperf3,
)  # fmt: skip


def read_tools(data: bytes) -> None:
    """What a program has written, whichever it was."""
    text = data.decode(errors="replace")
    for read in READERS:
        with suppress(TestbedError):
            read(text)


def read_gnb(data: bytes) -> None:
    """The lines of a gNB's log."""
    reports = GnbReports()
    for line in data.decode(errors="replace").split("\n"):
        for _ in reports.take(line):
            pass


def answers() -> list[bytes]:
    """What each program writes when all goes well."""
    said = (
        "C0A80001,192.168.0.1,2,1769860800.0,0.000012,-0.000003,0.00002,-3.5,0.01,0.2,0.0012,0.0003,64.2,Normal",
        "       Server: 10.0.0.1 (host)\nPoll interval: 1min 4s\n      Stratum: 3\nRoot distance: 12.5ms (max: 5s)\n"
        "       Offset: -371us\n        Delay: 1.2ms\n    Frequency: -3.500ppm",
        "sending: GET TIME_STATUS_NP\n\tmaster_offset              -12\n\tgmPresent                  true\n"
        "\tgmIdentity                 001122.fffe.334455",
        '{"modem":{"signal":{"refresh":{"rate":"5"},"5g":{"rsrp":"-86.00","rsrq":"-10,5","snr":"--"},"lte":{"rssi":"-60"}}}}',
        '{"modem":{"generic":{"cell-info":["cell type: lte, serving: yes, tac: 003001, ci: 0CB2A01, physical ci: 6A, '
        'earfcn: 1300"]}}}',
        "[/dev/cdc-wdm0] Successfully got signal info\nLTE:\n\tRSSI: '-60 dBm'\n\tRSRQ: '-10 dB'\n5G:\n\tRSRP: '-86 dBm'\n",
        "Intrafrequency LTE Info\n\tGlobal Cell ID: '13314561'\n\tServing Cell ID: '106'\n5GNR ARFCN: '641280'",
        "throttled=0x50005",
        "20 packets transmitted, 20 received, 0% packet loss, time 38ms\nrtt min/avg/max/mdev = 0.031/0.046/0.084/0.011 ms",
        '{"end":{"sum_sent":{"retransmits":0},"sum_received":{"bits_per_second":1e9},"sender_tcp_congestion":"cubic"}}',
        '{"error":"the server is busy running a test. try again later"}',
    )
    return [text.encode() for text in said]


def log_lines() -> list[bytes]:
    """A report of OpenAirInterface's and one of srsRAN's."""
    oai = (
        "[NR_MAC] I TDD period configuration: slot 0 is DOWNLINK\n128.000001 [NR_MAC] I Frame.Slot 128.0\n"
        "UE RNTI 2460 CU-UE-ID 2 in-sync PH 28 dB PCMAX 24 dBm, average RSRP -74 (8 meas)\n"
        "UE 2460: CQI 15, RI 2, PMI (14,1)\n"
        "UE 2460: dlsch_rounds 32917/5113/1504/560, dlsch_errors 211, pucch0_DTX 1385, BLER 0.19557 MCS (1) 23\n"
        "UE 2460: ulsch_rounds 3756/353/182/179, ulsch_errors 170, BLER 0.33021 MCS (1) 27 NPRB 5  SNR 31.0 dB\n"
        "UE 2460: MAC:    TX     1530943191 RX         194148 bytes\n"
    )
    srsran = (
        "2026-01-31T12:00:00.000000 [METRICS ] Scheduler cell pci=1 metrics: nof_dl_slots=1400 nof_ul_slots=400\n"
        "2026-01-31T12:00:00.000012 [METRICS ] Scheduler UE ue=0 pci=1 rnti=0x4601 metrics: cqi=15 dl_mcs=26 dl_nof_ok=9 "
        "dl_brate=1.2M last_phr=28 pusch_snr_db=31.0 dl_nof_prbs=900\n"
    )
    return [oai.encode(), oai.encode() * 2, srsran.encode()]
