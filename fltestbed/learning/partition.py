"""How samples are spread over clients: the same on every host for the same seed.

Pure numpy on `RandomState`, whose stream numpy has frozen (NEP 19), while that of `Generator` may change between releases: a
client with another numpy than the server's would otherwise train on samples that the server tests on.
"""

import numpy as np
import numpy.typing as npt

from fltestbed.config import Data
from fltestbed.errors import ConfigError

Indices = npt.NDArray[np.int64]

MINIMUM_SAMPLES = 10
"""Fewest samples of one client, so that training, validation and test each have some."""

_ATTEMPTS = 1000

# One stream of random numbers for each purpose, so that one does not shift another.
_HOLD_OUT, _PARTITION, _SPLIT = range(3)


def _stream(seed: int, *purpose: int) -> np.random.RandomState:
    return np.random.RandomState([seed, *purpose])


def hold_out(samples: int, data: Data, seed: int, *, fraction: float) -> tuple[Indices, Indices]:
    """Draw ``data.samples`` of `samples`, and split them into the clients' and the server's.

    Parameters
    ----------
    samples : int
        Size of the data set.
    data : Data
        `samples` limits how many are used.
    seed : int
        The experiment's.
    fraction : float
        The server's part; 0 where the data set brings a test set of its own.

    Returns
    -------
    tuple of arrays
        Indices into the data set: the clients', the server's. Disjoint.

    Raises
    ------
    ConfigError
        More samples are asked for than there are.
    """
    wanted = samples if data.samples is None else data.samples
    if wanted > samples:
        raise ConfigError(f"data.samples: {wanted} is more than {data.name} has; give at most {samples}")
    chosen = _stream(seed, _HOLD_OUT).permutation(samples)[:wanted]
    held = round(wanted * fraction)
    return chosen[held:], chosen[:held]


def partition(labels: npt.NDArray[np.int64], clients: int, data: Data, seed: int) -> list[Indices]:
    """Spread samples over clients; each sample goes to exactly one.

    Parameters
    ----------
    labels : array of int, shape (samples,)
        Class of each sample.
    clients : int
        Number of partitions.
    data : Data
        `partition` names the method. ``iid``: at random, sizes differ by at most one. ``dirichlet``: for each class the
        clients' shares are drawn from Dir(alpha) (Yurochkin et al. 2019, arXiv 1905.12022). ``shards``: sorted by class, cut
        into ``clients * shards_per_client`` pieces, handed out at random (McMahan et al. 2017, arXiv 1602.05629).
    seed : int
        The experiment's.

    Returns
    -------
    list of arrays of int
        For each client, indices into `labels`, ascending.

    Raises
    ------
    ConfigError
        A client would get fewer than `MINIMUM_SAMPLES`.
    """
    if len(labels) < clients * MINIMUM_SAMPLES:
        raise ConfigError(
            f"data: {len(labels)} samples are too few for {clients} clients, each needs {MINIMUM_SAMPLES}; "
            "raise data.samples or lower clients"
        )
    random = _stream(seed, _PARTITION)
    if data.partition == "iid":
        parts = np.array_split(random.permutation(len(labels)), clients)
    elif data.partition == "shards":
        parts = _shards(labels, clients, data.shards_per_client, random)
    else:
        parts = _dirichlet(labels, clients, data.alpha, random)
    return [np.sort(part) for part in parts]


def _shards(labels: npt.NDArray[np.int64], clients: int, each: int, random: np.random.RandomState) -> list[Indices]:
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    shards = np.array_split(by_class, clients * each)
    order = random.permutation(len(shards))
    parts = [np.concatenate([shards[shard] for shard in order[client::clients]]) for client in range(clients)]
    if min(map(len, parts)) < MINIMUM_SAMPLES:
        raise ConfigError(
            f"data.shards-per-client: {each} leaves a client with fewer than {MINIMUM_SAMPLES} samples; lower it"
        )
    return parts


def _dirichlet(labels: npt.NDArray[np.int64], clients: int, alpha: float, random: np.random.RandomState) -> list[Indices]:
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(_ATTEMPTS):
        pieces: list[list[Indices]] = [[] for _ in range(clients)]
        for members in classes:
            shares = random.dirichlet(np.full(clients, alpha))
            cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
            for client, piece in enumerate(np.split(random.permutation(members), cuts)):
                pieces[client].append(piece)
        parts = [np.concatenate(own) for own in pieces]
        if min(map(len, parts)) >= MINIMUM_SAMPLES:
            return parts
    raise ConfigError(
        f"data.alpha: {alpha} never gave each of {clients} clients {MINIMUM_SAMPLES} samples in {_ATTEMPTS} draws; "
        "raise data.alpha or lower clients"
    )


def split(own: Indices, client: int, data: Data, seed: int) -> tuple[Indices, Indices, Indices]:
    """Split one client's samples into training, validation and test data.

    Returns
    -------
    tuple of arrays of int
        Training, validation, test. Disjoint, together `own`. A fraction above 0 gives at least one sample.

    Raises
    ------
    ConfigError
        The two fractions leave nothing to train on.
    """
    order = _stream(seed, _SPLIT, client).permutation(own)
    sizes = [
        max(1, round(len(own) * fraction)) if fraction else 0 for fraction in (data.validation_fraction, data.test_fraction)
    ]
    if sum(sizes) >= len(own):
        raise ConfigError(
            f"data.validation-fraction and data.test-fraction: {data.validation_fraction} and {data.test_fraction} "
            "leave nothing to train on; their sum must be well below 1"
        )
    validation, test, train = np.split(order, np.cumsum(sizes))
    return train, validation, test
