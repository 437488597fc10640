"""What a client decides by itself: how long it tries, whom it trusts, what it says for a trainer that died."""

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.client.carriers import Parcel
from fltestbed.client.interface import check_interface
from fltestbed.client.introduction import Introduction
from fltestbed.client.path import ServerPath
from fltestbed.client.session import Session, _Work
from fltestbed.client.told import MessageFacts
from fltestbed.client.trainer import Order, Result, Trainer
from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.errors import HostError, ServerRefused
from fltestbed.flower.apps import App, pack_app, pack_installed_app
from fltestbed.flower.bundle import BundleError, decode, encode_head, read_head
from tests.flower.flower_messages import instruction, raw
from tests.flower.tiny_app import write_app

HELLO = {
    "run": "lab", "first_run_id": "5", "hold_s": 1.0, "clock_interval_s": 1.0, "deadline_s": 60.0, "trainer_limit_s": 54.0,
    "patience_s": 60.0, "keep_warm_s": 0.0, "measured": True, "probes": {}, "transport": "bundle",
}  # fmt: skip
YEAR_NS = 365 * 86400 * 10**9


def session(tmp_path: Path, **change: Any) -> Session:
    return Session("127.0.0.1:1", "lo", "5g", 0, "pi-1", tmp_path / "state", **change)


def app_of(fab: bytes) -> App:
    return App(5, "publisher/name", "1.0.0", "hash", fab)


def test_code_of_the_server_runs_with_consent_alone(tmp_path: Path) -> None:
    """A foreign app is refused without --trust-apps, and the message says so; the installed one needs no trust."""
    foreign = app_of(pack_app(write_app(tmp_path / "app")))
    with pytest.raises(ServerRefused, match=r"code of its own \(tiny.client:app\); start the client with --trust-apps"):
        session(tmp_path).check_trust(foreign)
    session(tmp_path, trust_apps=True).check_trust(foreign)
    session(tmp_path).check_trust(app_of(pack_installed_app("{}")))


def test_loopback_is_an_interface_that_is_up() -> None:
    """One that does not exist is an error that names those that do."""
    check_interface("lo")
    with pytest.raises(HostError, match=r"--interface wwan9: this host has no such interface; it has .*lo"):
        check_interface("wwan9")


def make_work(tmp_path: Path, clock: Clock = SYSTEM_CLOCK, wall_offset_s: float = 0.0) -> _Work:
    return _Work(
        session(tmp_path, clock=clock),
        cast(Introduction, SimpleNamespace(
            connection=None, node=None, trust=None, key=SimpleNamespace(wall_offset_s=wall_offset_s)
        )),
        Order(app_of(b""), 7, {}, tmp_path), HELLO, cast(ServerPath, None),
    )  # fmt: skip


def parcel_of(data: bytes | bytearray) -> Parcel:
    _, head = read_head(data)
    return Parcel(data, head, MessageFacts(server_receive_raw_ns=1, server_send_raw_ns=2), 3, 4000)


def error_reply(work: _Work) -> tuple[Any, Any]:
    result = work._error_reply(parcel_of(raw(instruction(7))), "the trainer was killed by SIGKILL")
    (reply,) = decode(encode_head({}, 1) + result.reply).inflate()
    return result.facts, reply


@pytest.fixture
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_task_id", 1), ("_run_id", 5), ("_node_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)


class Data(bytearray):
    """One that can be looked for."""


@pytest.mark.usefixtures("_identity")
def test_a_message_is_let_go_as_soon_as_the_trainer_has_it(tmp_path: Path) -> None:
    """Neither while the trainer works nor while the reply leaves has the client a second copy of the model."""

    class Carrier:
        messages: ClassVar[list[weakref.ref[Data]]] = []

        def receive(self) -> Parcel | None:
            """A message, and then another."""
            data = Data(raw(instruction(7)))
            self.messages.append(weakref.ref(data))
            return parcel_of(data) if len(self.messages) <= 2 else None

        def send(self, parcel: Parcel, result: Result) -> None:
            """Nobody is there."""

        def reject(self, reason: str) -> None:
            """Nothing is wrong."""

    def answer(*_: object) -> Result:
        assert all(message() is None for message in Carrier.messages)
        return Result("", {}, b"")

    work = make_work(tmp_path)
    work._trainer = cast(Trainer, SimpleNamespace(take=len, work=answer))
    work._serve(Carrier())
    assert len(Carrier.messages) == 3


@pytest.mark.usefixtures("_identity")
def test_a_dead_trainers_message_is_answered_with_the_symptom(tmp_path: Path) -> None:
    """As an error from this node, and the time that was lost counts as training."""
    facts, reply = error_reply(make_work(tmp_path, Clock(raw_ns=lambda: 9000)))
    assert reply.error.reason == "the trainer was killed by SIGKILL"
    assert (reply.metadata.src_node_id, reply.metadata.run_id) == (7, 5)
    (span,) = facts["spans"]
    assert (span["phase"], span["start_raw_ns"], span["end_raw_ns"]) == ("train", 4000, 9000)


@pytest.mark.usefixtures("_identity")
def test_an_error_reply_is_dated_on_the_servers_clock(tmp_path: Path) -> None:
    """A Pi that booted a year in the past: Flower would refuse what is dated by its own clock."""
    past = Clock(wall_ns=lambda: SYSTEM_CLOCK.wall_ns() - YEAR_NS)
    _, reply = error_reply(make_work(tmp_path, past, YEAR_NS / 1e9 + 3600))
    assert reply.metadata.created_at == pytest.approx(SYSTEM_CLOCK.wall_ns() / 1e9 + 3600, abs=5)


class Rejecting:
    """A carrier that notes what is rejected, and why."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def receive(self) -> Parcel | None:
        """Nothing comes."""

    def send(self, parcel: Parcel, result: Result) -> None:
        """Nothing is to be sent."""
        raise AssertionError(result.facts)

    def reject(self, reason: str) -> None:
        """Keep the reason."""
        self.reasons.append(reason)


class Unwilling:
    """A trainer that cannot read what it has taken."""

    def take(self, bundle: bytes) -> None:
        """Nothing of it is of use."""

    def work(self, *_: Any) -> Result:
        """Fail."""
        raise BundleError("object 01... does not have the hash that it is named by")


@pytest.mark.usefixtures("_identity")
def test_a_message_that_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    """The trainer says so, and nothing is sent in the message's place."""
    work, carrier = make_work(tmp_path), Rejecting()
    work._trainer = cast(Trainer, Unwilling())
    work._answer(carrier, parcel_of(raw(instruction(7))))
    assert carrier.reasons == ["object 01... does not have the hash that it is named by"]
