"""Averaging while replies arrive: each is added to a running sum and its arrays are freed.

Flower keeps the replies of all clients until the last has come and averages then. A `Fold` adds up ``weight * array`` when a
reply arrives; when Flower asks for the average, after its own checks, it is the sum over the sum of weights. Metrics stay in
the replies, and Flower aggregates them as ever.

Sums are float64 whatever the arrays are: the rounding of a float32 average is then Flower's alone (each of its products and
partial sums is rounded to float32, ours once, in the end). It costs two models of memory instead of one for each client.

A reply, or an array of it, whose average might come out differently stays whole, and Flower's arithmetic is done on it in
the end: float16 (Flower rounds each step to float16), another shape or type than in the first reply, a weight that is not
positive, bytes that are no array. A reply that Flower refuses it refuses here too: the keys of all replies are still there.
"""

import contextlib
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeGuard, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi, Strategy, fedavg
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords, aggregate_metricrecords
from numpy.typing import NDArray

from fltestbed.errors import TestbedError

_FOLDABLE = frozenset(np.dtype(kind) for kind in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"))
WEIGHT_LIMIT = 2.0**53
_BLOCK = 1 << 16
"""Numbers that are multiplied at once: the product fits a processor's cache, and memory holds no second model."""

_NUMPY = Array(np.zeros(0)).stype
_NPY_1 = np.lib.format.magic(1, 0)
_PREFIX_BYTES = len(_NPY_1) + 2

_AVERAGING = frozenset(strategy.aggregate_train for strategy in (FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi))
"""Flower's own steps that take nothing from the replies but what `FedAvg.aggregate_train` makes of them."""

_fedavg: Any = fedavg  # the module, whose function is replaced for a while


class Fold:
    """The weighted sum of the replies of one round.

    Parameters
    ----------
    weighted_by_key : str
        Key of the MetricRecord that holds a reply's weight.
    """

    def __init__(self, weighted_by_key: str) -> None:
        self._weighted_by_key = weighted_by_key
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._like: dict[str, tuple[np.dtype[Any], tuple[int, ...]] | None] = {}
        self._folded = 0

    def take(self, reply: Message) -> None:
        """Add a reply's arrays to the sum and free them; what cannot be added with certainty stays in the reply."""
        if not reply.has_content():
            return
        records, metrics = list(reply.content.array_records.values()), list(reply.content.metric_records.values())
        if len(records) != 1 or len(metrics) != 1:
            return  # Flower refuses the round because of it
        weight = metrics[0].get(self._weighted_by_key)
        for key in list(records[0]):
            array = records[0][key]
            value = read_array(array)
            like = self._like.setdefault(key, None if value is None else (value.dtype, value.shape))
            if value is None or like != (value.dtype, value.shape) or value.dtype not in _FOLDABLE:
                continue
            if isinstance(weight, int | float) and 0 < weight < WEIGHT_LIMIT:
                self._add(key, value, float(weight))
                records[0][key] = _Folded(array, self)
                self._folded += 1

    def average(self, records: list[RecordDict], weighted_by_key: str) -> ArrayRecord:
        """Average the arrays of all replies, as Flower's `aggregate_arrayrecords` does of whole ones. The sum is used up.

        Raises
        ------
        TestbedError
            These are not the replies that were folded.
        """
        arrays = [next(iter(record.array_records.values())) for record in records]
        folded = sum(isinstance(array, _Folded) for record in arrays for array in record.values())
        if (folded, weighted_by_key) != (self._folded, self._weighted_by_key):
            raise TestbedError(
                f"streaming aggregation: {self._folded} arrays were added up, weighted by {self._weighted_by_key!r}, and "
                f"{folded} are to be averaged, by {weighted_by_key!r}; set strategy.streaming = false for this app"
            )
        weights = [cast(float, next(iter(record.metric_records.values()))[weighted_by_key]) for record in records]
        total = sum(weights)
        factors = [weight / total for weight in weights]
        averages: dict[str, Any] = {}
        for record, factor in zip(arrays, factors, strict=True):
            for key, array in record.items():
                if not isinstance(array, _Folded):
                    part = array.numpy() * factor
                elif key in self._sums:
                    part = self._take_average(key, total)
                else:
                    continue  # it came with the first reply that was folded
                if key in averages:
                    averages[key] += part
                else:
                    averages[key] = part
        return ArrayRecord({key: _packed(np.asarray(averages.pop(key))) for key in list(averages)})

    def _add(self, key: str, value: NDArray[Any], weight: float) -> None:
        if key not in self._sums:
            self._sums[key] = np.asarray(np.multiply(value, weight, dtype=np.float64, order="C"))
            return
        terms, total = value.reshape(-1), self._sums[key].reshape(-1)
        for start in range(0, terms.size, _BLOCK):
            total[start : start + _BLOCK] += np.multiply(terms[start : start + _BLOCK], weight, dtype=np.float64)

    def _take_average(self, key: str, total_weight: float) -> NDArray[Any]:
        """The sum over the weights, of the type that an array times a number has."""
        total, like = self._sums.pop(key), self._like[key]
        kind = total.dtype if like is None else (np.zeros((0,) * total.ndim, like[0]) * 1.0).dtype
        average = total if kind == total.dtype else np.empty(total.shape, kind)
        return np.divide(total, total_weight, out=average, casting="same_kind")  # divided as float64, then rounded


class _Folded(Array):
    """Stands in a reply for an array that is in the sum and whose bytes are gone."""

    def __init__(self, array: Array, fold: Fold) -> None:
        super().__init__(array.dtype, tuple(array.shape), array.stype, b"")
        self.fold = fold

    def numpy(self) -> NDArray[Any]:
        """Fail: a reply that somebody else may read is not folded."""
        raise TestbedError("this reply's arrays were added up and freed; set strategy.streaming = false for this app")


def is_averaging(strategy: Strategy) -> TypeGuard[FedAvg]:
    """Tell whether folding is certain to give what the strategy makes of whole replies.

    It is where Flower's own code alone sees a reply's arrays, and averages them: FedAvg, FedProx, FedAvgM, FedAdagrad,
    FedAdam, FedYogi, and what is derived from them without another `aggregate_train`, check of replies or function for the
    metrics of training; and only while `folded_averages` is in force. A function that was put in the place of the object's
    own `aggregate_train` and has the attribute ``reads_no_replies`` hands the replies on as they are.
    """
    if not isinstance(strategy, FedAvg):
        return False
    steps = {vars(cls)["aggregate_train"] for cls in type(strategy).__mro__ if "aggregate_train" in vars(cls)}
    own = vars(strategy)
    return (
        steps - {Strategy.aggregate_train} <= _AVERAGING
        and getattr(own.get("aggregate_train"), "reads_no_replies", "aggregate_train" not in own)
        and type(strategy)._check_and_log_replies is FedAvg._check_and_log_replies
        and "_check_and_log_replies" not in own
        and strategy.train_metrics_aggr_fn is aggregate_metricrecords
        and _fedavg.aggregate_arrayrecords is _average
    )


@contextmanager
def folded_averages() -> Iterator[None]:
    """Within the block, Flower's FedAvg knows how to average replies that were folded. Whole replies it averages as ever."""
    if _fedavg.aggregate_arrayrecords is not aggregate_arrayrecords:
        yield  # somebody has changed Flower: nothing is certain, and nothing will be folded
        return
    _fedavg.aggregate_arrayrecords = _average
    try:
        yield
    finally:
        _fedavg.aggregate_arrayrecords = aggregate_arrayrecords


def _average(records: list[RecordDict], weighting_metric_name: str) -> ArrayRecord:
    arrays = (array for record in records for arrays in record.array_records.values() for array in arrays.values())
    fold = next((array.fold for array in arrays if isinstance(array, _Folded)), None)
    average: Callable[[list[RecordDict], str], ArrayRecord] = aggregate_arrayrecords if fold is None else fold.average
    return average(records, weighting_metric_name)


def read_array(array: Array) -> NDArray[Any] | None:
    """The array, where its bytes are; None if they are none, which is Flower's to report."""
    with contextlib.suppress(TypeError, ValueError, OSError, EOFError, SyntaxError):
        if array.stype != _NUMPY:
            return None
        head = array.data[: _PREFIX_BYTES + int.from_bytes(array.data[_PREFIX_BYTES - 2 : _PREFIX_BYTES], "little")]
        if head[: len(_NPY_1)] != _NPY_1:
            return array.numpy()
        shape, is_fortran, kind = _layout(head)
        count = math.prod(shape)
        if kind.hasobject or not count:
            return array.numpy()
        values = np.frombuffer(array.data, kind, count, len(head))
        return values.reshape(shape, order="F" if is_fortran else "C")
    return None


def _packed(values: NDArray[Any]) -> Array:
    """What ``Array(values)`` is, with one copy of the numbers in the place of `numpy.save`'s three."""
    if not values.flags.c_contiguous or values.dtype.hasobject:
        return Array(values)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(values))
    data = b"".join((head.getvalue(), values.reshape(-1).view(np.uint8).data))
    return Array(str(values.dtype), tuple(values.shape), _NUMPY, data)


@lru_cache(maxsize=4096)
def _layout(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type that the head of a .npy file states: NumPy evaluates it as Python, once for each tensor here."""
    stream = io.BytesIO(head)
    np.lib.format.read_magic(stream)
    return np.lib.format.read_array_header_1_0(stream)
