"""Flower's SuperLink application and its state, as the rest of the server uses them.

`Superlink.app` is Flower's own FastAPI application, made by Flower's own function. The other methods are what its Fleet and
Runtime handlers do, in bulk: a whole message at a time instead of one request for each object.
"""

import copy
import hashlib
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from fastapi import FastAPI, HTTPException, Request
from flwr.app import Message
from flwr.cli.config_utils import get_fab_metadata
from flwr.common.constant import (
    HEARTBEAT_DEFAULT_INTERVAL,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
)
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    NOOP_FEDERATION_ID,
    TaskType,
)
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
from flwr.superlink.main import create_app
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from starlette.datastructures import Headers
from starlette.types import Scope

from fltestbed.errors import TestbedError
from fltestbed.flower.apps import App
from fltestbed.flower.bundle import Bundle, BundleError, broken_reply
from fltestbed.flower.objects import Content, object_ids
from fltestbed.flower.trees import TreeError, check_objects
from fltestbed.security.node_keys import RegisteredKey

_SIGNED = TIMESTAMP_HEADER, FLEET_HTTP_SIGNATURE_HEADER, FLEET_HTTP_PUBLIC_KEY_HEADER


@dataclass(frozen=True)
class RunTicket:
    """A run of the SuperLink and the token with which a ServerApp process takes it up."""

    run_id: int
    token: str


