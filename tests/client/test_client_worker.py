"""The app's side of a trainer, in this process: what its stamps are around."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.client.worker import Worker
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.flower.compression import Compression
from fltestbed.shared_buffer import SharedBuffer
from tests.flower.flower_messages import answer, instruction, raw

SLOW_S = 0.05


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower wants to know whose messages this process makes."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def test_compression_counts_before_the_call_of_the_app_and_after_it() -> None:
    """50 ms to restore the message, in `deserialize`, which ends with the call; 50 ms to compress the reply, in `serialize`,
    which begins with the return; none of them in the call.
    """
    stamps: dict[str, tuple[int, int]] = {}

    @contextmanager
    def stamped(name: str) -> Iterator[None]:
        start_ns = SYSTEM_CLOCK.raw_ns()
        time.sleep(SLOW_S)
        yield
        stamps[name] = start_ns, SYSTEM_CLOCK.raw_ns()

    class Slow(Compression):
        def restore(self, message: Message) -> None:
            with stamped("restore"):
                super().restore(message)

        def compress(self, messages: Sequence[Message]) -> list[Message]:
            with stamped("compress"):
                return super().compress(messages)

    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        with stamped("call"):
            return answer(message)

    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    worker = Worker(app, context, Slow())
    message = SharedBuffer()
    length = message.write([raw(instruction(1))])
    whole_ns = SYSTEM_CLOCK.raw_ns()
    facts, _ = worker.answer(message, length, 0.0)
    sent_ns = SYSTEM_CLOCK.raw_ns()
    called_ns, returned_ns = facts["called_raw_ns"], facts["returned_raw_ns"]
    happened = [
        whole_ns, *stamps["restore"], called_ns, *stamps["call"], returned_ns, *stamps["compress"], sent_ns,
    ]  # fmt: skip
    assert happened == sorted(happened)
    assert min(called_ns - whole_ns, returned_ns - called_ns, sent_ns - returned_ns) >= SLOW_S * 1e9
    (span,) = facts["spans"]
    assert (span["start_raw_ns"], span["end_raw_ns"]) == (called_ns, returned_ns)
