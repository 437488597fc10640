"""ClientApp and ServerApp together, without a network."""

import logging
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.config import Experiment
from fltestbed.errors import ConfigError
from fltestbed.learning import client_app, server_app
from fltestbed.learning.models import build_model
from fltestbed.learning.run_config import experiment_from, experiment_to
from fltestbed.measure.events import Span, listening

ExperimentOf = Callable[..., Experiment]
ContextOf = Callable[..., Context]
GridOf = Callable[..., Any]


def message_of(experiment: Experiment, kind: str = MessageType.TRAIN, server_round: int = 1) -> Message:
    model = build_model(experiment.model.name, 10, experiment.seed)
    records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {
        "arrays": ArrayRecord(model.state_dict()),
        "config": ConfigRecord({"server-round": server_round}),
    }
    return Message(content=RecordDict(records), dst_node_id=1, message_type=kind)


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts as a new trainer does, and as a ServerApp that Flower has told who it is."""
    client_app._bench.cache_clear()
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def test_a_train_reply_holds_model_and_metrics(experiment_of: ExperimentOf, context_of: ContextOf) -> None:
    """160 of 200 digits are the two clients', 80 each: 64 to train on, 8 for validation, 8 for test."""
    experiment = experiment_of()
    message = message_of(experiment)
    reply = client_app.app(message, context_of(experiment))
    metrics, arrays = reply.content["metrics"], reply.content["arrays"]
    assert isinstance(metrics, MetricRecord)
    assert isinstance(arrays, ArrayRecord)
    expected = {"num-examples", "train-loss", "validation-loss", "validation-accuracy", "test-loss", "test-accuracy"}
    assert set(metrics) == expected
    assert metrics["num-examples"] == 64
    sent = message.content["arrays"]
    assert isinstance(sent, ArrayRecord)
    assert list(arrays) == list(sent)
    assert not torch.equal(arrays.to_torch_state_dict()["0.weight"], sent.to_torch_state_dict()["0.weight"])


def test_spans_cover_the_work_and_nothing_else(experiment_of: ExperimentOf, context_of: ContextOf) -> None:
    """One train span, then one for each evaluation, in order and apart; loading data is in none of them."""
    experiment = experiment_of(pacing={"seconds-per-epoch": [0.05]})
    spans: list[Span] = []
    with listening(spans.append):
        client_app.prepare(context_of(experiment))
        assert spans == []
        client_app.app(message_of(experiment), context_of(experiment))
    assert [(span.phase, span.detail) for span in spans] == [("train", ""), ("evaluate", "validation"), ("evaluate", "test")]
    assert spans[0].end_raw_ns - spans[0].start_raw_ns >= 50_000_000
    assert all(first.end_raw_ns <= second.start_raw_ns for first, second in pairwise(spans))


def test_model_and_data_stay_between_rounds(experiment_of: ExperimentOf, context_of: ContextOf) -> None:
    """The second call gets the same objects; another partition gets its own."""
    experiment = experiment_of()
    first = client_app.prepare(context_of(experiment))
    assert client_app.prepare(context_of(experiment)) is first
    other = client_app.prepare(context_of(experiment, 1))
    assert not torch.equal(other.data.train.images, first.data.train.images)


def test_a_round_is_reproducible_and_differs_from_the_next(experiment_of: ExperimentOf, context_of: ContextOf) -> None:
    """Same round and partition, same loss, also after other work in between; the next round shuffles anew."""
    experiment = experiment_of()

    def loss(server_round: int) -> Any:
        message = message_of(experiment, server_round=server_round)
        return client_app.app(message, context_of(experiment)).content["metrics"]["train-loss"]

    first = loss(1)
    assert loss(2) != first
    assert loss(1) == first


def test_an_evaluate_message_is_answered_with_metrics(experiment_of: ExperimentOf, context_of: ContextOf) -> None:
    """Of the model as received, on what `evaluation.client` names."""
    experiment = experiment_of(evaluation={"client": ["test"]})
    reply = client_app.app(message_of(experiment, MessageType.EVALUATE), context_of(experiment))
    metrics = reply.content["metrics"]
    assert isinstance(metrics, MetricRecord)
    assert set(metrics) == {"num-examples", "test-loss", "test-accuracy"}
    assert metrics["num-examples"] == 8


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_batch_normalisation_goes_through_fedavg(experiment_of: ExperimentOf, grid_of: GridOf, name: str) -> None:
    """The counter of batches is an integer that FedAvg averages as a float; a client loads the result all the same."""
    experiment = experiment_of(model={"name": name}, data={"name": "synthetic", "samples": 60}, evaluation={"client": []})
    grid, strategy = grid_of(client_app.app, experiment), FedAvg(fraction_evaluate=0.0)
    start = ArrayRecord(build_model(name, 10, 1).state_dict())
    replies = grid.send_and_receive(strategy.configure_train(1, start, ConfigRecord(), grid))
    arrays, metrics = strategy.aggregate_train(1, replies)
    assert arrays is not None
    assert metrics is not None
    again = grid.send_and_receive(strategy.configure_train(2, arrays, ConfigRecord(), grid))
    counters = [reply.content["arrays"].to_torch_state_dict() for reply in again]
    key = next(key for key in counters[0] if key.endswith("num_batches_tracked"))
    # 48 samples, none for the server's test: 19 or 20 to train on, two batches a round
    assert [state[key].item() for state in counters] == [4, 4]
    assert counters[0][key].dtype == torch.int64


