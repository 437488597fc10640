"""The transport `bundle` where bytes are damaged on the way: the same message moves again, and not for ever."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fltestbed.client.carriers import BundleCarrier, PatientConnection
from fltestbed.client.stamps import LateStamps
from fltestbed.client.trainer import Result
from fltestbed.errors import ServerRefused
from fltestbed.flower.bundle import decode
from fltestbed.flower.node import MOST_TRIES
from tests.server.lab import Lab, Running, prepare
from tests.server.pi import TIMEOUT_S, Pi, collect, instruct

REASON = "object 0123456789ab... does not have the hash that it is named by"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A server, a client that has joined it, and the client's carrier."""
    prepare(monkeypatch)
    lab = Lab(tmp_path, largest_message_mb=1.0)
    with Running(lab) as running:
        pi = Pi(running, tmp_path, 0)
        pi.join()
        patient = PatientConnection(running.address, pi.connection, TIMEOUT_S)
        carrier = BundleCarrier(patient, LateStamps(), 0.2, TIMEOUT_S)
        (message_id,) = instruct(running, lab, pi.node_id)
        yield SimpleNamespace(lab=lab, running=running, pi=pi, carrier=carrier, message_id=message_id)
        pi.leave()
    lab.desk.close()


def rows(world: SimpleNamespace, direction: str) -> list[tuple[Any, ...]]:
    """Attempt, status and detail of each transfer that way, when all has been told."""
    world.pi.pull(**world.carrier._late.take())
    world.running.call(world.lab.transfers.close)
    found = [row for row in world.lab.rows["transfers.csv"] if row["direction"] == direction]
    return [(row["attempt"], row["status"], row.get("detail")) for row in found]


def reply_to(world: SimpleNamespace, parcel: Any) -> Result:
    """What a trainer would have made of a message."""
    bundle = world.pi.answer(decode(parcel.data).inflate()[0])
    return Result(world.message_id, world.pi.facts(parcel.pulled), b"".join(bundle.encode()[1:]))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "fltestbed"]


