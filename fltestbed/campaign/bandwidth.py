"""Bandwidth and its split between uplink and downlink as factors: a link profile with other rates."""

from dataclasses import dataclass
from typing import Any

from fltestbed.config_file import validate
from fltestbed.links import LinkProfile


@dataclass(frozen=True)
class Change:
    """What a campaign changes of a profile's rates; None leaves it.

    Attributes
    ----------
    scale : float or None
        Factor of all rates.
    total_mbit : float or None
        Rates of uplink and downlink together; of a half-duplex medium the budget that both share.
    ratio : float or None
        Rate of the uplink over rate of the downlink; their sum stays.
    """

    scale: Any = None
    total_mbit: Any = None
    ratio: Any = None


def change_profile(profile: LinkProfile, change: Change) -> LinkProfile:
    """The profile with other rates, and its trace's rates changed in proportion. Delays, losses and queues stay.

    With the sum of the rates ``C`` (scaled or given) and the ratio ``r``, the uplink gets ``C r / (1 + r)`` and the downlink
    ``C / (1 + r)``.

    Raises
    ------
    ConfigError
        A rate is out of a profile's range.
    """
    up, down = profile.uplink.rate_mbit, profile.downlink.rate_mbit
    half_duplex = profile.medium == "half_duplex"
    total = up if half_duplex else up + down
    scale = change.total_mbit / total if change.total_mbit is not None else change.scale or 1.0
    new_up, new_down = up * scale, down * scale
    if change.ratio is not None:
        total = new_up + new_down
        new_up, new_down = total * change.ratio / (1 + change.ratio), total / (1 + change.ratio)
    data = profile.model_dump(mode="json", by_alias=True, exclude_none=True)
    for way, rate in (("uplink", new_up), ("downlink", new_down)):
        data[way]["rate-mbit"] = rate
    for entry in data["trace"]:
        for key, by in (("uplink-mbit", new_up / up), ("downlink-mbit", new_down / down)):
            if key in entry:
                entry[key] *= by
    return validate(LinkProfile, data, f"link {profile.name}")
