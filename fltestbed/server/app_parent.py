"""The ServerApp's process (`fltestbed.server.app_process`) as the server sees it: started early, given its token, ended."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fltestbed.collector import keep_what_is_there
from fltestbed.errors import TestbedError
from fltestbed.flower.apps import INSTALLED_SERVER_APP
from fltestbed.scratch import scratch_folder
from fltestbed.server.app_log import app_log
from fltestbed.server.desk import Desk
from fltestbed.server.roster import Roster
from fltestbed.text import printable

END_S = 1.0
"""For an app that is told to end; one that computes without a look at its signals is made to."""

MOST_REASON = 1000
"""Characters of what an app says of its failure."""

AppProcess = asyncio.subprocess.Process


@contextlib.asynccontextmanager
async def app_process(is_installed_app: bool, logs: Path, inherited: Sequence[int]) -> AsyncIterator[AppProcess]:
    """The ServerApp's process, its imports under way; gone at the end of the block."""
    preload = [INSTALLED_SERVER_APP.partition(":")[0]] if is_installed_app else []
    logs.mkdir(exist_ok=True)
    with scratch_folder("server") as home, app_log(logs / "serverapp.log") as log:
        try:
            process = await asyncio.create_subprocess_exec(
                "setpriv", "--pdeathsig", "KILL", "--",  # an app that never asks its Grid would outlive a killed server
                sys.executable, "-m", "fltestbed.server.app_process", *preload,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env={**os.environ, "FLWR_HOME": str(home)}, start_new_session=True, pass_fds=inherited,
            )  # fmt: skip
        finally:
            os.close(log)
        try:
            yield process
        finally:
            await _end(process)


async def _end(process: AppProcess) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), END_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def run_app(process: AppProcess, roster: Roster, desk: Desk, go: dict[str, Any]) -> str | None:
    """Hand the token over, answer what the app asks, and wait for the app's end, or for something else that ends the run.

    Returns
    -------
    str or None
        What went wrong.
    """
    if process.stdin is None or process.stdout is None:
        raise TestbedError("the ServerApp's process has no pipes")
    with contextlib.suppress(ConnectionError):  # it is dead already, which its status says
        process.stdin.write(json.dumps(go).encode() + b"\n")
        await process.stdin.drain()
    process.stdin.close()
    keep_what_is_there()
    async with desk.answering(go["token"]):
        ending = asyncio.create_task(_outcome(process))
        failing = asyncio.create_task(roster.has_failed.wait())
        try:
            await asyncio.wait({ending, failing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            failing.cancel()
            if not ending.done():
                ending.cancel()
    return str(roster.failure) if roster.failure is not None else ending.result()


async def _outcome(process: AppProcess) -> str | None:
    said = await process.stdout.read() if process.stdout is not None else b""
    last = said.strip().rpartition(b"\n")[2]
    status = await process.wait()
    try:
        error: str | None = json.loads(last)["error"]
    except (ValueError, KeyError, TypeError):
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"the ServerApp's process {how} and said nothing; what it logged is in logs/serverapp.log"
    return None if error is None else f"the ServerApp failed: {printable(error, MOST_REASON)}"
