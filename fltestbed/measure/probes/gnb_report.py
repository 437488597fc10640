"""What a gNB says of its modems in its log: OpenAirInterface's periodic report, and srsRAN's metrics.

OpenAirInterface (`doc/MAC/mac-usage.md` there) writes some lines a modem each 1.28 s, in one go; versions differ in what
stands at their ends, which is why each figure is looked for by its own name::

    [NR_MAC] I Frame.Slot 128.0
    UE RNTI 2460 CU-UE-ID 2 in-sync PH 28 dB PCMAX 24 dBm, average RSRP -74 (8 meas)
    UE 2460: CQI 15, RI 2, PMI (14,1)
    UE 2460: dlsch_rounds 32917/5113/1504/560, dlsch_errors 211, pucch0_DTX 1385, BLER 0.19557 MCS (1) 23
    UE 2460: ulsch_rounds 3756/353/182/179, ulsch_errors 170, ulsch_DTX 285, BLER 0.33021 MCS (1) 27 ... NPRB 5  SNR 31.0 dB
    UE 2460: MAC:    TX     1530943191 RX         194148 bytes

srsRAN (`metrics.enable_log`) writes a line a modem and period, after one of the cell::

    2026-01-31T12:00:00.000000 [METRICS ] Scheduler cell pci=1 metrics: ... nof_dl_slots=1400 nof_ul_slots=400 ...
    2026-01-31T12:00:00.000012 [METRICS ] Scheduler UE ue=0 pci=1 rnti=0x4601 metrics: cqi=15 dl_ri=1.0 dl_mcs=26 ...

A stamp at a line's beginning is seconds of the wall clock (OpenAirInterface's option `wall_clock`) or of CLOCK_MONOTONIC
(`time`), or date and time in UTC (srsRAN).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from fltestbed.measure.probes.probe import Row

MOST_MODEMS = 1024
"""Modems whose last figures are kept; a modem gets a new identity with each connection."""

WALL_FROM_S = 1_000_000_000
"""A host is not up for 31 years: seconds from here on are of the wall clock."""

Source = Literal["wall", "monotonic"]

_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_SECONDS = re.compile(r"(\d{1,10})\.(\d{6}) ")
_DATE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}) ")
_SLOT = re.compile(r"TDD period configuration: slot (\d{1,3}) is (DOWNLINK|UPLINK|FLEXIBLE)")
_HEAD = re.compile(r"UE RNTI ([0-9a-fA-F]{1,4}) .*?(in-sync|out-of-sync) (.*)")
_DETAIL = re.compile(r"UE ([0-9a-fA-F]{1,4}): (.*)")
_ROUNDS = re.compile(r"([du]l)sch_rounds (\d{1,15}(?:/\d{1,15}){0,15}), ")
_BYTES = re.compile(r"(MAC|LCID \d{1,3}):\s+TX\s+(\d{1,18}) RX\s+(\d{1,18}) bytes")
_SNR = re.compile(r"NPRB (\d{1,3})\s+SNR (-?\d{1,3})\.(-?\d)")
_SRSRAN = re.compile(r"Scheduler (cell|UE) .*?metrics: ")
_FIGURE = re.compile(r"\b([a-z0-9_]{1,40})=\s?(0x[0-9a-fA-F]{1,4}|-?[\d.]{1,12})([kMGT]?)(?=[a-z%\s]|$)")

_SCALE = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_LETTER = {"DOWNLINK": "D", "UPLINK": "U", "FLEXIBLE": "S"}


@dataclass(frozen=True)
class Stamp:
    """When a line was written, by the host's clock that the gNB reads."""

    source: Source
    ns: int


@dataclass
class _Modem:
    """What was said last of one modem, counted since it connected."""

    again: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    at_ns: int | None = None


@dataclass
class _Report:
    """The lines of one modem, as far as they have come."""

    rnti: str
    stamp: Stamp | None
    row: Row
    again: dict[str, int] = field(default_factory=dict)
    mac: dict[str, int] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)


