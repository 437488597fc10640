"""Intervals over runs: against hand-computed numbers and scipy, and whether they hold the truth as often as they say."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import LEVEL, Estimate, Sample, mean, ratio


def interval(estimate: Estimate | None) -> tuple[float, float]:
    """Ends of an interval that has to be there."""
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def lognormal(rng: np.random.Generator, runs: int, median: float, sigma: float) -> Sample:
    """Runs whose geometric mean is `median`."""
    return Sample.of(rng.lognormal(math.log(median), sigma, runs))


class TestMean:
    """The mean over runs."""

    def test_three_runs_by_hand(self) -> None:
        """Of 1, 2 and 4 s: 2 s, times or divided by 2 to the power of 4.302653 / sqrt(3), thus 0.358 to 11.188 s."""
        found = mean(Sample.of([1, 2, 4]))
        assert found is not None
        assert found.value == pytest.approx(2)
        factor = 2 ** (4.302653 / math.sqrt(3))  # the logs' deviation is ln 2, t of 2 degrees of freedom 4.302653
        assert interval(found) == pytest.approx((2 / factor, 2 * factor), rel=1e-6)
        assert (found.runs, found.method) == ((3,), "Student's t on logs")

    def test_agrees_with_scipy(self) -> None:
        """Five runs get scipy's t interval of their logs."""
        values = [1.1, 0.9, 1.4, 1.0, 1.2]
        logs = np.log(values)
        low, high = stats.t.interval(LEVEL, len(values) - 1, loc=logs.mean(), scale=stats.sem(logs))
        assert interval(mean(Sample.of(values))) == pytest.approx((math.exp(low), math.exp(high)))

    def test_linear_scale_agrees_with_scipy(self) -> None:
        """An accuracy is averaged as it is; a value that is not positive leads there too, and is said."""
        values = [-0.2, 0.1, 0.3, 0.2]
        expected = stats.t.interval(LEVEL, 3, loc=np.mean(values), scale=stats.sem(values))
        chosen, forced = mean(Sample.of(values), "linear"), mean(Sample.of(values))
        assert interval(chosen) == pytest.approx(expected)
        assert interval(forced) == pytest.approx(expected)
        assert chosen is not None
        assert forced is not None
        assert chosen.method == "Student's t"
        assert forced.method == "Student's t, in place of logs since a value is not positive"

    def test_one_run_has_no_interval(self) -> None:
        """With one run there is a value, what the clocks leave open, and no interval."""
        found = mean(Sample.of([2.0], [0.5]))
        expected = Estimate(2.0, None, None, 1.5, 2.5, (1,), "one run: no interval can be given")
        assert found == expected

    def test_no_run_is_none(self) -> None:
        """Runs that lack the value leave nothing to estimate."""
        assert mean(Sample.of([math.nan, math.nan])) is None

    def test_equal_runs_have_an_interval_of_no_width(self) -> None:
        """Runs without any variation, few or many, give their value and nothing that is not a number."""
        assert interval(mean(Sample.of([2.0] * 3))) == pytest.approx((2, 2))
        assert interval(mean(Sample.of([2.0] * 12))) == pytest.approx((2, 2))

    def test_systematic_part_is_the_mean_of_the_ends(self) -> None:
        """1 and 4 s with 0.19 and 0.76 s: sqrt(0.81 * 3.24) = 1.62 to sqrt(1.19 * 4.76) = 2.38; an end below 0 says 0."""
        found = mean(Sample.of([1, 4], [0.19, 0.76]))
        assert found is not None
        assert [found.systematic_low, found.systematic_high] == pytest.approx([1.62, 2.38])
        found = mean(Sample.of([1, 4], [1.5, 0]))
        assert found is not None
        assert found.systematic_low == 0

    def test_bootstrap_of_ten_runs_agrees_with_its_definition(self) -> None:
        """From ten runs on the ends are the mean minus quantiles of (drawn mean - mean) / drawn error."""
        logs = np.log(np.random.default_rng(5).lognormal(0, 0.3, 10))
        rng = np.random.default_rng(0)
        draws = rng.choice(logs, (9_999, 10))
        distances = [(drawn.mean() - logs.mean()) / (drawn.std(ddof=1) / math.sqrt(10)) for drawn in draws]
        high, low = logs.mean() - np.quantile(distances, [0.025, 0.975]) * stats.sem(logs)
        found = mean(Sample.of(np.exp(logs)))
        assert found is not None
        assert found.method == "percentile-t bootstrap over runs on logs"
        assert np.log(interval(found)) == pytest.approx((low, high), abs=0.01)

    def test_same_runs_give_the_same_interval(self) -> None:
        """The bootstrap's draws are seeded."""
        sample = lognormal(np.random.default_rng(1), 12, 1.0, 0.2)
        assert mean(sample) == mean(sample)


