"""Strategies by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp import strategy as flower

from fltestbed.config import Experiment
from fltestbed.errors import ConfigError
from fltestbed.learning.strategies import build_strategy, strategy_names

ExperimentOf = Callable[..., Experiment]


def strategy_of(experiment_of: ExperimentOf, name: str, **arguments: Any) -> Any:
    return build_strategy(experiment_of(clients=4, strategy={"name": name, "arguments": arguments}))


def test_fedavg_takes_who_is_there_and_skips_evaluation(experiment_of: ExperimentOf) -> None:
    """All clients that are there train, as many as a round needs replies at least; evaluation is part of training."""
    strategy = strategy_of(experiment_of, "FedAvg")
    assert (strategy.fraction_train, strategy.fraction_evaluate) == (1.0, 0.0)
    assert (strategy.min_train_nodes, strategy.min_available_nodes) == (1, 1)
    needy = build_strategy(experiment_of(clients=4, deadlines={"minimum-replies": 3}))
    assert isinstance(needy, flower.FedAvg)
    assert (needy.min_train_nodes, needy.min_available_nodes) == (3, 3)


def test_given_arguments_win(experiment_of: ExperimentOf) -> None:
    """Kebab-case or snake_case."""
    strategy = strategy_of(experiment_of, "FedAdam", **{"fraction-train": 0.5, "eta": 0.01})
    assert type(strategy) is flower.FedAdam
    assert (strategy.fraction_train, strategy.min_train_nodes, strategy.eta) == (0.5, 1, 0.01)
    assert strategy_of(experiment_of, "FedAvg", **{"min-train-nodes": 3}).min_train_nodes == 3


def test_every_name_can_be_built(experiment_of: ExperimentOf) -> None:
    """Each strategy of Flower's that is offered is built from its own required arguments."""
    required: dict[str, dict[str, Any]] = {
        "FedProx": {"proximal_mu": 0.1},
        "QFedAvg": {"client_learning_rate": 0.1},
        "DifferentialPrivacyServerSideAdaptiveClipping": {"noise_multiplier": 0.1},
        "DifferentialPrivacyServerSideFixedClipping": {"noise_multiplier": 0.1, "clipping_norm": 1.0},
    }
    names = strategy_names()
    assert {"FedAvg", "FedAdam", "Krum", *required} <= set(names)
    assert not {"Strategy", "Result"} & set(names)
    for name in names:
        assert isinstance(strategy_of(experiment_of, name, **required.get(name, {})), getattr(flower, name))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fedavg", {}, r'strategy.name: unknown name \'fedavg\'; did you mean "FedAvg"\?; use one of .*FedAvg'),
        (
            "FedAvg",
            {"fraction_tran": 1},
            r'no argument \'fraction_tran\'; did you mean "fraction_train"\?; allowed: fraction_train,',
        ),
        ("QFedAvg", {}, r"strategy.arguments: QFedAvg needs client_learning_rate"),
        ("DifferentialPrivacyServerSideAdaptiveClipping", {"noise_multiplier": -1}, r"refuses .*non-negative"),
        ("math:sqrt", {"x": 4}, r"strategy.arguments: math:sqrt refuses"),
        ("collections:OrderedDict", {}, r"does not say which arguments it takes"),
        ("fractions:Fraction", {}, r"made Fraction, not a flwr.serverapp.strategy.Strategy"),
        ("math:pi", {}, r"'math:pi' is neither a strategy nor a function that returns one"),
    ],
)
def test_a_strategy_that_cannot_be_built_says_why(
    experiment_of: ExperimentOf, name: str, arguments: dict[str, Any], message: str
) -> None:
    """The message names the key, the value and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        strategy_of(experiment_of, name, **arguments)


def test_an_installed_strategy_is_taken(
    experiment_of: ExperimentOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class is called with the arguments, a finished object is taken as it is."""
    (tmp_path / "own_strategies.py").write_text(
        "from flwr.serverapp.strategy import FedAvg\nclass Mine(FedAvg): pass\nready = FedAvg(fraction_evaluate=0.5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = strategy_of(experiment_of, "own_strategies:Mine", min_available_nodes=3)
    assert (type(mine).__name__, mine.min_available_nodes, mine.min_train_nodes) == ("Mine", 3, 1)
    assert strategy_of(experiment_of, "own_strategies:ready").fraction_evaluate == 0.5
    with pytest.raises(ConfigError, match="is a finished strategy and takes none"):
        strategy_of(experiment_of, "own_strategies:ready", fraction_train=1.0)
