"""One CSV file into typed columns, quickly: Arrow parses it in parallel, and a text that repeats is kept once.

A column of texts comes as a category: a number a row, of a byte or two where there are few different texts. A million rows
of phases.csv, 210 MB as text, need a fraction of that, and less if only some of their columns are asked for.
"""

import csv as text_csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc
from pyarrow import csv

from fltestbed.measure.table import Kind

DTYPES: dict[Kind, Any] = {"int": "Int64", "float": "float64", "str": pd.StringDtype("python"), "bool": "boolean"}
"""pandas types of the columns: an empty cell is NA, NaN in a float column."""

REPEATED = pd.CategoricalDtype()
"""pandas type of texts in a table of many rows and few texts; its categories are in the order of the alphabet."""

_ARROW = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.dictionary(pa.int32(), pa.string()),
    "bool": pa.bool_(),
}
EMPTY = "is empty"
_TAIL_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 19
_NAMED = 3


@dataclass(frozen=True)
class Part:
    """What is wanted of a file.

    Attributes
    ----------
    columns : tuple of str
        Names of known columns.
    rows : pyarrow.compute.Expression, optional
        Condition on those columns; all rows if left out.
    """

    columns: tuple[str, ...]
    rows: pc.Expression | None = None


@dataclass(frozen=True)
class Read:
    """What a file gave.

    Attributes
    ----------
    frame : DataFrame
        The known columns that were asked for and that the file has, in its order.
    oddities : list of str
        What a reader should know: a torn line, columns that are missing or unknown, rows that stand there twice.
    """

    frame: pd.DataFrame
    oddities: list[str]


def read_columns(file: Path, kinds: dict[str, Kind], part: Part | None = None) -> Read:
    """Read a file that starts with a header.

    Parameters
    ----------
    file : Path
    kinds : dict of str to Kind
        Type of each known column; the others are left out.
    part : Part, optional
        What to return; everything if left out. The cells of other columns are not looked at, unless rows are equal in what
        was read: those that stand there more than once are equal in all known columns.

    Raises
    ------
    ValueError
        A cell is not of its column's type, or the file is not CSV.
    """
    whole_bytes, torn = _whole_lines(file)
    oddities = ["the last line is torn and was left out"] if torn else []
    if not whole_bytes:
        return Read(pd.DataFrame(), [*oddities, EMPTY])
    short: list[str] = []

    def leave_out(row: csv.InvalidRow) -> str:
        short.append(f"{row.text[:40]!r} has {row.actual_columns} cells, not {row.expected_columns}")
        return "skip"

    header = _header(file)
    names = [name for name in header if name in kinds and (part is None or name in part.columns)]
    with pa.OSFile(str(file)) as source:
        table = csv.read_csv(
            source.get_stream(0, whole_bytes),
            read_options=csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=csv.ParseOptions(newlines_in_values=_is_quoted(file), invalid_row_handler=leave_out),
            convert_options=csv.ConvertOptions(
                column_types={name: _ARROW[kind] for name, kind in kinds.items()},
                include_columns=names,
                null_values=[""],
                strings_can_be_null=True,
                true_values=["1", "true", "True"],
                false_values=["0", "false", "False"],
            ),
        )
    if part is not None and part.rows is not None:
        table = table.filter(part.rows)
    if short:
        short.sort()  # lines are read side by side
        more = f" and {len(short) - _NAMED} more" if len(short) > _NAMED else ""
        oddities.append(f"{len(short)} torn lines were left out: {'; '.join(short[:_NAMED])}{more}")
    if absent := [name for name in kinds if name not in header]:
        oddities.append(f"no column {', '.join(absent)}; taken as empty")
    if unknown := [name for name in header if name not in kinds]:
        oddities.append(f"unknown column {', '.join(unknown)}; ignored")
    columns = {name: table.column(name) for name in names}
    del table
    frame, again = _to_pandas(columns, kinds)
    release_unused()
    if again.any() and part is not None and set(part.columns) != set(kinds):  # they may differ in the other columns
        return read_columns(file, kinds, Part(tuple(kinds), part.rows))
    if again.any():
        oddities.append(f"{int(again.sum())} rows stand there more than once; each was counted once")
        frame = frame[~again].reset_index(drop=True)
    return Read(frame, oddities)


