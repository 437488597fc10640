"""One run on a client: join, work while there is work, tell what is left, leave."""

import contextlib
import http.client
import json
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fltestbed.check.baseline import recall_baseline
from fltestbed.client.carriers import (
    SILENCE_S,
    BundleCarrier,
    Carrier,
    ObjectsCarrier,
    Parcel,
    PatientConnection,
)
from fltestbed.client.interface import check_interface
from fltestbed.client.introduction import CONNECT_TIMEOUT_S, Introduction
from fltestbed.client.journal import Journal
from fltestbed.client.path import ServerPath, free_abandoned_routes, host_of
from fltestbed.client.rejoin import get_app, meet, rejoin
from fltestbed.client.second_clock import SecondClock
from fltestbed.client.stamps import LateStamps
from fltestbed.client.told import ServerStamps, read_told
from fltestbed.client.trainer import Order, Result, Trainer, TrainerFailed
from fltestbed.client.transport import ServerConnection, SessionLost
from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.collector import keep_what_is_there
from fltestbed.errors import ConfigError, ServerRefused
from fltestbed.flower import keep_quiet
from fltestbed.flower.apps import App, error_reply, inspect, set_creation_time, set_identity
from fltestbed.flower.bundle import Bundle, BundleError
from fltestbed.flower.compression import Compression
from fltestbed.flower.quantisation import Codec
from fltestbed.measure.host import boot_id, describe_host
from fltestbed.measure.probes.host import HostProbes
from fltestbed.measure.stamping import StampError
from fltestbed.scratch import scratch_folder

log = logging.getLogger("fltestbed")

CLOCK_EXCHANGES = 8
PATIENCE_S = 3600.0


@dataclass(frozen=True)
class Session:
    """What one run of a client is asked to do.

    Attributes
    ----------
    server : str
        host:port.
    interface : str
        Interface that all traffic with the server uses.
    link : str
        Name of the link in the results.
    partition : int
        Which part of the data is this client's, from 0.
    name : str
        Name of the client in the results.
    state : Path
        Folder that keeps the node's key between runs.
    trust_apps : bool
        Whether code that the server sends may run here.
    timeout_s : float
        How long to try to reach a server that does not answer.
    patience_s : float
        How long to wait for a server that has answered and is gone, or has failed and may be resumed.
    ca : Path or None
        Certificate of the CA that signed the server's; None speaks plain HTTP.
    key : Path or None
        The node's private key; None keeps one in `state`.
    trainer : callable (Order) -> Trainer
        Starts what answers the messages: a process of its own, unless somebody has a lighter one.
    clock_interface : str or None
        Interface of a second, quiet network, over which clock exchanges are made as well.
    clock_server : str or None
        The server's host:port there; None if it is the same.
    pin_route : bool
        Whether a route to the server that leaves by another interface is pinned to this one for the run.
    """

    server: str
    interface: str
    link: str
    partition: int
    name: str
    state: Path
    trust_apps: bool = False
    timeout_s: float = 60.0
    clock_interface: str | None = None
    clock_server: str | None = None
    clock: Clock = SYSTEM_CLOCK
    ca: Path | None = None
    key: Path | None = None
    trainer: Callable[[Order], Trainer] = Trainer
    pin_route: bool = False
    patience_s: float = PATIENCE_S

    def run(self) -> None:
        """Take part in one run, to its end.

        Raises
        ------
        HostError, ServerUnreachable, ServerRefused, ServerNotTrusted, ConfigError
        """
        keep_quiet()
        check_interface(self.interface)
        if self.clock_interface is not None:
            check_interface(self.clock_interface, "--clock-interface")
        free_abandoned_routes()
        with ServerPath(self.server, self.interface, self.pin_route) as path:
            self._run(path)

    def _run(self, path: ServerPath) -> None:
        introduction = Introduction(self.server, self.name, self.state, path, self.clock, self.ca, self.key)
        introduction.reach(self.timeout_s)
        node = introduction.node
        try:
            hello, app = meet(self.server, introduction, self.timeout_s, self.patience_s, self._check_place)
            node.patience_s = float(hello["patience_s"])
            with scratch_folder("client") as home:
                self.check_trust(app)
                node_config = {
                    "partition-id": self.partition, "num-partitions": hello["clients"], "trust-apps": self.trust_apps,
                }  # fmt: skip
                uplink = Compression(Codec(**hello["compression"]), int(hello["largest_message_bytes"]))
                order = Order(app, node.node_id, node_config, home, uplink)
                _Work(self, introduction, order, hello, path).run()
        finally:
            node.leave()

    def _check_place(self, hello: dict[str, Any]) -> None:
        """Refuse a run that has no part of the data for this client."""
        if self.partition >= hello["clients"]:
            raise ConfigError(
                f"--partition {self.partition} is past the end: this run has {hello['clients']} clients, "
                f"so it is 0 to {hello['clients'] - 1}"
            )

    def check_trust(self, app: App) -> None:
        """Refuse code of the server's that nobody here has agreed to."""
        names = inspect(app.fab)
        if not names.is_installed_app and not self.trust_apps:
            raise ServerRefused(
                f"{self.server}: the server wants this client to run code of its own ({names.client_app}); "
                "start the client with --trust-apps if you trust the server"
            )


