"""The order favours no condition, is the same each time, and survives more repetitions."""

from pathlib import Path

from fltestbed.campaign.schedule import manifest_entry, schedule
from tests.campaign.campaign_files import plan_of

FACTORS = {"link": ["5g", "wifi", "ethernet"], "clients": [1, 2]}


def names(folder: Path, seed: int = 1, repetitions: int = 4) -> list[str]:
    return [run.condition.label for run in schedule(plan_of(folder, factors=FACTORS, seed=seed, repetitions=repetitions))]


def test_each_block_is_one_repetition_of_every_condition(tmp_path: Path) -> None:
    """Six conditions: of the runs 1 to 6, 7 to 12... each holds all six."""
    runs = schedule(plan_of(tmp_path, factors=FACTORS, repetitions=4))
    assert [run.place for run in runs] == list(range(1, 25))
    for block in range(4):
        part = runs[6 * block : 6 * block + 6]
        assert {run.repetition for run in part} == {block + 1}
        assert len({run.condition.label for run in part}) == 6


def test_blocks_are_shuffled_each_in_its_own_way(tmp_path: Path) -> None:
    """Neither the order of the file nor one order in all blocks."""
    given = [condition.label for condition in plan_of(tmp_path, factors=FACTORS).conditions]
    order = names(tmp_path)
    blocks = [tuple(order[start : start + 6]) for start in range(0, 24, 6)]
    assert len({tuple(given), *blocks}) == 5


def test_the_order_depends_on_the_seed_alone(tmp_path: Path) -> None:
    """The same seed, the same order; another seed, another one."""
    assert names(tmp_path, seed=3) == names(tmp_path, seed=3) != names(tmp_path, seed=4)


def test_more_repetitions_come_after_the_first_ones(tmp_path: Path) -> None:
    """A campaign that is made longer keeps what it has."""
    assert names(tmp_path, repetitions=9)[:24] == names(tmp_path, repetitions=4)


def test_a_manifest_says_where_in_the_campaign_its_run_was(tmp_path: Path) -> None:
    """Campaign, levels, repetition and place."""
    plan = plan_of(tmp_path, factors=FACTORS, repetitions=2, published="hayek-2025")
    entry = manifest_entry(plan, schedule(plan)[7])
    assert (entry["name"], entry["repetition"], entry["place"], entry["places"]) == ("lab", 2, 8, 12)
    assert set(entry["levels"]) == {"link", "clients"}
    assert entry["published"] == "hayek-2025"
