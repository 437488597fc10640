"""Messages whose tensors are compressed, for whoever sends them, and whole again for whoever reads them.

A compressed tensor is a Flower `Array` of its own serialization type, `STYPE`, with the type and the shape that it will have
again: it crosses with either transport, is hashed like any object, and needs no word between sender and receiver. Strategies
and apps never see one. The relative error that quantisation made travels with the tensors.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, Message, RecordDict

from fltestbed.flower.quantisation import PLAIN, Codec, CompressionError, decode, restored_bytes, squares

__all__ = ["OFF", "STYPE", "Compression", "CompressionError", "relative_error"]

STYPE = "fltestbed.compressed"


@dataclass(frozen=True)
class Compression:
    """What one side does with messages.

    Attributes
    ----------
    codec : Codec
        For what it sends.
    most_bytes : int
        What the tensors of one message that it gets may take together.
    """

    codec: Codec = PLAIN
    most_bytes: int = 1 << 30

    @classmethod
    def of(cls, codec: dict[str, Any], most_bytes: int) -> "Compression":
        """The same from plain data, as `dataclasses.asdict` makes it."""
        return cls(Codec(**codec), most_bytes)

    def compress(self, messages: Sequence[Message]) -> list[Message]:
        """Copies of messages, which stay as they are, with their tensors compressed; what they share is compressed once."""
        done: dict[int, ArrayRecord] = {}
        return [_compress(message, self.codec, done) for message in messages] if not self.codec.is_off else list(messages)

    def restore(self, message: Message) -> None:
        """Make a message's tensors whole again, in place.

        Raises
        ------
        CompressionError
            A tensor is not what it is said to be, or they would take more than `most_bytes`, which their shapes tell before
            anything is inflated.
        """
        total = sum(restored_bytes(array.dtype, tuple(array.shape)) for array in _compressed(message))
        if total > self.most_bytes:
            raise CompressionError(f"the tensors would take {total} bytes; at most {self.most_bytes} are allowed")
        if not message.has_content():
            return
        for record in message.content.array_records.values():
            for key in list(record):
                if record[key].stype == STYPE:
                    record[key] = Array(decode(record[key].data, record[key].dtype, tuple(record[key].shape)))


OFF = Compression()
"""Sends tensors as they are; still understands compressed ones."""


def _compress(message: Message, codec: Codec, done: dict[int, ArrayRecord]) -> Message:
    if not message.has_content() or not message.content.array_records:
        return message
    content = RecordDict(dict(message.content))
    for name, record in message.content.array_records.items():
        if id(record) not in done:
            done[id(record)] = ArrayRecord({key: _compress_array(array, codec) for key, array in record.items()})
        content[name] = done[id(record)]
    compressed = copy.copy(message)  # with the same metadata: Flower's identifier of the message is written there
    compressed.content = content
    return compressed


def _compress_array(array: Array, codec: Codec) -> Array:
    try:
        values = array.numpy()
    except (TypeError, ValueError, OSError, EOFError):
        return array  # of another framework, or broken: whoever reads it will say so
    data = codec.encode(values)
    return array if data is None else Array(str(values.dtype), tuple(values.shape), STYPE, data)


def relative_error(message: Message) -> float | None:
    """How far the compressed tensors of a message are from what they were: norm of the difference over their norm (both
    Euclidean, over all numbers of all quantised tensors); None for a message without compressed tensors.

    Raises
    ------
    CompressionError
    """
    pairs = [squares(array.data) for array in _compressed(message)]
    if not pairs:
        return None
    error, norm = (math.fsum(column) for column in zip(*pairs, strict=True))
    return math.sqrt(error / norm) if norm else 0.0


def _compressed(message: Message) -> Iterator[Array]:
    if message.has_content():
        for record in message.content.array_records.values():
            yield from (array for array in record.values() if array.stype == STYPE)
