"""Throttling and undervoltage flags of a Raspberry Pi.

The firmware keeps a word of flags; bits 0 to 3 say what is so now, bits 16 to 19 what has been so since boot (Raspberry Pi
documentation, "vcgencmd get_throttled"). Raspberry Pi OS shows the word below /sys; there the kernel's copy may be as old as
its own look at the firmware, two seconds. Where there is no such file, `vcgencmd` asks the firmware itself.
"""

import re
from pathlib import Path
from typing import Any

from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.probe import Row
from fltestbed.measure.probes.tools import Toolbox

DEVICES = Path("/sys/devices/platform")
PATTERN = "soc*/*firmware/get_throttled"
"""`soc/soc:firmware/get_throttled` up to the Pi 4; the bus of a Pi 5 has another name."""

CONDITIONS = {
    0: "undervoltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
"""Bit of the word for what is so now; 16 bits further on, for what has been so since boot."""

VCGENCMD = ("vcgencmd", "get_throttled")


class ThrottlingProbe:
    """Reads the flags, and remembers which conditions came up while it did.

    Parameters
    ----------
    interval_s : float
    tools : Toolbox
    devices : Path
        Where sysfs shows the platform's devices.
    """

    name = "throttling"
    table = "system"
    joins = True

    def __init__(self, interval_s: float, tools: Toolbox, devices: Path = DEVICES) -> None:
        self.interval_s = interval_s
        self._tools = tools
        self._devices = devices
        self._file: Path | None = None
        self._seen = 0

    def open(self) -> dict[str, Any]:
        """Find the file, or the program."""
        self._file = next(iter(sorted(self._devices.glob(PATTERN))), None)
        try:
            flags = self._flags()
        except HostError as error:
            raise HostError(f"no Raspberry Pi firmware: no {self._devices}/{PATTERN}, and {error}") from error
        return {"reads": str(self._file or " ".join(VCGENCMD)), "since_boot": conditions(flags >> 16)}

    def read(self) -> list[Row]:
        """The word, as the hexadecimal number that vcgencmd shows."""
        flags = self._flags()
        self._seen |= flags
        return [{"throttled_flags": f"{flags:#x}"}]

    def close(self) -> dict[str, Any]:
        """Which conditions were met in any reading."""
        return {"seen": conditions(self._seen)}

    def _flags(self) -> int:
        if self._file is None:
            return parse_flags(self._tools.ask(*VCGENCMD))
        try:
            return parse_flags(self._file.read_text())
        except OSError as error:
            raise TestbedError(f"{self._file}: cannot be read: {error.strerror}") from error


def parse_flags(text: str) -> int:
    """The word of flags from ``throttled=0x50005`` (vcgencmd) or ``50005`` (sysfs).

    Raises
    ------
    TestbedError
        The text is neither.
    """
    match = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", text.strip())
    if match is None:
        raise TestbedError(f"get_throttled: {text.strip()[:80]!r} is no word of flags")
    return int(match[1], 16)


def conditions(flags: int) -> list[str]:
    """Names of the conditions whose bits (0 to 3) are set."""
    return [name for bit, name in CONDITIONS.items() if flags >> bit & 1]
