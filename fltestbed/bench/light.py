"""Light clients: several real clients in one process, whose trainers are calls and not processes.

Each has a node, a key, a connection and a loop of its own, those of `fltestbed client`, in a thread. The update is the model
plus noise. What they share is one interpreter and its imports, and so its lock: their own stamps are not worth much.

As a program it reads its order from the only argument, JSON: the fields of `Order`.
"""

import json
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fltestbed.client import trainer
from fltestbed.client.session import Session
from fltestbed.client.worker import Worker
from fltestbed.flower.apps import client_context
from fltestbed.shared_buffer import BufferPair

CLIENT_APP = "fltestbed.bench.light:client_app"
REACH_TIMEOUT_S = 60.0
NOISE = np.float32(1e-3)

client_app = ClientApp()
_turn = Lock()
"""They share the interpreter's lock anyway: to change over in the middle of a model costs both their caches."""
_random = np.random.default_rng()


@client_app.train()
def train(msg: Message, context: Context) -> Message:  # noqa: ARG001  # Flower's signature
    """Answer with the model plus noise, even in [0, 0.001): for each tensor a piece of one supply, from anywhere in it."""
    model = msg.content.array_records["arrays"].to_numpy_ndarrays()
    arrays = ArrayRecord([array + _noise(array.size).reshape(array.shape) for array in model])
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=msg)


def _noise(size: int) -> NDArray[np.float32]:
    supply = _supply(2 * size)
    start = _random.integers(len(supply) - size)
    return supply[start : start + size]


@lru_cache
def _supply(size: int) -> NDArray[np.float32]:
    """Noise made once: to make it anew for each client and round would cost as much as what is measured."""
    return NOISE * np.random.default_rng().random(size, dtype=np.float32)


class LightTrainer(trainer.Trainer):
    """Answers in the client's own process."""

    def __init__(self, order: trainer.Order) -> None:
        self._worker = Worker(client_app, client_context(order.app, order.node_id, order.node_config), order.compression)
        self._buffers = BufferPair.make()

    def wait_ready(self, timeout_s: float = trainer.START_TIMEOUT_S) -> None:
        """It is ready."""

    def take(self, bundle: bytes | bytearray) -> None:
        """Take the message that is to be answered next."""
        self._length = self._buffers.to_child.write([bundle])

    def work(
        self,
        wall_offset_s: float,
        timeout_s: float,  # noqa: ARG002  # Trainer's signature
        meanwhile: Callable[[], None] | None = None,  # noqa: ARG002  # Trainer's signature
        every_s: float = math.inf,  # noqa: ARG002  # Trainer's signature
        is_measured: bool = True,
        is_checked: bool = False,
    ) -> trainer.Result:
        """Let the app answer the message that was taken, when no other client of the process is at one."""
        with _turn:
            facts, chunks = self._worker.answer(self._buffers.to_child, self._length, wall_offset_s, is_measured, is_checked)
            reply = self._buffers.to_parent
            return trainer.Result(facts.pop("message_id"), facts, reply.read(reply.write(chunks)))

    def become(self, run_id: int, node_id: int) -> None:
        """Be another node of another run."""
        self._worker.become(run_id, node_id)

    @property
    def pid(self) -> int:
        """Process identifier of the client."""
        return os.getpid()

    def stop(self) -> None:
        """There is no process to stop."""
        self._buffers.close()

    kill = stop


@dataclass(frozen=True)
class Order:
    """What one process of light clients is started for.

    Attributes
    ----------
    server : str
        host:port.
    interface, link : str
        As `fltestbed client` takes them.
    first, count : int
        Number of the first client, and how many there are; a client's number is its partition.
    state : str
        Folder for the clients' keys.
    """

    server: str
    interface: str
    link: str
    first: int
    count: int
    state: str

    def to_json(self) -> str:
        """As the program takes it."""
        return json.dumps(asdict(self))


def main(order: Order) -> None:
    """Take part in one run as `order.count` clients."""
    sessions = [
        Session(
            order.server, order.interface, order.link, number, f"client-{number}", Path(order.state) / str(number),
            trust_apps=True, timeout_s=REACH_TIMEOUT_S, trainer=LightTrainer,
        )
        for number in range(order.first, order.first + order.count)
    ]  # fmt: skip
    with ThreadPoolExecutor(order.count) as pool:
        for done in [pool.submit(session.run) for session in sessions]:
            done.result()


if __name__ == "__main__":
    main(Order(**json.loads(sys.argv[1])))
