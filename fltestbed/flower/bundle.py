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
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.common.serde_utils import error_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from google.protobuf.message import DecodeError

from fltestbed.flower.fleet import MOST_MESSAGE_BYTES
from fltestbed.flower.objects import Chunk, Content, deflate, inflate, object_ids
from fltestbed.flower.screening import check_arrays
from fltestbed.flower.trees import TreeError, check_object, check_trees
from fltestbed.text import printable

MAGIC = b"FLB1"
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
MAX_PROLOGUE_BYTES = 1 << 20
MAX_MESSAGES = 10_000
MAX_TREE_BYTES = 64 << 20
MOST_JOINED_BYTES = 4 << 30
"""Of one message, unless its reader allows fewer."""
CHUNK_BYTES = 256 * 1024

Piece = bytes | memoryview


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
    objects: Mapping[str, Content]

    @classmethod
    def of(cls, messages: Iterable[Message], prologue: dict[str, Any] | None = None) -> "Bundle":
        """Deflate Flower messages. Each gets its message_id, which is its object identifier."""
        messages = list(messages)
        trees, objects = deflate(messages)
        bare = (remove_content_from_message(message) if message.has_content() else message for message in messages)
        parts = ((message_to_proto(message), tree) for message, tree in zip(bare, trees, strict=True))
        return cls(prologue or {}, tuple(parts), objects)

    def inflate(self, most_bytes: int = MOST_JOINED_BYTES) -> list[Message]:
        """Flower messages with their content.

        Parameters
        ----------
        most_bytes : int
            What the arrays of one message may take when their chunks are joined.

        Raises
        ------
        BundleError
            Objects have the hashes that they are named by and are not a message all the same, or one too large.
        """
        inflated = []
        for proto, tree in self.messages:
            try:
                message = check_arrays(inflate(tree, self.objects, most_bytes))
            except Exception as error:  # whatever Flower's own code makes of bytes that nobody there expected
                reason = printable(str(error) or type(error).__name__, 200)
                raise BundleError(f"object {tree.object_id[:12]}... cannot be inflated: {reason}") from error
            message.metadata.__dict__["_message_id"] = proto.metadata.message_id
            inflated.append(message)
        return inflated

    def inflate_replies(self, most_bytes: int = MOST_JOINED_BYTES) -> Iterator[Message]:
        """Flower messages one by one; one that cannot be inflated comes as an error reply that says why."""
        for proto, tree in self.messages:
            try:
                (message,) = Bundle({}, ((proto, tree),), self.objects).inflate(most_bytes)
            except BundleError as error:
                message = broken_reply(message_from_proto(proto), str(error))
            yield message

    @property
    def payload_bytes(self) -> int:
        """Bytes of the encoded bundle without its prologue: what the model's message costs at least."""
        heads: int = sum(2 * _U32.size + message.ByteSize() + tree.ByteSize() for message, tree in self.messages)
        return heads + sum(_U64.size + len(content) for content in self.objects.values())

    def encode(self) -> list[Piece]:
        """Encode; the pieces are to be sent one after the other. The first is the prologue."""
        return [encode_head(self.prologue, len(self.messages)), *self._payload()]

    def _payload(self) -> Iterator[Piece]:
        yield encode_messages(self.messages)
        yield from encode_objects(self.objects[identifier] for identifier in object_ids(tree for _, tree in self.messages))


def broken_reply(reply: Message, reason: str) -> Message:
    """An error reply in the place of one that cannot be read."""
    proto = message_to_proto(remove_content_from_message(reply))
    proto.ClearField("content")
    proto.error.CopyFrom(error_to_proto(Error(ErrorCode.MESSAGE_UNAVAILABLE, reason)))
    return message_from_proto(proto)


def encode_head(prologue: dict[str, Any], messages: int) -> bytes:
    """The first chunk of a bundle: all but the messages and their objects, so that it can be made last."""
    text = json.dumps({**prologue, "messages": messages}, separators=(",", ":")).encode()
    return MAGIC + _U32.pack(len(text)) + text


def encode_messages(messages: Iterable[tuple[ProtoMessage, ObjectTree]]) -> bytes:
    """The second piece of a bundle: its messages and their trees."""
    piece = bytearray()
    for message, tree in messages:
        for part in (message.SerializeToString(deterministic=True), tree.SerializeToString(deterministic=True)):
            piece += _U32.pack(len(part)) + part
    return bytes(piece)


