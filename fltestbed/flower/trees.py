"""Object trees that come from strangers: small enough to walk, and the same as what their objects say.

Flower stores the children of an object once and builds the tree again from them when it is asked for. Two trees that give
one object different children could so be put together to one that has no end worth waiting for. An object's own first bytes
name its children, and its identifier is the hash of its bytes, so a tree that agrees with them has one form alone.
"""

from collections.abc import Mapping, Sequence

from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    get_object_head_values_from_object_content,
    is_valid_sha256_hash,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflatable_class_registry

from fltestbed.flower.objects import Chunk, Content

MOST_OBJECTS = 100_000
"""Of one message, each counted as often as it stands in the tree: a tensor is two."""
_MOST_HEAD_BYTES = 8 << 20


class TreeError(ValueError):
    """An object tree that cannot be of a message; the text says why."""


def check_trees(trees: Sequence[ObjectTree]) -> dict[str, tuple[str, ...]]:
    """The children of every object of the trees, by its identifier, children before parents.

    Raises
    ------
    TreeError
        A name is no SHA-256, an object has other children in another place, or there are more than `MOST_OBJECTS`.
    """
    children: dict[str, tuple[str, ...]] = {}
    for tree in trees:
        for count, node in enumerate(iterate_object_tree(tree)):
            if count >= MOST_OBJECTS:
                raise TreeError(f"a tree of more than {MOST_OBJECTS} objects")
            if not is_valid_sha256_hash(node.object_id):
                raise TreeError(f"{node.object_id[:80]!r} is no SHA-256")
            below = tuple(child.object_id for child in node.children)
            if children.setdefault(node.object_id, below) != below:
                raise TreeError(f"object {node.object_id[:12]}... has other children in another place")
    return children


def check_root(message: ProtoMessage, tree: ObjectTree) -> None:
    """Check that a message is the root of its tree.

    Raises
    ------
    TreeError
    """
    if message.metadata.message_id != tree.object_id:
        raise TreeError("the message is not the root of its object tree")


def read_head(content: Content) -> tuple[str, list[str]]:
    """An object's kind, and the identifiers of its children.

    Raises
    ------
    TreeError
        It has no head, or not as many bytes as that says.
    """
    for most in (256, _MOST_HEAD_BYTES):
        start = content.head if isinstance(content, Chunk) else bytes(content[:most])
        end = start.find(HEAD_BODY_DIVIDER)
        if end >= 0:
            try:
                kind, children, body_bytes = get_object_head_values_from_object_content(start[: end + 1])
            except ValueError:
                break
            if body_bytes == len(content) - end - 1:
                return kind, children
    raise TreeError("it begins with no head")


def check_object(identifier: str, content: Content, children: Sequence[str]) -> None:
    """Check that an object is of a kind that Flower knows, and names the children that its tree gives it.

    Raises
    ------
    TreeError
    """
    try:
        kind, named = read_head(content)
    except TreeError as error:
        raise TreeError(f"object {identifier[:12]}...: {error}") from error
    if kind not in inflatable_class_registry:
        raise TreeError(f"object {identifier[:12]}... is of no kind that Flower knows")
    if list(children) != named:
        raise TreeError(f"object {identifier[:12]}... names other children than its tree")


def check_objects(trees: Sequence[ObjectTree], objects: Mapping[str, Content]) -> None:
    """Check trees, and that all their objects name the children that the trees give them.

    Raises
    ------
    TreeError
    """
    for identifier, children in check_trees(trees).items():
        check_object(identifier, objects[identifier], children)
