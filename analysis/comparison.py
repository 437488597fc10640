"""What was not the same between runs, from all that their manifests say."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.load import Run
from analysis.measures import link_of, links

_OF_EACH_RUN = (
    "run",
    "run_id",
    "reason",
    "zero_raw_ns",
    "zero_wall",
    "interface_counters",
    "experiment_as_given",
    "campaign",
)
"""Entries that no two runs have in common."""

_ASKED_FOR = ("experiment.name", "experiment.link", "link.clients")
"""What a comparison is about, or what another entry says."""

_OF_HOSTS = (
    "model",
    "kernel",
    "machine",
    "python",
    "cpu",
    "cores",
    "memory_bytes",
    "governor",
    "clock_source",
    "congestion_control",
    "offloads",
    "packages",
    "interface",
    "partition",
)
"""What a host is; the rest of its entry is what happened on it."""

Settings = Mapping[str, Mapping[str, str]]
"""By the name of the run, then by dotted key."""


@dataclass(frozen=True)
class Difference:
    """One setting that was not the same.

    Attributes
    ----------
    setting : str
        Dotted key of the manifest.
    values : tuple of (str, str)
        Each value with the names of its runs.
    within : str
        The link whose runs differ; "" if all runs were compared.
    """

    setting: str
    values: tuple[tuple[str, str], ...]
    within: str = ""


def differences(runs: Sequence[Run]) -> list[Difference]:
    """Name every entry of the manifests that is not the same in all runs.

    What belongs to a link (profile, backend) is compared among the runs of that link; what a host is, among the runs of a
    link that have the host. Names, stamps and counters are left out.
    """
    found = list(_compare({run.manifest.run: _general(run) for run in runs}, ""))
    for link in links(runs):
        own = [run for run in runs if link_of(run) == link]
        found += _compare(
            {run.manifest.run: dict(_flat({"link": run.manifest.data.get("link") or {}}, "")) for run in own}, link
        )
        hosts = {run.manifest.run: run.manifest.data.get("hosts") or {} for run in own}
        for host in dict.fromkeys(host for each in hosts.values() for host in each):
            found += _compare({name: _host(host, each[host]) for name, each in hosts.items() if host in each}, link)
    return found


def _general(run: Run) -> dict[str, str]:
    data = {key: value for key, value in run.manifest.data.items() if key not in (*_OF_EACH_RUN, "link", "hosts")}
    return dict(_flat(data, ""))


def _host(name: str, host: Mapping[str, Any]) -> dict[str, str]:
    return dict(_flat({key: host[key] for key in _OF_HOSTS if key in host}, f"hosts.{name}."))


def _compare(settings: Settings, within: str) -> Iterator[Difference]:
    for key in dict.fromkeys(key for each in settings.values() for key in each):
        by_value: dict[str, list[str]] = {}
        for name, each in settings.items():
            by_value.setdefault(each.get(key, "not set"), []).append(name)
        if len(by_value) > 1 and key not in _ASKED_FOR:
            values = tuple((value, ", ".join(names)) for value, names in by_value.items())
            yield Difference(key, values, within)


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "none" if value is None else str(value)
