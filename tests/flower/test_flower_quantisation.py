"""Tensors in fewer bytes, and back: hand-computed values, and bytes that somebody made up."""

import math
import struct
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from fltestbed.flower.quantisation import Codec, CompressionError, decode, restored_bytes, squares

HEAD = struct.Struct("<BBdd")


def through(codec: Codec, values: NDArray[Any]) -> NDArray[Any]:
    data = codec.encode(values)
    assert data is not None
    return decode(data, str(values.dtype), values.shape)


def test_int8_puts_256_levels_between_the_extremes() -> None:
    """0 to 255 in steps of 1 is exact; of 0, 100.4, 255 the middle one is rounded to the nearest level, 100."""
    assert through(Codec("int8"), np.arange(256, dtype=np.float32)).tolist() == list(range(256))
    restored = through(Codec("int8"), np.array([0.0, 100.4, 255.0], np.float32))
    assert restored.tolist() == [0.0, 100.0, 255.0]


def test_int8_has_a_pair_for_each_channel_of_a_matrix() -> None:
    """Row 0 spans 0 to 15, row 1 0 to 15000: each is as exact as its own span allows, at 8 bytes a row more."""
    rows = np.stack([np.arange(16), 1000 * np.arange(16)]).astype(np.float32)
    restored = through(Codec("int8"), rows)
    assert np.abs(restored - rows).max(axis=1) == pytest.approx([0, 0], abs=15000 / 255 / 2)
    assert np.abs(restored[0] - rows[0]).max() <= 15 / 255 / 2 + 1e-6
    assert len(Codec("int8").encode(rows) or b"") == HEAD.size + 2 * 8 + 32


def test_int8_of_few_numbers_a_channel_shares_one_pair() -> None:
    """A matrix of 4 x 2 would pay 8 bytes for 2 numbers: one pair for all."""
    assert len(Codec("int8").encode(np.arange(8, dtype=np.float32).reshape(4, 2)) or b"") == HEAD.size + 8 + 8


def test_int8_of_equal_numbers_is_exact() -> None:
    """The step is 0: no division by it, and the number itself comes back."""
    assert through(Codec("int8"), np.full(5, 0.1, np.float32)).tolist() == np.full(5, 0.1, np.float32).tolist()


