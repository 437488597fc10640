"""Stamps of both sides into the phases of a round.

`RoundLog` is told what happens, by whom it was seen and when by that host's clock; it has each phase written as soon as both
of its ends are known. Definitions of the phases stand in `fltestbed.measure.schema`.
"""

from collections.abc import Callable, Iterable, Mapping

from fltestbed.config import Instrumentation
from fltestbed.measure.recorder import Recorder, Value
from fltestbed.measure.schema import ROUND_TIME
from fltestbed.server.absence import AbsenceLog
from fltestbed.server.phase_rows import PhaseRows, on_server
from fltestbed.server.plausibility import can_be
from fltestbed.server.tasks import SERVER, Batch, Client, ReplyFacts, RoundState, Stamp, Symptom, Task, WireBytes


class RoundLog:
    """Writes phases.csv and metrics.csv, and knows what is under way.

    Parameters
    ----------
    recorder : Recorder
    zero_raw_ns : int
        The run's zero on the server's raw clock.
    instrumentation : Instrumentation
        Which rounds are measured; of others nothing is written but `round`.
    switched : callable (bool) -> None, optional
        Told when a round begins whether it is measured.
    absences : AbsenceLog, optional
        Told of replies that a round goes on without.
    observe : callable (Task) -> Symptom, optional
        What can be seen of a client that owes a reply.
    """

    def __init__(
        self,
        recorder: Recorder,
        zero_raw_ns: int,
        instrumentation: Instrumentation | None = None,
        switched: Callable[[bool], None] | None = None,
        absences: AbsenceLog | None = None,
        observe: Callable[[Task], Symptom] = lambda task: Symptom(task.state, "silence", ""),
    ) -> None:
        self.absences, self._observe = absences or AbsenceLog(recorder, zero_raw_ns), observe
        self.watchers: list[Callable[[Batch], None]] = []
        """Called with the messages of a round when the app waits for them no longer."""
        self._is_measured = (instrumentation or Instrumentation()).is_measured
        self._switched = switched
        self._rows = PhaseRows(recorder, zero_raw_ns, self._is_measured)
        self._recorder = recorder
        self._zero = zero_raw_ns
        self._tasks: dict[str, Task] = {}
        self._steps: dict[tuple[str, int], int] = {}
        self.batch: Batch | None = None
        """The messages that were sent last."""
        self._open: list[Batch] = []
        self.rounds: dict[int, RoundState] = {}
        self.stage = "starting"

    # What the ServerApp process tells

    def sent(
        self, round_: int, message_type: str, messages: Iterable[tuple[str, int, Client]], start_ns: int, end_ns: int
    ) -> None:
        """Messages of a round are complete on the server: `configure` is over, `queue` begins.

        Parameters
        ----------
        messages : iterable of (message_id, node_id, Client)
        start_ns : int
            Server's clock when the round, or this part of it, began.
        end_ns : int
            Server's clock when the messages could be pulled.
        """
        self._close_aggregation(start_ns, "until the app sent its next messages")
        self.batch = Batch(round_, message_type, start_ns=self._steps.pop(("configure", round_), start_ns))
        self._open.append(self.batch)
        self.stage = "queue"
        self.absences.round = round_
        is_measured = self._is_measured(round_)
        if self._switched is not None:
            self._switched(is_measured)
        self.rounds.setdefault(round_, RoundState(self.batch.start_ns, end_ns, is_measured=is_measured))
        for message_id, node_id, client in messages:
            task = Task(round_, message_type, message_id, node_id, client, end_ns, is_measured=is_measured)
            self._tasks[message_id] = self.batch.tasks[message_id] = task
            self._rows.write(task, "configure", on_server(self.batch.start_ns), on_server(end_ns))

    def unmeasured(self, round_: int, start_ns: int, end_ns: int) -> None:
        """Start and end of a round of which nothing else is known."""
        self._touch(round_, end_ns)
        self.metrics(round_, SERVER, "", {ROUND_TIME: (end_ns - start_ns) / 1e9}, end_ns)

    @property
    def is_measuring(self) -> bool:
        """Whether the round under way is measured."""
        return self.batch is None or self._is_measured(self.batch.round)

    def step(self, name: str, round_: int, start_ns: int, end_ns: int) -> None:
        """A step of the strategy is over. Its name is that of Flower's method, or `server_evaluate`."""
        if name.startswith("configure"):
            self._steps["configure", round_] = start_ns
        elif name == "server_evaluate":
            self._touch(round_, end_ns)
            self._rows.write_server(round_, "", "server_evaluate", start_ns, end_ns)
        else:
            self._aggregated(name, round_, end_ns)

    def held(self, message_id: str, raw_ns: int, error: str | None) -> None:
        """The ServerApp holds the reply to a message; `error` is the reason of an error reply."""
        task = self._tasks.get(message_id)
        if task is None:
            return
        task.held_ns = raw_ns
        task.failed = error is not None
        if task.uplink_end_ns is not None:
            arrived = on_server(task.uplink_end_ns, task.uplink_end_uncertainty_ns)
            self._rows.write(task, "collect", arrived, on_server(raw_ns))
            if error is not None:
                self.absences.missing(task, Symptom(self.compute_phase(task), "error reply", error), raw_ns)
        elif error is not None:  # Flower's own, for a node without a heartbeat
            task.lost = Symptom(self._observe(task).phase, "node unavailable", error)
            self._rows.write(task, task.lost.phase, None, None, status="failed", detail=error)
            self.absences.missing(task, task.lost, raw_ns)
        task.state = "wait"

    def refused(self, message_id: str, raw_ns: int, reason: str) -> None:
        """A reply that the ServerApp holds cannot be averaged with the others: the round goes on without it."""
        task = self._tasks.get(message_id)
        if task is not None:
            task.failed = True
            self.absences.missing(task, Symptom(self.compute_phase(task), "error reply", reason), raw_ns)

    def pending(self) -> list[Task]:
        """The messages whose replies have not arrived."""
        return [task for task in self._tasks.values() if task.uplink_end_ns is None and task.held_ns is None]

    def lose(self, task: Task, raw_ns: int, limit: str = "") -> None:
        """A round goes on without the reply to a message; `limit` names the limit that was over."""
        task.lost = symptom = self._observe(task)
        self._tasks.pop(task.message_id, None)
        detail = "; ".join(filter(None, ("no reply before the deadline", symptom.detail, limit)))
        self._rows.write(task, symptom.phase, None, None, status="timeout", detail=detail)
        self.absences.missing(task, symptom, raw_ns, limit)

    def gathered(self, raw_ns: int) -> None:
        """The ServerApp has all replies that it waited for, or the deadline has passed: `wait` is over."""
        batches, self._open = self._open, []
        for batch in batches:
            self._gathered(batch, raw_ns)

    def _gathered(self, batch: Batch, raw_ns: int) -> None:
        held = [task.held_ns for task in batch.tasks.values() if task.held_ns is not None]
        complete = len(held) == len(batch.tasks)
        batch.gathered_ns = max(held) if complete and held else raw_ns
        self.stage = "aggregate"
        self.rounds[batch.round].gathered(batch)
        self._touch(batch.round, batch.gathered_ns)
        for task in batch.tasks.values():
            if task.held_ns is not None:
                self._rows.write(task, "wait", on_server(task.held_ns), on_server(batch.gathered_ns))
            elif task.lost is None:
                self.lose(task, raw_ns)
            self._tasks.pop(task.message_id, None)
        for watcher in self.watchers:
            watcher(batch)

    def metrics(
        self, round_: int, source: str, message_type: str, values: Mapping[str, float], raw_ns: int, client: str = ""
    ) -> None:
        """Figures that an app reported."""
        if not self._is_measured(round_) and ROUND_TIME not in values:
            return
        for name, value in values.items():
            row: dict[str, Value] = {
                "round": round_, "client": client, "source": source, "message_type": message_type,
                "metric": name, "value": float(value), "raw_ns": raw_ns, "time_s": (raw_ns - self._zero) / 1e9,
            }  # fmt: skip
            self._recorder.write("metrics.csv", row)
        if source == SERVER and "accuracy" in values and round_ in self.rounds:
            self.rounds[round_].accuracy = float(values["accuracy"])

    # What the routes see

    def task_of(self, message_id: str) -> Task | None:
        """The message's task, as long as its round is under way."""
        return self._tasks.get(message_id)

    def downlink_started(self, message_id: str, raw_ns: int, payload_bytes: int) -> Task | None:
        """The first byte of the message leaves the server (again, if the response before broke)."""
        task = self._tasks.get(message_id)
        if task is not None:
            self.downlink_broke(task, raw_ns, "the client asked again")
            task.attempt += 1
            if task.attempt == 1:
                self._rows.write(task, "queue", on_server(task.ready_ns), on_server(raw_ns))
            task.state, task.downlink_start_ns, task.downlink_payload_bytes = "downlink", raw_ns, payload_bytes
            self.stage = "downlink"
        return task

    def downlink_broke(self, task: Task, raw_ns: int, reason: str) -> None:
        """The message that was sent, if there was one, has not come whole to the client."""
        if task.downlink_start_ns is not None:
            start, end = on_server(task.downlink_start_ns), on_server(raw_ns)
            self._rows.write(task, "downlink", start, end, status="failed", detail=reason)
            task.downlink_start_ns, task.state = None, "downlink"

    def downlink_sent(self, task: Task) -> None:
        """The last byte was handed to the kernel; the client's own stamp says when it arrived."""
        task.state = self.stage = self.compute_phase(task)

    def uplink_started(self, task: Task) -> None:
        """A reply begins to arrive."""
        task.state = self.stage = "uplink"

    def uplink_ended(self, task: Task, end_ns: int) -> None:
        """A reply has arrived whole; what its client knows of it follows."""
        task.uplink_end_ns = end_ns
        task.state = "collect"
        if not task.is_measured:
            task.held_ns = end_ns  # of the replies of such a round the ServerApp tells of errors alone

    def replied(self, task: Task, facts: ReplyFacts, end_ns: int, payload_bytes: int, wire: WireBytes) -> None:
        """A reply has arrived whole, and with it everything that its client knows of the way there."""
        stamps = (facts.downlink_end_ns, facts.send_ns)
        if not can_be(task.client.mapping, stamps, task.downlink_start_ns or task.ready_ns, end_ns):
            reason = (
                "it read a message before it was sent, sent a reply after it had arrived, or worked for longer than that"
            )
            self.disbelieved(task, end_ns, reason)
            return
        self.uplink_ended(task, end_ns)
        self.client_told(task, facts, wire)
        sent = Stamp(task.client.name, facts.send_ns)
        arrived = on_server(end_ns, task.uplink_end_uncertainty_ns)
        self._rows.write(task, "uplink", sent, arrived, payload_bytes=payload_bytes, wire_bytes=wire.uplink)

    def client_told(self, task: Task, facts: ReplyFacts, wire: WireBytes) -> None:
        """A client tells of its phases, from the message's arrival to the first byte of the reply."""
        name = task.client.name
        arrived = Stamp(name, facts.downlink_end_ns, facts.downlink_end_uncertainty_ns)
        if task.downlink_start_ns is not None:
            self._rows.write(
                task,
                "downlink",
                on_server(task.downlink_start_ns),
                arrived,
                payload_bytes=task.downlink_payload_bytes,
                wire_bytes=wire.downlink,
            )
        self._rows.write(task, "deserialize", arrived, Stamp(name, facts.called_ns))
        status = "ok" if facts.error is None else "failed"
        for phase, start, end, detail in facts.spans:
            self._rows.write(task, phase, Stamp(name, start), Stamp(name, end), status=status, detail=facts.error or detail)
        sent = Stamp(name, facts.send_ns)
        connected = Stamp(name, facts.send_ns - facts.connect_ns)
        first = connected if facts.first_send_ns is None else Stamp(name, facts.first_send_ns)
        self._rows.write(task, "serialize", Stamp(name, facts.returned_ns), first)
        if first is not connected:
            self._rows.write(
                task, "uplink", first, connected, status="failed", detail="attempts before the one that arrived"
            )
        if facts.connect_ns:
            self._rows.write(task, "connect", connected, sent)

    def disbelieved(self, task: Task, end_ns: int, reason: str) -> None:
        """A reply has arrived whole, and what its client says of the way there cannot be true: those figures are missing."""
        task.client.doubt(reason)
        self.uplink_ended(task, end_ns)
        detail = f"what the client says cannot be true: {reason}"
        for phase in ("downlink", "deserialize", self.compute_phase(task), "serialize", "uplink"):
            self._rows.write(task, phase, None, None, status="missing", detail=detail)

    def replied_unseen(
        self, task: Task, start_ns: int, end_ns: int, downlink_end_ns: int | None, payload_bytes: int
    ) -> None:
        """A reply of a stock SuperNode has arrived whole: only the server's side of it is known."""
        self.uplink_ended(task, end_ns)
        detail = "stock SuperNode: the server's side of the transfer"
        if task.downlink_start_ns is not None and downlink_end_ns is not None:
            self._rows.write(
                task,
                "downlink",
                on_server(task.downlink_start_ns),
                on_server(downlink_end_ns),
                payload_bytes=task.downlink_payload_bytes,
                detail=detail,
            )
        for phase in ("deserialize", self.compute_phase(task), "serialize"):
            self._rows.write(
                task, phase, None, None, status="missing", detail="stock SuperNode: not visible from the server"
            )
        self._rows.write(task, "uplink", on_server(start_ns), on_server(end_ns), payload_bytes=payload_bytes, detail=detail)

    @staticmethod
    def compute_phase(task: Task) -> str:
        """The phase that a whole call of the ClientApp counts as, by the message's type."""
        return "evaluate" if task.message_type.startswith("evaluate") else "train"

    def end(self, raw_ns: int) -> None:
        """The app is over: what it did since the last replies was its aggregation."""
        self._close_aggregation(raw_ns, "until the app ended")
        self.batch = None

    def _aggregated(self, step: str, round_: int, end_ns: int) -> None:
        """The strategy has combined replies. It also calls the step of the message type that it sent no messages of."""
        batch = self.batch
        if batch is None or batch.gathered_ns is None or batch.round != round_:
            return
        if step == f"aggregate_{batch.message_type.partition('.')[0]}":
            self._steps["aggregate", round_] = end_ns
            self._touch(round_, end_ns)
            self._rows.write_server(round_, batch.message_type, "aggregate", batch.gathered_ns, end_ns)
            self.stage = "server_evaluate"

    def _close_aggregation(self, end_ns: int, detail: str) -> None:
        """Without a strategy's step, what the app does after the last reply counts as its aggregation."""
        batch = self.batch
        if batch is None or batch.gathered_ns is None or self._steps.pop(("aggregate", batch.round), None) is not None:
            return
        self._touch(batch.round, end_ns)
        self._rows.write_server(batch.round, batch.message_type, "aggregate", batch.gathered_ns, end_ns, detail)

    def _touch(self, round_: int, end_ns: int) -> None:
        if round_ in self.rounds:
            self.rounds[round_].end_ns = end_ns
