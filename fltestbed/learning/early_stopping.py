"""When a run ends before its last round: the watched metric has stopped getting better.

Flower's strategies know no early end. `Strategy.start` can be left from one place for any of them, the function that
evaluates the global model, and by one means, an exception; `EarlyStop` is that exception, and no failure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import MetricRecord
from flwr.serverapp.strategy import Strategy

from fltestbed.config import EarlyStopping, Evaluation
from fltestbed.errors import ConfigError


class EarlyStop(Exception):
    """Ends a run on purpose.

    Attributes
    ----------
    server_round : int
        The last round, which is whole.
    metrics : MetricRecord or None
        What the server found in that round: `Strategy.start`, which would have kept it, was left.
    """

    def __init__(self, reason: str, server_round: int, metrics: MetricRecord | None) -> None:
        super().__init__(reason)
        self.server_round = server_round
        self.metrics = metrics


@dataclass
class Patience:
    """Counts the rounds in which a metric did not get better.

    Attributes
    ----------
    rule : EarlyStopping
        The metric's name says which way is better: up for an accuracy, down for a loss.
    best : float or None
        Best value so far.
    rounds : int
        Rounds since then.
    """

    rule: EarlyStopping
    best: float | None = None
    rounds: int = 0

    def update(self, value: float) -> bool:
        """Take the value of one more round and return whether patience is at its end. NaN is never better."""
        sign = 1.0 if self.rule.metric.endswith("accuracy") else -1.0
        if not math.isnan(value) and (self.best is None or sign * (value - self.best) > self.rule.min_delta):
            self.best, self.rounds = value, 0
        else:
            self.rounds += 1
        return self.rounds >= self.rule.patience


@dataclass
class Watch:
    """Watches the metric of a rule over a run.

    `observe` collects what the clients report, aggregated by the strategy; `check` is called once a round, after it.
    """

    rule: EarlyStopping
    last_round: int
    patience: Patience = field(init=False)
    _aggregated: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.patience = Patience(self.rule)

    def observe(self, strategy: Strategy) -> None:
        """Read along what `strategy` aggregates, whatever its class."""
        aggregate_train, aggregate_evaluate = strategy.aggregate_train, strategy.aggregate_evaluate

        def train(*args: Any, **kwargs: Any) -> Any:
            arrays, metrics = aggregate_train(*args, **kwargs)
            self._aggregated.update(metrics or {})
            return arrays, metrics

        def evaluate(*args: Any, **kwargs: Any) -> Any:
            metrics = aggregate_evaluate(*args, **kwargs)
            self._aggregated.update(metrics or {})
            return metrics

        # So that it is known that neither wants anything of the replies: they may come without their arrays.
        train.reads_no_replies = evaluate.reads_no_replies = True  # type: ignore[attr-defined]
        strategy.aggregate_train, strategy.aggregate_evaluate = train, evaluate  # type: ignore[method-assign]  # of this object alone
        vars(strategy)["early_stopping"] = self.patience  # an attribute of the strategy is in its checkpoints

    def check(self, server_round: int, metrics: MetricRecord | None) -> None:
        """Judge the round that has ended.

        Parameters
        ----------
        server_round : int
            0 for the model before the first, which is not judged.
        metrics : MetricRecord or None
            The server's own, for the metrics ``accuracy`` and ``loss``.

        Raises
        ------
        EarlyStop
            The metric has not got better for `rule.patience` rounds, and there would have been another round.
        """
        watched: Mapping[str, Any] = (metrics or {}) if self.rule.metric in {"accuracy", "loss"} else self._aggregated
        value = watched.get(self.rule.metric)
        self._aggregated = {}
        if server_round == 0 or value is None:  # no reply in time: nothing was learned about the model
            return
        if self.patience.update(float(value)) and server_round < self.last_round:
            raise EarlyStop(
                f"early stop after round {server_round}: for {self.patience.rounds} rounds {self.rule.metric} has not got "
                f"better than {self.patience.best} by more than {self.rule.min_delta}",
                server_round,
                metrics,
            )


def check_reported(rule: EarlyStopping, evaluation: Evaluation) -> None:
    """Check that somebody reports the metric to watch; `ConfigError` otherwise."""
    if rule.metric in {"accuracy", "loss"}:
        if not evaluation.server:
            raise ConfigError(f"early-stopping.metric: {rule.metric!r} is the server's: set evaluation.server = true")
    elif "validation" not in evaluation.client:
        raise ConfigError(f'early-stopping.metric: {rule.metric!r} is the clients\': add "validation" to evaluation.client')
