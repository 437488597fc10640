"""A message with all its objects in one piece: what the `bundle` transport sends.

Flower moves a message as a tree of content-addressed objects, one request each (a tensor is two objects). A bundle is the
same message, the same tree and the same objects, one after the other, so that a transfer has one first and one last byte::

    b"FLB1"
    u32 length, prologue            JSON object; its key "messages" says how many messages follow
    (u32 length, message            flwr.proto Message without content
     u32 length, object tree)*      flwr.proto ObjectTree
    (u64 length, object)*           each object of the trees once, children before parents

All integers are big-endian. An object's identifier is the SHA-256 of its bytes.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.common.serde_utils import error_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf.message import DecodeError

MAGIC = b"FLB1"
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
MAX_PROLOGUE_BYTES = 1 << 20
MAX_MESSAGES = 10_000
CHUNK_BYTES = 256 * 1024


class BundleError(ValueError):
    """Bytes that are not a whole and honest bundle; the text says what is wrong with them."""


@dataclass(frozen=True)
class Bundle:
    """Messages without content, their object trees and the objects of all trees.

    Attributes
    ----------
    prologue : dict
        What the sender has to say beside the messages; plain JSON.
    messages : tuple of (flwr.proto Message, flwr.proto ObjectTree)
        Metadata and tree of each message.
    objects : dict
        Object identifier -> deflated object.
    """

    prologue: dict[str, Any]
    messages: tuple[tuple[ProtoMessage, ObjectTree], ...]
    objects: Mapping[str, bytes]

    @classmethod
    def of(cls, messages: Iterable[Message], prologue: dict[str, Any] | None = None) -> "Bundle":
        """Deflate Flower messages. Each gets its message_id, which is its object identifier."""
        parts = []
        objects: dict[str, bytes] = {}
        with no_object_id_recompute():
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id
                tree = get_object_tree(message)
                for identifier, nested in get_all_nested_objects(message).items():
                    if identifier not in objects:
                        objects[identifier] = nested.deflate()
                bare = remove_content_from_message(message) if message.has_content() else message
                parts.append((message_to_proto(bare), tree))
        return cls(prologue or {}, tuple(parts), objects)

    def inflate(self) -> list[Message]:
        """Flower messages with their content.

        Raises
        ------
        BundleError
            Objects have the hashes that they are named by and are not a message all the same.
        """
        inflated = []
        for proto, tree in self.messages:
            contents = {identifier: self.objects[identifier] for identifier in object_ids([tree])}
            try:
                message = inflate_object_from_contents(tree.object_id, contents, keep_object_contents=True)
            except (ValueError, TypeError, KeyError) as error:
                raise BundleError(f"object {tree.object_id[:12]}... cannot be inflated: {error}") from error
            if not isinstance(message, Message):
                raise BundleError(f"object {tree.object_id} is not a message")
            message.metadata.__dict__["_message_id"] = proto.metadata.message_id
            inflated.append(message)
        return inflated

    def inflate_replies(self) -> Iterator[Message]:
        """Flower messages one by one; one that cannot be inflated comes as an error reply that says why."""
        for proto, tree in self.messages:
            try:
                (message,) = Bundle({}, ((proto, tree),), self.objects).inflate()
            except BundleError as error:
                message = broken_reply(message_from_proto(proto), str(error))
            yield message

    @property
    def payload_bytes(self) -> int:
        """Bytes of the encoded bundle without its prologue: what the model's message costs at least."""
        return sum(len(chunk) for chunk in self._payload())

    def encode(self) -> list[bytes]:
        """Encode; the chunks are to be sent one after the other. The first is the prologue."""
        return [encode_head(self.prologue, len(self.messages)), *_coalesce(self._payload())]

    def _payload(self) -> Iterator[bytes]:
        head = bytearray()
        for message, tree in self.messages:
            for part in (message.SerializeToString(deterministic=True), tree.SerializeToString(deterministic=True)):
                head += _U32.pack(len(part)) + part
        yield bytes(head)
        for identifier in object_ids(tree for _, tree in self.messages):
            content = self.objects[identifier]
            yield _U64.pack(len(content))
            yield content


