"""The dictionary of a run folder is whole and says the same thing once."""

import re
from pathlib import Path

import pytest

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.measure.derived import CLIENTS_TABLE, DERIVED, ROUNDS_TABLE, TIMELINE_TABLE
from fltestbed.measure.schema import PHASES, PHASES_TABLE, RECORDED, SERVER_PHASES
from fltestbed.measure.table import Table

ALL = [pytest.param(table, id=table.name) for table in RECORDED + DERIVED]


@pytest.mark.parametrize("table", ALL)
def test_columns_are_explained_and_named_once(table: Table) -> None:
    """Every column has a meaning, no name comes twice, and the first is the run."""
    assert len(set(table.header)) == len(table.header)
    assert table.header[0] == "run"
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", column.name) for column in table.columns)
    assert all(len(column.meaning) > 5 and not column.meaning.startswith("[") for column in table.columns)


@pytest.mark.parametrize("table", ALL)
def test_units_and_types_agree(table: Table) -> None:
    """Nanoseconds and bytes are integers, seconds and bits a second are not."""
    for column in table.columns:
        if column.name.endswith(("_ns", "_bytes")):
            assert column.kind == "int", column.name
        if column.name.endswith(("_s", "_bps")):
            assert column.kind == "float", column.name


def test_every_phase_has_its_columns_in_the_derived_tables() -> None:
    """Per client in clients.csv, mean and maximum in rounds.csv, and server phases in rounds.csv alone."""
    clients, rounds = set(CLIENTS_TABLE.header), set(ROUNDS_TABLE.header)
    for phase in PHASES:
        if phase in SERVER_PHASES:
            assert f"{phase}_s" in rounds - clients
        else:
            assert f"{phase}_s" in clients
            assert {f"{phase}_mean_s", f"{phase}_max_s"} <= rounds


def test_the_timeline_has_the_columns_of_the_phases() -> None:
    """It is the same record with a better mapping."""
    assert [(c.name, c.kind) for c in TIMELINE_TABLE.columns] == [(c.name, c.kind) for c in PHASES_TABLE.columns]


def test_the_phases_of_the_dictionary_are_those_of_the_column() -> None:
    """The meaning of the column `phase` lists exactly PHASES, in their order."""
    (meaning,) = (column.meaning for column in PHASES_TABLE.columns if column.name == "phase")
    assert tuple(meaning.removeprefix("one of ").split(", ")) == PHASES


def test_stamps_are_of_the_raw_clock() -> None:
    """Two looks do not go back, and the raw clock is not the wall clock."""
    first, second = SYSTEM_CLOCK.raw_ns(), SYSTEM_CLOCK.raw_ns()
    assert first <= second
    uptime_ns = float(Path("/proc/uptime").read_text().split()[0]) * 1e9
    assert SYSTEM_CLOCK.wall_ns() > 1.5e18 > uptime_ns
