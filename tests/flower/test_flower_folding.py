"""Folding replies as they come gives what Flower makes of whole ones, and holds no more than the sum."""

import math
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import flwr.serverapp.strategy as flower_strategies
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.exception import InconsistentMessageReplies
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy, fedavg
from numpy.typing import NDArray

from fltestbed.errors import TestbedError
from fltestbed.flower import folding
from fltestbed.flower.folding import Fold, folded_averages, is_averaging
from tests.flower.flower_messages import error_answer, instruction

Arrays = dict[str, NDArray[Any]]
WEIGHTS = (1, 40, 7.5)
OPTIMISING: list[Callable[[], FedAvg]] = [
    FedAvg,
    FedProx,
    lambda: FedAvgM(server_learning_rate=0.5, server_momentum=0.9),
    FedAdagrad,
    FedAdam,
    FedYogi,
]
AVERAGES = {"FedAvg", "FedProx", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"}


@pytest.fixture(autouse=True)
def fold_aware() -> Iterator[None]:
    with folded_averages():
        yield


class Nodes:
    """All that `configure_train` asks of a Grid."""

    def get_node_ids(self) -> list[int]:
        """Three nodes are online."""
        return [1, 2, 3]


def arrays_of(seed: int, **others: NDArray[Any]) -> Arrays:
    """What a small model holds: matrices, a scalar, a counter of batches, other precisions, and nothing at all."""
    random = np.random.default_rng(seed)
    return {
        "weight": random.standard_normal((300, 400)).astype(np.float32),  # more than is multiplied at once
        "columns": np.asfortranarray(random.standard_normal((4, 5))).astype(np.float32),
        "double": random.standard_normal(9),
        "half": random.standard_normal(1000).astype(np.float16),
        "scale": np.array(random.standard_normal(), np.float32),
        "num_batches_tracked": np.array(random.integers(1, 1000)),
        "steps": random.integers(-128, 128, 10).astype(np.int8),
        "mask": random.integers(0, 2, 10).astype(np.bool_),
        "swapped": random.standard_normal(10).astype(">f4"),
        "empty": np.zeros((0, 3), np.float32),
        **others,
    }


def reply(arrays: Arrays, **metrics: Any) -> Message:
    record = ArrayRecord({key: Array(np.asarray(array)) for key, array in arrays.items()})
    return Message(RecordDict({"arrays": record, "metrics": MetricRecord(metrics)}), reply_to=instruction(1))


def replies_of(count: int = 3) -> list[Message]:
    return [reply(arrays_of(seed), **{"num-examples": WEIGHTS[seed % 3], "loss": 0.5 * seed}) for seed in range(count)]


def folded(replies: Sequence[Message], weighted_by_key: str = "num-examples") -> list[Message]:
    """Take the replies in one after the other."""
    fold = Fold(weighted_by_key)
    for each in replies:
        fold.take(each)
    return list(replies)


def held_bytes(message: Message) -> dict[str, int]:
    return {key: len(array.data) for key, array in message.content["arrays"].items()}  # type: ignore[union-attr]


def assert_same(found: ArrayRecord | None, expected: ArrayRecord | None) -> None:
    """Same keys in the same order, types and shapes; each array within 1e-6 of the expected one's norm."""
    assert found is not None
    assert expected is not None
    assert list(found) == list(expected)
    for key, array in expected.items():
        ours, flowers = found[key].numpy(), array.numpy()
        assert (ours.dtype, ours.shape) == (flowers.dtype, flowers.shape), key
        difference = np.linalg.norm((ours.astype(np.float64) - flowers.astype(np.float64)).ravel())
        assert difference <= 1e-6 * np.linalg.norm(flowers.astype(np.float64).ravel()), key


class TestAverage:
    """The result, against Flower's own of the same replies."""

    @pytest.mark.parametrize("make", OPTIMISING, ids=lambda make: make().__class__.__name__)
    def test_equals_flowers_own_over_several_rounds(self, make: Callable[[], FedAvg]) -> None:
        """For each strategy that averages, with different weights, of arrays of all kinds; metrics are the very same."""
        ours, flowers = make(), make()
        for number in (1, 2, 3):
            results = []
            for strategy, prepare in ((ours, folded), (flowers, list)):
                sent = {key: Array(np.asarray(array)) for key, array in arrays_of(100).items() if array.dtype != np.bool_}
                strategy.configure_train(number, ArrayRecord(sent), ConfigRecord(), cast(Grid, Nodes()))
                replies = [
                    reply({key: array for key, array in arrays_of(10 * number + seed).items() if key in sent}, **metrics)
                    for seed, metrics in enumerate({"num-examples": weight, "loss": weight / 3} for weight in WEIGHTS)
                ]
                results.append(strategy.aggregate_train(number, prepare(replies)))
            assert is_averaging(ours)
            assert_same(results[0][0], results[1][0])
            assert results[0][1] == results[1][1]

    def test_is_within_1e_6_of_each_number(self) -> None:
        """100 clients: no number is further off than 1e-6 of the mean magnitude of what was averaged; floats stay floats."""
        expected, metrics = FedAvg().aggregate_train(1, replies_of(100))
        found, _ = FedAvg().aggregate_train(1, folded(replies_of(100)))
        assert metrics is not None
        assert found is not None
        assert expected is not None
        total = sum(WEIGHTS[seed % 3] for seed in range(100))
        magnitude = sum(abs(arrays_of(seed)["weight"]) * (WEIGHTS[seed % 3] / total) for seed in range(100))
        assert (np.abs(found["weight"].numpy() - expected["weight"].numpy()) <= 1e-6 * magnitude).all()
        assert_same(found, expected)

    def test_arrays_are_freed_but_those_that_flower_rounds_differently(self) -> None:
        """Bytes are gone, keys, shapes and metrics are still there; float16 and foreign byte orders stay whole."""
        (first, *_) = folded(replies_of())
        assert {key for key, size in held_bytes(first).items() if size} == {"half", "swapped"}
        assert first.content["arrays"]["weight"].shape == (300, 400)  # type: ignore[union-attr]
        assert first.content["metrics"] == {"num-examples": 1, "loss": 0.0}

    def test_error_replies_do_not_count(self) -> None:
        """The average is over the replies with content."""
        replies = [*replies_of(), error_answer(instruction(1))]
        found, metrics = FedAvg().aggregate_train(1, folded(replies))
        expected, expected_metrics = FedAvg().aggregate_train(1, replies_of())
        assert_same(found, expected)
        assert metrics == expected_metrics

    @pytest.mark.parametrize("weight", [0, 0.0, -2, float("inf"), 2**60], ids=repr)
    @pytest.mark.parametrize("place", [0, 1])
    def test_a_reply_with_a_strange_weight_stays_whole(self, weight: float, place: int) -> None:
        """Its part is Flower's arithmetic, whether it comes first or later."""

        def replies() -> list[Message]:
            metrics = [{"num-examples": 3}, {"num-examples": 5}]
            metrics.insert(place, {"num-examples": weight})  # type: ignore[dict-item]
            return [reply(arrays_of(seed), **each) for seed, each in enumerate(metrics)]

        with np.errstate(invalid="ignore"):
            expected, _ = FedAvg().aggregate_train(1, replies())
            prepared = folded(replies())
            found, _ = FedAvg().aggregate_train(1, prepared)
        assert all(size for key, size in held_bytes(prepared[place]).items())
        assert expected is not None
        assert found is not None
        for key in expected:
            np.testing.assert_allclose(found[key].numpy(), expected[key].numpy(), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(
        "other",
        [np.ones((1, 3), np.float32), np.ones((2, 3), np.float64), np.ones((2, 3), np.int32)],
        ids=["shape", "f8", "i4"],
    )
    def test_arrays_unlike_the_first_stay_whole(self, other: NDArray[Any]) -> None:
        """Where Flower broadcasts or casts, so does the fold."""

        def replies() -> list[Message]:
            first = np.arange(6, dtype=np.float32).reshape(2, 3)
            return [reply({"a": array}, **{"num-examples": 2}) for array in (first, other, first)]

        prepared = folded(replies())
        assert [held_bytes(each)["a"] > 0 for each in prepared] == [False, True, False]
        assert_same(FedAvg().aggregate_train(1, prepared)[0], FedAvg().aggregate_train(1, replies())[0])

    def test_nobody_replied(self) -> None:
        """Without a reply there is no new model."""
        assert FedAvg().aggregate_train(1, folded([])) == (None, None)


class TestRefusal:
    """What Flower refuses of whole replies it refuses of folded ones, with the same words."""

    @pytest.mark.parametrize(
        ("arrays", "metrics"),
        [
            ({"a": np.ones(2)}, {"num-examples": 2}),
            ({"a": np.ones(2), "b": np.ones(2), "c": np.ones(2)}, {"num-examples": 2}),
            ({"a": np.ones(2), "b": np.ones(2)}, {"loss": 0.1}),
            ({"a": np.ones(2), "b": np.ones(2)}, {"num-examples": [1, 2]}),
            ({"a": np.ones(2), "b": np.ones(3)}, {"num-examples": 2}),
        ],
        ids=["key missing", "key too many", "no weight", "list as weight", "shape that fits no more"],
    )
    @pytest.mark.parametrize("first", [False, True])
    def test_same_error(self, arrays: Arrays, metrics: dict[str, Any], first: bool) -> None:
        """Whether the reply that does not fit comes first or last."""

        def replies() -> list[Message]:
            good = [reply({"a": np.ones(2), "b": np.ones(2)}, **{"num-examples": 3}) for _ in range(2)]
            return [reply(arrays, **metrics), *good] if first else [*good, reply(arrays, **metrics)]

        with pytest.raises((InconsistentMessageReplies, ValueError)) as flowers:
            FedAvg().aggregate_train(1, replies())
        with pytest.raises(type(flowers.value)) as ours:
            FedAvg().aggregate_train(1, folded(replies()))
        assert str(ours.value) == str(flowers.value)

    def test_two_array_records(self) -> None:
        """Flower wants exactly one; none of the reply is touched."""
        odd = reply({"a": np.ones(2)}, **{"num-examples": 3})
        odd.content["more"] = ArrayRecord({"a": Array(np.ones(2))})
        with pytest.raises(InconsistentMessageReplies, match="exactly one ArrayRecord"):
            FedAvg().aggregate_train(1, folded([odd]))
        assert held_bytes(odd)["a"] > 0

    def test_bytes_that_are_no_array(self) -> None:
        """A client that sends rubbish stops the aggregation as it does in Flower."""

        def replies() -> list[Message]:
            broken = reply({"a": np.ones(2)}, **{"num-examples": 3})
            broken.content["arrays"]["a"] = Array("float64", (2,), "numpy.ndarray", b"rubbish")  # type: ignore[assignment]
            return [reply({"a": np.ones(2)}, **{"num-examples": 3}), broken]

        with pytest.raises(ValueError, match="pickle") as flowers:
            FedAvg().aggregate_train(1, replies())
        with pytest.raises(ValueError, match="pickle") as ours:
            FedAvg().aggregate_train(1, folded(replies()))
        assert str(ours.value) == str(flowers.value)

    def test_replies_that_were_left_out_are_noticed(self) -> None:
        """An average over some of what was added up would be wrong, so there is none."""
        with pytest.raises(TestbedError, match=r"strategy\.streaming = false"):
            FedAvg().aggregate_train(1, folded(replies_of())[1:])
        with pytest.raises(TestbedError, match="weighted by 'num-examples'"):
            FedAvg(weighted_by_key="loss").aggregate_train(1, folded(replies_of()))

    def test_a_freed_array_cannot_be_read(self) -> None:
        """Whoever reads it is told why, and what to do."""
        (first,) = folded(replies_of(1))
        with pytest.raises(TestbedError, match=r"strategy\.streaming = false"):
            first.content["arrays"]["weight"].numpy()  # type: ignore[union-attr]


class TestCertainty:
    """Which strategies' replies may be folded."""

    @pytest.mark.parametrize("name", sorted(set(flower_strategies.__all__) - {"Strategy", "Result"}))
    def test_of_flowers_strategies_those_that_average(self, name: str) -> None:
        """Medians, trimmed means, Krum, Bulyan, trees, fairness and differential privacy need whole replies."""
        wrapped = {
            "strategy": FedAvg(), "noise_multiplier": 0.1, "clipping_norm": 1.0, "num_sampled_clients": 3,
        }  # fmt: skip
        needs = {"FedProx": {"proximal_mu": 0.1}, "QFedAvg": {"client_learning_rate": 0.1}}
        make: Callable[..., Strategy] = getattr(flower_strategies, name)
        if name.startswith("DifferentialPrivacy"):
            chosen = {key: wrapped[key] for key in wrapped if "Fixed" in name or key != "clipping_norm"}
            assert not is_averaging(make(**chosen))
        else:
            assert is_averaging(make(**needs.get(name, {}))) == (name in AVERAGES)

    def test_a_subclass_that_leaves_aggregation_alone(self) -> None:
        """Other ways to choose clients or to start do not matter."""

        class Chosen(FedAdam):
            def configure_train(self, *args: Any, **kwargs: Any) -> Any:
                return super().configure_train(*args, **kwargs)

        assert is_averaging(Chosen())

    @pytest.mark.parametrize("step", ["aggregate_train", "_check_and_log_replies"])
    def test_whoever_may_see_the_replies_gets_them_whole(self, step: str) -> None:
        """In a subclass, in a class between, or on the object itself."""

        def see(self: Any, *args: Any, **kwargs: Any) -> Any:
            return getattr(FedAvg, step)(self, *args, **kwargs)

        mixin = type("Mixin", (FedAvg,), {step: see})
        assert not is_averaging(type("Mixed", (FedAvgM, mixin), {})())
        assert not is_averaging(mixin())
        changed = FedAvg()
        setattr(changed, step, lambda *args, **kwargs: None)
        assert not is_averaging(changed)

    def test_a_function_that_reads_no_replies(self) -> None:
        """One that says so does not matter."""
        strategy = FedAvg()
        inner = strategy.aggregate_train

        def outer(*args: Any) -> Any:
            return inner(*args)

        strategy.aggregate_train = outer  # type: ignore[method-assign,assignment]
        assert not is_averaging(strategy)
        outer.reads_no_replies = True  # type: ignore[attr-defined]
        assert is_averaging(strategy)

    def test_metrics_of_ones_own(self) -> None:
        """A function for the metrics of training gets the replies, arrays included; one for evaluation does not matter."""
        assert not is_averaging(FedAvg(train_metrics_aggr_fn=lambda records, key: MetricRecord()))
        assert is_averaging(FedAvg(evaluate_metrics_aggr_fn=lambda records, key: MetricRecord()))

    def test_only_where_flower_knows_folded_replies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not when somebody has changed Flower's average, before or after."""
        with monkeypatch.context() as patch:
            patch.setattr(fedavg, "aggregate_arrayrecords", lambda records, key: ArrayRecord())
            assert not is_averaging(FedAvg())
            with folded_averages():
                assert not is_averaging(FedAvg())
        assert is_averaging(FedAvg())


def test_memory_does_not_grow_with_replies() -> None:
    """50 replies of 4 MB: beside the one in hand, never more than the sum in float64, two models, and a little."""
    model, tensors = 4 << 20, 16
    random = np.random.default_rng(1)
    arrays = {str(number): random.standard_normal(model // tensors // 4).astype(np.float32) for number in range(tensors)}
    fold = Fold("num-examples")
    replies = []
    tracemalloc.start()
    try:
        for weight in range(1, 51):
            replies.append(reply(arrays, **{"num-examples": weight}))
            if weight == 1:
                in_hand = tracemalloc.get_traced_memory()[0]
            fold.take(replies[-1])
        held, peak = tracemalloc.get_traced_memory()
        averages, _ = FedAvg().aggregate_train(1, replies)
        _, peak_of_all = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert model < in_hand < 1.2 * model
    assert held < 2.6 * model
    assert peak - in_hand < 2.6 * model
    assert peak_of_all - in_hand < 3 * model
    assert averages is not None
    np.testing.assert_allclose(averages["0"].numpy(), arrays["0"], rtol=1e-6)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i4", "?", ">f4", "c8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (4, 5)], ids=str)
def test_arrays_are_read_and_written_as_flower_does(kind: str, shape: tuple[int, ...]) -> None:
    """The same bytes as Flower makes of an array, and the same array of its bytes, whatever its order in memory."""
    values = np.asarray(np.arange(math.prod(shape)).reshape(shape) % 2, dtype=kind)
    for array in (values, np.asfortranarray(values), values[..., ::-1] if values.ndim else values):
        flowers, ours = Array(array), folding._packed(array)
        assert (ours.data, ours.dtype, ours.shape, ours.stype) == (flowers.data, flowers.dtype, flowers.shape, flowers.stype)
        read = folding.read_array(flowers)
        assert read is not None
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read, array)


def test_bytes_that_are_no_array_are_left_to_flower() -> None:
    """Cut, empty, of another kind, with a head that is no head, or that names objects: None, and no error."""
    whole = Array(np.ones((2, 3)))
    head = whole.data[: whole.data.index(b"\n") + 1]
    pickled = head.replace(b"'<f8'", b"'|O'  ")
    for data in (b"", b"\x93NUMPY", whole.data[:-1], head, head[:20], b"junk" * 50, pickled + bytes(48)):
        assert folding.read_array(Array("float64", (2, 3), "numpy.ndarray", data)) is None
    assert folding.read_array(Array("float64", (2, 3), "another", whole.data)) is None
