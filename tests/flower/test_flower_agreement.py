"""Replies that do not fit are made errors before a strategy raises because of them; the others are averaged."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedTrimmedAvg, FedXgbBagging, Krum, Strategy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fltestbed.flower.agreement import Agreement, wants_agreement
from fltestbed.flower.bundle import broken_reply
from fltestbed.flower.folding import Fold, folded_averages
from tests.flower.flower_messages import instruction

KEY = "num-examples"
SENT = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}
bounded = settings(max_examples=150, deadline=None, derandomize=True, database=None)


numbers = itertools.count(2)


def reply_with(content: RecordDict, kind: str = "train") -> Message:
    """What a node answers."""
    message = instruction(next(numbers), SENT, kind)
    message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"
    return Message(content, reply_to=message)


def good() -> ArrayRecord:
    """Arrays like those that were sent; Flower empties a record when it averages it."""
    return ArrayRecord({"w": Array(np.full((2, 3), 1.0, np.float32)), "b": Array(np.full(3, 2.0, np.float32))})


def content(arrays: ArrayRecord | None = None, weight: Any = 10, **metrics: Any) -> RecordDict:
    return RecordDict({"arrays": arrays or good(), "metrics": MetricRecord({KEY: weight, "loss": 0.5} | metrics)})


def with_arrays(**arrays: NDArray[Any]) -> RecordDict:
    return content(ArrayRecord({name: Array(array) for name, array in arrays.items()}))


def named(arrays: str, metrics: str) -> RecordDict:
    return RecordDict({arrays: good(), metrics: MetricRecord({KEY: 10, "loss": 0.5})})


def garbage() -> ArrayRecord:
    return ArrayRecord({name: Array("float32", (3,), "another.type", b"\x80\x04.") for name in SENT})


UNFIT: dict[str, Callable[[], RecordDict]] = {
    "other shapes": lambda: with_arrays(w=np.zeros((3, 2)), b=np.zeros(3)),
    "shapes that NumPy would stretch": lambda: with_arrays(w=np.zeros((1, 3)), b=np.zeros(1)),
    "an array too few": lambda: with_arrays(w=np.zeros((2, 3))),
    "other names": lambda: with_arrays(x=np.zeros((2, 3)), y=np.zeros(3)),
    "complex numbers": lambda: with_arrays(w=np.zeros((2, 3), np.complex64), b=np.zeros(3, np.complex64)),
    "no arrays that can be read": lambda: content(garbage()),
    "no arrays": lambda: RecordDict({"metrics": MetricRecord({KEY: 10, "loss": 0.5})}),
    "two records of arrays": lambda: RecordDict({**content(), "more": good()}),
    "no metrics": lambda: RecordDict({"arrays": good()}),
    "two records of metrics": lambda: RecordDict({**content(), "more": MetricRecord({"a": 1})}),
    "no weight": lambda: RecordDict({"arrays": good(), "metrics": MetricRecord({"loss": 0.5})}),
    "weights in a list": lambda: content(weight=[1.0, 2.0]),
    "a weight below 0": lambda: content(weight=-20),
    "a weight that is none": lambda: content(weight=math.nan),
    "an endless weight": lambda: content(weight=math.inf),
    "a weight past all counts": lambda: content(weight=2**62),
    "nothing": RecordDict,
}
ODD: dict[str, Callable[[], RecordDict]] = {
    "more metrics": lambda: content(extra=1.0),
    "a metric in a list": lambda: content(loss=[0.1, 0.2]),
    "other names of the records": lambda: named("model", "figures"),
    "float64": lambda: with_arrays(w=np.full((2, 3), 1.0), b=np.full(3, 2.0)),
    "float16": lambda: with_arrays(w=np.full((2, 3), 1.0, np.float16), b=np.full(3, 2.0, np.float16)),
    "a metric that is no number": lambda: content(loss=math.nan),
}


def settled(replies: list[Message], agreement: Agreement) -> list[Message]:
    """As the Grid does it."""
    judged = []
    for reply in replies:
        problem = agreement.problem(reply)
        judged.append(reply if problem is None else broken_reply(reply, problem))
    refused = agreement.settle(judged)
    ids = [reply.metadata.reply_to_message_id for reply in judged]
    return [
        broken_reply(reply, refused[name]) if name in refused else reply for reply, name in zip(judged, ids, strict=True)
    ]


def trained(contents: list[RecordDict], strategy: FedAvg | None = None) -> tuple[list[str], ArrayRecord | None]:
    """Reasons of those that were refused, and the strategy's model of the rest."""
    replies = settled([reply_with(each) for each in contents], Agreement(KEY, instruction(1, SENT)))
    arrays, _ = (strategy or FedAvg()).aggregate_train(1, replies)
    return [str(reply.error.reason) for reply in replies if reply.has_error()], arrays


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("place", [0, 2])
def test_one_that_does_not_fit_is_refused_and_the_others_are_averaged(kind: str, place: int) -> None:
    """Whether it comes first or last; without the check the strategy raises, or makes a model of another shape of it."""
    contents = [content(), content()]
    contents.insert(place, UNFIT[kind]())
    (reason,), arrays = trained(contents)
    assert reason.isprintable()
    assert arrays is not None
    assert arrays["w"].numpy().tolist() == [[1.0] * 3] * 2
    assert arrays["b"].numpy().tolist() == [2.0] * 3


