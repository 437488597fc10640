"""A client's clock on the server's: the bound contains the truth."""

import numpy as np
import pandas as pd
import pytest

from analysis.mapping import _least_slope, began_anew, fit

STAMPS = ["client_send_raw_ns", "server_receive_raw_ns", "server_send_raw_ns", "client_receive_raw_ns"]
MS = 1_000_000


def samples(*rows: tuple[int, int, int, int]) -> pd.DataFrame:
    """Rows of clock_samples.csv."""
    return pd.DataFrame(rows, columns=STAMPS, dtype="Int64")


def test_one_exchange_gives_cristians_formulas() -> None:
    """By hand: offset = ((t1 - t0) + (t2 - t3)) / 2 and half-width = ((t3 - t0) - (t2 - t1)) / 2."""
    mapping = fit(samples((100, 1103, 1110, 111)), drift_bound_ppm=0)
    assert mapping is not None
    offset, half_width = mapping.offset(np.array([100, 105, 5000]))
    assert offset.tolist() == [1001, 1001, 1001]  # ((1103 - 100) + (1110 - 111)) / 2
    assert half_width.tolist() == [2, 2, 2]  # ((111 - 100) - (1110 - 1103)) / 2


def test_half_width_grows_with_the_distance_from_the_samples() -> None:
    """Away from the samples the drift bound times the distance is added: 100 ppm of a second is 0.1 ms."""
    mapping = fit(samples((0, 5 * MS, 5 * MS, 10 * MS)), drift_bound_ppm=100)
    assert mapping is not None
    _, half_width = mapping.offset(np.array([1_000 * MS, 2_000 * MS]))
    assert half_width[1] - half_width[0] == pytest.approx(0.1 * MS, abs=1)
    assert half_width[0] == pytest.approx(5 * MS + 0.0995 * MS, abs=2)  # 1000 ms after t0, 990 ms after t3: 995 in the mean


def test_good_samples_decide_and_slow_ones_change_nothing() -> None:
    """A congested exchange between two quick ones neither moves the mapping nor widens it."""
    quick = [(0, 1001, 1001, 2), (2000, 3001, 3001, 2002)]
    slow = (1000, 1000 + 1000 + 900, 1000 + 1000 + 900, 1000 + 901)
    at = np.array([1, 1000, 2001])
    with_slow, without = fit(samples(quick[0], slow, quick[1])), fit(samples(*quick))
    assert with_slow is not None
    assert without is not None
    assert [values.tolist() for values in with_slow.offset(at)] == [values.tolist() for values in without.offset(at)]
    assert with_slow.offset(at)[0].tolist() == [1000, 1000, 1000]


def test_long_poll_is_no_worse_than_a_short_exchange() -> None:
    """An answer that is held for 20 s bounds the offset at both its ends, without 20 s of drift."""
    hold = 20_000 * MS
    mapping = fit(samples((0, 101 * MS, 101 * MS + hold, hold + 2 * MS)), drift_bound_ppm=100)
    assert mapping is not None
    _, half_width = mapping.offset(np.array([0, hold + 2 * MS]))
    assert (
        half_width <= 1 * MS + 1.01 * MS
    ).all()  # half the round trip, and the drift of the other end: 20 s * 100 ppm / 2


@pytest.mark.parametrize("seed", range(5))
def test_truth_is_inside_the_bound_whatever_the_asymmetry(seed: int) -> None:
    """With drift within its bound and delays that differ by way and time, the true offset is never outside."""
    random = np.random.default_rng(seed)
    zero, drift = 3_600_000_000_000, random.uniform(-90e-6, 90e-6)

    def client_raw(true_ns: np.ndarray) -> np.ndarray:
        return zero + true_ns + np.rint(true_ns * drift).astype(np.int64)

    sent = np.sort(random.integers(0, 300_000 * MS, 200))
    up, down = random.exponential(20 * MS, 200).astype(np.int64), random.exponential(4 * MS, 200).astype(np.int64)
    rows = np.stack([client_raw(sent), sent + up, sent + up + MS, client_raw(sent + up + MS + down)], axis=1)
    mapping = fit(pd.DataFrame(rows, columns=STAMPS, dtype="Int64"))
    assert mapping is not None
    assert mapping.samples == 200
    moments = random.integers(-10_000 * MS, 310_000 * MS, 1000)
    offset, half_width = mapping.offset(client_raw(moments))
    error = np.abs(client_raw(moments) + offset - moments)
    assert (error <= half_width + 1).all()
    inside = (moments > 5_000 * MS) & (moments < 295_000 * MS)
    assert np.median(half_width[inside]) < 2 * MS  # far under the 12 ms of a typical exchange
    assert mapping.contradiction_ns == 0


