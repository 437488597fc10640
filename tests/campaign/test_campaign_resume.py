"""What a campaign's folder holds is kept: complete runs in place, others under a name that says what became of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from fltestbed.campaign.resume import elapsed_by_condition, set_aside, survey
from fltestbed.campaign.schedule import PlannedRun, schedule
from fltestbed.errors import ConfigError
from tests.campaign.campaign_files import plan_of, profile_of


@pytest.fixture
def runs(tmp_path: Path) -> tuple[PlannedRun, ...]:
    return schedule(plan_of(tmp_path, factors={"link": ["5g"]}, repetitions=5))


def leave(folder: Path, run: PlannedRun, status: str, **entries: Any) -> Path:
    """A run folder that ended with this status."""
    place = folder / run.name
    place.mkdir(parents=True)
    link = {"profile": profile_of(run.condition).model_dump(mode="json", by_alias=True)}
    manifest = {"status": status, "experiment": run.condition.experiment.resolved, "link": link, **entries}
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place


def test_each_state_is_told_from_the_others(tmp_path: Path, runs: tuple[PlannedRun, ...]) -> None:
    """A manifest that still says running is of a run that was killed; a folder without one cannot be read."""
    folder = tmp_path / "lab"
    leave(folder, runs[0], "complete", campaign={"elapsed_s": 12.5})
    leave(folder, runs[1], "failed", reason="no client is left")
    leave(folder, runs[2], "running")
    (folder / runs[3].name).mkdir()
    found = survey(runs, folder)
    assert [found[run.name].state for run in runs] == ["complete", "failed", "killed", "unreadable", "to do"]
    assert found[runs[1].name].reason == "no client is left"
    assert elapsed_by_condition(runs, found) == {"5g": [12.5]}


def test_what_is_set_aside_is_whole_and_never_overwritten(tmp_path: Path, runs: tuple[PlannedRun, ...]) -> None:
    """The second of a name gets the next number."""
    folder = tmp_path / "lab"
    places = []
    for text in ("first", "second"):
        (leave(folder, runs[0], "running") / "phases.csv").write_text(text)
        places.append(set_aside(runs[0], folder, "killed"))
    assert [place.name for place in places] == ["5g-r1-killed-1", "5g-r1-killed-2"]
    assert {place.parent for place in places} == {tmp_path / "lab-incomplete"}
    assert [(place / "phases.csv").read_text() for place in places] == ["first", "second"]
    assert list(folder.iterdir()) == []


def test_a_run_of_another_configuration_is_not_taken_for_this_one(tmp_path: Path, runs: tuple[PlannedRun, ...]) -> None:
    """All such runs in one message, each with the key and both values; a key that an older run lacks is no difference."""
    folder = tmp_path / "lab"
    older = runs[0].condition.experiment.resolved
    del older["probes"]
    leave(folder, runs[0], "complete", experiment=older)
    assert survey(runs, folder)[runs[0].name].state == "complete"
    for run in runs[1:3]:
        leave(folder, run, "complete", experiment=older | {"rounds": 99})
    with pytest.raises(ConfigError) as error:
        survey(runs, folder)
    assert len(str(error.value).splitlines()) == 2
    assert "experiment.rounds: 99 there, 3 now" in str(error.value)
