"""How an experiment reaches the apps: as one key of Flower's run configuration.

Flower's run configuration is flat and holds scalars, an experiment is neither, so it travels as JSON: the text of
`Experiment.resolved` under the key ``experiment``. What arrives is checked again, since another version of the toolkit may
have sent it.
"""

import json
from collections.abc import Mapping
from typing import Any

from fltestbed.config import Experiment
from fltestbed.config_file import validate
from fltestbed.errors import ConfigError

EXPERIMENT_KEY = "experiment"
TRUST_KEY = "trust-apps"
"""Key of the *node* configuration, which is the client's own: true lets an experiment name code outside the toolkit."""


def experiment_to(experiment: Experiment) -> dict[str, bool | float | int | str]:
    """Return the run configuration that carries `experiment`."""
    return {EXPERIMENT_KEY: json.dumps(experiment.resolved, sort_keys=True)}


def experiment_from(run_config: Mapping[str, Any]) -> Experiment:
    """Read the experiment from a run configuration.

    Raises
    ------
    ConfigError
        The key is missing, is not JSON, or what it holds is not an experiment of this version.
    """
    source = f"run configuration: {EXPERIMENT_KEY}"
    text = run_config.get(EXPERIMENT_KEY)
    if not isinstance(text, str):
        raise ConfigError(f"{source}: missing; start the run with `fltestbed server` or `fltestbed run`")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}: not valid JSON: {error}; leave the key to the toolkit") from error
    return validate(Experiment, data, source)


def partition_from(node_config: Mapping[str, Any]) -> tuple[int, int]:
    """Read ``partition-id`` and ``num-partitions`` from a node configuration.

    Returns
    -------
    tuple of int
        The number of this client's partition, from 0, and the number of partitions.

    Raises
    ------
    ConfigError
        One of them is missing or is not a whole number, or the first is past the end.
    """
    values = []
    for key in ("partition-id", "num-partitions"):
        value = node_config.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"node configuration: {key}: a whole number is needed, not {value!r}")
        values.append(value)
    partition, partitions = values
    if not 0 <= partition < partitions:
        raise ConfigError(
            f"partition-id: {partition} is past the end: there are {partitions} partitions, so give 0 to {partitions - 1}"
            if partitions > 0
            else f"num-partitions: {partitions} is not allowed; give the number of clients"
        )
    return partition, partitions
