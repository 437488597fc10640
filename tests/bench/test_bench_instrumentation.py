"""The cost of measuring: pairs of blocks, their ratio with its interval, and the bar."""

import math

import pytest

from fltestbed.bench.blocks import expected_round_s
from fltestbed.bench.instrumentation import cpu_times_us, find
from fltestbed.bench.models import SIZES
from fltestbed.bench.pairs import Pair, pair_up
from fltestbed.config import Instrumentation


def test_blocks_are_paired_with_their_neighbours() -> None:
    """Blocks of one uncounted round (9 s) and two counted: on 2 s, off 1 s, off 3 s, on 4 s give the pairs 2/1 and 4/3."""
    seconds = [9, 2, 2, 9, 1, 1, 9, 2, 4, 9, 3, 5]
    starts = [0]
    for each in seconds:
        starts.append(starts[-1] + each * 10**9)
    assert pair_up(starts, 2) == [Pair(2.0, 1.0, 2.0, 1.0), Pair(4.0, 3.0, 4.0, 3.0)]


def test_a_hiccup_of_the_machine_is_cut_off_and_shown() -> None:
    """Of five counted rounds the one of 11 s and the fastest are left out; the plain mean has them all."""
    starts = [0]
    for each in [9, 1, 2, 3, 2, 11, 9, 1, 1, 1, 1, 1]:
        starts.append(starts[-1] + each * 10**9)
    (pair,) = pair_up(starts, 5)
    assert pair.on_s == pytest.approx(7 / 3)  # of 2, 2 and 3
    assert pair.on_mean_s == pytest.approx(19 / 5)
    assert pair.off_s == pair.off_mean_s == 1.0
    assert find("5g", (), [pair, pair], 5).plain_ratio == pytest.approx(3.8)


def test_the_pairs_are_those_of_the_schedule() -> None:
    """What the server measures by turns is what the benchmark takes for measured."""
    schedule = Instrumentation.model_validate({"alternate-rounds": 3})
    assert [schedule.is_measured(round_) for round_ in range(1, 13)] == [True] * 3 + [False] * 6 + [True] * 3
    assert not Instrumentation(off=True).is_measured(1)


def test_ratio_and_interval_by_hand() -> None:
    """Ratios e^0.01 and e^0.03: mean e^0.02; half-width t(0.975, 1) * 0.01 = 12.7062 * 0.01 in the logarithm."""
    found = find("ethernet", (), [Pair(math.exp(0.01), 1.0, 1.0, 1.0), Pair(math.exp(0.03), 1.0, 1.0, 1.0)], 2)
    assert found.ratio == pytest.approx(math.exp(0.02))
    assert found.low == pytest.approx(math.exp(0.02 - 0.127062), rel=1e-5)
    assert found.high == pytest.approx(math.exp(0.02 + 0.127062), rel=1e-5)
    assert not found.resolved
    assert not found.bar.holds


def test_the_bar_is_the_larger_of_one_percent_and_ten_milliseconds() -> None:
    """Of rounds of 0.2 s it is 5%, of 2 s 1%; on other links than Ethernet there is none."""
    assert find("ethernet", (), [Pair(0.2, 0.2, 0.2, 0.2), Pair(0.2, 0.2, 0.2, 0.2)], 1).bar.limit == pytest.approx(1.05)
    assert find("ethernet", (), [Pair(2.0, 2.0, 2.0, 2.0), Pair(2.0, 2.0, 2.0, 2.0)], 1).bar.limit == pytest.approx(1.01)
    found = find("5g", (), [Pair(2.0, 1.0, 2.0, 1.0), Pair(2.0, 1.0, 2.0, 1.0)], 1)
    assert (found.bar.limit, found.bar.holds, found.resolved) == (None, True, True)


def test_a_round_is_expected_to_take_what_the_rates_say() -> None:
    """2.9 MB on the 5G cell: two clients share 90 Mbit/s down and 20 up; and 0.2 s beside the transfers."""
    size = SIZES["small"]
    assert expected_round_s("5g", size) == pytest.approx(0.2 + 2 * size.model_bytes * 8 * (1 / 90e6 + 1 / 20e6))


def test_the_cpu_time_of_stamps_is_that_of_the_real_ones() -> None:
    """A clock read is cheapest, a row dearest, and none is free."""
    found = cpu_times_us()
    assert 0 < found["clock read"] < found["TCP_INFO read"] < found["row written"]
    assert found["clock read"] < found["message stamped by the kernel"]
