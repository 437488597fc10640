"""Objects are, to the byte, those that Flower makes, and are read as Flower reads them."""

import json
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fltestbed.flower.bundle import MOST_JOINED_BYTES as MOST_BYTES
from fltestbed.flower.objects import deflate, inflate, object_ids
from tests.flower.flower_messages import error_answer, instruction, tensors

LARGE = np.arange(FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE // 4 + 1, dtype=np.uint64)
ZEROS = np.zeros(3 * FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, dtype=np.uint8)
MESSAGES = {
    "model": lambda: instruction(1, tensors(5)),
    "several chunks": lambda: instruction(1, {"large": LARGE}),
    "the same chunk twice": lambda: instruction(1, {"zeros": ZEROS}),
    "the same array twice": lambda: instruction(1, {"a": np.ones(3), "b": np.ones(3), "c": np.ones(4)}),
    "an empty array": lambda: instruction(1, {"a": np.zeros((0, 3)), "b": np.array(1.5)}),
    "error": lambda: error_answer(instruction(1), "no"),
    "no records": lambda: Message(RecordDict(), dst_node_id=1, message_type="train"),
    "many records": lambda: Message(
        RecordDict({
            "a": ArrayRecord({"x": Array("t", (1,), "of another framework", b"")}), "b": ArrayRecord(),
            "m": MetricRecord({"n": 1}),
            "c": ConfigRecord({"text": "ü", "bytes": b"\0"}),
        }),
        dst_node_id=1,
        message_type="train",
    ),
}  # fmt: skip


def deflated(message: Message) -> tuple[ObjectTree, dict[str, bytes]]:
    ((tree,), objects) = deflate([message])
    return tree, {identifier: bytes(content) for identifier, content in objects.items()}


@pytest.mark.parametrize("name", MESSAGES)
def test_objects_and_tree_are_flowers(name: str) -> None:
    """Identifiers, contents and tree of every object of a message."""
    message = MESSAGES[name]()
    tree, objects = deflated(message)
    nested = get_all_nested_objects(message)
    assert objects == {identifier: item.deflate() for identifier, item in nested.items()}
    assert tree == get_object_tree(message)
    assert message.metadata.message_id == tree.object_id
    assert object_ids([tree])[-1] == tree.object_id


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_read_as_flower_reads_it(name: str) -> None:
    """Out of memory that is overwritten afterwards: nothing is shared with it."""
    tree, objects = deflated(MESSAGES[name]())
    lent = {identifier: bytearray(content) for identifier, content in objects.items()}
    read = inflate(tree, {identifier: memoryview(content) for identifier, content in lent.items()}, MOST_BYTES)
    for content in lent.values():
        content[:] = bytes(len(content))
    flowers = inflate_object_from_contents(tree.object_id, dict(objects))
    assert isinstance(read, Message)
    assert isinstance(flowers, Message)
    assert deflated(read)[1] == deflated(flowers)[1] == objects


def test_a_change_is_seen() -> None:
    """An array that is given other bytes after it was deflated has another identifier, and so has all that holds it."""
    message = instruction(1, {"a": np.zeros(3), "b": np.ones(3)})
    before = deflated(message)[1]
    record: Any = message.content["arrays"]
    record["a"].data = Array(np.full(3, 2.0)).data
    after = deflated(message)[1]
    assert (
        len(before.keys() - after.keys()) == len(after.keys() - before.keys()) == 5
    )  # chunk, array, record, content, message
    assert after == {identifier: item.deflate() for identifier, item in get_all_nested_objects(message).items()}


def test_what_messages_share_is_made_once() -> None:
    """The second message of the same content adds itself alone."""
    first = instruction(1, tensors(3))
    second = Message(first.content, dst_node_id=2, message_type="train")
    assert len(deflate([first, second])[1]) == len(deflate([first])[1]) + 1


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.update(arraychunk_ids=[]), lambda facts: facts.update(arraychunk_ids=[0, 1]),
        lambda facts: facts.pop("shape"), lambda facts: facts.update(dtype=7), lambda facts: facts.update(shape=None),
    ],
)  # fmt: skip
def test_an_array_that_does_not_fit_its_chunks_is_refused(change: Any) -> None:
    """As ValueError, TypeError or KeyError, which a bundle makes its own of."""
    tree, objects = deflated(instruction(1, {"a": np.ones(3)}))
    (name,) = (name for name, content in objects.items() if content.startswith(b"Array "))
    head, _, body = objects[name].partition(b"\0")
    facts = json.loads(body)
    change(facts)
    with pytest.raises((ValueError, TypeError, KeyError)):
        inflate(tree, {**objects, name: head + b"\0" + json.dumps(facts).encode()}, MOST_BYTES)


@pytest.mark.parametrize(
    "content", [b"", b"ArrayChunk", b"ArrayChunk  3", b"Array  3\0abc", b"ArrayChunk  " + bytes([49]) * 60]
)
def test_a_chunk_that_is_none_is_refused(content: bytes) -> None:
    """Too short, without an end of its head, or of another class."""
    tree, objects = deflated(instruction(1, {"a": np.ones(3)}))
    (name,) = (name for name, found in objects.items() if found.startswith(b"ArrayChunk "))
    with pytest.raises((ValueError, TypeError, KeyError)):
        inflate(tree, {**objects, name: content}, MOST_BYTES)
