"""What 3GPP says of a carrier, against figures worked out by hand from the standards and a published configuration."""

import re
import tomllib
from pathlib import Path

import nr
import pytest

from fltestbed.errors import ConfigError

README = Path(__file__).parents[2] / "deploy" / "5g" / "README.md"


def test_frequencies_of_40_mhz_around_3619_2() -> None:
    """106 blocks of 360 kHz: point A is 19.08 MHz below the centre, and all are whole steps of 15 kHz above 3000 MHz."""
    carrier = nr.carrier(40, 3619.2)
    assert carrier.prb == 106
    assert carrier.centre_arfcn == 641_280  # 600000 + 619.2 / 0.015
    assert carrier.point_a_khz == 3_600_120
    assert nr.arfcn(carrier.point_a_khz) == 640_008
    assert (carrier.ssb_khz, carrier.ssb_gscn) == (3_619_200, 7_929)  # 3000 + 430 * 1.44; 7499 + 430
    assert carrier.ssb_first_prb == 43  # (106 - 20) / 2


def test_a_published_configuration_of_100_mhz_comes_out() -> None:
    """OpenAirInterface's own 273 blocks in n78 have the synchronisation block at 630048 and point A at 626772."""
    carrier = nr.carrier(100, 3450.72)
    assert carrier.prb == 273
    assert nr.arfcn(carrier.ssb_khz) == 630_048
    assert nr.arfcn(carrier.point_a_khz) == 626_772
    assert carrier.location_and_bandwidth == 1099


def test_a_centre_that_is_not_on_the_synchronisation_raster() -> None:
    """The synchronisation block goes to the nearest point, 240 kHz above 3750 MHz, inside block 127."""
    carrier = nr.carrier(100, 3750.0)
    assert (carrier.ssb_khz, carrier.ssb_gscn) == (3_750_240, 8_020)
    assert carrier.ssb_first_prb == 127  # (3750240 - 3600 - 3700860) / 360 = 127.17


def test_guard_bands_are_those_of_the_standard() -> None:
    """TS 38.101-1, table 5.3.3-1, 30 kHz: 905 kHz at 40 MHz, 845 at 100, 805 at 20."""
    guards = {mhz: nr.Carrier(mhz, nr.PRB_OF_MHZ[mhz], 3_600_000).guard_khz for mhz in (20, 40, 100)}
    assert guards == {20: 805, 40: 905, 100: 845}


def test_a_whole_carrier_as_a_resource_indicator() -> None:
    """275 (L - 1) while L - 1 is at most 137, else counted from the other end."""
    assert nr.carrier(40, 3619.2).location_and_bandwidth == 28_875  # 275 * 105
    assert nr.carrier(50, 3619.2).location_and_bandwidth == 36_300  # 275 * 132
    assert nr.carrier(60, 3619.2).location_and_bandwidth == 31_624  # 275 * 114 + 274


@pytest.mark.parametrize(
    ("bandwidth_mhz", "centre_mhz", "said"),
    [
        (35, 3619.2, "bandwidth-mhz 35: n78 at 30 kHz has 10, 15, 20"),
        (40, 3310.0, "centre from 3320 to 3780"),
        (100, 3760.0, "centre from 3350 to 3750"),
        (40, 3619.21, "not on the raster of 30 kHz; the nearest is 3619.20"),
        (10, 3619.2, "the first control channel"),
    ],
)
def test_carriers_that_cannot_be(bandwidth_mhz: int, centre_mhz: float, said: str) -> None:
    """Each is refused with what is allowed."""
    with pytest.raises(ConfigError, match=said):
        nr.carrier(bandwidth_mhz, centre_mhz)


