"""What the host's own time synchronisation says: chrony, systemd-timesyncd or ptp4l.

None of it is used for the measurement, whose stamps no synchronisation touches. It is recorded to say how good the wall
clocks were, and because a daemon that slews or steps is a thing to know of a run.

Signs differ between the daemons. Here `offset_s` is always reference minus the host's wall clock: positive when the host is
behind. `uncertainty_s` bounds what may be wrong with it, as far as the daemon says. Neither is there while a daemon is not
synchronised: what it writes then is no offset.
"""

import re
from collections.abc import Callable
from typing import Any

from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.probe import Row
from fltestbed.measure.probes.tools import Toolbox

CHRONY = ("chronyc", "-c", "-n", "tracking")
TIMESYNCD = ("timedatectl", "timesync-status", "--no-pager")
PTP4L = ("pmc", "-u", "-b", "0", "GET TIME_STATUS_NP")

Record = dict[str, Any]


class TimeSyncProbe:
    """Asks each daemon at the start, at an interval and at the end.

    Parameters
    ----------
    interval_s : float
    tools : Toolbox
    """

    name = "time_sync"
    table = "system"
    joins = True

    def __init__(self, interval_s: float, tools: Toolbox) -> None:
        self.interval_s = interval_s
        self._tools = tools
        self._daemons: list[str] = []

    def open(self) -> dict[str, Any]:
        """Find out which daemons run, and what they say."""
        records, silent = self._ask(list(_DAEMONS))
        self._daemons = [record["daemon"] for record in records]
        if not records:
            raise HostError("; ".join(silent))
        return {"reads": ", ".join(self._daemons), "start": records}

    def read(self) -> list[Row]:
        """Offset and uncertainty that the first daemon states."""
        records, silent = self._ask(self._daemons[:1])
        if not records:
            raise TestbedError("; ".join(silent))
        return [
            {
                "time_sync": records[0]["daemon"],
                "wall_offset_s": records[0].get("offset_s"),
                "wall_offset_uncertainty_s": records[0].get("uncertainty_s"),
            }
        ]

    def close(self) -> dict[str, Any]:
        """What they say at the end."""
        return {"end": self._ask(self._daemons)[0]}

    def _ask(self, daemons: list[str]) -> tuple[list[Record], list[str]]:
        """What each daemon says, and why others say nothing."""
        records: list[Record] = []
        silent = []
        for daemon in daemons:
            command, parse = _DAEMONS[daemon]
            try:
                records.append({"daemon": daemon} | parse(self._tools.ask(*command)))
            except TestbedError as error:
                silent.append(f"{daemon}: {error}")
        return records, silent


def parse_chrony(text: str) -> Record:
    """The comma-separated answer of ``chronyc -c tracking``.

    The uncertainty is root dispersion plus half the root delay: chronyc's manual gives it, with the offset, as the bound of
    the clock's error.

    Raises
    ------
    TestbedError
        It has other fields than chrony 3 and 4 write.
    """
    fields = text.strip().split(",")
    try:
        (
            reference,
            address,
            stratum,
            _time,
            offset,
            _last,
            _rms,
            frequency,
            _residual,
            skew,
            delay,
            dispersion,
            _since,
            leap,
        ) = fields
        is_synchronised = leap != "Not synchronised"
        offset_s, uncertainty_s = float(offset), float(dispersion) + float(delay) / 2
        record: Record = {
            "source": address or reference, "stratum": int(stratum), "offset_s": offset_s if is_synchronised else None,
            "uncertainty_s": uncertainty_s if is_synchronised else None, "frequency_ppm": float(frequency),
            "skew_ppm": float(skew), "synchronised": is_synchronised,
        }  # fmt: skip
    except ValueError as error:
        raise TestbedError(f"{' '.join(CHRONY)}: {text.strip()[:120]!r} is not what chrony writes") from error
    return record


def parse_timesyncd(text: str) -> Record:
    """The lines of ``timedatectl timesync-status``.

    The uncertainty is the server's root distance plus half the round trip to it; None before the first answer of a server.

    Raises
    ------
    TestbedError
        There is no line that names a server.
    """
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    if "Server" not in fields:
        raise TestbedError(f"{' '.join(TIMESYNCD)}: {text.strip()[:120]!r} names no server")
    offset, delay = (_span_s(fields[name]) if name in fields else None for name in ("Offset", "Delay"))
    root = _span_s(fields["Root distance"].partition("(")[0]) if "Root distance" in fields else None
    frequency = re.match(r"([+-]?\d{1,9}(?:\.\d+)?)ppm", fields.get("Frequency", ""))
    return {
        "source": fields["Server"], "stratum": int(fields["Stratum"]) if fields.get("Stratum", "").isdigit() else None,
        "offset_s": offset, "uncertainty_s": None if root is None or delay is None else root + delay / 2,
        "frequency_ppm": float(frequency[1]) if frequency else None, "synchronised": offset is not None,
    }  # fmt: skip


def parse_ptp4l(text: str) -> Record:
    """The answer of ``pmc`` to GET TIME_STATUS_NP. `master_offset` is the host's clock minus the master's, in nanoseconds.

    ptp4l states no bound, so there is no uncertainty. The clock meant is the one that ptp4l steers, which with hardware
    stamps is the network adapter's.

    Raises
    ------
    TestbedError
        No ptp4l has answered, or with something else.
    """
    fields = dict(line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2)
    if "master_offset" not in fields:
        raise TestbedError("no ptp4l answers (pmc needs the right to its socket)")
    try:
        offset_s = -int(fields["master_offset"]) / 1e9
    except ValueError as error:
        raise TestbedError(f"{' '.join(PTP4L)}: master_offset is {fields['master_offset'][:40]!r}") from error
    has_master = fields.get("gmPresent", "").strip() == "true"
    return {
        "source": fields.get("gmIdentity", "").strip(), "stratum": None, "offset_s": offset_s if has_master else None,
        "uncertainty_s": None, "synchronised": has_master,
    }  # fmt: skip


_DAEMONS: dict[str, tuple[tuple[str, ...], Callable[[str], Record]]] = {
    "chrony": (CHRONY, parse_chrony),
    "systemd-timesyncd": (TIMESYNCD, parse_timesyncd),
    "ptp4l": (PTP4L, parse_ptp4l),
}

_UNITS_S = {
    "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "day": 86400.0, "w": 604800.0,
}  # fmt: skip


def _span_s(text: str) -> float:
    """A time span as systemd writes it (``+1min 4.5s``, ``-371us``, ``0``), in seconds."""
    text = text.strip()
    if re.fullmatch(r"[+-]?0", text):
        return 0.0
    match = re.fullmatch(r"([+-]?)((?:\d{1,15}(?:\.\d+)?(?:us|ms|min|s|h|days?|d|w)\s*)+)", text)
    if match is None:
        raise TestbedError(f"{' '.join(TIMESYNCD)}: {text[:40]!r} is no span of time")
    parts = re.findall(r"([\d.]+)(us|ms|min|s|h|day|d|w)", match[2])
    return (-1 if match[1] == "-" else 1) * sum(float(number) * _UNITS_S[unit] for number, unit in parts)
