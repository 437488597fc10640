"""What the ServerApp's process asks of the SuperLink's, over a pair of sockets that both were born with.

It is asked several times a round, with everybody waiting: a request over HTTP would take more of the processor than what it
asks for. A frame is four bytes of length and JSON, ``[what, facts]``, answered by ``{...}`` or ``{"error": reason}``: the
framing of `multiprocessing.connection`, which the ServerApp's side uses. What is only told (``["tell", facts]``) gets no
answer: what is wrong with it is the answer to the next request. Bundles lie in buffers that both processes share.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fltestbed.clock import Clock
from fltestbed.errors import TestbedError
from fltestbed.flower.bundle import BundleError, decode
from fltestbed.flower.superlink import Superlink
from fltestbed.server.exchange import Exchange
from fltestbed.server.facts import FactsError
from fltestbed.server.marks import GatheredMark, read_marks
from fltestbed.server.presence import Presence
from fltestbed.server.roster import Roster
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import Client
from fltestbed.server.waiting import Waiting
from fltestbed.shared_buffer import BufferPair

_LENGTH = struct.Struct(">i")

LARGE_BYTES = 8 << 20
"""What is copied in a thread: less than that takes a thread as long as the copying."""

Facts = dict[str, Any]


class Desk:
    """Answers one ServerApp.

    Parameters
    ----------
    superlink : Superlink
    exchange : Exchange
    roster : Roster
    log : RoundLog
    clock : Clock
    presence : Presence
        Who is there to be asked.
    waiting : Waiting
        Told when the app looks for clients, and when it has them.
    """

    def __init__(
        self, superlink: Superlink, exchange: Exchange, roster: Roster, log: RoundLog, clock: Clock, presence: Presence,
        waiting: Waiting,
    ) -> None:  # fmt: skip
        self._presence = presence
        self._waiting = waiting
        self._superlink = superlink
        self._exchange = exchange
        self._roster = roster
        self._log = log
        self._clock = clock
        self._buffers = BufferPair.make()
        self._being_read = 0, 0
        self._ours, self._theirs = socket.socketpair()
        self._wrong: Facts | None = None
        self._handlers: dict[str, Callable[[Facts], Awaitable[Facts | None]]] = {
            "push": self._push, "pull": self._pull, "marks": self._marks, "nodes": self._nodes, "tell": self._tell,
        }  # fmt: skip

    @property
    def inherited(self) -> list[int]:
        """Descriptors that the ServerApp's process has to inherit, and to be told: two buffers, and its end of the pair."""
        return [*self._buffers.descriptors, self._theirs.fileno()]

    def close(self) -> None:
        """Let go of all."""
        self._ours.close()
        self._theirs.close()
        self._buffers.close()

    @contextlib.asynccontextmanager
    async def answering(self, token: str) -> AsyncIterator[None]:
        """Within the block the ServerApp's process, which has inherited the descriptors by now, is answered."""
        self._theirs.close()
        serving = asyncio.create_task(self._serve(token))
        try:
            yield
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving

    async def _serve(self, token: str) -> None:
        """Answer until the other side is gone.

        Parameters
        ----------
        token : str
            Of the ServerApp's task: when the task is over, everything is refused.
        """
        reader, writer = await asyncio.open_unix_connection(sock=self._ours)
        try:
            while True:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                answer = await self._answer(await reader.readexactly(length), token)
                if answer is not None:
                    wrong, self._wrong = self._wrong, None
                    frame = json.dumps(wrong or answer).encode()
                    writer.write(_LENGTH.pack(len(frame)) + frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, asked: bytes, token: str) -> Facts | None:
        """The answer to one frame; what is wrong with it is the answer too."""
        if not self._superlink.task_is_valid(token):
            return {"error": "no task has this token"}
        try:
            what, facts = json.loads(asked)
            return await self._handlers[what](facts)
        except (BundleError, FactsError) as error:
            return {"error": str(error)}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return {"error": f"not a request: {type(error).__name__}: {error}"}
        except TestbedError as error:
            self._roster.fail(error)
            return {"error": str(error)}

    async def _push(self, asked: Facts) -> Facts:
        instructions = self._buffers.to_parent
        bundle = decode(instructions.read(int(asked["length"])), verify=False)
        self._take_marks(bundle.prologue)
        self._waiting.sent()
        stored = self._exchange.send(bundle)
        instructions.free()
        ready_ns = self._clock.raw_ns()
        batches: dict[tuple[int, str], list[tuple[str, int, Client]]] = {}
        for (message, _), message_id, round_ in zip(bundle.messages, stored, bundle.prologue["rounds"], strict=True):
            if message_id is not None:
                node_id = message.metadata.dst_node_id
                batch = batches.setdefault((int(round_), message.metadata.message_type), [])
                batch.append((message_id, node_id, self._roster.client(node_id)))
        for (round_, message_type), messages in batches.items():
            self._log.sent(round_, message_type, messages, int(bundle.prologue["start_raw_ns"]), ready_ns)
        return {"message_ids": stored}

    async def _pull(self, asked: Facts) -> Facts:
        self._take_marks(asked)
        bundle = await self._exchange.collect(
            set(asked["message_ids"]), int(asked["run_id"]), float(asked["hold_s"]), asked.get("at_most")
        )
        self._exchange.forget(bundle)
        pieces = bundle.encode()
        length = sum(map(len, pieces))
        # The ServerApp asks for the next replies before it has read the last ones: these stay as they are.
        start, end = self._being_read
        at = 0 if length <= start else end
        if length < LARGE_BYTES:
            self._buffers.to_child.write(pieces, at)
        else:
            await asyncio.to_thread(self._buffers.to_child.write, pieces, at)
        self._being_read = at, at + length
        return {"start": at, "length": length}

    async def _marks(self, asked: Facts) -> Facts:
        self._take_marks(asked)
        return {}

    async def _tell(self, told: Facts) -> None:
        try:
            self._take_marks(told)
        except FactsError as error:
            self._wrong = {"error": str(error)}

    async def _nodes(self, _: Facts) -> Facts:
        there = self._roster.online_nodes() - self._presence.away()
        self._waiting.asked(len(there))
        return {"node_ids": [str(node_id) for node_id in there]}

    def _take_marks(self, facts: Facts) -> None:
        for mark in read_marks(facts):
            mark.tell(self._log, self._roster)
            if isinstance(mark, GatheredMark):
                self._exchange.give_up(mark.given_up, self._roster.app.run_id)
