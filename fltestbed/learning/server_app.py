"""The toolkit's own Flower ServerApp: an experiment's model, strategy and held-out data, in Flower's `Strategy.start`."""

import logging
import math
import random
from collections.abc import Callable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from torch import nn

from fltestbed.learning.data import NUM_CLASSES, Samples, load_server_data
from fltestbed.learning.early_stopping import EarlyStop, Watch, check_reported
from fltestbed.learning.models import build_model
from fltestbed.learning.run_config import experiment_from
from fltestbed.learning.strategies import build_strategy
from fltestbed.learning.training import evaluate

logger = logging.getLogger(__name__)
app = ServerApp()

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run configuration holds.

    Raises
    ------
    ConfigError, HostError
        The experiment cannot be run here; raised before any client is asked for anything.
    """
    experiment = experiment_from(context.run_config)
    if experiment.training.threads:
        torch.set_num_threads(experiment.training.threads)
    random.seed(experiment.seed)  # Flower's strategies draw their clients from this generator
    model = build_model(experiment.model.name, NUM_CLASSES, experiment.seed)
    strategy = build_strategy(experiment)
    data = load_server_data(experiment.data, experiment.seed) if experiment.evaluation.server else None
    watch = None
    if experiment.early_stopping is not None:
        check_reported(experiment.early_stopping, experiment.evaluation)
        watch = Watch(experiment.early_stopping, experiment.rounds)
        watch.observe(strategy)
    try:
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(model.state_dict()),
            num_rounds=experiment.rounds,
            timeout=math.inf,  # the server has deadlines of its own, which answer for a client that does not
            train_config=ConfigRecord(),
            evaluate_fn=evaluation(model, data, watch),
        )
    except EarlyStop as stop:
        logger.info("%s", stop)


def evaluation(model: nn.Module, data: Samples | None, watch: Watch | None) -> EvaluateFn | None:
    """Return the function that Flower calls with the global model before the first round and after each.

    Parameters
    ----------
    model : nn.Module
        Its weights are overwritten by those to be evaluated.
    data : Samples or None
        The server's; None to evaluate nothing.
    watch : Watch or None
        Ends the run early by `EarlyStop`.

    Returns
    -------
    callable or None
        Gives ``loss`` and ``accuracy`` (0 to 1), or None without data. None when there is nothing to do at all.
    """
    if data is None and watch is None:
        return None

    def evaluate_fn(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        metrics = None
        if data is not None:
            model.load_state_dict(arrays.to_torch_state_dict())
            scores = evaluate(model, data)
            metrics = MetricRecord({"loss": scores.loss, "accuracy": scores.accuracy})
            logger.info("round %d: accuracy %.3f, loss %.3f", server_round, scores.accuracy, scores.loss)
        if watch is not None:
            watch.check(server_round, metrics)
        return metrics

    return evaluate_fn