@pytest.mark.parametrize("kind", ODD)
def test_one_that_is_merely_odd_counts(kind: str) -> None:
    """More metrics than others, other names of its records, another precision: averaged with the others."""
    refused, arrays = trained([ODD[kind](), content(), content()])
    assert refused == []
    assert arrays is not None
    assert {array.numpy().dtype for array in arrays.values()} == {np.dtype(np.float32)}  # whichever came first
    assert np.allclose(arrays["w"].numpy(), 1.0, rtol=2**-10)


@bounded
@given(st.lists(st.sampled_from([*UNFIT, *ODD, "good"]), max_size=7), st.sampled_from([FedAvg, FedAdam, FedMedian]))
def test_no_strategy_raises_whatever_comes(kinds: list[str], strategy: type[FedAvg]) -> None:
    """Any mixture: a model of the shapes that were sent, if one reply at least has them, or none."""
    makers = UNFIT | ODD | {"good": content}
    made = strategy()
    made.current_arrays = SENT  # type: ignore[attr-defined]  # what FedAdam's configure_train keeps
    _, arrays = trained([makers[kind]() for kind in kinds], made)
    if set(kinds) - set(UNFIT):
        assert arrays is not None
        assert {key: array.numpy().shape for key, array in arrays.items()} == {"w": (2, 3), "b": (3,)}
    else:
        assert arrays is None


def test_weights_that_are_all_zero_make_no_average() -> None:
    """Nothing was learned by anybody: errors that say so, and no division by zero. One zero beside another weight counts."""
    reasons, arrays = trained([content(weight=0), content(weight=0.0)])
    assert reasons == [f"the weights ({KEY}) of all replies are 0"] * 2
    assert arrays is None
    assert trained([content(weight=0), content()])[0] == []


def test_a_type_that_all_replies_have_stays() -> None:
    """An app that computes in another precision than it was sent is not cast."""
    _, arrays = trained([ODD["float64"](), ODD["float64"]()])
    assert arrays is not None
    assert arrays["w"].numpy().dtype == np.float64


