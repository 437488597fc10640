"""A real trainer with a tiny Flower app: it answers, and when it does not, that is said and nothing hangs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.cli.config_utils import get_fab_metadata
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.client.trainer import Order, Result, Trainer, TrainerFailed
from fltestbed.errors import TestbedError
from fltestbed.flower.apps import App, pack_app
from fltestbed.flower.bundle import BundleError, decode, encode_head
from tests.flower.flower_messages import instruction, raw, tensors
from tests.flower.tiny_app import write_app
from tests.waiting import wait_until

TIMEOUT_S = 20.0
BEHAVIOUR = """\
    order = message.content["config"]["server-round"]
    if order == 2: raise KeyError("no such layer")
    if order == 3: os.kill(os.getpid(), signal.SIGKILL)
    if order == 4: time.sleep(60)
    if order == 5: os._exit(7)
"""


def order_of(folder: Path, fab: bytes) -> Order:
    fab_id, version = get_fab_metadata(fab)
    import hashlib  # noqa: PLC0415

    (folder / "home").mkdir(exist_ok=True)
    app = App(5, fab_id, version, hashlib.sha256(fab).hexdigest(), fab)
    return Order(app, 7, {"partition-id": 1, "num-partitions": 2}, folder / "home")


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Order:
    folder = tmp_path_factory.mktemp("tiny")
    return order_of(folder, pack_app(write_app(folder / "app", BEHAVIOUR.strip())))


@pytest.fixture
def trainer(order: Order, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    for name, value in (("_task_id", 1), ("_run_id", 5), ("_node_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)
    trainer = Trainer(order)
    trainer.wait_ready(TIMEOUT_S)
    yield trainer
    trainer.kill()


def message(server_round: int = 1, kind: str = "train", size: int = 8) -> bytes:
    made = instruction(7, tensors(2, size), kind)
    made.content["config"] = ConfigRecord({"server-round": server_round})
    return raw(made)


def answered(trainer: Trainer, bundle: bytes, *how: Any, **more: Any) -> Result:
    trainer.take(bundle)
    return trainer.work(*how, **more)


def reply_in(result: Result) -> Message:
    (reply,) = decode(b"".join([encode_head({}, 1), result.reply])).inflate()
    return reply


def metrics_of(reply: Message) -> MetricRecord:
    record = reply.content["metrics"]
    assert isinstance(record, MetricRecord)
    return record


def test_a_trainer_answers_and_stays(trainer: Trainer) -> None:
    """Arrays times the run's factor of 3, the node's partition; the second call finds the state of the first."""
    replies = [reply_in(answered(trainer, message(), 0.0, TIMEOUT_S)) for _ in range(2)]
    first, second = map(metrics_of, replies)
    assert (first["calls"], second["calls"]) == (1, 2)
    assert first["pid"] == second["pid"] == trainer.pid != os.getpid()
    assert first["partition"] == 1
    arrays = replies[0].content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    sent = tensors(2)["layer0"]
    assert np.allclose(next(iter(arrays.values())).numpy(), sent * 3.0)


def test_a_trainer_stamps_the_call(trainer: Trainer) -> None:
    """An app that reports no span of its own gets one: the whole call, by the type of the message."""
    facts = answered(trainer, message(), 0.0, TIMEOUT_S).facts
    (span,) = facts["spans"]
    assert facts["called_raw_ns"] <= span["start_raw_ns"] <= span["end_raw_ns"] <= facts["returned_raw_ns"]
    assert (span["phase"], span["detail"]) == ("train", "the whole call of the ClientApp")


def test_a_trainers_reply_is_dated_on_the_servers_clock(trainer: Trainer) -> None:
    """The offset that the network process has learnt is added to the wall clock."""
    reply = reply_in(answered(trainer, message(), -1000.0, TIMEOUT_S))
    assert reply.metadata.created_at == pytest.approx(time.time() - 1000, abs=5)
    assert (reply.metadata.src_node_id, reply.metadata.run_id) == (7, 5)


def test_an_app_that_raises_is_an_error_reply(trainer: Trainer) -> None:
    """The reason goes to the server, and the trainer is as good as before."""
    failed = answered(trainer, message(2), 0.0, TIMEOUT_S)
    assert reply_in(failed).has_error()
    assert "no such layer" in str(reply_in(failed).error.reason)
    evaluated = answered(trainer, message(kind="evaluate"), 0.0, TIMEOUT_S)
    assert "cannot evaluate" in str(reply_in(evaluated).error.reason)
    assert evaluated.facts["spans"][0]["phase"] == "evaluate"
    assert not reply_in(answered(trainer, message(), 0.0, TIMEOUT_S)).has_error()


def test_a_message_that_cannot_be_read_costs_no_trainer(trainer: Trainer) -> None:
    """It says why, and answers the next one. Of one that is said to be checked no hash is looked at again."""
    damaged = bytearray(message())
    data = message_data(damaged)
    damaged[data] ^= 1
    with pytest.raises(BundleError, match=r"object .* does not have the hash that it is named by"):
        answered(trainer, bytes(damaged), 0.0, TIMEOUT_S)
    believed = reply_in(answered(trainer, bytes(damaged), 0.0, TIMEOUT_S, is_checked=True))
    assert metrics_of(believed)["calls"] == 1
    with pytest.raises(BundleError, match="not a bundle"):
        answered(trainer, b"FLB2" + bytes(damaged[4:]), 0.0, TIMEOUT_S, is_checked=True)
    after = metrics_of(reply_in(answered(trainer, message(), 0.0, TIMEOUT_S)))
    assert (after["calls"], after["pid"]) == (2, trainer.pid)


def message_data(bundle: bytearray) -> int:
    """Where the bytes of its first tensor stand in a bundle, past their head in numpy's format."""
    return bundle.index(tensors(2)["layer0"].tobytes())