def test_clocks_that_drift_too_much_contradict_the_bound() -> None:
    """A clock that loses 1 ms within a second, ten times the bound, is noticed where every sample meets its neighbour."""
    at = np.arange(0, 4_000 * MS, 10 * MS)
    rows = np.stack([at, at - at // 1000 + 50_000, at - at // 1000 + 50_000, at + 100_000], axis=1)
    mapping = fit(pd.DataFrame(rows, columns=STAMPS, dtype="Int64"))
    assert mapping is not None
    assert mapping.contradiction_ns > 0 or mapping.left_out > 0


def test_samples_that_most_others_contradict_are_left_out_and_counted() -> None:
    """Three exchanges say 1000 ns, one says a second: three are used."""
    lie = (4000, 5000 + 1_000 * MS, 5000 + 1_000 * MS, 4010)
    mapping = fit(samples((0, 1005, 1005, 10), lie, (2000, 3005, 3005, 2010), (6000, 7005, 7005, 6010)))
    assert mapping is not None
    assert (mapping.samples, mapping.left_out, mapping.contradiction_ns) == (3, 1, 0)
    assert mapping.offset(np.array([4000]))[0].tolist() == [1000]


def test_drift_is_the_slopes_between_bounds() -> None:
    """By hand: 10 us of round trip, 20 ppm, 1 s apart. From the lower bound at 10 us, -5 us, to the upper at 1 s, 25 us:
    30 us in 0.99999 s; from the upper at 0, 5 us, to the lower at 1.00001 s, 15 us: 10 us. And 10 ppm of wander each.
    """
    mapping = fit(
        samples((0, 5_000, 5_000, 10_000), (1_000 * MS, 1_000 * MS + 25_000, 1_000 * MS + 25_000, 1_000 * MS + 10_000))
    )
    assert mapping is not None
    assert mapping.fastest_ppm == pytest.approx(30 / 0.99999 + 10)
    assert mapping.slowest_ppm == pytest.approx(10 / 1.00001 - 10)


def test_a_steady_drift_narrows_what_lies_ahead() -> None:
    """After 100 s of quiet exchanges the half-width grows by the wander bound, 10 ppm, and not by 100 ppm."""
    at = np.arange(0, 100_000 * MS, 1_000 * MS)
    server = at + at // 50_000  # 20 ppm
    rows = np.stack([at, server + 50_000, server + 50_000, at + 100_000], axis=1)
    mapping = fit(pd.DataFrame(rows, columns=STAMPS, dtype="Int64"))
    assert mapping is not None
    assert mapping.slowest_ppm < 20 < mapping.fastest_ppm
    assert mapping.fastest_ppm - mapping.slowest_ppm < 2 * 10 + 2.1  # 0.1 ms of round trip over 99 s, twice
    ahead = np.array([99_000 * MS, 199_000 * MS])
    offset, half_width = mapping.offset(ahead)
    assert abs(offset[1] - ahead[1] // 50_000) <= half_width[1] < 50_000 + 100_000_000_000 * 11.05e-6


@pytest.mark.parametrize("seed", range(3))
def test_the_least_slope_is_that_of_all_pairs(seed: int) -> None:
    """The quick search finds what trying every pair finds."""
    random = np.random.default_rng(seed)
    start, end = random.uniform(0, 1e9, 60), random.uniform(0, 1e9, 60)
    low, high = random.uniform(-1e6, 0, 60), random.uniform(0, 1e6, 60)
    pairs = (high[None, :] - low[:, None]) / np.where(end[None, :] > start[:, None], end[None, :] - start[:, None], np.nan)
    assert _least_slope(start, low, end, high, 1.0) == pytest.approx(float(np.nanmin(pairs)))


def test_impossible_and_incomplete_stamps_are_left_out() -> None:
    """Stamps that are missing, or an answer before its request, say nothing."""
    impossible = samples((0, 20, 10, 30), (0, 0, 100, 50))
    assert fit(impossible) is None
    incomplete = impossible.head(1).copy()
    incomplete["server_receive_raw_ns"] = pd.array([pd.NA], dtype="Int64")
    assert fit(incomplete) is None


def test_stamps_of_hosts_that_have_been_up_for_years_lose_nothing() -> None:
    """Values beyond the exact range of a float are mapped to the nanosecond."""
    zero = 4 * 10**17 + 3
    mapping = fit(samples((zero, 103, 110, zero + 11)))
    assert mapping is not None
    offset, _ = mapping.offset(np.array([zero + 5]))
    assert offset.tolist() == [101 - zero]


def test_a_clock_that_goes_far_back_has_begun_anew() -> None:
    """A host that was started again counts from zero; rows that are told seconds late are of the same clock."""
    hour = 3_600_000 * MS
    late = samples((hour, 1, 1, hour), (hour + 9_000 * MS, 2, 2, hour), (hour + 2_000 * MS, 3, 3, hour))
    assert not began_anew(late)
    assert began_anew(samples((hour, 1, 1, hour), (12_000 * MS, 2, 2, 12_001 * MS)))


def test_samples_that_were_collected_later_are_of_the_same_clock() -> None:
    """A sample of an hour ago, added to the end of the file, is no restart: the server was an hour younger as well."""
    hour = 3_600_000 * MS
    assert not began_anew(samples((2 * hour, hour, hour, 2 * hour), (hour, 1, 1, hour)))