def test_what_was_added_up_already_stays_as_it_is() -> None:
    """One reply in the type that was sent is folded, two in another are whole: the average is of all three."""
    agreement, fold = Agreement(KEY, instruction(1, SENT)), Fold(KEY)
    replies = [reply_with(each) for each in (content(), ODD["float64"](), ODD["float64"]())]
    for reply in replies:
        assert agreement.problem(reply) is None
        if agreement.is_expected(reply):
            fold.take(reply)
    assert agreement.settle(replies) == {}
    with folded_averages():
        arrays, _ = FedAvg().aggregate_train(1, replies)
    assert arrays is not None
    assert arrays["w"].numpy().tolist() == [[1.0] * 3] * 2


def test_the_types_that_most_replies_had_are_expected_of_the_next_round() -> None:
    """Whatever is sent by then; only a model of another form is begun with as if there had been no round before."""
    double = {name: array.astype(np.float64) for name, array in SENT.items()}
    first = Agreement(KEY, instruction(1, SENT))
    assert expected(first) == [False, True, True]
    second = Agreement(KEY, instruction(1, double), before=first)
    assert expected(second) == [False, True, True]
    assert expected(Agreement(KEY, instruction(1, double), before=second)) == [False, True, True]
    assert expected(Agreement(KEY, instruction(1, double))) == [True, False, False]
    assert expected(Agreement(KEY, instruction(1, double | {"more": np.zeros(1)}), before=second)) == [False] * 3


def expected(agreement: Agreement) -> list[bool]:
    """Which of three replies, one in float64 and two in float32, were expected in a round, which is over then."""
    doubled = ArrayRecord({name: Array(array.numpy().astype(np.float64)) for name, array in good().items()})
    replies = [reply_with(content(arrays)) for arrays in (doubled, good(), good())]
    assert [agreement.problem(reply) for reply in replies] == [None] * 3
    found = [agreement.is_expected(reply) for reply in replies]
    agreement.settle(replies)
    return found


def test_replies_of_another_form_than_was_sent_count_if_all_have_it() -> None:
    """A first message that holds no model yet: what most replies bring is the model. Later, what was sent counts."""
    agreement = Agreement(KEY, instruction(1, {"none": np.zeros(0)}), may_differ=True)
    replies = settled([reply_with(each) for each in (UNFIT["other shapes"](), content(), content())], agreement)
    assert [reply.has_error() for reply in replies] == [True, False, False]
    assert "have other names or shapes than those of most replies" in str(replies[0].error.reason)
    assert not any(agreement.is_expected(reply) for reply in replies)
    replies = settled([reply_with(content())], Agreement(KEY, instruction(1, {"none": np.zeros(0)})))
    assert replies[0].has_error()


def test_replies_of_evaluation_need_no_arrays() -> None:
    """Metrics alone; a weight below zero is refused, metrics that not all have are left out of the average."""
    contents: list[Any] = [{KEY: 3, "loss": 1.0}, {KEY: 1, "loss": 2.0, "accuracy": 0.5}, {KEY: -4, "loss": 9.0}]
    replies = [reply_with(RecordDict({"metrics": MetricRecord(each)}), "evaluate") for each in contents]
    replies = settled(replies, Agreement(KEY, None))
    assert [reply.has_error() for reply in replies] == [False, False, True]
    metrics = FedAvg().aggregate_evaluate(1, replies)
    assert metrics is not None
    assert dict(metrics) == {"loss": 1.25}


def test_which_strategies_are_helped() -> None:
    """Flower's own that average; not trees, not a strategy whose author reads the replies himself."""

    class Own(FedAvg):
        def aggregate_train(self, server_round: int, replies: object) -> tuple[None, None]:
            return None, None

    helped: list[Strategy] = [FedAvg(), FedAdam(), FedMedian(), FedTrimmedAvg(), Krum()]
    assert all(wants_agreement(strategy) for strategy in helped)
    assert not any(wants_agreement(strategy) for strategy in (Own(), FedXgbBagging()))
    for step in ("aggregate_train", "_check_and_log_replies"):
        observed = FedAvg()
        vars(observed)[step] = lambda *_: (None, None)
        assert not wants_agreement(observed)
