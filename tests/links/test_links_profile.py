"""Link profiles: the shipped ones, and what a bad one says."""

from pathlib import Path

import pytest

from fltestbed.errors import ConfigError
from fltestbed.links import LinkProfile, load_link

GOOD = """
name = "lab"
medium = "{medium}"
[uplink]
rate-mbit = {up}
queue-kb = 100
delay-ms = 5
[downlink]
rate-mbit = 20
queue-kb = 100
{more}
"""


def write(folder: Path, *, medium: str = "shared_tdd", up: object = 10, more: str = "") -> Path:
    file = folder / "lab.toml"
    file.write_text(GOOD.format(medium=medium, up=up, more=more))
    return file


@pytest.mark.parametrize("name", ["5g", "wifi", "ethernet"])
def test_shipped_profiles_load_and_name_their_sources(name: str) -> None:
    """Each shipped profile is valid, carries its own name and has the source of its figures in a comment."""
    profile = load_link(name)
    text = (Path(__file__).parents[2] / "configs" / "links" / f"{name}.toml").read_text()
    assert profile.name == name
    assert "https://" in text
    assert "ssumption" in text


def test_shipped_uplinks_are_ordered() -> None:
    """For four clients at once, 5G's uplink is the slowest and Ethernet's the fastest."""
    cell, access_point, switch = (load_link(name) for name in ("5g", "wifi", "ethernet"))
    assert cell.medium == "shared_tdd"
    assert access_point.medium == "half_duplex"
    assert switch.medium == "dedicated"
    assert 2 * cell.uplink.rate_mbit < access_point.uplink.rate_mbit < switch.uplink.rate_mbit


def test_interface_follows_from_the_name(tmp_path: Path) -> None:
    """Without an interface the name and a 0 are used, cut to what the kernel takes (15 characters)."""
    assert load_link(write(tmp_path)).interface == "lab0"
    file = write(tmp_path)
    file.write_text(file.read_text().replace('"lab"', '"a-link-with-a-long-name"'))
    assert load_link(file).interface == "a-link-with-a-0"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"up": -3}, "uplink.rate-mbit: input should be greater than 0, not -3"),
        ({"up": '"fast"'}, "uplink.rate-mbit"),
        ({"more": "loss-percent = 101"}, "downlink.loss-percent: input should be less than or equal to 100, not 101"),
        ({"more": "queu-kb = 1"}, 'did you mean "queue-kb"?'),
        ({"more": "delay-ms = 1\njitter-ms = 2"}, "jitter-ms 2 is larger than delay-ms 1"),
        ({"medium": "half_duplex"}, "give uplink and downlink the same rate-mbit"),
        ({"medium": "shared"}, "medium"),
        ({"more": "[[trace]]\nclient = 0\nat-s = 1"}, "gives no rate"),
        ({"more": "[[trace]]\nclient = -1\nat-s = 1\nuplink-mbit = 1"}, "trace.0.client"),
    ],
)
def test_bad_profile_says_file_key_and_what_is_allowed(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    """A profile that cannot be used is one error that names the file, the key and what would be right."""
    file = write(tmp_path, **changes)  # type: ignore[arg-type] # one dictionary for three types
    with pytest.raises(ConfigError) as caught:
        load_link(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_unknown_profile_lists_the_shipped_ones() -> None:
    """A name that is not shipped is answered with those that are, the nearest first."""
    with pytest.raises(ConfigError, match=r'5g, ethernet, .*wifi.*did you mean "ethernet"'):
        load_link("ethernte")


def test_profile_as_plain_data_can_be_read_back() -> None:
    """What the manifest keeps of a profile is a profile again."""
    profile = load_link("5g")
    assert LinkProfile.model_validate(profile.model_dump(mode="json", by_alias=True)) == profile