def test_a_killed_trainer_is_a_symptom(trainer: Trainer) -> None:
    """The signal is named, at once, and again by whoever asks next."""
    for _ in range(2):
        with pytest.raises(TrainerFailed, match="the trainer was killed by SIGKILL"):
            answered(trainer, message(3), 0.0, TIMEOUT_S)


def test_a_trainer_that_ends_is_a_symptom(trainer: Trainer) -> None:
    """The exit status is named."""
    with pytest.raises(TrainerFailed, match="the trainer ended with status 7"):
        answered(trainer, message(5), 0.0, TIMEOUT_S)


def test_a_silent_trainer_is_a_symptom(trainer: Trainer) -> None:
    """The seconds that it was given are named; it can be ended all the same."""
    with pytest.raises(TrainerFailed, match=r"the trainer was silent for 0.3 s"):
        answered(trainer, message(4), 0.0, 0.3)
    trainer.kill()
    assert not psutil.pid_exists(trainer.pid)


def test_something_else_is_done_while_the_app_works(trainer: Trainer) -> None:
    """Each tenth of a second, as long as there is no answer; the time limit is the same."""
    calls: list[float] = []
    with pytest.raises(TrainerFailed, match=r"silent for 0.7 s"):
        answered(trainer, message(4), 0.0, 0.7, lambda: calls.append(time.monotonic()), 0.1)
    assert 1 <= len(calls) <= 7
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(calls))


def test_an_order_that_is_not_measured_is_answered_without_stamps(trainer: Trainer) -> None:
    """The same reply, and of the facts the message's name alone."""
    result = answered(trainer, message(1), 0.0, TIMEOUT_S, is_measured=False)
    assert result.message_id
    assert result.facts == {}
    assert not decode(encode_head({}, 1) + bytes(result.reply)).inflate()[0].has_error()


