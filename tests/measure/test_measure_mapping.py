"""The clock mapping: numbers by hand, and a bound that contains the truth."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fltestbed.measure.mapping import MOST_BOUNDS, ClockMapping, ClockSample, Estimate

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
    """10 s away from the sample the half-width has grown by 1 ms (and 10 ns of drift over its 200 ns, rounded up)."""
    mapping = ClockMapping()
    assert mapping.add(ClockSample(20 * SECOND, 50 * SECOND + 100, 50 * SECOND + 100, 20 * SECOND + 200))
    at = 20 * SECOND + 200
    assert mapping.at(at) == Estimate(30 * SECOND, 101)
    assert mapping.at(at + 10 * SECOND) == Estimate(30 * SECOND, 1_000_101)
    assert mapping.at(at - 200 - 10 * SECOND) == Estimate(30 * SECOND - 1, 1_000_101)  # an odd sum, rounded down


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


def test_samples_of_two_paths_bound_the_offset_together() -> None:
    """One path is quick up, the other quick down: at most 5100 from the one, at least 4900 from the other."""
    mapping = ClockMapping()
    mapping.add(ClockSample(0, 5100, 5100, 90_100))  # 100 ns up, 90 us down: 4900 - 89_900 .. 5100
    mapping.add(ClockSample(0, 95_000, 95_000, 90_100))  # 90 us up, 100 ns down: 4900 .. 95_000
    estimate = mapping.at(45_000)
    assert estimate is not None
    assert (estimate.offset_ns, estimate.half_width_ns) == (5000, 105)  # 4.5 and 4.51 ns of drift on either side, rounded up


def test_drift_is_learnt_from_exchanges_far_apart() -> None:
    """By hand: 10 us of round trip, 20 ppm, 1 s apart, as between 10 - 10 and 30 + 10 ppm; see the analysis' own test."""
    mapping = ClockMapping()
    mapping.add(ClockSample(0, 5_000, 5_000, 10_000))
    mapping.add(ClockSample(SECOND, SECOND + 25_000, SECOND + 25_000, SECOND + 10_000))
    estimate = mapping.at(SECOND)
    assert estimate is not None
    assert estimate.drift_ppm == pytest.approx((30 / 0.99999 + 10 / 1.00001) / 2)
    assert estimate.drift_bound_ppm == pytest.approx((30 / 0.99999 - 10 / 1.00001) / 2 + 10)


def test_a_drift_that_wanders_further_than_is_believed_is_not_used() -> None:
    """60 ppm for 10 s, then -60: the fixed bound is left, and the truth stays inside."""
    mapping, estimate = ClockMapping(), None
    for tenth in range(200):
        at = tenth * SECOND // 10
        truth = (min(tenth, 100) - max(tenth - 100, 0)) * 6_000
        mapping.add(ClockSample(at, at + truth + 1_000, at + truth + 1_000, at + 2_000))
        estimate = mapping.at(at + 1_000)
        assert estimate is not None
        assert abs(estimate.offset_ns - truth) <= estimate.half_width_ns
    assert estimate is not None
    assert (estimate.drift_ppm, estimate.drift_bound_ppm) == (0, 100)


def test_a_sample_that_contradicts_the_others_is_put_aside() -> None:
    """An offset that is suddenly a second more: the estimate does not move, and the next true sample is taken."""
    mapping = ClockMapping()
    mapping.add(ClockSample(0, 5_000, 5_000, 100))
    lie = ClockSample(1000, SECOND, SECOND, 1100)
    before = mapping.at(2000)
    assert mapping.contradicts(lie)
    assert mapping.add(lie) is False
    assert mapping.at(2000) == before
    assert not mapping.contradicts(ClockSample(2000, 7_000, 7_000, 2100))


def test_a_host_that_was_started_again_is_believed_after_three_samples() -> None:
    """Its clock counts from another zero, and all its samples say so."""
    mapping = ClockMapping()
    mapping.add(ClockSample(900 * SECOND, 950 * SECOND, 950 * SECOND, 900 * SECOND + 100))
    taken = [
        mapping.add(ClockSample(n * SECOND, (960 + n) * SECOND, (960 + n) * SECOND, n * SECOND + 100)) for n in (1, 2, 3)
    ]
    assert taken == [False, False, True]
    estimate = mapping.at(3 * SECOND)
    assert estimate is not None
    assert abs(estimate.offset_ns - 960 * SECOND) <= estimate.half_width_ns < 1000


def test_a_long_run_costs_no_more_than_a_short_one() -> None:
    """Of 2,000 samples 256 are kept in each direction, and the truth stays inside."""
    mapping = ClockMapping()
    for n in range(2000):
        mapping.add(ClockSample(n * SECOND, n * SECOND + 5_000, n * SECOND + 5_000, n * SECOND + 10_000))
    assert max(mapping._upper.count, mapping._lower.count) <= MOST_BOUNDS
    estimate = mapping.at(1999 * SECOND)
    assert estimate is not None
    assert abs(estimate.offset_ns) <= estimate.half_width_ns < 5_100


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    drift_ppm=st.floats(-100, 100),
    zero=st.integers(-(10**15), 10**15),
    delays=st.lists(
        st.tuples(st.integers(0, 10**8), st.integers(0, 10**8), st.integers(1, 10**10)), min_size=1, max_size=30
    ),
)
def test_the_truth_stays_inside_with_drift_and_any_delays(
    drift_ppm: float, zero: int, delays: list[tuple[int, int, int]]
) -> None:
    """Whatever the delays of each exchange: at every stamp and between them the true offset is within the half-width."""

    def server(client_ns: int) -> int:
        return client_ns + zero + round(client_ns * drift_ppm / 1e6)

    mapping, at = ClockMapping(), 0
    for up, down, pause in delays:
        mapping.add(ClockSample(at, server(at + up), server(at + up), at + up + down))
        for moment in (at, at + up + down, at + up + down + pause):
            estimate = mapping.at(moment)
            assert estimate is not None
            assert abs(estimate.offset_ns + moment - server(moment)) <= estimate.half_width_ns + 2  # of rounding the truth
        at += up + down + pause


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
