"""A recorder that keeps its rows, with the columns checked as the real one does."""

from collections.abc import Mapping
from typing import Any

from fltestbed.measure.recorder import Recorder, Value
from fltestbed.measure.schema import TABLES


class Rows(Recorder):
    """Rows by table, in the order in which they were written."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}

    def write(self, table: str, row: Mapping[str, Value]) -> None:
        """Keep the row."""
        assert row.keys() <= set(TABLES[table].header), f"{table}: {row.keys() - set(TABLES[table].header)}"
        self.tables.setdefault(table, []).append(dict(row))

    def close(self) -> None:
        """There is nothing to close."""

    def __getitem__(self, table: str) -> list[dict[str, Any]]:
        return self.tables.get(table, [])

    def phases(self, client: str | None = None) -> list[dict[str, Any]]:
        """Rows of phases.csv, of one client if it is named."""
        return [row for row in self["phases.csv"] if client is None or row.get("client", "") == client]
