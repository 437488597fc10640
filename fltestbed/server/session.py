"""One run on the server: from a free port to a complete run folder."""

import asyncio
import contextlib
import hashlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.config import Experiment
from fltestbed.errors import HostError, TestbedError
from fltestbed.flower import keep_quiet
from fltestbed.flower.apps import INSTALLED_SERVER_APP, inspect, pack_app, pack_installed_app
from fltestbed.flower.superlink import Superlink
from fltestbed.interrupts import Interrupts
from fltestbed.learning.names import check_model_name
from fltestbed.learning.strategies import check_strategy
from fltestbed.measure.host import boot_id, describe_host, package_versions
from fltestbed.measure.manifest import Manifest, create_run_folder
from fltestbed.measure.probes.host import HostProbes
from fltestbed.measure.probes.system import ALL_INTERFACES
from fltestbed.measure.recorder import Recorder
from fltestbed.measure.stamping import LoopLag, StampError
from fltestbed.server.absence import AbsenceLog
from fltestbed.server.admission import Admission
from fltestbed.server.app_parent import app_process, run_app
from fltestbed.server.attendance import Attendance
from fltestbed.server.checkpoint import FOLDER as CHECKPOINTS
from fltestbed.server.deadline import DeadlineWatch
from fltestbed.server.desk import Desk
from fltestbed.server.exchange import Exchange
from fltestbed.server.fleet_guard import FleetGuard
from fltestbed.server.gate import Gate
from fltestbed.server.guests import allow_descriptors
from fltestbed.server.host_log import HostLog
from fltestbed.server.latest import Latest
from fltestbed.server.listening import http_server, listen
from fltestbed.server.observer import Observer
from fltestbed.server.presence import Presence
from fltestbed.server.progress import Progress, View
from fltestbed.server.resume import Past, session_row
from fltestbed.server.roster import Roster
from fltestbed.server.rounds import RoundLog
from fltestbed.server.routes import Routes
from fltestbed.server.tasks import SERVER
from fltestbed.server.transfers import TransferLog
from fltestbed.server.turns import ServerLoop
from fltestbed.server.waiting import Waiting

LEAVE_TIMEOUT_S = 10.0
LEAVE_AFTER_FAILURE_S = 1.0
"""Who waits for work leaves within it; who works finds out later, and waits for the run to go on."""


