"""Random faults: what is drawn, and how a model is held against the replies of which it has to be the average."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fltestbed.bench.faults import average
from fltestbed.bench.faults.app import STORE, model_file, reply_file, store
from fltestbed.bench.faults.checks import Message
from fltestbed.bench.faults.random_faults import CLIENT_FAULTS, CLIENTS, SERVER_FAULTS, RandomOutcome, draw
from fltestbed.bench.faults.random_report import judge
from tests.e2e.conftest import fltestbed


def test_the_same_seed_draws_the_same_faults() -> None:
    """A hundred of them have every kind, every victim, and delays over a whole round."""
    drawn = draw(100, 7)
    assert drawn == draw(100, 7)
    assert drawn != draw(100, 8)
    assert drawn[:10] == draw(10, 7)
    assert {each.fault for each in drawn} == {*CLIENT_FAULTS, *SERVER_FAULTS}
    assert {each.victim for each in drawn} == set(range(CLIENTS))
    assert min(each.delay_s for each in drawn) < 0.2
    assert max(each.delay_s for each in drawn) > 1.4


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two rounds: replies 1 and 5 with weights 10 and 30 average to 4; in the second round nobody answers."""
    (tmp_path / STORE).mkdir()
    for message_id, value, weight in (("a", 1.0, 10), ("b", 5.0, 30), ("late", 99.0, 10)):
        store(reply_file(tmp_path, message_id), [np.full(3, value, np.float32), np.array(weight)])
    for round_, value in enumerate((0.0, 4.0, 4.0)):
        store(model_file(tmp_path, round_), [np.full(3, value, np.float32)])
    names = {"a": True, "b": True, "late": False}
    found = [Message(1, f"client-{name}", name, is_accepted, ()) for name, is_accepted in names.items()]
    found.append(Message(2, "client-a", "c", False, ()))
    monkeypatch.setattr(average, "messages", lambda _: found)
    return tmp_path


def test_the_model_is_the_average_of_the_replies_that_were_accepted(shared: Path) -> None:
    """(10 * 1 + 30 * 5) / 40 = 4; without a reply the model stays."""
    assert average.wrong_averages(shared, shared) == (2, [])


def test_a_model_that_is_off_by_a_millionth_is_found(shared: Path) -> None:
    """As is one that moved although nobody had answered."""
    store(model_file(shared, 1), [np.array([4.0, 4.0, 4.00002], np.float32)])
    count, wrong = average.wrong_averages(shared, shared)
    assert count == 2
    assert wrong[0].startswith("round 1: the model is off the average of 2 replies by up to 2e-05")
    assert wrong[1].startswith("round 2: the model is off the average of 0 replies by up to 2e-05")


def test_a_run_that_does_not_hold_is_a_miss() -> None:
    """One reason is enough, as is a round that was not computed again."""
    outcome = RandomOutcome({"link-down": 50}, {}, 52, 300, 1, 52, 900, 60.0, ())
    assert all(bar.holds for bar in judge(50, outcome))
    assert not all(bar.holds for bar in judge(51, outcome))
    assert not all(bar.holds for bar in judge(50, replace(outcome, averages=51)))
    assert not all(bar.holds for bar in judge(50, replace(outcome, reasons=("left running: x",))))


def test_cells_and_random_faults_are_two_things() -> None:
    """Both at once are refused before anything starts."""
    done = fltestbed("bench", "faults", "--cells", "uplink", "--random", "3")
    assert done.status == 2
    assert "--cells uplink: cells are of the matrix; leave them out with --random" in done.err
