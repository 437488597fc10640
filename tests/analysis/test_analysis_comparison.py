"""What was not the same between runs."""

from dataclasses import replace
from typing import Any

from analysis.comparison import Difference, differences
from analysis.load import Run


def with_manifest(run: Run, **entries: Any) -> Run:
    """Return the run as if its manifest had said something else."""
    data = run.manifest.data | entries
    return replace(run, manifest=replace(run.manifest, data=data, run=str(data["run"])))


def test_repetitions_of_a_campaign_differ_in_what_really_differed(campaign: list[Run]) -> None:
    """The nine runs share everything but the state of the checkout, which was edited before the last two."""
    (found,) = differences(campaign)
    assert found.setting == "git.changed"
    assert found.within == ""
    assert dict(found.values)["True"] == "stored-wifi-3, stored-ethernet-3"


def test_links_differ_by_their_nature_and_not_within_a_link(campaign: list[Run]) -> None:
    """Rates that differ between links are no difference; those of two runs over one link are one, with the link's name."""
    one, two = campaign[0], campaign[1]
    link = dict(two.manifest.data["link"])
    link["profile"] = link["profile"] | {"uplink": link["profile"]["uplink"] | {"rate-mbit": 10.0}}
    found = differences([one, with_manifest(two, link=link), campaign[3]])
    assert found == [
        Difference("link.profile.uplink.rate-mbit", (("20.0", "stored-5g-1"), ("10.0", "stored-5g-2")), "5g"),
    ]


def test_hosts_are_compared_by_name_and_without_their_stamps(campaign: list[Run]) -> None:
    """Another kernel on the same host is a difference, another stamp or clock error of it is not."""
    hosts = {name: dict(host) for name, host in campaign[1].manifest.data["hosts"].items()}
    hosts["client-1"] |= {"kernel": "6.12", "wall_offset_s": 9.0, "raw_ns": 1}
    found = differences([campaign[0], with_manifest(campaign[1], hosts=hosts)])
    assert found == [Difference("hosts.client-1.kernel", (("not set", "stored-5g-1"), ("6.12", "stored-5g-2")), "5g")]


def test_configuration_model_and_versions_are_compared_over_all_links(campaign: list[Run]) -> None:
    """Each entry that differs is named with both values, nested keys with dots."""
    data = campaign[3].manifest.data
    other = with_manifest(
        campaign[3],
        experiment=data["experiment"] | {"training": data["experiment"]["training"] | {"batch-size": 32}},
        versions=data["versions"] | {"flwr": "1.41.1"},
        transport="objects",
        status="failed",
    )
    found = {difference.setting: dict(difference.values) for difference in differences([campaign[0], other])}
    assert found == {
        "status": {"complete": "stored-5g-1", "failed": "stored-wifi-1"},
        "experiment.training.batch-size": {"16": "stored-5g-1", "32": "stored-wifi-1"},
        "transport": {"bundle": "stored-5g-1", "objects": "stored-wifi-1"},
        "versions.flwr": {"1.41.0": "stored-5g-1", "1.41.1": "stored-wifi-1"},
    }


def test_one_run_differs_from_nothing(campaign: list[Run]) -> None:
    """There is nothing to compare."""
    assert differences(campaign[:1]) == []


def test_a_host_that_some_runs_lack_is_not_a_difference_of_its_own(campaign: list[Run], stored: dict[str, Run]) -> None:
    """A run with two clients differs from one with three in its number of clients, and in nothing about the third."""
    found = differences([campaign[0], stored["stored-5g-two"]])
    assert [difference.setting for difference in found] == ["git.changed", "experiment.clients"]
