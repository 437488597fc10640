"""Strategies of the server by name: any of Flower's, or an installed ``module:object``."""

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

import flwr.serverapp.strategy as flower_strategies
from flwr.serverapp.strategy import Strategy

from fltestbed.config import Experiment
from fltestbed.errors import ConfigError
from fltestbed.learning.names import did_you_mean, is_module_object, load_object, unknown_name


def strategy_names() -> list[str]:
    """Return the names of Flower's strategies that this app can serve.

    The differentially private ones with clipping on the client are not among them: they need a mod in the client's app.
    """
    classes = {name: getattr(flower_strategies, name) for name in flower_strategies.__all__}
    return [
        name
        for name, cls in classes.items()
        if issubclass(cls, Strategy) and not inspect.isabstract(cls) and "ClientSide" not in name
    ]


def build_strategy(experiment: Experiment) -> Strategy:
    """Build the strategy of an experiment.

    Arguments that the file leaves out and the strategy has are filled in: every client that is there trains in every round
    (the server waits for all of them before the first), none is asked for an evaluation of its own (it evaluates while it
    trains), and a wrapping strategy (differential privacy) wraps FedAvg.

    Raises
    ------
    ConfigError
        The name is unknown or cannot be imported, an argument is unknown or missing, or the strategy refuses a value.
    """
    return _build(experiment.strategy.name, experiment.strategy.arguments, experiment)


def check_strategy(experiment: Experiment) -> None:
    """Raise what `build_strategy` would, before anything is started."""
    logging.disable()  # what Flower has to say of the strategy, it says again when the ServerApp makes it
    try:
        build_strategy(experiment)
    finally:
        logging.disable(logging.NOTSET)


def _build(name: str, arguments: Mapping[str, Any], experiment: Experiment) -> Strategy:
    make = _find(name)
    if isinstance(make, Strategy):
        if arguments:
            raise ConfigError(f"strategy.arguments: {name!r} is a finished strategy and takes none; leave them out")
        return make
    if not callable(make):
        raise ConfigError(
            f"strategy.name: {name!r} is neither a strategy nor a function that returns one; name one of Flower's, or "
            "module:object"
        )
    try:
        parameters = inspect.signature(make).parameters
    except ValueError as error:  # something compiled, which no strategy is
        raise ConfigError(f"strategy.name: {name!r} does not say which arguments it takes; it is no strategy") from error
    given = {key.replace("-", "_"): value for key, value in arguments.items()}
    _check(name, given, parameters)
    filled = {key: value for key, value in _defaults(given, experiment).items() if key in parameters} | given
    if "strategy" in parameters and not isinstance(given.get("strategy"), Strategy):
        filled["strategy"] = _build(given.get("strategy", "FedAvg"), {}, experiment)
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and key not in filled
        and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
    ]
    if missing:
        raise ConfigError(f"strategy.arguments: {name} needs {', '.join(missing)}; give a value for each")
    try:
        strategy = make(**filled)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"strategy.arguments: {name} refuses {dict(arguments)!r}: {error}") from error
    if not isinstance(strategy, Strategy):
        raise ConfigError(
            f"strategy.name: {name!r} made {type(strategy).__name__}, not a flwr.serverapp.strategy.Strategy; "
            "name a function that makes one"
        )
    return strategy


def _find(name: str) -> Callable[..., Any] | Strategy:
    known = strategy_names()
    if name in known:
        found: Callable[..., Any] = getattr(flower_strategies, name)
        return found
    if is_module_object(name):
        loaded: Callable[..., Any] | Strategy = load_object("strategy.name", name)
        return loaded
    raise unknown_name("strategy.name", name, known)


def _check(name: str, given: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in given:
        if key not in parameters:
            raise ConfigError(
                f"strategy.arguments: {name} has no argument {key!r}{did_you_mean(key, parameters)}; "
                f"allowed: {', '.join(parameters)}"
            )


def _defaults(given: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    clients, minimum = experiment.clients, experiment.deadlines.minimum_replies

    def share(key: str, default: float) -> int:
        fraction = given.get(key, default)
        return max(1, int(clients * fraction)) if isinstance(fraction, int | float) else clients

    return {
        "fraction_train": 1.0,
        "fraction_evaluate": 0.0,
        "min_train_nodes": min(share("fraction_train", 1.0), minimum),
        "min_evaluate_nodes": min(share("fraction_evaluate", 0.0), minimum),
        "min_available_nodes": min(clients, minimum),
        "num_sampled_clients": clients,
        "train_loss_key": "train-loss",  # QFedAvg reads the client's loss under this key
    }
