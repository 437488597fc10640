"""Recorded runs for the analysis."""

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.derive import derive
from analysis.load import Run, load_run
from tests.analysis.synthetic_runs import LINKS, Synthetic


@pytest.fixture(scope="session")
def recorded() -> list[Synthetic]:
    """One run over each of three links, four clients, eight rounds, with the truth beside it."""
    return [Synthetic(link) for link in LINKS]


@pytest.fixture(scope="session")
def folders(recorded: list[Synthetic], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of `recorded`; a test that changes one makes its own with `folder`."""
    runs = tmp_path_factory.mktemp("runs")
    return [run.write(runs) for run in recorded]


@pytest.fixture(scope="session")
def runs(folders: list[Path]) -> list[Run]:
    """The runs of `folders`, derived."""
    return [derive(load_run(folder)) for folder in folders]


@pytest.fixture
def folder(recorded: list[Synthetic], tmp_path: Path) -> Path:
    """A folder of the run over 5G that the test may spoil."""
    return recorded[0].write(tmp_path)


@pytest.fixture
def edit(folder: Path) -> Callable[[str, Callable[[str], str]], None]:
    """Replace the text of a file of `folder`."""

    def replace(name: str, change: Callable[[str], str]) -> None:
        file = folder / name
        before = file.read_text(encoding="utf-8")
        after = change(before)
        assert after != before, "the edit changed nothing"
        file.write_text(after, encoding="utf-8")

    return replace