class TestRatio:
    """How many times as long one group of runs takes as another."""

    def test_two_and_two_runs_by_hand(self) -> None:
        """Runs of 4 and 16 s over runs of 1 and 4 s: 8 s over 2 s; both deviate alike, so there are 2 degrees of freedom."""
        found = ratio(Sample.of([4, 16]), Sample.of([1, 4]))
        assert found is not None
        assert found.value == pytest.approx(4)
        factor = math.exp(4.302653 * math.log(2) * math.sqrt(2))  # each mean's error is ln 4 / sqrt(2) / sqrt(2)
        assert interval(found) == pytest.approx((4 / factor, 4 * factor), rel=1e-6)
        assert (found.runs, found.method) == ((2, 2), "Welch's t on logs")

    def test_agrees_with_scipy(self) -> None:
        """Groups of unlike size and deviation get the interval of scipy's Welch test on logs."""
        slow, fast = [3.1, 2.7, 4.0, 3.3, 2.9], [1.0, 1.6, 0.8]
        expected = stats.ttest_ind(np.log(slow), np.log(fast), equal_var=False).confidence_interval(LEVEL)
        assert np.log(interval(ratio(Sample.of(slow), Sample.of(fast)))) == pytest.approx(tuple(expected))

    def test_clocks_are_carried_into_the_ratio(self) -> None:
        """4 s +- 0.4 over 1 s +- 0.2: 4 times, by the clocks between 3.6 / 1.2 = 3 and 4.4 / 0.8 = 5.5."""
        found = ratio(Sample.of([4], [0.4]), Sample.of([1], [0.2]))
        assert found is not None
        assert found.value == pytest.approx(4)
        assert [found.low, found.high] == [None, None]
        assert [found.systematic_low, found.systematic_high] == pytest.approx([3, 5.5])
        assert found.method == "one run in a group: no interval can be given"

    def test_divisor_that_may_be_nothing_leaves_the_ratio_open(self) -> None:
        """A divisor within its half-width has no upper end; JSON writes it as null."""
        found = ratio(Sample.of([4], [0.4]), Sample.of([1], [1]))
        assert found is not None
        assert found.systematic_high == math.inf
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["systematic_high"] is None

    @pytest.mark.parametrize("divisor", [[], [1.0, -0.1], [0.0]])
    def test_no_ratio_to_what_is_not_positive(self, divisor: list[float]) -> None:
        """A negative one-way time has no logarithm, and an empty group no mean."""
        assert ratio(Sample.of([4.0, 5.0]), Sample.of(divisor)) is None

    def test_bootstrap_needs_ten_runs_in_both_groups(self) -> None:
        """Nine against thirty is Welch's; ten against thirty the bootstrap."""
        rng = np.random.default_rng(2)
        many = lognormal(rng, 30, 1.0, 0.2)
        for runs, method in ((9, "Welch's t on logs"), (10, "percentile-t bootstrap over runs on logs")):
            found = ratio(lognormal(rng, runs, 2.0, 0.2), many)
            assert found is not None
            assert found.method == method


@pytest.mark.parametrize("runs", [3, 5, 10, 30])
def test_intervals_hold_the_truth_as_often_as_they_say(runs: int) -> None:
    """Of 1,000 log-normal samples, 93 to 97% of the intervals hold the true geometric mean and the true ratio of two."""
    rng = np.random.default_rng(20)
    held = {"mean": 0, "ratio": 0}
    for _ in range(1_000):
        slow, fast = lognormal(rng, runs, 6.0, 0.5), lognormal(rng, runs, 2.0, 0.2)
        low, high = interval(mean(slow))
        held["mean"] += low <= 6.0 <= high
        low, high = interval(ratio(slow, fast))
        held["ratio"] += low <= 3.0 <= high
    assert 930 <= held["mean"] <= 970
    assert 930 <= held["ratio"] <= 970
