"""Tensors in fewer bytes: half precision, eight bits, zstd; and back.

``fp16``
    IEEE 754 half precision, as NumPy rounds to it: relative error at most 2**-11 above 6.1e-5, absolute 3e-8 below.
``int8``
    Affine (asymmetric) quantisation to 256 levels between the smallest and the largest value: ``x = low + step * q``, q from
    0 to 255, rounded to nearest, so an error of at most half a step. The scheme is that of Jacob et al. (arXiv:1712.05877),
    with the real number ``low`` in the place of an integer zero point; one pair (low, step) for each output channel is
    Krishnamoorthi's (arXiv:1806.08342). A channel is an index of the first axis; a vector, and a tensor with fewer than 16
    numbers a channel, has one pair for all.
``none``
    The numbers as they are; for zstd alone.

zstd goes over what the above leaves and is dropped where it saves nothing: mantissas of trained weights hardly compress.

Layout, little-endian: u8 codec, u8 flags (1: zstd), f64 squared error, f64 squared norm, then the payload: numbers, after
(f32 low, f32 step) of each channel for int8.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

CodecName = Literal["none", "fp16", "int8"]
CODECS: tuple[CodecName, ...] = ("none", "fp16", "int8")
"""By number, as on the wire."""

LEVELS = 255
FEWEST_OF_A_CHANNEL = 16
_HEAD = struct.Struct("<BBdd")
_ZSTD = 1
_PAIR_BYTES = 8
_MOST_AXES = 32


class CompressionError(ValueError):
    """Bytes that are no compressed tensor of the shape that they are said to have; the text says why."""


@dataclass(frozen=True)
class Codec:
    """How one direction is compressed.

    Attributes
    ----------
    name : str
        none, fp16 or int8.
    zstd_level : int or None
        1 (fast) to 19 (small); None without zstd.
    """

    name: CodecName = "none"
    zstd_level: int | None = None

    @property
    def is_off(self) -> bool:
        """Whether tensors are left as they are."""
        return self.name == "none" and self.zstd_level is None

    def encode(self, values: NDArray[Any]) -> bytes | None:
        """A tensor in fewer bytes; None for one that has to stay as it is.

        That is a tensor that is not of real numbers; for fp16 and int8 also one that holds NaN, infinity or a number that is
        too large, and, without zstd, one of integers; with zstd, one that it does not make smaller.
        """
        if values.dtype.kind not in "biuf" or values.size == 0:
            return None
        is_real = values.dtype.kind == "f" and values.dtype.itemsize > 2
        codec: CodecName = self.name if is_real else "none"
        payload = _ENCODERS[codec](values)
        if payload is None:
            return None
        error = norm = 0.0
        if codec != "none":
            error = _square(values - _decode(payload, codec, values.dtype, values.shape))
            norm = _square(values)
        flags = 0
        if self.zstd_level is not None:
            packed = _zstd_compress(payload, self.zstd_level)
            if len(packed) < len(payload):
                payload, flags = packed, _ZSTD
        if codec == "none" and not flags:
            return None
        return _HEAD.pack(CODECS.index(codec), flags, error, norm) + payload


PLAIN = Codec()


def squares(data: bytes) -> tuple[float, float]:
    """Squared error and squared norm of an encoded tensor, as its sender gave them; finite and not negative.

    Raises
    ------
    CompressionError
    """
    _, _, error, norm, _ = _read_head(data)
    return error, norm


def restored_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor takes when it is restored.

    Raises
    ------
    CompressionError
        No tensor is of this type or shape.
    """
    return _type(dtype).itemsize * _count(shape)


