"""A client's side of Flower's Fleet API: its registration, its heartbeat, and messages as Flower's objects."""

import contextlib
import hashlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import httpx
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    pull_objects,
    push_object_contents_from_iterable,
)
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient

from fltestbed.errors import ServerRefused, ServerUnreachable
from fltestbed.flower.bound import PLAIN, BoundBackend, CountSocket, bound_client
from fltestbed.flower.bundle import Bundle
from fltestbed.flower.fleet import announcement
from fltestbed.flower.node_key import NodeKey
from fltestbed.flower.objects import object_ids
from fltestbed.flower.trees import TreeError, check_object, check_root, check_trees
from fltestbed.text import printable

log = logging.getLogger("fltestbed")

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")

MOST_TRIES = 3
"""To move the same message or the same object, where it may have been damaged on its way."""
CONNECT_S = 2.0
RETRY_S = 0.5
LEAVE_S = 1.0
"""For the last word to a server that may be gone."""


class MessageGone(ServerRefused):
    """The server holds this message no longer, or waits for no reply to it: its round went on."""


class FleetNode:
    """A node at Flower's Fleet API: registered, online, with a heartbeat in the background.

    Parameters
    ----------
    server : str
        host:port.
    key : NodeKey
    tls : ssl.SSLContext or None
        None speaks plain HTTP.
    interface : str
        Sockets are bound to it: what they send leaves there or not at all.
    count : callable (socket) -> None
        Shown the socket of each answer.
    patience_s : float
        How long a request of a transfer that gets no answer is sent again, while the server's host does not say that there
        is no server; Flower takes each object as often as it comes.
    """

    def __init__(
        self,
        server: str,
        key: NodeKey,
        tls: ssl.SSLContext | None,
        interface: str,
        count: CountSocket = lambda _: None,
        patience_s: float = 0.0,
    ) -> None:
        self._server = server
        self.patience_s = patience_s
        self._key = key
        self._client = FleetHttpClient(
            base_url=f"{'http' if tls is None else 'https'}://{server}",
            interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperNode"), key],
            verify=tls or PLAIN,
        )
        # Flower's client drops idle connections after 5 s, which a SuperNode that polls every 3 s never meets.
        timeout = httpx.Timeout(self._client._client.timeout.read, connect=CONNECT_S)
        self._backend = BoundBackend(interface)
        self._client._client = bound_client(timeout, tls, self._backend, count)
        self._is_over = threading.Event()
        self._heartbeat: HeartbeatSender | None = None
        self.node_id = 0

    def register(self, patience_s: float = 0.0) -> None:
        """Make the key known to the server; what gets no answer is tried again for `patience_s` seconds.

        One that is known already is fine, and so is a server that takes only the keys on its list: the next request tells
        whether this one is among them.

        Raises
        ------
        ServerUnreachable, ServerRefused
        """
        fine = (ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE, ApiErrorCode.FLEET_SUPERNODE_REGISTRATION_DISABLED)
        with self._errors("register", unless=fine):
            self._patiently(self._client.RegisterNode, patience_s)(RegisterNodeFleetRequest(public_key=self._key.public))

    def come_online(self, node_id: int, patience_s: float = 0.0) -> None:
        """Tell the server that the node is there, and go on telling it in the background.

        Flower refuses to activate a node that it still counts as online (up to a minute after a crash); a heartbeat does
        the same for such a node. What gets no answer is tried again for `patience_s` seconds.
        """
        self.node_id = node_id
        request = ActivateNodeRequest(public_key=self._key.public, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        with self._errors("come online", unless=(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED,)):
            self._patiently(self._client.ActivateNode, patience_s)(request)
        if self._heartbeat is not None and self._heartbeat.is_running:
            return  # it goes on for the new identifier
        self._heartbeat = HeartbeatSender(self._send_heartbeat)
        self._heartbeat.start()

    def pull_message(self) -> tuple[ProtoMessage, ObjectTree] | None:
        """Flower's PullMessages: the next message without its objects, and the tree of them; None without one."""
        with self._transfer("pull a message"):
            pulled = self._client.PullMessages(PullMessagesRequest(node=Node(node_id=self.node_id)))
        if not pulled.messages_list:
            return None
        try:
            message, tree = pulled.messages_list[0], pulled.message_object_trees[0]
            check_trees([tree])
            check_root(message, tree)
        except (IndexError, TreeError) as error:
            raise ServerRefused(
                f"{self._server}: the server sent no whole message: {error}; does it run Flower 1.41?"
            ) from error
        return message, tree

    def pull_objects(self, run_id: int, message: tuple[ProtoMessage, ObjectTree]) -> Bundle:
        """Flower's PullObject for each object of a message, as many at once as a SuperNode does, and the confirmation.

        Each object has the hash that it is named by and the children that the tree gives it.

        Raises
        ------
        MessageGone, ServerUnreachable, ServerRefused
        """
        node = Node(node_id=self.node_id)
        with self._transfer("pull an object"):
            pull = make_pull_object_fn_protobuf(self._patiently(self._client.PullObject), node, run_id)
            children = check_trees([message[1]])

            def pull_checked(object_id: str) -> bytes:
                content = pull(object_id)
                if hashlib.sha256(content).hexdigest() != object_id:
                    raise ObjectPullError(object_id, "it does not have the hash that it is named by.")
                check_object(object_id, content, children[object_id])
                return content

            objects = pull_objects(list(children), self._again(pull_checked))
            confirm = self._again(self._patiently(self._client.ConfirmMessageReceived))
            make_confirm_message_received_fn_protobuf(confirm, node, run_id)(message[1].object_id)
        return Bundle({}, (message,), objects)

    def push_reply(self, run_id: int, bundle: Bundle) -> None:
        """Flower's PushMessages, and PushObject for each object that the server has not got.

        Raises
        ------
        MessageGone, ServerUnreachable, ServerRefused
        """
        node = Node(node_id=self.node_id)
        proto, tree = bundle.messages[0]
        with self._transfer("push a reply"):
            answer = self._again(self._patiently(self._client.PushMessages))(announcement(self.node_id, proto, tree))
            wanted = set(answer.objects_to_push)
            contents = [
                (identifier, bytes(bundle.objects[identifier])) for identifier in object_ids([tree]) if identifier in wanted
            ]
            push = make_push_object_fn_protobuf(
                self._patiently(self._client.PushObject), node, run_id, answer.session_id
            )  # fmt: skip
            push_object_contents_from_iterable(contents, self._again(push))

    def _again(self, move: Callable[P, A]) -> Callable[P, A]:
        """The same, up to `MOST_TRIES` times, where it fails as it does when what is moved was damaged on its way: it lacks
        the hash that it should have, or a side cannot read the request or its answer.
        """

        def moved(*args: P.args, **kwargs: P.kwargs) -> A:
            failures: list[str] = []
            while True:
                try:
                    done = move(*args, **kwargs)
                except (ObjectPullError, ObjectPushError, ValueError, httpx.HTTPStatusError) as error:
                    failures.append(printable(str(error), 300))
                    if len(failures) == MOST_TRIES:
                        raise
                else:
                    if failures:
                        log.warning("%s: %s; it went through when it was tried again", self._server, failures[0])
                    return done

        return moved

    def _patiently(self, call: Callable[[R], A], patience_s: float | None = None) -> Callable[[R], A]:
        """The same call, made again when its connection breaks, as after an outage; with a `patience_s` of its own also
        where there is no server. That is the end of a transfer: another server would know nothing of it.
        """

        def called(request: R) -> A:
            end = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
            while True:
                try:
                    return call(request)
                except httpx.TransportError as error:
                    is_gone = patience_s is None and _is_refused(error)
                    if is_gone or time.monotonic() >= end or self._is_over.wait(RETRY_S):
                        raise

        return called

    def leave(self) -> None:
        """Stop the heartbeat and go offline, if the node is online; its key stays registered. The server may be gone."""
        if self._heartbeat is not None and self._heartbeat.is_running:
            stopping = threading.Thread(target=self._heartbeat.stop, name="heartbeat-stop", daemon=True)
            stopping.start()
            stopping.join(LEAVE_S)  # one that waits for an answer ends with this process
        self._client._client.timeout = httpx.Timeout(LEAVE_S)
        if self.node_id:
            with contextlib.suppress(httpx.HTTPError):
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.node_id))
        self.close()

    def close(self) -> None:
        """Close the connections of a node that has not come online, or has left."""
        self._client.close()

    def _send_heartbeat(self) -> bool:
        request = SendNodeHeartbeatRequest(node=Node(node_id=self.node_id), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        try:
            return bool(self._client.SendNodeHeartbeat(request).success)
        except httpx.HTTPError:
            return False

    @contextlib.contextmanager
    def _transfer(self, what: str) -> Iterator[None]:
        """A part of a transfer, within the block; one that is interrupted leaves no thread that waits for an answer."""
        with self._errors(what), self._backend.probing():
            try:
                yield
            except Exception:
                raise
            except BaseException:
                self._is_over.set()
                self._backend.abandon()
                raise

    @contextlib.contextmanager
    def _errors(self, what: str, unless: tuple[int, ...] = ()) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            flower = FlowerError.from_json(error.response.text)
            if flower is not None and flower.code in unless:
                return
            reason = printable(flower.message, 300) if flower is not None else f"HTTP {error.response.status_code}"
            raise ServerRefused(f"{self._server}: the server did not let this client {what}: {reason}") from error
        except (ObjectPullError, ObjectPushError) as error:
            raise MessageGone(f"{self._server}: the server did not let this client {what}: {error}") from error
        except ValueError as error:  # what Flower's client makes of bytes that are none of its messages
            raise ServerRefused(
                f"{self._server}: what the server answered cannot be read; does it run Flower 1.41?"
            ) from error
        except httpx.TransportError as error:
            raise ServerUnreachable(
                f"{self._server}: no answer while trying to {what}: {error}; is the server still there?"
            ) from error


def _is_refused(error: httpx.TransportError) -> bool:
    """Whether the server's host has answered that nobody listens there, as `BoundBackend` tells in httpcore's error."""
    told = error.__cause__.args if error.__cause__ is not None else ()
    return any(isinstance(problem, ConnectionRefusedError) for problem in told)
