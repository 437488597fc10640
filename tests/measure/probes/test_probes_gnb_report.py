"""Lines of a gNB's log, as OpenAirInterface's and srsRAN's documentation and published logs have them."""
# ruff: noqa: E501  # lines as they are logged

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fltestbed.measure.probes.gnb_report import MOST_MODEMS, GnbReports, Stamp
from fltestbed.measure.schema import RADIO_TABLE

DOCUMENTED = """\
[NR_MAC]   Frame.Slot 128.0
UE RNTI 2460 CU-UE-ID 2 in-sync PH 28 dB PCMAX 24 dBm, average RSRP -74 (8 meas)
UE 2460: CQI 15, RI 2, PMI (14,1)
UE 2460: UL-RI 2 TPMI 0
UE 2460: dlsch_rounds 32917/5113/1504/560, dlsch_errors 211, pucch0_DTX 1385, BLER 0.19557 MCS (1) 23
UE 2460: ulsch_rounds 3756/353/182/179, ulsch_errors 170, ulsch_DTX 285, BLER 0.33021 MCS (1) 27 (Qm 8  dB) NPRB 5  SNR 31.0 dB
UE 2460: MAC:    TX     1530943191 RX         194148 bytes
UE 2460: LCID 1: TX            651 RX           3031 bytes
UE 2460: LCID 4: TX     1526169592 RX          16152 bytes
"""
"""OpenAirInterface's own example."""

FIGURES = {
    "interface": "gnb", "technology": "5g", "rnti": "2460", "in_sync": True, "power_headroom_db": 28, "rsrp_dbm": -74.0,
    "cqi": 15, "dl_harq_rounds": "32917/5113/1504/560", "dl_bler": 0.19557, "dl_mcs": 23,
    "ul_harq_rounds": "3756/353/182/179", "ul_bler": 0.33021, "ul_mcs": 27, "ul_prb": 5.0, "pusch_snr_db": 31.0,
}  # fmt: skip

OLD = """\
[NR_MAC]   Frame.Slot 256.0
UE RNTI c652 (1) out-of-sync PH 40 dB PCMAX 21 dBm, average RSRP 0 (0 meas)
UE c652: dlsch_rounds 16/1/1/0, dlsch_errors 0, pucch0_DTX 2, BLER 0.09550 MCS (0) 0
UE c652: ulsch_rounds 54/3/1/0, ulsch_errors 0, ulsch_DTX 2, BLER 0.00591 MCS (0) 0
UE c652: MAC:    TX            414 RX           2604 bytes
"""

NEW = """\
[NR_MAC] I Frame.Slot 384.0
UE RNTI f40a CU-UE-ID 2 in-sync PH 28 dB PCMAX 24 dBm, average RSRP -74 (8 meas), average SINR 40.5 (32 meas)
UE f40a: CSI [CQI 14 RI 2 PMI (14,1)] SRS [UL-RI 2 TPMI 0]
UE f40a: dlsch_rounds 86/0/0/0, dlsch_errors 0, pucch0_DTX 0 (SNR 19.8+0.2 dB) RSSI -44.2, BLER 0.00052 MCS (0) 7 (Qm 8) CCE fail 3
UE f40a: ulsch_rounds 518/0/0/0, ulsch_errors 0, ulsch_DTX 0, BLER 0.00000 MCS (0) 9 (Qm 2 deltaMCS 0 dB) NPRB 5 SNR 5.5 (-1.0) dB CCE fail 0
UE f40a: LCID 1: TX            100 RX           3000 bytes
UE f40a: LCID 4: TX           1000 RX          30000 bytes
"""

SRSRAN = (
    "2026-08-02T14:40:19.021830 [METRICS ] Scheduler cell pci=1 metrics: total_dl_brate=1.28Mbps total_ul_brate=1.35Mbps "
    "nof_prbs=106 nof_dl_slots=1400 nof_ul_slots=400 nof_prach_preambles=0 latency_hist=[0, 12, 3] pucch_tot_rb_usage_avg=2.5",
    "2026-08-02T14:40:19.021842 [METRICS ] Scheduler UE ue=0 pci=1 rnti=0x4601 metrics: cqi=15 dl_ri=1.0 dl_mcs=26 "
    "dl_brate=1.28Mbps dl_nof_ok=318 dl_nof_nok=20 dl_error_rate=5% dl_bs=0 dl_nof_prbs=2800 pusch_snr_db=4.3 "
    "pusch_rsrp_db=ovl ul_ri=1.0 ul_mcs=1 ul_brate= 950bps ul_nof_ok=30 ul_nof_nok=10 ul_error_rate=25% ul_nof_prbs=1000 "
    "bsr=1.2k sr_count=3 ta=-40ns srs_ta=n/a last_phr=2",
)
REPORTS = GnbReports()
"""Goes on from one example to the next, as from one reading to the next."""


