"""The server's sockets, and what answers on them."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any, Literal

import uvicorn

from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.config import Experiment
from fltestbed.errors import HostError, TestbedError
from fltestbed.flower.superlink import Superlink
from fltestbed.server.bounds import HEAD_S
from fltestbed.server.guests import Listener
from fltestbed.server.protocol import protocol
from fltestbed.server.sparing import spared

KEEP_ALIVE_S = 3600
"""An idle connection is kept: uvicorn's 5 s would make every round open a new one."""


def listen(host: str, port: int, is_stamped: bool = True, clock: Clock = SYSTEM_CLOCK) -> socket.socket:
    """A listening socket; what comes over its connections is stamped by the kernel and counted, or neither.

    Raises
    ------
    HostError
        The port is in use, or the address is not this host's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off for sockets that say they are TCP, and an accepted one says what this one does:
    # without the third argument every small answer waits 40 ms for a delayed acknowledgement.
    kind = (family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock = Listener(*kind, clock=clock) if is_stamped else socket.socket(*kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise HostError(f"{host}:{port}: cannot listen there: {error.strerror}; choose another server.port") from error
    return sock


@contextlib.asynccontextmanager
async def http_server(
    superlink: Superlink,
    experiment: Experiment,
    listener: socket.socket,
    tls: ssl.SSLContext | None = None,
    lifespan: Literal["auto", "off"] = "auto",
) -> AsyncIterator[None]:
    """Serve the SuperLink on one socket; a second one leaves its start and end (`lifespan`) to the first."""
    config = uvicorn.Config(
        superlink.app,
        # The round's deadline closes an upload first, and knows why it did not come.
        http=protocol(experiment.congestion_control, experiment.server.round_deadline_s + HEAD_S),
        ws="none",
        log_level="error",  # a request that is none is nobody's to mend here
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=2,
        lifespan=lifespan,
        ssl_context_factory=(lambda _config, _default: tls) if tls is not None else None,
    )
    server = _Server(config)
    with spared() if lifespan == "auto" else contextlib.nullcontext():
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
