"""The Grid that a ServerApp gets: messages go out and replies come in whole, in one request for many, without polling.

It runs in the ServerApp's process and asks the SuperLink's (`fltestbed.server.desk`). Bundles lie in buffers that both
share; a request says how long its bundle is. Every request also carries *marks*: what the app did since the last one, with
the process's own stamps, so that marking costs no request.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from threading import Event
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fltestbed.clock import Clock
from fltestbed.errors import TestbedError
from fltestbed.flower.agreement import Agreement
from fltestbed.flower.bundle import Bundle, broken_reply, decode
from fltestbed.flower.compression import OFF, Compression, CompressionError, relative_error
from fltestbed.flower.folding import Fold
from fltestbed.flower.serverapp import NodeInfo, Run, ServerAppTask
from fltestbed.measure.schema import AGGREGATE_OVERLAP, DOWNLINK_COMPRESSION_ERROR, UPLINK_COMPRESSION_ERROR
from fltestbed.shared_buffer import BufferPair

HOLD_S = 10.0
MOST_METRICS = 100
"""Of one reply that are written: the app gets whatever a client reports, but each is a row of metrics.csv."""
MOST_MARKS = 100
"""That go in a bundle's prologue, which is bounded; more go before it."""
PATIENCE_S = 60.0
"""Beyond the time that a request may be held."""
FOLDED_BYTES = 4 << 20
"""Of replies that come with one request, and are added up one by one: a request for each would cost more than the adding."""


