"""The transport `objects` where the server has given a message up, or bytes are damaged: it costs that message at most."""

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
from fltestbed.flower.node import MOST_TRIES
from tests.server.lab import Lab, Running, prepare, stored
from tests.server.pi import Pi, collect, instruct


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


def spoil(world: SimpleNamespace, call: str, times: int, change: Any) -> list[str]:
    """Change the first answers or requests of one of Flower's calls; returns which objects were moved, as they are."""
    node: Any = world.pi.node
    moved: list[str] = []
    real = getattr(node._client, call)

    def spoilt(request: Any) -> Any:
        moved.append(request.object_id)
        return change(real, request) if moved.count(request.object_id) <= times else real(request)

    setattr(node._client, call, spoilt)
    return moved


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def pulled_damaged(pull: Any, request: Any) -> Any:
    answer = pull(request)
    answer.object_content = flipped(answer.object_content)
    return answer


def pulled_as_none(pull: Any, request: Any) -> Any:
    answer = pull(request)
    answer.object_found = False
    return answer


def pulled_unreadable(_: Any, __: Any) -> Any:
    raise ValueError("Invalid protobuf response payload")


@pytest.mark.parametrize("change", [pulled_damaged, pulled_as_none, pulled_unreadable])
def test_an_object_that_comes_damaged_is_pulled_again(
    world: SimpleNamespace, change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them twice, and the message is whole; a line for each says what was wrong."""
    (sent,) = instruct(world.running, world.lab, world.pi.node_id)
    moved = spoil(world, "PullObject", MOST_TRIES - 1, change)
    parcel = world.carrier.receive()
    (message,) = decode(parcel.data).inflate()
    assert message.metadata.message_id == sent
    assert {moved.count(name) for name in moved} == {MOST_TRIES}
    said = [record.getMessage() for record in caplog.records if record.name == "fltestbed"]
    assert len(said) == len(set(moved))
    assert all(line.endswith("it went through when it was tried again") for line in said)


def test_an_object_that_never_comes_whole_costs_its_message(
    world: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """After three times, in a line that says why; the client takes the next message, and this one was never confirmed."""
    sent, following = instruct(world.running, world.lab, world.pi.node_id, world.pi.node_id)
    node: Any = world.pi.node
    pull_whole, pull = node._client.PullObject, node.pull_objects
    moved = spoil(world, "PullObject", MOST_TRIES, pulled_damaged)

    def damaged_once(*arguments: Any) -> Any:
        try:
            return pull(*arguments)
        finally:
            node._client.PullObject = pull_whole

    node.pull_objects = damaged_once
    (message,) = decode(world.carrier.receive().data).inflate()
    assert message.metadata.message_id == following
    assert max(moved.count(name) for name in moved) == MOST_TRIES
    (said,) = [record.getMessage() for record in caplog.records if record.name == "fltestbed"]
    assert "it does not have the hash that it is named by" in said
    assert sent in world.lab.state.object_store


def answered(world: SimpleNamespace, times: int) -> tuple[list[str], str]:
    """Receive a message and reply to it, each object of the reply damaged so often; what was pushed, and to what."""
    (sent,) = instruct(world.running, world.lab, world.pi.node_id)
    parcel = world.carrier.receive()
    bundle = world.pi.answer(decode(parcel.data).inflate()[0])

    def pushed_damaged(push: Any, request: Any) -> Any:
        spoilt = type(request).FromString(request.SerializeToString())
        spoilt.object_content = flipped(request.object_content)
        return push(spoilt)

    moved = spoil(world, "PushObject", times, pushed_damaged)
    facts = {"called_raw_ns": parcel.end_ns, "returned_raw_ns": parcel.end_ns}
    world.carrier.send(parcel, Result(sent, facts, b"".join(bundle.encode()[1:])))
    return moved, sent


def test_an_object_that_arrives_damaged_is_pushed_again(world: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    """It is no part of the reply before it is whole: the reply is held back as long, and then it is handed on."""
    moved, sent = answered(world, MOST_TRIES - 1)
    assert {moved.count(name) for name in moved} == {MOST_TRIES}
    assert collect(world.running, world.lab, sent).has_content()
    said = [record.getMessage() for record in caplog.records if record.name == "fltestbed"]
    assert sum("it went through when it was tried again" in line for line in said) == len(set(moved))
    assert sum(line.startswith("pi-0: Flower refused an object of its reply") for line in said) == 2 * len(set(moved))


def test_an_object_that_never_arrives_whole_costs_its_reply(
    world: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """After three times; nothing half is handed on."""
    moved, sent = answered(world, MOST_TRIES)
    assert max(moved.count(name) for name in moved) == MOST_TRIES
    assert sent not in world.lab.exchange._complete
    said = [record.getMessage() for record in caplog.records if record.name == "fltestbed"]
    assert sum("the server did not let this client push a reply: Failed to push object" in line for line in said) == 1