@dataclass(frozen=True)
class Session:
    """What one run of the server is asked to do.

    Attributes
    ----------
    experiment : Experiment
    folder : Path
        The run folder, which is made.
    is_resumed : bool
        The run folder is there, and its run goes on where it was broken off.
    app : Path or None
        Folder of a Flower app; None runs the toolkit's own.
    link : dict or None
        Description of the emulated link for the manifest; None on real links.
    given : str
        Text of the experiment's file, for the manifest.
    campaign : dict or None
        What the manifest says of the campaign of which this run is a part; None for a run on its own.
    metrics : (str, int) or None
        Address and port at which Prometheus may ask; None for nowhere.
    """

    experiment: Experiment
    folder: Path
    app: Path | None = None
    link: dict[str, Any] | None = None
    given: str = ""
    campaign: dict[str, Any] | None = None
    metrics: tuple[str, int] | None = None
    clock: Clock = SYSTEM_CLOCK
    is_resumed: bool = False

    def run(self) -> None:
        """Serve the run to its end.

        Raises
        ------
        TestbedError
            The run failed; its manifest says why.
        KeyboardInterrupt
            It was interrupted; its manifest says so.
        """
        keep_quiet()
        allow_descriptors()
        self._check_names()
        fab = self._pack()
        fab_hash = hashlib.sha256(fab).hexdigest() if self.app is not None else None
        if not self.is_resumed:
            self._run(fab, fab_hash, None)
            return
        past = Past.read(self.folder, self.clock)
        past.check(self.folder, self.experiment, self._app_name, fab_hash)
        replace(self, clock=past.clock(self.clock))._run(fab, fab_hash, past)

    @property
    def _app_name(self) -> str:
        return self.app.name if self.app is not None else INSTALLED_SERVER_APP

    def _run(self, fab: bytes, fab_hash: str | None, past: Past | None) -> None:
        admission = Admission.read(self.experiment.server, self.clock, emulated=self.link is not None)
        listener = listen(self.experiment.server.host, self.experiment.server.port, clock=self.clock)
        with contextlib.ExitStack() as stack:
            stack.callback(listener.close)
            if past is None:
                create_run_folder(self.folder)
            latest = Latest()
            name = self.folder.name if past is None else past.manifest["run"]
            recorder = Recorder(self.folder, name, latest.hear)
            manifest = self._begin(recorder, past, admission, fab_hash)
            interrupts = stack.enter_context(Interrupts())  # until the manifest has its last word
            try:
                with recorder, manifest.in_background(), asyncio.Runner(loop_factory=ServerLoop) as runner:
                    runner.run(self._serve(fab, listener, admission, manifest, recorder, latest, past, interrupts))
            except (KeyboardInterrupt, asyncio.CancelledError):
                manifest.end("interrupted", "interrupted on the server")
                raise KeyboardInterrupt from None
            except TestbedError as error:
                with contextlib.suppress(OSError):  # the disk may be what failed
                    manifest.end("failed", str(error))
                raise
            except BaseException as error:
                with contextlib.suppress(OSError):
                    manifest.end("failed", f"{type(error).__name__}: {error}")
                raise
            manifest.end("complete")

    def _begin(self, recorder: Recorder, past: Past | None, admission: Admission, fab_hash: str | None) -> Manifest:
        """Say in the folder what begins; only once the recorder's lock is held is it known to be nobody else's."""
        former = past.manifest if past is not None else None
        manifest = Manifest(self.folder, self.folder.name, self.clock, former)
        if past is None:
            manifest.update(
                experiment=self.experiment.resolved,
                experiment_as_given=self.given,
                seed=self.experiment.seed,
                transport=self.experiment.transport,
                compression=self.experiment.compression.summary,
                link=self.link or {},
                campaign=self.campaign,
                paced=self.experiment.pacing is not None,
                app=self._app_name,
                fab_hash=fab_hash,
                versions=package_versions(),
            )
        manifest.update(security=admission.description)
        manifest.set_host(SERVER, describe_host(self.clock) | {"wall_offset_s": 0.0})  # others are told against it
        row = session_row(1, 1, manifest.zero_raw_ns, self.clock, self.clock.raw_ns())
        if past is not None:
            row = past.row(len(past.manifest["sessions"]) + 1, self.clock)
        manifest.begin_session(
            started=row["start_wall"], start_raw_ns=row["start_raw_ns"], boot_id=boot_id(),
            after_round=past.after_round if past is not None else None,
            shift_ns=past.shift_ns if past is not None else 0, versions=package_versions(),
        )  # fmt: skip
        recorder.write("sessions.csv", row)
        return manifest

    def _check_names(self) -> None:
        """Find a slip in the names of model and strategy before anything is made; an app of the user's has its own."""
        if self.app is None:
            check_model_name(self.experiment.model.name)
            check_strategy(self.experiment)

    def _pack(self) -> bytes:
        if self.app is not None:
            return pack_app(self.app)
        return pack_installed_app(json.dumps(self.experiment.resolved, separators=(",", ":")))

    async def _serve(
        self,
        fab: bytes,
        listener: socket.socket,
        admission: Admission,
        manifest: Manifest,
        recorder: Recorder,
        latest: Latest,
        past: Past | None,
        interrupts: Interrupts,
    ) -> None:
        experiment = self.experiment
        host, port = listener.getsockname()[:2]
        app = (superlink := Superlink(host, port, admission.registered)).create_run(fab)
        manifest.update(run_id=manifest.run_id or str(app.run_id))  # the first session's: clients name their copies by it
        exchange, presence, stamp_error = Exchange(superlink), Presence(self.clock), StampError(lag := LoopLag())

        def switch(is_measured: bool) -> None:
            probes.switch(is_measured)
            (lag.start if is_measured else lag.stop)()

        def take_reading(table: str, row: dict[str, Any]) -> None:
            at = {"raw_ns": row["raw_ns"] + (past.shift_ns if past is not None else 0)}
            hosts.reading(table, SERVER, row | at | (stamp_error.columns() if table == "system" else {}))

        absences = AbsenceLog(
            recorder, manifest.zero_raw_ns, lambda counts: manifest.update(missing=counts),
            past.manifest.get("missing") if past is not None else None,
        )  # fmt: skip
        log = RoundLog(recorder, manifest.zero_raw_ns, experiment.instrumentation, switch, absences, presence.observe)
        hosts = HostLog(recorder, manifest.zero_raw_ns)
        roster = Roster(experiment, superlink, app, manifest, link=str((self.link or {}).get("name", "unknown")))
        transfers = TransferLog(recorder)
        attendance = Attendance(presence, superlink, roster, log, self.clock)
        observer = Observer(
            superlink, exchange, log, transfers, self.clock, attendance, experiment.server.largest_message_bytes
        )  # fmt: skip
        watch = DeadlineWatch(experiment, log, exchange, transfers, presence, app.run_id, self.clock)
        waiting = Waiting(log, roster, presence, watch, experiment.deadlines.return_s, self.clock)
        desk = Desk(superlink, exchange, roster, log, self.clock, presence, waiting)
        routes = Routes(superlink, exchange, roster, log, hosts, transfers, observer, self.clock, attendance)
        superlink.app.add_middleware(Gate, routes=routes, observer=FleetGuard(observer, superlink, experiment))
        # The ServerApp's way in: without TLS, whatever the network's listener does.
        inside = listen("127.0.0.1", 0, is_stamped=False)
        app_pid: list[int] = []
        recorder.failed, interrupts.action = _enders(roster)
        probes = HostProbes(
            SERVER, ALL_INTERFACES, experiment.probes.model_dump(mode="json"), False, lambda: (os.getpid(), *app_pid),
            take_reading,
            lambda name, facts: manifest.add_to_host(SERVER, "probes", {name: facts}),
        )  # fmt: skip
        view = View(self.folder.name, experiment, log, roster, latest, waiting, self.clock)
        async with (
            contextlib.AsyncExitStack() as stack,
            http_server(superlink, experiment, listener, admission.tls),
            http_server(superlink, experiment, inside, lifespan="off"),
            app_process(inspect(fab).is_installed_app, self.folder / "logs", desk.inherited) as process,
            Progress(view) as progress,
            _running(watch.run()),
        ):
            stack.enter_context(self._metrics(view))
            stack.callback(desk.close)  # after all that asks or answers
            stack.callback(inside.close)
            app_pid.append(process.pid)
            stack.enter_context(self._looking(lag, probes))
            if past is not None:
                progress.say(past.told)
            tls = "without TLS" if admission.tls is None else "with TLS"
            progress.say(f"listening on {host}:{port} {tls}, waiting for {experiment.clients} clients")
            try:
                await self._wait_for_clients(roster)
                progress.say(f"{roster.count()} clients are ready")
                go = self._go(inside, superlink.claim(app.run_id).token, desk.inherited, past)
                await self._see_through(run_app(process, roster, desk, go), exchange, roster, progress)
            finally:
                exchange.finish()  # however it ends, clients that wait for work are told
                probes.ask_to_stop()
                transfers.close()
                with contextlib.suppress(OSError):  # a full disk is told by what failed first
                    manifest.add_to_host(SERVER, "stamp_error", stamp_error.describe())

    @contextlib.contextmanager
    def _looking(self, lag: LoopLag, probes: HostProbes) -> Iterator[None]:
        """Probe this host during the block, if anything is measured."""
        try:
            if not self.experiment.instrumentation.off:
                lag.start()
                probes.start()
            yield
        finally:
            probes.stop()
            lag.stop()

    def _metrics(self, view: View) -> contextlib.AbstractContextManager[None]:
        if self.metrics is None:
            return contextlib.nullcontext()
        try:
            from fltestbed.server.metrics import serving  # noqa: PLC0415  # an extra that most runs do without
        except ModuleNotFoundError as error:
            raise HostError(f"--metrics-port needs {error.name}: pip install 'fltestbed[metrics]'") from error
        return serving(view, *self.metrics)

    async def _see_through(
        self, running: Awaitable[str | None], exchange: Exchange, roster: Roster, progress: Progress
    ) -> None:
        """Wait for the app's end, and let the clients go; those of a run that has failed wait for its next session."""
        error = await running
        if error is not None:
            exchange.finish(can_go_on=True)
            await roster.wait_until_empty(LEAVE_AFTER_FAILURE_S)
            raise TestbedError(f"{self.folder.name}: {error}")
        exchange.finish()
        if not await roster.wait_until_empty(LEAVE_TIMEOUT_S):
            progress.say(f"did not say goodbye: {', '.join(roster.names_present())}")

    async def _wait_for_clients(self, roster: Roster) -> None:
        experiment = self.experiment
        if not await roster.wait_for(experiment.clients, experiment.server.join_timeout_s):
            raise roster.failure or TestbedError(
                f"{self.folder.name}: {roster.count()} of {experiment.clients} clients joined within "
                f"{experiment.server.join_timeout_s:g} s ({', '.join(roster.names_present()) or 'none'}); start the "
                "others, or raise server.join-timeout-s"
            )

    def _go(self, inside: socket.socket, token: str, inherited: Sequence[int], past: Past | None) -> dict[str, Any]:
        """What the ServerApp's process reads first, as `fltestbed.server.app_process` says."""
        experiment = self.experiment
        source = past.found.path if past is not None else None
        kept = {"folder": str(self.folder / CHECKPOINTS), "source": str(source) if source is not None else None}
        return {
            "address": f"127.0.0.1:{inside.getsockname()[1]}", "token": token,
            "streaming": experiment.strategy.streaming, "inherited": inherited,
            "minimum_replies": experiment.deadlines.minimum_replies,
            "compression": {
                "codec": experiment.compression.downlink_codec,
                "most_bytes": experiment.server.largest_message_bytes,
            },
            "instrumentation": experiment.instrumentation.model_dump(mode="json", by_alias=True),
            "checkpoints": kept if experiment.server.checkpoints else None,
            "clock_shift_ns": past.shift_ns if past is not None else 0,
        }  # fmt: skip


@contextlib.asynccontextmanager
async def _running(coroutine: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let a coroutine that never ends run beside the block; an error of its own ends the block's task."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(coroutine)
            try:
                yield
            finally:
                task.cancel()
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) > 1:
            raise
        raise errors.exceptions[0] from None  # whoever ends the run looks for its kind, and says its text


def _enders(roster: Roster) -> tuple[Callable[[TestbedError], None], Callable[[], None]]:
    """What ends the run of this task: a disk that takes no more rows, from any thread, and a signal."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def failed(error: TestbedError) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is over: what is left is told when the recorder is closed
            loop.call_soon_threadsafe(roster.fail, error)

    def interrupted() -> None:
        if task is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)

    return failed, interrupted
