"""What 3GPP says of a carrier in band n78 with subcarriers of 30 kHz: frequencies, resource blocks, TDD patterns, ceilings.

Frequencies are in kHz, whole numbers: every raster is a multiple of a kHz. Sources: TS 38.104 (5.4.2 channel raster, 5.4.3
synchronisation raster), TS 38.101-1 (5.3.2 resource blocks, 5.3.3 guard band), TS 38.213 (table 13-4), TS 38.214 (5.1.2.2.2
location and bandwidth), TS 38.306 (4.1.2 largest data rate), TS 38.331 (periods of TDD patterns).
"""

import re
from dataclasses import dataclass

from fltestbed.errors import ConfigError

SUBCARRIER_KHZ = 30
SLOT_MS = 0.5
SYMBOLS_PER_SLOT = 14
SLOTS_PER_FRAME = 20
PRB_KHZ = 12 * SUBCARRIER_KHZ

BAND = 78
BAND_KHZ = (3_300_000, 3_800_000)
"""TS 38.101-1, table 5.2-1; uplink and downlink share it."""

PRB_OF_MHZ = {
    10: 24, 15: 38, 20: 51, 25: 65, 30: 78, 40: 106, 50: 133, 60: 162, 70: 189, 80: 217, 90: 245, 100: 273,
}  # fmt: skip
"""Resource blocks of each channel bandwidth of n78 at 30 kHz (TS 38.101-1, table 5.3.2-1)."""

SSB_PRB = 20
SYNC_STEP_KHZ = 1_440
SYNC_ZERO_KHZ = 3_000_000
SYNC_ZERO_GSCN = 7_499
"""TS 38.104, table 5.4.3.1-1: 3000 MHz + N * 1.44 MHz is GSCN 7499 + N."""

CORESET0_INDEX = 12
CORESET0_PRB = 48
CORESET0_BELOW_SSB_PRB = 16
"""Row 12 of TS 38.213, table 13-4: 48 blocks that begin 16 below the synchronisation block."""

PERIOD_INDEX_OF_SLOTS = {1: 0, 2: 2, 4: 4, 5: 5, 10: 6, 20: 7}
"""Slots of a TDD period at 30 kHz, and the number that dl-UL-TransmissionPeriodicity has in TS 38.331 (0.5 to 10 ms)."""

LARGEST_RATE = 948 / 1024
OVERHEAD = {"uplink": 0.08, "downlink": 0.14}
"""Code rate and overhead in the formula of TS 38.306, 4.1.2, for frequencies below 6 GHz."""


