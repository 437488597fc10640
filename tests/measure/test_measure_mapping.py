"""The clock mapping: numbers by hand, and a bound that contains the truth."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fltestbed.measure.mapping import ClockMapping, ClockSample, Estimate

SECOND = 1_000_000_000


def test_a_symmetric_path_gives_the_offset_exactly() -> None:
    """Server 5000 ns ahead, 100 ns each way, 40 ns of processing: offset 5000, half-width 100."""
    sample = ClockSample(1000, 6100, 6140, 1240)
    assert sample.offset_ns == 5000
    assert sample.half_width_ns == 101  # (240 - 40) / 2, and the drift over 240 ns, rounded up
    assert sample.is_plausible


def test_an_asymmetric_path_is_wrong_by_no_more_than_the_half_width() -> None:
    """300 ns up and 0 down, server 5000 ns ahead: the estimate says 5150, off by all of the half-width of 150."""
    sample = ClockSample(1000, 6300, 6300, 1300)
    assert (sample.offset_ns, sample.half_width_ns) == (5150, 151)


def test_a_server_that_is_behind_has_a_negative_offset() -> None:
    """Server 900 ns behind, 100 ns each way."""
    assert ClockSample(1000, 200, 200, 1200).offset_ns == -900


def test_a_long_exchange_adds_the_drift_during_it() -> None:
    """A pull that is held for 20 s, 2 ms of path: 1 ms and 100 ppm of 20.002 s, which is 2,000,200 ns."""
    sample = ClockSample(0, 1_000_000, 20 * SECOND + 1_000_000, 20 * SECOND + 2_000_000)
    assert sample.offset_ns == 0
    assert sample.half_width_ns == 1_000_000 + 2_000_200


def test_an_estimate_ages_by_100_ppm_in_both_directions() -> None:
    """10 s away from the sample the half-width has grown by 1 ms; at the sample it has not."""
    mapping = ClockMapping()
    assert mapping.add(ClockSample(20 * SECOND, 50 * SECOND + 100, 50 * SECOND + 100, 20 * SECOND + 200))
    at = 20 * SECOND + 200
    assert mapping.at(at) == Estimate(30 * SECOND, 101)
    assert mapping.at(at + 10 * SECOND) == mapping.at(at - 10 * SECOND) == Estimate(30 * SECOND, 1_000_101)


def test_without_a_sample_there_is_no_estimate() -> None:
    """None, not zero: an unknown offset is not an offset of nothing."""
    assert ClockMapping().at(123) is None


def test_the_narrowest_sample_is_kept_until_it_has_aged() -> None:
    """Half-widths of 100 us, then 1 ms: after 5 s the first has grown to 600 us and stays, after 10 s to 1.1 ms and goes."""
    narrow = ClockSample(0, 100_000, 100_000, 200_000)
    mapping = ClockMapping()
    assert mapping.add(narrow)
    for second, taken in ((5, False), (10, True)):
        sent = second * SECOND
        wide = ClockSample(sent, sent + 1_000_000, sent + 1_000_000, sent + 2_000_000)
        assert mapping.add(wide) is taken


def test_a_narrower_sample_replaces_the_best_at_once() -> None:
    """No wait for the old one to age."""
    mapping = ClockMapping()
    mapping.add(ClockSample(0, 1000, 1000, 2000))
    assert mapping.add(ClockSample(2000, 2010, 2010, 2020))
    assert mapping.at(2020) == Estimate(0, 11)


@pytest.mark.parametrize(
    ("stamps", "why"),
    [
        ((100, 0, 0, 99), "the answer came before the question"),
        ((0, 50, 49, 100), "the server answered before it was asked"),
        ((0, 0, 200, 100), "the server took longer than the whole exchange"),
    ],
)
def test_stamps_that_cannot_be_are_implausible(stamps: tuple[int, int, int, int], why: str) -> None:
    """No pair of clocks gives these."""
    assert not ClockSample(*stamps).is_plausible, why


def test_an_exchange_without_any_time_is_plausible() -> None:
    """A coarse clock may give four equal stamps."""
    assert ClockSample(5, 9, 9, 5).is_plausible


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    offset=st.integers(-(10**15), 10**15),
    sent=st.integers(0, 10**15),
    up=st.integers(0, 10**9),
    processing=st.integers(0, 10**9),
    down=st.integers(0, 10**9),
)
def test_the_truth_is_always_inside_the_bound(offset: int, sent: int, up: int, processing: int, down: int) -> None:
    """Whatever the delays of the two directions, the true offset is within the half-width of the estimate."""
    received = sent + up + offset
    sample = ClockSample(sent, received, received + processing, sent + up + processing + down)
    assert sample.is_plausible
    assert abs(sample.offset_ns - offset) <= sample.half_width_ns