def test_the_server_runs_all_rounds_and_the_model_learns(
    experiment_of: ExperimentOf, grid_of: GridOf, caplog: pytest.LogCaptureFixture
) -> None:
    """Three rounds of FedAvg over two clients better the accuracy on digits that no client has seen."""
    training = {"threads": 1, "batch-size": 16, "learning-rate": 3e-3, "local-epochs": 3}
    experiment = experiment_of(rounds=3, data={"samples": 600}, training=training)
    grid = grid_of(client_app.app, experiment)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=experiment_to(experiment))
    with caplog.at_level(logging.INFO, logger="fltestbed"):
        server_app.app(grid, context)
    assert grid.trained == [1, 1, 2, 2, 3, 3]
    accuracies = [float(record.args[1]) for record in caplog.records if record.msg.startswith("round %d")]  # type: ignore[index, arg-type]
    assert len(accuracies) == 4
    assert accuracies[0] < 0.3
    assert accuracies[-1] > 0.7


@pytest.mark.parametrize("metric", ["accuracy", "validation-accuracy"])
def test_a_run_that_does_not_get_better_ends_early(
    experiment_of: ExperimentOf, grid_of: GridOf, metric: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a gain of 1 wanted, round 2 is the last of nine, and the log says why."""
    rule = {"metric": metric, "patience": 1, "min-delta": 1.0}
    experiment = experiment_of(rounds=9, early_stopping=rule, evaluation={"server": metric == "accuracy"})
    grid = grid_of(client_app.app, experiment)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=experiment_to(experiment))
    with caplog.at_level(logging.INFO, logger="fltestbed"):
        server_app.app(grid, context)
    assert grid.trained == [1, 1, 2, 2]
    assert f"early stop after round 2: for 1 rounds {metric} has not got better" in caplog.text


def test_foreign_code_runs_only_where_it_is_trusted(
    experiment_of: ExperimentOf, context_of: ContextOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that the server names by module is refused before it is imported, unless this node trusts apps."""
    (tmp_path / "sent_by_server.py").write_text("from fltestbed.learning.models import _cnn as build\n")
    monkeypatch.syspath_prepend(tmp_path)
    experiment = experiment_of(model={"name": "sent_by_server:build"})
    for node_config in ({}, {"trust-apps": False}, {"trust-apps": "no"}):
        with pytest.raises(ConfigError, match=r"'sent_by_server:build' is not one of the toolkit's own .*--trust-apps"):
            client_app.prepare(context_of(experiment, **node_config))
    assert "sent_by_server" not in sys.modules
    client_app.prepare(context_of(experiment, **{"trust-apps": True}))
    assert sys.modules.pop("sent_by_server")


@pytest.mark.parametrize(
    ("node_config", "message"),
    [
        ({"partition-id": 2}, r"partition-id: 2 is past the end: there are 2 partitions, so give 0 to 1"),
        ({"partition-id": -1}, r"partition-id: -1 is past the end"),
        ({"partition-id": "0"}, r"partition-id: a whole number is needed, not '0'"),
        ({"partition-id": True}, r"partition-id: a whole number is needed, not True"),
        ({"num-partitions": 0}, r"num-partitions: 0 is not allowed"),
    ],
)
def test_a_partition_that_does_not_exist_is_refused(
    experiment_of: ExperimentOf, context_of: ContextOf, node_config: dict[str, Any], message: str
) -> None:
    """The message gives the range that is allowed."""
    with pytest.raises(ConfigError, match=message):
        client_app.prepare(context_of(experiment_of(), **node_config))


def test_what_a_client_cannot_use_is_said(experiment_of: ExperimentOf, context_of: ContextOf) -> None:
    """Evaluation on data that the fractions leave empty, and a model of other shape than the client's."""
    data = {"samples": 200, "test-fraction": 0}
    with pytest.raises(ConfigError, match=r"data.test-fraction: 0 leaves nothing for evaluation.client = 'test'"):
        client_app.prepare(context_of(experiment_of(data=data)))
    with pytest.raises(ConfigError, match=r"its model of 52 tensors does not fit this client's of 8; "):
        client_app.app(message_of(experiment_of(model={"name": "squeezenet"})), context_of(experiment_of()))


def test_an_experiment_survives_the_run_configuration(experiment_of: ExperimentOf) -> None:
    """What is read is what was written; anything else is refused by name."""
    experiment = experiment_of(pacing={"seconds-per-batch": [0.1, 0.2]}, early_stopping={"patience": 3})
    assert experiment_from(experiment_to(experiment)) == experiment
    with pytest.raises(ConfigError, match=r"run configuration: experiment: missing"):
        experiment_from({})
    with pytest.raises(ConfigError, match=r"run configuration: experiment: not valid JSON"):
        experiment_from({"experiment": "{"})
    with pytest.raises(ConfigError, match=r'experiment: roundz: unknown key; did you mean "rounds"'):
        experiment_from({"experiment": '{"name": "x", "roundz": 3}'})