class Superlink:
    """One SuperLink: Flower's application, and its state in bulk.

    Parameters
    ----------
    host : str
    port : int
    registered : sequence of RegisteredKey, optional
        The nodes that may take part, by Flower's own SuperNode authentication; None lets any key register.
    """

    def __init__(self, host: str, port: int, registered: Sequence[RegisteredKey] | None = None) -> None:
        self.app: FastAPI = create_app(
            SuperLinkLifespanConfig(
                control_address="",
                health_server_address=None,
                host=host,
                port=port,
                insecure=True,
                certificates=None,
                superexec_auth_secret=secrets.token_bytes(32),  # nobody else's SuperExec may ask for work
                authn_plugin=load_control_authn_plugin(),
                event_log_plugin=None,
                fleet_event_log_plugin=None,
                enable_event_log=False,
                artifact_provider=None,
                enable_supernode_auth=registered is not None,
                fleet_api_type="grpc-rere",
                fleet_api_address=None,
                simulation=False,
                ssl_ca_certfile=None,
                ssl_certfile=None,
                ssl_keyfile=None,
                database=":flwr-in-memory:",
                isolation="process",
                runtime_dependency_install=False,
            ),
            SuperLinkLifespan,
        )
        self._state: InMemoryLinkState = self.app.state.linkstate_factory.state()
        # The same store, for objects that need no second look: their hashes were checked, or they were made on this host.
        self._checked_store = copy.copy(cast(InMemoryObjectStore, self._state.object_store))
        self._checked_store.verify = False
        self._trees: dict[str, ObjectTree] = {}
        self._proved: dict[int, tuple[str, ...]] = {}
        self.takes_listed_keys_alone = registered is not None
        self._owners = {self._register(key): key.name for key in registered or ()}

    def _register(self, key: RegisteredKey) -> int:
        """What `flwr supernode register` does, without its Control API."""
        node_id = self._state.create_node(
            owner_aid=NOOP_FLWR_AID, owner_name=NOOP_ACCOUNT_NAME, public_key=key.public, heartbeat_interval=0
        )
        return int(node_id)

    def owner_of(self, node_id: int) -> str | None:
        """The client whose registered key a node has; None where the list of keys names nobody, or there is no list."""
        return self._owners.get(node_id)

    def create_run(self, fab: bytes) -> App:
        """Make a run of an app; returns the app with the run's identifier."""
        fab_id, fab_version = get_fab_metadata(fab)
        fab_hash = self._state.store_fab(Fab(hashlib.sha256(fab).hexdigest(), fab, {}))
        run_id = self._state.create_run(
            fab_id, fab_version, fab_hash, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        if not run_id:
            raise TestbedError(
                "Flower's SuperLink did not create the run; start the server again with --debug and report what it says"
            )
        return App(int(run_id), fab_id, fab_version, fab_hash, fab)

    def claim(self, run_id: int) -> RunTicket:
        """Take up the run for a ServerApp process, which has to ask for its input within 30 s."""
        run = self._state.get_run_info(run_ids=[run_id])[0]
        token = self._state.claim_task(run.primary_task_id) if run.primary_task_id else None
        if token is None:
            raise TestbedError(
                "Flower's SuperLink did not hand out the ServerApp's task; start the server again with --debug and report "
                "what it says"
            )
        return RunTicket(run_id, token)

    def task_is_valid(self, token: str) -> bool:
        """Whether `token` is the one of a task that is under way."""
        return self._state.get_task_by_token(token) is not None

    def online_nodes(self, run_id: int) -> set[int]:
        """Identifiers of the nodes that have given a sign of life lately."""
        return set(self._state.get_nodes(run_id))

    def revive(self, node_id: int) -> None:
        """Take a request of a node for the heartbeat that Flower would wait for: it is online again, if it was not."""
        self._state.acknowledge_node_heartbeat(node_id, HEARTBEAT_DEFAULT_INTERVAL)

    def node_of_request(self, scope: Scope) -> int | None:
        """Identifier of the node whose key a request names, not yet proved; None for a key that is not registered."""
        value = Headers(scope=scope).get(FLEET_HTTP_PUBLIC_KEY_HEADER, "")
        try:
            node_id = self._state.get_node_id_by_public_key(b64decode(value, validate=True))
        except Base64Error:
            return None
        return None if node_id is None else int(node_id)

    def authenticate(self, scope: Scope, node_id: int) -> str | None:
        """Check the signed headers of a request against a node; returns what is wrong with them, or None.

        What is signed is a moment, and counts for minutes: the same three headers again need no second look at the
        signature, the most expensive part of a small request.
        """
        request = Request(scope)
        signed = tuple(request.headers.get(name, "") for name in _SIGNED)
        if self._proved.get(node_id) == signed and _counts_still(signed[0]):
            return None
        request.state.protobuf_request = PullMessagesRequest(node=Node(node_id=node_id))
        try:
            authenticate_node(request)
        except HTTPException as error:
            return str(error.detail)
        except FlowerError as error:
            return error.message
        self._proved[node_id] = signed
        return None

    def store_instructions(self, bundle: Bundle) -> list[str | None]:
        """Store messages for nodes, objects first. Returns their identifiers; None for one that Flower refused.

        The objects are believed: the ServerApp's process has made them.
        """
        return [self._store(bundle, message, tree, self._state.store_message_ins) for message, tree in bundle.messages]

    def store_reply(self, bundle: Bundle) -> str | None:
        """Store the one reply of a bundle, objects first, which has been checked as it came. Returns the identifier of the
        message that it answers, or None if Flower refused it (unknown or expired message, another node's, a second answer).

        Raises
        ------
        BundleError
            Flower does not take its objects.
        """
        ((message, tree),) = bundle.messages
        if self._store(bundle, message, tree, self._state.store_message_res) is None:
            return None
        return message.metadata.reply_to_message_id

    def _store(self, bundle: Bundle, proto: ProtoMessage, tree: ObjectTree, store: Any) -> str | None:
        message = message_from_proto(proto)
        try:
            for identifier in self._checked_store.preregister(message.metadata.run_id, tree):
                self._checked_store.put(identifier, bytes(bundle.objects[identifier]))
        except ValueError as error:
            self._free(tree.object_id)
            raise BundleError(str(error)) from error
        stored: str | None = store(message)
        if stored is None:
            self._free(tree.object_id)
        else:
            self._trees[tree.object_id] = tree
        return stored

    def instruction(self, message_id: str, node_id: int) -> Bundle | None:
        """A message for a node with its objects, which Flower counts as delivered from now on; None if it has expired.

        To find the next message of a node Flower looks at those of all nodes, which takes longer the more
        nodes there are: it is shown this one alone.
        """
        with self._state.lock:
            message = self._state.message_ins_store.get(message_id)
            only = copy.copy(self._state)
            only.message_ins_store = {} if message is None else {message_id: message}
            messages = only.get_message_ins(node_id, limit=1)
        if not messages:
            return None
        tree = self._tree(message_id)
        return Bundle({}, ((message_to_proto(messages[0]), tree),), self._objects(tree))

    def confirm(self, message_id: str) -> None:
        """Free the objects of a message that has arrived."""
        self._free(message_id)

    def take_replies(self, message_ids: Iterable[str], run_id: int) -> Bundle:
        """Replies to those messages, complete ones and errors that Flower makes for nodes that are gone."""
        parts: list[tuple[ProtoMessage, ObjectTree]] = []
        objects: dict[str, Content] = {}
        for message in self._state.get_message_res(set(message_ids), run_id):
            reply = self._reply(message)
            parts += reply.messages
            objects.update(reply.objects)
        return Bundle({}, tuple(parts), objects)

    def _reply(self, message: Message) -> Bundle:
        """A stored reply with its objects, which agree with their tree."""
        message_id = message.metadata.message_id
        try:
            tree = self._tree(message_id)
        except NoObjectInStoreError:
            return Bundle.of([message])  # an error that the SuperLink made itself: the object store never had it
        objects = self._objects(tree)
        if message_id not in self._trees:  # a stock SuperNode pushed it object by object
            try:
                check_objects([tree], objects)
            except TreeError as error:
                self._free(message_id)
                return Bundle.of([broken_reply(message, str(error))])
        return Bundle({}, ((message_to_proto(message), tree),), objects)

    def forget(self, bundle: Bundle) -> None:
        """Free replies that the ServerApp holds, with the messages that they answer."""
        for proto, tree in bundle.messages:
            self._free(tree.object_id)
            self._free(proto.metadata.reply_to_message_id)
        self._state.delete_messages({proto.metadata.reply_to_message_id for proto, _ in bundle.messages})

    def delete(self, message_ids: Iterable[str], run_id: int) -> None:
        """Free messages that nobody waits for, with the replies that have come; Flower refuses one that comes later."""
        ids = set(message_ids)
        replies = self._state.get_message_res(set(ids), run_id) if ids else []  # Flower takes out of the set what it finds
        for identifier in (*ids, *(reply.metadata.message_id for reply in replies)):
            self._free(identifier)
        self._state.delete_messages(ids)

    def _tree(self, message_id: str) -> ObjectTree:
        """The tree of a stored message: as it came, or, of a stock SuperNode's reply, as Flower's store makes it again."""
        return self._trees.get(message_id) or self._state.object_store.get_object_tree(message_id)

    def _free(self, message_id: str) -> None:
        self._trees.pop(message_id, None)
        self._state.object_store.delete(message_id)

    def _objects(self, tree: ObjectTree) -> dict[str, bytes]:
        store = self._state.object_store
        return {identifier: store.get(identifier) or b"" for identifier in object_ids([tree])}


def _counts_still(timestamp: str) -> bool:
    """Whether Flower would still take a moment that was signed, and whose signature was right."""
    age_s = (datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()
    return -SYSTEM_TIME_TOLERANCE < age_s < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