def test_a_stopped_trainer_does_not_hold_up_the_client(trainer: Trainer) -> None:
    """It does not even read, and a large message is given up like a reply that does not come."""
    os.kill(trainer.pid, signal.SIGSTOP)
    symptoms: list[Exception] = []

    def work() -> None:
        try:
            answered(trainer, message(size=1_000_000), 0.0, 0.5)
        except TrainerFailed as symptom:
            symptoms.append(symptom)

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(2.0)
    in_time = not worker.is_alive()
    os.kill(trainer.pid, signal.SIGKILL)
    worker.join()
    assert in_time
    assert "silent" in str(symptoms[0])


def test_an_app_that_cannot_start_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An import that fails is the app's fault, and its reason is in the message."""
    folder = write_app(tmp_path / "app")
    client = folder / "tiny" / "client.py"
    client.write_text("import no_such_library\n" + client.read_text())
    trainer = Trainer(order_of(tmp_path, pack_app(folder)))
    try:
        with pytest.raises(TestbedError, match=r"the app cannot be started on this client: .*no_such_library"):
            trainer.wait_ready(TIMEOUT_S)
    finally:
        trainer.kill()


def test_a_trainer_that_dies_at_its_start_is_an_error_for_the_user(order: Order) -> None:
    """A library with instructions that this processor lacks ends the process: one line, no traceback."""
    trainer = Trainer(order)
    trainer._process.send_signal(signal.SIGILL)
    try:
        with pytest.raises(TestbedError, match="SIGILL"):
            trainer.wait_ready(TIMEOUT_S)
    finally:
        trainer.kill()


CLIENT = """\
import pickle, sys
from fltestbed.client.trainer import Trainer
trainer = Trainer(pickle.load(sys.stdin.buffer))
trainer.wait_ready()
print(trainer.pid, flush=True)
trainer.take(sys.stdin.buffer.read())
trainer.work(0.0, 60)
"""


def test_a_trainer_dies_with_its_client(order: Order, trainer: Trainer) -> None:
    """The client is killed without a chance to clean up, in the middle of training: the trainer is gone as well."""
    import pickle  # noqa: PLC0415

    client: Any
    with subprocess.Popen([sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        try:
            client.stdin.write(pickle.dumps(order))
            client.stdin.flush()
            pid = int(client.stdout.readline())
            client.stdin.write(message(4))
            client.stdin.close()
            child = psutil.Process(pid)
        finally:
            client.kill()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


class LatePipe:
    """A pipe of a process that is stopped while it waits, and goes on so long after the limit."""

    def __init__(self, late_s: float, answers: bool) -> None:
        self.late_s, self.now_s, self.answers, self.waited_s = late_s, 100.0, answers, list[float]()

    def poll(self, timeout_s: float) -> bool:
        """Wait."""
        self.waited_s.append(timeout_s)
        self.now_s += timeout_s + (self.late_s if len(self.waited_s) == 1 else 0.0)
        return self.answers and len(self.waited_s) > 1

    def recv_bytes(self) -> bytes:
        """Read."""
        return b"answer"


@pytest.mark.parametrize(
    ("late_s", "answers", "waited_s"), [(5.0, True, [3.6, 1.0]), (5.0, False, [3.6, 1.0]), (0.0, False, [3.6])]
)
def test_a_trainer_that_stood_still_with_its_client_may_answer(
    late_s: float, answers: bool, waited_s: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped and continued together, past the limit: it has a second, after which it counts as hung; others have none."""
    pipe = LatePipe(late_s, answers)
    monkeypatch.setattr("fltestbed.client.trainer.time", SimpleNamespace(monotonic=lambda: pipe.now_s))
    trainer: Any = Trainer.__new__(Trainer)
    trainer._pipe = pipe
    if answers:
        assert trainer._receive(3.6) == b"answer"
    else:
        with pytest.raises(TrainerFailed, match=r"the trainer was silent for 3.6 s"):
            trainer._receive(3.6)
    assert pipe.waited_s == [pytest.approx(seconds) for seconds in waited_s]
