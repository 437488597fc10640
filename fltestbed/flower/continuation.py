"""Flower's `Strategy.start` between two rounds: told when one is over, and begun where a run was broken off.

Flower's loop counts from 1 and knows no state to begin with. A run that goes on after round 4 is started with the model of
round 4, so many rounds fewer, and a strategy whose state was put back; its steps are called with the numbers of the run, 5
and up. Flower's own log and nothing else counts from 1.
"""

import inspect
from collections.abc import Callable
from typing import Any, Protocol

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Result, Strategy

_BY_ROUND = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")


class RoundKeeper(Protocol):
    """Keeps what a run can go on from."""

    def begin(self, strategy: Strategy) -> tuple[int, ArrayRecord] | None:
        """Put the strategy's state back; returns the last round that is over and its model, None for a new run."""

    def round_over(self, round_: int, arrays: ArrayRecord, strategy: Strategy) -> None:
        """Everything that belongs to a round is done; `arrays` is the global model."""


class Continuation:
    """One call of `Strategy.start`.

    Parameters
    ----------
    strategy : Strategy
    call : inspect.BoundArguments
        Its arguments, which are changed for a run that goes on.
    keeper : RoundKeeper or None
        None keeps nothing.
    """

    def __init__(self, strategy: Strategy, call: inspect.BoundArguments, keeper: RoundKeeper | None) -> None:
        call.apply_defaults()
        self._strategy = strategy
        self._keeper = keeper
        self._has_evaluation = call.arguments["evaluate_fn"] is not None
        self._arrays: ArrayRecord = call.arguments["initial_arrays"]
        self.done = 0
        """Rounds that were over before."""
        begun = keeper.begin(strategy) if keeper is not None else None
        if begun is not None:
            self.done, self._arrays = begun
            call.arguments["initial_arrays"] = self._arrays
            call.arguments["num_rounds"] = max(0, call.arguments["num_rounds"] - self.done)

    def once(self, evaluate: Callable[..., Any]) -> Callable[..., Any]:
        """The evaluation of the model, without Flower's call before the first round where that one was evaluated before."""

        def evaluate_fn(server_round: int, *args: Any, **kwargs: Any) -> Any:
            return None if server_round == 0 and self.done else evaluate(server_round, *args, **kwargs)

        return evaluate_fn

    def step_over(self, name: str, round_: int, result: Any) -> None:
        """A step is over, by the run's number of the round; the last one of a round ends it."""
        if name == "aggregate_train" and result[0] is not None:
            self._arrays = result[0]
        last = "server_evaluate" if self._has_evaluation else "aggregate_evaluate"
        if self._keeper is not None and name == last and round_ > self.done:
            self._keeper.round_over(round_, self._arrays, self._strategy)

    def finished(self, result: Result) -> Result:
        """What Flower returns, with the run's numbers of rounds."""
        if self.done:
            for name in _BY_ROUND:
                setattr(result, name, {round_ + self.done: metrics for round_, metrics in getattr(result, name).items()})
            result.arrays = result.arrays or self._arrays
        return result
