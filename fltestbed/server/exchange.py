"""Messages between the ServerApp and the nodes: who waits for what, and who is woken when it comes.

Everything here runs in the SuperLink's event loop: objects have been hashed while they came, so what is left takes a
millisecond or two, less than a thread that shares Python's lock with the loop.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection

from fltestbed.flower.bundle import Bundle
from fltestbed.flower.superlink import Superlink

ERROR_POLL_S = 1.0
"""How often Flower is asked for the errors that it makes by itself, for nodes that are gone and messages that expired."""


class Exchange:
    """The mailboxes of all nodes and of the ServerApp.

    Parameters
    ----------
    superlink : Superlink
        Flower's state, in which every message lives.
    """

    def __init__(self, superlink: Superlink) -> None:
        self._superlink = superlink
        self._instruction_stored: dict[int, asyncio.Event] = {}
        self._node_of: dict[str, int] = {}
        self._waiting: dict[int, dict[str, None]] = {}  # of each node, in the order of sending
        self._unconfirmed: dict[int, Bundle] = {}
        self._reply_stored = asyncio.Event()
        self._complete: dict[str, None] = {}  # a set in the order of arrival
        self._under_way: set[str] = set()
        self.finished = asyncio.Event()
        """Set when the run is over: nodes that wait for work are told so."""
        self.farewell = {"finished": True}
        """What they are told: also whether the run has failed and may be resumed."""
        self.watchers: list[Callable[[str], None]] = []
        """Told of each message to which nobody waits for a reply any more."""

    def send(self, bundle: Bundle) -> list[str | None]:
        """Store the ServerApp's messages and wake the nodes that they are for."""
        stored = self._superlink.store_instructions(bundle)
        for (message, _), message_id in zip(bundle.messages, stored, strict=True):
            if message_id is not None:
                self._waiting.setdefault(message.metadata.dst_node_id, {})[message_id] = None
                self._node_of[message_id] = message.metadata.dst_node_id
            self._wake(message.metadata.dst_node_id)
        return stored

    async def wait_for(self, node_id: int, hold_s: float) -> bool:
        """Wait until there is a message for a node that takes it by Flower's own requests; False when none came."""
        event = self._instruction_stored.setdefault(node_id, asyncio.Event())
        deadline = asyncio.get_running_loop().time() + hold_s
        while not self._waiting.get(node_id) and not self.finished.is_set():
            event.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await event.wait()
            except TimeoutError:
                return False
        return not self.finished.is_set()

    def handed_out(self, node_id: int, message_id: str) -> None:
        """A node has pulled a message."""
        self._waiting.get(node_id, {}).pop(message_id, None)

    async def next_for(self, node_id: int, hold_s: float) -> Bundle | None:
        """The next message for a node, waiting for one as long as `hold_s`; None when none came or the run is over.

        A message that was handed out before and never confirmed comes again: the response that carried it broke.
        """
        event = self._instruction_stored.setdefault(node_id, asyncio.Event())
        deadline = asyncio.get_running_loop().time() + hold_s
        while not self.finished.is_set():
            event.clear()
            if node_id in self._unconfirmed:
                return self._unconfirmed[node_id]
            for message_id in list(self._waiting.get(node_id, ())):
                self.handed_out(node_id, message_id)
                bundle = self._superlink.instruction(message_id, node_id)
                if bundle is not None:
                    self._unconfirmed[node_id] = bundle
                    event.set()  # another request of this node may be the one whose connection still lives
                    return bundle
            try:
                async with asyncio.timeout_at(deadline):
                    await event.wait()
            except TimeoutError:
                return None
        return None

    def unconfirmed(self, node_id: int) -> str:
        """The message that the node was given and has not confirmed; empty without one."""
        bundle = self._unconfirmed.get(node_id)
        return "" if bundle is None else str(bundle.messages[0][0].metadata.message_id)

    def confirm(self, node_id: int, message_id: str) -> None:
        """The node holds a message that it was given. It may be told late, when another one is on its way already."""
        if message_id and self.unconfirmed(node_id) == message_id:
            del self._unconfirmed[node_id]
            self._superlink.confirm(message_id)

    def accept(self, bundle: Bundle) -> bool:
        """Store the reply of a node, whose hashes have been checked; False if Flower refuses it."""
        answered = self._superlink.store_reply(bundle)
        if answered is None:
            return False
        self.reply_complete(answered)
        return True

    def is_for(self, message_id: str, node_id: int) -> bool:
        """Whether this node was sent that message, and its reply is still awaited."""
        return self._node_of.get(message_id) == node_id

    def reply_begun(self, message_id: str, node_id: int) -> None:
        """A stock SuperNode has announced its reply to `message_id` and still pushes the objects; another's is ignored."""
        if self.is_for(message_id, node_id):
            self._under_way.add(message_id)

    def reply_complete(self, message_id: str) -> None:
        """Every object of the reply to `message_id` is there."""
        self._under_way.discard(message_id)
        self._complete[message_id] = None
        self._reply_stored.set()

    async def collect(self, message_ids: Collection[str], run_id: int, hold_s: float, at_most: int | None = None) -> Bundle:
        """Replies to those messages that are complete, the earliest first, waiting as long as `hold_s` for the first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + hold_s
        while True:
            self._reply_stored.clear()
            ready = [message_id for message_id in self._complete if message_id in message_ids][:at_most]
            # Without a complete reply Flower is asked for its own errors, but for messages to nodes that are gone alone:
            # a reply that is half there would count as delivered.
            asked = ready or self._lost(message_ids, run_id)
            bundle = self._superlink.take_replies(asked, run_id)
            if bundle.messages or self.finished.is_set() or loop.time() >= deadline:
                for message_id in ready:
                    del self._complete[message_id]
                return bundle
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, loop.time() + ERROR_POLL_S)):
                    await self._reply_stored.wait()

    def _lost(self, message_ids: Collection[str], run_id: int) -> list[str]:
        """Those of the messages whose node is not online, and whose reply is not under way."""
        online = self._superlink.online_nodes(run_id)
        return [
            message_id
            for message_id in message_ids
            if self._node_of.get(message_id) not in online and message_id not in self._under_way
        ]

    def give_up(self, message_ids: Collection[str], run_id: int) -> None:
        """Nobody waits for replies to these messages any more: free them, and have Flower refuse what still comes."""
        for message_id in message_ids:
            node_id = self._node_of.pop(message_id, None)
            if node_id is not None:
                self.handed_out(node_id, message_id)
                if self.unconfirmed(node_id) == message_id:
                    del self._unconfirmed[node_id]
            self._complete.pop(message_id, None)
            self._under_way.discard(message_id)
            for watcher in self.watchers:
                watcher(message_id)
        self._superlink.delete(message_ids, run_id)

    def expire(self, message_id: str, run_id: int) -> None:
        """The reply to a message has not come in time: give it up; who waits for it gets an error reply of Flower's."""
        self.give_up([message_id], run_id)
        self._reply_stored.set()

    def forget(self, bundle: Bundle) -> None:
        """The ServerApp holds these replies: free them."""
        for message, _ in bundle.messages:
            self._node_of.pop(message.metadata.reply_to_message_id, None)
        self._superlink.forget(bundle)

    def finish(self, *, can_go_on: bool = False) -> None:
        """End the run: every node that waits for work is told, and whether it is worth to wait for the server again."""
        if can_go_on:
            self.farewell["can_go_on"] = True
        self.finished.set()
        self._reply_stored.set()
        for event in self._instruction_stored.values():
            event.set()

    def _wake(self, node_id: int) -> None:
        self._instruction_stored.setdefault(node_id, asyncio.Event()).set()
