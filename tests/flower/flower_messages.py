"""Small Flower messages for the tests of bundles, exchange and routes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fltestbed.flower.bundle import Bundle


def tensors(count: int = 2, size: int = 8, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Make `count` arrays of `size` numbers, all different."""
    random = np.random.default_rng(seed)
    return {f"layer{number}": random.standard_normal(size).astype(np.float32) for number in range(count)}


def content_of(arrays: Mapping[str, NDArray[Any]], server_round: int = 1) -> RecordDict:
    """What a strategy sends: arrays and the round."""
    record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return RecordDict({"arrays": record, "config": ConfigRecord({"server-round": server_round})})


def instruction(node_id: int, arrays: Mapping[str, NDArray[Any]] | None = None, kind: str = "train") -> Message:
    """Make a message to a node."""
    return Message(content_of(arrays or tensors()), dst_node_id=node_id, message_type=kind)


def answer(message: Message, loss: float = 0.5) -> Message:
    """Make a node's reply; the process has to have the node's identity."""
    return Message(RecordDict({"metrics": MetricRecord({"loss": loss})}), reply_to=message)


def error_answer(message: Message, reason: str = "it broke") -> Message:
    """Make a node's error reply."""
    return Message(Error(0, reason), reply_to=message)


def raw(messages: list[Message] | Message, **prologue: object) -> bytes:
    """Encode messages as one bundle."""
    given = messages if isinstance(messages, list) else [messages]
    return b"".join(Bundle.of(given, dict(prologue)).encode())