def broken_reply(reply: Message, reason: str) -> Message:
    """An error reply in the place of one that cannot be read."""
    proto = message_to_proto(remove_content_from_message(reply))
    proto.ClearField("content")
    proto.error.CopyFrom(error_to_proto(Error(ErrorCode.MESSAGE_UNAVAILABLE, reason)))
    return message_from_proto(proto)


def _coalesce(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Gather small pieces into chunks of `CHUNK_BYTES` at least: a write and a read for each tensor would cost more."""
    chunk = bytearray()
    for piece in pieces:
        if not chunk and len(piece) >= CHUNK_BYTES:
            yield piece
            continue
        chunk += piece
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def encode_head(prologue: dict[str, Any], messages: int) -> bytes:
    """The first chunk of a bundle: all but the messages and their objects, so that it can be made last."""
    text = json.dumps({**prologue, "messages": messages}, separators=(",", ":")).encode()
    return MAGIC + _U32.pack(len(text)) + text


def read_prologue(data: bytes | bytearray) -> dict[str, Any]:
    """The prologue of a bundle, without reading what follows.

    Raises
    ------
    BundleError
    """
    return _prologue(_Reader(memoryview(data)))


def object_ids(trees: Iterable[ObjectTree]) -> list[str]:
    """Identifiers of all objects of the trees, each once, children before parents."""
    return list(dict.fromkeys(node.object_id for tree in trees for node in iterate_object_tree(tree)))


def decode(data: bytes | bytearray | memoryview, *, verify: bool = True) -> Bundle:
    """Decode a bundle.

    Parameters
    ----------
    data : bytes
        One whole bundle.
    verify : bool
        Check every object against its identifier. False where that is done elsewhere: Flower's store does it for what it
        takes in, and what comes out of it over loopback has been checked.

    Raises
    ------
    BundleError
        The bytes are truncated, longer than announced, malformed, or an object does not match its identifier.
    """
    reader = _Reader(memoryview(data))
    prologue = _prologue(reader)
    count = prologue.pop("messages", None)
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_MESSAGES:
        raise BundleError("the prologue does not say how many messages follow")
    messages = []
    try:
        for _ in range(count):
            message, tree = ProtoMessage(), ObjectTree()
            message.ParseFromString(bytes(reader.sized(_U32)))
            tree.ParseFromString(bytes(reader.sized(_U32)))
            if not (message.HasField("content") or message.HasField("error")):
                raise BundleError("a message has neither content nor an error")
            if message.metadata.message_id != tree.object_id:
                raise BundleError("a message is not the root of its object tree")
            messages.append((message, tree))
    except DecodeError as error:
        raise BundleError(f"a message or its tree cannot be parsed: {error}") from error
    objects = {}
    for identifier in object_ids(tree for _, tree in messages):
        content = bytes(reader.sized(_U64))
        if verify and hashlib.sha256(content).hexdigest() != identifier:
            raise BundleError(f"object {identifier[:12]}... does not have the hash that it is named by")
        objects[identifier] = content
    if reader.left:
        raise BundleError(f"{reader.left} bytes follow the last object")
    return Bundle(prologue, tuple(messages), objects)


def _prologue(reader: "_Reader") -> dict[str, Any]:
    if reader.take(len(MAGIC)) != MAGIC:
        raise BundleError("not a bundle: the first four bytes differ")
    try:
        prologue = json.loads(bytes(reader.sized(_U32, MAX_PROLOGUE_BYTES)))
    except BundleError:
        raise
    except (ValueError, RecursionError) as error:
        raise BundleError(f"the prologue is not JSON: {error}") from error
    if not isinstance(prologue, dict):
        raise BundleError("the prologue is not a JSON object")
    return prologue


class _Reader:
    """Walks over a buffer and never past its end."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> memoryview:
        if count > self.left:
            raise BundleError(f"truncated: {count} bytes expected at {self._at}, {self.left} left")
        part = self._data[self._at : self._at + count]
        self._at += count
        return part

    def sized(self, length: struct.Struct, limit: int | None = None) -> memoryview:
        count = int(length.unpack(self.take(length.size))[0])
        if limit is not None and count > limit:
            raise BundleError(f"a part of {count} bytes; at most {limit} are allowed")
        return self.take(count)
