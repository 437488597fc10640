"""What a strategy carries from round to round, as plain data and arrays, and back: no pickle.

Flower's strategies keep their state in attributes: FedAdam's moments in `m_t` and `v_t`, FedAvgM's `momentum_vector`, the
adaptive `clipping_norm` of differential privacy, the strategy that such a one wraps. So the attributes of any strategy are
walked. Covered are numbers, strings, bytes, NumPy arrays and scalars, Flower's arrays and records, generators of random
numbers, lists, tuples, sets and dictionaries of those; and, attribute by attribute, a strategy or a dataclass that is an
attribute itself. The two generators of the process, of `random` and `numpy.random`, go along: Flower samples nodes from one.

Not covered, and named in `Snapshot.left_out`: any other object (a PyTorch tensor or optimizer, an open file). Nor is what an
app keeps outside of its strategy, of which nothing is known here. Functions and configuration are no state: the app makes
them again.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fltestbed.config_file import Section

_DEEPEST = 16
_PLAIN = (type(None), bool, int, float, str, bytes, list, tuple, dict, set, frozenset, np.ndarray)
"""Of a class's own attributes, those that an object may hide with one of the same name: none is a method or a property."""
_RECORDS: dict[str, Callable[[Any], Any]] = {
    "ArrayRecord": ArrayRecord, "ConfigRecord": ConfigRecord, "MetricRecord": MetricRecord,
}  # fmt: skip
_COLLECTIONS: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_GENERATORS = ("random", "numpy.random")

Blobs = dict[str, NDArray[Any] | bytes]


class NotCovered(Exception):
    """A value that is not part of a snapshot."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a strategy at one moment; later changes of the strategy do not reach it.

    Attributes
    ----------
    tree : dict
        JSON.
    blobs : dict of str to ndarray or bytes
        What the tree names instead of holding it.
    left_out : tuple of str
        Attributes whose values are not covered, dotted.
    """

    tree: dict[str, Any]
    blobs: Blobs
    left_out: tuple[str, ...]


def snapshot(strategy: Strategy) -> Snapshot:
    """Copy the state of a strategy and of the process's two generators of random numbers."""
    writer = _Writer()
    attributes = writer.attributes(strategy, "")
    generators = {"random": random.getstate(), "numpy.random": np.random.get_state(legacy=False)}  # noqa: NPY002  # apps use it
    tree = {
        "class": type(strategy).__qualname__,
        "attributes": attributes,
        **{name: writer.value(generators[name], 0) for name in _GENERATORS},
    }
    return Snapshot(tree, writer.blobs, tuple(writer.left_out))


def restore(strategy: Strategy, tree: Mapping[str, Any], blobs: Mapping[str, NDArray[Any] | bytes]) -> None:
    """Put a snapshot's state into a strategy that was made anew, and into the process's generators.

    Raises
    ------
    NotCovered
        It is the state of another class of strategy.
    """
    if tree["class"] != type(strategy).__qualname__:
        raise NotCovered(f"it is the state of {tree['class']}, and the app has made {type(strategy).__qualname__}")
    reader = _Reader(blobs)
    reader.attributes(strategy, tree["attributes"])
    random.setstate(reader.value(tree["random"]))
    np.random.set_state(reader.value(tree["numpy.random"]))  # noqa: NPY002  # what strategies draw from


def _is_walked(value: Any) -> bool:
    return isinstance(value, Strategy) or (is_dataclass(value) and not isinstance(value, type))


class _Writer:
    def __init__(self) -> None:
        self.blobs: Blobs = {}
        self.left_out: list[str] = []

    def attributes(self, owner: Any, path: str, depth: int = 0) -> dict[str, Any]:
        """Write what is covered of the attributes of an object."""
        written = {}
        for name, value in vars(owner).items():
            if isinstance(value, Section) or (callable(value) and not _is_walked(value)):
                continue
            try:
                if _is_walked(value) and depth < _DEEPEST:
                    inner = self.attributes(value, f"{path}{name}.", depth + 1)
                    written[name] = {"object": inner}
                else:
                    written[name] = self.value(value, depth)
            except NotCovered:
                self.left_out.append(f"{path}{name}")
        return written

    def value(self, value: Any, depth: int) -> Any:  # noqa: PLR0911  # one kind of value after the other
        """Write one value, or raise `NotCovered`."""
        if depth > _DEEPEST:
            raise NotCovered
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, np.generic):
            return {"scalar": self._blob(np.asarray(value))}
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return {"array": self._blob(value.copy())}
        if isinstance(value, bytes):
            return {"bytes": self._blob(value)}
        if isinstance(value, Array):
            facts = {"dtype": value.dtype, "shape": list(value.shape), "stype": value.stype}
            return {"flower": self._blob(value.data), **facts}
        if type(value).__name__ in _RECORDS and isinstance(value, ArrayRecord | ConfigRecord | MetricRecord):
            return {"record": type(value).__name__, "items": self.value(dict(value), depth + 1)}
        if isinstance(value, np.random.Generator):
            return {"generator": self.value(dict(value.bit_generator.state), depth + 1)}
        if isinstance(value, random.Random):
            return {"random": self.value(value.getstate(), depth + 1)}
        if type(value) is dict:
            pairs = [[self.value(key, depth + 1), self.value(inner, depth + 1)] for key, inner in value.items()]
            return {"dict": pairs}
        if type(value).__name__ in _COLLECTIONS and type(value) in _COLLECTIONS.values():
            return {"items": [self.value(inner, depth + 1) for inner in value], "type": type(value).__name__}
        raise NotCovered

    def _blob(self, blob: NDArray[Any] | bytes) -> str:
        name = f"state/{len(self.blobs)}"
        self.blobs[name] = blob
        return name


class _Reader:
    def __init__(self, blobs: Mapping[str, NDArray[Any] | bytes]) -> None:
        self._blobs = blobs

    def attributes(self, owner: Any, written: Mapping[str, Any]) -> None:
        """Set attributes; a strategy or dataclass that is one keeps its place and gets its own."""
        for name, value in written.items():
            if hasattr(type(owner), name) and not isinstance(getattr(type(owner), name), _PLAIN):
                raise NotCovered(f"{name} is no attribute that holds state")
            there = getattr(owner, name, None)
            if isinstance(value, dict) and "object" in value:
                self.attributes(there, value["object"])
            elif isinstance(value, dict) and "generator" in value and isinstance(there, np.random.Generator):
                there.bit_generator.state = self.value(value["generator"])
            elif isinstance(value, dict) and "random" in value and isinstance(there, random.Random):
                there.setstate(self.value(value["random"]))
            else:
                setattr(owner, name, self.value(value))

    def value(self, value: Any) -> Any:  # noqa: PLR0911  # one kind of value after the other
        """Read one value."""
        if not isinstance(value, dict):
            return value
        if "scalar" in value:
            return np.asarray(self._blobs[value["scalar"]])[()]
        for kind in ("array", "bytes"):
            if kind in value:
                return self._blobs[value[kind]]
        if "flower" in value:
            return Array(
                dtype=value["dtype"], shape=tuple(value["shape"]), stype=value["stype"],
                data=bytes(self._blobs[value["flower"]]),
            )  # fmt: skip
        if "record" in value:
            return _RECORDS[value["record"]](self.value(value["items"]))
        if "dict" in value:
            return {self.value(key): self.value(inner) for key, inner in value["dict"]}
        if "items" in value:
            return _COLLECTIONS[value["type"]](self.value(inner) for inner in value["items"])
        raise NotCovered(f"what is {', '.join(value)}?")
