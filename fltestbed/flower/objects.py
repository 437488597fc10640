"""Flower's content-addressed objects: made of messages, and made messages again.

An object is its class, the identifiers of its children and the length of its body, a zero byte and the body; its identifier
is the SHA-256 of that. Flower's classes make and read all of them but the chunks that hold a tensor's bytes, nearly all of a
message: Flower copies and hashes those several times, each way, and here it is once.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
from flwr.supercore.inflatable.inflatable_object import InflatableObject, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents


@dataclass(frozen=True, slots=True)
class Chunk:
    """An `ArrayChunk` whose data stay where the array has them."""

    head: bytes
    data: memoryview

    @classmethod
    def of(cls, data: memoryview) -> "Chunk":
        """Put Flower's head before a part of an array's data."""
        return cls(_CHUNK_HEAD % len(data), data)

    def __len__(self) -> int:
        return len(self.head) + len(self.data)

    def __bytes__(self) -> bytes:
        return b"".join((self.head, self.data))

    @property
    def object_id(self) -> str:
        """The SHA-256 of its bytes."""
        digest = hashlib.sha256(self.head)
        digest.update(self.data)
        return digest.hexdigest()


Content = bytes | memoryview | Chunk
"""What an object is made of: ``bytes(content)`` is the object."""

_CHUNK, _ARRAY = (f"{cls.__qualname__}{HEAD_VALUE_DIVIDER}".encode() for cls in (ArrayChunk, Array))
_CHUNK_HEAD = _CHUNK + HEAD_VALUE_DIVIDER.encode() + b"%d" + HEAD_BODY_DIVIDER
_LONGEST_CHUNK_HEAD = 40


def object_ids(trees: Iterable[ObjectTree]) -> list[str]:
    """Identifiers of all objects of the trees, each once, children before parents."""
    found: dict[str, None] = {}
    for tree in trees:
        _gather_ids(tree, found)
    return list(found)


def _gather_ids(tree: ObjectTree, found: dict[str, None]) -> None:
    for child in tree.children:
        _gather_ids(child, found)
    found[tree.object_id] = None


def deflate(messages: Iterable[Message]) -> tuple[list[ObjectTree], dict[str, Content]]:
    """The trees of messages and the objects of all trees, by identifier; what messages share is made once.

    Each message gets its message_id, which is its object identifier.
    """
    trees: list[ObjectTree] = []
    objects: dict[str, Content] = {}
    done: dict[int, ObjectTree] = {}
    with no_object_id_recompute():
        for message in messages:
            tree = _deflate(message, objects, done)
            message.metadata.__dict__["_message_id"] = tree.object_id
            trees.append(tree)
    return trees, objects


def _deflate(item: InflatableObject, objects: dict[str, Content], done: dict[int, ObjectTree]) -> ObjectTree:
    if id(item) in done:
        return done[id(item)]
    if isinstance(item, Array):
        children = _deflate_chunks(item, objects)
    else:
        children = {}
        for part in _parts(item):
            child = _deflate(part, objects, done)
            children[child.object_id] = child
    content = item.deflate()
    identifier = hashlib.sha256(content).hexdigest()
    if isinstance(item, Array | ArrayRecord):  # their parents ask for it, and would have them deflated again
        item.__dict__["_object_id"] = identifier
        item.is_dirty = False
    objects[identifier] = content
    tree = done[id(item)] = ObjectTree(object_id=identifier, children=children.values())
    return tree


def _parts(item: InflatableObject) -> list[InflatableObject]:
    """What an object's children are, without their identifiers."""
    if isinstance(item, Message):
        return [item.content] if item.has_content() else []
    return list(item.values()) if isinstance(item, RecordDict | ArrayRecord) else []


def _deflate_chunks(array: Array, objects: dict[str, Content]) -> dict[str, ObjectTree]:
    """The chunks of an array; their identifiers are kept where Flower's class keeps them, until the data change."""
    if "_chunks" not in array.__dict__:
        data, size = memoryview(array.data), FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
        parts = (data[start : start + size] for start in range(0, len(data), size))
        array.__dict__["_chunks"] = [(Chunk.of(part).object_id, ArrayChunk(part)) for part in parts]
    for identifier, chunk in array.__dict__["_chunks"]:
        objects[identifier] = Chunk.of(chunk.data)
    return {identifier: ObjectTree(object_id=identifier) for identifier, _ in array.__dict__["_chunks"]}


def inflate(tree: ObjectTree, objects: Mapping[str, Content], most_bytes: int) -> InflatableObject:
    """The root of a tree with all that it holds, which shares no memory with `objects`.

    Flower joins an array from chunks, and its list of chunks may name one chunk any number of times: a few kilobytes of
    list over one chunk of 20 MB would become terabytes.

    Parameters
    ----------
    tree : ObjectTree
    objects : dict
        Object identifier -> object, whose children are those that the tree gives it.
    most_bytes : int
        What all arrays may take when their chunks are joined.

    Raises
    ------
    ValueError, TypeError, LookupError
        The objects are none of Flower's, do not fit one another, or would take more than `most_bytes`.
    """
    others: dict[str, bytes] = {}
    arrays: dict[str, InflatableObject] = {}
    for identifier in object_ids([tree]):
        content = objects[identifier]
        if not isinstance(content, Chunk) and bytes(content[: len(_CHUNK)]) != _CHUNK:
            others[identifier] = bytes(content)
    left = most_bytes
    for identifier, content in others.items():
        if content.startswith(_ARRAY):
            facts, parts = _read_array(content, objects)
            left -= sum(map(len, parts))
            if left < 0:
                raise ValueError(f"the arrays would take more than {most_bytes} bytes when their chunks are joined")
            arrays[identifier] = Array(facts["dtype"], tuple(facts["shape"]), facts["stype"], b"".join(parts))
    return inflate_object_from_contents(tree.object_id, others, keep_object_contents=True, objects=arrays)


def _read_array(content: bytes, objects: Mapping[str, Content]) -> tuple[dict[str, Any], list[memoryview]]:
    """What an array says of itself, and the parts that its data consist of."""
    head, _, body = content.partition(HEAD_BODY_DIVIDER)
    named = head.decode().split(HEAD_VALUE_DIVIDER)[1]
    identifiers = named.split(",") if named else []
    facts = json.loads(body)
    numbers = facts["arraychunk_ids"]
    if set(numbers) != set(range(len(identifiers))):
        raise ValueError("an array does not consist of the chunks that it names")
    chunks = [_data_of_chunk(objects[identifier]) for identifier in identifiers]
    return facts, [chunks[number] for number in numbers]


def _data_of_chunk(content: Content) -> memoryview:
    if isinstance(content, Chunk):
        return content.data
    head, divider, _ = bytes(content[:_LONGEST_CHUNK_HEAD]).partition(HEAD_BODY_DIVIDER)
    if not head.startswith(_CHUNK) or not divider:
        raise ValueError("what an array names as its chunk is none")
    return memoryview(content)[len(head) + 1 :]