def test_a_message_that_cannot_be_read_comes_again(world: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    """Each attempt is a row, in both tables; client and server say in a line what was wrong."""
    for _ in range(MOST_TRIES - 1):
        world.carrier.receive()
        world.carrier.reject(REASON)
    parcel = world.carrier.receive()
    assert parcel.pulled.body == b""  # else it would be held as long as its stamps are
    world.carrier.send(parcel, reply_to(world, parcel))
    assert collect(world.running, world.lab, world.message_id).has_content()
    assert rows(world, "downlink") == [(1, "failed", REASON), (2, "failed", REASON), (3, "ok", None)]
    phases = [row for row in world.lab.rows.phases("pi-0") if row["phase"] == "downlink"]
    assert [(row["attempt"], row["status"]) for row in phases] == [(1, "failed"), (2, "failed"), (3, "ok")]
    assert {row["detail"] for row in phases[:2]} == {REASON}
    assert said(caplog).count(f"a message came damaged: {REASON}; asking the server for it again") == 2
    assert said(caplog).count(f"pi-0: the message that it was sent cannot be read there: {REASON}") == 2


def test_a_message_that_never_comes_whole_ends_the_client(world: SimpleNamespace) -> None:
    """At the third time, and its row says failed when the client has told why; a message in between counts anew."""
    for _ in range(MOST_TRIES - 1):
        world.carrier.receive()
        world.carrier.reject(REASON)
    parcel = world.carrier.receive()
    world.carrier.send(parcel, reply_to(world, parcel))
    instruct(world.running, world.lab, world.pi.node_id)
    for _ in range(MOST_TRIES - 1):
        world.carrier.receive()
        world.carrier.reject(REASON)
    world.carrier.receive()
    with pytest.raises(ServerRefused, match="the server sent a message that cannot be read: object 0123"):
        world.carrier.reject(REASON)
    world.pi.connection.post_json("leave", world.carrier._late.take())
    world.running.call(world.lab.transfers.close)
    downlinks = [row["status"] for row in world.lab.rows["transfers.csv"] if row["direction"] == "downlink"]
    assert sorted(downlinks) == ["failed"] * 5 + ["ok"]


@pytest.mark.parametrize("at", [0, 6, 12], ids=["magic", "length", "name"])
def test_what_comes_before_a_message_may_be_damaged_too(
    world: SimpleNamespace, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle's first bytes, which the client reads itself."""
    post = world.pi.connection.post
    bodies: list[bytearray] = []

    def damaged_once(path: str, *arguments: Any, **named: Any) -> Any:
        reply = post(path, *arguments, **named)
        if path == "pull" and not bodies:
            bodies.append(reply.body)
            reply.body[at] ^= 1
        return reply

    monkeypatch.setattr(world.pi.connection, "post", damaged_once)
    (message,) = decode(world.carrier.receive().data).inflate()
    assert message.metadata.message_id == world.message_id
    assert len(bodies) == 1


def damage_uploads(world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, times: int) -> list[dict[str, str]]:
    """Flip a bit in the first uploads; returns the headers of all."""
    post = world.pi.connection.post
    headers: list[dict[str, str]] = []

    def damaged(path: str, body: Any, timeout_s: float, fields: dict[str, str] | None = None, **named: Any) -> Any:
        if path == "push" and fields is not None:
            headers.append(fields)
            if len(headers) <= times:
                last = bytearray(body[-1])
                last[-1] ^= 1
                body = [*body[:-1], bytes(last)]
        return post(path, body, timeout_s, fields, **named)

    monkeypatch.setattr(world.pi.connection, "post", damaged)
    return headers


def test_a_reply_that_arrives_damaged_is_sent_again(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt is a row with both ends' stamps, over the connection that stands; the server says who and why."""
    parcel = world.carrier.receive()
    damage_uploads(world, monkeypatch, MOST_TRIES - 1)
    world.carrier.send(parcel, reply_to(world, parcel))
    assert collect(world.running, world.lab, world.message_id).has_content()
    first, second, third = rows(world, "uplink")
    assert [row[:2] for row in (first, second, third)] == [(1, "failed"), (2, "failed"), (3, "ok")]
    assert "does not have the hash" in first[2]
    uplinks = [row for row in world.lab.rows["transfers.csv"] if row["direction"] == "uplink"]
    assert all(row["client_start_raw_ns"] and row["server_start_raw_ns"] for row in uplinks)
    assert {row["new_connection"] for row in uplinks} == {False}
    assert sum(line.startswith("pi-0: its reply cannot be read: object ") for line in said(caplog)) == 2


def test_a_reply_that_never_arrives_whole_ends_the_client(world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three attempts, with the server's reason; each is a row, and nothing of it is kept."""
    parcel = world.carrier.receive()
    result = reply_to(world, parcel)
    headers = damage_uploads(world, monkeypatch, 100)
    with pytest.raises(ServerRefused, match=r"the server refused: object .* does not have the hash"):
        world.carrier.send(parcel, result)
    assert [fields.get("x-fltestbed-attempt", "1") for fields in headers] == ["1", "2", "3"]
    task = world.lab.log.task_of(world.message_id)
    world.running.call(world.lab.transfers.lost, task, world.lab.presence.observe(task))
    uplinks = [row for row in world.lab.rows["transfers.csv"] if row["direction"] == "uplink"]
    assert [(row["attempt"], row["status"]) for row in uplinks] == [(1, "failed"), (2, "failed"), (3, "failed")]
    assert len(world.lab.state.message_res_store) == 0


@pytest.mark.parametrize("size", [1_000_000, 30_000_000])
def test_a_reply_that_is_too_large_is_sent_once(world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """To send it again is of no use: the client ends with the server's reason, whether or not the server reads all of it."""
    parcel = world.carrier.receive()
    result = replace(reply_to(world, parcel), reply=bytes(size))
    sent = damage_uploads(world, monkeypatch, 0)
    with pytest.raises(ServerRefused, match="bytes are announced; at most 1000000 are allowed"):
        world.carrier.send(parcel, result)
    assert len(sent) == 1
