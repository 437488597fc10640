"""Recorded runs for the analysis."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.derive import derive
from analysis.load import Run, load_run
from tests.analysis.synthetic_runs import LINKS, Synthetic

STORED = Path(__file__).with_name("stored")


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


@pytest.fixture(scope="session")
def stored_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies of the real runs in ``stored`` by their name, for the analysis writes into the folders that it reads."""
    copies = tmp_path_factory.mktemp("stored")
    return {path.name: shutil.copytree(path, copies / path.name) for path in sorted(STORED.iterdir()) if path.is_dir()}


@pytest.fixture(scope="session")
def stored(stored_folders: dict[str, Path]) -> dict[str, Run]:
    """The runs of `stored_folders`, derived."""
    return {name: derive(load_run(path)) for name, path in stored_folders.items()}


@pytest.fixture(scope="session")
def campaign(stored: dict[str, Run]) -> list[Run]:
    """Nine real runs: 5g, wifi and ethernet, three repetitions each."""
    return [stored[f"stored-{link}-{number}"] for link in ("5g", "wifi", "ethernet") for number in (1, 2, 3)]


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
