"""What a campaign's file asks for, and every mistake in it at once."""

from pathlib import Path
from typing import Any

import pytest

from fltestbed.campaign.plan import load_plan, run_name
from fltestbed.config_file import shipped_configs
from fltestbed.errors import ConfigError
from tests.campaign.campaign_files import plan_of, profile_of, write_campaign, write_link


def test_conditions_are_the_product_of_the_levels(tmp_path: Path) -> None:
    """Every level with every other; each condition's experiment has its levels, and what no factor names stays."""
    factors = {"link": ["5g", "wifi"], "clients": [2, 4], "transport": ["bundle", "objects"]}
    plan = plan_of(tmp_path, factors=factors, experiment={"rounds": 7, "model": {"name": "cnn"}})
    assert len(plan.conditions) == 8
    assert len({condition.label for condition in plan.conditions}) == 8
    last = plan.conditions[-1]
    assert last.levels == {"link": "wifi", "clients": 4, "transport": "objects"}
    assert last.label == "wifi-c4-objects"
    assert (last.experiment.clients, last.experiment.transport, last.experiment.rounds) == (4, "objects", 7)
    assert last.experiment.model.name == "cnn"
    assert last.experiment.name == "lab"
    assert run_name(last, 3, 10) == "wifi-c4-objects-r03"


def test_a_label_depends_on_the_given_factors_alone(tmp_path: Path) -> None:
    """More levels of a factor leave the names of the runs that are there already."""
    few = plan_of(tmp_path, factors={"link": ["5g"], "model": ["cnn"]})
    more = plan_of(tmp_path, factors={"link": ["5g", "wifi"], "model": ["cnn", "squeezenet"]})
    assert few.conditions[0].label == more.conditions[0].label == "5g-cnn"


@pytest.mark.parametrize(
    ("factors", "up", "down"),
    [
        ({"bandwidth": [0.5]}, 10, 40),  # of 20 and 80
        ({"bandwidth-mbit": [50]}, 10, 40),  # 100 in all become 50
        ({"uplink-downlink-ratio": [1.0]}, 50, 50),  # the sum stays
        ({"bandwidth": [0.5], "uplink-downlink-ratio": [1.5]}, 30, 20),  # 50 in all, 3 to 2
    ],
)
def test_bandwidth_and_ratio_change_the_rates(tmp_path: Path, factors: dict[str, Any], up: float, down: float) -> None:
    """Computed by hand from a cell of 20 up and 80 down; a client's own rates in the trace change in proportion."""
    trace = [{"client": 0, "at-s": 1, "uplink-mbit": 2, "downlink-mbit": 8}]
    link = write_link(tmp_path, "cell", trace=trace)
    (condition,) = plan_of(tmp_path, factors={"link": [link], **factors}).conditions
    profile = profile_of(condition)
    assert (profile.uplink.rate_mbit, profile.downlink.rate_mbit) == pytest.approx((up, down))
    assert profile.trace[0].uplink_mbit == pytest.approx(up / 10)
    assert profile.trace[0].downlink_mbit == pytest.approx(down / 10)
    assert profile.uplink.queue_kb == 100


def test_half_duplex_has_one_budget(tmp_path: Path) -> None:
    """A given bandwidth is that budget; a ratio cannot be and is left out with its reason."""
    air = write_link(tmp_path, "air", "half_duplex", up=60, down=60)
    (condition,) = plan_of(tmp_path, factors={"link": [air], "bandwidth-mbit": [30]}).conditions
    assert (profile_of(condition).uplink.rate_mbit, profile_of(condition).downlink.rate_mbit) == (30, 30)
    cell = write_link(tmp_path, "cell")
    plan = plan_of(tmp_path, factors={"link": [air, cell], "uplink-downlink-ratio": [0.5]})
    assert [condition.label for condition in plan.conditions] == ["cell-u0.5"]
    assert plan.left_out == ("air-u0.5: uplink and downlink of a half-duplex medium share one budget, "
                             "so there is no ratio to set",)  # fmt: skip


