"""When a run ends before its last round."""

import math

import pytest
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg

from fltestbed.config import EarlyStopping, Evaluation
from fltestbed.errors import ConfigError
from fltestbed.learning.early_stopping import EarlyStop, Patience, Watch, check_reported


def rule_of(**keys: object) -> EarlyStopping:
    return EarlyStopping.model_validate({key.replace("_", "-"): value for key, value in keys.items()})


@pytest.mark.parametrize(
    ("metric", "min_delta", "values", "stops_at"),
    [
        ("loss", 0.0, [3.0, 2.0, 2.0, 2.1, 1.0], 4),
        ("loss", 0.0, [3.0, 2.0, 2.1, 1.9, 2.0, 1.8], None),
        ("accuracy", 0.0, [0.1, 0.5, 0.4, 0.5], 4),
        ("validation-accuracy", 0.1, [0.1, 0.15, 0.19], 3),
        ("validation-loss", 0.0, [1.0, math.nan, math.nan], 3),
        ("loss", 0.0, [math.nan, math.nan], 2),
    ],
)
def test_patience_of_two_rounds(metric: str, min_delta: float, values: list[float], stops_at: int | None) -> None:
    """Counted by hand: equal is not better, better by min_delta or less is not better, NaN is never better."""
    patience = Patience(rule_of(metric=metric, patience=2, min_delta=min_delta))
    ends = [number for number, value in enumerate(values, start=1) if patience.update(value)]
    assert next(iter(ends), None) == stops_at


def test_the_servers_metric_ends_the_run_after_a_whole_round() -> None:
    """The exception carries the round and its metrics; the model before the first round is not judged."""
    watch = Watch(rule_of(metric="loss", patience=1), last_round=5)
    watch.check(0, MetricRecord({"loss": 0.1}))
    watch.check(1, MetricRecord({"loss": 2.0}))
    last = MetricRecord({"loss": 3.0})
    with pytest.raises(EarlyStop, match=r"after round 2: for 1 rounds loss has not got better than 2.0") as caught:
        watch.check(2, last)
    assert (caught.value.server_round, caught.value.metrics) == (2, last)


def test_the_last_round_needs_no_early_end() -> None:
    """A run that is over anyway ends in the ordinary way."""
    watch = Watch(rule_of(metric="loss", patience=1), last_round=2)
    watch.check(1, MetricRecord({"loss": 1.0}))
    watch.check(2, MetricRecord({"loss": 2.0}))
    assert watch.patience.rounds == 1


def test_the_clients_metric_is_read_along_with_the_aggregation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the strategy aggregates goes through unchanged; a round without replies is not counted."""
    losses = iter([1.0, None, 1.5])

    def aggregate(*args: object) -> tuple[ArrayRecord | None, MetricRecord | None]:
        loss = next(losses)
        return (None, None) if loss is None else (ArrayRecord(), MetricRecord({"validation-loss": loss}))

    strategy = FedAvg()
    monkeypatch.setattr(strategy, "aggregate_train", aggregate)
    watch = Watch(rule_of(metric="validation-loss", patience=1), last_round=9)
    watch.observe(strategy)
    assert strategy.aggregate_train(1, []) == (ArrayRecord(), MetricRecord({"validation-loss": 1.0}))
    watch.check(1, None)
    strategy.aggregate_train(2, [])
    watch.check(2, None)
    assert watch.patience.rounds == 0
    strategy.aggregate_train(3, [])
    with pytest.raises(EarlyStop):
        watch.check(3, None)


def test_a_metric_that_nobody_reports_is_refused() -> None:
    """The message says which switch is missing."""
    silent = Evaluation.model_validate({"client": ["test"], "server": False})
    with pytest.raises(ConfigError, match=r"'accuracy' is the server's: set evaluation.server = true"):
        check_reported(rule_of(metric="accuracy"), silent)
    with pytest.raises(ConfigError, match=r"'validation-loss' is the clients': add \"validation\" to evaluation.client"):
        check_reported(rule_of(metric="validation-loss"), silent)
    check_reported(rule_of(metric="validation-loss"), Evaluation())