class BundleGrid(Grid):
    """Flower's Grid over bundles.

    Parameters
    ----------
    channel : Connection
        This process's end of the pair of sockets to the SuperLink's.
    task : ServerAppTask
    run : Run
    buffers : BufferPair
        Shared with the SuperLink's process, the parent of this one.
    clock : Clock
    compression : Compression
        Of messages to nodes, and what a reply's tensors may take when they are whole again.
    minimum_replies : int
        With fewer (or fewer than messages, if those are fewer) `send_and_receive` returns none but those that are errors.
    is_measured : callable (int) -> bool
        Whether the round of this number is measured.
    idle : Event
        Set while this process does nothing but wait for replies.
    """

    def __init__(
        self, channel: Connection, task: ServerAppTask, run: Run, buffers: BufferPair, clock: Clock,
        compression: Compression = OFF, minimum_replies: int = 1, is_measured: Callable[[int], bool] = lambda _: True,
        idle: Event | None = None,
    ) -> None:  # fmt: skip
        self._is_measured = is_measured
        self._idle = idle or Event()
        self._channel = channel
        self._task = task
        self._run = run
        self._buffers = buffers
        self._clock = clock
        self._compression = compression
        self._minimum_replies = minimum_replies
        self._marks: list[dict[str, Any]] = []
        self._round = 0
        self._is_model_known = False
        self._rounds: dict[str, tuple[int, str]] = {}
        self._waiting: set[str] = set()
        self._to_fold: tuple[list[Message], Fold] | None = None
        self._to_judge: tuple[list[Message], Agreement] | None = None
        self._unmeasured: tuple[int, int] | None = None
        self._content_bytes = 0

    @property
    def is_measuring(self) -> bool:
        """Whether the round of the messages that were sent last is measured."""
        return self._is_measured(self._round)

    def begin_round(self, round_: int, raw_ns: int) -> None:
        """A round begins: from its strategy's first step on, or from its first message on."""
        self._round = round_
        if self._unmeasured is not None and self._unmeasured[0] != round_:
            self.end_round(raw_ns)
            self._unmeasured = None
        if self._unmeasured is None and not self._is_measured(round_):
            self._unmeasured = round_, raw_ns

    def end_round(self, raw_ns: int) -> None:
        """The round is over, as far as is known; its strategy's next aggregation may be later."""
        if self._unmeasured is not None:
            round_, start_ns = self._unmeasured
            self._marks.append({"kind": "round", "round": round_, "start_raw_ns": start_ns, "end_raw_ns": raw_ns})

    def mark(self, kind: str, **facts: Any) -> None:
        """Remember something that the server is to know; it goes with the next request."""
        self._marks.append({"kind": kind, **facts})

    def flush(self) -> None:
        """Send marks that wait; what is wrong with them the answer to the next request says."""
        if self._marks:
            self._send("tell", {"marks": self._take_marks()})

    def fold_replies(self, messages: list[Message], weighted_by_key: str) -> None:
        """Add up the replies to this very list of messages as they arrive, if it is what is sent next.

        Their arrays are gone when `send_and_receive` returns them: `fltestbed.flower.folding` averages such replies.
        """
        self._to_fold = messages, Fold(weighted_by_key)

    def judge_replies(self, messages: list[Message], agreement: Agreement) -> None:
        """Make errors of those replies to this very list that cannot be averaged, if it is what is sent next."""
        self._to_judge = messages, agreement

    # Flower's interface

    def set_run(self, run: Run) -> None:
        """Flower's setter; the run is known from the start."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Deprecated in Flower, kept for apps that still use it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are online and take part."""
        return [int(node_id) for node_id in self._post("nodes", {})["node_ids"]]

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The same nodes, with what the SuperLink knows of them."""
        there = set(self.get_node_ids())
        return [node for node in self._task.nodes() if node.node_id in there]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; returns their identifiers, None for one that Flower refused."""
        start_ns = self._clock.raw_ns()
        messages = list(messages)
        if not messages:
            return []
        rounds = [self._round_of(message) for message in messages]
        self.begin_round(max(rounds), start_ns)
        if not self._is_model_known:
            self._is_model_known = True
            self._mark_model(messages[0])
        packed = self._compression.compress(messages)
        self._mark_error(packed[0], DOWNLINK_COMPRESSION_ERROR, round=self._round, source="server")
        if len(self._marks) > MOST_MARKS:
            self.flush()
        prologue = {"rounds": rounds, "start_raw_ns": start_ns, "marks": self._take_marks()}
        bundle = Bundle.of(packed, prologue)
        self._content_bytes = sum(len(content) for content in bundle.objects.values())
        answer = self._post("push", {"length": self._buffers.to_parent.write(bundle.encode())})
        for message_id, message, round_ in zip(answer["message_ids"], messages, rounds, strict=True):
            if message_id is not None:
                self._rounds[message_id] = (round_, message.metadata.message_type)
                self._waiting.add(message_id)
        return list(answer["message_ids"])

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there already. An app that asks in its own loop has gathered them when none is left."""
        self._ask_for(set(message_ids), hold_s=0.0)
        replies = self._read(self._take_answer())
        self._buffers.to_child.free()
        if replies and not self._waiting:
            self.mark("gathered", raw_ns=self._clock.raw_ns())
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for their replies, for `timeout` seconds; then give them up.

        The server answers with an error what is over its deadline, so the wait ends without a `timeout` as well.
        """
        (to_fold, fold), self._to_fold = self._to_fold or (None, None), None
        if to_fold is not messages:
            fold = None
        (to_judge, agreement), self._to_judge = self._to_judge or (None, None), None
        if to_judge is not messages:
            agreement = None
        waiting = {message_id for message_id in self.push_messages(messages) if message_id is not None}
        if not waiting:
            return []
        minimum = min(self._minimum_replies, len(waiting))
        end_ns = None if timeout is None or math.isinf(timeout) else self._clock.raw_ns() + int(timeout * 1e9)
        # What messages share is sent once, so that all of them take about as much as one reply.
        at_most = None if fold is None else max(1, FOLDED_BYTES // self._content_bytes)
        replies: list[Message] = []
        overlap_ns = 0

        def take(reply: Message) -> None:
            nonlocal overlap_ns
            waiting.discard(reply.metadata.reply_to_message_id)
            if fold is not None and (agreement is None or agreement.is_expected(reply)):
                start_ns = self._clock.raw_ns()
                fold.take(reply)
                overlap_ns += self._clock.raw_ns() - start_ns if waiting else 0

        def hold_s() -> float:
            return HOLD_S if end_ns is None else min(HOLD_S, (end_ns - self._clock.raw_ns()) / 1e9)

        is_asked = False
        while waiting and (is_asked or hold_s() > 0):
            if not is_asked:
                self._ask_for(waiting, hold_s(), at_most)
            self._idle.set()
            bundle = self._take_answer()
            self._idle.clear()
            still_out = waiting - {message.metadata.reply_to_message_id for message, _ in bundle.messages}
            is_asked = bool(bundle.messages and still_out) and hold_s() > 0
            if is_asked:  # the SuperLink gets the next ones ready while these are added up
                self._ask_for(still_out, hold_s(), at_most)
            replies += self._read(bundle, take, agreement)
        self._buffers.to_child.free()
        self._waiting -= waiting
        for message_id in waiting:
            self._rounds.pop(message_id, None)
        if agreement is not None:
            replies = self._settled(replies, agreement)
        self.mark("gathered", raw_ns=self._clock.raw_ns(), given_up=sorted(waiting))
        if fold is not None and self.is_measuring:
            self._mark_overlap(overlap_ns)
        return self._enough(replies, minimum)

    def close(self) -> None:
        """Send what waits and disconnect, once all has been taken."""
        self._post("marks", {"marks": self._take_marks()})
        self._channel.close()

    # How it is done

    def _enough(self, replies: list[Message], minimum: int) -> list[Message]:
        """All replies if there are enough of them; else the errors alone, so that the model stays as it is."""
        errors = [reply for reply in replies if reply.has_error()]
        replied = len(replies) - len(errors)
        if replied >= minimum:
            return replies
        self.mark(
            "abandoned", round=self._round, message_type=replies[0].metadata.message_type if replies else "",
            replied=replied, minimum=minimum, raw_ns=self._clock.raw_ns(),
        )  # fmt: skip
        return errors

    def _ask_for(self, message_ids: set[str], hold_s: float, at_most: int | None = None) -> None:
        """Ask for replies that are there, or come within `hold_s`; `_take_answer` has to be next."""
        self._send("pull", {
            "message_ids": sorted(message_ids), "run_id": str(self._run.run_id), "hold_s": hold_s, "at_most": at_most,
            "marks": self._take_marks(),
        })  # fmt: skip

    def _take_answer(self) -> Bundle:
        """The replies that were asked for, where the SuperLink has put them: the next answer but one may overwrite them."""
        answer = self._receive()
        return decode(self._buffers.to_child.read(answer["length"], answer["start"]), verify=False)

    def _settled(self, replies: list[Message], agreement: Agreement) -> list[Message]:
        """The replies, with errors in the place of those that cannot be averaged with the others."""
        refused = agreement.settle(replies)
        for message_id, reason in refused.items():
            self.mark("refused", message_id=message_id, raw_ns=self._clock.raw_ns(), reason=reason[:300])
        of_message = {reply.metadata.reply_to_message_id: reply for reply in replies}
        return [
            broken_reply(reply, refused[message_id]) if message_id in refused else reply
            for message_id, reply in of_message.items()
        ]

    def _read(
        self, bundle: Bundle, take: Callable[[Message], None] = lambda _: None, agreement: Agreement | None = None
    ) -> list[Message]:
        """The replies of a bundle; each is given to `take` before the next one is read."""
        replies = []
        for inflated in bundle.inflate_replies(self._compression.most_bytes):
            reply = self._restored(inflated)
            problem = agreement.problem(reply) if agreement is not None else None
            if problem is not None:
                reply = broken_reply(reply, problem)
            replies.append(reply)
            error = reply.error.reason if reply.has_error() else None
            held_ns = self._clock.raw_ns()
            message_id = reply.metadata.reply_to_message_id
            self._waiting.discard(message_id)
            if self.is_measuring or error is not None:
                self.mark("held", message_id=message_id, raw_ns=held_ns, error=error[:300] if error is not None else None)
            if self.is_measuring and error is None:
                self._mark_metrics(reply, message_id, held_ns)
            self._rounds.pop(message_id, None)
            take(reply)
        return replies

    def _restored(self, reply: Message) -> Message:
        """The reply with its tensors whole; an error reply that says why where they cannot be."""
        round_, _ = self._rounds.get(reply.metadata.reply_to_message_id, (self._round, ""))
        try:
            self._mark_error(
                reply, UPLINK_COMPRESSION_ERROR, round=round_, source="client", node_id=reply.metadata.src_node_id
            )
            self._compression.restore(reply)
        except CompressionError as error:
            return broken_reply(reply, str(error))
        return reply

    def _mark_error(self, message: Message, metric: str, **facts: Any) -> None:
        """Tell what compression made of a message's numbers."""
        error = relative_error(message) if self.is_measuring else None
        if error is not None:
            self.mark(
                "metrics", message_type=message.metadata.message_type, values={metric: error},
                raw_ns=self._clock.raw_ns(), **facts,
            )  # fmt: skip

    def _mark_metrics(self, reply: Message, message_id: str, raw_ns: int) -> None:
        round_, message_type = self._rounds.get(message_id, (self._round, reply.metadata.message_type))
        left = MOST_METRICS
        for record in reply.content.metric_records.values():
            values = dict(itertools.islice(scalar_metrics(record).items(), left))
            left -= len(values)
            if values:
                self.mark(
                    "metrics", round=round_, source="client", message_type=message_type, values=values, raw_ns=raw_ns,
                    node_id=reply.metadata.src_node_id,
                )  # fmt: skip

    def _mark_overlap(self, overlap_ns: int) -> None:
        self.mark(
            "metrics", round=self._round, source="server", message_type="train", raw_ns=self._clock.raw_ns(),
            values={AGGREGATE_OVERLAP: overlap_ns / 1e9},
        )  # fmt: skip

    def _mark_model(self, message: Message) -> None:
        arrays = [array for record in message.content.array_records.values() for array in record.values()]
        if arrays:
            numpy_arrays = [array.numpy() for array in arrays]
            self.mark(
                "model", tensors=len(arrays), parameters=sum(array.size for array in numpy_arrays),
                bytes=sum(array.nbytes for array in numpy_arrays),
            )  # fmt: skip

    def _round_of(self, message: Message) -> int:
        """The message's round: as Flower's strategies say it, as the group says it, or one more than the last."""
        for record in message.content.config_records.values():
            round_ = record.get("server-round")
            if isinstance(round_, int):
                return round_
        if message.metadata.group_id.isdigit():
            return int(message.metadata.group_id)
        return self._round + 1

    def _take_marks(self) -> list[dict[str, Any]]:
        marks, self._marks = self._marks, []
        return marks

    def _post(self, what: str, facts: dict[str, Any]) -> dict[str, Any]:
        self._send(what, facts)
        return self._receive()

    def _send(self, what: str, facts: dict[str, Any]) -> None:
        try:
            self._channel.send_bytes(json.dumps([what, facts]).encode())
        except OSError as error:
            raise self._is_gone(error) from error

    def _receive(self) -> dict[str, Any]:
        try:
            if not self._channel.poll(HOLD_S + PATIENCE_S):
                raise TestbedError(f"the SuperLink has not answered its ServerApp for {HOLD_S + PATIENCE_S:g} s")
            answer: dict[str, Any] = json.loads(self._channel.recv_bytes())
        except (OSError, EOFError) as error:
            raise self._is_gone(error) from error
        if "error" in answer:
            raise TestbedError(f"the SuperLink refused a request of its ServerApp: {answer['error']}")
        return answer

    def _is_gone(self, error: Exception) -> TestbedError:
        return TestbedError(f"the SuperLink does not answer its ServerApp any more: {error}")


def scalar_metrics(record: Any) -> dict[str, float]:
    """The numbers of a MetricRecord; its lists are left out."""
    return {str(key)[:64]: float(value) for key, value in record.items() if isinstance(value, (int, float))}
