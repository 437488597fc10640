"""Runs of one configuration together, others apart."""

from dataclasses import replace
from typing import Any

from analysis.groups import groups
from analysis.load import Run


def again(run: Run, run_name: str, **changes: Any) -> Run:
    """Return a repetition of a run, or the same with another configuration."""
    return replace(run, manifest=replace(run.manifest, run=run_name, experiment=run.manifest.experiment | changes))


def test_repetitions_are_one_group_also_with_seeds_of_their_own(runs: list[Run]) -> None:
    """Name and seed do not split a group."""
    found = groups([runs[0], again(runs[0], "r2", seed=2, name="other"), runs[1]])
    assert [(group.label, group.names) for group in found] == [("5g", ["demo-5g", "r2"]), ("wifi", ["demo-wifi"])]
    assert found[0].setting == found[1].setting


def test_another_configuration_is_another_group(runs: list[Run]) -> None:
    """Runs of one link that differ in the number of clients are told apart by it, and are no link against a link."""
    found = groups([runs[0], again(runs[0], "r2", clients=8), runs[1]])
    assert [group.label for group in found] == ["5g, clients 4", "5g, clients 8", "wifi"]
    assert found[0].setting == found[2].setting != found[1].setting


def test_another_rate_is_another_group_of_the_same_setting(runs: list[Run]) -> None:
    """A link's profile belongs to the link."""
    link = runs[0].manifest.data["link"] | {"profile": {"medium": "shared_tdd", "uplink": {"rate-mbit": 5.0}}}
    slow = replace(runs[0], manifest=replace(runs[0].manifest, run="slow", data=runs[0].manifest.data | {"link": link}))
    found = groups([runs[0], slow])
    assert [group.names for group in found] == [["demo-5g"], ["slow"]]
    assert found[1].label == "5g, uplink.rate-mbit 5.0"
    assert found[0].setting == found[1].setting
