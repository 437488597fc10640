"""One run on the server: from a free port to a complete run folder."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uvicorn

from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.collector import keep_what_is_there
from fltestbed.config import Experiment
from fltestbed.errors import HostError, TestbedError
from fltestbed.flower import keep_quiet
from fltestbed.flower.apps import INSTALLED_SERVER_APP, inspect, pack_app, pack_installed_app
from fltestbed.flower.superlink import Superlink
from fltestbed.learning.names import check_model_name
from fltestbed.learning.strategies import check_strategy
from fltestbed.measure.host import describe_host, package_versions
from fltestbed.measure.kernel_stamps import StampedSocket
from fltestbed.measure.manifest import Manifest, create_run_folder
from fltestbed.measure.probes.host import HostProbes
from fltestbed.measure.probes.system import ALL_INTERFACES
from fltestbed.measure.recorder import Recorder
from fltestbed.measure.stamping import LoopLag, StampError
from fltestbed.server.absence import AbsenceLog
from fltestbed.server.admission import Admission
from fltestbed.server.deadline import DeadlineWatch
from fltestbed.server.desk import Desk
from fltestbed.server.exchange import Exchange
from fltestbed.server.gate import Gate
from fltestbed.server.latest import Latest
from fltestbed.server.observer import Observer
from fltestbed.server.presence import Presence
from fltestbed.server.progress import Progress, View
from fltestbed.server.protocol import protocol
from fltestbed.server.roster import Roster
from fltestbed.server.rounds import RoundLog
from fltestbed.server.routes import Routes
from fltestbed.server.tasks import SERVER
from fltestbed.server.transfers import TransferLog
from fltestbed.server.waiting import Waiting

KEEP_ALIVE_S = 3600
"""An idle connection is kept: uvicorn's 5 s would make every round open a new one."""

LEAVE_TIMEOUT_S = 10.0
CPU_BOUND_EXIT_S = 5.0


