"""What a client takes on its host: hand-computed bars."""

import pytest

from fltestbed.bench.footprint import Footprint
from fltestbed.bench.memory import BARE, NETWORK, TRAINER, judge

MB = 10**6


@pytest.mark.parametrize(
    ("network_mb", "trainer_mb", "figures", "holds"),
    [
        (120, 440, [110.0, 60.0], [True, True]),
        (121, 440, [111.0, 60.0], [False, True]),
        (120, 441, [110.0, 61.0], [True, False]),
    ],
)
def test_what_is_shared_counts_by_parts(network_mb: int, trainer_mb: int, figures: list[float], holds: list[bool]) -> None:
    """10 MB of the network process and 20 MB of the trainer are saved by sharing, nothing of the bare script's 360 MB: at
    most 110 MB, and at most 60 MB beside the script.
    """
    found = {
        NETWORK: Footprint(peak_bytes=network_mb * MB, discount_bytes=10 * MB),
        TRAINER: Footprint(peak_bytes=trainer_mb * MB, discount_bytes=20 * MB),
        BARE: Footprint(peak_bytes=360 * MB),
    }
    bars = judge(found)
    assert [bar.figure for bar in bars] == pytest.approx(figures)
    assert [bar.holds for bar in bars] == holds
    assert {bar.unit for bar in bars} == {"MB"}
