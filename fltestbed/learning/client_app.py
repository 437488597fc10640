"""The toolkit's own Flower ClientApp: train, evaluate before the upload, reply.

It runs wherever Flower runs a ClientApp. In the toolkit's trainer it reports when training and evaluation start and end; the
trainer stays for the whole run, so model and data are loaded once. Node configuration: ``partition-id``,
``num-partitions``, and ``trust-apps`` (see `fltestbed.learning.run_config`).

A reply to ``train`` holds ``arrays`` (the model) and ``metrics``: ``num-examples``, ``train-loss``, and for each data set in
``evaluation.client`` its ``<data>-loss`` and ``<data>-accuracy``, taken on the trained model. A reply to ``evaluate`` holds
``metrics`` of the model as received.
"""

import copy
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, MetricRecordValues, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fltestbed.config import Experiment
from fltestbed.errors import ConfigError
from fltestbed.learning.data import NUM_CLASSES, ClientData, Samples, load_client_data
from fltestbed.learning.models import build_model
from fltestbed.learning.names import MODELS, is_builtin_model
from fltestbed.learning.run_config import EXPERIMENT_KEY, TRUST_KEY, experiment_from, experiment_to, partition_from
from fltestbed.learning.training import Pacer, evaluate, train
from fltestbed.measure.events import span

app = ClientApp()

Metrics = dict[str, MetricRecordValues]


@dataclass(frozen=True)
class Bench:
    """What a client keeps between rounds.

    Attributes
    ----------
    experiment : Experiment
    partition_id : int
    model : nn.Module
        Its weights are those of the last round; each round overwrites them.
    data : ClientData
    pacer : Pacer
    """

    experiment: Experiment
    partition_id: int
    model: nn.Module
    data: ClientData
    pacer: Pacer


def prepare(context: Context) -> Bench:
    """Load model and data of this client and warm PyTorch up; at once when that was done before in this process.

    The trainer may call it before the first message comes. The app calls it itself otherwise, outside of what counts as
    training.

    Raises
    ------
    ConfigError
        The run or node configuration cannot be used, or the experiment names code that this client does not trust.
    HostError
        This host lacks the data set.
    """
    experiment = experiment_from(context.run_config)
    partition_id, partitions = partition_from(context.node_config)
    name = experiment.model.name
    if not is_builtin_model(name) and context.node_config.get(TRUST_KEY) is not True:
        raise ConfigError(
            f"model.name: {name!r} is not one of the toolkit's own ({', '.join(MODELS)}), and this client "
            "runs code that a server names only with --trust-apps; start it with that flag if you trust the server"
        )
    return _bench(str(experiment_to(experiment)[EXPERIMENT_KEY]), partition_id, partitions)


@lru_cache(maxsize=1)  # the process serves one client of one run; more would keep data that nobody needs
def _bench(text: str, partition_id: int, partitions: int) -> Bench:
    experiment = experiment_from({EXPERIMENT_KEY: text})
    if experiment.training.threads:
        torch.set_num_threads(experiment.training.threads)
    data = load_client_data(experiment.data, experiment.seed, partition_id, partitions)
    for name in experiment.evaluation.client:
        if not len(getattr(data, name)):
            raise ConfigError(
                f"data.{name}-fraction: 0 leaves nothing for evaluation.client = {name!r}; raise it, or drop {name!r}"
            )
    model = build_model(experiment.model.name, NUM_CLASSES, experiment.seed)
    _warm_up(model, data.train, experiment)
    return Bench(experiment, partition_id, model, data, Pacer.of_client(experiment.pacing, partition_id))


def _warm_up(model: nn.Module, samples: Samples, experiment: Experiment) -> None:
    """Let PyTorch pick its kernels for these shapes, on a copy, so that the first round does not pay for it."""
    first = slice(0, experiment.training.batch_size)
    few = Samples(samples.images[first], samples.labels[first])
    scratch = copy.deepcopy(model)
    train(scratch, few, experiment.training.model_copy(update={"local_epochs": 1}), seed=0)
    evaluate(scratch, few)


@app.train()
def train_message(message: Message, context: Context) -> Message:
    """Train the received model on this client's data and reply with the result."""
    bench = prepare(context)
    config = message.content["config"]
    server_round, proximal_mu = _number(config, "server-round"), _number(config, "proximal-mu")
    seed = np.random.SeedSequence([bench.experiment.seed, int(server_round), bench.partition_id]).generate_state(1)[0]
    with span("train"):
        _load(bench.model, message)
        loss = train(
            bench.model,
            bench.data.train,
            bench.experiment.training,
            seed=int(seed),
            proximal_mu=proximal_mu,
            pacer=bench.pacer,
        )
    metrics: Metrics = {
        "num-examples": len(bench.data.train),
        "train-loss": loss,
        **_evaluate(bench, bench.experiment.evaluation.client),
    }
    arrays = ArrayRecord(bench.model.state_dict())
    return Message(content=RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=message)


@app.evaluate()
def evaluate_message(message: Message, context: Context) -> Message:
    """Evaluate the received model on this client's data and reply with the metrics."""
    bench = prepare(context)
    _load(bench.model, message)
    names = bench.experiment.evaluation.client
    if not names:
        raise ConfigError("evaluation.client: empty, but the strategy asks clients to evaluate; add validation or test")
    metrics: Metrics = {"num-examples": len(getattr(bench.data, names[0])), **_evaluate(bench, names)}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def _evaluate(bench: Bench, names: tuple[str, ...]) -> Metrics:
    metrics: Metrics = {}
    for name in names:
        with span("evaluate", name):
            scores = evaluate(bench.model, getattr(bench.data, name))
        metrics |= {f"{name}-loss": scores.loss, f"{name}-accuracy": scores.accuracy}
    return metrics


def _load(model: nn.Module, message: Message) -> None:
    arrays = message.content["arrays"]
    if not isinstance(arrays, ArrayRecord):
        raise ConfigError(f"message from the server: arrays is a {type(arrays).__name__}, not an ArrayRecord")
    try:
        model.load_state_dict(arrays.to_torch_state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"message from the server: its model of {len(arrays)} tensors does not fit this client's of "
            f"{len(model.state_dict())}; server and client need the same version of what model.name stands for"
        ) from error


def _number(config: object, key: str) -> float:
    value = config.get(key, 0) if isinstance(config, ConfigRecord) else 0
    return float(value) if isinstance(value, int | float) else 0.0