def rows_of(text: str, reports: GnbReports | None = None) -> list[tuple[Stamp | None, dict[str, Any]]]:
    """What comes of some lines and the empty one after them; columns without a value left out."""
    reports = reports or GnbReports()
    made = [found for line in [*text.splitlines(), ""] for found in reports.take(line)]
    return [(stamp, {name: value for name, value in row.items() if value is not None}) for stamp, row in made]


def test_the_documented_report() -> None:
    """Each figure in its column; nothing is known of the time before, and the line has no stamp."""
    assert rows_of(DOCUMENTED) == [(None, FIGURES)]


def test_a_report_of_an_older_gnb() -> None:
    """Without resource blocks and SNR; a modem without a measurement has no RSRP, and is out of sync."""
    ((_, row),) = rows_of(OLD)
    assert (row["rnti"], row["in_sync"], row["power_headroom_db"]) == ("c652", False, 40)
    assert (row["dl_mcs"], row["ul_mcs"], row["ul_bler"]) == (0, 0, 0.00591)
    assert row.keys().isdisjoint({"rsrp_dbm", "ul_prb", "pusch_snr_db", "cqi"})


def test_a_report_of_a_newer_gnb() -> None:
    """SINR, the SNR of the control channel that is not the data channel's, and bytes of its channels alone."""
    reports = GnbReports()
    ((_, row),) = rows_of(NEW, reports)
    assert (row["rsrp_dbm"], row["sinr_db"], row["cqi"]) == (-74.0, 40.5, 14)
    assert (row["dl_mcs"], row["dl_bler"], row["ul_mcs"]) == (7, 0.00052, 9)
    assert (row["ul_prb"], row["pusch_snr_db"]) == (5.0, 5.5)


def test_counters_are_told_as_what_came_since_the_report_before() -> None:
    """353 + 182 + 179 = 714 blocks sent again, then 724; 1.28 s later 160,000 bytes more have come: 1 Mbit/s."""
    first = DOCUMENTED.replace("[NR_MAC]   Frame", "1785681600.000000 [NR_MAC] I Frame")
    second = (
        DOCUMENTED.replace("[NR_MAC]   Frame", "1785681601.280000 [NR_MAC] I Frame")
        .replace("3756/353/182/179", "3800/360/184/180")
        .replace("194148 bytes", "354148 bytes")
    )
    (_, (stamp, row)) = rows_of(f"{first}\n{second}")
    assert stamp == Stamp("wall", 1_785_681_601_280_000_000)
    assert (row["ul_retransmissions"], row["dl_retransmissions"]) == (10, 0)
    assert (row["ul_bit_rate_bps"], row["dl_bit_rate_bps"]) == (1_000_000.0, 0.0)


def test_counters_that_began_anew_tell_nothing_for_once() -> None:
    """A modem may get an identity that another had."""
    again = DOCUMENTED.replace("3756/353/182/179", "10/1/0/0")
    (_, (_, row)) = rows_of(f"{DOCUMENTED}\n{again}")
    assert "ul_retransmissions" not in row
    assert row["dl_retransmissions"] == 0


def test_two_modems_in_one_report() -> None:
    """A row each, with the stamp of the report."""
    text = DOCUMENTED.replace("[NR_MAC]", "12.500000 [NR_MAC]") + DOCUMENTED.split("\n", 1)[1].replace("2460", "4601")
    made = rows_of(text)
    assert [(stamp, row["rnti"]) for stamp, row in made] == [
        (Stamp("monotonic", 12_500_000_000), r) for r in ("2460", "4601")
    ]


def test_a_stamp_on_every_line_and_colours() -> None:
    """As `ts` and a terminal have them."""
    stamped = "".join(f"\x1b[0m1745504694.38050{k} {line}\n" for k, line in enumerate(DOCUMENTED.splitlines()))
    ((stamp, row),) = rows_of(stamped)
    assert stamp == Stamp("wall", 1_745_504_694_380_501_000)
    assert row == FIGURES


@pytest.mark.parametrize(("written", "value"), [("0.-5", -0.5), ("-1.-5", -1.5), ("12.5", 12.5)])
def test_a_ratio_below_zero(written: str, value: float) -> None:
    """C divides by ten towards zero, and the rest has a sign of its own."""
    ((_, row),) = rows_of(DOCUMENTED.replace("SNR 31.0", f"SNR {written}"))
    assert row["pusch_snr_db"] == value