@given(npst.arrays(np.float32, npst.array_shapes(max_dims=3), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_int8_is_off_by_half_a_step_at_most(values: NDArray[np.float32]) -> None:
    """Of the span of all numbers, whatever the shape; float32's own rounding comes on top, and 255 of its smallest numbers
    (1.4e-45), under which a span has no step.
    """
    restored = through(Codec("int8"), values)
    span = float(values.max()) - float(values.min())
    rounding = 4e-7 * float(np.abs(values).max()) + 255 * 1.5e-45
    assert np.abs(restored.astype(float) - values).max() <= span / 255 * 0.501 + rounding


def test_fp16_rounds_as_ieee_754_does() -> None:
    """1/3 has the half-precision value 1365/4096; 2049 lies between 2048 and 2050 and goes to the even one."""
    assert through(Codec("fp16"), np.array([1 / 3, 2049.0], np.float32)).tolist() == [1365 / 4096, 2048.0]


def test_the_error_travels_with_the_tensor() -> None:
    """Of 0, 100.4, 255: off by 0.4, so a squared error of 0.16 of 75105.16."""
    error, norm = squares(Codec("int8").encode(np.array([0.0, 100.4, 255.0], np.float32)) or b"")
    assert error == pytest.approx(0.16, rel=1e-4)
    assert norm == pytest.approx(75105.16)


@pytest.mark.parametrize("name", ["fp16", "int8"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_tensor_that_is_not_finite_stays_as_it_is(name: str, bad: float) -> None:
    """Quantised it would lose its other numbers, or the fact that it diverged."""
    assert Codec(name).encode(np.array([1.0, bad], np.float32)) is None  # type: ignore[arg-type]


def test_what_the_type_cannot_hold_stays_as_it_is() -> None:
    """70,000 is more than half precision has; a span of 6e38 is more than float32 has."""
    assert Codec("fp16").encode(np.array([70_000.0], np.float32)) is None
    assert Codec("int8").encode(np.array([-3e38, 3e38], np.float32)) is None


def test_integers_are_not_quantised() -> None:
    """A batch counter is what it is; zstd alone may take it."""
    counts = np.arange(1000, dtype=np.int64)
    assert Codec("int8").encode(counts) is None
    assert through(Codec("int8", 3), counts).tolist() == counts.tolist()


def test_zstd_is_used_where_it_saves() -> None:
    """A thousand zeros shrink; random bytes do not, and stay whole."""
    zeros, noise = np.zeros(1000, np.float32), np.random.default_rng(1).integers(0, 256, 1000, np.uint8)
    assert len(Codec("none", 3).encode(zeros) or b"") < 100
    assert Codec("none", 3).encode(noise) is None
    assert through(Codec("fp16", 19), zeros).tolist() == zeros.tolist()


@given(npst.arrays(npst.floating_dtypes(sizes=(32, 64)) | npst.integer_dtypes(), npst.array_shapes(max_dims=3)))
def test_zstd_alone_changes_no_bit(values: NDArray[np.float32]) -> None:
    """NaN, infinities and negative zeros included, in any byte order; what does not shrink is not encoded."""
    data = Codec("none", 1).encode(values)
    if data is not None:
        native = values.astype(values.dtype.newbyteorder("="))
        assert decode(data, str(native.dtype), values.shape).tobytes() == native.tobytes()


def packed(codec: int, payload: bytes, flags: int = 1) -> bytes:
    return HEAD.pack(codec, flags, 0.0, 1.0) + payload


BOMB = zstandard.ZstdCompressor().compress(b"\0" * (64 << 20))
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(b"\0" * 400)


@pytest.mark.parametrize(
    ("data", "dtype", "shape", "says"),
    [
        (packed(0, BOMB), "float32", (100,), "announces 67108864 bytes where 400 belong"),
        (packed(0, UNSIZED), "float32", (100,), "zstd announces -1 bytes|zstd announces 18446744073709551615 bytes"),
        (packed(0, b"no frame"), "float32", (2,), "zstd"),
        (packed(0, zstandard.compress(b"\0" * 400) + b"more"), "float32", (100,), "zstd"),
        (packed(0, zstandard.compress(b"\1" * 400)[:-3]), "float32", (100,), "zstd"),
        (packed(2, b"\0" * 107, 0), "float32", (100,), "107 bytes of int8 for shape"),
        (packed(1, b"\0" * 4, 0), "int32", (2,), "only float32 and float64 are quantised"),
        (packed(3, b"", 0), "float32", (1,), "unknown kind"),
        (packed(0, b"", 2), "float32", (1,), "unknown kind"),
        (b"short", "float32", (1,), "no compressed tensor"),
        (packed(0, b"\0" * 8, 0), "O", (1,), "no type of numbers"),
        (packed(0, b"\0" * 8, 0), "(2,)f4", (1,), "no type of numbers"),
        (packed(0, b"\0" * 8, 0), "nonsense", (1,), "no type of numbers"),
        (packed(0, b"", 0), "float32", (0,), "of shape"),
        (packed(0, b"", 0), "float32", (-1, -1), "of shape"),
        (packed(0, b"", 0), "float32", (1,) * 65, "of shape"),
        (HEAD.pack(1, 0, math.nan, 1.0) + b"\0\0", "float32", (1,), "not a number"),
    ],
)
def test_bytes_that_are_no_such_tensor_are_refused(data: bytes, dtype: str, shape: tuple[int, ...], says: str) -> None:
    """With the reason, and before more is inflated than the shape allows."""
    with pytest.raises(CompressionError, match=says):
        decode(data, dtype, shape)


def test_what_a_tensor_will_take_is_known_from_its_shape() -> None:
    """Python's own numbers: no overflow for a shape that somebody made up."""
    assert restored_bytes("float32", (1 << 40, 1 << 40)) == 4 << 80
