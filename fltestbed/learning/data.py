"""Data sets: real digits that come with scikit-learn, CIFAR-10, and seeded noise for load tests.

All are images of 32 x 32 pixels with three channels in ten classes. They are kept as bytes and made to numbers a batch at a
time: as numbers, CIFAR-10 takes 600 MB, more than a small Pi has to spare. A client keeps its own samples only.
"""

import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fltestbed.config import Data
from fltestbed.errors import ConfigError, HostError
from fltestbed.learning.partition import hold_out, partition, split
from fltestbed.learning.vision import torchvision

NUM_CLASSES = 10

_DIGITS_FILE = "sklearn/datasets/data/digits.csv.gz"

Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Images of shape (samples, 3, 32, 32) and their classes."""


@dataclass(frozen=True)
class Samples:
    """Labelled images.

    Attributes
    ----------
    images : Tensor of uint8, shape (samples, 3, 32, 32)
    labels : Tensor of int64, shape (samples,)
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images at `index` as float32 from -1 to 1, and their labels."""
        return self.images[index].float().div_(127.5).sub_(1.0), self.labels[index]


@dataclass(frozen=True)
class ClientData:
    """What one client has; validation and test data are empty when their fraction is 0."""

    train: Samples
    validation: Samples
    test: Samples


def load_client_data(data: Data, seed: int, partition_id: int, num_partitions: int) -> ClientData:
    """Load the samples of one client.

    Raises
    ------
    ConfigError
        The folder does not hold the data set, or the configuration leaves a client too few samples.
    HostError
        This host lacks the data set and cannot get it.
    """
    images, labels = _read(data, seed, train=True)
    clients, _ = hold_out(len(labels), data, seed, fraction=_server_fraction(data))
    own = partition(labels[clients], num_partitions, data, seed)[partition_id]
    parts = split(clients[own], partition_id, data, seed)
    return ClientData(*(_samples(images, labels, part) for part in parts))


def load_server_data(data: Data, seed: int) -> Samples:
    """Load the samples that the server tests the global model on and that no client sees.

    Raises
    ------
    ConfigError, HostError
        As `load_client_data`; ConfigError also when nothing is held out for the server.
    """
    images, labels = _read(data, seed, train=False)
    if data.name == "cifar10":
        return _samples(images, labels, np.arange(len(labels)))
    _, server = hold_out(len(labels), data, seed, fraction=data.server_fraction)
    if not len(server):
        raise ConfigError(
            f"data.server-fraction: {data.server_fraction} leaves the server nothing to evaluate on; "
            "raise it, or set evaluation.server = false"
        )
    return _samples(images, labels, server)


def _samples(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], index: npt.NDArray[np.int64]) -> Samples:
    return Samples(torch.from_numpy(images[index]), torch.from_numpy(labels[index]))


def _server_fraction(data: Data) -> float:
    return 0.0 if data.name == "cifar10" else data.server_fraction


def _read(data: Data, seed: int, *, train: bool) -> Arrays:
    if data.name == "cifar10":
        return _cifar10(data.path, train=train)
    return _digits() if data.name == "digits" else _synthetic(data.samples, seed)


def _digits() -> Arrays:
    """Read 1,797 real images of 8 x 8 pixels with 17 levels of grey, each pixel made to 4 x 4 in three channels."""
    try:
        # The file itself: importing scikit-learn to read it takes 100 MB and a second in every trainer.
        path = distribution("scikit-learn").locate_file(_DIGITS_FILE)
        table = np.loadtxt(str(path), delimiter=",", dtype=np.int64)
    except (PackageNotFoundError, OSError) as error:
        raise HostError(
            f"data.name: digits comes with scikit-learn, which is not installed here or lacks {_DIGITS_FILE}; "
            "install fltestbed[digits], or use cifar10 or synthetic"
        ) from error
    grey = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    enlarged = grey.repeat(4, axis=1).repeat(4, axis=2)
    return np.repeat(enlarged[:, np.newaxis], 3, axis=1), table[:, -1]


def _synthetic(samples: int | None, seed: int) -> Arrays:
    if samples is None:
        raise ConfigError("data.samples: missing; the data set synthetic needs it, for example samples = 1000")
    random = np.random.RandomState(seed)
    images = random.randint(0, 256, size=(samples, 3, 32, 32), dtype=np.uint8)
    return images, random.randint(0, NUM_CLASSES, size=samples).astype(np.int64)


def _cifar10(path: Path | None, *, train: bool) -> Arrays:
    dataset = torchvision.datasets.CIFAR10
    root = cache_folder() if path is None else path.expanduser()
    if root.name == dataset.base_folder:
        root = root.parent
    with warnings.catch_warnings():
        # The files were pickled in 2009 with numbers where numpy now wants booleans.
        warnings.filterwarnings("ignore", message=r"dtype\(\): align", category=np.exceptions.VisibleDeprecationWarning)
        try:
            loaded = dataset(root, train=train)
        except RuntimeError:  # not there, or a checksum is wrong
            loaded = _fetch_cifar10(root, train=train, may_download=path is None)
    images = np.ascontiguousarray(loaded.data.transpose(0, 3, 1, 2))
    return images, np.asarray(loaded.targets, dtype=np.int64)


def _fetch_cifar10(root: Path, *, train: bool, may_download: bool) -> "torchvision.datasets.CIFAR10":
    """Unpack the archive in `root`, downloading it first where that is allowed."""
    dataset = torchvision.datasets.CIFAR10
    archive = root / dataset.filename
    advice = f"put {dataset.filename} or its unpacked folder {dataset.base_folder} there (from {dataset.url})"
    if not may_download and not archive.is_file():
        raise ConfigError(f"data.path: {root} holds no whole CIFAR-10; {advice}, or leave data.path out to download it")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _only_one(root / ".lock"):
            return dataset(root, train=train, download=True)
    except (OSError, RuntimeError) as error:  # no network, no space, no right to write, a wrong checksum
        what = "could not be downloaded to" if may_download else "could not be unpacked in"
        then = "and set data.path to a folder that has it" if may_download else "in a folder that can be written"
        raise HostError(f"CIFAR-10 {what} {root}: {error}; {advice} {then}") from error


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Let one process at a time in: several clients of one machine start together."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cache_folder() -> Path:
    """Return the folder where a download is kept: ``$XDG_CACHE_HOME/fltestbed``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fltestbed"