@dataclass(frozen=True)
class Session:
    """What one run of the server is asked to do.

    Attributes
    ----------
    experiment : Experiment
    folder : Path
        The run folder, which is made.
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
        self._check_names()
        fab = self._pack()
        admission = Admission.read(self.experiment.server, self.clock, emulated=self.link is not None)
        listener = listen(self.experiment.server.host, self.experiment.server.port)
        with contextlib.closing(listener):
            create_run_folder(self.folder)
            manifest = Manifest(self.folder, self.folder.name, self.clock)
            manifest.update(
                experiment=self.experiment.resolved,
                experiment_as_given=self.given,
                seed=self.experiment.seed,
                transport=self.experiment.transport,
                compression=self.experiment.compression.summary,
                link=self.link or {},
                campaign=self.campaign,
                paced=self.experiment.pacing is not None,
                app=str(self.app.name if self.app else INSTALLED_SERVER_APP),
                versions=package_versions(),
                security=admission.description,
            )
            manifest.set_host(SERVER, describe_host(self.clock) | {"wall_offset_s": 0.0})  # others are told against it
            try:
                latest = Latest()
                with Recorder(self.folder, self.folder.name, latest.hear) as recorder:
                    asyncio.run(self._serve(fab, listener, admission, manifest, recorder, latest))
            except (KeyboardInterrupt, asyncio.CancelledError):
                manifest.update(status="interrupted", reason="interrupted on the server")
                raise KeyboardInterrupt from None
            except TestbedError as error:
                with contextlib.suppress(OSError):  # the disk may be what failed
                    manifest.update(status="failed", reason=str(error))
                raise
            except BaseException as error:
                with contextlib.suppress(OSError):
                    manifest.update(status="failed", reason=f"{type(error).__name__}: {error}")
                raise
            manifest.update(status="complete")

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
    ) -> None:
        experiment = self.experiment
        host, port = listener.getsockname()[:2]
        superlink = Superlink(host, port, admission.registered)
        app = superlink.create_run(fab)
        manifest.update(run_id=str(app.run_id))
        exchange, presence, stamp_error = Exchange(superlink), Presence(self.clock), StampError(lag := LoopLag())

        def switch(is_measured: bool) -> None:
            probes.switch(is_measured)
            (lag.start if is_measured else lag.stop)()

        log = RoundLog(
            recorder, manifest.zero_raw_ns, experiment.instrumentation, switch,
            AbsenceLog(recorder, manifest.zero_raw_ns, lambda counts: manifest.update(missing=counts)), presence.observe,
        )  # fmt: skip
        roster = Roster(experiment, superlink, app, manifest, link=str((self.link or {}).get("name", "unknown")))
        transfers = TransferLog(recorder)
        observer = Observer(superlink, exchange, log, transfers, self.clock, presence)
        watch = DeadlineWatch(experiment, log, exchange, transfers, presence, app.run_id, self.clock)
        waiting = Waiting(log, roster, presence, watch, experiment.deadlines.return_s, self.clock)
        desk = Desk(superlink, exchange, roster, log, self.clock, presence, waiting)
        inherited = desk.inherited
        routes = Routes(superlink, exchange, roster, log, transfers, observer, self.clock, presence)
        superlink.app.add_middleware(Gate, routes=routes, observer=observer)
        _cancel_on_signals()
        # The ServerApp's way in: without TLS, whatever the network's listener does.
        inside = listen("127.0.0.1", 0, is_stamped=False)
        app_pid: list[int] = []
        probes = HostProbes(
            SERVER, ALL_INTERFACES, experiment.probes.model_dump(mode="json"), False, lambda: (os.getpid(), *app_pid),
            lambda table, row: log.reading(table, SERVER, row | (stamp_error.columns() if table == "system" else {})),
            lambda name, facts: manifest.add_to_host(SERVER, "probes", {name: facts}),
        )  # fmt: skip
        view = View(self.folder.name, experiment, log, roster, latest, waiting, self.clock)
        async with (
            contextlib.AsyncExitStack() as stack,
            _http_server(superlink, experiment, listener, admission.tls),
            _http_server(superlink, experiment, inside, lifespan="off"),
            _app_process(inspect(fab).is_installed_app, self.folder / "logs", inherited) as process,
            Progress(view) as progress,
            _running(watch.run()),
        ):
            stack.enter_context(self._metrics(view))
            stack.callback(desk.close)  # after all that asks or answers
            stack.callback(inside.close)
            app_pid.append(process.pid)
            stack.callback(lag.stop)
            stack.callback(probes.stop)
            if not experiment.instrumentation.off:
                lag.start()
                probes.start()
            progress.say(
                f"listening on {host}:{port} {'without' if admission.tls is None else 'with'} TLS, "
                f"waiting for {experiment.clients} clients"
            )
            try:
                await self._wait_for_clients(roster)
                progress.say(f"{roster.count()} clients are ready")
                error = await _run_app(process, roster, desk, self._go(inside, superlink.claim(app.run_id).token, inherited))
                exchange.finish()
                if not await roster.wait_until_empty(LEAVE_TIMEOUT_S):
                    progress.say(f"did not say goodbye: {', '.join(roster.names_present())}")
                if error is not None:
                    raise TestbedError(f"{self.folder.name}: {error}")
            finally:
                exchange.finish()  # however it ends, clients that wait for work are told
                transfers.close()
                with contextlib.suppress(OSError):  # a full disk is told by what failed first
                    manifest.add_to_host(SERVER, "stamp_error", stamp_error.describe())

    def _metrics(self, view: View) -> contextlib.AbstractContextManager[None]:
        if self.metrics is None:
            return contextlib.nullcontext()
        try:
            from fltestbed.server.metrics import serving  # noqa: PLC0415  # an extra that most runs do without
        except ModuleNotFoundError as error:
            raise HostError(f"--metrics-port needs {error.name}: pip install 'fltestbed[metrics]'") from error
        return serving(view, *self.metrics)

    async def _wait_for_clients(self, roster: Roster) -> None:
        experiment = self.experiment
        if not await roster.wait_for(experiment.clients, experiment.server.join_timeout_s):
            raise roster.failure or TestbedError(
                f"{self.folder.name}: {roster.count()} of {experiment.clients} clients joined within "
                f"{experiment.server.join_timeout_s:g} s ({', '.join(roster.names_present()) or 'none'}); start the "
                "others, or raise server.join-timeout-s"
            )

    def _go(self, inside: socket.socket, token: str, inherited: Sequence[int]) -> dict[str, Any]:
        """What the ServerApp's process reads first, as `fltestbed.server.app_process` says."""
        experiment, compression = self.experiment, self.experiment.compression
        return {
            "address": f"127.0.0.1:{inside.getsockname()[1]}", "token": token,
            "streaming": experiment.strategy.streaming, "inherited": inherited,
            "minimum_replies": experiment.deadlines.minimum_replies,
            "compression": {
                "codec": {"name": compression.downlink, "zstd_level": compression.zstd_level},
                "most_bytes": experiment.server.largest_message_bytes,
            },
            "instrumentation": experiment.instrumentation.model_dump(mode="json", by_alias=True),
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


def _cancel_on_signals() -> None:
    """Let SIGINT and SIGTERM cancel this task, once: a terminal and a parent process may both send one."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    cancelled: list[bool] = []

    def cancel() -> None:
        if task is not None and not cancelled:
            cancelled.append(True)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, cancel)


def listen(host: str, port: int, is_stamped: bool = True) -> socket.socket:
    """A listening socket; what comes over its connections is stamped by the kernel, or not.

    Raises
    ------
    HostError
        The port is in use, or the address is not this host's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off for sockets that say they are TCP, and an accepted one says what this one does:
    # without the third argument every small answer waits 40 ms for a delayed acknowledgement.
    kind = StampedSocket if is_stamped else socket.socket
    sock = kind(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise HostError(f"{host}:{port}: cannot listen there: {error.strerror}; choose another server.port") from error
    return sock


@contextlib.asynccontextmanager
async def _http_server(
    superlink: Superlink,
    experiment: Experiment,
    listener: socket.socket,
    tls: ssl.SSLContext | None = None,
    lifespan: Literal["auto", "off"] = "auto",
) -> AsyncIterator[None]:
    """Serve the SuperLink on one socket; a second one leaves its start and end (`lifespan`) to the first."""
    config = uvicorn.Config(
        superlink.app,
        http=protocol(experiment.congestion_control),
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=2,
        lifespan=lifespan,
        ssl_context_factory=(lambda _config, _default: tls) if tls is not None else None,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if serving.done():
            await serving
            raise TestbedError("the SuperLink did not start")
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the session has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave the signals alone."""
        yield


@contextlib.asynccontextmanager
async def _app_process(
    is_installed_app: bool, logs: Path, inherited: Sequence[int]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The ServerApp's process, its imports under way; gone at the end of the block."""
    home = Path(tempfile.mkdtemp(prefix="fltestbed-server-"))
    preload = [INSTALLED_SERVER_APP.partition(":")[0]] if is_installed_app else []
    logs.mkdir(exist_ok=True)
    with (logs / "serverapp.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", "--",  # an app that never asks its Grid would outlive a killed server
            sys.executable, "-m", "fltestbed.server.app_process", *preload,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            env={**os.environ, "FLWR_HOME": str(home)}, start_new_session=True, pass_fds=inherited,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), CPU_BOUND_EXIT_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        shutil.rmtree(home, ignore_errors=True)


async def _run_app(process: asyncio.subprocess.Process, roster: Roster, desk: Desk, go: dict[str, Any]) -> str | None:
    """Hand the token over, answer what the app asks, and wait for its end; returns what went wrong, or None."""
    if process.stdin is None or process.stdout is None:
        raise TestbedError("the ServerApp's process has no pipes")
    process.stdin.write(json.dumps(go).encode() + b"\n")
    await process.stdin.drain()
    process.stdin.close()
    keep_what_is_there()
    async with desk.answering(go["token"]):
        last = b""
        async for line in process.stdout:
            last = line
        status = await process.wait()
    try:
        outcome = json.loads(last)
        error: str | None = outcome["error"]
    except (ValueError, KeyError, TypeError):
        return f"the ServerApp's process ended with status {status} and said nothing"
    if roster.failure is not None:  # an error of the app comes of it
        return str(roster.failure)
    return None if error is None else f"the ServerApp failed: {error}"
