"""Partitions: whole, disjoint, and the same on every host."""

import hashlib

import numpy as np
import pytest

from fltestbed.config import Data
from fltestbed.errors import ConfigError
from fltestbed.learning.partition import MINIMUM_SAMPLES, Indices, hold_out, partition, split

LABELS = np.arange(400, dtype=np.int64) % 10


def data_of(**keys: object) -> Data:
    return Data.model_validate({key.replace("_", "-"): value for key, value in keys.items()})


def digest(parts: list[Indices]) -> str:
    text = ";".join(",".join(str(index) for index in part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("method", ["iid", "dirichlet", "shards"])
@pytest.mark.parametrize("clients", [1, 3, 7])
def test_each_sample_goes_to_exactly_one_client(method: str, clients: int) -> None:
    """The parts together are all samples, none twice."""
    parts = partition(LABELS, clients, data_of(partition=method), seed=3)
    assert len(parts) == clients
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))
    assert min(map(len, parts)) >= MINIMUM_SAMPLES


@pytest.mark.parametrize(
    ("method", "expected"), [("iid", "34bd628aaa381045"), ("dirichlet", "4d7db800f4b5c37b"), ("shards", "368a4a7b621499db")]
)
def test_a_seed_gives_the_same_partition_on_every_host(method: str, expected: str) -> None:
    """The indices are those that were recorded when this was written, on any platform and with any numpy."""
    parts = partition(LABELS, 4, data_of(partition=method), seed=42)
    assert digest(parts) == expected
    assert digest(partition(LABELS, 4, data_of(partition=method), seed=43)) != expected


def test_hold_out_and_split_are_recorded_too() -> None:
    """The server's samples and a client's three parts are those that were recorded."""
    clients, server = hold_out(20, data_of(), seed=42, fraction=0.2)
    assert server.tolist() == [8, 0, 14, 12]
    train, validation, test = split(np.arange(100, 120), 1, data_of(), seed=42)
    assert validation.tolist() == [103, 107]
    assert test.tolist() == [114, 106]
    assert sorted([*train, *validation, *test]) == list(range(100, 120))
    assert sorted([*clients, *server]) == list(range(20))


def test_iid_sizes_differ_by_at_most_one() -> None:
    """400 samples for 7 clients are one of 58 and six of 57."""
    assert sorted(len(part) for part in partition(LABELS, 7, data_of(), seed=1)) == [57] * 6 + [58]


def test_a_small_alpha_is_less_even_than_a_large_one() -> None:
    """The largest share of one class in a client falls with alpha."""

    def largest_share(alpha: float) -> float:
        parts = partition(LABELS, 4, data_of(partition="dirichlet", alpha=alpha), seed=5)
        return max(float(np.bincount(LABELS[part], minlength=10).max()) / len(part) for part in parts)

    assert largest_share(1000.0) < 0.15 < largest_share(0.1)


def test_two_shards_hold_few_classes() -> None:
    """With one shard for each class and two a client, each of five clients has exactly two classes."""
    parts = partition(LABELS, 5, data_of(partition="shards", shards_per_client=2), seed=1)
    assert [len(np.unique(LABELS[part])) for part in parts] == [2] * 5


def test_samples_limits_what_is_used() -> None:
    """50 of 400 samples: 10 for the server and 40 for the clients, all different."""
    clients, server = hold_out(400, data_of(samples=50), seed=1, fraction=0.2)
    assert (len(clients), len(server)) == (40, 10)
    assert len(np.union1d(clients, server)) == 50


@pytest.mark.parametrize(("fraction", "sizes"), [(0.1, (16, 2, 2)), (0.0, (20, 0, 0)), (0.01, (18, 1, 1))])
def test_split_sizes(fraction: float, sizes: tuple[int, int, int]) -> None:
    """A fraction of 0 gives nothing; any other gives at least one sample."""
    parts = split(np.arange(20), 0, data_of(validation_fraction=fraction, test_fraction=fraction), seed=1)
    assert tuple(len(part) for part in parts) == sizes


def test_what_cannot_be_spread_says_why() -> None:
    """Too many samples wanted, too few for the clients, an alpha that starves one, fractions that leave nothing."""
    with pytest.raises(ConfigError, match=r"data.samples: 500 is more than digits has; give at most 400"):
        hold_out(400, data_of(samples=500), seed=1, fraction=0.0)
    with pytest.raises(ConfigError, match=r"400 samples are too few for 41 clients, each needs 10"):
        partition(LABELS, 41, data_of(), seed=1)
    with pytest.raises(ConfigError, match=r"data.alpha: 0.001 never gave each of 20 clients 10 samples"):
        partition(LABELS, 20, data_of(partition="dirichlet", alpha=0.001), seed=1)
    with pytest.raises(ConfigError, match=r"data.shards-per-client: 400 leaves a client with fewer than 10"):
        partition(LABELS[:100], 9, data_of(partition="shards", shards_per_client=400), seed=1)
    with pytest.raises(ConfigError, match=r"0.6 and 0.5 leave nothing to train on"):
        split(np.arange(20), 0, data_of(validation_fraction=0.6, test_fraction=0.5), seed=1)