class _Work:
    """The loop of a client that has joined."""

    def __init__(
        self,
        session: Session,
        introduction: Introduction,
        order: Order,
        hello: dict[str, Any],
        path: ServerPath,
    ) -> None:
        self._session = session
        self._introduction = introduction
        self._path = path
        self._connection, self._node = introduction.connection, introduction.node
        self._key, self._trust = introduction.key, introduction.trust
        self._order = order
        self._hold_s = float(hello["hold_s"])
        self._deadline_s = float(hello["deadline_s"])
        self._patience_s = float(hello["patience_s"])
        self._trainer_limit_s = float(hello["trainer_limit_s"])
        self._transport = hello["transport"]
        self._clock_interval_s = float(hello["clock_interval_s"])
        self._is_measured = bool(hello["measured"])
        self._keep_warm_s = float(hello["keep_warm_s"])
        self._hello = hello
        self._run = {"run": hello["run"], "run_id": hello["first_run_id"]}
        self._late = LateStamps()
        self._stamp_error = StampError()
        self._probes = HostProbes(
            session.name, session.interface, hello["probes"], True, self._processes, self._take_reading, self._late.probe
        )

    def run(self) -> None:
        session = self._session
        head = {
            **self._run, "client": session.name, "link": session.link, "interface": session.interface,
            "transport": self._transport,
        }  # fmt: skip
        with Journal(session.state / "runs", head) as journal:
            self._late.keep = journal.write
            try:
                self._work()
            finally:
                self._late.take()  # what no request carried

    def _work(self) -> None:
        self._switch(self._is_measured)
        self._start_trainer()
        stack = contextlib.ExitStack()
        try:
            if self._is_measured:
                self._probes.start()
            stack.enter_context(self._second_clock())
            self._trainer.wait_ready()
            keep_what_is_there()
            patient = PatientConnection(
                self._session.server, self._connection, self._session.patience_s, self._patience_s
            )  # fmt: skip
            lost: SessionLost | None = None
            while True:
                try:
                    if lost is not None:
                        self._go_on(patient, lost)
                    else:
                        self._compare_clocks(patient)
                        self._join(patient)
                    self._serve(self._carrier(patient))
                    break
                except SessionLost as loss:
                    lost = loss
                except ServerRefused:
                    self._leave()
                    raise
            self._probes.stop()
            carried = self._path.carried()
            if carried["mismatch"] is not None:
                log.warning("%s: %s", self._session.name, carried["mismatch"])
            last = self._late.take() | {"path": carried}
            last |= {"stamp_error": self._stamp_error.describe()} if self._is_measured else {}
            patient.post("leave", [json.dumps(last).encode()], SILENCE_S)
        finally:
            self._probes.ask_to_stop()
            self._trainer.kill()
            stack.close()
            self._connection.close()  # before the probes: a server that shuts down waits for it
            self._probes.stop()

    def _serve(self, carrier: Carrier) -> None:
        """Answer messages until the run is over."""
        while (parcel := carrier.receive()) is not None:
            self._answer(carrier, parcel)
            parcel = None  # not to be held while the next one comes

    def _compare_clocks(self, connection: PatientConnection) -> None:
        for _ in range(CLOCK_EXCHANGES if self._late.is_on else 0):
            reply = connection.post_json("clock", {})
            self._late.clock_sample("clock", reply, read_told(ServerStamps, reply.data))

    def _go_on(self, connection: PatientConnection, loss: SessionLost) -> None:
        """Take part in the run's next session on the server, as the same client."""
        session = self._session
        log.warning("%s: %s; waiting for it to go on, %g s at most", session.name, loss, session.patience_s)
        if loss.is_over:
            self._leave()
        self._late.take()  # meant for the server that is gone: `fltestbed collect` brings it from this client's own copy
        self._hello = rejoin(session.server, self._introduction, session.patience_s, self._hello, loss)
        former = self._order.app
        app = replace(former, run_id=int(self._hello["run_id"]))
        if self._hello["fab_hash"] != former.fab_hash:
            app = get_app(connection, self._hello)
            session.check_trust(app)
        self._order = replace(self._order, app=app, node_id=self._node.node_id)
        is_other = app.fab_hash != former.fab_hash
        try:
            self._trainer.become(app.run_id, self._order.node_id)
        except TrainerFailed:
            is_other = True
        if is_other:
            self._trainer.kill()
            self._start_trainer()
            self._trainer.wait_ready()
        self._compare_clocks(connection)
        self._join(connection)

    def _leave(self) -> None:
        """Tell a server that ends what it may still want to know; one that is gone does not matter."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._connection.post("leave", [json.dumps(self._late.take()).encode()], CONNECT_TIMEOUT_S)

    def _second_clock(self) -> contextlib.AbstractContextManager[object]:
        session = self._session
        if session.clock_interface is None or not self._is_measured:
            return contextlib.nullcontext()
        server = session.clock_server or session.server
        tls = self._trust.context if self._trust is not None else None
        connection = ServerConnection(server, session.clock_interface, self._key, session.clock, tls)
        return SecondClock(connection, session.clock_interface, self._clock_interval_s, self._late)

    def _carrier(self, connection: PatientConnection) -> Carrier:
        if self._transport == "objects":
            return ObjectsCarrier(
                connection, self._late, self._hold_s, self._node, self._order.app.run_id, self._session.clock, self._switch
            )
        return BundleCarrier(connection, self._late, self._hold_s, self._deadline_s, self._switch)

    def _switch(self, is_measured: bool) -> None:
        """The round of the message that has come is measured, or not."""
        self._late.is_on = self._connection.is_measured = is_measured
        self._probes.switch(is_measured)

    def _start_trainer(self) -> None:
        self._trainer = self._session.trainer(self._order)

    def _take_reading(self, table: str, row: dict[str, Any]) -> None:
        self._late.reading(table, row | (self._stamp_error.columns() if table == "system" else {}))

    def _processes(self) -> tuple[int, int]:
        return os.getpid(), self._trainer.pid

    def _join(self, connection: PatientConnection) -> None:
        session = self._session
        tls = self._trust.describe() if self._trust is not None else None
        host = describe_host(session.clock) | {"tls": tls, "path": self._path.describe()}
        host["baseline"] = recall_baseline(session.state, host_of(session.server), session.interface)
        facts = {
            "name": session.name, "link": session.link, "interface": session.interface, "partition": session.partition,
            "clock_interface": session.clock_interface, "host": host,
            "wall_offset_s": self._key.wall_offset_s, "boot": boot_id(),
        }  # fmt: skip
        connection.post_json("join", facts | self._late.take())
        log.info("%s joined %s over %s", session.name, session.server, session.interface)

    def _answer(self, carrier: Carrier, parcel: Parcel) -> None:
        """Let the trainer answer and send what it made; one that failed is replaced. What cannot be read is rejected."""
        try:
            self._trainer.take(parcel.take())
            result = self._trainer.work(
                self._key.wall_offset_s,
                self._trainer_limit_s,
                self._keep_warm,
                self._keep_warm_s or math.inf,
                self._late.is_on,
                parcel.is_checked,
            )
        except BundleError as damage:
            carrier.reject(str(damage))
        except TrainerFailed as failure:
            log.warning("%s: %s", self._session.name, failure)
            self._trainer.kill()
            self._start_trainer()
            carrier.send(parcel, self._error_reply(parcel, str(failure)))
            self._trainer.wait_ready()
        else:
            carrier.send(parcel, result)

    def _keep_warm(self) -> None:
        """A few bytes there and back, so that nothing sleeps; a broken link is the next transfer's to tell."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            reply = self._connection.post_json("clock", {})
            self._late.clock_sample("clock", reply, read_told(ServerStamps, reply.data))

    def _error_reply(self, parcel: Parcel, reason: str) -> Result:
        now_ns = self._session.clock.raw_ns()
        set_identity(self._order.app.run_id, self._order.node_id)
        reply = error_reply(parcel.head, reason, crashed=True)
        set_creation_time(reply, parcel.head, self._session.clock.wall_ns() / 1e9 + self._key.wall_offset_s)
        bundle = Bundle.of([reply])
        facts = {
            "called_raw_ns": parcel.end_ns, "returned_raw_ns": now_ns, "error": reason[:300],
            "spans": [{"phase": "train", "start_raw_ns": parcel.end_ns, "end_raw_ns": now_ns, "detail": reason}],
        }  # fmt: skip
        return Result(parcel.head.metadata.message_id, facts, b"".join(bundle.encode()[1:]))
