"""Flower without a network, and a CIFAR-10 of a few images in the real format."""

import hashlib
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fltestbed.config import Experiment
from fltestbed.config_file import validate
from fltestbed.learning.run_config import experiment_to
from fltestbed.learning.vision import torchvision


def make_experiment(**keys: Any) -> Experiment:
    """Make a small experiment: cnn on digits, two clients, two rounds; `keys` as in the file, with _ for -."""
    data = {
        "name": "test",
        "rounds": 2,
        "clients": 2,
        "model": {"name": "cnn"},
        "data": {"name": "digits", "samples": 200},
        "training": {"threads": 1, "batch-size": 16},
    }
    return validate(Experiment, data | {key.replace("_", "-"): value for key, value in keys.items()}, "test")


def make_context(experiment: Experiment, partition_id: int = 0, **node_config: Any) -> Context:
    """Make what a client's app is given beside the message."""
    node = {"partition-id": partition_id, "num-partitions": experiment.clients} | node_config
    return Context(
        run_id=1, node_id=partition_id + 1, node_config=node, state=RecordDict(), run_config=experiment_to(experiment)
    )


class MemoryGrid(Grid):
    """Calls the ClientApp of each client in this process, one after the other."""

    def __init__(self, app: ClientApp, experiment: Experiment) -> None:
        self.app = app
        self.contexts = {node + 1: make_context(experiment, node) for node in range(experiment.clients)}
        self.trained: list[int] = []
        self.replies: list[Message] = []

    def get_node_ids(self) -> Iterable[int]:
        """All clients are there."""
        return list(self.contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Hand each message to its client and return the replies."""
        replies = []
        for message in messages:
            config = message.content["config"]
            assert isinstance(config, ConfigRecord)
            self.trained.append(int(str(config["server-round"])))
            replies.append(self.app(message, self.contexts[message.metadata.dst_node_id]))
        self.replies += replies
        return replies

    def _not_used(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    set_run = create_message = push_messages = pull_messages = get_nodes = _not_used
    run = property(_not_used)


@pytest.fixture
def experiment_of() -> Callable[..., Experiment]:
    """Make a small experiment."""
    return make_experiment


@pytest.fixture
def context_of() -> Callable[..., Context]:
    """Make a context."""
    return make_context


@pytest.fixture
def grid_of() -> Callable[..., MemoryGrid]:
    """Make a grid in memory."""
    return MemoryGrid


@pytest.fixture
def small_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write 5 x 8 training and 6 test images as CIFAR-10 is stored, and let torchvision expect their checksums."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.RandomState(1)

    def write(name: str, content: dict[str, Any]) -> list[str]:
        # The real files were pickled by an older numpy, which wrote the two flags of a data type as 0 and 1.
        data = pickle.dumps(content, protocol=2).replace(b"\x89\x88\x87q", b"K\x00K\x01\x87q")
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(samples: int) -> dict[str, Any]:
        images = random.randint(0, 256, size=(samples, 3072), dtype=np.uint8)
        return {"data": images, "labels": [index % 10 for index in range(samples)]}

    dataset = torchvision.datasets.CIFAR10
    monkeypatch.setattr(dataset, "train_list", [write(f"data_batch_{number}", batch(8)) for number in range(1, 6)])
    monkeypatch.setattr(dataset, "test_list", [write("test_batch", batch(6))])
    name, md5 = write("batches.meta", {"label_names": [f"class {number}" for number in range(10)]})
    monkeypatch.setattr(dataset, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return tmp_path