def encode_objects(contents: Iterable[Content]) -> Iterator[Piece]:
    """The other pieces of a bundle: objects, each after its length."""
    for content in contents:
        yield _U64.pack(len(content))
        if isinstance(content, Chunk):
            yield content.head
            yield content.data
        else:
            yield content


def coalesce(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Gather pieces that are smaller than `CHUNK_BYTES`: a write and a read for each would cost more than the copy."""
    small: list[Piece] = []
    gathered = 0
    for piece in pieces:
        if len(piece) >= CHUNK_BYTES:
            if small:
                yield b"".join(small)
                small, gathered = [], 0
            yield piece
            continue
        small.append(piece)
        gathered += len(piece)
        if gathered >= CHUNK_BYTES:
            yield b"".join(small)
            small, gathered = [], 0
    if small:
        yield b"".join(small)


class Packing:
    """Chunks of bundles of one message each, for a socket. What messages to many nodes share is packed once."""

    def __init__(self) -> None:
        self._content_id = ""
        self._content: list[Piece] = []

    def chunks(self, bundle: Bundle) -> list[Piece]:
        """A bundle's chunks without its prologue, to be sent one after the other."""
        ((_, tree),) = bundle.messages
        root = bundle.objects[tree.object_id]
        if not tree.children:
            return list(coalesce([encode_messages(bundle.messages), *encode_objects([root])]))
        (content,) = tree.children  # named by its hash: another message with this content has the same objects
        if content.object_id != self._content_id:
            objects = encode_objects(bundle.objects[identifier] for identifier in object_ids([content]))
            self._content_id, self._content = content.object_id, list(coalesce(objects))
        return [encode_messages(bundle.messages), *self._content, *coalesce(encode_objects([root]))]


def read_head(data: Piece | bytearray) -> tuple[dict[str, Any], Message]:
    """The prologue of a bundle and its first message without content; what follows is not read, and nothing of `data` kept.

    Raises
    ------
    BundleError
    """
    reading = _Reading(_read_head())
    reading.feed(data)
    return reading.result()


def decode(data: Piece | bytearray, *, verify: bool = True) -> Bundle:
    """Decode a bundle, whose objects stay where they are: they are valid as long as `data` is.

    Parameters
    ----------
    data : bytes
        One whole bundle.
    verify : bool
        Check every object against its identifier and its tree. False for what a process of this host has made or checked
        and hands over in memory.

    Raises
    ------
    BundleError
        The bytes are truncated, longer than announced, malformed, or an object does not match its identifier or its tree.
    """
    decoder = Decoder(verify=verify, in_place=True)
    decoder.feed(data)
    return decoder.end()


class Decoder:
    """Decodes a bundle while it comes, in pieces of any size: no more of it is held than its objects.

    Parameters
    ----------
    verify : bool
        See `decode`.
    in_place : bool
        Objects that come in one piece stay where they are; otherwise all are bytes of their own.
    """

    def __init__(self, *, verify: bool = True, in_place: bool = False) -> None:
        self._reading = _Reading(_read(verify), in_place=in_place)

    def feed(self, data: Piece | bytearray) -> None:
        """Take the next piece, which must not change until the decoder's end.

        Raises
        ------
        BundleError
            Malformed, longer than announced, or an object does not match its identifier or its tree.
        """
        left = self._reading.feed(data)
        if left:
            raise BundleError(f"{left} bytes follow the last object")

    def end(self) -> Bundle:
        """The bundle, once all has come.

        Raises
        ------
        BundleError
            Truncated.
        """
        return self._reading.result()


T = TypeVar("T")
_Want = tuple[int, bool]
"""How many bytes, and whether their SHA-256 is wanted too."""
_Got = tuple[Piece, str]
_Steps = Generator[_Want, _Got, T]


class _Reading(Generic[T]):
    """Gives a generator the bytes that it asks for, out of pieces of other sizes."""

    def __init__(self, steps: _Steps[T], *, in_place: bool = True) -> None:
        self._steps = steps
        self._in_place = in_place
        self._result: T | None = None
        self._at = 0
        self._want(next(steps))

    def feed(self, data: Piece | bytearray) -> int:
        """Take a piece; returns how many bytes of it are left when the generator is at its end."""
        view = memoryview(data)
        while self._result is None and (view or not self._missing):
            part, view = view[: self._missing], view[self._missing :]
            self._missing -= len(part)
            if self._hash is not None:
                self._hash.update(part)
            self._parts.append(part)
            if self._missing:
                break
            whole = self._parts[0] if self._in_place and len(self._parts) == 1 else b"".join(self._parts)
            self._at += len(whole)
            try:
                self._want(self._steps.send((whole, self._hash.hexdigest() if self._hash is not None else "")))
            except StopIteration as end:
                self._result = end.value
        return len(view)

    def result(self) -> T:
        """What the generator returned."""
        if self._result is None:
            have = sum(map(len, self._parts))
            raise BundleError(f"truncated: {have + self._missing} bytes expected at {self._at}, {have} left")
        return self._result

    def _want(self, want: _Want) -> None:
        self._missing, is_hashed = want
        self._hash = hashlib.sha256() if is_hashed else None
        self._parts: list[memoryview] = []


def _read(verify: bool) -> _Steps[Bundle]:
    prologue, count = yield from _read_prologue()
    messages = []
    for _ in range(count):
        message = yield from _read_part(ProtoMessage(), MOST_MESSAGE_BYTES)
        tree = yield from _read_part(ObjectTree(), MAX_TREE_BYTES)
        if not (message.HasField("content") or message.HasField("error")):
            raise BundleError("a message has neither content nor an error")
        if message.metadata.message_id != tree.object_id:
            raise BundleError("a message is not the root of its object tree")
        _to_message(message)
        messages.append((message, tree))
    trees = [tree for _, tree in messages]
    return Bundle(prologue, tuple(messages), (yield from (_read_checked(trees) if verify else _read_believed(trees))))


def _read_checked(trees: list[ObjectTree]) -> _Steps[dict[str, Content]]:
    """Objects that have the hashes that they are named by, and the children that their trees give them."""
    objects: dict[str, Content] = {}
    try:
        for identifier, children in check_trees(trees).items():
            (length,) = _U64.unpack((yield _U64.size, False)[0])
            objects[identifier], digest = yield length, True
            if digest != identifier:
                raise BundleError(f"object {identifier[:12]}... does not have the hash that it is named by")
            check_object(identifier, objects[identifier], children)
    except TreeError as error:
        raise BundleError(str(error)) from error
    return objects


def _read_believed(trees: list[ObjectTree]) -> _Steps[dict[str, Content]]:
    objects: dict[str, Content] = {}
    for identifier in object_ids(trees):
        (length,) = _U64.unpack((yield _U64.size, False)[0])
        objects[identifier], _ = yield length, False
    return objects


def _read_head() -> _Steps[tuple[dict[str, Any], Message]]:
    prologue, count = yield from _read_prologue()
    if count == 0:
        raise BundleError("no message follows the prologue")
    return prologue, _to_message((yield from _read_part(ProtoMessage(), MOST_MESSAGE_BYTES)))


P = TypeVar("P", ProtoMessage, ObjectTree)


def _read_part(part: P, most_bytes: int) -> _Steps[P]:
    (length,) = _U32.unpack((yield _U32.size, False)[0])
    if length > most_bytes:
        raise BundleError(f"a part of {length} bytes; at most {most_bytes} are allowed")
    data, _ = yield length, False
    try:
        part.ParseFromString(bytes(data))
    except DecodeError as error:
        raise BundleError(f"a message or its tree cannot be parsed: {error}") from error
    return part


def _to_message(proto: ProtoMessage) -> Message:
    """Refuse what Flower cannot make a message of, for example a type that is none."""
    try:
        return message_from_proto(proto)
    except Exception as error:
        raise BundleError(f"a message cannot be read: {printable(str(error) or type(error).__name__, 200)}") from error


def _read_prologue() -> _Steps[tuple[dict[str, Any], int]]:
    """The prologue, and how many messages it announces."""
    magic, _ = yield len(MAGIC), False
    if magic != MAGIC:
        raise BundleError("not a bundle: the first four bytes differ")
    (length,) = _U32.unpack((yield _U32.size, False)[0])
    if length > MAX_PROLOGUE_BYTES:
        raise BundleError(f"a part of {length} bytes; at most {MAX_PROLOGUE_BYTES} are allowed")
    text, _ = yield length, False
    try:
        prologue = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"the prologue is not JSON: {error}") from error
    if not isinstance(prologue, dict):
        raise BundleError("the prologue is not a JSON object")
    count = prologue.pop("messages", None)
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_MESSAGES:
        raise BundleError("the prologue does not say how many messages follow")
    return prologue, count