class GnbReports:
    """Makes rows of radio.csv of the lines of a log, one after the other.

    Attributes
    ----------
    tdd_pattern : str
        A letter a slot of the TDD period, as the log said last; empty before.
    """

    def __init__(self, tdd_pattern: str = "") -> None:
        self.tdd_pattern = tdd_pattern
        self._report: _Report | None = None
        self._frame: Stamp | None = None
        self._modems: dict[str, _Modem] = {}
        self._slots: dict[str, int] = {}

    def take(self, line: str) -> Iterator[tuple[Stamp | None, Row]]:
        """One more line, without its end; what is complete with it, and the stamp that the log has for that."""
        line = _COLOUR.sub("", line)
        stamp, text = _stamped(line)
        if (detail := _DETAIL.match(text)) is not None and self._report is not None and detail[1] == self._report.rnti:
            _add(self._report, detail[2])
            return
        if self._report is not None:
            yield self._complete(self._report)
            self._report = None
        if (head := _HEAD.match(text)) is not None:
            self._report = _Report(head[1], stamp or self._frame, _head(head))
        elif "Frame.Slot" in text:
            self._frame = stamp
        elif (metrics := _SRSRAN.search(text)) is not None:
            figures = {name: (value, unit) for name, value, unit in _FIGURE.findall(text)}
            if metrics[1] == "cell":
                self._slots = {name: int(_number(figures, f"nof_{name}_slots") or 0) for name in ("dl", "ul")}
            elif "rnti" in figures:
                yield stamp, self._of_srsran(figures)
        elif (slot := _SLOT.search(text)) is not None:
            self.tdd_pattern = ("" if slot[1] == "0" else self.tdd_pattern[:320]) + _LETTER[slot[2]]

    def _complete(self, report: _Report) -> tuple[Stamp | None, Row]:
        last = self._modem(report.rnti)
        row = report.row | {"tdd_pattern": self.tdd_pattern or None}
        now_ns = None if report.stamp is None else report.stamp.ns
        for direction, again in report.again.items():
            row[f"{direction}_retransmissions"] = _since(last.again.get(direction), again)
        sent = report.mac or report.channels
        for direction, size in sent.items():
            more = _since(last.sent.get(direction), size)
            if more is not None and now_ns is not None and last.at_ns is not None and now_ns > last.at_ns:
                row[f"{direction}_bit_rate_bps"] = round(more * 8 / (now_ns - last.at_ns) * 1e9, 1)
        last.again, last.sent, last.at_ns = report.again, sent, now_ns
        return report.stamp, row

    def _modem(self, rnti: str) -> _Modem:
        modem = self._modems.pop(rnti, None) or _Modem()
        self._modems[rnti] = modem  # the latest last
        if len(self._modems) > MOST_MODEMS:
            del self._modems[next(iter(self._modems))]
        return modem

    def _of_srsran(self, figures: dict[str, tuple[str, str]]) -> Row:
        row: Row = _first("5g", figures["rnti"][0].removeprefix("0x").lower())
        for column, name in (
            ("cqi", "cqi"), ("dl_mcs", "dl_mcs"), ("ul_mcs", "ul_mcs"), ("physical_cell", "pci"),
            ("power_headroom_db", "last_phr"), ("pusch_snr_db", "pusch_snr_db"),
        ):  # fmt: skip
            number = _number(figures, name)
            row[column] = number if number is None or column == "pusch_snr_db" else int(number)
        for direction in ("dl", "ul"):
            good, bad = (int(_number(figures, f"{direction}_nof_{what}") or 0) for what in ("ok", "nok"))
            row[f"{direction}_retransmissions"] = bad
            row[f"{direction}_bler"] = round(bad / (good + bad), 5) if good + bad else None
            row[f"{direction}_bit_rate_bps"] = _number(figures, f"{direction}_brate")
            blocks, slots = _number(figures, f"{direction}_nof_prbs"), self._slots.get(direction)
            row[f"{direction}_prb"] = round(blocks / slots, 2) if blocks is not None and slots else None
        return row


def _stamped(line: str) -> tuple[Stamp | None, str]:
    """A line's stamp, and the rest of it."""
    if (match := _SECONDS.match(line)) is not None:
        seconds = int(match[1])
        source: Source = "wall" if seconds >= WALL_FROM_S else "monotonic"
        return Stamp(source, seconds * 1_000_000_000 + int(match[2]) * 1000), line[match.end() :]
    if (match := _DATE.match(line)) is not None:
        try:
            at = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
        except ValueError:
            return None, line
        return Stamp("wall", int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1000), line[match.end() :]
    return None, line


def _first(technology: str, rnti: str) -> Row:
    return {"interface": "gnb", "technology": technology, "rnti": rnti}


def _head(match: re.Match[str]) -> Row:
    """OpenAirInterface's first line of a modem."""
    row = _first("5g", match[1].lower()) | {"in_sync": match[2] == "in-sync"}
    text = match[3]
    if (headroom := re.search(r"\bPH (-?\d{1,3}) dB", text)) is not None:
        row["power_headroom_db"] = int(headroom[1])
    if (power := re.search(r"average RSRP (-?\d{1,3}) \((\d{1,9}) meas\)", text)) is not None and int(power[2]) > 0:
        row["rsrp_dbm"] = float(power[1])
    if (ratio := re.search(r"average SINR (-?\d{1,3}(?:\.\d+)?) \((\d{1,9}) meas\)", text)) is not None and int(
        ratio[2]
    ) > 0:
        row["sinr_db"] = float(ratio[1])
    return row


def _add(report: _Report, text: str) -> None:
    """One of OpenAirInterface's further lines of a modem."""
    row = report.row
    if (rounds := _ROUNDS.match(text)) is not None:
        direction = rounds[1]
        row[f"{direction}_harq_rounds"] = rounds[2]
        report.again[direction] = sum(map(int, rounds[2].split("/")[1:]))
        if (quality := re.search(r"BLER (\d{1,3}\.\d+) MCS \(\d\) (\d{1,2})", text)) is not None:
            row[f"{direction}_bler"], row[f"{direction}_mcs"] = float(quality[1]), int(quality[2])
        if (grant := _SNR.search(text)) is not None:
            row["ul_prb"] = float(grant[1])
            # C's division by 10 and rest: -1.5 dB is written as -1.-5, and -0.5 as 0.-5.
            sign = -1 if "-" in grant[2] + grant[3] else 1
            row["pusch_snr_db"] = sign * (abs(int(grant[2])) + abs(int(grant[3])) / 10)
    elif (counted := _BYTES.match(text)) is not None:
        sums = report.mac if counted[1] == "MAC" else report.channels
        for direction, size in (("dl", counted[2]), ("ul", counted[3])):
            sums[direction] = sums.get(direction, 0) + int(size)
    elif (quality := re.search(r"\bCQI (\d{1,2})\b", text)) is not None:
        row["cqi"] = int(quality[1])


def _since(before: int | None, now: int) -> int | None:
    """What a counter has counted since; None for the first time, and where it began anew."""
    return None if before is None or now < before else now - before


def _number(figures: dict[str, tuple[str, str]], name: str) -> float | None:
    text, unit = figures.get(name, ("", ""))
    try:
        return float(text) * _SCALE[unit]
    except ValueError:
        return None