def test_lines_of_others_end_a_report_and_change_nothing() -> None:
    """What other parts of the gNB log, also of a modem, is no figure of a report."""
    other = "[NR_MAC]   UE 2460: Received Ack of Msg4. CQI 3\n[RLC]   max RETX reached on SRB 1\n"
    assert rows_of(other + DOCUMENTED + other) == [(None, FIGURES)]


def test_the_tdd_pattern() -> None:
    """A letter a slot, from the lines with which the gNB starts; each row has it from then on."""
    slots = ["DOWNLINK"] * 7 + ["FLEXIBLE: DDDDDDFFFFUUUU"] + ["UPLINK"] * 2
    start = "".join(f"[NR_PHY]   TDD period configuration: slot {k} is {kind}\n" for k, kind in enumerate(slots))
    reports = GnbReports()
    ((_, row),) = rows_of(start + start + DOCUMENTED, reports)
    assert reports.tdd_pattern == row["tdd_pattern"] == "DDDDDDDSUU"


def test_srsran_metrics() -> None:
    """20 of 338 and 10 of 40 blocks failed; 2800 blocks in 1400 slots are 2 a slot, 1000 in 400 are 2.5."""
    ((stamp, row),) = rows_of("\n".join(SRSRAN))
    assert stamp == Stamp("wall", 1_785_681_619_021_842_000)
    assert row == {
        "interface": "gnb", "technology": "5g", "rnti": "4601", "physical_cell": 1, "cqi": 15, "dl_mcs": 26, "ul_mcs": 1,
        "power_headroom_db": 2, "pusch_snr_db": 4.3, "dl_bler": 0.05917, "ul_bler": 0.25, "dl_retransmissions": 20,
        "ul_retransmissions": 10, "dl_bit_rate_bps": 1_280_000.0, "ul_bit_rate_bps": 950.0, "dl_prb": 2.0, "ul_prb": 2.5,
    }  # fmt: skip


def test_srsran_without_the_cells_line() -> None:
    """How many slots there were is not known, nor blocks a slot; what is "n/a" is empty."""
    ((_, row),) = rows_of(SRSRAN[1].replace("cqi=15", "cqi=n/a").replace("last_phr=2", "last_phr=n/a"))
    assert row.keys().isdisjoint({"dl_prb", "ul_prb", "cqi", "power_headroom_db"})


@pytest.mark.parametrize(
    "line",
    [
        "2026-13-02T14:40:19.021842 [METRICS ] Scheduler UE ue=0 pci=1 metrics: cqi=15",
        "UE RNTI zz in-sync",
        "UE 2460: dlsch_rounds 1/2",
        "Scheduler UE metrics: rnti=0x1 dl_mcs=1.2.3.4",
        "99999999999.000000 [NR_MAC] Frame.Slot 1.0",
        "TDD period configuration: slot 9999 is UPLINK",
    ],
)
def test_damaged_lines_do_no_harm(line: str) -> None:
    """They tell nothing that is not there, and the next report is whole."""
    made = rows_of(f"{line}\n{DOCUMENTED}")
    assert made[-1][1] == FIGURES
    assert all(row.get("dl_mcs") is None for _, row in made[:-1])


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_whatever_a_log_holds_rows_are_of_the_columns_types(data: st.DataObject) -> None:
    """Pieces of real lines in any order, cut anywhere, with anything between: nothing raises, and every cell can be written."""
    text = NEW + OLD + "\n".join(SRSRAN)
    places = st.integers(0, len(text))
    pieces = st.one_of(st.text(max_size=8), st.builds(lambda a, b: text[min(a, b) : max(a, b)], places, places))
    lines = "".join(data.draw(st.lists(pieces, max_size=6))).split("\n")
    kinds = {column.name: column.kind for column in RADIO_TABLE.columns}
    for line in lines:
        for _, row in REPORTS.take(line):
            for name, value in row.items():
                assert value is None or type(value).__name__ == kinds[name]
                assert not isinstance(value, int) or abs(value) < 2**63


def test_what_is_kept_of_modems_is_bounded() -> None:
    """The one that was heard last the longest ago is forgotten."""
    reports = GnbReports()
    for number in range(MOST_MODEMS + 1):
        rows_of(DOCUMENTED.replace("2460", f"{number:04x}"), reports)
    ((_, forgotten),) = rows_of(DOCUMENTED.replace("2460", "0000"), reports)
    ((_, known),) = rows_of(DOCUMENTED.replace("2460", f"{MOST_MODEMS:04x}"), reports)
    assert "ul_retransmissions" not in forgotten
    assert known["ul_retransmissions"] == 0
