"""What Flower's Fleet requests say, read from their bytes as they pass."""

from dataclasses import dataclass

from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest, PushObjectResponse
from flwr.proto.node_pb2 import Node
from google.protobuf.message import DecodeError

from fltestbed.flower.trees import TreeError, check_root, check_trees

MOST_MESSAGE_BYTES = 1 << 20
"""Of a message without its objects: metadata, or the reason of an error."""


class FleetError(ValueError):
    """Bytes that are not what Flower sends there."""


@dataclass(frozen=True)
class Announcement:
    """A reply that a node begins to push.

    Attributes
    ----------
    message_id : str
        The message that it answers.
    error : str or None
        Reason of an error reply.
    """

    message_id: str
    error: str | None


def pulled_message(response: bytes | bytearray) -> str | None:
    """Identifier of the message in a response to PullMessages; None when there is none."""
    try:
        messages = PullMessagesResponse.FromString(bytes(response)).messages_list
    except DecodeError as error:
        raise FleetError(str(error)) from error
    return messages[0].metadata.message_id if messages else None


def announced_reply(request: bytes | bytearray) -> Announcement | None:
    """The reply that a PushMessages request announces; None when there is none."""
    try:
        messages = PushMessagesRequest.FromString(bytes(request)).messages_list
    except DecodeError as error:
        raise FleetError(str(error)) from error
    if not messages:
        return None
    reason = messages[0].error.reason[:300] if messages[0].HasField("error") else None
    return Announcement(messages[0].metadata.reply_to_message_id, reason)


def announcement(node_id: int, message: ProtoMessage, tree: ObjectTree) -> PushMessagesRequest:
    """The request with which a node announces its reply."""
    return PushMessagesRequest(node=Node(node_id=node_id), messages_list=[message], message_object_trees=[tree])


def check_announcement(request: bytes | bytearray, node_id: int) -> None:
    """Check the reply that a PushMessages request of a node announces, before Flower stores it.

    Raises
    ------
    FleetError
        It is not one message of that node with its tree of objects.
    """
    try:
        pushed = PushMessagesRequest.FromString(bytes(request))
        if len(pushed.messages_list) != 1 or len(pushed.message_object_trees) != 1:
            raise FleetError("a reply is one message with one tree of objects")
        if pushed.messages_list[0].ByteSize() > MOST_MESSAGE_BYTES:
            raise FleetError(f"a message of more than {MOST_MESSAGE_BYTES} bytes beside its objects")
        if pushed.messages_list[0].metadata.src_node_id != node_id:
            raise FleetError("the reply is another node's")
        check_root(pushed.messages_list[0], pushed.message_object_trees[0])
        check_trees(list(pushed.message_object_trees))
    except (DecodeError, TreeError) as error:
        raise FleetError(str(error)) from error


def wanted_objects(response: bytes | bytearray) -> set[str]:
    """Objects that the server still wants, from a response to PushMessages."""
    try:
        return set(PushMessagesResponse.FromString(bytes(response)).objects_to_push)
    except DecodeError as error:
        raise FleetError(str(error)) from error


def pushed_object(request: bytes | bytearray) -> str:
    """Identifier of the object in a PushObject request."""
    try:
        return str(PushObjectRequest.FromString(bytes(request)).object_id)
    except DecodeError as error:
        raise FleetError(str(error)) from error


def is_stored(response: bytes | bytearray) -> bool:
    """Whether the server took the object, from a response to PushObject; not one that came damaged."""
    try:
        return bool(PushObjectResponse.FromString(bytes(response)).stored)
    except DecodeError as error:
        raise FleetError(str(error)) from error
