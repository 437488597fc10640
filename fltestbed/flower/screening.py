"""Flower's arrays, looked at before they are read.

What NumPy's reader does with an array depends on its first bytes: it takes zip archives and pickles for arrays too (the
latter only to refuse them), and makes room for whatever shape the header names before it finds that the numbers are missing.
"""

import io
import math
from functools import lru_cache

import numpy as np
from flwr.app import Message

NUMPY = "numpy.ndarray"
"""Flower's name for what `numpy.save` wrote."""
_MOST_HEADER_BYTES = 10_000
_MAGIC_BYTES, _PREAMBLE_BYTES = 8, 10
"""What numpy's format begins with: magic string and version; then two bytes of length."""


class ScreeningError(ValueError):
    """An array that is not what it is said to be; the text says which and why."""


def check_arrays(message: object) -> Message:
    """The message, if each NumPy array of it holds the numbers that its header promises, and nothing but numbers.

    Raises
    ------
    ScreeningError
        It is not even a message, for one.
    """
    if not isinstance(message, Message):
        raise ScreeningError("it is not a message")
    records = message.content.array_records if message.has_content() else {}
    for name, record in records.items():
        for key, array in record.items():
            if array.stype == NUMPY:
                try:
                    _check_numbers(array.data)
                except ValueError as error:
                    raise ScreeningError(f"array {key[:60]!r} of {name[:60]!r}: {error}") from error
    return message


def _check_numbers(data: bytes) -> None:
    header_bytes = _PREAMBLE_BYTES + int.from_bytes(data[_MAGIC_BYTES : _MAGIC_BYTES + 2], "little")
    promised_bytes, what = _read_header(bytes(data[: min(header_bytes, _MOST_HEADER_BYTES)]))
    if len(data) - header_bytes != promised_bytes:
        raise ValueError(f"{len(data) - header_bytes} bytes of numbers are not {what}")


@lru_cache(maxsize=4096)  # a model's headers are the same in every message
def _read_header(header: bytes) -> tuple[int, str]:
    """How many bytes of numbers follow, and what they are."""
    stream = io.BytesIO(header)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):  # numpy writes it for all that fits it: a header of 64 kB names thousands of fields
        raise ValueError(f"format {version} of numpy is not one of plain numbers")
    shape, _, kind = np.lib.format.read_array_header_1_0(stream, max_header_size=_MOST_HEADER_BYTES)
    if kind.hasobject or kind.subdtype is not None or kind.kind not in "biufc":
        raise ValueError(f"{str(kind)[:40]} is no type of numbers")
    if any(length < 0 for length in shape):
        raise ValueError(f"shape {str(shape)[:60]} is not one of numbers")
    return math.prod(shape) * kind.itemsize, f"of shape {str(shape)[:60]} and type {kind}"