def test_a_competing_flow_is_a_factor(tmp_path: Path) -> None:
    """With and without the flow of the experiment; on a dedicated medium only without."""
    flow = {"direction": "downlink", "rate-mbit": 3.0}
    factors = {"link": ["5g", "ethernet"], "competing-flow": [False, True]}
    plan = plan_of(tmp_path, factors=factors, experiment={"competing-flow": flow})
    found = {condition.label: condition.experiment.competing_flow for condition in plan.conditions}
    assert set(found) == {"5g-alone", "5g-flow", "ethernet-alone"}
    assert found["5g-alone"] is None
    assert found["5g-flow"] is not None
    assert (found["5g-flow"].direction, found["5g-flow"].rate_mbit) == ("downlink", 3.0)
    assert [text.partition(":")[0] for text in plan.left_out] == ["ethernet-flow"]


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    """A wrong link, model and key of the experiment: one message, a line each, with the key."""
    file = write_campaign(
        tmp_path,
        factors={"link": ["5gg", "wifi"], "model": ["squeezent", "cnn"], "clients": [2, 300]},
        experiment={"name": "x", "rounds": 0, "trainin": {}},
    )
    with pytest.raises(ConfigError) as error:
        load_plan(file)
    assert "factors.clients.1: input should be less than or equal to 250, not 300" in str(error.value)
    file = write_campaign(
        tmp_path,
        factors={"link": ["5gg", "wifi"], "model": ["squeezent", "cnn"]},
        experiment={"name": "x", "rounds": 0, "trainin": {}},
    )
    with pytest.raises(ConfigError) as error:
        load_plan(file)
    lines = str(error.value).splitlines()
    assert len(lines) == 5
    assert all(line.startswith(str(file)) for line in lines)
    for text in (
        "experiment.name: not here",
        'factors.link: 5gg: neither a file nor a shipped name',
        "factors.model: model.name: unknown name 'squeezent'; did you mean \"squeezenet\"?",
        "experiment: rounds: input should be greater than or equal to 1, not 0",
        'experiment: trainin: unknown key; did you mean "training"?',
    ):  # fmt: skip
        assert any(text in line for line in lines), text


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"factors": {"link": []}}, "factors.link: tuple should have at least 1 item"),
        ({"factors": {"link": ["5g", "5g"]}}, "level '5g' stands there twice"),
        ({"factors": {"link": ["5g"], "bandwidth": [1.0], "bandwidth-mbit": [9.0]}}, "give bandwidth or bandwidth-mbit"),
        ({"factors": {"link": ["5g"], "bandwith": [1.0]}}, 'factors.bandwith: unknown key; did you mean "bandwidth"?'),
        ({"factors": {"link": ["ethernet"], "competing-flow": [True]}}, "no combination is left: ethernet-flow"),
        ({"factors": {"link": ["5g"]}, "repetitions": 0}, "repetitions: input should be greater than or equal to 1, not 0"),
        ({"factors": {"link": ["5g"]}, "app": "nowhere"}, "is no folder of a Flower app"),
        ({"factors": {"link": ["5g"]}, "experiment": {"strategy": {"name": "FedAvgg"}}}, "unknown name 'FedAvgg'"),
        (
            {"factors": {"link": ["5g"], "bandwidth": [1e6]}},
            "uplink.rate-mbit: input should be less than or equal to 100000",
        ),
        ({"factors": {"link": ["5g"], "model": ["a_module_with_a_name." + "x" * 50 + ":f"]}}, "is too long for a run"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, keys: dict[str, Any], expected: str) -> None:
    """With the key and what is allowed."""
    with pytest.raises(ConfigError) as error:
        plan_of(tmp_path, **keys)
    assert expected in str(error.value)


def test_two_profiles_of_one_name_are_refused(tmp_path: Path) -> None:
    """Results could not tell them apart."""
    write_link(tmp_path, "5g")
    with pytest.raises(ConfigError, match="two profiles are named 5g"):
        plan_of(tmp_path, factors={"link": ["5g", "5g.toml"]})


@pytest.mark.parametrize("name", sorted(file.stem for file in (shipped_configs() / "campaigns").glob("*.toml")))
def test_shipped_campaigns_can_be_planned(name: str) -> None:
    """By their name, with nothing left out."""
    plan = load_plan(Path(name))
    assert plan.campaign.name == name
    assert plan.left_out == ()