@dataclass(frozen=True)
class Carrier:
    """A channel, and where in it a modem finds the cell.

    Attributes
    ----------
    prb : int
        Resource blocks.
    centre_khz : int
    """

    bandwidth_mhz: int
    prb: int
    centre_khz: int

    @property
    def centre_arfcn(self) -> int:
        """NR-ARFCN of the centre."""
        return arfcn(self.centre_khz)

    @property
    def point_a_khz(self) -> int:
        """Lower edge of the lowest block (its subcarrier 0), with no offset between point A and the carrier."""
        return self.centre_khz - self.prb * PRB_KHZ // 2

    @property
    def guard_khz(self) -> float:
        """Between the channel's edge and the nearest subcarrier's (TS 38.101-1, 5.3.3)."""
        return (self.bandwidth_mhz * 1000 - self.prb * PRB_KHZ) / 2 - SUBCARRIER_KHZ / 2

    @property
    def ssb_khz(self) -> int:
        """Centre of the synchronisation block: the point of its raster that is next to the carrier's centre."""
        return SYNC_ZERO_KHZ + round((self.centre_khz - SYNC_ZERO_KHZ) / SYNC_STEP_KHZ) * SYNC_STEP_KHZ

    @property
    def ssb_gscn(self) -> int:
        """Its number in that raster."""
        return SYNC_ZERO_GSCN + (self.ssb_khz - SYNC_ZERO_KHZ) // SYNC_STEP_KHZ

    @property
    def ssb_first_prb(self) -> int:
        """The carrier's block in which the synchronisation block begins."""
        return (self.ssb_khz - SSB_PRB * PRB_KHZ // 2 - self.point_a_khz) // PRB_KHZ

    @property
    def location_and_bandwidth(self) -> int:
        """The whole carrier as a bandwidth part: an indicator over 275 blocks (TS 38.213, 12; TS 38.214, 5.1.2.2.2)."""
        if self.prb - 1 <= 275 // 2:
            return 275 * (self.prb - 1)
        return 275 * (275 - self.prb + 1) + 275 - 1


def carrier(bandwidth_mhz: int, centre_mhz: float) -> Carrier:
    """Find a carrier's figures.

    Raises
    ------
    ConfigError
        The band has no such bandwidth, the channel does not lie in it, its centre is not on the raster, or the cell's first
        control channel would lie outside the carrier.
    """
    if bandwidth_mhz not in PRB_OF_MHZ:
        allowed = ", ".join(map(str, PRB_OF_MHZ))
        raise ConfigError(f"bandwidth-mhz {bandwidth_mhz}: n{BAND} at 30 kHz has {allowed}; take one of them")
    centre_khz = round(centre_mhz * 1000)
    low_khz, high_khz = BAND_KHZ[0] + bandwidth_mhz * 500, BAND_KHZ[1] - bandwidth_mhz * 500
    if not low_khz <= centre_khz <= high_khz:
        raise ConfigError(
            f"centre-mhz {centre_mhz:g}: a channel of {bandwidth_mhz} MHz in n{BAND} has its centre from {low_khz / 1000:g} "
            f"to {high_khz / 1000:g}; take one that your licence allows"
        )
    if abs(centre_khz - centre_mhz * 1000) > 1e-3 or centre_khz % SUBCARRIER_KHZ:
        near = round(centre_mhz * 1000 / SUBCARRIER_KHZ) * SUBCARRIER_KHZ / 1000
        raise ConfigError(f"centre-mhz {centre_mhz}: not on the raster of 30 kHz; the nearest is {near:.2f}")
    found = Carrier(bandwidth_mhz, PRB_OF_MHZ[bandwidth_mhz], centre_khz)
    first = found.ssb_first_prb - CORESET0_BELOW_SSB_PRB
    if not 0 <= first <= found.prb - CORESET0_PRB:
        raise ConfigError(
            f"bandwidth-mhz {bandwidth_mhz}: the first control channel ({CORESET0_PRB} blocks from block {first}) does not "
            f"fit into {found.prb} blocks; take a wider channel"
        )
    return found


def arfcn(khz: int) -> int:
    """NR-ARFCN of a frequency from 3 to 24.25 GHz: 600000 + (F - 3000 MHz) / 15 kHz (TS 38.104, 5.4.2.1)."""
    return 600_000 + (khz - 3_000_000) // 15


@dataclass(frozen=True)
class TddPattern:
    """One period of slots: downlink, a special slot that turns the direction, uplink.

    Attributes
    ----------
    slots : str
        One letter a slot: D, S, U.
    special : tuple of int
        Symbols of the special slot: downlink, guard, uplink; all 0 without one.
    """

    slots: str
    special: tuple[int, int, int]

    @property
    def downlink_slots(self) -> int:
        """Whole slots."""
        return self.slots.count("D")

    @property
    def uplink_slots(self) -> int:
        """Whole slots."""
        return self.slots.count("U")

    @property
    def period_index(self) -> int:
        """Number of the period in TS 38.331."""
        return PERIOD_INDEX_OF_SLOTS[len(self.slots)]

    @property
    def period_ms(self) -> float:
        """Length of the period."""
        return len(self.slots) * SLOT_MS

    def share(self, direction: str) -> float:
        """Part of the time in which the whole slots of a direction lie. A special slot's symbols do not count: those of the
        uplink are for sounding and control, those of the downlink take some data, a scheduler willing.
        """
        return self.slots.count(direction[0].upper()) / len(self.slots)

    @property
    def uplink_wait_ms(self) -> float:
        """Mean time until the next uplink slot begins, for data that comes at any moment, a grant being there already."""
        gaps = [self.slots.index("U") + len(self.slots) - self.slots.rindex("U")] + [1] * (self.uplink_slots - 1)
        return sum(gap**2 for gap in gaps) / (2 * len(self.slots)) * SLOT_MS


def tdd_pattern(slots: str, special: tuple[int, int, int]) -> TddPattern:
    """Check a pattern.

    Raises
    ------
    ConfigError
        It is no period of TS 38.331, not of the order D, S, U, or the symbols of the special slot are not 14.
    """
    if len(slots) not in PERIOD_INDEX_OF_SLOTS or not re.fullmatch(r"D+S?U+", slots):
        lengths = ", ".join(map(str, PERIOD_INDEX_OF_SLOTS))
        raise ConfigError(
            f'tdd "{slots}": a period of {lengths} slots is needed, first D, then at most one S, then U; such as "DDDSU"'
        )
    if "S" not in slots:
        return TddPattern(slots, (0, 0, 0))
    downlink, guard, uplink = special
    if min(special) < 0 or guard < 1 or downlink + guard + uplink != SYMBOLS_PER_SLOT:
        raise ConfigError(
            f"special-symbols {list(special)}: downlink, guard and uplink have to make {SYMBOLS_PER_SLOT}, at least one of "
            "guard; such as [6, 4, 4]"
        )
    return TddPattern(slots, special)


def ceiling_bps(pattern: TddPattern, prb: int, direction: str, layers: int, bits_per_symbol: int) -> float:
    """Most that whole slots of a direction can carry, in bits a second, for all modems of the cell together.

    TS 38.306, 4.1.2: layers * Q_m * 948/1024 * N_PRB * 12 / T_symbol * (1 - overhead), times the share of the direction.
    """
    symbols_a_second = SYMBOLS_PER_SLOT * 1000 / SLOT_MS
    whole = layers * bits_per_symbol * LARGEST_RATE * prb * 12 * symbols_a_second * (1 - OVERHEAD[direction])
    return whole * pattern.share(direction)