@pytest.mark.parametrize(
    ("slots", "index", "period_ms", "uplink", "wait_ms"),
    [
        ("DDDDDDDSUU", 6, 5.0, 0.2, 2.05),  # slots from one uplink to the next: 1, 9; (1 + 81) / 20 / 2
        ("DDDSU", 5, 2.5, 0.2, 1.25),  # 5; 25 / 10 / 2
        ("DDSUU", 5, 2.5, 0.4, 0.85),  # 1, 4; 17 / 10 / 2
        ("DSUU", 4, 2.0, 0.5, 0.625),  # 1, 3; 10 / 8 / 2
    ],
)
def test_tdd_patterns(slots: str, index: int, period_ms: float, uplink: float, wait_ms: float) -> None:
    """Period, share of the uplink, and the mean wait for it: the squares of the gaps over twice the period."""
    pattern = nr.tdd_pattern(slots, (6, 4, 4))
    assert (pattern.period_index, pattern.period_ms) == (index, period_ms)
    assert pattern.share("uplink") == uplink
    assert pattern.uplink_wait_ms == pytest.approx(wait_ms)


def test_a_pattern_without_a_special_slot_has_no_symbols_of_one() -> None:
    """Whatever the table says of them."""
    pattern = nr.tdd_pattern("DDUU", (6, 4, 4))
    assert (pattern.special, pattern.downlink_slots, pattern.uplink_slots) == ((0, 0, 0), 2, 2)


@pytest.mark.parametrize(
    ("slots", "special", "said"),
    [
        ("DDSUUU", (6, 4, 4), "a period of 1, 2, 4, 5, 10, 20 slots"),
        ("UUSDD", (6, 4, 4), "first D, then at most one S, then U"),
        ("DDDDS", (6, 4, 4), "then U"),
        ("DDDSU", (6, 4, 5), "have to make 14"),
        ("DDDSU", (7, 0, 7), "at least one of guard"),
    ],
)
def test_patterns_that_cannot_be(slots: str, special: tuple[int, int, int], said: str) -> None:
    """Each is refused with what is allowed."""
    with pytest.raises(ConfigError, match=said):
        nr.tdd_pattern(slots, special)


def test_the_ceiling_of_the_uplink() -> None:
    """106 blocks, 64QAM, one layer, two slots of ten.

    6 * 948/1024 * 106 * 12 = 7065.5625 bits a symbol, 28000 symbols a second, 8% overhead, 20% of the time.
    """
    pattern = nr.tdd_pattern("DDDDDDDSUU", (6, 4, 4))
    assert nr.ceiling_bps(pattern, 106, "uplink", 1, 6) == pytest.approx(36_401_778)
    assert nr.ceiling_bps(pattern, 106, "downlink", 1, 6) == pytest.approx(119_097_121.5)  # 14% overhead, 70% of the time


def test_the_table_of_patterns_in_the_readme_is_what_the_formula_gives() -> None:
    """Each of its figures, rounded as it stands there."""
    rows = re.findall(r"^\| `([DSU]+)` \| (.+) \|$", README.read_text(), re.MULTILINE)
    assert len(rows) == 4
    for slots, cells in rows:
        pattern = nr.tdd_pattern(slots, (6, 4, 4))
        rates = [nr.ceiling_bps(pattern, prb, way, 1, 6) / 1e6 for prb in (106, 273) for way in ("uplink", "downlink")]
        head = [f"{pattern.period_ms:g} ms", f"{pattern.share('uplink'):.0%}", f"{pattern.uplink_wait_ms:.2f} ms"]
        assert cells.split(" | ") == [*head, *(f"{rate:.1f}" for rate in rates)]


def test_the_readmes_carrier_of_100_mhz_is_one() -> None:
    """And its example of four clients: 4 * 727,626 parameters of 4 bytes at 36.4 Mbit/s take 2.56 s."""
    (example,) = re.findall(r"```toml\n(\[carrier\].*?)```", README.read_text(), re.DOTALL)
    carrier = tomllib.loads(example)["carrier"]
    assert nr.carrier(carrier["bandwidth-mhz"], carrier["centre-mhz"]).prb == 273
    ceiling = nr.ceiling_bps(nr.tdd_pattern("DDDDDDDSUU", (6, 4, 4)), 106, "uplink", 1, 6)
    assert 4 * 727_626 * 4 * 8 / ceiling == pytest.approx(2.56, abs=0.005)
