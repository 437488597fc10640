"""A whole run of a strategy over the Grid: which replies are folded, and what the server is told of it."""

import itertools
import random
from collections import defaultdict, deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from threading import Event
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as strategies
from flwr.serverapp.strategy import FedAvg, FedMedian, Strategy
from flwr.supercore.run import Run

from fltestbed.clock import Clock
from fltestbed.flower.bundle import Bundle, decode
from fltestbed.flower.folding import _Folded
from fltestbed.flower.serverapp import ServerAppTask, observed_strategies
from fltestbed.measure.schema import AGGREGATE_OVERLAP
from fltestbed.server import grid
from fltestbed.server.grid import FOLDED_BYTES, BundleGrid
from fltestbed.shared_buffer import BufferPair

NODES = (1, 2, 3)
HALF = 100_000
FOLDED = {"FedAvg", "FedProx", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"}
WHOLE = {
    "Bulyan", "FedMedian", "FedTrimmedAvg", "FedXgbCyclic", "Krum", "MultiKrum", "QFedAvg",
    "DifferentialPrivacyClientSideFixedClipping", "DifferentialPrivacyServerSideAdaptiveClipping",
    "DifferentialPrivacyServerSideFixedClipping",
}  # fmt: skip
OTHER_REPLIES = {"FedXgbBagging", "DifferentialPrivacyClientSideAdaptiveClipping"}
"""They want trees, or what a mod of the ClientApp adds."""
ARGUMENTS: dict[str, dict[str, Any]] = {
    "FedProx": {"proximal_mu": 0.1},
    "QFedAvg": {"client_learning_rate": 0.1, "train_loss_key": "loss"},
}
MODEL = ArrayRecord({"w": Array(np.zeros(5, np.float32)), "b": Array(np.zeros((2, 2), np.float32))})


class Server(BundleGrid):
    """A Grid whose SuperLink and clients are here: one reply, or a refusal to give any, for each pull."""

    def __init__(
        self,
        failing: int | None = None,
        silent: int | None = None,
        minimum_replies: int = 1,
        unfit: int | None = None,
        *,
        is_measured: bool = True,
        idle: Event | None = None,
    ) -> None:
        ticks = itertools.count()  # the clock ticks once whenever it is looked at
        super().__init__(
            cast(Connection, None),
            cast(ServerAppTask, None),
            Run.create_empty(1),
            BufferPair.make(),
            Clock(raw_ns=lambda: next(ticks)),
            minimum_replies=minimum_replies,
            is_measured=lambda _: is_measured,
            idle=idle,
        )
        self.was_idle: defaultdict[str, set[bool]] = defaultdict(set)
        self.failing, self.silent, self.unfit = failing, silent, unfit
        self.marks: list[dict[str, Any]] = []
        self.at_most: list[int | None] = []
        self.content_bytes: list[int] = []
        self._answers: deque[dict[str, Any]] = deque()
        self.handed_out: list[Message] = []
        self._open: list[Message] = []

    def get_node_ids(self) -> list[int]:
        """All are online."""
        return list(NODES)

    def _read(self, *args: Any) -> list[Message]:
        self.was_idle["reading"].add(self._idle.is_set())
        replies = super()._read(*args)
        self.handed_out += replies
        return replies

    def _receive(self) -> dict[str, Any]:
        answer = self._answers.popleft()
        self.was_idle["sending" if "message_ids" in answer else "waiting"].add(self._idle.is_set())
        return answer

    def _send(self, what: str, facts: dict[str, Any]) -> None:
        answer = self._answer_to(what, facts)
        if what != "tell":
            self._answers.append(answer)

    def _answer_to(self, what: str, facts: dict[str, Any]) -> dict[str, Any]:
        if what == "push":
            bundle = decode(self._buffers.to_parent.read(facts["length"]))
            self.marks += bundle.prologue["marks"]
            self.content_bytes.append(sum(map(len, bundle.objects.values())))
            self._open = bundle.inflate()
            return {"message_ids": [message.metadata.message_id for message in self._open]}
        self.marks += facts["marks"]
        if what in ("marks", "tell"):
            return {}
        self.at_most.append(facts["at_most"])
        given = [message for message in self._open[:1] if message.metadata.dst_node_id != self.silent]
        self._open = self._open[1:]
        pieces = Bundle.of([self._answer(message) for message in given]).encode()
        start = 0 if len(self.at_most) % 2 else HALF  # what came before is read while this is written
        return {"start": start, "length": self._buffers.to_child.write(pieces, start)}

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node == self.failing:
            return Message(Error(0, "it broke"), reply_to=message)
        content = RecordDict({"metrics": MetricRecord({"num-examples": node, "loss": 1.0 / node})})
        if message.metadata.message_type == "train":
            draw = np.random.default_rng(node)
            arrays = {key: Array(draw.standard_normal(array.shape).astype(np.float32)) for key, array in MODEL.items()}
            content["arrays"] = ArrayRecord(arrays)
            if node == self.unfit:
                content["arrays"] = ArrayRecord({"w": Array(np.zeros(4, np.float32)), "b": Array(np.zeros(1, np.float32))})
        elif node == self.unfit:
            content["metrics"] = MetricRecord({"num-examples": -5, "loss": 1.0})
        return Message(content, reply_to=message)

    @property
    def overlaps(self) -> list[dict[str, Any]]:
        """Marks about aggregation before the last reply."""
        return [mark for mark in self.marks if AGGREGATE_OVERLAP in mark.get("values", {})]

    def folded(self) -> list[bool]:
        """Of each reply with arrays, whether they were freed."""
        records = [reply.content.array_records for reply in self.handed_out if reply.has_content()]
        return [isinstance(array, _Folded) for record in records for arrays in record.values() for array in arrays.values()]


@pytest.fixture
def run() -> Callable[..., ArrayRecord]:
    """Start a strategy over a Grid, with streaming aggregation or without; gives the last model."""

    def started(server: Server, strategy: Strategy, streaming: bool = True, rounds: int = 1, **options: Any) -> ArrayRecord:
        random.seed(1)  # Flower draws the order of the clients, which decides where Krum finds a tie
        with observed_strategies(lambda *step: None, lambda: 0, server, folds=streaming):
            result = strategy.start(server, MODEL, num_rounds=rounds, **options)
        server.flush()
        return result.arrays

    return started


Start = Callable[..., ArrayRecord]


def assert_close(found: ArrayRecord, expected: ArrayRecord) -> None:
    assert list(found) == list(expected)
    for key in expected:
        np.testing.assert_allclose(found[key].numpy(), expected[key].numpy(), rtol=1e-6, atol=1e-7)


def test_replies_of_training_are_folded_one_by_one(run: Start) -> None:
    """The model is Flower's, arrays are gone when the round is over, few replies are asked for at once, of others all."""
    streaming, whole = Server(), Server()
    assert_close(run(streaming, FedAvg()), run(whole, FedAvg(), streaming=False))
    assert streaming.folded() == [True] * 6
    assert whole.folded() == [False] * 6
    at_once = FOLDED_BYTES // streaming.content_bytes[0]
    assert streaming.at_most == [at_once] * 3 + [None] * 3  # three replies of training, three of evaluation
    assert whole.at_most == [None] * 6


def test_replies_of_a_large_model_are_asked_for_singly(run: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one takes more than may come with a request; and what comes is the same."""
    monkeypatch.setattr(grid, "FOLDED_BYTES", 1)
    server = Server()
    assert_close(run(server, FedAvg(fraction_evaluate=0.0)), run(Server(), FedAvg(fraction_evaluate=0.0)))
    assert server.at_most == [1] * 3


def test_server_is_told_what_was_added_up_before_the_last_reply(run: Start) -> None:
    """Two of three replies came before the last: two ticks of the clock, for each round of training."""
    server = Server()
    run(server, FedAvg(), rounds=2)
    assert [(mark["round"], mark["values"][AGGREGATE_OVERLAP]) for mark in server.overlaps] == [(1, 2e-9), (2, 2e-9)]
    assert {(mark["source"], mark["message_type"]) for mark in server.overlaps} == {("server", "train")}


def test_what_is_added_up_before_a_deadline_comes_before_the_last_reply(run: Start) -> None:
    """A client that never answers is still awaited while the others' replies are added up."""
    server = Server(silent=3)
    run(server, FedAvg(fraction_evaluate=0.0), timeout=100e-9)
    assert len(server.folded()) == 4
    assert len(server.at_most) > 3
    assert [mark["values"][AGGREGATE_OVERLAP] for mark in server.overlaps] == [pytest.approx(2e-9)]


def test_error_replies_are_left_out(run: Start) -> None:
    """The average is over the two others."""
    assert_close(run(Server(failing=2), FedAvg()), run(Server(failing=2), FedAvg(), streaming=False))


@pytest.mark.parametrize("unfit", NODES)
@pytest.mark.parametrize("make", [FedAvg, FedMedian])
def test_a_reply_that_does_not_fit_costs_itself_alone(run: Start, make: Callable[[], FedAvg], unfit: int) -> None:
    """Whichever comes first, with streaming and without: the model is that of the others, and the server is told who was
    left out of which round, and why.
    """
    for streaming in (True, False):
        server = Server(unfit=unfit)
        assert_close(run(server, make(), streaming=streaming), run(Server(failing=unfit), make(), streaming=False))
        (refused,) = [mark for mark in server.marks if mark["kind"] == "refused"]
        assert refused["reason"] == "its arrays have other names or shapes than those that were sent"
        errors = [mark["error"] for mark in server.marks if mark["kind"] == "held" and mark["error"]]
        assert errors == ["its weight (num-examples) is -5, and has to be a number from 0 on"]  # in its evaluation
        (reply,) = [each for each in server.handed_out if each.metadata.reply_to_message_id == refused["message_id"]]
        assert reply.metadata.src_node_id == unfit


def test_a_round_with_too_few_replies_aggregates_nothing(run: Start) -> None:
    """Two of three answer where three are wanted: the strategy gets none of them, and the server is told. With a minimum
    that is above the number of messages, all of those are enough.
    """
    server = Server(failing=2, minimum_replies=3)
    assert list(run(server, FedAvg(fraction_evaluate=0.0))) == []  # Flower's word for: nothing was aggregated
    (mark,) = [mark for mark in server.marks if mark["kind"] == "abandoned"]
    assert (mark["round"], mark["replied"], mark["minimum"]) == (1, 2, 3)
    whole = Server(minimum_replies=9)
    assert not np.allclose(run(whole, FedAvg(fraction_evaluate=0.0))["w"].numpy(), 0)
    assert [mark for mark in whole.marks if mark["kind"] == "abandoned"] == []


def test_of_a_round_that_is_not_measured_errors_alone_are_told(run: Start) -> None:
    """Who has answered with an error is missing in any round."""
    server = Server(failing=2, is_measured=False)
    run(server, FedAvg(fraction_evaluate=0.0))
    (mark,) = [mark for mark in server.marks if mark["kind"] == "held"]
    assert mark["error"]


def test_the_process_is_idle_while_it_waits_for_replies(run: Start) -> None:
    """And not while it sends messages, reads what has come and adds it up, or has no round under way."""
    idle = Event()
    server = Server(idle=idle)
    run(server, FedAvg(), rounds=2)
    assert server.was_idle == {"sending": {False}, "waiting": {True}, "reading": {False}}
    assert not idle.is_set()


def made(name: str) -> Strategy:
    """One of Flower's strategies; those of differential privacy around FedAvg and without noise."""
    given = ARGUMENTS.get(name, {})
    if name.startswith("DifferentialPrivacy"):
        given = {"strategy": FedAvg(), "noise_multiplier": 0.0, "num_sampled_clients": len(NODES)}
        given |= {"clipping_norm": 1.0} if "Fixed" in name else {}
    strategy: Strategy = getattr(strategies, name)(**given)
    return strategy


def plain(name: str) -> ArrayRecord:
    """The last model of three rounds as Flower alone makes it."""
    random.seed(1)
    return made(name).start(Server(), MODEL, num_rounds=3).arrays


def test_every_strategy_of_flower_is_known() -> None:
    """A new one has to be looked at: is it folded, does it get whole replies?"""
    assert set(strategies.__all__) == FOLDED | WHOLE | OTHER_REPLIES | {"Result", "Strategy"}


@pytest.mark.parametrize("name", sorted(FOLDED))
def test_strategies_that_average_are_folded_and_give_flowers_model(run: Start, name: str) -> None:
    """The same but for the rounding of the last digit, over three rounds, in which each keeps a state of its own."""
    server = Server()
    assert_close(run(server, made(name), rounds=3), plain(name))
    assert server.folded() == [True] * 18


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_other_strategies_get_whole_replies(run: Start, name: str) -> None:
    """No array is freed before the strategy has seen it, there is nothing to tell, and each bit of the model is Flower's."""
    server = Server()
    model, expected = run(server, made(name), rounds=3), plain(name)
    assert not any(server.folded())
    assert server.overlaps == []
    assert set(server.at_most) == {None}
    assert {key: array.data for key, array in model.items()} == {key: array.data for key, array in expected.items()}


def test_what_an_app_sends_by_itself_is_not_folded(run: Start) -> None:
    """A strategy's own messages, sent while it configures a round, are answered whole; the round's own are folded."""
    seen: list[int] = []

    class Asking(FedAvg):
        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
            messages = list(super().configure_train(server_round, arrays, config, grid))
            seen.extend(len(reply.content["arrays"]["w"].data) for reply in grid.send_and_receive(messages))
            return super().configure_train(server_round, arrays, config, grid)

    server = Server()
    run(server, Asking())
    assert len(seen) == 3
    assert all(seen)
    assert server.folded() == [False] * 6 + [True] * 6


def test_a_strategy_can_be_started_twice(run: Start) -> None:
    """Its steps are its own again after the first start, and its replies are folded again."""
    strategy, server = FedAvg(), Server()
    run(server, strategy)
    assert not {"configure_train", "aggregate_train"} & vars(strategy).keys()
    run(server, strategy)
    assert server.folded() == [True] * 12


def test_a_grid_around_ours_gets_whole_replies() -> None:
    """Started with another Grid than ours, which may look at the replies, a strategy gets them whole."""
    ours, around = Server(), Server()
    with observed_strategies(lambda *step: None, lambda: 0, ours):
        FedAvg().start(around, MODEL, num_rounds=1)
    assert around.folded() == [False] * 6
