"""How long a run should take."""

from pathlib import Path
from typing import Any

import pytest

from fltestbed.campaign.estimate import MODEL_BYTES, ROUND_OVERHEAD_S, estimate, paced_seconds, round_seconds
from fltestbed.campaign.schedule import PlannedRun, schedule
from fltestbed.learning.models import build_model
from tests.campaign.campaign_files import plan_of, profile_of, write_link

PACING = {"seconds-per-epoch": [2.0, 3.0, 9.0]}


def only_run(folder: Path, medium: str = "shared_tdd", **experiment: Any) -> PlannedRun:
    up, down = (20, 20) if medium == "half_duplex" else (20, 80)
    link = write_link(folder, "lab", medium, up, down)
    keys = {"clients": 2, "rounds": 4, "model": {"name": "cnn"}, **experiment}
    return schedule(plan_of(folder, factors={"link": [link]}, repetitions=1, experiment=keys))[0]


@pytest.mark.parametrize(
    ("medium", "expected"),
    [("dedicated", 0.0566 + 0.01415), ("shared_tdd", 2 * (0.0566 + 0.01415)), ("half_duplex", 2 * (0.0566 + 0.0566))],
)
def test_a_round_is_transfers_and_pace(tmp_path: Path, medium: str, expected: float) -> None:
    """135,336 bytes are 1.132 Mbit on the wire: 56.6 ms at 20 Mbit/s, 14.15 ms at 80; twice that for two on one medium."""
    run = only_run(tmp_path, medium, pacing=PACING, training={"local-epochs": 2})
    seconds = round_seconds(run.condition.experiment, profile_of(run.condition))
    assert seconds == pytest.approx(expected + 2 * 3.0 + ROUND_OVERHEAD_S, abs=1e-4)


def test_a_pace_of_batches_counts_them(tmp_path: Path) -> None:
    """1,797 digits: 0.8 of them for 2 clients, 0.8 of that to train on: 575.04, 18 batches of 32 at 0.1 s."""
    run = only_run(tmp_path, pacing={"seconds-per-batch": [0.1]}, training={"batch-size": 32})
    assert paced_seconds(run.condition.experiment) == pytest.approx(1.8)


def test_finished_runs_of_the_condition_know_better(tmp_path: Path) -> None:
    """Their mean, and how many they were; runs of other conditions say nothing."""
    run = only_run(tmp_path)
    found = estimate(run, {"lab": [30.0, 40.0], "other": [1.0]}, app=False)
    assert (found.seconds, found.measured) == (35.0, 2)
    assert estimate(run, {"other": [1.0]}, app=False).measured == 0


def test_what_cannot_be_known_is_not_guessed(tmp_path: Path) -> None:
    """An app of the user's, or a model that is not the toolkit's."""
    assert estimate(only_run(tmp_path), {}, app=True).seconds is None
    assert estimate(only_run(tmp_path, model={"name": "some.module:model"}), {}, app=False).seconds is None


@pytest.mark.parametrize("name", MODEL_BYTES)
def test_the_sizes_are_the_models(name: str) -> None:
    """Parameters and floating-point buffers, as they are sent."""
    state = build_model(name, 10, 0).state_dict()
    assert sum(tensor.numel() * tensor.element_size() for tensor in state.values()) == MODEL_BYTES[name]
