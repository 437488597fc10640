"""Campaign files for the tests."""

from pathlib import Path
from typing import Any

import tomli_w

from fltestbed.campaign.plan import Condition, Plan, load_plan
from fltestbed.links import LinkProfile


def write_campaign(folder: Path, *, factors: dict[str, Any], **keys: Any) -> Path:
    """Write a campaign named "lab"; a key is written in kebab-case."""
    data = {"name": "lab", **{key.replace("_", "-"): value for key, value in keys.items()}, "factors": factors}
    file = folder / "campaign.toml"
    file.write_text(tomli_w.dumps(data))
    return file


def write_link(folder: Path, name: str, medium: str = "shared_tdd", up: float = 20, down: float = 80, **more: Any) -> str:
    """Write a link profile; returns what a campaign beside it calls it."""
    data = {"name": name, "medium": medium, **more}
    data |= {"uplink": {"rate-mbit": up, "queue-kb": 100}, "downlink": {"rate-mbit": down, "queue-kb": 100}}
    (folder / f"{name}.toml").write_text(tomli_w.dumps(data))
    return f"{name}.toml"


def profile_of(condition: Condition) -> LinkProfile:
    """The profile of an emulated link."""
    assert condition.profile is not None
    return condition.profile


def plan_of(folder: Path, *, factors: dict[str, Any], **keys: Any) -> Plan:
    """The plan of a campaign."""
    return load_plan(write_campaign(folder, factors=factors, **keys))