def decode(data: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The tensor of `dtype` and `shape` that `data` encodes. Never more memory than that tensor takes twice over.

    Raises
    ------
    CompressionError
        The bytes are no such tensor; what is inflated is bounded by the shape before it is.
    """
    codec, flags, _, _, payload = _read_head(data)
    kind = _type(dtype)
    count = _count(shape)
    if codec != "none" and (kind.kind != "f" or kind.itemsize < 4):
        raise CompressionError(f"{codec} of {dtype}: only float32 and float64 are quantised")
    expected = count * {"none": kind.itemsize, "fp16": 2, "int8": 1}[codec]
    expected += _PAIR_BYTES * _channels(shape) if codec == "int8" else 0
    if flags & _ZSTD:
        payload = _zstd_decompress(payload, expected)
    if len(payload) != expected:
        raise CompressionError(f"{len(payload)} bytes of {codec} for shape {shape}, which takes {expected}")
    return _decode(payload, codec, kind, shape)


def _decode(payload: bytes, codec: CodecName, kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if codec == "none":
        return np.frombuffer(payload, kind.newbyteorder("<")).astype(kind).reshape(shape)
    if codec == "fp16":
        return np.frombuffer(payload, "<f2").astype(kind).reshape(shape)
    channels = _channels(shape)
    pairs = np.frombuffer(payload, "<f4", 2 * channels).reshape(channels, 2).astype(kind)
    levels = np.frombuffer(payload, np.uint8, offset=_PAIR_BYTES * channels).reshape(channels, -1)
    restored = levels.astype(kind)
    with np.errstate(over="ignore", invalid="ignore"):  # a hostile pair gives infinity, as the sender could have sent itself
        restored *= pairs[:, 1:]
        restored += pairs[:, :1]
    return restored.reshape(shape)


def _plain(values: NDArray[Any]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _halves(values: NDArray[Any]) -> bytes | None:
    with np.errstate(over="ignore", invalid="ignore"):
        halves = values.astype("<f2")
    return halves.tobytes() if np.isfinite(halves).all() else None


def _levels(values: NDArray[Any]) -> bytes | None:
    rows = np.ascontiguousarray(values).reshape(_channels(values.shape), -1)
    low, high = (edge.astype(np.float64) for edge in (rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)))
    with np.errstate(over="ignore", invalid="ignore"):
        pairs = np.hstack([low, (high - low) / LEVELS]).astype("<f4")
        span = (high - low).astype(np.float32)
    if not (np.isfinite(pairs).all() and np.isfinite(span).all()):
        return None
    lows, steps = (column.astype(values.dtype) for column in (pairs[:, :1], pairs[:, 1:]))
    levels = np.subtract(rows, lows)
    np.divide(levels, steps, out=levels, where=steps > 0)
    np.rint(levels, out=levels)
    np.clip(levels, 0, LEVELS, out=levels)
    levels[(steps <= 0)[:, 0]] = 0  # all numbers of the channel are `low`
    return bytes(pairs.tobytes() + levels.astype(np.uint8).tobytes())


_ENCODERS: dict[CodecName, Callable[[NDArray[Any]], bytes | None]] = {"none": _plain, "fp16": _halves, "int8": _levels}


def _channels(shape: tuple[int, ...]) -> int:
    count = math.prod(shape)
    return shape[0] if len(shape) > 1 and count >= FEWEST_OF_A_CHANNEL * shape[0] else 1


def _square(values: NDArray[Any]) -> float:
    flat = values.astype(np.float64, copy=False).ravel()
    return float(np.einsum("i,i->", flat, flat))  # not dot: BLAS would start threads beside a training PyTorch


def _type(dtype: str) -> np.dtype[Any]:
    try:
        kind = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError) as error:
        raise CompressionError(f"{dtype[:40]!r} is no type of numbers") from error
    if kind.kind not in "biuf" or kind.subdtype is not None:
        raise CompressionError(f"{dtype[:40]!r} is no type of numbers")
    return kind


def _count(shape: tuple[int, ...]) -> int:
    if len(shape) > _MOST_AXES or any(length < 1 for length in shape):
        raise CompressionError(f"a tensor of shape {str(shape)[:80]} is not compressed")
    return math.prod(shape)


def _read_head(data: bytes) -> tuple[CodecName, int, float, float, bytes]:
    if len(data) < _HEAD.size:
        raise CompressionError(f"{len(data)} bytes are no compressed tensor")
    number, flags, error, norm = _HEAD.unpack_from(data)
    if number >= len(CODECS) or flags & ~_ZSTD:
        raise CompressionError(f"a compressed tensor of an unknown kind ({number}, {flags})")
    if not (math.isfinite(error) and math.isfinite(norm) and error >= 0 and norm >= 0):
        raise CompressionError("a compressed tensor whose error is not a number")
    return CODECS[number], flags, error, norm, data[_HEAD.size :]


def _zstd_compress(payload: bytes, level: int) -> bytes:
    import zstandard  # noqa: PLC0415  # only where it was asked for

    return zstandard.ZstdCompressor(level=level).compress(payload)


def _zstd_decompress(payload: bytes, expected: int) -> bytes:
    """Inflate exactly one frame that says itself how long it is: neither more nor less than `expected`."""
    import zstandard  # noqa: PLC0415  # as above

    try:
        announced = zstandard.frame_content_size(payload)
        if announced != expected:
            raise CompressionError(f"zstd announces {announced} bytes where {expected} belong")
        return zstandard.ZstdDecompressor().decompress(payload, max_output_size=expected, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CompressionError(f"zstd: {error}") from error
