"""The transport `objects` where the server has given a message up: it costs that message, and not the client."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fltestbed.client.carriers import ObjectsCarrier, PatientConnection
from fltestbed.client.stamps import LateStamps
from fltestbed.client.trainer import Result
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.flower.bundle import decode
from tests.server.lab import Lab, Running, prepare, stored
from tests.server.pi import Pi, instruct


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A server, a client that has joined it, and the client's carrier."""
    prepare(monkeypatch)
    lab = Lab(tmp_path)
    run = lab.state.get_run_info(run_ids=[lab.app.run_id])[0]
    assert lab.state.activate_task(run.primary_task_id)  # as the ServerApp's process does when it takes up its work
    with Running(lab) as running:
        pi = Pi(running, tmp_path, 0)
        pi.join()
        patient = PatientConnection(running.address, pi.connection, 5.0)
        carrier = ObjectsCarrier(patient, LateStamps(), 0.2, pi.node, lab.app.run_id, SYSTEM_CLOCK)
        yield SimpleNamespace(lab=lab, running=running, pi=pi, carrier=carrier)
        pi.leave()
    lab.desk.close()


def give_up(world: SimpleNamespace, message_id: str) -> None:
    world.running.call(world.lab.exchange.expire, message_id, world.lab.app.run_id)


def test_a_message_that_is_gone_before_its_objects_were_pulled_is_left(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that was stopped meanwhile says so in a line, and takes the next message."""
    (gone,) = instruct(world.running, world.lab, world.pi.node_id)
    pull = world.pi.node.pull_objects
    sent: list[str] = []

    def late(*arguments: Any) -> Any:
        if not sent:
            give_up(world, gone)
            sent.extend(instruct(world.running, world.lab, world.pi.node_id))
        return pull(*arguments)

    monkeypatch.setattr(world.pi.node, "pull_objects", late)
    parcel = world.carrier.receive()
    (message,) = decode(parcel.data).inflate()
    assert message.metadata.message_id == sent[0] != gone
    (said,) = [record.getMessage() for record in caplog.records if record.name == "fltestbed"]
    assert "the server did not let this client pull an object" in said
    assert "could not be found" in said


def test_a_reply_that_nobody_waits_for_is_left(world: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    """The round went on: the client asks for work again, and what it had is not in the server's stores."""
    before = stored(world.lab)
    (gone,) = instruct(world.running, world.lab, world.pi.node_id)
    parcel = world.carrier.receive()
    bundle = world.pi.answer(decode(parcel.data).inflate()[0])
    announce = world.pi.node._client.PushMessages

    def late(request: Any) -> Any:
        answer = announce(request)
        give_up(world, gone)
        return answer

    world.pi.node._client.PushMessages = late
    facts = {"called_raw_ns": parcel.end_ns, "returned_raw_ns": parcel.end_ns}
    world.carrier.send(parcel, Result(gone, facts, b"".join(bundle.encode()[1:])))
    (said,) = [record.getMessage() for record in caplog.records if record.name == "fltestbed"]
    assert "the server did not let this client push a reply" in said
    assert stored(world.lab) == before
    (again,) = instruct(world.running, world.lab, world.pi.node_id)
    (message,) = decode(world.carrier.receive().data).inflate()
    assert message.metadata.message_id == again
