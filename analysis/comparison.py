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

Settings = Sequence[tuple[str, Mapping[str, str]]]
"""Of each run its name and its settings by dotted key."""


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
    found = list(_compare([(run.manifest.run, _general(run)) for run in runs], ""))
    for link in links(runs):
        own = [run for run in runs if link_of(run) == link]
        found += _compare(
            [(run.manifest.run, dict(flattened({"link": run.manifest.data.get("link") or {}}))) for run in own], link
        )
        hosts = [(run.manifest.run, run.manifest.data.get("hosts") or {}) for run in own]
        for host in dict.fromkeys(host for _, each in hosts for host in each):
            found += _compare([(name, _host(host, each[host])) for name, each in hosts if host in each], link)
    return found


def by_value(settings: Settings) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Each setting that is not the same in all runs: its values, in their order, with the names of their runs."""
    for key in dict.fromkeys(key for _, each in settings for key in each):
        values: dict[str, list[str]] = {}
        for name, each in settings:
            values.setdefault(each.get(key, "not set"), []).append(name)
        if len(values) > 1:
            yield key, values


def flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Entries of nested tables by dotted key."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "none" if value is None else str(value)


def _general(run: Run) -> dict[str, str]:
    data = {key: value for key, value in run.manifest.data.items() if key not in (*_OF_EACH_RUN, "link", "hosts")}
    return dict(flattened(data))


def _host(name: str, host: Mapping[str, Any]) -> dict[str, str]:
    return dict(flattened({key: host[key] for key in _OF_HOSTS if key in host}, f"hosts.{name}."))


def _compare(settings: Settings, within: str) -> Iterator[Difference]:
    for key, values in by_value(settings):
        if key not in _ASKED_FOR:
            yield Difference(key, tuple((value, ", ".join(names)) for value, names in values.items()), within)
