"""How a CSV file of a run folder is described: its columns, their types and their meanings."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["str", "int", "float", "bool"]


@dataclass(frozen=True)
class Column:
    """One column: its name (which carries the unit), its type and its meaning.

    An empty cell means that the value does not exist or could not be known; `meaning` says which.
    """

    name: str
    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Table:
    """One CSV file of a run folder."""

    name: str
    about: str
    columns: tuple[Column, ...]

    @cached_property  # asked for with each row
    def header(self) -> tuple[str, ...]:
        """Column names, in the order of the file."""
        return tuple(column.name for column in self.columns)


_KINDS: dict[str, Kind] = {"_ns": "int", "_bytes": "int", "_s": "float", "_bps": "float"}


def columns_of(text: str) -> tuple[Column, ...]:
    """Read ``name [type] meaning`` lines; the type follows from the unit in the name unless it is given."""
    columns = []
    for line in text.strip().splitlines():
        name, _, meaning = line.strip().partition(" ")
        kind: Kind = next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), "str")
        for candidate in ("str", "int", "float", "bool"):
            if meaning.startswith(f"[{candidate}] "):
                kind = candidate
                meaning = meaning.removeprefix(f"[{candidate}] ")
        columns.append(Column(name, kind, meaning.strip()))
    return tuple(columns)
