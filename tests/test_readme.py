"""What the README says is so."""

import re
import tomllib
from pathlib import Path

from fltestbed.campaign.plan import Campaign, Factors
from fltestbed.config import Experiment
from fltestbed.config_file import validate
from fltestbed.learning.strategies import build_strategy
from fltestbed.links import LinkProfile
from fltestbed.measure.derived import DERIVED
from fltestbed.measure.dictionary import dictionary
from fltestbed.measure.schema import PHASES, RECORDED

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_dictionary_of_columns_is_up_to_date() -> None:
    """Make it again with ``python -m fltestbed.measure.dictionary > analysis/columns.md``."""
    assert (ROOT / "analysis" / "columns.md").read_text() == dictionary()


def test_the_readme_names_every_table_and_phase() -> None:
    """A reader finds each file of a run folder and each phase of a round, and the way to the columns."""
    assert "](analysis/columns.md)" in README
    files = [table.name for table in (*RECORDED, *DERIVED)]
    assert [name for name in (*files, *PHASES) if f"`{name}`" not in README] == []


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """Files and pictures that the README points to are in the repository."""
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert len(targets) > 5
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_examples_in_the_readme_are_what_they_say() -> None:
    """The experiment, the link and the campaign can be loaded, and the strategy exists with these arguments."""
    example, link, campaign = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    experiment = validate(Experiment, tomllib.loads(example), "README.md")
    assert type(build_strategy(experiment)).__name__ == "FedProx"
    assert validate(LinkProfile, tomllib.loads(link), "README.md").interface == "dsl0"
    factors = validate(Campaign, tomllib.loads(campaign), "README.md").factors
    assert set(factors.model_dump(exclude_none=True)) == {*Factors.model_fields} - {"bandwidth_mbit"}
