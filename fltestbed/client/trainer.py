"""The trainer: one process for a run, warm from the start, that calls the ClientApp.

The network process keeps a `Trainer`; the process itself is this module run as a program. They talk over a socket pair in
frames of JSON (`multiprocessing.connection`, bytes alone, no pickle) that say how long the bundle is that lies in a shared
buffer, one for each direction.

A trainer that dies or hangs is replaced, and the message that it worked on is answered with an error. One that is given a
message that cannot be read says so, and is as good as before.
"""

import contextlib
import ctypes
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fltestbed.collector import importing, keep_what_is_there
from fltestbed.errors import TestbedError
from fltestbed.flower.apps import App
from fltestbed.flower.bundle import BundleError
from fltestbed.flower.compression import OFF, Compression
from fltestbed.shared_buffer import BufferPair

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 3.0
STOOD_STILL_S = 1.0
"""A wait that ends so much too late: this process stood still (it was stopped), and its trainer with it.
It has as long to answer then, and keeps what its app has in memory."""
_PR_SET_PDEATHSIG = 1


class TrainerFailed(Exception):
    """The trainer died, hung, or could not start; the text is the symptom."""


@dataclass(frozen=True)
class Result:
    """What a trainer made of one message; the reply is valid until the trainer is given another message."""

    message_id: str
    facts: dict[str, Any]
    reply: bytes | memoryview


@dataclass(frozen=True)
class Order:
    """What a trainer is started for."""

    app: App
    node_id: int
    node_config: dict[str, Any]
    home: Path
    compression: Compression = OFF


class Trainer:
    """The network process's end: starts a trainer, hands it messages, stops it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        ours, theirs = socket.socketpair()
        self._pipe = Connection(ours.detach())
        self._buffers = BufferPair.make()
        with theirs:
            descriptors = [theirs.fileno(), *self._buffers.descriptors]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fltestbed.client.trainer", *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "FLWR_HOME": str(order.home)},
            )
        app = order.app
        head = {
            "run_id": str(app.run_id), "fab_id": app.fab_id, "fab_version": app.fab_version, "fab_hash": app.fab_hash,
            "node_id": str(order.node_id), "node_config": order.node_config,
            "compression": asdict(order.compression),
        }  # fmt: skip
        with contextlib.suppress(TrainerFailed):  # `wait_ready` finds out why
            self._send(json.dumps(head).encode(), app.fab)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the app is loaded and its data are there.

        Raises
        ------
        TestbedError
            The app cannot be started here; the message says why.
        """
        try:
            answer = json.loads(self._receive(timeout_s))
        except TrainerFailed as failure:
            raise TestbedError(
                f"the app cannot be started on this client: {failure}; its own words stand above"
            ) from failure
        if answer.get("error"):
            raise TestbedError(f"the app cannot be started on this client: {answer['error']}")

    def take(self, bundle: bytes | bytearray) -> None:
        """Take the message that is to be answered next; the caller need not hold it any more."""
        self._length = self._buffers.to_child.write([bundle])

    def work(
        self,
        wall_offset_s: float,
        timeout_s: float,
        meanwhile: Callable[[], None] | None = None,
        every_s: float = math.inf,
        is_measured: bool = True,
        is_checked: bool = False,
    ) -> Result:
        """Let the app answer the message that was taken; `meanwhile` is called each `every_s` seconds until it has.

        Of a message that `is_checked` the objects have the hashes that they are named by, and nobody looks again.

        Raises
        ------
        TrainerFailed
            It died or took longer than `timeout_s`; call `stop` and make another one.
        BundleError
            The message cannot be read.
        """
        order = {"wall_offset_s": wall_offset_s, "measured": is_measured, "checked": is_checked}
        self._send(json.dumps({**order, "length": self._length}).encode())
        facts = json.loads(self._receive(timeout_s, meanwhile, every_s))
        if "unreadable" in facts:
            raise BundleError(facts["unreadable"])
        return Result(facts.pop("message_id"), facts, self._buffers.to_parent.read(facts.pop("length")))

    def become(self, run_id: int, node_id: int) -> None:
        """Be another node of another run from now on: the server has been started again, and the app's state stays.

        Raises
        ------
        TrainerFailed
        """
        self._send(json.dumps({"run_id": str(run_id), "node_id": str(node_id)}).encode())

    @property
    def pid(self) -> int:
        """Process identifier."""
        return self._process.pid

    def stop(self) -> None:
        """End the process: closing the pipe asks it to, then it is made to."""
        self._pipe.close()
        self._buffers.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self.stop()

    def _send(self, *frames: bytes) -> None:
        try:
            for frame in frames:
                self._pipe.send_bytes(frame)
        except OSError as error:
            raise TrainerFailed(self._symptom()) from error

    def _receive(self, timeout_s: float, meanwhile: Callable[[], None] | None = None, every_s: float = math.inf) -> bytes:
        deadline = time.monotonic() + timeout_s
        try:
            while not self._pipe.poll(max(0.0, min(every_s, deadline - time.monotonic()))):
                if meanwhile is not None and time.monotonic() < deadline:
                    meanwhile()
                    continue
                if time.monotonic() - deadline > STOOD_STILL_S and self._pipe.poll(STOOD_STILL_S):
                    break
                raise TrainerFailed(f"the trainer was silent for {timeout_s:g} s")
            return self._pipe.recv_bytes()
        except (OSError, EOFError) as error:
            raise TrainerFailed(self._symptom()) from error

    def _symptom(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        status = self._process.returncode
        if status is None:
            return "the trainer closed its pipe"
        if status == -signal.SIGKILL:
            return "the trainer was killed by SIGKILL, probably because the host ran out of memory (see dmesg)"
        if status < 0:
            return f"the trainer was killed by {signal.Signals(-status).name}"
        return f"the trainer ended with status {status}"


def main(pipe_descriptor: int, *buffer_descriptors: int) -> None:
    """The trainer process: serve messages until the pipe is closed."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the network process, which ends this one
    with importing():
        import fltestbed.flower  # noqa: F401, PLC0415  # first: it switches Flower's telemetry off
        from fltestbed.client.worker import Worker  # noqa: PLC0415  # heavy: after the parent's death is cared for

    pipe = Connection(pipe_descriptor)
    buffers = BufferPair.inherit(buffer_descriptors)
    with contextlib.suppress(EOFError, OSError):
        head = json.loads(pipe.recv_bytes())
        fab = pipe.recv_bytes()
        try:
            with importing():  # the app's own imports, PyTorch for the most part
                worker = Worker.load(head, fab)
        except Exception as error:
            logging.getLogger("fltestbed").exception("the app cannot be started")
            pipe.send_bytes(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
            return
        keep_what_is_there()
        pipe.send_bytes(b"{}")
        while True:
            order = json.loads(pipe.recv_bytes())
            if "node_id" in order:
                worker.become(int(order["run_id"]), int(order["node_id"]))
                continue
            try:
                facts, chunks = worker.answer(
                    buffers.to_child, order["length"], order["wall_offset_s"], order["measured"], order["checked"]
                )
            except BundleError as error:
                pipe.send_bytes(json.dumps({"unreadable": str(error)}).encode())
                continue
            pipe.send_bytes(json.dumps({**facts, "length": buffers.to_parent.write(chunks)}).encode())


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