def release_unused() -> None:
    """Give back to the system what Arrow and the C library hold of freed arrays: tens of megabytes after a large table."""
    pa.default_memory_pool().release_unused()
    pa.system_memory_pool().release_unused()


def _whole_lines(file: Path) -> tuple[int, bool]:
    """How many bytes there are until the end of the last whole line, and whether anything follows it."""
    size = file.stat().st_size
    with file.open("rb") as content:
        end = size
        while end:
            start = max(0, end - _TAIL_BYTES)
            content.seek(start)
            newline = content.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1, start + newline + 1 < size
            end = start
    return 0, size > 0


def _header(file: Path) -> list[str]:
    with file.open(encoding="utf-8", newline="") as lines:
        return next(text_csv.reader(lines), [])


def _is_quoted(file: Path) -> bool:
    """Whether any cell is quoted: only then can one hold the end of a line.

    Where none can, Arrow need not read the text twice to find where it may cut it.
    """
    block = bytearray(_BLOCK_BYTES)
    with file.open("rb", buffering=0) as content:
        while size := content.readinto(block):
            if block.find(b'"', 0, size) >= 0:
                return True
    return False


def _to_pandas(columns: dict[str, Any], kinds: dict[str, Kind]) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Columns of `DTYPES`, and which rows repeat an earlier one."""
    fingerprint = np.zeros(len(next(iter(columns.values()), ())), dtype=np.uint64)
    arrays: dict[str, Any] = {}
    for name in list(columns):
        arrays[name], numbers = _CONVERT[kinds[name]](columns.pop(name))  # freed as soon as it is converted
        fingerprint = (fingerprint ^ numbers.view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        fingerprint ^= fingerprint >> np.uint64(32)
    frame = pd.DataFrame(arrays, copy=False)
    again = pd.Series(fingerprint).duplicated(keep=False).to_numpy(copy=True)
    if again.any():  # equal fingerprints are nearly always equal rows: look
        again[again] = frame[again].duplicated().to_numpy()
    return frame, again


def _integers(column: pa.ChunkedArray) -> tuple[Any, NDArray[np.int64]]:
    values = column.fill_null(0).to_numpy()
    return pd.arrays.IntegerArray(values, column.is_null().to_numpy()), values


def _floats(column: pa.ChunkedArray) -> tuple[Any, NDArray[np.float64]]:
    values = column.to_numpy()
    return values, values


def _flags(column: pa.ChunkedArray) -> tuple[Any, NDArray[np.int64]]:
    values, empty = column.fill_null(False).to_numpy(), column.is_null().to_numpy()
    return pd.arrays.BooleanArray(values, empty), values.astype(np.int64) + 2 * empty


def _texts(column: pa.ChunkedArray) -> tuple[Any, NDArray[np.int64]]:
    """A category whose texts are sorted, so that what is grouped or sorted by it is as if by the texts."""
    column = column.unify_dictionaries()
    different = np.array(column.chunk(0).dictionary.to_pylist() if column.num_chunks else [], dtype=object)
    order = np.argsort(different)
    places = np.full(len(different) + 1, -1, dtype=np.min_scalar_type(-len(different) - 1))
    places[order] = np.arange(len(different))
    codes = np.concatenate(
        [places[:0], *(places[chunk.indices.fill_null(len(different)).to_numpy()] for chunk in column.chunks)]
    )
    return pd.Categorical.from_codes(codes, pd.Index(different[order], dtype=object)), codes.astype(np.int64)


_CONVERT = {"int": _integers, "float": _floats, "bool": _flags, "str": _texts}
